//! A service of the user's own that says which requests may pass, asked by a real Envoy.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::Result;
use bytes::Bytes;
use chancery_e2e::{
    client::{get, request},
    document::{listener, route, service, service_with},
    over_both_protocols,
    port::free_port,
    scene::Scene,
    speaker::Speaker,
    tunnel::connect,
    upstream::{Echo, Upstream},
    wait::{PATIENCE, until},
};
use chancery_proto::envoy::{
    authorization::{
        CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
        authorization_server::{Authorization, AuthorizationServer},
        check_response::HttpResponse,
    },
    core::{HeaderValue, HeaderValueOption},
    types::{HttpStatus, StatusCode},
};
use http::{Method, Request};
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt as _, net::TcpListener, task::JoinSet, time::timeout};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Response, Status};

/// A host of the routes here.
const HOST: &str = "shop.example.com";

/// `PERMISSION_DENIED` of gRPC.
const DENIED: i32 = 7;

over_both_protocols!(Delta in delta: an_authorizer_decides_and_says_more, without_an_answer_the_listener_decides, an_authorizer_may_speak_http, a_tunnel_is_asked_about_and_nobody_waits_for_its_end);

/// Lets pass whoever has `x-key: 7`, and tells the service what it has been told.
#[derive(Debug)]
struct Authorizer {
    address: SocketAddr,
    state: Arc<State>,
    _server: JoinSet<Result<(), tonic::transport::Error>>,
}

#[derive(Debug, Default)]
struct State {
    asked: AtomicU64,
    delay_ms: AtomicU64,
}

impl Authorizer {
    async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State::default());
        let mut server = JoinSet::new();
        server.spawn(
            tonic::transport::Server::builder()
                .add_service(AuthorizationServer::new(Asked(state.clone())))
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        Ok(Self { address, state, _server: server })
    }

    fn asked(&self) -> u64 {
        self.state.asked.load(Relaxed)
    }

    fn answer_after(&self, delay: Duration) {
        self.state.delay_ms.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Relaxed);
    }
}

struct Asked(Arc<State>);

#[tonic::async_trait]
impl Authorization for Asked {
    async fn check(&self, request: tonic::Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        self.0.asked.fetch_add(1, Relaxed);
        tokio::time::sleep(Duration::from_millis(self.0.delay_ms.load(Relaxed))).await;
        let attributes = request.into_inner().attributes.unwrap_or_default();
        let http = attributes.request.and_then(|request| request.http).unwrap_or_default();
        let header = |name: &str, value: &str| HeaderValueOption {
            header: Some(HeaderValue { key: name.into(), value: value.into(), ..HeaderValue::default() }),
            ..HeaderValueOption::default()
        };
        if http.headers.get("x-key").is_none_or(|key| key != "7") {
            let denied = DeniedHttpResponse {
                status: Some(HttpStatus { code: StatusCode::Unauthorized.into() }),
                headers: vec![header("www-authenticate", "Key")],
                body: "who are you?".into(),
            };
            return Ok(Response::new(CheckResponse {
                status: Some(chancery_proto::google::rpc::Status { code: DENIED, ..Default::default() }),
                http_response: Some(HttpResponse::DeniedResponse(denied)),
                ..CheckResponse::default()
            }));
        }
        let told = json!({
            "headers": http.headers.keys().filter(|name| name.starts_with("x-")).collect::<BTreeSet<_>>(),
            "context": attributes.context_extensions.into_iter().collect::<BTreeMap<_, _>>(),
            "body": http.raw_body.len(),
        });
        let ok = OkHttpResponse { headers: vec![header("x-told", &told.to_string())], ..OkHttpResponse::default() };
        Ok(Response::new(CheckResponse {
            status: Some(chancery_proto::google::rpc::Status::default()),
            http_response: Some(HttpResponse::OkResponse(ok)),
            ..CheckResponse::default()
        }))
    }
}

fn asking(scene: &Scene, authorization: &Value) -> Value {
    let mut web = listener("web", "edge", scene.web.port());
    web["spec"]["externalAuthorization"] = authorization.clone();
    web
}

fn over_grpc(address: SocketAddr) -> Value {
    service_with("auth", &[address], json!({ "protocol": "http2" }))
}

