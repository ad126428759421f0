//! Connections that an Envoy carries as they are: by the name that they ask for in the handshake, or all of a port to one service.

use std::{collections::BTreeSet, net::SocketAddr};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use chancery_e2e::{
    client::{fetch, fetch_tls, get, open_tls},
    document::{resource, service},
    over_both_protocols,
    port::free_port,
    scene::Scene,
    speaker::{Speaker, Talk},
    upstream::{Echo, Upstream},
    wait::{PATIENCE, until},
};
use http::Method;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};

/// More connections than it takes until both of two services have been asked.
const MANY: usize = 60;

over_both_protocols!(names_choose_the_service, a_port_is_carried_to_services);
over_both_protocols!(Delta in by_delta: a_name_more_leaves_connections_alone, who_may_not_connect_is_closed, who_may_not_have_a_name_gets_no_other, explain_says_whom_a_connection_comes_to);

fn carrying(name: &str, protocol: &str, port: u16, mut more: Value) -> Value {
    for (field, value) in [("fleet", json!("edge")), ("address", json!("127.0.0.1")), ("port", port.into())] {
        more[field] = value;
    }
    more["protocol"] = protocol.into();
    resource("Listener", name, more)
}

fn route(name: &str, listener: &str, hosts: &[&str], tcp: &Value) -> Value {
    resource("Route", name, json!({ "listeners": [format!("edge/{listener}")], "hosts": hosts, "tcp": tcp }))
}

fn to(service: &str) -> Value {
    json!({ "to": [{ "service": service }] })
}

/// A service over TLS that proves to be these names.
async fn secure(scene: &Scene, name: &str, names: &[&str]) -> Result<Upstream> {
    Upstream::start_tls(name, scene.authority.server_called(name, names)?.server_config()?).await
}

fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

async fn opens(address: SocketAddr) -> Result<()> {
    let connect = async || Ok(TcpStream::connect(address).await?);
    until(&format!("a listener opens at {address}"), PATIENCE, connect).await.map(drop)
}

async fn closes(address: SocketAddr) -> Result<()> {
    until(&format!("the listener at {address} is closed"), PATIENCE, async || {
        ensure!(TcpStream::connect(address).await.is_err(), "it is open");
        Ok(())
    })
    .await
}

/// What the proxies would see of a change.
async fn planned(scene: &Scene, change: &Value) -> Result<Value> {
    let answer = scene.api.json(Method::POST, "/api/v1/plan", Some(&json!({ "resources": [change] }))).await?;
    ensure!(answer.status == 200, "{}", answer.text());
    Ok(answer.json()?["fleets"][0].clone())
}

async fn names_choose_the_service(scene: &Scene) -> Result<()> {
    let at = local(free_port());
    let (one, other) = (
        secure(scene, "one", &["a.example.com"]).await?,
        secure(scene, "other", &["*.example.com", "elsewhere.example.org"]).await?,
    );
    let resources = [
        carrying("sni", "tls-passthrough", at.port(), json!({})),
        service("one", &[one.address]),
        service("other", &[other.address]),
        route("one", "sni", &["A.example.com"], &to("one")),
        route("other", "sni", &["*.example.com"], &to("other")),
    ];
    scene.api.apply_and_wait(&resources).await?;
    opens(at).await?;
    let trusted = scene.authority.file();
    let ask = async |name: &str| -> Result<Echo> {
        fetch_tls(at, name, &trusted, get(name, "/x")).await?.json().and_then(|echo| Ok(serde_json::from_value(echo)?))
    };
    for (name, upstream) in [("a.example.com", "one"), ("b.example.com", "other")] {
        let echo = ask(name).await.with_context(|| name.to_owned())?;
        // The service itself has ended the TLS of the client: nobody was in between.
        let asked = echo.tls.map(|tls| tls.server_name);
        assert_eq!((echo.upstream.as_str(), asked.as_deref()), (upstream, Some(name)));
    }
    assert!(ask("elsewhere.example.org").await.is_err(), "nobody has claimed it");
    assert!(fetch(at, get("a.example.com", "/")).await.is_err(), "what is no TLS asks for no name");

    scene.api.put_and_wait(&route("rest", "sni", &["*"], &to("other"))).await?;
    until("a name that nobody claims comes to whom all others do", PATIENCE, async || {
        ask("elsewhere.example.org").await
    })
    .await?;
    assert_eq!(ask("a.example.com").await?.upstream, "one");
    Ok(())
}

