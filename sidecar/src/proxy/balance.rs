//! One try: an endpoint is chosen, asked, and judged by what it answers.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Response;
use http_body::Body as HttpBody;
use tower::Service;

use super::{pool::Received, trace, world::Upstream};
use crate::layer::{Asked, BoxError, BoxFuture, Failed, breaker::Watched};

/// Sends tries to the endpoints of a cluster: each to the one of two that costs less, of those that may be asked.
#[derive(Clone)]
pub struct Balance {
    /// The cluster.
    pub upstream: Arc<Upstream>,
}

impl<B> Service<Asked<B>> for Balance
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Watched<Received>>;
    type Error = Failed;
    type Future = BoxFuture<Result<Self::Response, Failed>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, asked: Asked<B>) -> Self::Future {
        let upstream = self.upstream.clone();
        Box::pin(async move {
            let Asked { mut request, deadline, tried } = asked;
            let ticket = upstream.endpoints.choose(&upstream.hosts, &tried, deadline).ok_or(Failed::NoEndpoint)?;
            let member = upstream.members.iter().find(|member| member.id == ticket.endpoint());
            let member = member.ok_or(Failed::NoEndpoint)?;
            let span = trace::tried(&mut request, &upstream, &member.at, deadline);
            // Nothing here takes a future as an argument: it would be kept twice.
            let answer = member.pool.send(request).await;
            ticket.met(trace::followed(span, answer))
        })
    }
}
