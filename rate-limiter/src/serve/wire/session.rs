//! One connection: takes what one read brought, decides it, and sends the answers with one flush.
//!
//! The order within a poll is what makes it fast. `h2` flushes whenever it is asked for the next call, so all calls are
//! taken before any is answered. Invariant: when a poll ends, nothing that was answered is left unflushed but for
//! a client that does not read.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use chancery_runtime::Bell;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Method, Request, Response, header::CONTENT_TYPE};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Status, service::Routes};

use super::{
    super::{
        Service,
        connection::{Connection, Peer},
        grpc::{METHOD, is_streamed},
        invalid, refusal,
    },
    MAX_STREAMS,
    call::{Call, Event, Read, Slow},
    keepalive::{Keepalive, Verdict as Alive},
    other::{self, Budget},
    request::{self, InvalidRequest},
    timeout,
};
use crate::{decide::Deciding, model::verdict::Verdict};

/// How much memory answers are cut from at a time.
const CHUNK: usize = 16 << 10;

/// Serves one connection; ends with it.
pub(super) struct Session {
    http2: h2::server::Connection<Connection, Bytes>,
    peer: Peer,
    service: Service,
    routes: Routes,
    stop: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    keepalive: Keepalive,
    bell: Arc<Bell>,
    /// What rings it; for `h2`.
    ring: Waker,
    /// Calls that one read brought; empty between polls.
    arrived: Vec<(Request<RecvStream>, SendResponse<Bytes>)>,
    slow: FuturesUnordered<Slow>,
    /// Where answers are written.
    chunk: BytesMut,
    budget: Budget,
    /// Calls of this poll that were answered at once.
    answered: u64,
}

/// Why a connection ended before its time.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("the connection broke")]
    Broken(#[source] h2::Error),
    #[error("the client does not answer")]
    Silent,
}

impl Session {
    pub(super) fn new(
        mut http2: h2::server::Connection<Connection, Bytes>,
        peer: Peer,
        service: Service,
        routes: Routes,
        stop: CancellationToken,
    ) -> Self {
        let bell = Arc::new(Bell::default());
        Self {
            ring: bell.clone().into(),
            bell,
            keepalive: Keepalive::new(http2.ping_pong()),
            http2,
            peer,
            service,
            routes,
            stop: Some(Box::pin(stop.cancelled_owned())),
            arrived: Vec::new(),
            slow: FuturesUnordered::new(),
            chunk: BytesMut::with_capacity(CHUNK),
            budget: Budget::default(),
            answered: 0,
        }
    }

