//! Limits travel from the control plane to a limiter over mTLS, and stay there when the control plane goes. Both are
//! programs of their own; no Envoy is needed.

use std::fs;

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    certificates::{Authority, Identity},
    control_plane::ControlPlane,
    document::{listener, resource, route, service},
    limiter::{Limiter, request},
    wait::{PATIENCE, until},
};
use chancery_proto::envoy::rls::rate_limit_service_client::RateLimitServiceClient;
use serde_json::{Value, json};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity as TlsIdentity};

const HOST: &str = "shop.example.com";

/// A fleet with one limited route.
fn limited(requests: u32) -> Vec<Value> {
    let limiter = json!({ "addresses": ["127.0.0.1:8081"] });
    vec![
        resource("Fleet", "edge", json!({ "rateLimiter": limiter })),
        listener("web", "edge", 10_000),
        service("shop", &[([127, 0, 0, 1], 9).into()]),
        route("shop", HOST, &json!([{ "to": [{ "service": "shop" }], "rateLimits": ["per-client"] }])),
        limit(requests),
    ]
}

fn limit(requests: u32) -> Value {
    let spec = json!({ "key": [{ "remoteAddress": true }], "limit": { "requests": requests, "per": "1s" } });
    resource("RateLimit", "per-client", spec)
}

/// A proxy of the fleet, as the limiter sees it.
struct Proxy {
    tls: ClientTlsConfig,
}

impl Proxy {
    fn new(authority: &Authority) -> Result<Self> {
        let Identity { certificate, key } = authority.proxy("edge", "edge-1")?;
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(fs::read(authority.file())?))
            .identity(TlsIdentity::from_pem(fs::read(certificate)?, fs::read(key)?))
            .domain_name("localhost");
        Ok(Self { tls })
    }

    /// By how many requests the limiter decides.
    async fn is_limited_to(&self, limiter: &Limiter) -> Result<Option<u32>> {
        let endpoint = Endpoint::new(format!("https://{}", limiter.grpc))?.tls_config(self.tls.clone())?;
        let mut client = RateLimitServiceClient::new(endpoint.connect().await?);
        let entries = [("chancery.limit", "per-client"), ("remote_address", "10.0.0.1")];
        let answer = client.should_rate_limit(request("edge", &[&entries])).await?.into_inner();
        let status = answer.statuses.first().context("one status per descriptor")?;
        Ok(status.current_limit.as_ref().map(|limit| limit.requests_per_unit))
    }

    /// Waits until it is so many.
    async fn becomes_limited_to(&self, requests: u32, limiter: &Limiter) -> Result<()> {
        until("the limit is in force", PATIENCE, async || {
            let found = self.is_limited_to(limiter).await?;
            ensure!(found == Some(requests), "it is {found:?} instead of {requests}");
            Ok(())
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limiter_has_what_the_control_plane_was_told_and_keeps_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::create(folder.path(), "ca")?;
    let mut control_plane = ControlPlane::start_alone(folder.path(), &authority).await?;
    let api = control_plane.caller();
    api.apply(&limited(5)).await?;

    let (xds, saved) = (control_plane.xds.to_string(), folder.path().join("limits.binpb").display().to_string());
    let arguments = ["--xds", &xds, "--saved-rules", &saved];
    let mut limiter = Limiter::start_secure(folder.path(), "limiter-1", &authority, &arguments).await?;
    let proxy = Proxy::new(&authority)?;
    proxy.becomes_limited_to(5, &limiter).await?;

    // A write that waits, waits for the limiter.
    let written = api.apply_and_wait(&[limit(6)]).await?;
    ensure!(written["applied"]["applied"] == 1, "{written}");
    assert_eq!(proxy.is_limited_to(&limiter).await?, Some(6));
    let shown = api.proxy("limiter-1").await?;
    ensure!(shown["role"] == "rateLimiter" && shown["fleet"] == "", "{shown}");
    ensure!(shown["types"]["rateLimitDomain"]["status"] == "synced", "{shown}");

    // Without a control plane it goes on, and even starts.
    control_plane.kill();
    proxy.becomes_limited_to(6, &limiter).await?;
    limiter.start_again().await?;
    proxy.becomes_limited_to(6, &limiter).await?;

    // It comes back by itself, and hears what it missed.
    control_plane.start_again().await?;
    control_plane.caller().apply(&[limit(7)]).await?;
    proxy.becomes_limited_to(7, &limiter).await
}
