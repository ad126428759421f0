//! The context of a trace in the headers of a request: W3C's `traceparent`, and B3 as one header or as several.
//!
//! Read here and not by the SDK's propagators: those of W3C take what the specification refuses (two headers, versions of four
//! digits), there is none of B3, and neither tells which formats came. What is passed on is in the formats that
//! came, so that no application has to understand another than it did.
//!
//! `tracestate` belongs to others and passes as it came, but not without the `traceparent` that it came with.
//!
//! Sources: W3C Trace Context, levels 1 and 2; `openzipkin/b3-propagation`.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const B3: HeaderName = HeaderName::from_static("b3");
const B3_TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
const B3_SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
const B3_PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// Flags that are passed on: sampled, and that the trace's id is random (level 2).
const KNOWN_FLAGS: u8 = 0b11;

/// The longest `tracestate` that is exported with a span; the header passes whatever its length. W3C asks for as much.
const MOST_STATE: usize = 512;

/// What a request says of its trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arrived {
    /// The span that asked, of which at least the identity is right. W3C's word before B3's.
    pub parent: Option<SpanContext>,
    /// Whether the trace is to be recorded; `None`: that is left to us.
    pub decision: Option<bool>,
    /// In which formats.
    pub formats: Formats,
}

/// In which formats a context came, right or not, and is passed on. If in none, a trace that is recorded goes on in W3C's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Formats {
    w3c: bool,
    /// In one header.
    b3: bool,
    /// In several.
    b3_headers: bool,
    /// B3's flag of those who look for a fault.
    debug: bool,
    /// There is a right `traceparent`, to which a `tracestate` may belong.
    w3c_is_right: bool,
}

impl Arrived {
    /// What these headers say. What cannot be read is as if it were not there.
    pub fn of(headers: &HeaderMap) -> Self {
        let w3c = only(headers, &TRACEPARENT).and_then(traceparent);
        let single = only(headers, &B3).map(b3).unwrap_or_default();
        let several = b3_headers(headers);
        let formats = Formats {
            w3c: headers.contains_key(TRACEPARENT),
            b3: headers.contains_key(B3),
            b3_headers: [B3_TRACE, B3_SPAN, B3_SAMPLED, B3_FLAGS].iter().any(|name| headers.contains_key(name)),
            debug: single.debug || several.debug,
            w3c_is_right: w3c.is_some(),
        };
        let by_b3 = if single.parent.is_some() || several.parent.is_none() { single } else { several };
        let (parent, decision) = match w3c {
            Some((trace, span, flags)) => {
                let parent = SpanContext::new(trace, span, flags, true, state(headers));
                (Some(parent), Some(flags.is_sampled()))
            }
            None => {
                let sampled = by_b3.decision.or(several.decision);
                let flags = TraceFlags::default().with_sampled(sampled == Some(true));
                let context = |(trace, span)| SpanContext::new(trace, span, flags, true, TraceState::NONE);
                (by_b3.parent.map(context), sampled)
            }
        };
        Self { parent, decision, formats }
    }

    /// What a `traceparent` says that came without headers. What cannot be read is as if it were not there.
    pub fn of_traceparent(text: &str) -> Self {
        let Some((trace, span, flags)) = traceparent(text.as_bytes()) else { return Self::default() };
        let parent = SpanContext::new(trace, span, flags, true, TraceState::NONE);
        Self { parent: Some(parent), decision: Some(flags.is_sampled()), formats: Formats::default() }
    }

    /// What a span of our own says to those below it.
    pub(super) fn below(parent: &SpanContext) -> Self {
        let decision = Some(parent.is_sampled());
        Self { parent: Some(parent.clone()), decision, formats: Formats::default() }
    }
}

/// A span's identity as `traceparent` says it.
pub(super) fn traceparent_of(own: &SpanContext) -> String {
    format!("00-{}-{}-{:02x}", own.trace_id(), own.span_id(), own.trace_flags().to_u8() & KNOWN_FLAGS)
}

impl Formats {
    /// Makes the headers say that `own`, a span below `parent`, is who asks. [`SpanId::INVALID`]: there is none above it.
    pub fn write(self, own: &SpanContext, parent: SpanId, headers: &mut HeaderMap) {
        let sampled = own.is_sampled();
        let came = self.w3c || self.b3 || self.b3_headers;
        if self.w3c || (!came && sampled) {
            set(headers, TRACEPARENT, traceparent_of(own));
            if !self.w3c_is_right {
                headers.remove(TRACESTATE);
            }
        }
        let has_parent = parent != SpanId::INVALID;
        if self.b3 {
            let sampled = if sampled && self.debug { "d" } else { digit(sampled) };
            let mut text = format!("{}-{}-{sampled}", b3_id(own.trace_id()), own.span_id());
            if has_parent {
                text.push('-');
                text.push_str(&parent.to_string());
            }
            set(headers, B3, text);
        }
        if self.b3_headers {
            set(headers, B3_TRACE, b3_id(own.trace_id()));
            set(headers, B3_SPAN, own.span_id().to_string());
            headers.insert(B3_SAMPLED, HeaderValue::from_static(digit(sampled)));
            headers.remove(B3_PARENT);
            if has_parent {
                set(headers, B3_PARENT, parent.to_string());
            }
            if !(sampled && self.debug) {
                headers.remove(B3_FLAGS);
            }
        }
    }
}

