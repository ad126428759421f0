//! Tunnels that clients ask for with CONNECT, over HTTP/1.1 and HTTP/2, through a real Envoy.

use std::{
    future::poll_fn,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use chancery_e2e::{
    client::{get, request},
    document::{resource, route, service},
    over_both_protocols,
    scene::Scene,
    tunnel::{connect, head, says_back},
    wait::{PATIENCE, until},
};
use h2::{RecvStream, SendStream, ext::Protocol};
use http::{Method, Request};
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

/// A host of the routes here, and the port that clients name with it.
const HOST: &str = "db.example.com";
const DB: &str = "db.example.com:5432";

over_both_protocols!(what_a_tunnel_carries_comes_to_the_service);
over_both_protocols!(Delta in by_delta: a_tunnel_leads_to_the_service_and_nowhere_else, who_may_not_gets_no_tunnel, a_proxy_behind_gets_the_connect, a_websocket_comes_over_http_2, explain_says_whom_a_tunnel_comes_to);

/// A service that says back what it hears. As a proxy, it answers the head of a request first.
struct Echo {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    _server: JoinSet<()>,
}

impl Echo {
    async fn start(answer: Option<&'static str>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let heads = Arc::new(Mutex::default());
        let seen = heads.clone();
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let seen = seen.clone();
                connections.spawn(async move { drop(echo(stream, answer, &seen).await) });
            }
        });
        Ok(Self { address, heads, _server: server })
    }

    /// The heads of requests so far.
    fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("a lock").clone()
    }
}

async fn echo(mut stream: TcpStream, answer: Option<&str>, seen: &Mutex<Vec<String>>) -> Result<()> {
    if let Some(answer) = answer {
        let head = head(&mut stream).await?;
        seen.lock().expect("a lock").push(head);
        stream.write_all(answer.as_bytes()).await?;
    }
    let (mut reader, mut writer) = stream.split();
    tokio::io::copy(&mut reader, &mut writer).await?;
    Ok(writer.shutdown().await?)
}

async fn status(scene: &Scene, authority: &str, headers: &[(&str, &str)]) -> Result<u16> {
    Ok(connect(scene.web, authority, headers).await?.0)
}

/// Waits until a tunnel to `authority` is granted.
async fn granted(scene: &Scene, authority: &str) -> Result<TcpStream> {
    until("a tunnel is granted", PATIENCE, async || {
        let (status, stream) = connect(scene.web, authority, &[]).await?;
        ensure!(status == 200, "{status}");
        Ok(stream)
    })
    .await
}

/// Asks over HTTP/2 for a tunnel, or for the protocol `becomes` if there is one (RFC 8441).
async fn connect_h2(
    at: SocketAddr,
    uri: &str,
    becomes: Option<&'static str>,
) -> Result<(u16, SendStream<Bytes>, RecvStream)> {
    let ask = async {
        let (mut sender, connection) = h2::client::handshake(TcpStream::connect(at).await?).await?;
        tokio::spawn(async move { drop(connection.await) });
        let mut request = Request::builder().method(Method::CONNECT).uri(uri).body(())?;
        if let Some(protocol) = becomes {
            until("the listener says that it takes other protocols", PATIENCE, async || {
                ensure!(sender.is_extended_connect_protocol_enabled());
                Ok(())
            })
            .await?;
            request.extensions_mut().insert(Protocol::from_static(protocol));
        }
        poll_fn(|context| sender.poll_ready(context)).await?;
        let (answer, body) = sender.send_request(request, false)?;
        let (head, answer) = answer.await?.into_parts();
        Ok((head.status.as_u16(), body, answer))
    };
    timeout(PATIENCE, ask).await.context("no answer to a CONNECT in time")?
}

async fn says_back_h2(body: &mut SendStream<Bytes>, answer: &mut RecvStream, said: &'static [u8]) -> Result<()> {
    let exchange = async {
        body.send_data(Bytes::from_static(said), false)?;
        let mut heard = Vec::new();
        while heard.len() < said.len() {
            let piece = answer.data().await.context("the tunnel ends")??;
            answer.flow_control().release_capacity(piece.len())?;
            heard.extend_from_slice(&piece);
        }
        ensure!(heard == said, "something else comes back");
        Ok(())
    };
    timeout(PATIENCE, exchange).await.context("nothing comes back")?
}

