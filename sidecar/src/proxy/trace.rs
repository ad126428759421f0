//! The spans of a request: one for the request as its caller sees it, and on the way out one below it for each try.
//!
//! What they say has the names of OpenTelemetry's conventions for HTTP; `error.type` is the reason of the [`Failure`](super::failure::Failure) where
//! there is one, and the status otherwise. A span ends with the body of the answer. Of a request, its query is left out: secrets are
//! found there.
//!
//! Where nothing is exported, no header is looked at and nothing is allocated. Where a trace is not recorded, its context is
//! passed on, and no more.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use chancery_runtime::traces::{Arrived, Formats, Span, Traces};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use opentelemetry::{
    KeyValue, StringValue, Value,
    trace::{Span as _, SpanContext, SpanId, SpanKind, Status},
};

use super::{
    body::{Body, End, OnEnd, Watched, boxed},
    message,
    pool::Received,
    world::{Base, Upstream},
};
use crate::{
    config::snapshot::{Protocol, Target},
    layer::{Clock, Failed, grpc},
    policy::{classify::GrpcStatus, deadline::Deadline},
};

/// The longest text of a caller's that is recorded.
const MOST_TEXT: usize = 1_024;

/// A span under way. Dropped before there is an answer, it says why nobody waits for one any more.
pub struct Open {
    span: Span,
    kind: SpanKind,
    /// Whether its answer has no body, whatever the answer says (RFC 9110, 9.3.2).
    head: bool,
    /// Until there is an answer.
    waiting: bool,
    /// When nobody waits any more.
    until: Option<(Clock, Deadline)>,
    /// Whether it is said why it failed.
    explained: bool,
}

/// What the tries of a request need to know, in its extensions.
#[derive(Clone)]
struct Tries(Arc<Shared>);

struct Shared {
    traces: Traces,
    clock: Clock,
    /// The request's own span.
    above: SpanContext,
    formats: Formats,
    made: AtomicU32,
}

/// Begins the span of a request that came in, and makes its headers say so. `None`: nothing is recorded of it.
///
/// `scheme` is how it came: `http`, or `https`.
pub fn received<B>(
    base: &Base,
    direction: &'static str,
    scheme: &'static str,
    request: &mut Request<B>,
) -> Option<Box<Open>> {
    if !base.traces.are_made() {
        return None;
    }
    let arrived = Arrived::of(request.headers());
    let mut span = base.traces.begin(name(request.method()), SpanKind::Server, &arrived)?;
    let above = arrived.parent.as_ref().map_or(SpanId::INVALID, |parent| parent.span_id());
    arrived.formats.write(span.span_context(), above, request.headers_mut());
    if !span.is_recording() {
        return None;
    }
    describe(&mut span, request, scheme, version(request.version()));
    span.set_attribute(KeyValue::new("chancery.direction", direction));
    let shared = Shared {
        traces: base.traces.clone(),
        clock: base.clock,
        above: span.span_context().clone(),
        formats: arrived.formats,
        made: AtomicU32::new(0),
    };
    request.extensions_mut().insert(Tries(Arc::new(shared)));
    Some(Box::new(Open::new(span, SpanKind::Server, request.method(), None)))
}

/// Begins the span of a try, below that of its request, and makes the headers of the try say so.
pub fn tried<B>(request: &mut Request<B>, upstream: &Upstream, at: &Target, deadline: Deadline) -> Option<Box<Open>> {
    let Tries(shared) = request.extensions().get::<Tries>()?.clone();
    let mut span = shared.traces.below(name(request.method()), SpanKind::Client, &shared.above)?;
    shared.formats.write(span.span_context(), shared.above.span_id(), request.headers_mut());
    let settings = &upstream.cluster.settings;
    let scheme = if settings.tls.is_some() { "https" } else { "http" };
    let version = match settings.protocol {
        Protocol::Http1 => "1.1",
        Protocol::Http2 => "2",
    };
    describe(&mut span, request, scheme, version);
    span.set_attribute(KeyValue::new("chancery.cluster", StringValue::from(upstream.cluster.name.clone())));
    span.set_attribute(KeyValue::new("chancery.endpoint", at.to_string()));
    let before = shared.made.fetch_add(1, Ordering::Relaxed);
    if before > 0 {
        span.set_attribute(KeyValue::new("http.request.resend_count", i64::from(before)));
    }
    let until = Some((shared.clock, deadline));
    Some(Box::new(Open::new(span, SpanKind::Client, request.method(), until)))
}

