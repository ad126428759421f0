//! How large and how many requests may be, and how small answers become, each seen at a real Envoy.

use anyhow::Result;
use bytes::Bytes;
use chancery_e2e::{
    client::{get, request},
    document::{listener, route, service},
    over_both_protocols,
    scene::Scene,
    upstream::{Echo, Upstream},
};
use http::{Method, Request};
use serde_json::{Value, json};

/// A host of the routes here.
const HOST: &str = "shop.example.com";

over_both_protocols!(Delta in delta: bodies_have_a_bound, answers_are_compressed, each_proxy_keeps_a_limit_by_itself);

fn rule(path: &str, mut more: Value) -> Value {
    more["match"] = json!({ "path": { "exact": path } });
    more["to"] = json!([{ "service": "shop" }]);
    more
}

async fn bodies_have_a_bound(scene: &Scene) -> Result<()> {
    // More than the proxy keeps of a connection by default, so that the bound is the rule's.
    const MOST: usize = 256 * 1024;
    let upstream = Upstream::start("shop").await?;
    let rules = json!([rule("/some", json!({ "maxRequestBody": "256KiB" })), rule("/all", json!({}))]);
    scene.api.apply_and_wait(&[service("shop", &[upstream.address]), route("shop", HOST, &rules)]).await?;
    let post = |path: &str, length: usize| {
        let request = Request::post(path).header("host", HOST).body(Bytes::from(vec![b'x'; length]));
        scene.fetch(request.expect("a request"))
    };
    for (path, length) in [("/some", 0), ("/some", MOST), ("/all", 2 * MOST)] {
        let answer = post(path, length).await?;
        assert_eq!(answer.status, 200, "{path} {length}");
        let seen: Echo = serde_json::from_slice(&answer.body)?;
        assert_eq!(seen.body_bytes, length, "{path}");
    }
    let before = upstream.requests();
    assert_eq!(post("/some", MOST + 1).await?.status, 413);
    assert_eq!(upstream.requests(), before, "what is too long reaches nobody");
    Ok(())
}

async fn answers_are_compressed(scene: &Scene) -> Result<()> {
    let upstream = Upstream::start("shop").await?;
    let typed = |path: &str, of: &str, mut more: Value| {
        more["headers"] = json!({ "response": { "set": [{ "name": "content-type", "value": of }] } });
        rule(path, more)
    };
    let json = "application/json; charset=utf-8";
    let rules = json!([
        typed("/json", json, json!({})),
        typed("/never", json, json!({ "compress": false })),
        typed("/image", "image/png", json!({})),
        { "match": { "path": { "exact": "/short" } }, "respond": { "status": 200, "body": "pong" } },
    ]);
    let mut web = listener("web", "edge", scene.web.port());
    web["spec"]["compression"] =
        json!({ "algorithms": ["brotli", "gzip"], "contentTypes": ["application/json"], "minLength": "100B" });
    let resources = [web, service("shop", &[upstream.address]), route("shop", HOST, &rules)];
    scene.api.apply_and_wait(&resources).await?;
    let taking = |path: &str, encodings: &str| request(Method::GET, HOST, path, &[("accept-encoding", encodings)]);
    // A proxy acknowledges a listener before connections get to it.
    let small = scene
        .fetch_until("answers are compressed", taking("/json", "gzip"), |answer| {
            answer.header("content-encoding") == "gzip"
        })
        .await?;
    assert!(small.body.starts_with(&[0x1f, 0x8b]), "{:?}", small.body);
    for (path, encodings, wanted) in [
        ("/json", "gzip, br", "br"),
        ("/json", "br;q=0.5, gzip", "gzip"),
        ("/json", "identity", ""),
        ("/never", "gzip, br", ""),
        ("/image", "gzip, br", ""),
        ("/short", "gzip, br", ""),
    ] {
        let answer = scene.fetch(taking(path, encodings)).await?;
        assert_eq!((answer.status, answer.header("content-encoding")), (200, wanted), "{path} {encodings}");
    }
    Ok(())
}

async fn each_proxy_keeps_a_limit_by_itself(scene: &Scene) -> Result<()> {
    let upstream = Upstream::start("shop").await?;
    let limit = |per: &str| json!({ "localRateLimit": { "requests": 2, "per": per, "burst": 3 } });
    let rules = json!([rule("/some", limit("1h")), rule("/again", limit("1s")), rule("/all", json!({}))]);
    scene.api.apply_and_wait(&[service("shop", &[upstream.address]), route("shop", HOST, &rules)]).await?;
    for number in 0..3 {
        assert_eq!(scene.fetch(get(HOST, "/some")).await?.status, 200, "{number}");
    }
    let refused = scene.fetch(get(HOST, "/some")).await?;
    assert_eq!((refused.status, refused.header("x-ratelimit-remaining")), (429, "0"), "{:?}", refused.headers);
    assert!(refused.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0), "{:?}", refused.headers);
    assert_eq!(upstream.requests(), 3);
    for _ in 0..5 {
        assert_eq!(scene.fetch(get(HOST, "/all")).await?.status, 200);
    }
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20 {
        seen.insert(scene.fetch(get(HOST, "/again")).await?.status);
    }
    assert!(seen.contains(&429), "{seen:?}");
    scene.fetch_until("tokens come back", get(HOST, "/again"), |answer| answer.status == 200).await?;
    Ok(())
}
