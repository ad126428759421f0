//! The rate limiter inside this process. The only file that knows how one is started.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, anyhow, bail};
use chancery_control_plane::identity::issue::IdentityFiles;
use chancery_rate_limiter::{
    app::{self, Running, Settings},
    store::redis::Address,
};
use chancery_runtime::{SecretString, Shutdown};
use http::StatusCode;
use tokio::time::Instant;

use super::{http::Http, ports::Ports};

/// Cells kept in memory: enough for one machine, and a small part of what a limiter takes by itself.
const CELLS: usize = 100_000;

/// How long the limits may take to come from the control plane.
const READY: Duration = Duration::from_secs(15);

/// How long to wait between two looks at whether it is ready.
const POLL: Duration = Duration::from_millis(20);

/// A running rate limiter.
pub(super) struct RateLimiter {
    running: Running,
    shutdown: Shutdown,
}

impl RateLimiter {
    /// Starts it with the limits of the control plane; returns once they are in force and
    /// Envoy can ask.
    pub(super) async fn start(ports: &Ports, identity: &IdentityFiles, redis: Option<SecretString>) -> Result<Self> {
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
        let shutdown = Shutdown::new();
        let running = app::start(settings, shutdown.clone()).await.context("the rate limiter cannot start")?;
        ready(ports.limiter_http).await?;
        Ok(Self { running, shutdown })
    }

    /// Waits until it ends although nobody asked it to. [`stop`](Self::stop) says which part was lost.
    pub(super) async fn lost(&self) -> anyhow::Error {
        self.shutdown.begun().await;
        anyhow!("the rate limiter ended by itself")
    }

    /// Ends it, and waits until it has.
    pub(super) async fn stop(self) -> Result<()> {
        self.running.stop().await.context("the rate limiter did not end well")
    }
}

async fn ready(http: SocketAddr) -> Result<()> {
    let limiter = Http::to(http);
    let deadline = Instant::now() + READY;
    loop {
        let last = match limiter.get("/readyz").await {
            Ok((StatusCode::OK, _)) => return Ok(()),
            Ok((_, missing)) => String::from_utf8_lossy(&missing).trim().to_owned(),
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() > deadline {
            bail!("the rate limiter is not ready after {READY:?}: {last}");
        }
        tokio::time::sleep(POLL).await;
    }
}
