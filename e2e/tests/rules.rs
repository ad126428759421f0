//! What a rule of a route can say, each told to a real Envoy and seen in what it does with requests.

use std::time::{Duration, Instant};

use anyhow::Result;
use chancery_e2e::{
    api::check_refusal,
    client::request,
    document::{route, service},
    over_both_protocols,
    scene::Scene,
    upstream::{Echo, Upstream},
    wait::{PATIENCE, until},
};
use http::Method;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// A host of the routes here.
const HOST: &str = "shop.example.com";

over_both_protocols!(Delta in delta: cookies_and_calls_are_matched, paths_are_made_anew, a_share_of_requests_is_copied, faults_end_by_themselves, pages_of_other_origins_ask_first);

/// What reached the upstream.
async fn echo(scene: &Scene, path: &str, headers: &[(&str, &str)]) -> Result<Echo> {
    let response = scene.fetch(request(Method::POST, HOST, path, headers)).await?;
    anyhow::ensure!(response.status == 200, "{} {}", response.status, response.text());
    Ok(serde_json::from_slice(&response.body)?)
}

async fn cookies_and_calls_are_matched(scene: &Scene) -> Result<()> {
    let upstream = Upstream::start("shop").await?;
    let seen_by = |matches: Value, rule: &str| {
        let headers = json!({ "request": { "set": [{ "name": "x-rule", "value": rule }] } });
        json!({ "match": matches, "to": [{ "service": "shop" }], "headers": headers })
    };
    let rules = json!([
        seen_by(json!({ "grpc": { "service": "shop.v1.Checkout", "method": "Place" } }), "method"),
        seen_by(json!({ "grpc": { "service": "shop.v1.Checkout" } }), "service"),
        seen_by(json!({ "grpc": {} }), "call"),
        seen_by(json!({ "cookies": [{ "name": "tier", "exact": "gold" }] }), "gold"),
        seen_by(json!({ "cookies": [{ "name": "tier", "regex": "s.*" }, { "name": "id", "present": true }] }), "both"),
        seen_by(json!({ "cookies": [{ "name": "consent", "present": true, "invert": true }] }), "without"),
        seen_by(json!({ "cookies": [{ "name": "consent", "exact": "no", "invert": true }] }), "not no"),
        seen_by(json!({}), "rest"),
    ]);
    scene.api.apply_and_wait(&[service("shop", &[upstream.address]), route("shop", HOST, &rules)]).await?;
    let grpc = ("content-type", "application/grpc+proto");
    for (path, headers, wanted) in [
        ("/shop.v1.Checkout/Place", &[grpc] as &[_], "method"),
        ("/shop.v1.Checkout/Cancel", &[grpc], "service"),
        ("/shop.v1.CheckoutTwo/Place", &[grpc], "call"),
        ("/shop.v1.Checkout/Place", &[("content-type", "application/json"), ("cookie", "consent=no")], "rest"),
        ("/", &[("cookie", "id=7; tier=gold")], "gold"),
        ("/", &[("cookie", "id=7; tier=silver; consent=no")], "both"),
        ("/", &[("cookie", "tier=silver; consent=no")], "rest"),
        ("/", &[("cookie", "Tier=gold; consent=no")], "rest"),
        ("/", &[("cookie", "tier=golden")], "without"),
        ("/", &[], "without"),
        ("/", &[("cookie", "consent=yes")], "not no"),
    ] {
        let seen = echo(scene, path, headers).await?;
        assert_eq!(seen.headers["x-rule"], wanted, "{path} {headers:?}");
    }
    Ok(())
}

