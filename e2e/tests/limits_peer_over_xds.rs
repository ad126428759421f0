//! envoyproxy/ratelimit takes its limits from our control plane, over mTLS, and a real Envoy holds clients to them.

use anyhow::{Result, ensure};
use chancery_e2e::{
    bootstrap::Protocol,
    document::{fleet_asking, limit_per_key, limited_route, service},
    limited::{HOST, call, calls},
    peer::{self, Peer},
    redis::Redis,
    scene::Scene,
    upstream::Upstream,
    wait::{PATIENCE, until},
};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_of_the_control_plane_are_in_force_at_envoyproxys_limiter() -> Result<()> {
    let Some(program) = peer::program() else { return Ok(()) };
    let Some(scene) = Scene::start(Protocol::Delta).await? else { return Ok(()) };
    let Some(redis) = Redis::start(scene.folder()).await? else { return Ok(()) };
    let xds = scene.control_plane.xds;
    let peer = Peer::start_over_xds(&program, scene.folder(), &redis, xds, (&scene.authority, "theirs")).await?;
    let upstream = Upstream::start("shop").await?;
    let window = |requests| limit_per_key("per-client", requests, "24h", json!({ "algorithm": "fixed-window" }));
    let smooth = limit_per_key("smooth", 1, "24h", json!({}));
    scene
        .api
        .apply_and_wait(&[
            fleet_asking("edge", &[peer.grpc], json!({ "insecure": true })),
            service("shop", &[upstream.address]),
            window(3),
            smooth,
            limited_route("shop", HOST, "shop", &["per-client", "smooth"]),
        ])
        .await?;
    // The write has waited for it, and it says so before it has its new rules in place.
    let shown = scene.api.proxy("theirs").await?;
    ensure!(shown["role"] == "rateLimiter" && shown["types"]["rateLimitConfig"]["status"] == "synced", "{shown}");
    until("the limit is in force", PATIENCE, async || {
        let limit = call(&scene, "newcomer").await?.header("x-ratelimit-limit").to_owned();
        ensure!(limit.starts_with('3'), "the limit is {limit:?}");
        Ok(())
    })
    .await?;
    assert_eq!(calls(&scene, "alice", 5).await?, [200, 200, 200, 429, 429]);
    assert_eq!(calls(&scene, "bob", 1).await?, [200], "each by itself");

    // What it cannot express is named.
    let log = scene.control_plane.log();
    let named = log.lines().any(|line| line.contains("smooth") && line.contains("token-bucket"));
    assert!(named, "{log}");

    scene.api.put_and_wait(&window(5)).await?;
    until("the new limit is in force", PATIENCE, async || {
        let limit = call(&scene, "carol").await?.header("x-ratelimit-limit").to_owned();
        ensure!(limit.starts_with('5'), "the limit is {limit:?}");
        Ok(())
    })
    .await?;
    assert_eq!(calls(&scene, "dave", 6).await?, [200, 200, 200, 200, 200, 429]);
    assert!(!scene.control_plane.log().contains("rejected"), "it took every configuration");
    Ok(())
}
