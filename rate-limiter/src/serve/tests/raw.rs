//! A client that says exactly what it is told, frame by frame.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::{RecvStream, SendStream, client::SendRequest};
use http::{HeaderMap, Method, Request, Response};
use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinHandle,
};

use super::scene::SOON;

pub(super) const PATH: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

/// A call, as frames.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) headers: Vec<(&'static str, &'static str)>,
    pub(super) body: Vec<Bytes>,
    pub(super) trailers: bool,
    pub(super) ends: bool,
}

impl Call {
    /// An ordinary call with this body in one piece.
    pub(super) fn with(body: impl Into<Bytes>) -> Self {
        Self {
            method: Method::POST,
            path: PATH,
            headers: vec![("content-type", "application/grpc"), ("te", "trailers")],
            body: vec![body.into()],
            trailers: false,
            ends: true,
        }
    }

    pub(super) fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(super) fn path(self, path: &'static str) -> Self {
        Self { path, ..self }
    }

    /// In pieces of so many bytes.
    pub(super) fn in_pieces(mut self, size: usize) -> Self {
        self.body = self.body.concat().chunks(size).map(Bytes::copy_from_slice).collect();
        self
    }
}

/// One uncompressed gRPC message.
pub(super) fn frame(message: &impl Message) -> Vec<u8> {
    framed(&message.encode_to_vec())
}

pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    [&[0], (message.len() as u32).to_be_bytes().as_slice(), message].concat()
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A response.
    Response { status: u16, headers: Vec<String>, body: Bytes, trailers: Vec<String> },
    /// The stream was reset, or the connection ended.
    Broken,
}

impl Heard {
    /// The gRPC status, from wherever it came.
    pub(super) fn code(&self) -> Option<u8> {
        let Self::Response { headers, trailers, .. } = self else { return None };
        let line = headers.iter().chain(trailers).find_map(|line| line.strip_prefix("grpc-status: "));
        line.and_then(|code| code.parse().ok())
    }
}

/// A connection.
pub(super) struct Client {
    sender: SendRequest<Bytes>,
    pub(super) connection: JoinHandle<Result<(), h2::Error>>,
}

impl Client {
    pub(super) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream).await
    }

    pub(super) async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        Self { sender, connection: tokio::spawn(connection) }
    }

    /// Starts a call; the stream is for what is to be sent yet.
    pub(super) async fn start(
        &mut self,
        call: &Call,
    ) -> Result<(impl Future<Output = Result<Response<RecvStream>, h2::Error>> + use<>, SendStream<Bytes>), h2::Error>
    {
        let sender = self.sender.clone().ready().await?;
        let uri = format!("http://limiter{}", call.path);
        let mut request = Request::builder().method(call.method.clone()).uri(uri);
        for (name, value) in &call.headers {
            request = request.header(*name, *value);
        }
        let mut sender = sender;
        let done = call.body.is_empty() && call.ends && !call.trailers;
        let (response, mut stream) = sender.send_request(request.body(()).unwrap(), done)?;
        for (index, piece) in call.body.iter().enumerate() {
            let last = index + 1 == call.body.len() && call.ends && !call.trailers;
            send(&mut stream, piece.clone(), last).await?;
            // Lets each piece become a frame of its own, on its own way.
            tokio::task::yield_now().await;
        }
        if call.trailers {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-checksum", "1".parse().unwrap());
            stream.send_trailers(trailers)?;
        }
        Ok((response, stream))
    }

    /// One call, to its end.
    pub(super) async fn call(&mut self, call: &Call) -> Heard {
        let heard = async {
            let (response, _stream) = self.start(call).await.ok()?;
            hear(response.await).await
        };
        let heard = tokio::time::timeout(SOON, heard).await.unwrap_or_else(|_| panic!("no answer to {call:?}"));
        heard.unwrap_or(Heard::Broken)
    }
}

async fn send(stream: &mut SendStream<Bytes>, mut piece: Bytes, last: bool) -> Result<(), h2::Error> {
    if piece.is_empty() {
        return stream.send_data(piece, last);
    }
    while !piece.is_empty() {
        stream.reserve_capacity(piece.len());
        let capacity = std::future::poll_fn(|context| stream.poll_capacity(context)).await;
        let Some(capacity) = capacity.transpose()? else { return Ok(()) };
        let part = piece.split_to(capacity.min(piece.len()));
        stream.send_data(part, last && piece.is_empty())?;
    }
    Ok(())
}

pub(super) async fn hear(response: Result<Response<RecvStream>, h2::Error>) -> Option<Heard> {
    let (head, mut body) = response.ok()?.into_parts();
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.ok()?;
        body.flow_control().release_capacity(piece.len()).ok()?;
        bytes.extend_from_slice(&piece);
    }
    let trailers = body.trailers().await.ok()?.unwrap_or_default();
    Some(Heard::Response {
        status: head.status.as_u16(),
        headers: lines(&head.headers),
        body: bytes.into(),
        trailers: lines(&trailers),
    })
}

/// Sorted, and without the date, which only hyper adds.
fn lines(headers: &HeaderMap) -> Vec<String> {
    let lines = headers.iter().filter(|(name, _)| *name != "date");
    let mut lines: Vec<_> = lines.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    lines.sort();
    lines
}
