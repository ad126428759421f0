//! What is said of requests to a small catalog. Whether Envoy agrees is seen in `e2e/tests/explain.rs`.

use std::sync::Arc;

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::*;
use crate::model::{Problems, parse, parse_document};

/// A catalog of `documents`, the first written by revision 1 and so on.
fn catalog(documents: &Value) -> Catalog {
    let entries = documents.as_array().unwrap().iter().enumerate().map(|(index, value)| {
        let mut problems = Problems::default();
        let document = parse_document(value, "", &mut problems);
        let resource = document.as_ref().and_then(|document| parse(document, &mut problems));
        let (Some(document), Some(resource)) = (document, resource) else { panic!("{:?}", problems.into_vec()) };
        Entry {
            document: Arc::new(document),
            resource,
            revision: index as u64 + 1,
            updated_at: OffsetDateTime::UNIX_EPOCH,
            updated_by: "test".into(),
        }
    });
    Catalog::load(entries.collect::<Vec<_>>()).unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// Two listeners and two services, and these routes on the first listener.
fn with_routes(routes: &[Value]) -> Value {
    let service = |name: &str| json!({ "kind": "Service", "name": name, "spec": { "endpoints": [{ "address": "10.0.0.1", "port": 80 }] } });
    let limiter = json!({ "addresses": ["10.0.0.9:8081"] });
    let mut documents = vec![
        json!({ "kind": "Fleet", "name": "edge", "spec": { "defaults": { "timeout": "20s" }, "rateLimiter": limiter } }),
        json!({ "kind": "Listener", "name": "web", "spec": { "fleet": "edge", "port": 10000, "protocol": "http" } }),
        json!({ "kind": "Listener", "name": "other", "spec": { "fleet": "edge", "port": 10001, "protocol": "http" } }),
        service("shop"),
        service("shop-next"),
        json!({ "kind": "RateLimit", "name": "per-client", "spec": {
            "key": [{ "header": "x-api-key", "absent": "skip" }, { "query": "account" }, { "remoteAddress": true }, { "path": true }],
            "limit": { "requests": 100, "per": "1s", "burst": 200 } } }),
    ];
    documents.extend_from_slice(routes);
    documents.into()
}

fn route(name: &str, hosts: &[&str], rules: &Value) -> Value {
    json!({ "kind": "Route", "name": name, "spec": { "listeners": ["edge/web"], "hosts": hosts, "rules": rules } })
}

fn request(method: &str, url: &str, headers: &[(&str, &str)]) -> Request {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Request::new(method, url, headers).unwrap()
}

fn answer(status: u16) -> Destination {
    Destination::Respond { status, location: None, body: String::new() }
}

fn edge() -> Name {
    "edge".parse().unwrap()
}

/// What the only listener concerned does.
fn at_web(documents: &Value, method: &str, url: &str, headers: &[(&str, &str)]) -> AtListener {
    let catalog = catalog(documents);
    let explained = Explainer::new(&catalog, 99).explain(&edge(), &request(method, url, headers)).unwrap();
    assert_eq!(explained.listeners.len(), 1, "{:?}", explained.listeners);
    explained.listeners.into_iter().next().unwrap()
}

fn place(source: Option<&Source>) -> Option<(&str, &str, u64)> {
    source.map(|source| (source.resource.as_str(), source.path.as_str(), source.revision))
}

#[test]
fn an_explanation_says_where_everything_comes_from() {
    let rules = json!([
        { "match": { "path": { "prefix": "/admin" } }, "respond": { "status": 403 } },
        { "match": { "path": { "prefix": "/api" }, "methods": ["GET"],
            "headers": [{ "name": "X-Team", "present": true }, { "name": "X-Beta", "exact": "1" }] },
          "to": [{ "service": "shop-next" }] },
        { "match": { "path": { "prefix": "/api" } },
          "to": [{ "service": "shop-next", "weight": 10 }, { "service": "shop", "weight": 90 }],
          "rewrite": { "prefix": "/", "host": "shop.internal" },
          "rateLimits": ["per-client"], "timeout": "1500ms",
          "retry": { "on": ["5xx", "reset"], "attempts": 2, "perTryTimeout": "500ms", "backoff": { "base": "25ms" } },
          "mirror": { "service": "shop-next", "percent": 5 },
          "fault": { "abort": { "status": 503, "percent": 5 }, "expires": "2026-12-01T12:00:00Z" },
          "cors": { "origins": ["https://*.example.org"] },
          "headers": { "request": { "set": [{ "name": "x-from", "value": "edge" }], "remove": ["x-debug"] } } },
    ]);
    let documents = with_routes(&[route("shop", &["shop.example.com"], &rules)]);
    let headers = [("x-beta", "2"), ("x-team", "a"), ("x-api-key", "k1"), ("origin", "https://a.example.org")];
    let catalog = catalog(&documents);
    let request = request("GET", "https://Shop.Example.com/api//orders?account=a%20b", &headers);
    let explained = Explainer::new(&catalog, 99).explain(&edge(), &request).unwrap();
    insta::assert_snapshot!(serde_json::to_string_pretty(&explained).unwrap());
    assert!(explained.is_matched());
    let read: Explanation = serde_json::from_value(serde_json::to_value(&explained).unwrap()).unwrap();
    assert_eq!(read, explained, "the command line reads what the API writes");
}

#[test]
fn a_rule_without_a_timeout_has_that_of_the_fleet() {
    let documents = with_routes(&[route("shop", &["*"], &json!([{ "to": [{ "service": "shop" }] }]))]);
    let policies = at_web(&documents, "GET", "http://a/", &[]).policies.unwrap();
    assert_eq!(policies.timeout, "20s");
    assert_eq!(place(Some(&policies.timeout_from)), Some(("Fleet/edge", "spec.defaults.timeout", 1)));
}

#[test]
fn the_host_is_chosen_as_it_is_then_by_the_longest_wildcard() {
    let everything = json!([{ "respond": { "status": 200 } }]);
    let hosts = ["*", "*.com", "*.example.com", "*.shop.example.com", "shop.example.com", "[::1]"];
    let routes: Vec<Value> =
        hosts.iter().enumerate().map(|(index, host)| route(&format!("r{index}"), &[host], &everything)).collect();
    let catalog = catalog(&with_routes(&routes));
    let chosen = |authority: &str| {
        host::choose(&catalog, &"web".parse().unwrap(), authority).map(|host| host.to_string()).unwrap_or_default()
    };
    for (authority, wanted) in [
        ("shop.example.com", "shop.example.com"),
        ("SHOP.example.com:8080", "shop.example.com"),
        ("a.shop.example.com", "*.shop.example.com"),
        ("other.example.com", "*.example.com"),
        ("a.b.example.com", "*.example.com"),
        ("example.com", "*.com"),
        (".example.com", "*.com"),
        (".com", "*"),
        ("com", "*"),
        ("[::1]:80", "[::1]"),
        ("", "*"),
    ] {
        assert_eq!(chosen(authority), wanted, "{authority}");
    }
    assert_eq!(host::choose(&catalog, &"other".parse().unwrap(), "shop.example.com"), None);
}

#[test]
fn what_nearly_matches_is_named_with_the_condition() {
    let rules = json!([
        { "match": { "path": { "exact": "/apis" } }, "respond": { "status": 200 } },
        { "match": { "path": { "template": "/users/{user}" }, "methods": ["GET", "PUT"],
            "query": [{ "name": "z", "present": true }, { "name": "debug", "regex": "[0-9]+" }],
            "cookies": [{ "name": "tier", "exact": "gold", "invert": true }] }, "respond": { "status": 200 } },
        { "match": { "grpc": { "service": "shop.v1.Checkout" } }, "respond": { "status": 200 } },
    ]);
    let documents = with_routes(&[route("shop", &["*"], &rules)]);
    let headers = [("cookie", "tier=gold")];
    let at = at_web(&documents, "POST", "http://a/users/7?debug=x", &headers);
    assert_eq!(place(at.nearest.as_ref()), Some(("Route/shop", "spec.rules[1]", 7)));
    assert_eq!((at.rule, at.destination), (None, Destination::NoRoute { status: 404 }));
    let unmet = |index: usize| {
        let unmet = at.passed_over[index].unmet.iter();
        unmet.map(|unmet| format!("{}: {}, {}", unmet.path, unmet.wanted, unmet.found)).collect::<Vec<_>>()
    };
    assert_eq!(unmet(0), ["spec.rules[0].match.path.exact: path /apis, /users/7"]);
    assert_eq!(
        unmet(1),
        [
            "spec.rules[1].match.methods: method GET or PUT, POST",
            "spec.rules[1].match.query[1]: parameter debug matching \"[0-9]+\", \"x\"",
            "spec.rules[1].match.query[0]: parameter z, none",
            "spec.rules[1].match.cookies[0]: cookie tier not equal to \"gold\", \"gold\"",
        ]
    );
    assert_eq!(
        unmet(2),
        [
            "spec.rules[2].match.grpc: path that begins with /shop.v1.Checkout/, /users/7",
            "spec.rules[2].match.grpc: a call of gRPC, content type none",
        ]
    );
}

#[test]
fn only_the_rules_that_came_closest_are_told_of() {
    let rules: Vec<Value> = (0..80)
        .map(|index| json!({ "match": { "path": { "exact": format!("/{index}") } }, "respond": { "status": 200 } }))
        .collect();
    let documents = with_routes(&[route("shop", &["*"], &rules.into())]);
    let at = at_web(&documents, "GET", "http://a/79x", &[]);
    assert_eq!((at.passed_over.len(), at.passed_over_omitted), (50, 30));
    assert_eq!(place(at.nearest.as_ref()), Some(("Route/shop", "spec.rules[79]", 7)));
    let order: Vec<&str> = at.passed_over.iter().map(|passed| passed.rule.path.as_str()).collect();
    assert_eq!((order[0], order[49]), ("spec.rules[0]", "spec.rules[79]"));
}

#[test]
fn rules_of_all_routes_for_a_host_are_tried_in_one_order() {
    let respond = |path: Value, status: u16| json!([{ "match": { "path": path }, "respond": { "status": status } }]);
    let documents = with_routes(&[
        route("a", &["*"], &respond(json!({ "prefix": "/" }), 203)),
        route("b", &["*"], &respond(json!({ "prefix": "/api" }), 202)),
    ]);
    let destination = |path: &str| at_web(&documents, "GET", &format!("http://a{path}"), &[]).destination;
    assert_eq!(destination("/api/x"), answer(202));
    assert_eq!(destination("/ap"), answer(203));
}

#[test]
fn headers_are_matched_as_the_proxy_sees_them() {
    let rule =
        |header: Value, status: u16| json!({ "match": { "headers": [header] }, "respond": { "status": status } });
    let rules = json!([
        rule(json!({ "name": "x-envoy-max-retries", "present": true }), 201),
        rule(json!({ "name": "x-several", "exact": "b" }), 202),
        rule(json!({ "name": "accept", "exact": "a,b" }), 209),
        rule(json!({ "name": "host", "exact": "other.example.com" }), 203),
        rule(json!({ "name": "x-request-id", "exact": "mine" }), 204),
        rule(json!({ "name": "x-forwarded-proto", "exact": "https" }), 205),
        rule(json!({ "name": "te", "present": true }), 206),
        rule(json!({ "name": "x-not", "exact": "1", "invert": true }), 207),
        rule(json!({ "name": "x-request-id", "present": true }), 208),
    ]);
    let documents = with_routes(&[route("shop", &["*"], &rules)]);
    let status = |headers: &[(&str, &str)]| {
        let headers = [headers, &[("x-not", "1")]].concat();
        match at_web(&documents, "GET", "http://a/", &headers) {
            AtListener { destination: Destination::Respond { status, .. }, notes, .. } => (status, notes.len()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(status(&[("x-envoy-max-retries", "3"), ("x-request-id", "mine")]), (208, 1));
    assert_eq!(status(&[("X-Several", "a"), ("x-several", "b")]), (202, 0));
    assert_eq!(status(&[("accept", "a"), ("accept", "b")]), (209, 0));
    assert_eq!(status(&[("x-several", "a,b"), ("content-type", "application/grpc;x")]), (208, 1));
    assert_eq!(status(&[("host", "other.example.com")]), (203, 0));
    assert_eq!(status(&[("x-forwarded-proto", "https"), ("te", "gzip")]), (208, 1));
    assert_eq!(status(&[("te", "gzip, trailers")]), (206, 1));
    let without = at_web(&documents, "GET", "http://a/", &[]);
    assert_eq!(without.destination, answer(207));
}

#[test]
fn what_the_proxy_refuses_meets_no_rule() {
    let documents = with_routes(&[route("shop", &["*"], &json!([{ "respond": { "status": 200 } }]))]);
    let refused = |url: &str, headers: &[(&str, &str)]| match at_web(&documents, "GET", url, headers) {
        AtListener { destination: Destination::Refused { status, location, because: _ }, rule: None, .. } => {
            (status, location)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(refused("http://a/", &[("x_user", "1")]), (400, None));
    assert_eq!(refused("http://a/a%00", &[]), (400, None));
    assert_eq!(refused("http://a/a%2Fb?c=%2F", &[]), (307, Some("/a/b?c=%2F".to_owned())));
    assert_eq!(refused("http://a/a%2Fb", &[("content-type", "application/grpc")]), (400, None));
    assert_eq!(refused("http://a/", &[("connection", "Upgrade"), ("upgrade", "websocket")]), (403, None));
}

#[test]
fn a_path_prefix_ends_where_a_segment_does() {
    let rules = json!([
        { "match": { "path": { "pathPrefix": "/api" } }, "to": [{ "service": "shop" }], "rewrite": { "prefix": "/" } },
        { "respond": { "status": 200 } },
    ]);
    let documents = with_routes(&[route("shop", &["*"], &rules)]);
    for (path, arrives) in [("/api", "/"), ("/api/", "/"), ("/api/x", "/x")] {
        let at = at_web(&documents, "GET", &format!("http://a{path}"), &[]);
        assert!(matches!(&at.destination, Destination::Forward { path, .. } if path == arrives), "{at:?}");
    }
    for path in ["/apix", "/ap", "/API"] {
        let at = at_web(&documents, "GET", &format!("http://a{path}"), &[]);
        assert_eq!(at.destination, answer(200), "{path}");
        let unmet = &at.passed_over[0].unmet[0];
        assert_eq!(unmet.path, "spec.rules[0].match.path.pathPrefix");
        assert_eq!(unmet.wanted, "path /api or one below it");
    }
}

#[test]
fn a_protocol_becomes_what_a_rule_says() {
    let rules = json!([
        { "match": { "path": { "prefix": "/live" }, "headers": [{ "name": "upgrade", "present": true }] },
          "to": [{ "service": "shop" }], "upgrades": ["websocket"] },
        { "match": { "path": { "regex": ".*" } }, "to": [{ "service": "shop" }] },
    ]);
    let documents = with_routes(&[route("shop", &["*"], &rules)]);
    let asked = |path: &str, to: &str| {
        let headers = [("connection", "keep-alive, Upgrade"), ("upgrade", to)];
        at_web(&documents, "GET", &format!("http://a{path}"), &headers).destination
    };
    assert!(matches!(asked("/live", "WebSocket"), Destination::Forward { .. }));
    assert!(matches!(asked("/live", "other"), Destination::Refused { status: 403, .. }));
    assert!(matches!(asked("/", "websocket"), Destination::Refused { status: 403, .. }));
    assert!(matches!(asked("/", "h2c"), Destination::Forward { .. }));
    let connect = at_web(&documents, "CONNECT", "http://a:5432", &[]);
    assert_eq!(connect.destination, Destination::NoRoute { status: 404 });
}

#[test]
fn a_tunnel_is_for_the_rule_that_says_so_and_for_no_other() {
    let rules = json!([
        { "match": { "path": { "regex": ".*" } }, "respond": { "status": 200 } },
        { "match": { "connect": true, "headers": [{ "name": "x-who", "exact": "a" }] }, "to": [{ "service": "shop" }] },
        { "match": { "connect": true, "headers": [{ "name": "x-who", "exact": "b" }] }, "connect": "forward",
          "to": [{ "service": "shop-next" }] },
    ]);
    let documents = with_routes(&[route("shop", &["*"], &rules)]);
    let asked = |who: &str| at_web(&documents, "CONNECT", "http://db.example.com:5432", &[("x-who", who)]);
    for (who, service, rule, unmet) in [("a", "Service/shop", 1, 1), ("b", "Service/shop-next", 2, 2)] {
        let at = asked(who);
        let Destination::Forward { to, host, path } = &at.destination else { panic!("{at:?}") };
        assert_eq!(
            (to[0].service.resource.as_str(), host.as_str(), path.as_str()),
            (service, "db.example.com:5432", "")
        );
        assert_eq!(at.rule.map(|rule| rule.path), Some(format!("spec.rules[{rule}]")));
        assert_eq!(at.passed_over.len(), unmet);
        assert_eq!(at.passed_over[0].unmet[0].found, "CONNECT, which has no path");
        assert_eq!((at.policies.unwrap().timeout.as_str(), at.notes.len()), ("none", 1));
    }
    assert_eq!(asked("c").destination, Destination::NoRoute { status: 404 });
    let plain = at_web(&documents, "GET", "http://db.example.com/", &[("x-who", "a")]);
    assert_eq!(plain.destination, answer(200));
}

#[test]
fn a_redirect_says_where_to() {
    let moved =
        |prefix: &str, redirect: Value| json!({ "match": { "path": { "prefix": prefix } }, "redirect": redirect });
    let rules = json!([
        moved("/port", json!({ "port": 8443, "status": 308 })),
        moved("/https", json!({ "scheme": "https" })),
        moved("/old", json!({ "prefix": "/" })),
        moved("/path", json!({ "path": "/new", "stripQuery": true })),
        moved("/", json!({ "host": "b.example.com" })),
    ]);
    let documents = with_routes(&[route("shop", &["*"], &rules)]);
    for (host, target, wanted) in [
        ("A.example:8080", "/port?q", (308, "http://A.example:8443/port?q")),
        ("[::1]:80", "/https/a", (301, "https://[::1]/https/a")),
        ("a:8080", "/https", (301, "https://a:8080/https")),
        ("a", "/old//x?q", (301, "http://a/x?q")),
        ("a", "/older", (301, "http://a/er")),
        ("a", "/path/x?q", (301, "http://a/new")),
        ("a:80", "/x?q", (301, "http://b.example.com/x?q")),
    ] {
        let at = at_web(&documents, "GET", &format!("http://ignored{target}"), &[("host", host)]);
        let wanted = Destination::Redirect { status: wanted.0, location: wanted.1.to_owned() };
        assert_eq!(at.destination, wanted, "{host} {target}");
    }
}

#[test]
fn an_answer_that_is_else_a_redirect_leads_back() {
    let rules = json!([{ "match": { "path": { "prefix": "/made" } }, "respond": { "status": 201 } },
        { "match": { "path": { "prefix": "/moved" } }, "respond": { "status": 302 } }, { "respond": { "status": 200 } }]);
    let documents = with_routes(&[route("shop", &["*"], &rules)]);
    let location = |target: &str| match at_web(&documents, "GET", &format!("http://A:81{target}"), &[("host", "A:81")])
    {
        AtListener { destination: Destination::Respond { location, .. }, .. } => location,
        other => panic!("{other:?}"),
    };
    assert_eq!(location("/made/./x?q").as_deref(), Some("http://A:81/made/x?q"));
    assert_eq!(location("/moved").as_deref(), Some("http://A:81/moved"));
    assert_eq!(location("/"), None);
}

#[test]
fn the_question_of_a_browser_is_answered_for_the_rule_it_is_about() {
    let cors = json!({ "origins": ["https://shop.example.com"] });
    let rules = json!([
        { "match": { "path": { "prefix": "/api" }, "methods": ["PUT"], "headers": [{ "name": "x-beta", "present": true }] },
          "to": [{ "service": "shop" }], "cors": cors },
        { "to": [{ "service": "shop-next" }] },
    ]);
    let documents = with_routes(&[route("shop", &["*"], &rules)]);
    let asked = |origin: &str, method: &str| {
        let headers = [("origin", origin), ("access-control-request-method", method)];
        at_web(&documents, "OPTIONS", "http://a/api", &headers).destination
    };
    assert_eq!(asked("https://shop.example.com", "PUT"), Destination::Preflight { status: 200, allowed: true });
    assert_eq!(asked("https://evil.example.com", "PUT"), Destination::Preflight { status: 200, allowed: false });
    assert!(
        matches!(asked("https://shop.example.com", "DELETE"), Destination::Forward { to, .. } if to[0].service.resource == "Service/shop-next")
    );
    assert!(matches!(asked("", "PUT"), Destination::Forward { to, .. } if to[0].service.resource == "Service/shop"));
}

#[test]
fn listeners_are_chosen_by_port_then_by_host() {
    let rules = json!([{ "respond": { "status": 200 } }]);
    let mut everywhere = route("everywhere", &["both.example.com"], &rules);
    everywhere["spec"]["listeners"] = json!(["edge/web", "edge/other"]);
    let catalog = catalog(&with_routes(&[route("shop", &["shop.example.com"], &rules), everywhere]));
    let explainer = Explainer::new(&catalog, 99);
    let chosen = |url: &str| {
        let explained = explainer.explain(&edge(), &request("GET", url, &[])).unwrap();
        let names = explained.listeners.iter().map(|at| at.listener.resource.clone()).collect::<Vec<_>>();
        (names.join(" "), explained.notes.len())
    };
    let is = |names: &str, notes: usize| (names.to_owned(), notes);
    assert_eq!(chosen("http://shop.example.com/"), is("Listener/web", 0));
    assert_eq!(chosen("http://both.example.com/"), is("Listener/other Listener/web", 0));
    assert_eq!(chosen("http://both.example.com:10001/"), is("Listener/other", 0));
    assert_eq!(chosen("http://shop.example.com:10001/"), is("Listener/other", 0), "which has no such host");
    assert_eq!(chosen("http://shop.example.com:80/"), is("Listener/web", 1));
    assert_eq!(chosen("https://shop.example.com/"), is("Listener/web", 1));
    assert!(explainer.explain(&"gone".parse().unwrap(), &request("GET", "http://a/", &[])).is_none());
}

#[test]
fn patches_are_named() {
    let patch = |name: &str, target: Value| {
        json!({ "kind": "EnvoyPatch", "name": name,
        "spec": { "fleet": "edge", "target": target, "merge": { "name": "x" } } })
    };
    let rules = json!([{ "to": [{ "service": "shop" }] }]);
    let documents = with_routes(&[
        route("shop", &["*"], &rules),
        patch("here", json!({ "kind": "VirtualHost", "name": "web/*" })),
        patch("there", json!({ "kind": "Listener", "name": "other" })),
        json!({ "kind": "EnvoyPatch", "name": "legacy", "spec": { "fleet": "edge", "resource": {
            "@type": "type.googleapis.com/envoy.config.listener.v3.Listener", "name": "legacy" } } }),
    ]);
    let catalog = catalog(&documents);
    let explained = Explainer::new(&catalog, 99).explain(&edge(), &request("GET", "http://a/", &[])).unwrap();
    let named: Vec<_> = explained.listeners[0].patches.iter().map(|patch| patch.resource.as_str()).collect();
    assert_eq!(named, ["EnvoyPatch/here"]);
    assert_eq!(explained.notes, ["EnvoyPatch/legacy adds a listener, of which nothing is said here"]);
}

#[test]
fn traffic_moves_by_what_a_rule_means_not_by_its_number() {
    let to =
        |service: &str, path: &str| json!({ "match": { "path": { "prefix": path } }, "to": [{ "service": service }] });
    let of = |rules: &Value| catalog(&with_routes(&[route("shop", &["*"], rules)]));
    let before = of(&json!([to("shop", "/api"), to("shop", "/")]));
    let after = of(&json!([to("shop-next", "/cart"), to("shop", "/api"), to("shop", "/")]));
    let (before, after) = (Explainer::new(&before, 1), Explainer::new(&after, 2));
    let moved = |target: &str| {
        let request = Request::logged("GET", "a.example.com", target, []).unwrap();
        moved(&before, &after, None, &request)
    };
    assert_eq!(moved("/api/x"), [], "another index is the same rule");
    let cart = moved("/cart");
    assert_eq!(cart.len(), 1, "on the one listener that has the host");
    let rule = |goal: &Option<Goal>| goal.as_ref().and_then(|goal| goal.rule.as_ref()).map(|rule| rule.path.clone());
    assert_eq!(
        (rule(&cart[0].before), rule(&cart[0].after)),
        (Some("spec.rules[1]".into()), Some("spec.rules[0]".into()))
    );
}

#[test]
fn what_may_turn_a_request_away_is_said_in_its_order() {
    let rules = json!([{
        "match": { "path": { "prefix": "/" } }, "to": [{ "service": "shop" }], "maxRequestBody": "1KiB",
        "localRateLimit": { "requests": 5, "per": "1s" },
        "access": { "allow": [{ "networks": ["10.0.0.0/8"] }, { "headers": [{ "name": "x-key", "exact": "7" }] }] },
        "jwt": { "any": ["corp"], "allowMissing": true },
    }]);
    let mut shop = route("shop", &["a.example.com"], &rules);
    shop["spec"]["jwtProviders"] = json!([{ "name": "corp", "issuer": "https://corp.example.com",
        "keys": { "service": "shop", "host": "corp.example.com", "path": "/jwks" } }]);
    let mut documents = with_routes(&[shop]);
    documents[1]["spec"]["externalAuthorization"] =
        json!({ "service": "shop", "protocol": "http", "onFailure": "allow" });
    documents[1]["spec"]["access"] = json!({ "deny": [{ "networks": ["10.9.0.0/16"] }] });
    let guards = at_web(&documents, "GET", "http://a.example.com/", &[]).guards;
    let told: Vec<_> = guards.iter().map(|guard| (guard.from.path.as_str(), guard.what.as_str())).collect();
    assert_eq!(
        told,
        [
            ("spec.rules[0].jwt", "a token of corp, or none"),
            ("spec.access", "not from 10.9.0.0/16"),
            ("spec.rules[0].access", "only from 10.0.0.0/8, or by header x-key"),
            ("spec.externalAuthorization", "whom Service/shop lets pass, or everybody while it does not answer"),
            ("spec.rules[0].localRateLimit", "at most 5 per 1s at each proxy, 5 at once"),
            ("spec.rules[0].maxRequestBody", "a body of at most 1024 bytes"),
        ]
    );
    documents[1]["spec"]["externalAuthorization"] = json!({ "service": "shop" });
    documents[3]["spec"]["protocol"] = "http2".into();
    let authorizers = |authorization: Value| {
        let mut documents = documents.clone();
        documents[6]["spec"]["rules"] =
            json!([{ "respond": { "status": 204 }, "externalAuthorization": authorization }]);
        let guards = at_web(&documents, "GET", "http://a.example.com/", &[]).guards;
        guards.into_iter().skip(1).map(|guard| guard.what).collect::<Vec<_>>()
    };
    assert_eq!(authorizers(json!({ "off": true })), [""; 0]);
    assert_eq!(
        authorizers(json!({ "context": { "tier": "gold" } })),
        ["whom Service/shop lets pass, which is told tier=gold"]
    );
}

#[test]
fn who_gets_a_request_is_said_to_the_endpoint() {
    let told = |to: Value, spec: &[(&str, Value)]| {
        let mut documents = with_routes(&[route("shop", &["a.example.com"], &json!([{ "to": to }]))]);
        for (field, value) in spec {
            documents[3]["spec"][*field] = value.clone();
        }
        let Destination::Forward { to, .. } = at_web(&documents, "GET", "http://a.example.com/", &[]).destination
        else {
            panic!("to services")
        };
        let told = |share: &Share| {
            let subset = share.subset.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
            let session = share.session.as_ref().map(|session| (session.by.clone(), session.from.path.clone()));
            (share.weight, subset, session)
        };
        to.iter().map(told).collect::<Vec<_>>()
    };
    let both = json!([
        { "service": "shop", "subset": { "version": "v2" }, "weight": 1 },
        { "service": "shop", "weight": 9 },
    ]);
    assert_eq!(
        told(both, &[("subsets", json!([{ "by": ["version"] }]))]),
        [(1, vec!["version=v2".to_owned()], None), (9, vec![], None)]
    );
    let session = Some(("cookie sid".to_owned(), "spec.sessionAffinity".to_owned()));
    assert_eq!(
        told(
            json!([{ "service": "shop", "weight": 9 }]),
            &[("sessionAffinity", json!({ "cookie": { "name": "sid" } }))]
        ),
        [(9, vec![], session)]
    );
}

#[test]
fn what_a_rule_that_answers_changes_about_headers_is_said() {
    let headers = json!({ "response": { "set": [{ "name": "x-from", "value": "edge" }] } });
    let rules = json!([
        { "match": { "path": { "exact": "/old" } }, "redirect": { "path": "/new" }, "headers": headers },
        { "match": { "path": { "exact": "/plain" } }, "respond": { "status": 204 } },
        { "to": [{ "service": "shop" }], "headers": headers },
    ]);
    let documents = with_routes(&[route("shop", &["a.example.com"], &rules)]);
    let edits = |path: &str| {
        let at = at_web(&documents, "GET", &format!("http://a.example.com{path}"), &[]);
        at.response_headers.map(|edits| (edits.from.path, edits.edits))
    };
    let told = ("spec.rules[0].headers.response".to_owned(), vec!["x-from: edge".to_owned()]);
    assert_eq!((edits("/old"), edits("/plain"), edits("/")), (Some(told), None, None));
}

#[test]
fn where_connections_are_carried_it_is_said_to_whom() {
    let listener = |name: &str, port: u16, protocol: &str| json!({ "kind": "Listener", "name": name, "spec": { "fleet": "edge", "port": port, "protocol": protocol } });
    let carried = |name: &str, listener: &str, hosts: &[&str], to: Value| json!({ "kind": "Route", "name": name, "spec": { "listeners": [listener], "hosts": hosts, "tcp": { "to": to } } });
    let both = json!([{ "service": "shop", "weight": 1 }, { "service": "shop-next", "weight": 3 }]);
    let documents = with_routes(&[
        listener("sni", 443, "tls-passthrough"),
        listener("db", 5432, "tcp"),
        carried("sni", "edge/sni", &["*.example.com"], both),
        carried("db", "edge/db", &["*"], json!([{ "service": "shop" }])),
    ]);
    let catalog = catalog(&documents);
    let explained = |url: &str| Explainer::new(&catalog, 10).explain(&edge(), &request("GET", url, &[])).unwrap();
    let listeners = |explained: &Explanation| -> Vec<String> {
        explained.listeners.iter().map(|at| at.listener.resource.clone()).collect()
    };
    let secure = explained("https://a.example.com:443/");
    assert_eq!(
        secure.notes[0],
        "Listener/sni carries connections as they are: by Route/sni, which claims *.example.com, to Service/shop (1 of 4), \
         Service/shop-next (3 of 4); what is asked on them it does not see"
    );
    assert!(!listeners(&secure).iter().any(|listener| listener == "Listener/sni"), "{secure:?}");
    for (url, said) in [
        ("http://a.example.com:10000/", 0),
        ("http://a.example.com:5432/", 1),
        ("https://a.example.org:443/", 0),
        ("https://a.example.com/", 1),
    ] {
        let notes = explained(url).notes;
        assert_eq!(notes.iter().filter(|note| note.contains("carries")).count(), said, "{url}: {notes:?}");
    }
    let (before, after) = (Explainer::new(&catalog, 10), Explainer::new(&catalog, 11));
    assert_eq!(moved(&before, &after, None, &request("GET", "https://a.example.com/", &[])), []);
}
