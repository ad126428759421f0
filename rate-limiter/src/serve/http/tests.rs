//! The router in-process, on the store in memory with a clock that stands still.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::{
    body::Body,
    http::{Method, Request, header::HeaderMap},
};
use chancery_runtime::admin::Readiness;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::{
    config::yaml,
    decide::Ruleset,
    model::{key::Salt, limit::Algorithm, rule::Rules},
    store::{Clock, Memory, SaltCell},
};

const RULES: &str = r#"
domain: d
descriptors:
  - key: user
    rate_limit: { unit: minute, requests_per_unit: 2, name: per-user, body: "slow down" }
  - key: user
    value: vip
    rate_limit: { unlimited: true }
  - key: soft
    rate_limit: { unit: hour, requests_per_unit: 1 }
    shadow_mode: true
  - key: none
    rate_limit: { unit: day, requests_per_unit: 0, when_redis_is_down: deny }
  - key: big
    rate_limit: { per: 10s, requests_per_unit: 10, burst: 20, strict: true }
    descriptors:
      - key: path
        value: /a*
        share_threshold: true
        rate_limit: { unit: second, requests_per_unit: 3, algorithm: fixed-window, replaces: [{ name: per-user }] }
"#;

struct Port {
    router: Router,
    http: Http,
}

impl Port {
    fn new() -> Self {
        Self::with(None, Caller::Trusted)
    }

    fn with(fleet: Option<&str>, caller: Caller) -> Self {
        let mut specs = yaml::parse("limits.yaml", RULES.as_bytes(), Algorithm::TokenBucket).unwrap();
        specs[0].fleets = fleet.map(|fleet| [fleet.to_owned()].into());
        let rules = Ruleset::new(Rules::build(&specs).unwrap());
        let (clock, _) = Clock::by_hand(Duration::from_secs(1_700_000_000));
        let store = Arc::new(Memory::new(1_000, clock));
        let limiter = Limiter::new(Arc::new(ArcSwap::from_pointee(rules)), store, SaltCell::new(Salt([1; 16])));
        let admin = Admin {
            readiness: Readiness::new(),
            metrics: chancery_runtime::telemetry::metrics().unwrap(),
            stopping: CancellationToken::new(),
        };
        let http = Http { limiter, caller, admin };
        Self { router: router(http.clone()), http }
    }

