//! What a real Envoy asks a rate limiter, and what it makes of the answers: the limiter here is a stand-in that
//! writes down every question.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    certificates::Identity,
    client::{Response, get, request},
    document::{resource, route, service},
    over_both_protocols,
    scene::Scene,
    upstream::Upstream,
    wait::{PATIENCE, until},
};
use chancery_proto::envoy::rls::{
    RateLimitRequest, RateLimitResponse,
    rate_limit_response::{Code, DescriptorStatus, RateLimit, rate_limit::Unit},
    rate_limit_service_server::{RateLimitService, RateLimitServiceServer},
};
use http::Method;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Certificate, Identity as TlsIdentity, Server, ServerTlsConfig};

const HOST: &str = "shop.example.com";

over_both_protocols!(
    every_key_is_told,
    nothing_is_asked_without_limits,
    a_refusal_is_answered_with_headers_and_body,
    debt_is_charged_at_the_end,
    an_impostor_is_not_asked,
);

/// One descriptor: its entries, and its hits if any are said.
type Asked = (Vec<(String, String)>, Option<u64>);

/// A domain, and what was asked about it.
type Question = (String, Vec<Asked>);

/// Answers yes, or no while it is told so.
#[derive(Clone, Default)]
struct Limiter {
    questions: Arc<Mutex<Vec<Question>>>,
    refuse: Arc<AtomicBool>,
}

#[tonic::async_trait]
impl RateLimitService for Limiter {
    async fn should_rate_limit(
        &self,
        request: tonic::Request<RateLimitRequest>,
    ) -> Result<tonic::Response<RateLimitResponse>, tonic::Status> {
        let request = request.into_inner();
        let descriptors = request.descriptors.iter().map(|descriptor| {
            let entries = descriptor.entries.iter().map(|entry| (entry.key.clone(), entry.value.clone()));
            (entries.collect(), descriptor.hits_addend.as_ref().map(|hits| hits.value))
        });
        let descriptors: Vec<Asked> = descriptors.collect();
        let code = if self.refuse.load(Relaxed) { Code::OverLimit } else { Code::Ok };
        let status = DescriptorStatus {
            code: code.into(),
            current_limit: Some(RateLimit { name: "l".into(), requests_per_unit: 10, unit: Unit::Minute.into() }),
            limit_remaining: 3,
            duration_until_reset: Some(chancery_proto::google::protobuf::Duration { seconds: 7, nanos: 0 }),
            ..DescriptorStatus::default()
        };
        let statuses = vec![status; descriptors.len()];
        self.questions.lock().expect("a whole list").push((request.domain, descriptors));
        let raw_body = if code == Code::Ok { Vec::new() } else { b"slow down".to_vec() };
        Ok(tonic::Response::new(RateLimitResponse {
            overall_code: code.into(),
            statuses,
            raw_body,
            ..RateLimitResponse::default()
        }))
    }
}

impl Limiter {
    /// Serves over mTLS as `identity`.
    async fn serve(&self, scene: &Scene, identity: &Identity, tasks: &mut JoinSet<()>) -> Result<SocketAddr> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let tls = ServerTlsConfig::new()
            .identity(TlsIdentity::from_pem(std::fs::read(&identity.certificate)?, std::fs::read(&identity.key)?))
            .client_ca_root(Certificate::from_pem(std::fs::read(scene.authority.file())?));
        let server = Server::builder().tls_config(tls)?.add_service(RateLimitServiceServer::new(self.clone()));
        tasks.spawn(async move {
            let served = server.serve_with_incoming(TcpListenerStream::new(listener)).await;
            eprintln!("the limiter ended: {served:?}");
        });
        Ok(address)
    }

    fn take(&self) -> Vec<Question> {
        std::mem::take(&mut *self.questions.lock().expect("a whole list"))
    }

    /// Waits for the next question.
    async fn next(&self) -> Result<Question> {
        until("a question", PATIENCE, async || {
            let mut questions = self.questions.lock().expect("a whole list");
            ensure!(!questions.is_empty(), "there is none");
            Ok(questions.remove(0))
        })
        .await
    }
}

/// A limiter for the fleet, an upstream, and a route to it with these limits.
struct Limited {
    limiter: Limiter,
    _upstream: Upstream,
    _tasks: JoinSet<()>,
}

fn fleet_asking(limiter: SocketAddr, more: &Value) -> Value {
    let mut spec = json!({ "addresses": [limiter.to_string()], "timeout": "2s" });
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    resource("Fleet", "edge", json!({ "rateLimiter": spec }))
}

