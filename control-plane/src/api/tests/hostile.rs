//! What callers may throw at it: refused in form, nothing written, never a failure of ours.

use axum::{body::Body, http::Method};
use serde_json::{Value, json};

use super::fixture::{Answer, Fixture, TOKEN};

/// The answer is an error of ours, and nobody is to blame but the caller.
#[track_caller]
fn refused(answer: &Answer, what: &str) {
    assert!(answer.status.is_client_error(), "{what}: {} {}", answer.status, answer.text);
    assert_eq!(answer.header("content-type"), "application/problem+json", "{what}");
    assert!(!answer.body["detail"].as_str().unwrap_or_default().is_empty(), "{what}");
    assert!(!answer.header("x-request-id").is_empty(), "{what}");
}

#[tokio::test]
async fn nothing_under_api_without_the_token() {
    let api = Fixture::start().await;
    let good = format!("Bearer {TOKEN}");
    for (path, presented) in [
        ("/api/v1/services", None),
        ("/api/v1/nothing", None),
        ("/api/v1/whoami", Some("Bearer wrong")),
        ("/api/v1/whoami", Some("Bearer ")),
        ("/api/v1/whoami", Some("Bearer")),
        ("/api/v1/whoami", Some("Basic c2VjcmV0")),
        ("/api/v1/whoami", Some(TOKEN)),
        ("/api", None),
    ] {
        let headers: Vec<_> = presented.map(|token| ("authorization", token)).into_iter().collect();
        let answer = api.bare(Method::GET, path, &headers, Body::empty()).await;
        answer.problem(401, "unauthorized");
        assert!(answer.header("www-authenticate").starts_with("Bearer"));
    }
    for (path, headers, status) in [
        ("/api/v1/whoami", vec![("authorization", good.as_str())], 200),
        ("/api/v1/whoami", vec![("authorization", &format!("bearer   {TOKEN} "))], 200),
        ("/api/openapi.json", vec![], 200),
        ("/docs/", vec![], 200),
        ("/nothing", vec![], 404),
    ] {
        let answer = api.bare(Method::GET, path, &headers, Body::empty()).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
}

#[tokio::test]
async fn paths_and_methods_that_are_not_there() {
    let api = Fixture::start().await;
    for path in [
        "/",
        "/api/v1",
        "/api/v1/",
        "/api/v1/widgets",
        "/api/v1/services/a/b",
        "/api/v1/services/",
        "//api/v1/services",
    ] {
        api.ask(Method::GET, path, &[]).await.problem(404, "not-found");
    }
    for (method, path) in [
        (Method::PUT, "/api/v1/services"),
        (Method::POST, "/api/v1/services/a"),
        (Method::GET, "/api/v1/apply"),
        (Method::OPTIONS, "/api/v1/apply"),
        (Method::DELETE, "/api/openapi.json"),
    ] {
        let answer = api.ask(method, path, &[]).await;
        answer.problem(405, "method-not-allowed");
        assert!(!answer.header("allow").is_empty(), "{path}");
    }
    assert_eq!(api.ask(Method::HEAD, "/api/v1/services", &[]).await.status, 200);
}

#[tokio::test]
async fn names_that_are_none() {
    let api = Fixture::start().await;
    let long = "a".repeat(64);
    for name in ["..%2f..%2fetc", "%2e%2e", "A", "a%00", "%ff", "a b", "-a", "a.b", "%F0%9F%92%A9", &long] {
        let path = format!("/api/v1/services/{}", name.replace(' ', "%20"));
        for method in [Method::GET, Method::PUT, Method::PATCH, Method::DELETE] {
            refused(&api.json(method, &path, json!({ "spec": {} })).await, name);
        }
    }
    for name in ["..", "../x", "a/b", "", "A", "\u{0}", "a\n"] {
        let body = json!({ "kind": "Service", "name": name, "spec": { "endpoints": [] } });
        let answer = api.json(Method::POST, "/api/v1/services", body).await;
        answer.problem(422, "invalid");
        assert!(answer.problems().iter().any(|problem| problem.contains("#name: ")), "{:?}", answer.problems());
    }
}

#[tokio::test]
async fn bodies_that_cannot_be_read() {
    let api = Fixture::start().await;
    let deep = "[".repeat(100_000);
    let closed = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
    let bomb = format!(
        "a: &a [x,x,x,x,x,x,x,x,x]\n{}",
        (0..9)
            .map(|i| {
                let before = if i == 0 { "a".to_owned() } else { format!("b{}", i - 1) };
                format!("b{i}: &b{i} [{}]\n", format!("*{before},").repeat(9))
            })
            .collect::<String>()
    );
    let json_bodies = [
        "",
        "{",
        "nul",
        "{\"a\":1,}",
        "{\"a\":1,\"a\":2}",
        "{} {}",
        "[1e999]",
        "\"\\ud800\"",
        &deep,
        &closed,
        "\u{feff}{}",
    ];
    let yaml_bodies = [
        "a: [",
        "a: b: c",
        "a:\n\t- b",
        "a: *b",
        "a: 1\na: 2",
        "? [a]\n: b",
        "!!binary x",
        "- &a [*a]",
        &deep,
        &closed,
        &bomb,
    ];
    for (media_type, bodies) in [("application/json", &json_bodies[..]), ("application/yaml", &yaml_bodies[..])] {
        for body in bodies {
            for (method, path) in [
                (Method::POST, "/api/v1/apply"),
                (Method::POST, "/api/v1/plan"),
                (Method::PUT, "/api/v1/services/a"),
                (Method::POST, "/api/v1/services"),
            ] {
                let what: String = body.chars().take(20).collect();
                let answer = api.send(method, path, &[("content-type", media_type)], body.to_string()).await;
                refused(&answer, &what);
                assert_eq!(answer.status, 400, "{what}: {}", answer.text);
                assert!(answer.body["line"].is_u64() && answer.body["column"].is_u64(), "{what}: {}", answer.text);
            }
        }
    }
    let invalid =
        api.send(Method::POST, "/api/v1/apply", &[("content-type", "application/json")], vec![b'"', 0xff, b'"']).await;
    invalid.problem(400, "malformed-body");
}

#[tokio::test]
async fn bodies_that_mean_nothing() {
    let api = Fixture::start().await;
    let values = [
        json!(null),
        json!(7),
        json!("x"),
        json!([]),
        json!({}),
        json!({ "resources": {} }),
        json!({ "resources": [null] }),
        json!({ "resources": [[]] }),
        json!({ "resources": [{}] }),
        json!({ "resources": "x", "message": 1 }),
        json!({ "kind": "Service" }),
        json!({ "kind": 1, "name": 2, "spec": 3 }),
        json!({ "kind": "Service", "name": "a", "spec": null }),
        json!({ "kind": "Service", "name": "a", "spec": { "endpoints": "x" } }),
        json!({ "kind": "Service", "name": "a", "spec": { "endpoints": [], "connectTimeout": "99999999999999999999h" } }),
        json!({ "kind": "Service", "name": "a", "spec": { "endpoints": [], "nonsense": 1 } }),
        json!({ "kind": "Service", "name": "a", "team": "\u{0}", "spec": { "endpoints": [] } }),
        json!({ "kind": "Service", "name": "a", "labels": { "\u{0}": "" }, "spec": { "endpoints": [] } }),
        json!({ "kind": "Service", "name": "a", "labels": [], "spec": { "endpoints": [] } }),
        json!({ "kind": "Service", "name": "a", "spec": { "endpoints": [] }, "extra": true }),
        json!({ "kind": "Route", "name": "a", "spec": { "listeners": ["no/where"], "hosts": ["a.b"], "rules": [] } }),
        json!({ "kind": "Route", "name": "a", "spec": { "hosts": ["\u{202e}"] } }),
    ];
    for value in values {
        for (method, path) in [
            (Method::POST, "/api/v1/apply"),
            (Method::POST, "/api/v1/plan"),
            (Method::PUT, "/api/v1/services/a"),
            (Method::POST, "/api/v1/services"),
        ] {
            let answer = api.json(method, path, value.clone()).await;
            refused(&answer, &value.to_string());
            assert!(!answer.problems().is_empty(), "{path} {value}: {}", answer.text);
        }
    }
    let list = api.ask(Method::GET, "/api/v1/services", &[]).await;
    assert_eq!(list.body, json!({ "items": [] }), "nothing was written");
}

#[tokio::test]
async fn bodies_that_are_too_large_or_of_another_kind() {
    let api = Fixture::start().await;
    let large = format!("\"{}\"", "x".repeat(10 << 20));
    for path in ["/api/v1/apply", "/api/v1/services"] {
        let answer = api.send(Method::POST, path, &[("content-type", "application/json")], large.clone()).await;
        answer.problem(413, "too-large");
    }
    let waiting = [("content-type", "application/json"), ("expect", "100-continue"), ("content-length", "99999999999")];
    api.send(Method::POST, "/api/v1/apply", &waiting, "{}").await.problem(413, "too-large");
    for media_type in ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonx", "é"] {
        let answer = api.send(Method::POST, "/api/v1/apply", &[("content-type", media_type)], "{}").await;
        answer.problem(415, "unsupported-media-type");
    }
    api.ask(Method::POST, "/api/v1/apply", &[]).await.problem(415, "unsupported-media-type");
}

