//! What a request is answered with: the name of the upstream and what reached it, with a seal by which the client can tell
//! whether all of it arrived, and once; or with the fault that meets the request.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::Deserialize as _;
use tokio::time::sleep;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::{
    chaos::{Chaos, Fault},
    line::Line,
    reply::{Broken, Reply},
    upstream::State,
};

/// Under this a request is counted.
const ID: HeaderName = HeaderName::from_static("x-request-id");
/// A client asks here for a fault, whatever the shares; and is told which one it met.
const CHAOS: HeaderName = HeaderName::from_static("x-chaos");
/// A client asks here for a longer answer, in bytes.
const MORE: HeaderName = HeaderName::from_static("x-demo-bytes");
/// XXH3 of the answer's body, in hexadecimal digits.
const BODY_HASH: HeaderName = HeaderName::from_static("x-body-hash");
/// XXH3 of the request's body as it arrived.
const REQUEST_HASH: HeaderName = HeaderName::from_static("x-request-hash");

/// The longest answer that can be asked for.
const MOST_BYTES: usize = 1 << 20;

/// So long a request is executed while its connection ends in an orderly way.
const DURING_GOAWAY: Duration = Duration::from_millis(5);

/// Answers a request that came over `line`.
pub(super) async fn answer(
    state: Arc<State>,
    line: Arc<Line>,
    request: Request<Incoming>,
) -> Result<Response<Reply>, Broken> {
    let under_way = line.begin();
    let id = match request.headers().get(ID) {
        Some(id) => Bytes::copy_from_slice(id.as_bytes()),
        None => Bytes::from(state.next_id().to_string()),
    };
    let nth = state.counts.count(&id);
    let chaos = state.chaos.borrow().clone();
    let fault = asked_for(request.headers()).or_else(|| chaos.of_request(&id, nth));
    let (head, body) = request.into_parts();
    let grpc = head.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    let request_hash = match fault {
        Some(Fault::EarlyResponse) => None,
        _ => Some(hash(body).await?),
    };
    match fault {
        Some(Fault::Latency) => sleep(Duration::from_millis(chaos.latency_ms.into())).await,
        Some(Fault::HangUp) => {
            line.end_by_reset();
            line.cut.notify_one();
            return Err(Broken);
        }
        Some(Fault::Goaway) => {
            line.goaway.notify_one();
            sleep(DURING_GOAWAY).await;
        }
        _ => {}
    }
    let text = text(&state.name, &head);
    let seal = xxh3_64(&text);
    let mut reply = Reply::of(text).during(under_way);
    if seal & 1 == 1 && !grpc {
        reply = reply.of_unknown_size();
    }
    let mut headers = HeaderMap::new();
    headers.insert(BODY_HASH, hexadecimal(seal));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if let Some(hash) = request_hash {
        headers.insert(REQUEST_HASH, hexadecimal(hash));
    }
    if grpc {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        reply = reply.with_trailers(status_of(0));
    }
    match fault {
        Some(Fault::Drip) => reply = reply.dripping(Duration::from_millis(chaos.drip_ms.into())),
        Some(Fault::ResetMidBody) => reply = reply.broken(head.version < Version::HTTP_2),
        _ => {}
    }
    let mut response = Response::new(reply);
    *response.headers_mut() = headers;
    if let Some(fault) = fault {
        mark(&mut response, fault);
        fail(&mut response, fault, grpc, &chaos);
    }
    Ok(response)
}

/// Makes an error of an answer, if that is what the fault is.
fn fail(response: &mut Response<Reply>, fault: Fault, grpc: bool, chaos: &Chaos) {
    let error = StatusCode::from_u16(chaos.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    match fault {
        Fault::TrailersOnly if grpc => {
            response.headers_mut().extend(status_of(chaos.grpc_status));
            response.headers_mut().remove(BODY_HASH);
            *response.body_mut() = Reply::of(Bytes::new());
        }
        Fault::Error | Fault::TrailersOnly => *response.status_mut() = error,
        Fault::RateLimited => {
            *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(chaos.retry_after));
        }
        _ => {}
    }
}

/// Says in the answer which fault it is.
fn mark(response: &mut Response<Reply>, fault: Fault) {
    let name = serde_json::to_value(fault).ok();
    if let Some(value) = name.and_then(|name| HeaderValue::try_from(name.as_str()?).ok()) {
        response.headers_mut().insert(CHAOS, value);
    }
}

fn asked_for(headers: &HeaderMap) -> Option<Fault> {
    let name = headers.get(CHAOS)?.to_str().ok()?;
    Fault::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(name)).ok()
}

async fn hash(mut body: Incoming) -> Result<u64, Broken> {
    let mut hash = Xxh3::new();
    while let Some(frame) = body.frame().await {
        // Whoever sends half a request gets no answer.
        if let Some(data) = frame.map_err(|_| Broken)?.data_ref() {
            hash.update(data);
        }
    }
    Ok(hash.digest())
}

fn text(name: &str, head: &http::request::Parts) -> Bytes {
    let mut text = format!("{name}\n{} {}\n", head.method, head.uri);
    for (header, value) in &head.headers {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{header}: {}", String::from_utf8_lossy(value.as_bytes()));
    }
    let more = head.headers.get(MORE).and_then(|more| more.to_str().ok()?.parse().ok()).unwrap_or(0).min(MOST_BYTES);
    // No two lines are alike, so that a piece that is missing or doubled changes the hash.
    let mut line = 0_u32;
    while text.len() < more {
        line += 1;
        let _ = writeln!(text, "line {line}");
    }
    text.into()
}

fn status_of(grpc: u8) -> HeaderMap {
    [(HeaderName::from_static("grpc-status"), HeaderValue::from(u16::from(grpc)))].into_iter().collect()
}

fn hexadecimal(hash: u64) -> HeaderValue {
    // Digits stand in a header as they are.
    HeaderValue::try_from(format!("{hash:016x}")).unwrap_or(HeaderValue::from_static(""))
}