async fn a_port_is_carried_to_services(scene: &Scene) -> Result<()> {
    let at = local(free_port());
    let (one, two) = (Speaker::start("one").await?, Speaker::start("two").await?);
    scene.api.apply_and_wait(&[carrying("db", "tcp", at.port(), json!({}))]).await?;
    assert!(TcpStream::connect(at).await.is_err(), "without a route, a listener is not open");

    // Of two endpoints, one is nowhere: whoever comes to it is carried to the other.
    let services = [service("one", &[one.address, local(free_port())]), service("two", &[two.address])];
    let shared = json!({ "to": [{ "service": "one" }, { "service": "two" }], "connectAttempts": 5 });
    scene.api.apply_and_wait(&[services.as_slice(), &[route("db", "db", &["*"], &shared)]].concat()).await?;
    opens(at).await?;
    let (mut talks, mut seen) = (Vec::new(), BTreeSet::new());
    while seen.len() < 2 {
        ensure!(talks.len() < MANY, "only {seen:?} is asked");
        let talk = Talk::begin(at).await?;
        seen.insert(talk.with.clone());
        talks.push(talk);
    }
    for mut talk in talks {
        talk.say(100_000).await?;
        talk.end().await?;
    }
    scene
        .api
        .put_and_wait(&route(
            "db",
            "db",
            &["*"],
            &json!({ "to": [{ "service": "one", "weight": 0 }, { "service": "two" }] }),
        ))
        .await?;
    until("whom nothing is given gets nothing", PATIENCE, async || {
        for _ in 0..10 {
            ensure!(Talk::begin(at).await?.with == "two", "one is asked");
        }
        Ok(())
    })
    .await?;
    scene.api.delete_and_wait("Route", "db").await?;
    closes(at).await
}

async fn a_name_more_leaves_connections_alone(scene: &Scene) -> Result<()> {
    let at = local(free_port());
    let upstream = secure(scene, "shop", &["a.example.com", "b.example.com"]).await?;
    let of = |name: &str, tcp: &Value| route(name, "sni", &[&format!("{name}.example.com")], tcp);
    let resources = [
        carrying("sni", "tls-passthrough", at.port(), json!({})),
        service("shop", &[upstream.address]),
        of("a", &to("shop")),
    ];
    scene.api.apply_and_wait(&resources).await?;
    opens(at).await?;
    let trusted = scene.authority.file();
    let stream = open_tls(None, at, "a.example.com", &trusted).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let mut ask = async || -> Result<u16> {
        let request = http::Request::get("/").header("host", "a.example.com").body(Empty::<Bytes>::new())?;
        let answer = timeout(PATIENCE, sender.send_request(request)).await??;
        let status = answer.status().as_u16();
        answer.into_body().collect().await?;
        Ok(status)
    };
    assert_eq!(ask().await?, 200);

    let more = of("b", &to("shop"));
    assert_eq!(planned(scene, &more).await?["drains"], json!([]));
    scene.api.put_and_wait(&more).await?;
    let added = async || fetch_tls(at, "b.example.com", &trusted, get("b.example.com", "/")).await;
    until("the new name is served", PATIENCE, added).await?;
    let stat = async |name: &str| scene.envoy.stat(&format!("listener_manager.{name}")).await;
    assert_eq!(stat("listener_in_place_updated").await?, 1);
    assert_eq!((stat("total_listeners_draining").await?, stat("total_filter_chains_draining").await?), (0, 0));
    assert_eq!(ask().await?, 200, "the connection is the same");

    // Another way for the one name: its connections drain, as the plan says, and those of the other stay.
    let other = of("b", &json!({ "to": [{ "service": "shop" }], "idleTimeout": "7s" }));
    let drains = planned(scene, &other).await?["drains"].clone();
    let drained = drains.to_string();
    assert!(drained.contains("sni/b.example.com") && !drained.contains("sni/a.example.com"), "{drains}");
    scene.api.put_and_wait(&other).await?;
    scene.envoy.wait_for_stat("listener_manager.total_filter_chains_draining", |chains| chains == 1).await?;
    assert_eq!(ask().await?, 200, "the connection is the same");
    connection.abort();
    Ok(())
}

