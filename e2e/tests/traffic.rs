//! The main job, seen from outside: what is written by the API is what a real Envoy does with requests.
//!
//! Each story runs over both xDS protocols. Writes wait for the proxy, so what is asserted after one is asserted at
//! once: a response that needs a second look is a failure.

use anyhow::Result;
use chancery_e2e::{
    client::{get, request},
    document::{route, route_saying, route_to, service, service_with},
    load::Load,
    over_both_protocols,
    scene::Scene,
    upstream::{Echo, HEALTH_PATH, Upstream},
};
use http::Method;
use serde_json::json;

/// A host of the routes here.
const HOST: &str = "shop.example.com";

over_both_protocols!(
    a_service_and_its_route_live_and_die,
    requests_follow_what_a_rule_matches,
    requests_follow_their_weights,
    rules_rewrite_redirect_and_answer,
    headers_are_changed_on_the_way,
    failures_are_retried_and_time_is_bounded,
    hosts_are_matched_from_exact_to_any,
    services_speak_http2_and_are_checked,
    many_edits_in_a_row_lose_no_request,
    a_deleted_route_does_not_come_back_with_the_next,
);

async fn echo(scene: &Scene, request: http::Request<bytes::Bytes>) -> Result<Echo> {
    let response = scene.fetch(request).await?;
    anyhow::ensure!(response.status == 200, "{} {}", response.status, response.text());
    Ok(serde_json::from_slice(&response.body)?)
}

async fn a_service_and_its_route_live_and_die(scene: &Scene) -> Result<()> {
    let blue = Upstream::start("blue").await?;
    scene.api.put_and_wait(&service("shop", &[blue.address])).await?;
    assert_eq!(scene.fetch(get(HOST, "/")).await?.status, 404, "no route leads there yet");

    scene.api.put_and_wait(&route_to("shop", HOST, "shop")).await?;
    assert_eq!(echo(scene, get(HOST, "/a?b=c")).await?.upstream, "blue");

    let green = Upstream::start("green").await?;
    scene.api.put_and_wait(&service("shop", &[green.address])).await?;
    assert_eq!(echo(scene, get(HOST, "/")).await?.upstream, "green", "traffic follows the endpoint");

    scene.api.delete_and_wait("Route", "shop").await?;
    assert_eq!(scene.fetch(get(HOST, "/")).await?.status, 404);
    scene.api.delete_and_wait("Service", "shop").await?;
    scene.envoy.wait_for_stat("cluster_manager.active_clusters", |clusters| clusters == 1).await?;
    Ok(())
}

async fn requests_follow_what_a_rule_matches(scene: &Scene) -> Result<()> {
    let say = |matches: serde_json::Value, body: &str| json!({ "match": matches, "respond": { "status": 200, "body": body } });
    let rules = json!([
        say(json!({ "path": { "exact": "/exact" } }), "exact"),
        say(json!({ "path": { "regex": "/v[0-9]+/ping" } }), "regex"),
        say(json!({ "path": { "prefix": "/api" }, "methods": ["POST", "PUT"] }), "method"),
        say(json!({ "path": { "prefix": "/api" }, "headers": [{ "name": "x-beta", "exact": "1" }] }), "header"),
        say(json!({ "path": { "prefix": "/api" }, "query": [{ "name": "debug", "present": true }] }), "query"),
        say(json!({ "path": { "prefix": "/api" } }), "prefix"),
    ]);
    scene.api.put_and_wait(&route("shop", HOST, &rules)).await?;
    let cases = [
        (request(Method::GET, HOST, "/exact", &[]), "exact"),
        (request(Method::GET, HOST, "/exact?with=query", &[]), "exact"),
        (request(Method::GET, HOST, "/v12/ping", &[]), "regex"),
        (request(Method::PUT, HOST, "/api/x", &[]), "method"),
        (request(Method::GET, HOST, "/api/x", &[("x-beta", "1")]), "header"),
        (request(Method::GET, HOST, "/api/x", &[("x-beta", "2")]), "prefix"),
        (request(Method::GET, HOST, "/api/x?debug", &[]), "query"),
        (request(Method::GET, HOST, "/api", &[]), "prefix"),
    ];
    for (request, wanted) in cases {
        let label = format!("{} {} {:?}", request.method(), request.uri(), request.headers());
        let response = scene.fetch(request).await?;
        assert_eq!((response.status, response.text().as_str()), (200, wanted), "{label}");
    }
    for path in ["/exact/more", "/v12/ping/more", "/v/ping", "/other"] {
        assert_eq!(scene.fetch(get(HOST, path)).await?.status, 404, "{path}");
    }
    Ok(())
}

