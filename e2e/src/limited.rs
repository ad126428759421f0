//! A fleet with limits: a real limiter that takes its rules from the scene's control plane, over mTLS as in production.
//!
//! A client is its `x-api-key`. Whether an edit has arrived is read off the response to a client that has never called:
//! the one sign that control plane, limiter and proxy all agree, and it changes nothing for the clients of a test.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::{Result, ensure};
use http::Method;
use serde_json::{Value, json};

use crate::{
    client::{Response, fetch, request},
    document::{fleet_asking, limited_route, service},
    limiter::Limiter,
    scene::Scene,
    upstream::Upstream,
    wait::{PATIENCE, until},
};

/// The host of the limited route.
pub const HOST: &str = "shop.example.com";

/// A limiter, and what it protects.
#[derive(Debug)]
pub struct Limited {
    /// The limiter `one`, with the certificate of that name.
    pub limiter: Limiter,
    /// The service `shop`, which requests for [`HOST`] go to.
    pub upstream: Upstream,
}

impl Limited {
    /// Starts a limiter with these arguments, has the fleet `edge` ask it, and puts these limits on the route `shop`.
    pub async fn start(scene: &Scene, limits: &[Value], arguments: &[&str]) -> Result<Self> {
        let xds = scene.control_plane.xds.to_string();
        let mut all = vec!["--xds", &xds];
        all.extend(arguments);
        let limiter = Limiter::start_secure(scene.folder(), "one", &scene.authority, &all).await?;
        let upstream = Upstream::start("shop").await?;
        let limited = Self { limiter, upstream };
        let fleet = fleet_asking("edge", &[limited.limiter.grpc], json!({}));
        scene.api.apply_and_wait(&[fleet, service("shop", &[limited.upstream.address])]).await?;
        limited.limit(scene, limits).await?;
        Ok(limited)
    }

    /// Puts these limits, and no others, on the route.
    pub async fn limit(&self, scene: &Scene, limits: &[Value]) -> Result<()> {
        let names: Vec<&str> = limits.iter().filter_map(|limit| limit["name"].as_str()).collect();
        let mut resources = limits.to_vec();
        resources.push(limited_route("shop", HOST, "shop", &names));
        scene.api.apply_and_wait(&resources).await?;
        Ok(())
    }
}

/// One request of a client.
pub async fn call(scene: &Scene, client: &str) -> Result<Response> {
    fetch(scene.web, as_client(client)).await
}

/// The statuses of so many requests of a client, one after the other.
pub async fn calls(scene: &Scene, client: &str, count: usize) -> Result<Vec<u16>> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        statuses.push(call(scene, client).await?.status);
    }
    Ok(statuses)
}

/// Calls as ever new clients until one may come `burst` times in all: then a limit that says so is in force.
pub async fn in_force(scene: &Scene, burst: u64) -> Result<()> {
    until(&format!("{burst} requests at once are allowed"), PATIENCE, async || {
        let left = call(scene, &newcomer()).await?;
        let remaining = left.header("x-ratelimit-remaining");
        ensure!(left.status == 200 && remaining == (burst - 1).to_string(), "{} with {remaining:?} left", left.status);
        Ok(())
    })
    .await
}

/// A client that has never called.
pub fn newcomer() -> String {
    static LAST: AtomicU64 = AtomicU64::new(0);
    format!("newcomer-{}", LAST.fetch_add(1, Relaxed))
}

/// A request of a client.
pub fn as_client(client: &str) -> http::Request<bytes::Bytes> {
    request(Method::GET, HOST, "/", &[("x-api-key", client)])
}
