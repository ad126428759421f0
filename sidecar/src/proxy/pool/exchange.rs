//! A request and its response on a stream of HTTP/2.
//!
//! Until the response begins, the body of the request moves whenever whoever waits for it is polled, and nearly all requests are at their end by
//! then. What is left moves in a task of its own, whether or not the response is read. Once the response is over, nobody is sent the
//! rest of the request, and the stream is reset; so does Envoy.
//!
//! A stream that is reset before its end has failed, whatever the reason: what came of a body until then is not all of it.

use std::{
    future::{Future as _, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::{HeaderMap, Request, Response, header::CONTENT_LENGTH};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::proxy::{
    body::{Body, BoxError, empty},
    message,
};

/// A request that waits for its response.
pub(super) struct Exchange {
    response: ResponseFuture,
    going: Going,
}

/// The body of a request.
enum Going {
    /// There was none.
    Nothing,
    On(Upload),
    /// It is sent, or nobody wants it any more.
    Over,
}

/// Why there is no response.
pub(super) enum Ended {
    /// The caller's body broke off.
    Upload(BoxError),
    /// The stream did, or the connection; `sent`: something may have been written; `body`: if nothing of it is gone.
    Stream { error: h2::Error, sent: bool, body: Option<Body> },
}

impl Exchange {
    /// Sends a request, and waits for the head of its response. `tasks` owns what may have to go on after that.
    pub(super) async fn begin(
        sender: &mut SendRequest<Bytes>,
        head: Request<()>,
        body: Body,
        tasks: &TaskTracker,
    ) -> Result<Response<Download>, Ended> {
        let ended = body.is_end_stream();
        let (response, stream) = match sender.send_request(head, ended) {
            Ok(begun) => begun,
            Err(error) => return Err(Ended::Stream { error, sent: false, body: Some(body) }),
        };
        let going = if ended { Going::Nothing } else { Going::On(Upload { body, stream, begun: false }) };
        let mut exchange = Self { response, going };
        let response = poll_fn(|cx| exchange.poll(cx)).await;
        match response {
            Ok(response) => {
                let length = length_of(response.headers());
                let upload = match exchange.going {
                    Going::On(mut upload) => {
                        // If it breaks, it resets the stream, and who reads hears of that.
                        let rest = async move { drop(poll_fn(|cx| upload.poll(cx)).await) };
                        Some(AbortOnDropHandle::new(tasks.spawn(rest)))
                    }
                    Going::Nothing | Going::Over => None,
                };
                Ok(response.map(|stream| Download { stream, length, ended: false, _upload: upload }))
            }
            Err(Broken::Upload(error)) => Err(Ended::Upload(error)),
            Err(Broken::Stream(error)) => Err(Ended::Stream { error, sent: true, body: exchange.going.back() }),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<RecvStream>, Broken>> {
        self.going.poll(cx).map_err(Broken::Upload)?;
        Pin::new(&mut self.response).poll(cx).map_err(Broken::Stream)
    }
}

/// What broke.
enum Broken {
    Upload(BoxError),
    Stream(h2::Error),
}

impl Going {
    /// Moves it on. One of which nothing is gone stays: it may be asked for.
    fn poll(&mut self, cx: &mut Context<'_>) -> Result<(), BoxError> {
        if let Self::On(upload) = self
            && let Poll::Ready(done) = upload.poll(cx)
            && upload.begun
        {
            *self = Self::Over;
            return done;
        }
        Ok(())
    }

    /// The body, if nothing of it is gone.
    fn back(self) -> Option<Body> {
        match self {
            Self::Nothing => Some(empty()),
            Self::On(upload) if !upload.begun => Some(upload.body),
            Self::On(_) | Self::Over => None,
        }
    }
}

/// The body of a request on its way.
struct Upload {
    body: Body,
    stream: SendStream<Bytes>,
    /// Whether something of it is gone.
    begun: bool,
}

impl Upload {
    /// Sends what there is and as much as may be sent. Ready at the end of the body, or when the other side takes no more of it.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        loop {
            // For what comes next, however long it is: the rest of it waits in the stream.
            self.stream.reserve_capacity(1);
            while self.stream.capacity() == 0 {
                match ready!(self.stream.poll_capacity(cx)) {
                    Some(Ok(_)) => {}
                    // The response says why.
                    Some(Err(_)) | None => return Poll::Ready(Ok(())),
                }
            }
            if self.stream.poll_reset(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
            self.begun = true;
            let over = match frame {
                Some(Ok(frame)) => self.send(frame),
                Some(Err(error)) => {
                    self.stream.send_reset(Reason::CANCEL);
                    return Poll::Ready(Err(error));
                }
                None => self.stream.send_data(Bytes::new(), true).map(|()| true),
            };
            match over {
                Ok(false) => {}
                Ok(true) => return Poll::Ready(Ok(())),
                Err(_) => {
                    // It was not wanted any more, or cannot be said in HTTP/2; the response says why.
                    self.stream.send_reset(Reason::CANCEL);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    /// Whether it was the last.
    fn send(&mut self, frame: Frame<Bytes>) -> Result<bool, h2::Error> {
        match frame.into_data() {
            Ok(data) => {
                let last = self.body.is_end_stream();
                self.stream.send_data(data, last).map(|()| last)
            }
            Err(other) => match other.into_trailers() {
                Ok(mut trailers) => {
                    message::strip(&mut trailers);
                    self.stream.reserve_capacity(0);
                    self.stream.send_trailers(trailers).map(|()| true)
                }
                Err(_) => Ok(false),
            },
        }
    }
}

/// The body of a response.
pub struct Download {
    stream: RecvStream,
    /// How much is yet to come, if the head said so.
    length: Option<u64>,
    /// Whether all data has come.
    ended: bool,
    /// What is left of the body of the request goes no further than this.
    _upload: Option<AbortOnDropHandle<()>>,
}

impl HttpBody for Download {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if !this.ended {
            match ready!(this.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // It is on its way to whoever reads; what they do not take, they do not ask for.
                    let _ = this.stream.flow_control().release_capacity(data.len());
                    if let Some(length) = &mut this.length {
                        *length = length.saturating_sub(data.len() as u64);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => this.ended = true,
            }
        }
        let trailers = ready!(this.stream.poll_trailers(cx));
        Poll::Ready(trailers.map(|trailers| trailers.map(Frame::trailers)).map_err(Into::into).transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

fn length_of(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
