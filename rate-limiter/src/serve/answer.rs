//! A verdict as Envoy wants to hear it: `envoy.service.ratelimit.v3.RateLimitResponse`.
//!
//! Two forms of the same answer, byte for byte (a test says so): [`Answers::message`] for code that works with
//! generated messages, and [`Answers::write`], which writes the gRPC message into a buffer without allocating
//! anything in between, because it is done for every request.
//!
//! What Envoy makes of it (1.40): only the overall code decides, and `UNKNOWN` would admit, so it is never sent.
//! `X-RateLimit-*` come from the status with the least remaining; `Retry-After` from the longest reset among those
//! over their limit. Resets are cut to whole seconds there, so they are rounded up here.

mod headers;
mod metadata;
mod protobuf;

use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use chancery_proto::{
    envoy::{core::HeaderValue, rls as pb},
    google,
};
use serde::{Deserialize, Serialize};

use self::protobuf::{bytes_len, nested_len, number_len, put_bytes, put_head, put_number};
use crate::model::{
    limit::{Limit, MAX_PERIOD, Unit},
    verdict::{Status, Verdict},
};

/// Bytes before each message of a gRPC stream: whether it is compressed, and its length.
pub const FRAME_HEAD: usize = 5;

/// Which headers a response gets from here. Envoy adds `X-RateLimit-*` by itself if it is told to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResponseHeaders {
    /// None.
    #[default]
    None,
    /// `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset`, for the scarcest limit.
    #[value(name = "x-ratelimit")]
    #[serde(rename = "x-ratelimit")]
    XRateLimit,
    /// `RateLimit-Policy` and `RateLimit` of the IETF's draft, for every limit.
    Ietf,
    /// All of them.
    Both,
}

/// Turns verdicts into answers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answers {
    headers: ResponseHeaders,
}

impl Answers {
    /// Answers with these headers.
    pub fn new(headers: ResponseHeaders) -> Self {
        Self { headers }
    }

    /// The answer as a message.
    pub fn message(&self, verdict: &Verdict) -> pb::RateLimitResponse {
        pb::RateLimitResponse {
            overall_code: code(verdict.admitted).into(),
            statuses: verdict.statuses.iter().map(status_message).collect(),
            response_headers_to_add: self.header_values(verdict),
            raw_body: body(verdict).to_vec(),
            dynamic_metadata: metadata::of(verdict),
            ..pb::RateLimitResponse::default()
        }
    }

    /// Appends the answer to `out`, as one uncompressed message of a gRPC stream.
    pub fn write(&self, verdict: &Verdict, out: &mut BytesMut) {
        let start = out.len();
        out.reserve(FRAME_HEAD + 64 * (1 + verdict.statuses.len()));
        out.put_bytes(0, FRAME_HEAD);
        put_number(out, 1, code(verdict.admitted) as u64);
        for status in &verdict.statuses {
            put_status(out, status);
        }
        // What few answers have may cost what it costs.
        for header in self.header_values(verdict) {
            put_message(out, 3, &header);
        }
        put_bytes(out, 5, body(verdict));
        if let Some(metadata) = metadata::of(verdict) {
            put_message(out, 6, &metadata);
        }
        let len = (out.len() - start - FRAME_HEAD) as u32;
        out[start + 1..start + FRAME_HEAD].copy_from_slice(&len.to_be_bytes());
    }

    fn header_values(&self, verdict: &Verdict) -> Vec<HeaderValue> {
        headers::of(verdict, self.headers)
    }
}

/// The reset that Envoy is told, in whole seconds. `None` where there is no limit to reset.
fn reset_seconds(status: &Status) -> Option<u64> {
    status.limit.as_ref()?;
    // No bucket takes longer to fill.
    Some(whole_seconds(status.reset.min(MAX_PERIOD * 10)))
}

fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

fn code(admitted: bool) -> pb::rate_limit_response::Code {
    if admitted { pb::rate_limit_response::Code::Ok } else { pb::rate_limit_response::Code::OverLimit }
}

fn body(verdict: &Verdict) -> &[u8] {
    verdict.body.as_deref().unwrap_or_default()
}

fn name(status: &Status) -> &str {
    status.rule.as_ref().map_or("", |rule| &rule.name)
}

fn remaining(status: &Status) -> u32 {
    u32::try_from(status.remaining).unwrap_or(u32::MAX)
}

fn unit(limit: &Limit) -> pb::rate_limit_response::rate_limit::Unit {
    use pb::rate_limit_response::rate_limit::Unit as Known;
    match limit.unit() {
        // A period that is no unit: Envoy then leaves the window out of its headers.
        None => Known::Unknown,
        Some(Unit::Second) => Known::Second,
        Some(Unit::Minute) => Known::Minute,
        Some(Unit::Hour) => Known::Hour,
        Some(Unit::Day) => Known::Day,
        Some(Unit::Week) => Known::Week,
        Some(Unit::Month) => Known::Month,
        Some(Unit::Year) => Known::Year,
    }
}

fn status_message(status: &Status) -> pb::rate_limit_response::DescriptorStatus {
    let current_limit = status.limit.as_ref().map(|limit| pb::rate_limit_response::RateLimit {
        name: name(status).to_owned(),
        requests_per_unit: limit.requests(),
        unit: unit(limit).into(),
    });
    let reset = reset_seconds(status);
    pb::rate_limit_response::DescriptorStatus {
        code: code(status.admitted).into(),
        current_limit,
        limit_remaining: remaining(status),
        duration_until_reset: reset.map(|seconds| google::protobuf::Duration { seconds: seconds as i64, nanos: 0 }),
        quota: None,
    }
}

fn put_status(out: &mut BytesMut, status: &Status) {
    let (code, remaining) = (code(status.admitted) as u64, u64::from(remaining(status)));
    let limit = status.limit.as_ref().map(|limit| {
        let (requests, unit, name) = (u64::from(limit.requests()), unit(limit) as u64, name(status).as_bytes());
        (requests, unit, name, number_len(requests) + number_len(unit) + bytes_len(name))
    });
    let reset = reset_seconds(status);
    let len = number_len(code)
        + limit.map_or(0, |(.., len)| nested_len(len))
        + number_len(remaining)
        + reset.map_or(0, |seconds| nested_len(number_len(seconds)));
    put_head(out, 2, len);
    put_number(out, 1, code);
    if let Some((requests, unit, name, len)) = limit {
        put_head(out, 2, len);
        put_number(out, 1, requests);
        put_number(out, 2, unit);
        put_bytes(out, 3, name);
    }
    put_number(out, 3, remaining);
    if let Some(seconds) = reset {
        put_head(out, 4, number_len(seconds));
        put_number(out, 1, seconds);
    }
}

fn put_message(out: &mut BytesMut, tag: u8, message: &impl prost::Message) {
    put_head(out, tag, message.encoded_len());
    out.put_slice(&message.encode_to_vec());
}

#[cfg(test)]
mod tests;