fn digit(sampled: bool) -> &'static str {
    if sampled { "1" } else { "0" }
}

/// An id whose upper half is zero came as one of 64 bits, and goes on as one: not everybody who speaks B3 takes more.
fn b3_id(id: TraceId) -> String {
    let text = id.to_string();
    text.strip_prefix("0000000000000000").map(str::to_owned).unwrap_or(text)
}

fn set(headers: &mut HeaderMap, name: HeaderName, text: String) {
    // Digits and hyphens are always a value.
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(name, value);
    }
}

/// The value of a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then(|| value.as_bytes())
}

/// A number of exactly so many hexadecimal digits, in lower case.
fn hex(text: &[u8], digits: usize) -> Option<u128> {
    let right = text.len() == digits && text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    right.then(|| str::from_utf8(text).ok().and_then(|text| u128::from_str_radix(text, 16).ok())).flatten()
}

fn trace_id(text: &[u8], digits: usize) -> Option<TraceId> {
    hex(text, digits).filter(|id| *id != 0).map(|id| TraceId::from_bytes(id.to_be_bytes()))
}

fn span_id(text: &[u8]) -> Option<SpanId> {
    let id = u64::try_from(hex(text, 16)?).ok()?;
    (id != 0).then(|| SpanId::from_bytes(id.to_be_bytes()))
}

/// `version-trace-parent-flags`; a later version may say more behind another hyphen.
fn traceparent(value: &[u8]) -> Option<(TraceId, SpanId, TraceFlags)> {
    let mut parts = value.splitn(5, |byte| *byte == b'-');
    let version = hex(parts.next()?, 2)?;
    let (trace, span) = (trace_id(parts.next()?, 32)?, span_id(parts.next()?)?);
    let flags = u8::try_from(hex(parts.next()?, 2)?).ok()?;
    let more = parts.next().is_some();
    let right = version != 0xff && !(version == 0 && more);
    right.then(|| (trace, span, TraceFlags::new(flags & KNOWN_FLAGS)))
}

fn state(headers: &HeaderMap) -> TraceState {
    let values = headers.get_all(TRACESTATE).iter().map(HeaderValue::to_str);
    let Ok(values) = values.collect::<Result<Vec<_>, _>>() else { return TraceState::NONE };
    if values.iter().map(|value| value.len()).sum::<usize>() > MOST_STATE {
        return TraceState::NONE;
    }
    values.join(",").parse().unwrap_or(TraceState::NONE)
}

/// What one form of B3 says.
#[derive(Clone, Copy, Default)]
struct SaidInB3 {
    parent: Option<(TraceId, SpanId)>,
    decision: Option<bool>,
    debug: bool,
}

/// `trace-span`, `trace-span-sampled`, `trace-span-sampled-parent`, or `sampled` alone.
fn b3(value: &[u8]) -> SaidInB3 {
    let mut parts = value.splitn(5, |byte| *byte == b'-');
    let first = parts.next().unwrap_or_default();
    let Some(span) = parts.next() else { return SaidInB3 { parent: None, ..b3_decision(first) } };
    let said = parts.next().map(b3_decision).unwrap_or_default();
    let above = parts.next().is_none_or(|above| span_id(above).is_some());
    let right = above && parts.next().is_none();
    let parent = b3_trace(first).zip(span_id(span)).filter(|_| right);
    // Whose ids cannot be read is not believed in the rest.
    if parent.is_some() { SaidInB3 { parent, ..said } } else { SaidInB3::default() }
}

fn b3_decision(value: &[u8]) -> SaidInB3 {
    let decision = match value {
        b"1" | b"d" | b"true" => Some(true),
        b"0" | b"false" => Some(false),
        _ => None,
    };
    SaidInB3 { parent: None, decision, debug: value == b"d" }
}

fn b3_trace(text: &[u8]) -> Option<TraceId> {
    trace_id(text, 32).or_else(|| trace_id(text, 16))
}

fn b3_headers(headers: &HeaderMap) -> SaidInB3 {
    let debug = only(headers, &B3_FLAGS) == Some(b"1");
    let sampled = only(headers, &B3_SAMPLED).and_then(|value| b3_decision(value).decision);
    let parent = only(headers, &B3_TRACE).and_then(b3_trace).zip(only(headers, &B3_SPAN).and_then(span_id));
    SaidInB3 { parent, decision: if debug { Some(true) } else { sampled }, debug }
}

#[cfg(test)]
mod tests;