fn tunnel(more: Value) -> Value {
    let mut rule = more;
    rule["match"] = json!({ "connect": true });
    rule["to"] = json!([{ "service": "db" }]);
    rule
}

async fn what_a_tunnel_carries_comes_to_the_service(scene: &Scene) -> Result<()> {
    let db = Echo::start(None).await?;
    let rules = json!([tunnel(json!({})), { "respond": { "status": 200, "body": "no tunnel" } }]);
    scene.api.apply_and_wait(&[service("db", &[db.address]), route("db", HOST, &rules)]).await?;
    let mut stream = granted(scene, DB).await?;
    says_back(&mut stream, b"select 1").await?;
    let much: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
    says_back(&mut stream, &much).await?;

    let (status, mut body, mut answer) = connect_h2(scene.web, DB, None).await?;
    assert_eq!(status, 200);
    says_back_h2(&mut body, &mut answer, b"select 2").await?;
    says_back_h2(&mut body, &mut answer, b"select 3").await?;

    assert_eq!(scene.fetch(get(HOST, "/")).await?.text(), "no tunnel", "other requests are for other rules");
    Ok(())
}

async fn a_tunnel_leads_to_the_service_and_nowhere_else(scene: &Scene) -> Result<()> {
    let [db, elsewhere] = [Echo::start(None).await?, Echo::start(Some("HTTP/1.1 200 OK\r\n\r\n")).await?];
    let plain = json!([{ "match": { "path": { "regex": ".*" } }, "to": [{ "service": "db" }] }]);
    let resources = [
        service("db", &[db.address]),
        route("db", HOST, &json!([tunnel(json!({}))])),
        route("plain", "plain.example.com", &plain),
    ];
    scene.api.apply_and_wait(&resources).await?;
    // Whatever port a client names, the service is who the rule says.
    for authority in [DB, "db.example.com:22", "DB.example.com:1"] {
        says_back(&mut granted(scene, authority).await?, b"hello").await?;
    }
    let away = elsewhere.address.to_string();
    for authority in [away.as_str(), "plain.example.com:443", "127.0.0.1:22"] {
        assert_eq!(status(scene, authority, &[]).await?, 404, "{authority}");
        assert_eq!(connect_h2(scene.web, authority, None).await?.0, 404, "{authority}");
    }
    assert_eq!(elsewhere.heads(), Vec::<String>::new());
    assert_eq!(connect_h2(scene.web, &format!("http://{DB}/"), Some("connect-udp")).await?.0, 404);
    assert_eq!(scene.fetch(get(HOST, "/")).await?.status, 404, "a rule for tunnels is for nothing else");
    Ok(())
}

async fn who_may_not_gets_no_tunnel(scene: &Scene) -> Result<()> {
    let db = Echo::start(None).await?;
    let keys =
        json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" }] });
    let provider =
        json!({ "name": "people", "issuer": "https://people.example.com", "keys": { "inline": keys.to_string() } });
    let one = |host: &str, more: Value| {
        let mut one = route(&host.replace('.', "-"), host, &json!([tunnel(more)]));
        one["spec"]["jwtProviders"] = json!([provider]);
        one
    };
    let by_key = json!({ "allow": [{ "headers": [{ "name": "x-key", "exact": "7" }] }] });
    let once = json!({ "requests": 1, "per": "1h" });
    let resources = [
        service("db", &[db.address]),
        one("key.example.com", json!({ "access": by_key })),
        one("token.example.com", json!({ "jwt": { "any": ["people"] } })),
        one("once.example.com", json!({ "localRateLimit": once })),
        one("open.example.com", json!({})),
    ];
    scene.api.apply_and_wait(&resources).await?;
    says_back(&mut granted(scene, "open.example.com:1").await?, b"hello").await?;

    let ask =
        async |host: &str, headers: &[(&str, &str)]| status(scene, &format!("{host}.example.com:5432"), headers).await;
    assert_eq!((ask("key", &[("x-key", "7")]).await?, ask("key", &[("x-key", "8")]).await?), (200, 403));
    assert_eq!((ask("token", &[]).await?, ask("token", &[("authorization", "Bearer x")]).await?), (401, 401));
    assert_eq!((ask("once", &[]).await?, ask("once", &[]).await?), (200, 429));
    Ok(())
}