#[expect(clippy::needless_pass_by_value, reason = "callers write json!(…) in place")]
fn rule(path: &str, more: Value) -> Value {
    let mut rule = json!({ "match": { "path": { "exact": path } }, "to": [{ "service": "shop" }] });
    for (field, value) in more.as_object().into_iter().flatten() {
        rule[field] = value.clone();
    }
    rule
}

fn with_key(path: &str) -> Request<Bytes> {
    request(Method::POST, HOST, path, &[("x-key", "7"), ("x-secret", "s")])
}

/// What the authorizer was told of a request, as the service has it from the authorizer.
async fn told(scene: &Scene, request: Request<Bytes>) -> Result<Value> {
    let answer = scene.fetch(request).await?;
    anyhow::ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    let seen: Echo = serde_json::from_slice(&answer.body)?;
    Ok(serde_json::from_str(&seen.headers["x-told"])?)
}

async fn an_authorizer_decides_and_says_more(scene: &Scene) -> Result<()> {
    let shop = Upstream::start("shop").await?;
    let auth = Authorizer::start().await?;
    let rules = json!([
        rule("/", json!({})),
        rule("/gold", json!({ "externalAuthorization": { "context": { "tier": "gold", "zone": "b" } } })),
        rule("/open", json!({ "externalAuthorization": { "off": true } })),
        { "match": { "path": { "exact": "/pong" } }, "respond": { "status": 200, "body": "pong" } },
        { "match": { "path": { "exact": "/health" } }, "respond": { "status": 200 }, "externalAuthorization": { "off": true } },
    ]);
    let web = asking(
        scene,
        &json!({ "service": "auth", "timeout": "10s", "headers": { "toAuthorizer": ["x-key"] }, "body": { "maxSize": "8B" } }),
    );
    let services = [service("shop", &[shop.address]), over_grpc(auth.address)];
    scene.api.apply_and_wait(&[&services[..], &[web, route("shop", HOST, &rules)]].concat()).await?;
    // A proxy acknowledges a listener before connections get to it.
    let refused = scene.fetch_until("strangers are refused", get(HOST, "/"), |answer| answer.status == 401).await?;
    assert_eq!((refused.text().as_str(), refused.header("www-authenticate")), ("who are you?", "Key"));
    assert_eq!(scene.fetch(get(HOST, "/pong")).await?.status, 401, "what the proxy answers is asked about too");
    assert_eq!(shop.requests(), 0, "the service hears of nothing that is refused");

    let nothing = json!({ "headers": ["x-key"], "context": {}, "body": 0 });
    assert_eq!(told(scene, with_key("/")).await?, nothing);
    let context = json!({ "tier": "gold", "zone": "b" });
    assert_eq!(told(scene, with_key("/gold")).await?["context"], context);
    let with_body = |body: &'static str| with_key("/").map(|_| Bytes::from_static(body.as_bytes()));
    assert_eq!(told(scene, with_body("12345678")).await?["body"], 8);
    assert_eq!(scene.fetch(with_body("123456789")).await?.status, 413);

    let before = auth.asked();
    for path in ["/open", "/health"] {
        assert_eq!(scene.fetch(get(HOST, path)).await?.status, 200, "{path}");
    }
    assert_eq!(auth.asked(), before, "nobody is asked where a rule says so");
    Ok(())
}

async fn a_tunnel_is_asked_about_and_nobody_waits_for_its_end(scene: &Scene) -> Result<()> {
    let (chat, auth) = (Speaker::start("chat").await?, Authorizer::start().await?);
    let tunnel = |more: Value| {
        let mut rule = more;
        rule["match"] = json!({ "connect": true });
        rule["to"] = json!([{ "service": "chat" }]);
        rule
    };
    let web = asking(scene, &json!({ "service": "auth", "timeout": "10s", "body": { "maxSize": "1KiB" } }));
    let resources = [
        service("chat", &[chat.address]),
        over_grpc(auth.address),
        web,
        route("asked", HOST, &json!([tunnel(json!({}))])),
        route("open", "open.example.com", &json!([tunnel(json!({ "externalAuthorization": { "off": true } }))])),
    ];
    scene.api.apply_and_wait(&resources).await?;
    let ask = async |host: &str, headers: &[(&str, &str)]| connect(scene.web, &format!("{host}:22"), headers).await;
    until("strangers get no tunnel", PATIENCE, async || {
        let (status, _) = ask(HOST, &[]).await?;
        anyhow::ensure!(status == 401, "{status}");
        Ok(())
    })
    .await?;
    let before = auth.asked();
    for (host, headers, asked) in [(HOST, &[("x-key", "7")][..], 1), ("open.example.com", &[][..], 1)] {
        let (status, mut stream) = ask(host, headers).await?;
        assert_eq!(status, 200, "{host}");
        let mut greeting = [0; 4];
        timeout(PATIENCE, stream.read_exact(&mut greeting)).await??;
        assert_eq!((&greeting, auth.asked() - before), (b"chat", asked), "{host}");
    }
    Ok(())
}