async fn who_may_not_connect_is_closed(scene: &Scene) -> Result<()> {
    let (of_listener, of_route, free) = (local(free_port()), local(free_port()), local(free_port()));
    let one = Speaker::start("one").await?;
    let nobody = json!({ "deny": [{ "networks": ["127.0.0.0/8"] }] });
    let guarded = json!({ "to": [{ "service": "one" }], "access": nobody });
    let resources = [
        service("one", &[one.address]),
        carrying("of-listener", "tcp", of_listener.port(), json!({ "access": nobody })),
        carrying("of-route", "tcp", of_route.port(), json!({})),
        carrying("free", "tcp", free.port(), json!({ "access": { "allow": [{ "networks": ["127.0.0.1"] }] } })),
        route("of-listener", "of-listener", &["*"], &to("one")),
        route("of-route", "of-route", &["*"], &guarded),
        route("free", "free", &["*"], &to("one")),
    ];
    scene.api.apply_and_wait(&resources).await?;
    for address in [of_listener, of_route, free] {
        opens(address).await?;
    }
    for address in [of_listener, of_route] {
        let mut stream = TcpStream::connect(address).await?;
        let mut heard = Vec::new();
        // The service would speak first, so silence is no accident; the connection may be reset.
        let closed = timeout(PATIENCE, stream.read_to_end(&mut heard)).await.context("the connection stays open")?;
        assert!(heard.is_empty(), "{address} is carried: {closed:?}");
    }
    Talk::begin(free).await?.end().await
}

async fn who_may_not_have_a_name_gets_no_other(scene: &Scene) -> Result<()> {
    let at = local(free_port());
    let shop = secure(scene, "shop", &["*.example.com"]).await?;
    let elsewhere = json!({ "to": [{ "service": "shop" }], "access": { "allow": [{ "networks": ["10.0.0.0/8"] }] } });
    let resources = [
        carrying("sni", "tls-passthrough", at.port(), json!({})),
        service("shop", &[shop.address]),
        route("shop", "sni", &["*"], &to("shop")),
        route("internal", "sni", &["internal.example.com"], &elsewhere),
    ];
    scene.api.apply_and_wait(&resources).await?;
    opens(at).await?;
    let trusted = scene.authority.file();
    let ask = async |name: &str| fetch_tls(at, name, &trusted, get(name, "/")).await;
    assert_eq!(ask("shop.example.com").await?.status, 200);
    assert!(ask("internal.example.com").await.is_err(), "whoever claims all names is asked");
    Ok(())
}

async fn explain_says_whom_a_connection_comes_to(scene: &Scene) -> Result<()> {
    let port = free_port();
    let resources = [
        carrying("sni", "tls-passthrough", port, json!({})),
        service("shop", &[local(1)]),
        route("shop", "sni", &["*.example.com"], &to("shop")),
    ];
    scene.api.apply(&resources).await?;
    let request = json!({ "fleet": "edge", "method": "GET", "url": format!("https://a.example.com:{port}/x") });
    let answer = scene.api.json(Method::POST, "/api/v1/explain", Some(&request)).await?;
    ensure!(answer.status == 200, "{}", answer.text());
    let notes = answer.json()?["notes"].to_string();
    assert!(
        notes.contains(
            "Listener/sni carries connections as they are: by Route/shop, which claims *.example.com, to Service/shop"
        ),
        "{notes}"
    );
    Ok(())
}