async fn limited(scene: &Scene, limits: &[Value]) -> Result<Limited> {
    let limiter = Limiter::default();
    let mut tasks = JoinSet::new();
    let address = limiter.serve(scene, &scene.authority.limiter("one")?, &mut tasks).await?;
    let upstream = Upstream::start("shop").await?;
    let names: Vec<&Value> = limits.iter().map(|limit| &limit["name"]).collect();
    let rules = json!([{
        "to": [{ "service": "shop" }],
        "rateLimits": names,
        "headers": { "response": { "set": [{ "name": "x-tokens-used", "value": "42" }] } },
    }]);
    let mut resources =
        vec![fleet_asking(address, &json!({})), service("shop", &[upstream.address]), route("shop", HOST, &rules)];
    resources.extend(limits.iter().cloned());
    scene.api.apply_and_wait(&resources).await?;
    // Connections to the limiter are made with the first question.
    scene.fetch_until("the route is there", get(HOST, "/warm"), |response| response.status == 200).await?;
    until("the limiter is asked", PATIENCE, async || {
        scene.fetch(get(HOST, "/warm")).await?;
        ensure!(!limiter.questions.lock().expect("a list").is_empty(), "it was not");
        Ok(())
    })
    .await?;
    limiter.take();
    Ok(Limited { limiter, _upstream: upstream, _tasks: tasks })
}

fn limit(name: &str, key: &Value) -> Value {
    resource("RateLimit", name, json!({ "key": key, "limit": { "requests": 100, "per": "1s" } }))
}

