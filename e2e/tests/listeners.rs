//! Listeners come, go, speak TLS, and are refused by Envoy where only Envoy can know.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use chancery_e2e::{
    certificates::Identity,
    client::{fetch, fetch_tls, get},
    document::{listener, resource, route_saying},
    over_both_protocols,
    port::free_port,
    scene::Scene,
    wait::{PATIENCE, until},
};
use http::Method;
use serde_json::{Value, json};
use tokio::net::TcpStream;

const HOST: &str = "news.example.com";

over_both_protocols!(a_listener_speaks_tls, listeners_come_and_go, what_envoy_refuses_is_told_and_stays_alone);

fn https(name: &str, port: u16, identity: &Identity) -> Value {
    let tls = json!({ "certificateFile": identity.certificate, "privateKeyFile": identity.key });
    let spec = json!({ "fleet": "edge", "address": "127.0.0.1", "port": port, "protocol": "https", "tls": tls });
    resource("Listener", name, spec)
}

fn saying_on(listeners: &[&str], body: &str) -> Value {
    let mut route = route_saying("news", HOST, body);
    route["spec"]["listeners"] = json!(listeners);
    route
}

/// Envoy acknowledges a new listener, and opens it only once its routes have come too.
async fn opens(address: SocketAddr) -> Result<()> {
    let connect = async || Ok(TcpStream::connect(address).await?);
    until(&format!("a listener opens at {address}"), PATIENCE, connect).await.map(drop)
}

async fn a_listener_speaks_tls(scene: &Scene) -> Result<()> {
    let port = free_port();
    let resources = [https("secure", port, &scene.authority.server()?), saying_on(&["edge/secure"], "in private")];
    scene.api.apply_and_wait(&resources).await?;
    let (address, trusted) = (([127, 0, 0, 1], port).into(), scene.authority.file());
    opens(address).await?;
    let response = fetch_tls(address, "localhost", &trusted, get(HOST, "/")).await?;
    assert_eq!((response.status, &*response.text()), (200, "in private"));
    assert_eq!(scene.fetch(get(HOST, "/")).await?.status, 404, "the other listener has no such route");
    assert!(fetch(address, get(HOST, "/")).await.is_err(), "nothing is said in the clear");
    Ok(())
}

async fn listeners_come_and_go(scene: &Scene) -> Result<()> {
    let port = free_port();
    let second = listener("second", "edge", port);
    let at_second = ([127, 0, 0, 1], port).into();
    scene.api.apply_and_wait(&[second, saying_on(&["edge/web", "edge/second"], "everywhere")]).await?;
    opens(at_second).await?;
    for address in [scene.web, at_second] {
        assert_eq!(fetch(address, get(HOST, "/")).await?.text(), "everywhere", "{address}");
    }

    scene.api.put_and_wait(&saying_on(&["edge/web"], "here")).await?;
    assert_eq!(fetch(at_second, get(HOST, "/")).await?.status, 404);
    scene.api.delete_and_wait("Listener", "second").await?;
    until("the listener is closed", PATIENCE, async || {
        ensure!(fetch(at_second, get(HOST, "/")).await.is_err(), "it still answers");
        Ok(())
    })
    .await?;
    assert_eq!(scene.fetch(get(HOST, "/")).await?.text(), "here", "the first one is untouched");
    Ok(())
}

async fn what_envoy_refuses_is_told_and_stays_alone(scene: &Scene) -> Result<()> {
    // Nobody but the proxy can know that these files are not there.
    let nowhere = Identity { certificate: "/nowhere/tls.crt".into(), key: "/nowhere/tls.key".into() };
    let refused = https("refused", free_port(), &nowhere);
    let body = json!({ "resources": [refused] });
    let answer = scene.api.json(Method::POST, "/api/v1/apply?wait=applied&timeout=10s", Some(&body)).await?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let report = &answer.json()?["applied"];
    assert_eq!((&report["applied"], &report["timedOut"]), (&json!(0), &json!(false)), "{report}");
    let refusal = &report["refused"][0];
    assert_eq!(refusal["proxy"], "envoy");
    assert!(refusal["reason"].as_str().is_some_and(|reason| reason.contains("/nowhere/tls")), "{refusal}");

    let proxy = scene.api.proxy("envoy").await?;
    assert!(proxy["lastRejection"]["message"].as_str().is_some_and(|words| words.contains("/nowhere/tls")), "{proxy}");

    scene.api.put_and_wait(&saying_on(&["edge/web"], "unaffected")).await?;
    assert_eq!(scene.fetch(get(HOST, "/")).await?.text(), "unaffected");
    scene.api.delete_and_wait("Listener", "refused").await?;
    until("the proxy is in sync again", PATIENCE, async || {
        let proxy = scene.api.proxy("envoy").await?;
        ensure!(proxy["types"]["listener"]["status"] == "synced", "{proxy}");
        Ok(())
    })
    .await
}