async fn paths_are_made_anew(scene: &Scene) -> Result<()> {
    let upstream = Upstream::start("shop").await?;
    let rewritten = |path: Value, rewrite: Value| json!({ "match": { "path": path }, "to": [{ "service": "shop" }], "rewrite": rewrite });
    let rules = json!([
        rewritten(
            json!({ "template": "/users/{user}/posts/{post}" }),
            json!({ "template": "/posts/{post}/of-{user}", "host": "posts.internal" }),
        ),
        rewritten(json!({ "template": "/files/{rest=**}" }), json!({ "template": "/static/{rest}" })),
        rewritten(
            json!({ "prefix": "/v" }),
            json!({ "regex": { "pattern": "^/v([0-9]+)/(.*)", "substitution": r"/\2;version=\1" } }),
        ),
    ]);
    scene.api.apply_and_wait(&[service("shop", &[upstream.address]), route("shop", HOST, &rules)]).await?;
    for (path, wanted, host) in [
        ("/users/7/posts/a%20b?page=2", "/posts/a%20b/of-7", "posts.internal"),
        ("/files/css/a.css", "/static/css/a.css", HOST),
        ("/v12/cart/7?page=2", "/cart/7;version=12", HOST),
        ("/vote", "/vote", HOST),
    ] {
        let seen = echo(scene, path, &[]).await?;
        let query = path.split_once('?').map_or("", |(_, query)| query);
        assert_eq!((seen.path.as_str(), seen.query.as_str(), seen.host.as_str()), (wanted, query, host), "{path}");
    }
    for path in ["/users/7/posts", "/users/7/posts/8/9", "/users//posts/8"] {
        let response = scene.fetch(request(Method::GET, HOST, path, &[])).await?;
        assert_eq!(response.status, 404, "{path}");
    }
    Ok(())
}

async fn a_share_of_requests_is_copied(scene: &Scene) -> Result<()> {
    const SOME: u64 = 300;
    let [shop, next] = [Upstream::start("shop").await?, Upstream::start("next").await?];
    next.answer_with(500);
    let to = json!([{ "service": "shop" }]);
    let rules = json!([
        { "match": { "path": { "prefix": "/all" } }, "to": to, "mirror": { "service": "next" } },
        { "match": { "path": { "prefix": "/some" } }, "to": to, "mirror": { "service": "next", "percent": 20 } },
        { "to": to },
    ]);
    let services = [service("shop", &[shop.address]), service("next", &[next.address])];
    scene.api.apply_and_wait(&[services.as_slice(), &[route("shop", HOST, &rules)]].concat()).await?;
    for _ in 0..10 {
        let seen = echo(scene, "/all", &[]).await?;
        assert_eq!(seen.upstream, "shop", "answers come from the service alone");
    }
    let copied = async |wanted: u64| {
        let enough = async || {
            anyhow::ensure!(next.requests() >= wanted, "{} copies", next.requests());
            Ok(())
        };
        until("copies", PATIENCE, enough).await
    };
    copied(10).await?;
    for _ in 0..SOME {
        echo(scene, "/some", &[]).await?;
        echo(scene, "/none", &[]).await?;
    }
    // Of 300 copies with a chance of one in five, fewer than 20 or more than 120 are not seen in a lifetime.
    copied(10 + 20).await?;
    assert!(next.requests() <= 10 + 120, "{} copies", next.requests());
    assert_eq!(shop.requests(), 10 + 2 * SOME);
    Ok(())
}