fn pairs(entries: &[(&str, &str)]) -> Vec<(String, String)> {
    entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

async fn every_key_is_told(scene: &Scene) -> Result<()> {
    let limits = [
        limit(
            "everything",
            &json!([
                { "header": "X-Api-Key" },
                { "query": "account" },
                { "remoteAddress": true },
                { "network": { "ipv4": 8 } },
                { "path": true },
                { "method": true },
                { "constant": { "key": "tier", "value": "gold" } },
            ]),
        ),
        limit("optional", &json!([{ "header": "x-api-key", "absent": "skip" }])),
        limit("optional-query", &json!([{ "query": "account", "absent": "skip" }])),
        limit("all", &json!([])),
    ];
    let shop = limited(scene, &limits).await?;
    let full = |key: &str, account: &str, path: &str| {
        pairs(&[
            ("chancery.limit", "everything"),
            ("x-api-key", key),
            ("account", account),
            ("remote_address", "127.0.0.1"),
            ("masked_remote_address", "127.0.0.0/8"),
            ("path", path),
            ("method", "GET"),
            ("tier", "gold"),
        ])
    };
    let all = (pairs(&[("chancery.limit", "all")]), None);

    let with = request(Method::GET, HOST, "/cart?account=7&x=y", &[("x-api-key", "k1")]);
    assert_eq!(scene.fetch(with).await?.status, 200);
    let (domain, descriptors) = shop.limiter.next().await?;
    assert_eq!(domain, "edge");
    let optional = (pairs(&[("chancery.limit", "optional"), ("x-api-key", "k1")]), None);
    let optional_query = (pairs(&[("chancery.limit", "optional-query"), ("account", "7")]), None);
    assert_eq!(descriptors, [(full("k1", "7", "/cart"), None), optional, optional_query, all.clone()]);

    assert_eq!(scene.fetch(get(HOST, "/cart")).await?.status, 200);
    let (_, descriptors) = shop.limiter.next().await?;
    assert_eq!(descriptors, [(full("-", "-", "/cart"), None), all.clone()], "absent");

    let empty = request(Method::GET, HOST, "/cart?account=", &[("x-api-key", "")]);
    assert_eq!(scene.fetch(empty).await?.status, 200);
    let (_, descriptors) = shop.limiter.next().await?;
    assert_eq!(descriptors[0], (full("-", "-", "/cart"), None), "empty");

    let twice = request(Method::GET, HOST, "/cart?account=7&account=8", &[("x-api-key", "k1"), ("x-api-key", "k2")]);
    assert_eq!(scene.fetch(twice).await?.status, 200);
    let (_, descriptors) = shop.limiter.next().await?;
    assert_eq!(descriptors[0], (full("k1", "7", "/cart"), None), "the first of several counts");

    let disguised = request(Method::GET, HOST, "/x/..//cart?%61ccount=%37", &[("X-API-KEY", " k1 ")]);
    assert_eq!(scene.fetch(disguised).await?.status, 200);
    let (_, descriptors) = shop.limiter.next().await?;
    assert_eq!(descriptors[0], (full("k1", "7", "/cart"), None), "written otherwise");
    Ok(())
}

async fn nothing_is_asked_without_limits(scene: &Scene) -> Result<()> {
    let shop = limited(scene, &[limit("all", &json!([]))]).await?;
    scene.api.put_and_wait(&route("shop", HOST, &json!([{ "to": [{ "service": "shop" }] }]))).await?;
    shop.limiter.take();
    scene.fetch(get(HOST, "/")).await?;
    assert!(shop.limiter.take().is_empty());
    Ok(())
}

async fn a_refusal_is_answered_with_headers_and_body(scene: &Scene) -> Result<()> {
    let shop = limited(scene, &[limit("all", &json!([]))]).await?;
    let admitted = scene.fetch(get(HOST, "/")).await?;
    assert_eq!((admitted.status, admitted.header("x-ratelimit-remaining")), (200, "3"));
    shop.limiter.refuse.store(true, Relaxed);
    let refused: Response = scene.fetch(get(HOST, "/")).await?;
    assert_eq!((refused.status, &*refused.text()), (429, "slow down"));
    assert_eq!(refused.header("retry-after"), "7");
    assert_eq!(refused.header("x-ratelimit-reset"), "7");
    assert!(refused.header("x-ratelimit-limit").starts_with("10, 10;w=60"), "{refused:?}");
    assert_eq!(refused.header("x-envoy-ratelimited"), "true");
    Ok(())
}

async fn debt_is_charged_at_the_end(scene: &Scene) -> Result<()> {
    let debt = |name: &str, hits: Value| {
        resource(
            "RateLimit",
            name,
            json!({ "key": [{ "path": true }], "limit": { "requests": 100, "per": "1s" }, "debt": true, "hits": hits }),
        )
    };
    let shop = limited(
        scene,
        &[debt("tokens", json!({ "responseHeader": "x-tokens-used" })), debt("sent", json!({ "bytesSent": true }))],
    )
    .await?;
    let of = |name: &str| pairs(&[("chancery.limit", name), ("path", "/this")]);
    let response = scene.fetch(get(HOST, "/this")).await?;
    let sent = response.body.len() as u64;
    // The ends of the requests before may still be coming.
    let about_this = async || loop {
        let (_, asked) = shop.limiter.next().await?;
        if asked[0].0[1].1 == "/this" {
            return anyhow::Ok(asked);
        }
    };
    assert_eq!(about_this().await?, [(of("tokens"), Some(0)), (of("sent"), Some(0))]);
    assert_eq!(about_this().await?, [(of("tokens"), Some(42)), (of("sent"), Some(sent))]);
    shop.limiter.refuse.store(true, Relaxed);
    let refused = scene.fetch(get(HOST, "/this")).await?;
    assert_eq!(refused.status, 429);
    assert_eq!(about_this().await?, [(of("tokens"), Some(0)), (of("sent"), Some(0))]);
    let cost = refused.body.len() as u64;
    assert_eq!(about_this().await?[1], (of("sent"), Some(cost)), "a refusal costs too, what it cost");
    Ok(())
}

/// A certificate of the same CA that is not a limiter's is not enough.
async fn an_impostor_is_not_asked(scene: &Scene) -> Result<()> {
    let shop = limited(scene, &[limit("all", &json!([]))]).await?;
    let mut tasks = JoinSet::new();
    let impostor = Limiter::default();
    let address = impostor.serve(scene, &scene.authority.server()?, &mut tasks).await?;
    let denying = fleet_asking(address, &json!({ "onFailure": "deny" }));
    scene.api.put_and_wait(&denying).await?;
    let refused = scene
        .fetch_until("nobody is asked, and nothing goes on", get(HOST, "/"), |response| response.status == 503)
        .await
        .context("with an impostor")?;
    assert_eq!(refused.status, 503);
    scene.api.put_and_wait(&fleet_asking(address, &json!({ "onFailure": "allow" }))).await?;
    scene.fetch_until("requests go on", get(HOST, "/"), |response| response.status == 200).await?;
    assert!(impostor.take().is_empty(), "an impostor was asked");
    drop(shop);
    Ok(())
}
