//! The floor on tonic.

use std::{
    convert::Infallible,
    fs,
    pin::Pin,
    task::{Context, Poll},
};

use anyhow::Result;
use bytes::{Buf as _, BufMut as _, Bytes};
use chancery_proto::{Message as _, envoy::discovery::DeltaDiscoveryRequest};
use futures_util::{Stream, StreamExt as _, future::BoxFuture, stream};
use http::{Request, Response};
use tokio::{net::TcpListener, sync::watch};
use tonic::{
    Status, Streaming,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::{Grpc, NamedService, StreamingService},
    transport::{Certificate, Identity, Server, ServerTlsConfig, server::TcpIncoming},
};

use super::{Answered, Options, SERVICE, State};

pub(super) async fn serve(options: &Options, xds: TcpListener, state: watch::Receiver<State>) -> Result<()> {
    let identity = Identity::from_pem(fs::read(&options.tls_cert)?, fs::read(&options.tls_key)?);
    let authority = Certificate::from_pem(fs::read(&options.client_ca)?);
    let tls = ServerTlsConfig::new().identity(identity).client_ca_root(authority);
    let incoming = TcpIncoming::from(xds).with_nodelay(Some(true));
    Ok(Server::builder().tls_config(tls)?.add_service(Floor { state }).serve_with_incoming(incoming).await?)
}

/// The service.
#[derive(Clone)]
struct Floor {
    state: watch::Receiver<State>,
}

impl NamedService for Floor {
    const NAME: &'static str = SERVICE;
}

impl tower::Service<Request<Body>> for Floor {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let floor = self.clone();
        Box::pin(async move { Ok(Grpc::new(Encoded).streaming(floor, request).await) })
    }
}

impl StreamingService<Bytes> for Floor {
    type Response = Bytes;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;
    type Future = std::future::Ready<Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<Bytes>>) -> Self::Future {
        let mut state = self.state.clone();
        state.mark_unchanged();
        let open = Open { requests: request.into_inner(), state, answered: Answered::default() };
        let responses = stream::unfold(open, async |mut open| Some((open.next().await?, open)));
        std::future::ready(Ok(tonic::Response::new(responses.boxed())))
    }
}

/// A stream.
struct Open {
    requests: Streaming<Bytes>,
    state: watch::Receiver<State>,
    answered: Answered,
}

impl Open {
    /// What is sent next; nothing if the client has gone.
    async fn next(&mut self) -> Option<Result<Bytes, Status>> {
        loop {
            tokio::select! {
                request = self.requests.message() => {
                    let request = match request {
                        Ok(request) => DeltaDiscoveryRequest::decode(request?).ok()?,
                        Err(status) => return Some(Err(status)),
                    };
                    if let Some(all) = self.answered.answer(request, &self.state) {
                        return Some(Ok(all));
                    }
                }
                changed = self.state.changed() => {
                    changed.ok()?;
                    return self.state.borrow_and_update().change.clone().map(Ok);
                }
            }
        }
    }
}

/// Messages as they are on the wire.
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