async fn requests_follow_their_weights(scene: &Scene) -> Result<()> {
    let (blue, green) = (Upstream::start("blue").await?, Upstream::start("green").await?);
    scene.api.apply(&[service("blue", &[blue.address]), service("green", &[green.address])]).await?;
    let split = |blue: u32, green: u32| {
        let to = json!([{ "service": "blue", "weight": blue }, { "service": "green", "weight": green }]);
        route("shop", HOST, &json!([{ "match": { "path": { "prefix": "/" } }, "to": to }]))
    };
    for (to_blue, to_green) in [(1, 0), (0, 1), (1, 3)] {
        scene.api.put_and_wait(&split(to_blue, to_green)).await?;
        let before = (blue.requests(), green.requests());
        for _ in 0..200 {
            assert_eq!(scene.fetch(get(HOST, "/")).await?.status, 200);
        }
        let (on_blue, on_green) = (blue.requests() - before.0, green.requests() - before.1);
        assert_eq!(on_blue + on_green, 200);
        // A fair coin of one to three: beyond these bounds once in ten million runs.
        let fair = match (to_blue, to_green) {
            (1, 0) => on_green == 0,
            (0, 1) => on_blue == 0,
            _ => (18..=84).contains(&on_blue),
        };
        assert!(fair, "{to_blue}:{to_green} became {on_blue}:{on_green}");
    }
    Ok(())
}

async fn rules_rewrite_redirect_and_answer(scene: &Scene) -> Result<()> {
    let blue = Upstream::start("blue").await?;
    let rules = json!([
        { "match": { "path": { "prefix": "/api" } }, "to": [{ "service": "shop" }],
          "rewrite": { "prefix": "/v2", "host": "shop.internal" } },
        { "match": { "path": { "exact": "/old" } }, "redirect": { "path": "/new", "status": 308 } },
        { "match": { "path": { "prefix": "/away" } },
          "redirect": { "scheme": "https", "host": "other.example.com", "stripQuery": true } },
        { "match": { "path": { "prefix": "/teapot" } }, "respond": { "status": 418, "body": "short and stout" } },
    ]);
    scene.api.apply_and_wait(&[service("shop", &[blue.address]), route("shop", HOST, &rules)]).await?;

    let seen = echo(scene, get(HOST, "/api/cart?id=7")).await?;
    assert_eq!((&*seen.path, &*seen.query, &*seen.host), ("/v2/cart", "id=7", "shop.internal"));

    let moved = scene.fetch(get(HOST, "/old?id=7")).await?;
    assert_eq!((moved.status, moved.header("location")), (308, "http://shop.example.com/new?id=7"));
    let away = scene.fetch(get(HOST, "/away/x?id=7")).await?;
    assert_eq!((away.status, away.header("location")), (301, "https://other.example.com/away/x"));
    let teapot = scene.fetch(get(HOST, "/teapot")).await?;
    assert_eq!((teapot.status, &*teapot.text()), (418, "short and stout"));

    let rules = json!([{ "match": { "path": { "exact": "/old" } }, "redirect": { "path": "/newer", "status": 302 } }]);
    scene.api.put_and_wait(&route("shop", HOST, &rules)).await?;
    let moved = scene.fetch(get(HOST, "/old")).await?;
    assert_eq!((moved.status, moved.header("location")), (302, "http://shop.example.com/newer"));
    Ok(())
}

async fn headers_are_changed_on_the_way(scene: &Scene) -> Result<()> {
    let blue = Upstream::start("blue").await?;
    let rules = json!([{ "match": { "path": { "prefix": "/" } }, "to": [{ "service": "shop" }], "headers": {
        "request": {
            "set": [{ "name": "x-set", "value": "100%" }],
            "add": [{ "name": "x-add", "value": "more" }],
            "remove": ["x-gone"],
        },
        "response": { "set": [{ "name": "x-served-by", "value": "chancery" }], "remove": ["x-upstream"] },
    } }]);
    scene.api.apply_and_wait(&[service("shop", &[blue.address]), route("shop", HOST, &rules)]).await?;
    let sent = [("x-set", "old"), ("x-add", "one"), ("x-gone", "secret")];
    let response = scene.fetch(request(Method::GET, HOST, "/", &sent)).await?;
    assert_eq!((response.header("x-served-by"), response.header("x-upstream")), ("chancery", ""));
    let seen: Echo = serde_json::from_slice(&response.body)?;
    assert_eq!((&*seen.headers["x-set"], &*seen.headers["x-add"]), ("100%", "one,more"));
    assert!(!seen.headers.contains_key("x-gone"), "{seen:?}");
    Ok(())
}

async fn failures_are_retried_and_time_is_bounded(scene: &Scene) -> Result<()> {
    let (good, ill) = (Upstream::start("good").await?, Upstream::start("ill").await?);
    ill.answer_with(503);
    let both = service("shop", &[good.address, ill.address]);
    let retry =
        json!({ "on": ["5xx"], "attempts": 5, "perTryTimeout": "500ms", "backoff": { "base": "5ms", "max": "10ms" } });
    let rule = |extra: serde_json::Value| {
        let mut rule =
            json!({ "match": { "path": { "prefix": "/" } }, "to": [{ "service": "shop" }], "timeout": "3s" });
        rule.as_object_mut().into_iter().for_each(|rule| rule.extend(extra.as_object().cloned().unwrap_or_default()));
        route("shop", HOST, &json!([rule]))
    };
    scene.api.apply_and_wait(&[both, rule(json!({ "retry": retry }))]).await?;
    for _ in 0..20 {
        assert_eq!(echo(scene, get(HOST, "/")).await?.upstream, "good");
    }
    assert!(ill.requests() > 0, "the ill one was tried too");

    scene.api.put_and_wait(&rule(json!({ "timeout": "100ms" }))).await?;
    good.answer_after(std::time::Duration::from_secs(2));
    ill.answer_after(std::time::Duration::from_secs(2));
    assert_eq!(scene.fetch(get(HOST, "/")).await?.status, 504, "the rule's timeout ends the wait");
    Ok(())
}

