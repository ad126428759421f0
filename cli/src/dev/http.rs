//! Requests to our own servers on this machine: the API and Envoy.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use chancery_runtime::SecretString;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

/// How long one request may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// The largest answer that is read.
const MAX_BODY: usize = 8 << 20;

/// One server.
pub(super) struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    base: String,
    token: Option<SecretString>,
}

impl Http {
    /// A server that asks for nothing.
    pub(super) fn to(address: SocketAddr) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { client, base: format!("http://{address}"), token: None }
    }

    /// The API.
    pub(super) fn to_api(address: SocketAddr, token: &SecretString) -> Self {
        Self { token: Some(token.clone()), ..Self::to(address) }
    }

    /// The status and body of an answer, whatever it is.
    pub(super) async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(StatusCode, Bytes)> {
        let failed = format!("{method} {}{path}", self.base);
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        let bytes = match body {
            None => Bytes::new(),
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Bytes::from(serde_json::to_vec(body)?)
            }
        };
        let request = request.body(Full::new(bytes))?;
        let exchange = async {
            let response = self.client.request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
            anyhow::Ok((status, body.map_err(anyhow::Error::from_boxed)?.to_bytes()))
        };
        tokio::time::timeout(DEADLINE, exchange).await.context("no answer in time").flatten().with_context(|| failed)
    }

    /// A JSON answer of a request that must succeed.
    pub(super) async fn json(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let (status, bytes) = self.send(method.clone(), path, body).await?;
        let text = String::from_utf8_lossy(&bytes);
        ensure!(status.is_success(), "{method} {}{path}: {status}: {}", self.base, text.trim());
        serde_json::from_slice(&bytes).with_context(|| format!("{method} {}{path}: not JSON", self.base))
    }
}