async fn faults_end_by_themselves(scene: &Scene) -> Result<()> {
    let upstream = Upstream::start("shop").await?;
    scene.api.apply(&[service("shop", &[upstream.address])]).await?;
    let shop = |ends_in: Duration| {
        let expires = (OffsetDateTime::now_utc() + ends_in).format(&Rfc3339)?;
        let rule = |path: &str, mut fault: Value| {
            fault["expires"] = expires.as_str().into();
            json!({ "match": { "path": { "exact": path } }, "to": [{ "service": "shop" }], "fault": fault })
        };
        let rules = json!([
            rule("/refused", json!({ "abort": { "status": 503 } })),
            rule("/slow", json!({ "delay": { "time": "500ms" } })),
            rule("/both", json!({ "delay": { "time": "1ms" }, "abort": { "status": 418, "percent": 50 } })),
        ]);
        Ok::<_, anyhow::Error>(route("shop", HOST, &rules))
    };
    let get = |path: &str| request(Method::GET, HOST, path, &[]);
    let hour = Duration::from_secs(3600);
    scene.api.put_and_wait(&shop(hour)?).await?;
    let refused = scene.fetch(get("/refused")).await?;
    assert_eq!((refused.status, upstream.requests()), (503, 0));
    let began = Instant::now();
    assert_eq!(scene.fetch(get("/slow")).await?.status, 200);
    // Envoy's timers may be a few milliseconds early.
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..100 {
        seen.insert(scene.fetch(get("/both")).await?.status);
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [200, 418]);

    // Nothing is written after this, so nothing but the time ends it.
    let ending = shop(Duration::from_secs(10))?;
    scene.api.put_and_wait(&ending).await?;
    scene.fetch_until("the end of the fault", get("/refused"), |response| response.status == 200).await?;
    // What stands may be written again; what is new is refused, as is what somebody could forget.
    scene.api.put(&ending).await?;
    for (ends_in, reason) in [(Duration::ZERO, "is over"), (24 * 8 * hour, "at most 7 days")] {
        let answer = scene.api.json(Method::PUT, "/api/v1/routes/shop", Some(&shop(ends_in)?)).await?;
        let problems = check_refusal("a fault without a good end", &answer)?["problems"].clone();
        assert_eq!(problems.as_array().map(Vec::len), Some(3), "{problems}");
        assert_eq!(problems[0]["path"], "spec.rules[0].fault.expires");
        assert!(problems[0]["reason"].as_str().is_some_and(|said| said.contains(reason)), "{problems}");
    }
    Ok(())
}

async fn pages_of_other_origins_ask_first(scene: &Scene) -> Result<()> {
    let upstream = Upstream::start("shop").await?;
    let cors = json!({
        "origins": ["https://shop.example.com", "https://*.example.org"],
        "headers": ["x-beta"], "exposeHeaders": ["x-upstream"], "maxAge": "10m", "credentials": true,
    });
    let rules = json!([
        { "match": { "path": { "prefix": "/api" }, "methods": ["PUT"], "headers": [{ "name": "x-beta", "present": true }] },
          "to": [{ "service": "shop" }], "cors": cors },
        { "match": { "path": { "prefix": "/open" } }, "to": [{ "service": "shop" }], "cors": { "origins": ["*"] } },
    ]);
    scene.api.apply_and_wait(&[service("shop", &[upstream.address]), route("shop", HOST, &rules)]).await?;
    let preflight = |origin: &str, path: &str, method: &str| {
        scene.fetch(request(
            Method::OPTIONS,
            HOST,
            path,
            &[
                ("origin", origin),
                ("access-control-request-method", method),
                ("access-control-request-headers", "x-beta"),
            ],
        ))
    };
    for origin in ["https://shop.example.com", "https://a.b.example.org"] {
        let answer = preflight(origin, "/api/cart", "PUT").await?;
        let told = ["allow-origin", "allow-methods", "allow-headers", "max-age", "allow-credentials"]
            .map(|name| answer.header(&format!("access-control-{name}")).to_owned());
        assert_eq!((answer.status, told), (200, [origin, "PUT", "x-beta", "600", "true"].map(str::to_owned)));
        let headers = [("origin", origin), ("x-beta", "1")];
        let answer = scene.fetch(request(Method::PUT, HOST, "/api/cart", &headers)).await?;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, origin));
        assert_eq!(answer.header("access-control-expose-headers"), "x-upstream");
    }
    let before = upstream.requests();
    assert_eq!(before, 2, "no preflight has reached the service");
    for origin in [
        "https://example.org",
        "http://shop.example.com",
        "https://shop.example.com.evil.com",
        "https://evil.com:1.example.org",
    ] {
        let answer = preflight(origin, "/api/cart", "PUT").await?;
        assert_eq!(answer.header("access-control-allow-origin"), "", "{origin}");
    }
    assert_eq!(preflight("https://shop.example.com", "/api/cart", "DELETE").await?.status, 404);
    assert_eq!(upstream.requests(), before);
    let open = preflight("https://anybody.example", "/open", "DELETE").await?;
    assert_eq!(open.header("access-control-allow-methods"), "GET,HEAD,POST,PUT,PATCH,DELETE");
    assert_ne!(open.header("access-control-allow-origin"), "");
    assert_eq!(open.header("access-control-allow-credentials"), "");
    Ok(())
}