#[tokio::test]
async fn queries_and_headers_that_cannot_be_read() {
    let api = Fixture::start().await;
    let body = json!({ "kind": "Service", "name": "a", "spec": { "endpoints": [] } });
    for query in [
        "dryrun=true",
        "dryRun=1",
        "dryRun=true&dryRun=false",
        "wait=forever",
        "wait=applied&timeout=5",
        "wait=applied&timeout=-5s",
        "wait=applied&timeout=61s",
        "wait=applied&timeout=99999999999999999999h",
        "timeout=5s",
        "message=%00",
        "message=%1b%5b31m",
        "x=1",
        "=",
    ] {
        let answer = api.json(Method::PUT, &format!("/api/v1/services/a?{query}"), body.clone()).await;
        assert_eq!(answer.status, 400, "{query}");
        answer.problem(400, "malformed-request");
    }
    let long = format!("/api/v1/services/a?message={}", "x".repeat(1001));
    api.json(Method::PUT, &long, body.clone()).await.problem(400, "malformed-request");
    for query in ["limit=0", "limit=1001", "limit=-1", "limit=x", "cursor=..", "team=A", "label=x", "lable=a%3Db"] {
        api.ask(Method::GET, &format!("/api/v1/services?{query}"), &[]).await.problem(400, "malformed-request");
    }
    for path in [
        "revisions?kind=Service",
        "revisions?kind=X&name=a",
        "revisions?cursor=x",
        "revisions/0x1",
        "revisions/-1",
        "revisions/99999999999999999999",
        "revisions/9223372036854775808",
        "proxies?fleet=..",
        "proxies/a?x=1",
    ] {
        refused(&api.ask(Method::GET, &format!("/api/v1/{path}"), &[]).await, path);
    }
    for (name, value) in [("if-match", "\"1\", \"2\""), ("if-match", "é"), ("if-match", ""), ("if-none-match", "\"1\"")]
    {
        let headers = [("content-type", "application/json"), (name, value)];
        let answer = api.send(Method::PUT, "/api/v1/services/a", &headers, body.to_string()).await;
        answer.problem(400, "malformed-request");
    }
    assert_eq!(api.ask(Method::GET, "/api/v1/services", &[]).await.body, json!({ "items": [] }), "nothing was written");
}

