//! The port by which faults are switched and executions are counted; a port of its own, since the other may refuse everybody.
//!
//! `GET` and `PUT /chaos` with the faults as JSON; `GET` and `DELETE /chaos/counts`.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE},
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::task::AbortOnDropHandle;

use super::{chaos::Chaos, upstream::State};

/// The longest request.
const MOST_BYTES: usize = 64 * 1024;

/// How long to wait when the system cannot give another connection.
const RETRY: Duration = Duration::from_millis(50);

/// A running control port; dropping it ends it.
#[derive(Debug)]
pub(super) struct Control {
    address: SocketAddr,
    _serving: AbortOnDropHandle<()>,
}

impl Control {
    /// Serves at `address` what can be switched and counted in `state`.
    pub(super) async fn start(address: SocketAddr, state: Arc<State>) -> Result<Self> {
        let listener = TcpListener::bind(address).await;
        let listener =
            listener.with_context(|| format!("cannot listen on {address}; choose another --control-addr"))?;
        let address = listener.local_addr()?;
        let serving = tokio::spawn(serve(listener, state));
        Ok(Self { address, _serving: AbortOnDropHandle::new(serving) })
    }

    /// Where it serves.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(RETRY).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let state = state.clone();
        let answering = service_fn(move |request| answer(state.clone(), request));
        connections.spawn(async move {
            let mut builder = http1::Builder::new();
            let _ = builder.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), answering).await;
        });
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    Ok(match (head.uri.path(), head.method) {
        ("/chaos", Method::GET) => json(&*state.chaos.borrow()),
        ("/chaos", Method::PUT) => match parse(body).await {
            Ok(chaos) => {
                let answer = json(&chaos);
                state.chaos.send_replace(chaos);
                answer
            }
            Err(error) => said(StatusCode::BAD_REQUEST, format!("{error:#}\n")),
        },
        ("/chaos/counts", Method::GET) => json(&state.counts.so_far()),
        ("/chaos/counts", Method::DELETE) => {
            state.counts.forget();
            said(StatusCode::NO_CONTENT, "")
        }
        ("/chaos", _) => not_allowed("GET, PUT"),
        ("/chaos/counts", _) => not_allowed("GET, DELETE"),
        _ => said(StatusCode::NOT_FOUND, "there are /chaos and /chaos/counts\n"),
    })
}

async fn parse(body: Incoming) -> Result<Chaos> {
    let body = Limited::new(body, MOST_BYTES).collect().await.map_err(anyhow::Error::from_boxed)?;
    Ok(std::str::from_utf8(&body.to_bytes())?.parse()?)
}

fn json<T: Serialize>(value: &T) -> Response<Full<Bytes>> {
    match serde_json::to_vec(value) {
        Ok(mut text) => {
            text.push(b'\n');
            let mut response = said(StatusCode::OK, text);
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(error) => said(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn not_allowed(allowed: &'static str) -> Response<Full<Bytes>> {
    let mut response = said(StatusCode::METHOD_NOT_ALLOWED, "");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

fn said(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
}
