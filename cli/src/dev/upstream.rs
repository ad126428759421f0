//! A demo upstream: it says its name and repeats what reached it.
//!
//! That is all one needs to see routing at work: which service answered, and what the path and
//! headers looked like when they arrived there.

use std::{convert::Infallible, fmt::Write as _, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use http::{Request, Response, header};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::task::AbortOnDropHandle;

/// How long to wait when the system cannot give another connection.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// A running upstream; dropping it ends it and its connections.
#[derive(Debug)]
pub(super) struct Upstream {
    _serving: AbortOnDropHandle<()>,
}

impl Upstream {
    /// Serves at `address` as `name`.
    pub(super) async fn start(name: &'static str, address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| format!("the upstream {name} cannot listen on {address}"))?;
        let serving = tokio::spawn(serve(listener, name));
        Ok(Self { _serving: AbortOnDropHandle::new(serving) })
    }
}

async fn serve(listener: TcpListener, name: &'static str) {
    // Connections end with the set.
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors: a connection that ends makes room.
            tokio::time::sleep(ACCEPT_RETRY).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let _ = stream.set_nodelay(true);
        connections.spawn(async move {
            let answering = service_fn(move |request| async move { Ok::<_, Infallible>(answer(name, &request)) });
            // An error is a client that went away.
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answering).await;
        });
    }
}

fn answer(name: &str, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let mut text = format!("{name}\n{} {}\n", request.method(), request.uri());
    for (header, value) in request.headers() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{header}: {}", String::from_utf8_lossy(value.as_bytes()));
    }
    let mut response = Response::new(Full::new(Bytes::from(text)));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dev::http::Http;

    #[tokio::test]
    async fn says_its_name_and_what_reached_it_until_it_is_dropped() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let upstream = Upstream::start("demo-a", free).await.unwrap();
        let (status, body) = Http::to(free).get("/some/path?q=1").await.unwrap();
        assert!(status.is_success());
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert!(body.starts_with("demo-a\nGET /some/path?q=1\n"), "{body}");
        assert!(body.contains(&format!("host: {free}")), "{body}");

        drop(upstream);
        let gone = async { while Http::to(free).get("/").await.is_ok() {} };
        tokio::time::timeout(std::time::Duration::from_secs(10), gone).await.unwrap();
    }
}
