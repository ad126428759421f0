//! What becomes of requests and limits when a limiter, its Redis or its control plane is away, and when it comes back.
//!
//! How long Envoy waits for a limiter is its own doing; here it is only shown that nobody waits for long.

use std::{fs, path::Path, time::Instant};

use anyhow::{Result, ensure};
use chancery_e2e::{
    bootstrap::Protocol,
    client::{fetch, get, request},
    document::{fleet_asking, limit_per_key, route},
    limited::{HOST, Limited, as_client, call, calls, in_force, newcomer},
    limiter::Limiter,
    over_both_protocols,
    redis::Redis,
    scene::Scene,
    wait::{PATIENCE, until},
};
use http::Method;
use serde_json::{Value, json};

// Nothing here goes through Envoy's configuration in another way over the other protocol.
over_both_protocols!(
    Delta in over_delta:
    a_limiter_that_is_gone,
    a_limiter_that_does_not_answer,
    a_limiter_that_loses_redis
);

fn per_client(burst: u32) -> Value {
    limit_per_key("per-client", 3, "1h", json!({ "limit": { "burst": burst } }))
}

/// Sets what the fleet does without a decision, and for how long it waits for one.
async fn on_failure(scene: &Scene, shop: &Limited, what: &str, timeout: &str) -> Result<()> {
    let fleet = fleet_asking("edge", &[shop.limiter.grpc], json!({ "onFailure": what, "timeout": timeout }));
    scene.api.put_and_wait(&fleet).await?;
    Ok(())
}

async fn a_limiter_that_is_gone(scene: &Scene) -> Result<()> {
    let mut shop = Limited::start(scene, &[per_client(3)], &[]).await?;
    in_force(scene, 3).await?;
    assert_eq!(calls(scene, "ann", 4).await?, [200, 200, 200, 429]);
    shop.limiter.kill();
    assert_eq!(calls(scene, "ann", 3).await?, [503; 3], "onFailure: deny");
    on_failure(scene, &shop, "allow", "10s").await?;
    scene.fetch_until("nobody decides", as_client("ann"), |response| response.status == 200).await?;
    assert_eq!(calls(scene, "ann", 5).await?, [200; 5], "onFailure: allow");
    shop.limiter.start_again().await?;
    in_force(scene, 3).await?;
    assert_eq!(calls(scene, "bob", 4).await?, [200, 200, 200, 429]);
    Ok(())
}

async fn a_limiter_that_does_not_answer(scene: &Scene) -> Result<()> {
    let shop = Limited::start(scene, &[per_client(3)], &[]).await?;
    in_force(scene, 3).await?;
    on_failure(scene, &shop, "allow", "20ms").await?;
    assert_eq!(call(scene, &newcomer()).await?.status, 200);
    shop.limiter.freeze()?;
    let mut fastest = PATIENCE;
    for _ in 0..10 {
        let sent = Instant::now();
        let response = call(scene, "ann").await?;
        fastest = fastest.min(sent.elapsed());
        assert_eq!((response.status, response.header("x-ratelimit-limit")), (200, ""), "{response:?}");
    }
    // Twenty milliseconds, and what a busy machine adds to them.
    assert!(fastest.as_millis() < 500, "the fastest of ten took {fastest:?}");
    on_failure(scene, &shop, "deny", "20ms").await?;
    scene.fetch_until("requests are refused", as_client("ann"), |response| response.status == 503).await?;
    assert_eq!(calls(scene, "ann", 3).await?, [503; 3]);
    shop.limiter.thaw()?;
    on_failure(scene, &shop, "deny", "10s").await?;
    in_force(scene, 3).await?;
    assert_eq!(calls(scene, "bob", 4).await?, [200, 200, 200, 429]);
    Ok(())
}

/// Requests of a client for `/local`, `/allow` and `/deny`, each with a limit of that policy.
async fn calls_to(scene: &Scene, path: &str, client: &str, count: usize) -> Result<Vec<u16>> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        let request = request(Method::GET, HOST, path, &[("x-api-key", client)]);
        statuses.push(fetch(scene.web, request).await?.status);
    }
    Ok(statuses)
}

/// Waits until newcomers to `path` get these answers.
async fn newcomers_get(scene: &Scene, path: &str, wanted: &[u16]) -> Result<()> {
    until(&format!("{path} answers {wanted:?}"), PATIENCE, async || {
        let statuses = calls_to(scene, path, &newcomer(), wanted.len()).await?;
        ensure!(statuses == wanted, "{statuses:?}");
        Ok(())
    })
    .await
}

