//! Plain requests to what runs on this machine beside the API: Envoy, its admin interface, upstreams.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, bail};
use http::{Method, StatusCode};
use hyper::body::Bytes;
use tokio::time::Instant;

use crate::ask::ask;

/// How long one request may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// The largest answer that is read.
const MAX_BODY: usize = 8 << 20;

/// How long to wait between two looks at whether a server is ready.
const POLL: Duration = Duration::from_millis(20);

/// One server.
pub(super) struct Http {
    base: String,
}

impl Http {
    /// The server at `address`.
    pub(super) fn to(address: SocketAddr) -> Self {
        Self { base: format!("http://{address}") }
    }

    /// Status and body of the answer to `GET`, whatever it is.
    pub(super) async fn get(&self, path: &str) -> Result<(StatusCode, Bytes)> {
        let answer = ask(Method::GET, &format!("{}{path}", self.base), DEADLINE, MAX_BODY).await?;
        Ok((answer.status, answer.body))
    }

    /// Waits until it says at `/readyz` that it is ready; `what` it is, as messages call it.
    pub(super) async fn until_ready(&self, what: &str, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            let last = match self.get("/readyz").await {
                Ok((StatusCode::OK, _)) => return Ok(()),
                Ok((_, missing)) => String::from_utf8_lossy(&missing).trim().to_owned(),
                Err(error) => format!("{error:#}"),
            };
            if Instant::now() > deadline {
                bail!("{what} is not ready after {within:?}: {last}");
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
