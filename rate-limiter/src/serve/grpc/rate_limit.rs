//! `ShouldRateLimit` as a tonic service that reads its messages as the short way does.
//!
//! The generated service would read them into owned texts, and refuse a call for one value that is not UTF-8. This one
//! takes the bytes; only what is wrong with them it is told by the generated code, so that clients
//! read what they read from other servers.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use bytes::{Buf as _, BufMut as _, Bytes};
use chancery_proto::envoy::rls::{RateLimitRequest, RateLimitResponse};
use chancery_runtime::telemetry::chain;
use prost::Message as _;
use tonic::{
    Request, Response, Status,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::{Grpc, NamedService, UnaryService},
};

use super::{MAX_MESSAGE, METHOD, SERVICE_NAME};
use crate::{
    decide::Deciding,
    serve::{
        Service,
        caller::caller_of,
        invalid, refusal,
        wire::request::{self, InvalidRequest},
    },
};

/// The service.
#[derive(Clone)]
pub(super) struct RateLimit(pub(super) Service);

impl NamedService for RateLimit {
    const NAME: &'static str = SERVICE_NAME;
}

impl tower::Service<http::Request<Body>> for RateLimit {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            if request.uri().path() != METHOD {
                return Ok(Status::unimplemented("").into_http());
            }
            let mut grpc = Grpc::new(BytesIn).apply_max_message_size_config(Some(MAX_MESSAGE), None);
            Ok(grpc.unary(service, request).await)
        })
    }
}

impl UnaryService<Bytes> for RateLimit {
    type Response = RateLimitResponse;
    type Future = Pin<Box<dyn Future<Output = Result<Response<RateLimitResponse>, Status>> + Send>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move {
            let began = Instant::now();
            let answer = decide(&service, &request).await;
            service.meters.answered(1, began.elapsed());
            answer.map(Response::new)
        })
    }
}

async fn decide(service: &Service, request: &Request<Bytes>) -> Result<RateLimitResponse, Status> {
    let caller = caller_of(request.extensions());
    let deciding = {
        let request = request::read(request.get_ref()).map_err(invalid)?;
        service.limiter.decide(&request, &caller).map_err(|refused| {
            tracing::debug!(error = chain(&refused), "request refused");
            refusal(&refused)
        })?
    };
    let verdict = match deciding {
        Deciding::Done(verdict) => verdict,
        Deciding::Waiting(verdict) => verdict.await,
    };
    Ok(service.answers.message(&verdict))
}

/// Bytes in, messages out.
#[derive(Clone, Copy)]
struct BytesIn;

impl Codec for BytesIn {
    type Encode = RateLimitResponse;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for BytesIn {
    type Item = RateLimitResponse;
    type Error = Status;

    fn encode(&mut self, message: RateLimitResponse, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(message.encoded_len());
        message.encode(&mut buffer.limit(usize::MAX)).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for BytesIn {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        if request::read(&bytes) == Err(InvalidRequest::Malformed)
            && let Err(error) = RateLimitRequest::decode(bytes.clone())
        {
            return Err(Status::internal(format!("failed to decode Protobuf message: {error}")));
        }
        Ok(Some(bytes))
    }
}
