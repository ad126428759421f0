//! The floor on TLS and HTTP/2: a connection is one task, which is polled once to send a change and once to read its acknowledgement.
//!
//! Its TLS, and the bells that keep it from being polled for nothing, are the control plane's own.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake as _, Waker},
};

use anyhow::Result;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut, buf::Chain};
use chancery_proto::{Message as _, envoy::discovery::DeltaDiscoveryRequest};
use chancery_runtime::{
    Bell,
    tls::{AcceptLimits, ServerTls, ServerTlsFiles, TlsConnection, TlsListener},
};
use futures_util::StreamExt as _;
use h2::{RecvStream, SendStream, server};
use http::{Request, Response, header::CONTENT_TYPE};
use tokio::{net::TcpListener, sync::watch};
use tokio_stream::wrappers::WatchStream;
use tonic::Status;

use super::{Answered, Options, SERVICE, State};

/// A flag and the length of the message before it.
const HEADER: usize = 5;

/// A message behind its header.
type Framed = Chain<Bytes, Bytes>;

pub(super) async fn serve(options: &Options, xds: TcpListener, state: watch::Receiver<State>) -> Result<()> {
    let tls = ServerTls::load(ServerTlsFiles {
        certificate: options.tls_cert.clone(),
        private_key: options.tls_key.clone(),
        client_ca: options.client_ca.clone(),
    })?;
    let mut incoming = TlsListener::new(xds, tls, AcceptLimits::default())?;
    while let Some(connection) = incoming.next().await {
        let (connection, state) = (connection?, state.clone());
        tokio::spawn(async move {
            if let Ok(http2) = server::Builder::new().handshake(connection).await {
                Connection::new(http2, state).await;
            }
        });
    }
    Ok(())
}

/// Served until its client closes it.
struct Connection {
    http2: server::Connection<TlsConnection, Framed>,
    /// Rung by HTTP/2.
    bell: Arc<Bell>,
    state: watch::Receiver<State>,
    changes: WatchStream<State>,
    /// Rung by a change.
    changed: Arc<Bell>,
    stream: Option<Stream>,
}

impl Connection {
    fn new(http2: server::Connection<TlsConnection, Framed>, state: watch::Receiver<State>) -> Self {
        let [bell, changed] = [(); 2].map(|()| Arc::<Bell>::default());
        // Nothing has been polled yet.
        [&bell, &changed].into_iter().for_each(|bell| bell.wake_by_ref());
        let changes = WatchStream::from_changes(state.clone());
        Self { http2, bell, state, changes, changed, stream: None }
    }

    fn turn(&mut self) -> Poll<()> {
        if self.changed.forget() {
            let waker = Waker::from(self.changed.clone());
            while let Poll::Ready(Some(state)) = self.changes.poll_next_unpin(&mut Context::from_waker(&waker)) {
                if let (Some(stream), Some(change)) = (&mut self.stream, state.change) {
                    stream.send(&change);
                }
            }
        }
        if self.bell.forget() {
            let waker = Waker::from(self.bell.clone());
            let context = &mut Context::from_waker(&waker);
            while let Poll::Ready(call) = self.http2.poll_accept(context) {
                let Some(Ok((request, respond))) = call else { return Poll::Ready(()) };
                self.stream = Stream::open(request, respond).or(self.stream.take());
            }
            if let Some(stream) = &mut self.stream {
                stream.read(&self.state, context);
            }
        }
        Poll::Pending
    }
}

impl Future for Connection {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let bells = [self.bell.clone(), self.changed.clone()];
        bells.iter().for_each(|bell| bell.hold(context.waker()));
        let mut ended = Poll::Pending;
        while ended.is_pending() && bells.iter().any(|bell| bell.is_rung()) {
            ended = self.turn();
        }
        bells.iter().for_each(|bell| bell.release());
        ended
    }
}

/// The stream of a connection.
struct Stream {
    requests: RecvStream,
    responses: SendStream<Framed>,
    /// What has come of a request.
    buffer: BytesMut,
    answered: Answered,
}

impl Stream {
    /// A stream, if it is one that is asked for: whatever else is refused.
    fn open(request: Request<RecvStream>, mut respond: server::SendResponse<Framed>) -> Option<Self> {
        let known = request.uri().path() == format!("/{SERVICE}/DeltaAggregatedResources");
        let response = match known {
            true => Response::builder().header(CONTENT_TYPE, "application/grpc").body(()).ok()?,
            false => Status::unimplemented("no such method").into_http(),
        };
        let responses = respond.send_response(response, !known).ok()?;
        let requests = request.into_body();
        known.then_some(Self { requests, responses, buffer: BytesMut::new(), answered: Answered::default() })
    }

    fn read(&mut self, state: &watch::Receiver<State>, context: &mut Context<'_>) {
        while let Poll::Ready(Some(Ok(data))) = self.requests.poll_data(context) {
            // It can only fail if more is given back than was taken.
            let _ = self.requests.flow_control().release_capacity(data.len());
            self.buffer.extend_from_slice(&data);
            while let Some(request) = self.next() {
                if let Some(all) = self.answered.answer(request, state) {
                    self.send(&all);
                }
            }
        }
    }

    fn next(&mut self) -> Option<DeltaDiscoveryRequest> {
        let len = self.buffer.get(1..HEADER)?.get_u32() as usize;
        if self.buffer.len() < HEADER + len {
            return None;
        }
        let message = self.buffer.split_to(HEADER + len);
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        DeltaDiscoveryRequest::decode(&message[HEADER..]).ok()
    }

    fn send(&mut self, message: &Bytes) {
        let mut header = BytesMut::with_capacity(HEADER);
        header.put_u8(0);
        header.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
        // What fails here fails because the client is gone; what its window does not hold waits in HTTP/2.
        let _ = self.responses.send_data(header.freeze().chain(message.clone()), false);
    }
}