async fn hosts_are_matched_from_exact_to_any(scene: &Scene) -> Result<()> {
    let say = |name: &str, host: &str| chancery_e2e::document::route_saying(name, host, name);
    let routes = [say("exact", "a.example.com"), say("suffix", "*.example.com"), say("any", "*")];
    scene.api.apply_and_wait(&routes).await?;
    for (host, wanted) in [
        ("a.example.com", "exact"),
        ("A.Example.COM:8080", "exact"),
        ("b.example.com", "suffix"),
        ("x.b.example.com", "suffix"),
        ("example.com", "any"),
        ("elsewhere.test", "any"),
    ] {
        assert_eq!(scene.fetch(get(host, "/")).await?.text(), wanted, "{host}");
    }
    scene.api.delete_and_wait("Route", "exact").await?;
    assert_eq!(scene.fetch(get("a.example.com", "/")).await?.text(), "suffix", "the next best takes over");
    Ok(())
}

async fn services_speak_http2_and_are_checked(scene: &Scene) -> Result<()> {
    let (blue, green) = (Upstream::start("blue").await?, Upstream::start("green").await?);
    let shop = |status: &str| {
        service_with(
            "shop",
            &[blue.address, green.address],
            json!({
                "protocol": "http2",
                "loadBalancing": "least-request",
                "connectTimeout": "250ms",
                "healthCheck": { "path": status, "interval": "100ms", "timeout": "100ms", "unhealthyAfter": 1, "healthyAfter": 1 },
                "breaker": { "maxRequests": 50, "maxPending": 20 },
                "outlierDetection": { "consecutive5xx": 3, "ejectFor": "1s" },
            }),
        )
    };
    scene.api.apply_and_wait(&[shop(HEALTH_PATH), route_to("shop", HOST, "shop")]).await?;
    assert_eq!(echo(scene, get(HOST, "/")).await?.version, "HTTP/2.0");

    blue.answer_health_checks_with(500);
    scene.envoy.wait_for_stat("cluster.shop.membership_healthy", |healthy| healthy == 1).await?;
    let before = blue.requests();
    for _ in 0..20 {
        assert_eq!(echo(scene, get(HOST, "/")).await?.upstream, "green", "the ill endpoint is left out");
    }
    assert_eq!(blue.requests(), before);
    Ok(())
}

async fn many_edits_in_a_row_lose_no_request(scene: &Scene) -> Result<()> {
    let upstreams = [Upstream::start("a").await?, Upstream::start("b").await?, Upstream::start("c").await?];
    let [a, b, c] = upstreams.each_ref().map(|upstream| upstream.address);
    let split = |left: u32, right: u32| {
        let to = json!([{ "service": "left", "weight": left }, { "service": "right", "weight": right }]);
        route("shop", HOST, &json!([{ "match": { "path": { "prefix": "/" } }, "to": to }]))
    };
    scene.api.apply_and_wait(&[service("left", &[a]), service("right", &[b, c]), split(1, 1)]).await?;
    let load = Load::start(scene.web, 4, || get(HOST, "/"));
    load.goes_on_for(50).await?;
    for edit in 0..100 {
        // Back to back, without waiting for the proxy; every other edit takes an endpoint away or brings one.
        scene.api.put(&split(1 + edit % 7, 1 + edit % 5)).await?;
        let endpoints: &[_] = if edit % 2 == 0 { &[b] } else { &[b, c] };
        scene.api.put(&service("right", endpoints)).await?;
    }
    scene.api.put_and_wait(&split(1, 1)).await?;
    load.goes_on_for(50).await?;
    let tally = load.stop().await?;
    assert_eq!(tally.failed(), 0, "{tally}");
    assert!(tally.requests() > 300, "{tally}");
    Ok(())
}

/// An Envoy that once had virtual hosts and is told that there are none remembers those it had.
async fn a_deleted_route_does_not_come_back_with_the_next(scene: &Scene) -> Result<()> {
    let other = "other.example.com";
    scene.api.put_and_wait(&route_saying("old", HOST, "old")).await?;
    assert_eq!(scene.fetch(get(HOST, "/")).await?.status, 200);
    scene.api.delete_and_wait("Route", "old").await?;
    assert_eq!(scene.fetch(get(HOST, "/")).await?.status, 404);
    scene.api.put_and_wait(&route_saying("new", other, "new")).await?;
    assert_eq!(scene.fetch(get(other, "/")).await?.status, 200);
    assert_eq!(scene.fetch(get(HOST, "/")).await?.status, 404);
    Ok(())
}