    /// Lets the connection read and write, and takes the calls that came. Ready when the connection is over.
    fn poll_arrivals(&mut self) -> Poll<Result<(), Ended>> {
        self.bell.forget();
        let context = &mut Context::from_waker(&self.ring);
        loop {
            if self.slow.len() + self.arrived.len() >= MAX_STREAMS as usize {
                return self.http2.poll_closed(context).map_err(Ended::Broken);
            }
            match self.http2.poll_accept(context) {
                Poll::Ready(Some(Ok(call))) => self.arrived.push(call),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(Ended::Broken(error))),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Answers a call that has just come, or sees to it that it will be.
    fn begin(
        &mut self,
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
        began: Instant,
        context: &mut Context<'_>,
    ) {
        let (head, body) = request.into_parts();
        let mut call = Call { head, body, respond };
        if !is_ours(&call) {
            return self.hand_over(call, Bytes::new());
        }
        let mut taken = BytesMut::new();
        match call.poll_read(&mut taken, context) {
            Poll::Ready(read) => self.read(call, read, began),
            Poll::Pending => self.slow.push(Slow::reading(call, taken)),
        }
    }

    fn read(&mut self, call: Call, read: Read, began: Instant) {
        let message = match read {
            Read::Message(message) => message,
            Read::Odd(taken) => return self.hand_over(call, taken),
            Read::Gone => return self.service.meters.abandoned(),
        };
        let request = match request::read(&message) {
            Ok(request) => request,
            Err(InvalidRequest::Malformed) => return self.hand_over(call, frame(&message)),
            Err(error) => return self.refuse(call.respond, &invalid(error)),
        };
        match self.service.limiter.decide(&request, &self.peer.caller) {
            Ok(Deciding::Done(verdict)) => self.answer(call.respond, call.head.headers, &verdict),
            Ok(Deciding::Waiting(verdict)) => {
                let (timeout, meters) = (timeout::of(&call.head.headers), self.service.meters.clone());
                self.slow.push(Slow::waiting(call.respond, verdict, timeout, began, meters));
            }
            Err(refused) => self.refuse(call.respond, &refusal(&refused)),
        }
    }

    /// Lets the tonic services see to a call, of which `taken` has been read. They count it, if it is one of ours.
    fn hand_over(&mut self, call: Call, taken: Bytes) {
        let budget = (!is_streamed(call.head.uri.path())).then(|| self.budget.clone());
        let serving = other::serve(call, taken, self.routes.clone(), self.peer.clone(), budget);
        self.slow.push(Slow::Other(Box::pin(serving)));
    }

    fn ended(&mut self, event: Event) {
        match event {
            Event::Read(call, read) => self.read(*call, read, Instant::now()),
            Event::Decided(respond, verdict, began) => {
                self.send(respond, HeaderMap::with_capacity(1), &verdict);
                self.service.meters.answered(1, began.elapsed());
            }
            Event::Late(mut respond) => {
                send_status(&mut respond, &Status::deadline_exceeded("the deadline of the call passed"));
                self.service.meters.late();
            }
            Event::Gone => self.service.meters.abandoned(),
            Event::Done => {}
        }
    }

    fn answer(&mut self, respond: SendResponse<Bytes>, headers: HeaderMap, verdict: &Verdict) {
        self.send(respond, headers, verdict);
        self.answered += 1;
    }

    /// Sends the answer. `headers` is any map; the request's has room enough already.
    fn send(&mut self, mut respond: SendResponse<Bytes>, mut headers: HeaderMap, verdict: &Verdict) {
        self.service.answers.write(verdict, &mut self.chunk);
        let message = self.chunk.split().freeze();
        headers.clear();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        let mut response = Response::new(());
        *response.headers_mut() = headers;
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
        // It fails if the client is gone.
        let _ = respond.send_response(response, false).and_then(|mut stream| {
            stream.send_data(message, false)?;
            stream.send_trailers(trailers)
        });
    }

    fn refuse(&mut self, mut respond: SendResponse<Bytes>, status: &Status) {
        send_status(&mut respond, status);
        self.answered += 1;
    }
}

impl Future for Session {
    type Output = Result<(), Ended>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        this.bell.hold(context.waker());
        let ended = this.go_on(context);
        this.bell.release();
        ended
    }
}

impl Session {
    fn go_on(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        if self.stop.as_mut().is_some_and(|stop| stop.as_mut().poll(context).is_ready()) {
            self.stop = None;
            self.http2.graceful_shutdown();
        }
        match self.keepalive.poll(context) {
            Poll::Ready(Alive::Dead) => return Poll::Ready(Err(Ended::Silent)),
            Poll::Ready(Alive::Unused) if self.slow.is_empty() => self.http2.graceful_shutdown(),
            Poll::Ready(Alive::Unused) | Poll::Pending => {}
        }
        loop {
            if let Poll::Ready(ended) = self.poll_arrivals() {
                return Poll::Ready(ended);
            }
            let began = Instant::now();
            let mut progress = !self.arrived.is_empty();
            let mut arrived = std::mem::take(&mut self.arrived);
            for (request, respond) in arrived.drain(..) {
                self.begin(request, respond, began, context);
            }
            self.arrived = arrived;
            while let Poll::Ready(Some(event)) = self.slow.poll_next_unpin(context) {
                self.ended(event);
                progress = true;
            }
            if !progress {
                return Poll::Pending;
            }
            self.keepalive.seen();
            self.service.meters.answered(std::mem::take(&mut self.answered), began.elapsed());
        }
    }
}

/// Whether the short way is for this call, as far as its head tells.
fn is_ours(call: &Call) -> bool {
    let head = &call.head;
    head.method == Method::POST
        && head.uri.path() == METHOD
        && head.headers.get("grpc-encoding").is_none_or(|encoding| encoding.as_bytes() == b"identity")
}

/// A message with its head before it, as it was read.
fn frame(message: &Bytes) -> Bytes {
    let head = (message.len() as u32).to_be_bytes();
    [&[0], head.as_slice(), message].concat().into()
}

fn send_status(respond: &mut SendResponse<Bytes>, status: &Status) {
    let response = status.clone().into_http::<()>();
    // It fails if the client is gone.
    let _ = respond.send_response(response, true);
}