/// The answer to a try, whose span says what came of it.
///
/// # Errors
/// Those of `answer`.
pub fn followed(
    open: Option<Box<Open>>,
    answer: Result<Response<Received>, Failed>,
) -> Result<Response<Received>, Failed> {
    let Some(mut open) = open else { return answer };
    match answer {
        Ok(response) => Ok(open.follow(response.map(boxed)).map(Received::Other)),
        Err(failed) => {
            open.fail(failed.reason());
            Err(failed)
        }
    }
}

impl Open {
    fn new(span: Span, kind: SpanKind, method: &Method, until: Option<(Clock, Deadline)>) -> Self {
        Self { span, kind, head: method == Method::HEAD, waiting: true, until, explained: false }
    }

    /// There will be no answer, or none of the other side, for this reason; the first one counts. Whether that is a failure is seen
    /// by the answer.
    pub fn explain(&mut self, reason: impl Into<Value>) {
        self.waiting = false;
        if !self.explained {
            self.explained = true;
            self.span.set_attribute(KeyValue::new("error.type", reason));
        }
    }

    fn fail(&mut self, reason: impl Into<Value>) {
        self.explain(reason);
        // The reason says it all.
        self.span.set_status(Status::error(""));
    }

    /// There is an answer; the span ends with its body.
    pub fn follow(mut self: Box<Self>, response: Response<Body>) -> Response<Body> {
        self.waiting = false;
        let status = response.status();
        self.span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
        if status.is_server_error() || (self.kind == SpanKind::Client && status.is_client_error()) {
            self.fail(status.as_str().to_owned());
        }
        self.status_in(response.headers());
        // Nobody reads a body that is not sent, and that is no reason to think that nobody wanted it.
        if self.head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            return response;
        }
        response.map(|body| boxed(Watched::new(body, self)))
    }

    /// The status of a gRPC call, if it is in these headers or trailers.
    fn status_in(&mut self, headers: &HeaderMap) {
        let Some(status) = grpc::status(headers) else { return };
        let code = i64::from(status.code());
        self.span.set_attribute(KeyValue::new("rpc.grpc.status_code", code));
        if is_failure(status, &self.kind) {
            self.fail(code.to_string());
        }
    }
}

impl OnEnd for Box<Open> {
    fn trailers(&mut self, trailers: &HeaderMap) {
        self.status_in(trailers);
    }

    fn end(mut self, end: End) {
        match end {
            End::Whole => {}
            End::Broken => self.fail("reset"),
            End::Abandoned => self.fail("cancelled"),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.waiting {
            let late = self.until.is_some_and(|(clock, deadline)| deadline.has_passed(clock.now()));
            self.fail(if late { "try-timeout" } else { "cancelled" });
        }
    }
}

/// What a span says of a request, whichever way it goes.
fn describe<B>(span: &mut Span, request: &Request<B>, scheme: &'static str, version: &'static str) {
    let method = known(request.method()).unwrap_or("_OTHER");
    span.set_attribute(KeyValue::new("http.request.method", method));
    span.set_attribute(KeyValue::new("url.scheme", scheme));
    span.set_attribute(KeyValue::new("url.path", short(request.uri().path())));
    span.set_attribute(KeyValue::new("network.protocol.version", version));
    if let Some(authority) = message::authority(request) {
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        span.set_attribute(KeyValue::new("server.address", short(host)));
        if let Some(port) = authority.port_u16() {
            span.set_attribute(KeyValue::new("server.port", i64::from(port)));
        }
    }
    if grpc::is_grpc(request.headers()) {
        span.set_attribute(KeyValue::new("rpc.system", "grpc"));
    }
}

/// Whether a call failed: as its client sees it, whatever is not OK; as its server does, what is not the client's doing.
fn is_failure(status: GrpcStatus, kind: &SpanKind) -> bool {
    match kind {
        SpanKind::Client => status != GrpcStatus::OK,
        // UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
        _ => matches!(status.code(), 2 | 4 | 12..=15),
    }
}

/// A span is named after its method, of which there have to be few.
fn name(method: &Method) -> &'static str {
    known(method).unwrap_or("HTTP")
}

fn known(method: &Method) -> Option<&'static str> {
    Some(match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::CONNECT => "CONNECT",
        Method::OPTIONS => "OPTIONS",
        Method::TRACE => "TRACE",
        Method::PATCH => "PATCH",
        _ => return None,
    })
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}

fn short(text: &str) -> String {
    text[..text.floor_char_boundary(MOST_TEXT)].to_owned()
}
