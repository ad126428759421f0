//! Calls that are not the short way's: they go to the tonic services, as hyper would bring them there.
//!
//! An HTTP/2 stream becomes a request with a body, and a response with its frames and trailers goes
//! back, as fast as the client's flow control lets it.

use std::{
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;
use tokio::time::Sleep;
use tonic::{Status, body::Body, service::Routes};
use tower::Service as _;

use super::{
    super::connection::Peer,
    call::{Call, READING},
    timeout,
};

/// Bytes of requests that one connection may have under way here at a time. A tonic service takes one message of up to
/// 4 MiB per call; a thousand such calls on one connection are not a use but an attack.
const MAX_UNDER_WAY: usize = 16 << 20;

/// What a connection has under way, and how long each message may take to come. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    under_way: Arc<AtomicUsize>,
    reading: Duration,
}

impl Default for Budget {
    fn default() -> Self {
        Self { under_way: Arc::default(), reading: READING }
    }
}

/// Serves a call by `routes`. `replay` was taken from its body before. With a `budget` its body counts against that and must
/// come in time: a body that goes on for as long as the call, as a stream's does, has none.
pub(super) async fn serve(call: Call, replay: Bytes, mut routes: Routes, peer: Peer, budget: Option<Budget>) {
    let Call { head, body, mut respond } = call;
    let timeout = timeout::of(&head.headers);
    let mut request = http::Request::from_parts(head, Incoming::new(body, replay, budget));
    request.extensions_mut().insert(peer);
    let answer = async {
        // The router is always ready, and never fails.
        let Ok(response) = routes.call(request).await;
        response
    };
    let answer = within(timeout, answer);
    let gone = std::future::poll_fn(|context| respond.poll_reset(context));
    let response = tokio::select! {
        response = answer => response,
        _ = gone => return,
    };
    // What fails here fails because the client is gone.
    let _ = send(response, respond).await;
}

async fn within(timeout: Option<Duration>, answer: impl Future<Output = http::Response<Body>>) -> http::Response<Body> {
    let Some(timeout) = timeout else { return answer.await };
    let answered = tokio::time::timeout(timeout, answer).await;
    answered.unwrap_or_else(|_| Status::deadline_exceeded("the deadline of the call passed").into_http())
}

async fn send(response: http::Response<Body>, mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
    let (head, body) = response.into_parts();
    let mut body = pin!(body);
    let empty = body.is_end_stream();
    let mut stream = respond.send_response(http::Response::from_parts(head, ()), empty)?;
    if empty {
        return Ok(());
    }
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            reason = std::future::poll_fn(|context| stream.poll_reset(context)) => return reason.map(drop),
        };
        match frame {
            None => return stream.send_data(Bytes::new(), true),
            Some(Err(error)) => {
                tracing::debug!(error = chancery_runtime::telemetry::chain(&error), "response broke off");
                stream.send_reset(Reason::INTERNAL_ERROR);
                return Ok(());
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => send_data(&mut stream, data).await?,
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        return stream.send_trailers(trailers);
                    }
                }
            },
        }
    }
}

/// Sends as the client takes it, so that nothing piles up.
async fn send_data(stream: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
    while data.has_remaining() {
        stream.reserve_capacity(data.len());
        let capacity = std::future::poll_fn(|context| stream.poll_capacity(context)).await;
        let Some(capacity) = capacity.transpose()? else { return Ok(()) };
        stream.send_data(data.split_to(capacity.min(data.len())), false)?;
    }
    Ok(())
}

