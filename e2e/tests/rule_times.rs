//! How long clients and services may take, what is tried again and what may become a WebSocket, each seen at a real Envoy.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use chancery_e2e::{
    client::get,
    document::{listener, route, service},
    over_both_protocols,
    scene::Scene,
    upstream::Upstream,
    wait::{PATIENCE, until},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// A host of the routes here.
const HOST: &str = "shop.example.com";

/// Longer than any time that a rule grants here, shorter than the fleet's.
const SLOW: Duration = Duration::from_secs(5);

over_both_protocols!(Delta in delta: services_may_take_as_long_as_rules_say, what_a_rule_lists_is_tried_again, protocols_change_where_a_rule_says_so, clients_may_take_as_long_as_listeners_say);

fn rule(path: &str, mut more: Value) -> Value {
    more["match"] = json!({ "path": { "exact": path } });
    more["to"] = json!([{ "service": "shop" }]);
    more
}

async fn services_may_take_as_long_as_rules_say(scene: &Scene) -> Result<()> {
    let upstream = Upstream::start("shop").await?;
    let retry = json!({ "on": ["5xx"], "attempts": 2, "perTryIdleTimeout": "100ms", "backoff": { "base": "1ms" } });
    let rules = json!([
        rule("/idle", json!({ "idleTimeout": "200ms" })),
        rule("/long", json!({ "maxStreamDuration": "200ms" })),
        rule("/tries", json!({ "retry": retry })),
        rule("/rest", json!({})),
    ]);
    scene.api.apply_and_wait(&[service("shop", &[upstream.address]), route("shop", HOST, &rules)]).await?;
    for path in ["/idle", "/long", "/tries", "/rest"] {
        assert_eq!(scene.fetch(get(HOST, path)).await?.status, 200, "{path}");
    }
    upstream.answer_after(SLOW);
    for (path, requests) in [("/idle", 1), ("/long", 1), ("/tries", 3)] {
        let (before, began) = (upstream.requests(), Instant::now());
        let answer = scene.fetch(get(HOST, path)).await?;
        assert!([408, 504].contains(&answer.status), "{path}: {} {}", answer.status, answer.text());
        assert!(began.elapsed() < SLOW, "{path}: {:?}", began.elapsed());
        assert_eq!(upstream.requests() - before, requests, "{path}");
    }
    assert_eq!(scene.fetch(get(HOST, "/rest")).await?.status, 200, "the fleet's own timeout is longer");
    Ok(())
}

async fn what_a_rule_lists_is_tried_again(scene: &Scene) -> Result<()> {
    let upstream = Upstream::start("shop").await?;
    let retrying = |path: &str, mut retry: Value| {
        retry["attempts"] = 2.into();
        retry["backoff"] = json!({ "base": "1ms" });
        rule(path, json!({ "retry": retry }))
    };
    let rules = json!([
        retrying("/statuses", json!({ "statuses": [429] })),
        retrying("/headers", json!({ "responseHeaders": [{ "name": "x-upstream", "prefix": "sh" }] })),
        retrying(
            "/others",
            json!({ "on": ["5xx"], "statuses": [428], "responseHeaders": [{ "name": "x-other", "present": true }] })
        ),
    ]);
    scene.api.apply_and_wait(&[service("shop", &[upstream.address]), route("shop", HOST, &rules)]).await?;
    upstream.answer_with(429);
    for (path, requests) in [("/statuses", 3), ("/headers", 3), ("/others", 1)] {
        let before = upstream.requests();
        assert_eq!(scene.fetch(get(HOST, path)).await?.status, 429, "{path}");
        assert_eq!(upstream.requests() - before, requests, "{path}");
    }
    Ok(())
}

async fn protocols_change_where_a_rule_says_so(scene: &Scene) -> Result<()> {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let rules = json!([rule("/socket", json!({ "upgrades": ["websocket"] })), rule("/rest", json!({}))]);
    scene.api.apply_and_wait(&[service("shop", &[server.local_addr()?]), route("shop", HOST, &rules)]).await?;
    let answers = async {
        let (mut stream, _) = server.accept().await?;
        let head = read_head(&mut stream).await?;
        ensure!(head.to_ascii_lowercase().contains("upgrade: websocket"), "{head}");
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
            .await?;
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).await?;
        stream.write_all(&bytes).await?;
        Ok(())
    };
    let asks = async {
        let mut stream = ask_for_websocket(scene.web, "/socket").await?;
        let head = read_head(&mut stream).await?;
        ensure!(head.starts_with("HTTP/1.1 101"), "{head}");
        stream.write_all(b"ping").await?;
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).await?;
        ensure!(&bytes == b"ping", "{bytes:?}");
        Ok::<_, anyhow::Error>(())
    };
    timeout(PATIENCE, async { tokio::try_join!(answers, asks) }).await??;
    let mut stream = ask_for_websocket(scene.web, "/rest").await?;
    let head = timeout(PATIENCE, read_head(&mut stream)).await??;
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    Ok(())
}

async fn ask_for_websocket(address: SocketAddr, path: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {HOST}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    Ok(stream)
}

/// What comes before the first empty line, or the end.
async fn read_head(stream: &mut TcpStream) -> Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await? == 0 {
            break;
        }
        head.push(byte[0]);
    }
    Ok(String::from_utf8(head)?)
}

async fn clients_may_take_as_long_as_listeners_say(scene: &Scene) -> Result<()> {
    let upstream = Upstream::start("shop").await?;
    let rules = json!([rule("/", json!({}))]);
    let mut web = listener("web", "edge", scene.web.port());
    web["spec"]["timeouts"] = json!({ "requestHeaders": "300ms", "connectionIdle": "300ms" });
    scene.api.apply_and_wait(&[web, service("shop", &[upstream.address]), route("shop", HOST, &rules)]).await?;
    assert_eq!(scene.fetch(get(HOST, "/")).await?.status, 200);
    let half = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n");
    // A proxy acknowledges a listener before connections get to it.
    until("headers that take too long are given up", PATIENCE, async || {
        let answer = timeout(SLOW, answer_to(scene.web, &half)).await??;
        ensure!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        Ok(())
    })
    .await?;
    let whole = format!("{half}\r\n");
    // Envoy gives an idle connection five seconds to end by itself.
    let answer = timeout(PATIENCE, answer_to(scene.web, &whole)).await??;
    assert!(answer.starts_with("HTTP/1.1 200"), "the connection ends when nothing more comes: {answer}");
    Ok(())
}

/// All that is answered on a connection that says this and then nothing, until it is closed.
async fn answer_to(address: SocketAddr, said: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(said.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
