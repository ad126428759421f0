//! A plain request to a program that runs: one exchange, one deadline, a bounded answer. The API has its own client.

use std::time::Duration;

use anyhow::{Context as _, Result};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

/// What was answered, whatever it is.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Asks `url`, an `http` one, and reads at most `most` bytes of its answer.
///
/// # Errors
/// No connection, no answer `within` the time, or a longer one.
pub(crate) async fn ask(method: Method, url: &str, within: Duration, most: usize) -> Result<Answer> {
    let request = Request::builder().method(method).uri(url).body(Full::default()).with_context(|| url.to_owned())?;
    exchange(request, within, most).await.with_context(|| url.to_owned())
}

/// Sends `request`, whose URL is an `http` one, and reads at most `most` bytes of its answer.
///
/// # Errors
/// As of [`ask`].
pub(crate) async fn exchange(request: Request<Full<Bytes>>, within: Duration, most: usize) -> Result<Answer> {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(within));
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let exchange = async {
        let response = client.request(request).await?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, most).collect().await.map_err(anyhow::Error::from_boxed)?.to_bytes();
        anyhow::Ok(Answer { status: parts.status, headers: parts.headers, body })
    };
    tokio::time::timeout(within, exchange).await.context("no answer in time").flatten()
}

/// The last cause of a failure: what is before it says only that something failed.
pub(crate) fn reason(error: &anyhow::Error) -> String {
    error.root_cause().to_string()
}
