//! A call of a service beside those of resources, such as load reports or client status.
//!
//! It is framed as these are (`wire.rs`), for the same reason: it may be open for hours, and nothing is kept of a
//! message that is done with. What the messages mean is the business of whoever serves the call.

use std::{future::Future, time::Duration};

use prost::Message;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Status, body::Body};

use super::{
    Retire, RunStream,
    slot::Outlet,
    start,
    wire::{Requests, respond},
};
use crate::codec::{EncodeResponse, Pieces};

/// Requests of type `Q` come in, answers of type `R` go out. For a call with one request and one answer, read one,
/// send one, and end.
pub struct Call<Q, R> {
    extensions: http::Extensions,
    requests: Requests<Q>,
    outlet: Outlet<Whole<R>>,
}

/// A message that is encoded when it is sent.
struct Whole<M>(M);

impl<M: Message + 'static> EncodeResponse for Whole<M> {
    fn encoded_len(&self) -> usize {
        self.0.encoded_len()
    }

    fn encode(&self, pieces: &mut Pieces) {
        pieces.put_message(&self.0);
    }
}

impl<Q: Message + Default, R: Message + 'static> Call<Q, R> {
    /// The call that `request` makes, with requests of at most `max_bytes`, and the response that carries its answers.
    ///
    /// # Errors
    /// What the client is to be told: its requests are compressed.
    fn open<B>(request: http::Request<B>, max_bytes: usize) -> Result<(Self, http::Response<Body>), Status>
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        if parts.headers.get("grpc-encoding").is_some_and(|encoding| encoding != "identity") {
            return Err(Status::unimplemented("compressed requests are not understood"));
        }
        let (response, outlet) = respond();
        let requests = Requests::new(Body::new(body), max_bytes);
        Ok((Self { extensions: parts.extensions, requests, outlet }, response))
    }

    /// Serves the call that `request` makes, with requests of at most `max_bytes`, where its connection says ([`RunStream`]) and counted
    /// by `tasks`; answers with what it will send.
    /// `serve` gives the call back with why it ends, if not because all is said.
    pub fn serve<B, S>(
        request: http::Request<B>,
        max_bytes: usize,
        tasks: &TaskTracker,
        serve: impl FnOnce(Self) -> S,
    ) -> http::Response<Body>
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        S: Future<Output = (Self, Result<(), Status>)> + Send + 'static,
    {
        let (call, response) = match Self::open(request, max_bytes) {
            Ok(opened) => opened,
            Err(refusal) => return refusal.into_http(),
        };
        let run = call.extensions.get::<RunStream>().cloned();
        let serving = serve(call);
        start(run, tasks, async move {
            let (call, ended) = serving.await;
            call.end(ended.err().unwrap_or_else(|| Status::ok("")));
        });
        response
    }

    /// What the transport knows of the client.
    pub fn extensions(&self) -> &http::Extensions {
        &self.extensions
    }

    /// Cancelled when the connection is old: the client shall call again, on another ([`Retire`]).
    pub fn retired(&self) -> CancellationToken {
        self.extensions.get::<Retire>().cloned().unwrap_or_default().0
    }

    /// The next request; `None` when the client has said all. May be cancelled without loss.
    ///
    /// # Errors
    /// What the client is to be told: it has sent no message, or one that is too large.
    pub async fn next(&mut self) -> Result<Option<Q>, Status> {
        self.requests.message().await
    }

    /// The first request, which has to come within `patience` and before `shutdown`.
    ///
    /// # Errors
    /// What the client is to be told.
    pub async fn first(&mut self, patience: Duration, shutdown: impl Future<Output = ()>) -> Result<Q, Status> {
        let first = tokio::select! {
            () = shutdown => return Err(Status::unavailable("the control plane is shutting down")),
            first = tokio::time::timeout(patience, self.requests.message()) => first,
        };
        let first = first.map_err(|_| Status::deadline_exceeded("no request came"))??;
        first.ok_or_else(|| Status::cancelled("closed before the first request"))
    }

    /// Sends an answer as soon as the connection has taken the one before. Returns whether there is still a client.
    pub async fn send(&mut self, answer: R) -> bool {
        self.outlet.room().await && self.outlet.try_send(Whole(answer)).is_ok()
    }

    /// Ends the call, after the answers that were sent.
    pub fn end(self, status: Status) {
        self.outlet.end(status);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::{BufMut as _, Bytes, BytesMut};
    use chancery_proto::envoy::load_stats::{LoadStatsRequest, LoadStatsResponse};
    use futures_util::future::BoxFuture;
    use http_body_util::{BodyExt as _, Full};
    use parking_lot::Mutex;

    use super::*;

    type Reports = Call<LoadStatsRequest, LoadStatsResponse>;

    fn framed(message: &impl Message) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_u8(0);
        bytes.put_u32(u32::try_from(message.encoded_len()).unwrap());
        message.encode(&mut bytes).unwrap();
        bytes.freeze()
    }

    #[tokio::test]
    async fn a_call_is_answered_and_ended() {
        let body = Full::new(framed(&LoadStatsRequest::default()));
        let (mut call, response) = Reports::open(http::Request::new(body), 100).unwrap();
        let first = call.first(Duration::from_secs(5), std::future::pending()).await.unwrap();
        assert_eq!((first, call.next().await.unwrap()), (LoadStatsRequest::default(), None));
        let answer = LoadStatsResponse { send_all_clusters: true, ..LoadStatsResponse::default() };
        assert!(call.send(answer.clone()).await);
        call.end(Status::aborted("enough"));
        let sent = response.into_body().collect().await.unwrap();
        assert_eq!(sent.trailers().and_then(|trailers| trailers.get("grpc-message")).unwrap(), "enough");
        assert_eq!(sent.to_bytes(), framed(&answer));
    }

    #[tokio::test]
    async fn it_runs_where_its_connection_says() {
        let handed: Arc<Mutex<Vec<BoxFuture<'static, ()>>>> = Arc::default();
        let run = handed.clone();
        let mut request = http::Request::new(Full::new(framed(&LoadStatsRequest::default())));
        request.extensions_mut().insert(RunStream(Arc::new(move |call| run.lock().push(call))));
        let tasks = TaskTracker::new();
        let enough = |call: Reports| std::future::ready((call, Err(Status::aborted("enough"))));
        let response = Reports::serve(request, 100, &tasks, enough);
        assert_eq!((handed.lock().len(), tasks.len()), (1, 1));
        let call = handed.lock().pop().unwrap();
        call.await;
        let sent = response.into_body().collect().await.unwrap();
        assert_eq!(sent.trailers().and_then(|trailers| trailers.get("grpc-message")).unwrap(), "enough");
        assert!(tasks.is_empty());
    }

    #[tokio::test]
    async fn who_says_nothing_is_not_waited_for() {
        let body = http_body_util::StreamBody::new(tokio_stream::pending::<Result<http_body::Frame<Bytes>, Status>>());
        let (mut call, _response) = Reports::open(http::Request::new(body), 100).unwrap();
        let status = call.first(Duration::from_millis(1), std::future::pending()).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
    }
}
