//! gRPC's framing of one stream: requests read from a body, responses written as one.
//!
//! Not tonic's, because of what it keeps: a buffer as large as the largest message so far, in each direction,
//! for as long as the stream is open. An xDS stream is open for hours, its first messages are by far
//! the largest, and there are thousands. Here a message has a buffer of its own, freed when it is read or sent.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut as _, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};
use tonic::{Code, Status};

use super::slot::{Inlet, Outlet, slot};
use crate::codec::{EncodeResponse, Pieces};

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
struct Responses<R> {
    inlet: Inlet<R>,
    /// What is left of the response that is being sent.
    sending: Pieces,
    ended: bool,
}

/// An HTTP response, and where to put what it is to send.
pub(super) fn respond<R: EncodeResponse>() -> (http::Response<tonic::body::Body>, Outlet<R>) {
    let (outlet, inlet) = slot();
    let body = Responses { inlet, sending: Pieces::default(), ended: false };
    let mut response = http::Response::new(tonic::body::Body::new(body));
    let content_type = http::HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(http::header::CONTENT_TYPE, content_type);
    (response, outlet)
}

impl<R: EncodeResponse> Body for Responses<R> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(piece) = self.sending.pop() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let status = match ready!(self.inlet.poll_next(cx)) {
            Ok(response) => match framed(&response) {
                Ok(mut pieces) => {
                    let first = pieces.pop().unwrap_or_default();
                    self.sending = pieces;
                    return Poll::Ready(Some(Ok(Frame::data(first))));
                }
                Err(status) => status,
            },
            Err(status) => status,
        };
        self.ended = true;
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }
}

fn framed(response: &impl EncodeResponse) -> Result<Pieces, Status> {
    let len = response.encoded_len();
    let Ok(prefix) = u32::try_from(len) else {
        return Err(Status::resource_exhausted(format!("a response of {len} bytes does not fit into gRPC")));
    };
    let mut header = [0; HEADER];
    header[1..].copy_from_slice(&prefix.to_be_bytes());
    let mut pieces = Pieces::new(&header, len);
    response.encode(&mut pieces);
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use chancery_proto::envoy::discovery::DiscoveryRequest;
    use http_body_util::StreamBody;
    use prost::Message;

    use super::*;

    /// A body that arrives in these pieces.
    fn requests(pieces: Vec<Vec<u8>>, max_bytes: usize) -> Requests<DiscoveryRequest> {
        let frames = pieces.into_iter().map(|piece| Ok::<_, Status>(Frame::data(Bytes::from(piece))));
        Requests::new(tonic::body::Body::new(StreamBody::new(tokio_stream::iter(frames))), max_bytes)
    }

    fn request(version: &str) -> DiscoveryRequest {
        DiscoveryRequest { version_info: version.into(), ..DiscoveryRequest::default() }
    }

    fn framed(request: &DiscoveryRequest) -> Vec<u8> {
        let message = request.encode_to_vec();
        let len = u32::try_from(message.len()).unwrap().to_be_bytes();
        [[0].as_slice(), &len, &message].concat()
    }

    #[tokio::test]
    async fn requests_are_read_however_they_are_cut() {
        let (a, b) = (request("a"), request(&"b".repeat(1000)));
        let bytes = [framed(&a), framed(&request("")), framed(&b)].concat();
        for size in [1, 3, 7, 1000, bytes.len()] {
            let mut requests = requests(bytes.chunks(size).map(<[u8]>::to_vec).collect(), 2000);
            assert_eq!(requests.message().await.unwrap(), Some(a.clone()));
            assert_eq!(requests.message().await.unwrap(), Some(request("")));
            assert_eq!(requests.message().await.unwrap(), Some(b.clone()));
            assert_eq!(requests.message().await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn nothing_is_kept_of_a_large_request() {
        let mut requests = requests(vec![framed(&request(&"x".repeat(1 << 20)))], 2 << 20);
        requests.message().await.unwrap();
        assert!(!requests.buf.try_reclaim(1 << 10), "its memory is still there");
    }

    #[tokio::test]
    async fn what_is_no_request_is_refused_with_a_reason() {
        let large = framed(&request(&"x".repeat(100)));
        let compressed = vec![1, 0, 0, 0, 0];
        let malformed = vec![0, 0, 0, 0, 2, 0xff, 0xff];
        let cut = framed(&request("abc"))[..6].to_vec();
        for (bytes, code) in [
            (large, Code::ResourceExhausted),
            (compressed, Code::Unimplemented),
            (malformed, Code::InvalidArgument),
            (cut, Code::InvalidArgument),
        ] {
            assert_eq!(requests(vec![bytes], 50).message().await.unwrap_err().code(), code);
        }
        // Refused by its header: it is not collected first.
        let header = vec![0, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(requests(vec![header], 50).message().await.unwrap_err().code(), Code::ResourceExhausted);
    }
}
