//! gRPC's framing of one stream: requests read from a body, responses written as one.
//!
//! Not tonic's, because of what it keeps: a buffer as large as the largest message so far, in each direction,
//! for as long as the stream is open. An xDS stream is open for hours, its first messages are by far
//! the largest, and there are thousands. Here a message has a buffer of its own, freed when it is read or sent.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};
use tokio::sync::mpsc;
use tonic::{Code, Status};

use crate::codec::EncodeResponse;

/// A flag, compressed or not, and the length of the message as four bytes.
const HEADER: usize = 5;

/// The requests of a stream.
pub(crate) struct Requests<Q> {
    body: tonic::body::Body,
    buf: BytesMut,
    max_bytes: usize,
    request: std::marker::PhantomData<fn() -> Q>,
}

impl<Q: prost::Message + Default> Requests<Q> {
    pub(crate) fn new(body: tonic::body::Body, max_bytes: usize) -> Self {
        Self { body, buf: BytesMut::new(), max_bytes, request: std::marker::PhantomData }
    }

    /// The next request; `None` when the client is done. May be cancelled without loss.
    pub(crate) async fn message(&mut self) -> Result<Option<Q>, Status> {
        loop {
            if let Some(request) = self.take_message()? {
                return Ok(Some(request));
            }
            let frame = std::future::poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await;
            match frame.transpose() {
                Ok(Some(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buf.put(data);
                    }
                }
                Ok(None) if self.buf.is_empty() => return Ok(None),
                Ok(None) => return Err(Status::invalid_argument("the stream ends within a request")),
                Err(status) if status.code() == Code::Cancelled => return Ok(None),
                Err(status) => return Err(status),
            }
        }
    }

    fn take_message(&mut self) -> Result<Option<Q>, Status> {
        let Some(mut header) = self.buf.get(..HEADER) else { return Ok(None) };
        if header.get_u8() != 0 {
            return Err(Status::unimplemented("compressed requests are not understood"));
        }
        let len = header.get_u32() as usize;
        if len > self.max_bytes {
            let max = self.max_bytes;
            return Err(Status::resource_exhausted(format!("a request of {len} bytes is above the limit of {max}")));
        }
        if self.buf.len() < HEADER + len {
            return Ok(None);
        }
        self.buf.advance(HEADER);
        let message = self.buf.split_to(len);
        if self.buf.is_empty() {
            self.buf = BytesMut::new();
        }
        let request = Q::decode(message);
        request.map(Some).map_err(|error| Status::invalid_argument(format!("malformed request: {error}")))
    }
}

/// The responses of a stream as the body of its HTTP response.
pub(crate) struct Responses<R> {
    receiver: mpsc::Receiver<Result<R, Status>>,
    ended: bool,
}

impl<R: EncodeResponse> Responses<R> {
    /// The HTTP response that sends what `receiver` receives.
    pub(crate) fn into_http(receiver: mpsc::Receiver<Result<R, Status>>) -> http::Response<tonic::body::Body> {
        let mut response = http::Response::new(tonic::body::Body::new(Self { receiver, ended: false }));
        let content_type = http::HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(http::header::CONTENT_TYPE, content_type);
        response
    }
}

impl<R: EncodeResponse> Body for Responses<R> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let status = match ready!(self.receiver.poll_recv(cx)) {
            Some(Ok(response)) => match frame(&response) {
                Ok(bytes) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Err(status) => status,
            },
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        self.ended = true;
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }
}

fn frame(response: &impl EncodeResponse) -> Result<Bytes, Status> {
    let len = response.encoded_len();
    let Ok(prefix) = u32::try_from(len) else {
        return Err(Status::resource_exhausted(format!("a response of {len} bytes does not fit into gRPC")));
    };
    let mut buf = BytesMut::with_capacity(HEADER + len);
    buf.put_u8(0);
    buf.put_u32(prefix);
    response.encode(&mut buf);
    Ok(buf.freeze())
}