async fn a_proxy_behind_gets_the_connect(scene: &Scene) -> Result<()> {
    let proxy = Echo::start(Some("HTTP/1.1 200 Connected\r\n\r\n")).await?;
    let rules = json!([tunnel(json!({ "connect": "forward" }))]);
    scene.api.apply_and_wait(&[service("db", &[proxy.address]), route("db", HOST, &rules)]).await?;
    says_back(&mut granted(scene, DB).await?, b"hello").await?;
    let (status, mut body, mut answer) = connect_h2(scene.web, DB, None).await?;
    assert_eq!(status, 200);
    says_back_h2(&mut body, &mut answer, b"hello").await?;
    let heads = proxy.heads();
    assert!(heads.iter().all(|head| head.starts_with(&format!("CONNECT {DB} HTTP/1.1\r\n"))), "{heads:?}");
    assert!(heads.len() >= 2, "{heads:?}");
    Ok(())
}

async fn a_websocket_comes_over_http_2(scene: &Scene) -> Result<()> {
    let chat =
        Echo::start(Some("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"))
            .await?;
    let rules = json!([
        { "match": { "path": { "prefix": "/live" } }, "to": [{ "service": "chat" }], "upgrades": ["websocket"] },
        { "to": [{ "service": "chat" }] },
    ]);
    scene.api.apply_and_wait(&[service("chat", &[chat.address]), route("chat", HOST, &rules)]).await?;
    let ask = async |path: &str| connect_h2(scene.web, &format!("http://{HOST}{path}"), Some("websocket")).await;
    let (status, mut body, mut answer) = until("the rule is there", PATIENCE, async || {
        let answer = ask("/live/a").await?;
        ensure!(answer.0 == 200, "{}", answer.0);
        Ok(answer)
    })
    .await?;
    assert_eq!(status, 200);
    says_back_h2(&mut body, &mut answer, b"hello").await?;
    let heads = chat.heads();
    assert!(heads.iter().all(|head| head.starts_with("GET /live/a HTTP/1.1\r\n")), "{heads:?}");
    assert_eq!(ask("/rest").await?.0, 403);
    Ok(())
}

async fn explain_says_whom_a_tunnel_comes_to(scene: &Scene) -> Result<()> {
    let rules = json!([{ "to": [{ "service": "web" }] }, tunnel(json!({}))]);
    let resources = [
        service("db", &[SocketAddr::from(([127, 0, 0, 1], 1))]),
        service("web", &[SocketAddr::from(([127, 0, 0, 1], 1))]),
        route("db", HOST, &rules),
    ];
    scene.api.apply(&resources).await?;
    let explained = async |authority: &str| {
        let question = json!({ "fleet": "edge", "method": "CONNECT", "url": format!("http://{authority}") });
        let answer = scene.api.json(Method::POST, "/api/v1/explain", Some(&question)).await?;
        ensure!(answer.status == 200, "{}", answer.text());
        Ok(answer.json()?["listeners"][0].clone())
    };
    let at = explained(DB).await?;
    assert_eq!(at["rule"]["path"], "spec.rules[1]", "{at}");
    assert_eq!(at["passedOver"][0]["unmet"][0]["found"], "CONNECT, which has no path", "{at}");
    let at = explained("other.example.com:5432").await?;
    assert_eq!((&at["destination"]["action"], &at["destination"]["status"]), (&json!("noRoute"), &json!(404)), "{at}");

    let wrong = resource(
        "Route",
        "wrong",
        json!({ "listeners": ["edge/web"], "hosts": ["a.example.com"],
        "rules": [{ "match": { "connect": true }, "to": [{ "service": "db" }], "rewrite": { "host": "b.example.com" } }] }),
    );
    let refused = scene.api.json(Method::PUT, "/api/v1/routes/wrong", Some(&wrong)).await?;
    ensure!(refused.status == 422 || refused.status == 400, "{} {}", refused.status, refused.text());
    assert_eq!(refused.json()?["problems"][0]["path"], "spec.rules[0].rewrite");
    // Envoy does the same with what came this far.
    assert_eq!(status(scene, "other.example.com:5432", &[]).await?, 404);
    assert_eq!(scene.fetch(request(Method::GET, "other.example.com", "/", &[])).await?.status, 404);
    Ok(())
}
