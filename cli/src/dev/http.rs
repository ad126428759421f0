//! Plain requests to what runs on this machine beside the API: Envoy, its admin interface, upstreams.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, bail};
use http::{StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time::Instant;

/// How long one request may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// The largest answer that is read.
const MAX_BODY: usize = 8 << 20;

/// How long to wait between two looks at whether a server is ready.
const POLL: Duration = Duration::from_millis(20);

/// One server.
pub(super) struct Http {
    client: Client<HttpConnector, Empty<Bytes>>,
    base: String,
}

impl Http {
    /// The server at `address`.
    pub(super) fn to(address: SocketAddr) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { client, base: format!("http://{address}") }
    }

    /// Status and body of the answer to `GET`, whatever it is.
    pub(super) async fn get(&self, path: &str) -> Result<(StatusCode, Bytes)> {
        let url = format!("{}{path}", self.base);
        let exchange = async {
            let response = self.client.get(url.parse::<Uri>()?).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
            anyhow::Ok((status, body.map_err(anyhow::Error::from_boxed)?.to_bytes()))
        };
        tokio::time::timeout(DEADLINE, exchange)
            .await
            .context("no answer in time")
            .flatten()
            .with_context(|| url.clone())
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