async fn a_limiter_that_loses_redis(scene: &Scene) -> Result<()> {
    let Some(mut redis) = Redis::start(scene.folder()).await? else { return Ok(()) };
    // While Redis is there it gets the time that it needs on a busy machine.
    let arguments = ["--store", &redis.url(), "--redis-timeout", "5000"];
    let shop = Limited::start(scene, &[], &arguments).await?;
    let policies = ["local", "allow", "deny"];
    let limits = policies.map(|policy| limit_per_key(policy, 2, "1h", json!({ "whenRedisIsDown": policy })));
    let rules = policies.map(|policy| {
        let path = json!({ "path": { "exact": format!("/{policy}") } });
        json!({ "match": path, "to": [{ "service": "shop" }], "rateLimits": [policy] })
    });
    let mut resources = limits.to_vec();
    resources.push(route("shop", HOST, &json!(rules)));
    scene.api.apply_and_wait(&resources).await?;
    for path in ["/local", "/allow", "/deny"] {
        newcomers_get(scene, path, &[200, 200, 429]).await?;
        assert_eq!(calls_to(scene, path, "ann", 3).await?, [200, 200, 429], "{path}");
    }

    redis.kill();
    newcomers_get(scene, "/deny", &[429, 429]).await?;
    newcomers_get(scene, "/allow", &[200, 200, 200, 200]).await?;
    newcomers_get(scene, "/local", &[200, 200, 429]).await?;
    shop.limiter.ready().await?;

    redis.start_again().await?;
    for path in ["/local", "/allow", "/deny"] {
        newcomers_get(scene, path, &[200, 200, 429]).await?;
    }
    let counted = redis.calls("evalsha")? + redis.calls("eval")?;
    assert!(counted > 0, "Redis came back, and nobody asks it");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limiter_starts_from_saved_rules_without_its_control_plane() -> Result<()> {
    let Some(mut scene) = Scene::start(Protocol::Delta).await? else { return Ok(()) };
    let saved = scene.folder().join("saved-rules");
    let mut shop = Limited::start(&scene, &[per_client(3)], &["--saved-rules", &saved.display().to_string()]).await?;
    in_force(&scene, 3).await?;
    written(&saved, "per-client").await?;

    scene.control_plane.kill();
    shop.limiter.start_again().await?;
    shop.limiter.ready().await?;
    in_force(&scene, 3).await?;
    assert_eq!(calls(&scene, "ann", 4).await?, [200, 200, 200, 429]);
    // One that has saved nothing says that it is of no use yet.
    let xds = scene.control_plane.xds.to_string();
    let empty = Limiter::start_secure(scene.folder(), "two", &scene.authority, &["--xds", &xds]).await?;
    let readiness = fetch(empty.http, get("limiter", "/readyz")).await?;
    assert_eq!(readiness.status, 503, "{}", readiness.text());

    scene.control_plane.start_again().await?;
    empty.ready().await?;
    scene.api.put(&per_client(5)).await?;
    in_force(&scene, 5).await?;
    assert_eq!(calls(&scene, "ann", 3).await?, [200, 200, 429]);
    Ok(())
}

async fn written(file: &Path, what: &str) -> Result<()> {
    until(&format!("{what} is in {}", file.display()), PATIENCE, async || {
        let content = fs::read(file)?;
        let found = content.windows(what.len()).any(|window| window == what.as_bytes());
        ensure!(found, "it is not among {} bytes", content.len());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_that_restarts_is_not_noticed() -> Result<()> {
    let Some(mut scene) = Scene::start(Protocol::Delta).await? else { return Ok(()) };
    let shop = Limited::start(&scene, &[per_client(3)], &[]).await?;
    in_force(&scene, 3).await?;
    assert_eq!(calls(&scene, "ann", 2).await?, [200, 200]);
    scene.control_plane.kill();
    assert_eq!(calls(&scene, "ann", 2).await?, [200, 429]);
    shop.limiter.ready().await?;
    scene.control_plane.start_again().await?;
    assert_eq!(calls(&scene, "ann", 1).await?, [429]);
    scene.api.put(&per_client(5)).await?;
    in_force(&scene, 5).await?;
    assert_eq!(calls(&scene, "ann", 3).await?, [200, 200, 429], "what was used was forgotten");
    Ok(())
}