/// The body of a request.
struct Incoming {
    body: RecvStream,
    replay: Bytes,
    taken: usize,
    budget: Option<Budget>,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Incoming {
    fn new(body: RecvStream, replay: Bytes, budget: Option<Budget>) -> Self {
        let deadline = budget.as_ref().map(|budget| Box::pin(tokio::time::sleep(budget.reading)));
        Self { body, replay, taken: 0, budget, deadline }
    }

    /// Takes the bytes of one frame into the count.
    fn take(&mut self, data: Bytes) -> Result<Frame<Bytes>, tonic::Status> {
        if let Some(Budget { under_way, .. }) = &self.budget {
            self.taken += data.len();
            if under_way.fetch_add(data.len(), Relaxed) + data.len() > MAX_UNDER_WAY {
                return Err(Status::resource_exhausted("too much is being sent on this connection at a time"));
            }
        }
        Ok(Frame::data(data))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(Budget { under_way, .. }) = &self.budget {
            under_way.fetch_sub(self.taken, Relaxed);
        }
    }
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if !self.replay.is_empty() {
            let replay = std::mem::take(&mut self.replay);
            return Poll::Ready(Some(self.take(replay).map_err(Into::into)));
        }
        let data = self.body.poll_data(context);
        if data.is_pending()
            && self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(context).is_ready())
        {
            return Poll::Ready(Some(Err(Status::deadline_exceeded("the message did not come in time").into())));
        }
        match ready!(data) {
            Some(Ok(data)) => {
                // It can only fail if more is given back than was taken.
                let _ = self.body.flow_control().release_capacity(data.len());
                Poll::Ready(Some(self.take(data).map_err(Into::into)))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error.into()))),
            None => match ready!(self.body.poll_trailers(context)) {
                Ok(Some(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Ok(None) => Poll::Ready(None),
                Err(error) => Poll::Ready(Some(Err(error.into()))),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.replay.is_empty() && self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use futures_util::FutureExt as _;
    use h2::client::ResponseFuture;
    use tokio::task::JoinSet;

    use super::*;
    use crate::decide::Caller;

    /// A route that reads its request to the end.
    fn reading() -> Routes {
        let read = async |body: axum::body::Body| match body.collect().await {
            Ok(_) => Status::ok("").into_http(),
            Err(error) => Status::from_error(error.into()).into_http::<axum::body::Body>(),
        };
        let mut routes = Routes::default();
        *routes.axum_router_mut() = axum::Router::new().fallback(read);
        routes
    }

    /// A call that sends one byte and then nothing.
    async fn stalled(budget: Option<Budget>, tasks: &mut JoinSet<()>) -> (ResponseFuture, h2::SendStream<Bytes>) {
        let (near, far) = tokio::io::duplex(64 << 10);
        tasks.spawn(async move {
            let mut http2 = h2::server::handshake(far).await.unwrap();
            let (request, respond) = http2.accept().await.unwrap().unwrap();
            let (head, body) = request.into_parts();
            let peer = Peer::new(SocketAddr::from(([127, 0, 0, 1], 1)), Caller::Trusted);
            let call = serve(Call { head, body, respond }, Bytes::new(), reading(), peer, budget);
            let _ = tokio::join!(call, std::future::poll_fn(|context| http2.poll_closed(context)));
        });
        let (mut client, connection) = h2::client::handshake(near).await.unwrap();
        tasks.spawn(async move { _ = connection.await });
        let request = http::Request::post("http://limiter/").body(()).unwrap();
        let (response, mut stream) = client.send_request(request, false).unwrap();
        stream.send_data(Bytes::from_static(&[0]), false).unwrap();
        (response, stream)
    }

    #[tokio::test]
    async fn a_message_must_come_in_time_but_a_stream_may_rest() {
        let mut tasks = JoinSet::new();
        let (resting, _open) = stalled(None, &mut tasks).await;
        let hurried = Budget { reading: Duration::from_millis(1), ..Budget::default() };
        let (late, _late) = stalled(Some(hurried), &mut tasks).await;
        let late = tokio::time::timeout(Duration::from_secs(20), late).await.unwrap().unwrap();
        assert_eq!(late.headers()[Status::GRPC_STATUS], "4");
        assert!(resting.now_or_never().is_none());
    }
}
