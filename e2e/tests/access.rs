//! Who may send requests: by address, header and certificate, seen at a real Envoy.

use std::net::SocketAddr;

use anyhow::Result;
use chancery_e2e::{
    client::{fetch_tls_as, get, request},
    document::{listener, resource, route, service},
    over_both_protocols,
    port::free_port,
    scene::Scene,
    upstream::Upstream,
    wait::{PATIENCE, until},
};
use http::Method;
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// A host of the routes here.
const HOST: &str = "shop.example.com";

over_both_protocols!(Delta in delta: addresses_and_headers_decide, a_listener_decides_for_all_of_its_rules, certificates_decide);

fn rule(path: &str, access: &Value) -> Value {
    json!({ "match": { "path": { "exact": path } }, "to": [{ "service": "shop" }], "access": access })
}

async fn addresses_and_headers_decide(scene: &Scene) -> Result<()> {
    let upstream = Upstream::start("shop").await?;
    let rules = json!([
        rule("/here", &json!({ "allow": [{ "networks": ["127.0.0.0/8"] }] })),
        rule("/there", &json!({ "allow": [{ "networks": ["10.0.0.0/8", "2001:db8::/32"] }] })),
        rule(
            "/but",
            &json!({ "allow": [{ "networks": ["127.0.0.1"] }], "deny": [{ "headers": [{ "name": "x-bad", "present": true }] }] }),
        ),
        rule(
            "/both",
            &json!({ "allow": [{ "networks": ["127.0.0.1"], "headers": [{ "name": "x-key", "exact": "7" }] }] })
        ),
        rule("/nobody", &json!({ "deny": [{ "networks": ["0.0.0.0/0", "::/0"] }] })),
    ]);
    scene.api.apply_and_wait(&[service("shop", &[upstream.address]), route("shop", HOST, &rules)]).await?;
    let ask = |path: &str, headers: &[(&str, &str)]| scene.fetch(request(Method::GET, HOST, path, headers));
    let from_there = ("x-forwarded-for", "10.1.2.3");
    for (path, headers, wanted) in [
        ("/here", &[] as &[_], 200),
        ("/there", &[], 403),
        ("/there", &[from_there], 403),
        ("/but", &[], 200),
        ("/but", &[("x-bad", "")], 403),
        ("/both", &[("x-key", "7")], 200),
        ("/both", &[("x-key", "8")], 403),
        ("/both", &[], 403),
        ("/nobody", &[], 403),
    ] {
        let before = upstream.requests();
        assert_eq!(ask(path, headers).await?.status, wanted, "{path} {headers:?}");
        assert_eq!(upstream.requests() - before, u64::from(wanted == 200), "{path} {headers:?}");
    }
    // Behind a proxy that is trusted, the client is whom it names.
    scene.api.put_and_wait(&resource("Fleet", "edge", json!({ "trustedHops": 1 }))).await?;
    let there = request(Method::GET, HOST, "/there", &[from_there]);
    scene.fetch_until("the address that is forwarded counts", there, |answer| answer.status == 200).await?;
    assert_eq!(ask("/here", &[from_there]).await?.status, 403);
    Ok(())
}

async fn a_listener_decides_for_all_of_its_rules(scene: &Scene) -> Result<()> {
    let key = |value: &str| json!([{ "headers": [{ "name": "x-key", "exact": value }] }]);
    let mut web = listener("web", "edge", scene.web.port());
    web["spec"]["access"] = json!({ "allow": key("7") });
    let upstream = Upstream::start("shop").await?;
    let rules = json!([
        { "match": { "path": { "exact": "/pong" } }, "respond": { "status": 200, "body": "pong" } },
        rule("/more", &json!({ "deny": [{ "headers": [{ "name": "x-bad", "present": true }] }] })),
    ]);
    scene.api.apply_and_wait(&[web, service("shop", &[upstream.address]), route("shop", HOST, &rules)]).await?;
    // A proxy acknowledges a listener before connections get to it.
    scene.fetch_until("the listener refuses", get(HOST, "/pong"), |answer| answer.status == 403).await?;
    for (path, headers, wanted) in [
        ("/pong", &[("x-key", "7")] as &[_], 200),
        ("/elsewhere", &[], 403),
        ("/more", &[("x-key", "7")], 200),
        ("/more", &[("x-key", "7"), ("x-bad", "1")], 403),
        ("/more", &[], 403),
    ] {
        let answer = scene.fetch(request(Method::GET, HOST, path, headers)).await?;
        assert_eq!(answer.status, wanted, "{path} {headers:?}");
    }
    Ok(())
}

async fn certificates_decide(scene: &Scene) -> Result<()> {
    let upstream = Upstream::start("shop").await?;
    let [strict, lax] = [free_port(), free_port()];
    let server = scene.authority.server()?;
    let secure = |name: &str, port: u16, required: bool| {
        let clients = json!({ "trustedCa": { "file": scene.authority.file() }, "required": required });
        let tls = json!({ "certificateFile": server.certificate, "privateKeyFile": server.key, "clients": clients });
        let spec = json!({ "fleet": "edge", "address": "127.0.0.1", "port": port, "protocol": "https", "tls": tls });
        resource("Listener", name, spec)
    };
    let may = |clients: Value| json!({ "allow": [{ "clients": clients }] });
    let rules = json!([
        rule("/billing", &may(json!([{ "uri": "spiffe://example.com/billing" }]))),
        rule("/all", &may(json!([{ "uriPrefix": "spiffe://example.com/" }]))),
        rule("/not-billing", &json!({ "deny": [{ "clients": [{ "uri": "spiffe://example.com/billing" }] }] })),
    ]);
    let mut shop = route("shop", HOST, &rules);
    shop["spec"]["listeners"] = json!(["edge/strict", "edge/lax"]);
    let resources =
        [secure("strict", strict, true), secure("lax", lax, false), service("shop", &[upstream.address]), shop.clone()];
    scene.api.apply_and_wait(&resources).await?;
    let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    for port in [strict, lax] {
        until("a listener opens", PATIENCE, async || Ok(TcpStream::connect(at(port)).await?)).await?;
    }
    let billing = scene.authority.client("billing", "spiffe://example.com/billing")?;
    let other = scene.authority.client("other", "spiffe://example.com/billing-2")?;
    let trusted = scene.authority.file();
    for (who, path, wanted) in [
        (Some(&billing), "/billing", 200),
        (Some(&other), "/billing", 403),
        (Some(&other), "/all", 200),
        (Some(&billing), "/not-billing", 403),
        (Some(&other), "/not-billing", 200),
        (None, "/billing", 403),
        (None, "/all", 403),
        (None, "/not-billing", 200),
    ] {
        let answer = fetch_tls_as(who, at(lax), "localhost", &trusted, get(HOST, path)).await?;
        assert_eq!(answer.status, wanted, "{path} {who:?}");
    }
    assert_eq!(fetch_tls_as(Some(&billing), at(strict), "localhost", &trusted, get(HOST, "/all")).await?.status, 200);
    assert!(fetch_tls_as(None, at(strict), "localhost", &trusted, get(HOST, "/not-billing")).await.is_err());

    // Where nobody shows a certificate, a rule that needs one is a mistake.
    shop["spec"]["listeners"] = json!(["edge/web"]);
    let answer = scene.api.json(Method::PUT, "/api/v1/routes/shop", Some(&shop)).await?;
    let problems = answer.json()?["problems"].clone();
    assert_eq!((answer.status, problems.as_array().map(Vec::len)), (422, Some(3)), "{problems}");
    assert_eq!(problems[0]["path"], "spec.rules[0].access");
    Ok(())
}