async fn without_an_answer_the_listener_decides(scene: &Scene) -> Result<()> {
    let shop = Upstream::start("shop").await?;
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let asking = |more: Value| {
        let mut authorization = json!({ "service": "auth" });
        for (field, value) in more.as_object().into_iter().flatten() {
            authorization[field] = value.clone();
        }
        asking(scene, &authorization)
    };
    let services = [service("shop", &[shop.address]), over_grpc(nobody)];
    let rules = json!([rule("/", json!({}))]);
    let all = [&services[..], &[asking(json!({})), route("shop", HOST, &rules)]].concat();
    scene.api.apply_and_wait(&all).await?;
    let answers = async |what: &str, wanted: u16| {
        scene.fetch_until(what, with_key("/"), |answer| answer.status == wanted).await.map(|_| ())
    };
    answers("nobody is let in", 403).await?;
    assert_eq!(shop.requests(), 0);
    scene.api.put_and_wait(&asking(json!({ "statusOnError": 503 }))).await?;
    answers("it is the proxy's fault", 503).await?;
    assert_eq!(shop.requests(), 0);
    scene.api.put_and_wait(&asking(json!({ "onFailure": "allow" }))).await?;
    answers("everybody is let in", 200).await?;

    // One that is there, and too slow.
    let auth = Authorizer::start().await?;
    scene.api.apply_and_wait(&[over_grpc(auth.address), asking(json!({ "timeout": "100ms" }))]).await?;
    auth.answer_after(Duration::from_secs(10));
    answers("nobody is let in for want of an answer in time", 403).await?;
    assert!(auth.asked() > 0);
    scene.api.put_and_wait(&asking(json!({ "timeout": "1m" }))).await?;
    auth.answer_after(Duration::from_millis(300));
    answers("there is time enough", 200).await
}

async fn an_authorizer_may_speak_http(scene: &Scene) -> Result<()> {
    let [shop, auth] = [Upstream::start("shop").await?, Upstream::start("auth").await?];
    let web = asking(
        scene,
        &json!({
            "service": "auth", "protocol": "http", "pathPrefix": "/check", "timeout": "10s",
            "headers": { "toAuthorizer": ["x-key"], "toService": ["x-upstream"], "toClient": ["x-upstream"] },
        }),
    );
    let services = [service("shop", &[shop.address]), service("auth", &[auth.address])];
    let rules = json!([rule("/cart", json!({}))]);
    auth.answer_with(402);
    scene.api.apply_and_wait(&[&services[..], &[web, route("shop", HOST, &rules)]].concat()).await?;
    let refused = scene.fetch_until("it refuses", with_key("/cart"), |answer| answer.status == 402).await?;
    assert_eq!((refused.header("x-upstream"), shop.requests()), ("auth", 0));
    let asked: Echo = serde_json::from_slice(&refused.body)?;
    assert_eq!((asked.method.as_str(), asked.path.as_str(), asked.host.as_str()), ("POST", "/check/cart", HOST));
    assert_eq!((asked.headers.get("x-key").map(String::as_str), asked.headers.get("x-secret")), (Some("7"), None));

    auth.answer_with(200);
    let passed = scene.fetch(with_key("/cart")).await?;
    assert_eq!(passed.status, 200);
    let seen: Echo = serde_json::from_slice(&passed.body)?;
    assert_eq!((seen.upstream.as_str(), seen.headers["x-upstream"].as_str()), ("shop", "auth"));
    assert!(passed.headers.get_all("x-upstream").iter().any(|value| value == "auth"), "{:?}", passed.headers);
    Ok(())
}
