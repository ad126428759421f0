//! The rate limiter inside this process. The only file that knows how one is started.

use std::time::Duration;

use anyhow::{Context as _, Result};
use chancery_control_plane::identity::issue::IdentityFiles;
use chancery_rate_limiter::{
    app::{self, Addresses, Settings},
    store::redis::Address,
};
use chancery_runtime::SecretString;

use super::{http::Http, part::Part, ports::Ports};

/// Cells kept in memory: enough for one machine, and a small part of what a limiter takes by itself.
const CELLS: usize = 100_000;

/// How long the limits may take to come from the control plane.
const READY: Duration = Duration::from_secs(15);

/// A running rate limiter.
pub(super) type RateLimiter = Part<Addresses>;

/// Starts it with the limits of the control plane; returns once they are in force and Envoy can ask.
pub(super) async fn start(ports: &Ports, identity: &IdentityFiles, redis: Option<SecretString>) -> Result<RateLimiter> {
    if let Some(url) = &redis {
        // The limiter would speak of a flag that it was not given.
        url.expose().parse::<Address>().context("--redis is not the URL of a Redis")?;
    }
    let settings = Settings {
        store: redis,
        xds: ports.xds.to_string(),
        grpc_addr: ports.limiter_grpc,
        http_addr: ports.limiter_http,
        tls_cert: identity.certificate.clone(),
        tls_key: identity.private_key.clone(),
        client_ca: identity.ca.clone(),
        memory_cells: CELLS,
        // One is more than a machine with everything on it will ask of it.
        workers: 1,
        ..Settings::default()
    };
    let limiter = Part::start("the rate limiter", async |shutdown| app::start(settings, shutdown).await).await?;
    Http::to(ports.limiter_http).until_ready("the rate limiter", READY).await?;
    Ok(limiter)
}