#[tokio::test]
async fn a_request_id_is_kept_if_it_is_plain() {
    let api = Fixture::start().await;
    let id = async |given: &str| {
        api.ask(Method::GET, "/api/v1/whoami", &[("x-request-id", given)]).await.header("x-request-id").to_owned()
    };
    assert_eq!(id("abc-1.2_3").await, "abc-1.2_3");
    for given in ["", "a b", "<script>", &"x".repeat(129)] {
        let made = id(given).await;
        assert!(made.len() == 32 && made != given, "{made}");
    }
}

#[tokio::test]
async fn whoami_names_the_author() {
    let api = Fixture::start().await;
    let answer = api.ask(Method::GET, "/api/v1/whoami", &[]).await;
    let grants = json!([{ "role": "admin", "teams": [], "scopes": [] }]);
    assert_eq!(answer.body, json!({ "name": "admin", "role": "admin", "teams": [], "scopes": [], "grants": grants }));
    assert_ne!(answer.body, Value::Null);
}

#[tokio::test]
async fn what_is_wrong_in_one_resource_does_not_hide_what_is_wrong_in_another() {
    let api = Fixture::start().await;
    let body = json!({ "resources": [
        { "kind": "Route", "name": "late", "spec": {
            "listeners": ["edge/none"], "hosts": ["a.example.com"],
            "rules": [{ "to": [{ "service": "nowhere" }], "timeout": "5 parsecs" }],
        } },
        { "kind": "Listener", "name": "web", "spec": { "fleet": "lost", "port": 80, "protocol": "http" } },
        { "kind": "Service", "name": "typo", "spec": { "endpoint": [] } },
        { "kind": "Route", "name": "fine", "spec": {
            "listeners": ["lost/web"], "hosts": ["b.example.com"], "rules": [{ "to": [{ "service": "typo" }] }],
        } },
    ] });
    let answer = api.json(Method::POST, "/api/v1/apply", body).await;
    let problems = answer.problems();
    let said = |start: &str| problems.iter().any(|problem| problem.starts_with(start));
    assert!(said("Route/late#spec.rules[0].timeout: "), "{problems:#?}");
    assert!(said("Route/late#spec.rules[0].to[0].service: Service/nowhere does not exist"), "{problems:#?}");
    assert!(said("Route/late#spec.listeners[0]: Listener/none does not exist"), "{problems:#?}");
    assert!(said("Listener/web#spec.fleet: Fleet/lost does not exist"), "{problems:#?}");
    assert!(said("Service/typo#spec.endpoint"), "{problems:#?}");
    assert!(!problems.iter().any(|problem| problem.contains("Service/typo does not exist")), "{problems:#?}");
    assert!(!said("Route/fine"), "{problems:#?}");
}