    async fn send(&self, method: Method, path: &str, body: impl Into<Body>) -> (StatusCode, HeaderMap, Vec<u8>) {
        let request = Request::builder().method(method).uri(path).body(body.into()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        (parts.status, parts.headers, body.collect().await.unwrap().to_bytes().to_vec())
    }

    async fn json(&self, body: Value) -> (u16, Value) {
        let (status, _, body) = self.send(Method::POST, "/json", body.to_string()).await;
        (status.as_u16(), serde_json::from_slice(&body).unwrap())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let (status, _, body) = self.send(Method::GET, path, Body::empty()).await;
        (status.as_u16(), serde_json::from_slice(&body).unwrap())
    }
}

fn ask(key: &str, value: &str) -> Value {
    json!({"domain": "d", "descriptors": [{"entries": [{"key": key, "value": value}]}]})
}

#[tokio::test]
async fn json_decides_in_the_status_and_in_protobufs_words() {
    let port = Port::new();
    let ok = |remaining: u32, reset: &str| {
        let mut status = json!({
            "code": "OK",
            "currentLimit": {"name": "per-user", "requestsPerUnit": 2, "unit": "MINUTE"},
            "durationUntilReset": reset,
        });
        if remaining > 0 {
            status["limitRemaining"] = remaining.into();
        }
        json!({"overallCode": "OK", "statuses": [status]})
    };
    assert_eq!(port.json(ask("user", "a")).await, (200, ok(1, "30s")));
    assert_eq!(port.json(ask("user", "a")).await, (200, ok(0, "60s")));
    let (status, headers, body) = port.send(Method::POST, "/json", ask("user", "a").to_string()).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(headers[header::RETRY_AFTER], "30");
    assert_eq!(
        serde_json::from_slice::<Value>(&body).unwrap(),
        json!({
            "overallCode": "OVER_LIMIT",
            "statuses": [{
                "code": "OVER_LIMIT",
                "currentLimit": {"name": "per-user", "requestsPerUnit": 2, "unit": "MINUTE"},
                "durationUntilReset": "30s",
            }],
            "rawBody": "c2xvdyBkb3du",
        })
    );
    assert_eq!(port.json(ask("user", "b")).await.0, 200);
    let unlimited = json!({"overallCode": "OK", "statuses": [{"code": "OK", "limitRemaining": u32::MAX}]});
    assert_eq!(port.json(ask("user", "vip")).await, (200, unlimited));
    let free = json!({"overallCode": "OK", "statuses": [{"code": "OK"}]});
    assert_eq!(port.json(ask("unheard-of", "x")).await, (200, free));
}

#[tokio::test]
async fn json_takes_both_cases_and_numbers_in_quotes() {
    for (at, body) in [
        json!({"hits_addend": 2}),
        json!({"hitsAddend": "2"}),
        json!({"hitsAddend": 2.0}),
        json!({"descriptors": [{"entries": [{"key": "user", "value": "a"}], "hits_addend": "2"}]}),
        json!({"descriptors": [{"entries": [{"key": "user", "value": "a"}], "hitsAddend": 2, "limit": null}]}),
    ]
    .into_iter()
    .enumerate()
    {
        let port = Port::new();
        let mut request = ask("user", "a");
        request.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        assert_eq!(port.json(request).await.0, 200, "{at}");
        assert_eq!(port.json(ask("user", "a")).await.0, 429, "{at}");
        let refund = json!({"domain": "d", "descriptors": [
            {"entries": [{"key": "user", "value": "a"}], "isNegativeHits": true, "hitsAddend": 2}]});
        assert_eq!(port.json(refund).await.0, 200, "{at}");
        assert_eq!(port.json(ask("user", "a")).await.0, 200, "{at}");
    }
    let port = Port::new();
    for unit in [json!("HOUR"), json!(3)] {
        let limit = json!({"requests_per_unit": 5, "unit": unit});
        let own = json!({"domain": "d", "descriptors": [{"entries": [{"key": "own"}], "limit": limit}]});
        let (status, answer) = port.json(own).await;
        assert_eq!((status, &answer["statuses"][0]["currentLimit"]["unit"]), (200, &json!("HOUR")));
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_a_problem() {
    let port = Port::new();
    let long = "x".repeat(200_000);
    for (body, detail) in [
        ("{", "EOF while parsing"),
        ("[]", ""),
        ("{} {}", "trailing characters"),
        (r#"{"domain": 7}"#, "domain: invalid type: integer `7`"),
        (r#"{"domian": "d"}"#, "unknown field `domian`"),
        (r#"{"domain": "d", "descriptors": [{"entires": []}]}"#, "descriptors[0].entires: unknown field"),
        (r#"{"descriptors": [{"entries": [{"key": "k"}]}]}"#, "the domain must not be empty"),
        (r#"{"domain": "d"}"#, "there must be at least one descriptor"),
        (r#"{"domain": "d", "hitsAddend": -1}"#, "hitsAddend: must be a whole number"),
        (r#"{"domain": "d", "hitsAddend": 4294967296}"#, "hitsAddend: must be a whole number from 0 to 4294967295"),
        (r#"{"domain": "d", "descriptors": [{"hitsAddend": "x"}]}"#, "descriptors[0].hitsAddend: must be a whole"),
        (
            r#"{"domain": "d", "descriptors": [{"limit": {"unit": "EON"}}]}"#,
            "descriptors[0].limit.unit: must be SECOND",
        ),
        (&format!(r#"{{"domain": "{long}", "descriptors": [{{}}]}}"#), "the domain has 200000 bytes, more than"),
        (&format!(r#"{{"domain": "d", "descriptors": [{}{{}}]}}"#, "{},".repeat(9_999)), "there are 10000 descriptors"),
    ] {
        for path in ["/json", "/limits/check"] {
            let (status, headers, answer) = port.send(Method::POST, path, body.to_owned()).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{body:.80}");
            assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json");
            let problem: Value = serde_json::from_slice(&answer).unwrap();
            assert!(problem["detail"].as_str().unwrap().contains(detail), "{body:.80}\n{problem}");
        }
    }
    let (status, headers, _) = port.send(Method::POST, "/json", vec![b' '; MAX_BODY + 1]).await;
    assert_eq!(
        (status, &headers[header::CONTENT_TYPE]),
        (StatusCode::PAYLOAD_TOO_LARGE, &"application/problem+json".parse().unwrap())
    );
    let (status, headers, _) = port.send(Method::GET, "/json", Body::empty()).await;
    assert_eq!((status, &headers[header::ALLOW]), (StatusCode::METHOD_NOT_ALLOWED, &"POST".parse().unwrap()));
    assert_eq!(port.get("/nothing").await.0, 404);
    assert_eq!(port.get("/limits?dmain=d").await.0, 400);
    let (status, problem) = port.get("/limits/check?domain=d&descriptor=user=a&hits=many").await;
    assert_eq!((status, problem["detail"].as_str()), (400, Some("hits: \"many\" is not a number")));
}

#[tokio::test]
async fn limits_are_shown_as_loaded() {
    let (status, limits) = Port::new().get("/limits").await;
    assert_eq!(status, 200);
    let domain = &limits["domains"][0];
    assert_eq!((&domain["name"], &domain["origin"]), (&json!("d"), &json!("limits.yaml")));
    let paths: Vec<_> = domain["rules"].as_array().unwrap().iter().map(|rule| rule["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["d.user", "d.user_vip", "d.soft", "d.none", "d.big", "d.big.path_/a*"]);
    let limit = json!({"requests": 10, "per": "10s", "burst": 20, "algorithm": "token-bucket"});
    let big = json!({"path": "d.big", "limit": limit, "flags": ["strict"], "whenRedisIsDown": "local"});
    assert_eq!(domain["rules"][4], big);
    assert_eq!(domain["rules"][1], json!({"path": "d.user_vip", "whenRedisIsDown": "local"}));
    assert_eq!(domain["rules"][2]["flags"], json!(["shadow_mode"]));
    assert_eq!(domain["rules"][3]["whenRedisIsDown"], "deny");
    let shared = json!({
        "path": "d.big.path_/a*",
        "limit": {"requests": 3, "per": "1s", "burst": 3, "algorithm": "fixed-window"},
        "replaces": ["per-user"],
        "flags": ["share_threshold"],
        "whenRedisIsDown": "local",
    });
    assert_eq!(domain["rules"][5], shared);
    assert_eq!(Port::new().get("/limits?domain=other").await.1, json!({"domains": []}));
}

#[tokio::test]
async fn a_check_says_why_and_changes_nothing() {
    let port = Port::new();
    let path = "/limits/check?domain=d&descriptor=user=a";
    for _ in 0..5 {
        let (status, found) = port.get(path).await;
        let first = &found["descriptors"][0];
        assert_eq!((status, &found["admitted"], &first["finding"]), (200, &json!(true), &json!("within_limit")));
        assert_eq!((&first["remaining"], first.get("retryAfter")), (&json!(2), None));
    }
    let full = port.get("/limits/check?domain=d&descriptor=user=a&hits=3").await.1;
    assert_eq!((&full["admitted"], &full["descriptors"][0]["retryAfter"]), (&json!(false), &json!("never")));

    port.json(ask("user", "a")).await;
    let two = port.get("/limits/check?domain=d&descriptor=user=a&hits=2").await.1;
    assert_eq!((&two["admitted"], &two["descriptors"][0]["retryAfter"]), (&json!(false), &json!("30s")));

    port.json(ask("user", "a")).await;
    let found = port.get(path).await.1;
    let cell = found["descriptors"][0]["cell"].as_str().unwrap().to_owned();
    assert_eq!(cell.len(), 32);
    let expected = json!({
        "domain": "d",
        "admitted": false,
        "descriptors": [{
            "entries": [{"key": "user", "value": "a"}],
            "hits": 1,
            "finding": "over_limit",
            "rule": {
                "path": "d.user",
                "name": "per-user",
                "limit": {"requests": 2, "per": "60s", "burst": 2, "algorithm": "token-bucket"},
                "whenRedisIsDown": "local",
            },
            "cell": cell,
            "limit": {"requests": 2, "per": "60s", "burst": 2, "algorithm": "token-bucket"},
            "remaining": 0,
            "reset": "60s",
            "retryAfter": "30s",
            "decidedBy": "memory",
        }],
    });
    assert_eq!(found, expected);
    // The same as a body, and as a decision.
    let (_, _, posted) = port.send(Method::POST, "/limits/check", ask("user", "a").to_string()).await;
    assert_eq!(serde_json::from_slice::<Value>(&posted).unwrap(), expected);
    assert_eq!(port.json(ask("user", "a")).await.0, 429);
    let other = port.get("/limits/check?domain=d&descriptor=user=b").await.1;
    assert_ne!(other["descriptors"][0]["cell"], found["descriptors"][0]["cell"]);
    assert_eq!(other["admitted"], true);
}

#[tokio::test]
async fn a_check_names_every_finding() {
    let port = Port::new();
    port.json(ask("soft", "x")).await;
    let path = "/limits/check?domain=d&descriptor=big=1,path=/a/b&descriptor=user=a&descriptor=user=vip&descriptor=soft=x\
                &descriptor=none=&descriptor=unheard&descriptor=big=1";
    let (_, found) = port.get(path).await;
    let findings: Vec<_> =
        found["descriptors"].as_array().unwrap().iter().map(|found| found["finding"].as_str().unwrap()).collect();
    assert_eq!(
        findings,
        ["within_limit", "replaced", "unlimited", "over_limit_in_shadow_mode", "over_limit", "no_rule", "within_limit"]
    );
    assert_eq!(found["admitted"], false);
    assert_eq!(found["descriptors"][1]["rule"]["path"], "d.user");
    assert_eq!(found["descriptors"][4]["retryAfter"], "never");
    let (_, found) = port.get("/limits/check?domain=e&descriptor=k=v").await;
    assert_eq!((&found["admitted"], &found["descriptors"][0]["finding"]), (&json!(true), &json!("unknown_domain")));
}

#[tokio::test]
async fn a_domain_of_a_fleet_is_closed_to_others() {
    let port = Port::with(Some("edge"), Caller::Certified);
    assert_eq!(port.json(ask("user", "a")).await.0, 403);
    // Looking is for whoever may reach the port.
    assert_eq!(port.get("/limits/check?domain=d&descriptor=user=a").await.0, 200);
    assert_eq!(port.get("/limits").await.1["domains"][0]["name"], "d");

    let port = Port::with(Some("edge"), Caller::Fleet("edge".into()));
    assert_eq!(port.json(ask("user", "a")).await.0, 200);
    assert_eq!(port.get("/limits").await.1["domains"][0]["fleets"], json!(["edge"]));

    // Who the connection says it is counts for more than the port's default.
    let port = Port::with(Some("edge"), Caller::Certified);
    let router = port.router.layer(Extension(Caller::Fleet("edge".into())));
    let request = Request::post("/json").body(Body::from(ask("user", "a").to_string())).unwrap();
    assert_eq!(router.oneshot(request).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn health_and_metrics_are_on_the_same_port() {
    let port = Port::new();
    let condition = port.http.admin.readiness.condition("rules loaded");
    for (path, before, after) in
        [("/livez", 200, 200), ("/readyz", 503, 200), ("/healthcheck", 500, 200), ("/metrics", 200, 200)]
    {
        condition.lost();
        assert_eq!(port.send(Method::GET, path, Body::empty()).await.0.as_u16(), before, "{path}");
        condition.met();
        assert_eq!(port.send(Method::GET, path, Body::empty()).await.0.as_u16(), after, "{path}");
    }
}

#[tokio::test]
async fn the_port_serves_until_stopped() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let server = tokio::spawn(serve(listener, Port::new().http, stop.clone()));
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let body = ask("user", "a").to_string();
    let request = Request::post("/json").header(header::HOST, "limiter").body(body).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), StatusCode::OK);
    stop.cancel();
    server.await.unwrap();
    drop(sender);
    let _ = connection.await.unwrap();
}

#[tokio::test]
async fn a_probe_is_admitted_exactly_as_often_as_its_limit_says_and_counts_nowhere_else() {
    let port = Port::new();
    let before = port.get("/limits").await;
    for _ in 0..2 {
        let (status, _, body) = port.send(Method::POST, "/limits/probe", Body::empty()).await;
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (status, body),
            (
                StatusCode::OK,
                json!({
                    "allowed": 10, "tried": 15, "admitted": 10, "sources": { "memory": 15 },
                })
            )
        );
    }
    assert_eq!(port.get("/limits").await, before);
    assert_eq!(port.json(ask("user", "a")).await.1["statuses"][0]["limitRemaining"], 1);
    assert_eq!(port.send(Method::GET, "/limits/probe", Body::empty()).await.0, StatusCode::METHOD_NOT_ALLOWED);
}
