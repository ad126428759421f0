//! Limits that the proxy enforces itself, within shares that the limiter assigns to it (RLQS).
//!
//! Envoy 1.40 has this filter for whole listeners: a route can have it or not, but cannot say what is counted. And a
//! listener that changed with each limit would drain its connections. So the filter of every listener is the same and
//! counts by an object of the filter state; a filter before it makes this object of the format that the route holds. Both are
//! switched off but on routes with such a limit.
//!
//! The object is the descriptor that the limiter would have been asked about, as JSON ([`DESCRIPTOR_BUCKET`]): Envoy
//! escapes what clients send, so no client can count as another.
//!
//! Found out with Envoy 1.40: a token bucket as behaviour without an assignment ends the process on the second
//! request, and `reuse_last_assignment` admits everything once the assignment has expired. What is left is all or nothing.

use std::{iter, time::Duration};

use chancery_proto::{
    any,
    chancery::{DESCRIPTOR_BUCKET, LIMIT_KEY, SKIP_IF_ABSENT},
    envoy::{
        core::{SubstitutionFormatString, TypedExtensionConfig, substitution_format_string::Format},
        filter_state::{
            FilterStateValue,
            filter_state_value::{Key as ObjectKey, Value as ObjectValue},
        },
        hcm::HttpFilter,
        matching_inputs::FilterStateInput,
        rate_limit_quota_filter::{
            RateLimitQuotaBucketSettings, RateLimitQuotaFilterConfig,
            rate_limit_quota_bucket_settings::{
                BucketIdBuilder, DenyResponseSettings, ExpiredAssignmentBehavior, NoAssignmentBehavior,
                bucket_id_builder::{ValueBuilder, value_builder::ValueSpecifier},
                expired_assignment_behavior::ExpiredAssignmentBehavior as Expired,
                no_assignment_behavior::NoAssignmentBehavior as Unassigned,
            },
        },
        route::FilterConfig,
        set_filter_state_filter::Config as SetFilterState,
        types::{
            RateLimitStrategy,
            rate_limit_strategy::{BlanketRule, Strategy},
        },
        xds_core,
        xds_matcher::{
            Matcher,
            matcher::{OnMatch, on_match},
        },
    },
    google::{
        protobuf::{Any, ListValue, Struct, Value, value::Kind},
        rpc::Status,
    },
};

use super::limiter::grpc_service;
use crate::{
    model::{
        Name,
        fleet::{OnFailure, RateLimiter},
        rate_limit::{Absent, KeyPart, RateLimit},
    },
    translate::{filter::off, value::duration},
};

/// The filter that enforces, by the name that routes use.
const ENFORCING: &str = "envoy.filters.http.rate_limit_quota";

/// The filter before it, which says what a request counts as.
const NAMING: &str = "chancery.quota-descriptor";

/// How often proxies report. Envoy 1.40 does so every five seconds whatever it is told.
const REPORTING: Duration = Duration::from_secs(5);

/// How long a bucket is kept after the limiter has last been heard of.
const KEPT: Duration = Duration::from_secs(600);

/// Bytes of a value that a client chooses; what is longer counts by its beginning. A proxy reports all its buckets in one
/// message, and one client could make that longer than any limiter reads.
const MAX_VALUE: usize = 256;

/// `RESOURCE_EXHAUSTED`, as the limiter's own refusals are told to gRPC clients.
const RESOURCE_EXHAUSTED: i32 = 8;

/// The two filters on the listeners of `fleet`, in their order; off, unless a route switches them on.
pub(super) fn filters(fleet: &Name, limiter: &RateLimiter) -> [HttpFilter; 2] {
    [
        off(NAMING, any::pack_typed(&SetFilterState::default())),
        off(ENFORCING, any::pack_typed(&settings(fleet, limiter))),
    ]
}

/// What a route with `limit` tells the two filters, by their names.
pub(super) fn per_route(limit: &RateLimit) -> [(String, Any); 2] {
    let on = FilterConfig { config: Some(Any::default()), ..FilterConfig::default() };
    [(NAMING.to_owned(), any::pack_typed(&naming(limit))), (ENFORCING.to_owned(), any::pack_typed(&on))]
}

pub(super) fn settings(fleet: &Name, limiter: &RateLimiter) -> RateLimitQuotaFilterConfig {
    let bucket = on_match::OnMatch::Action(xds_core::TypedExtensionConfig {
        name: DESCRIPTOR_BUCKET.to_owned(),
        typed_config: Some(any::pack_typed(&bucket(limiter.on_failure))),
    });
    RateLimitQuotaFilterConfig {
        rlqs_server: Some(grpc_service()),
        domain: fleet.to_string(),
        bucket_matchers: Some(Matcher {
            on_no_match: Some(Box::new(OnMatch { on_match: Some(bucket), ..OnMatch::default() })),
            ..Matcher::default()
        }),
        ..RateLimitQuotaFilterConfig::default()
    }
}

pub(super) fn bucket(on_failure: OnFailure) -> RateLimitQuotaBucketSettings {
    let rule = match on_failure {
        OnFailure::Allow => BlanketRule::AllowAll,
        OnFailure::Deny => BlanketRule::DenyAll,
    };
    let without_limiter = RateLimitStrategy { strategy: Some(Strategy::BlanketRule(rule.into())) };
    let object = FilterStateInput { key: DESCRIPTOR_BUCKET.to_owned(), ..FilterStateInput::default() };
    let descriptor = ValueBuilder {
        value_specifier: Some(ValueSpecifier::CustomValue(TypedExtensionConfig {
            name: DESCRIPTOR_BUCKET.to_owned(),
            typed_config: Some(any::pack_typed(&object)),
        })),
    };
    RateLimitQuotaBucketSettings {
        bucket_id_builder: Some(BucketIdBuilder {
            bucket_id_builder: iter::once((DESCRIPTOR_BUCKET.to_owned(), descriptor)).collect(),
        }),
        reporting_interval: Some(duration(REPORTING)),
        deny_response_settings: Some(DenyResponseSettings {
            grpc_status: Some(Status { code: RESOURCE_EXHAUSTED, ..Status::default() }),
            ..DenyResponseSettings::default()
        }),
        no_assignment_behavior: Some(NoAssignmentBehavior {
            no_assignment_behavior: Some(Unassigned::FallbackRateLimit(without_limiter)),
        }),
        expired_assignment_behavior: Some(ExpiredAssignmentBehavior {
            expired_assignment_behavior_timeout: Some(duration(KEPT)),
            expired_assignment_behavior: Some(Expired::FallbackRateLimit(without_limiter)),
        }),
    }
}

pub(super) fn naming(limit: &RateLimit) -> SetFilterState {
    let name = [LIMIT_KEY, limit.name.as_str()].map(text);
    let entries = iter::once(list(name)).chain(limit.key.iter().map(entry));
    // One field: a message with a map of several has no one encoding.
    let descriptor = Struct { fields: iter::once(("descriptor".to_owned(), list(entries))).collect() };
    SetFilterState {
        on_request_headers: vec![FilterStateValue {
            key: Some(ObjectKey::ObjectKey(DESCRIPTOR_BUCKET.to_owned())),
            factory_key: "envoy.string".to_owned(),
            value: Some(ObjectValue::FormatString(SubstitutionFormatString {
                format: Some(Format::JsonFormat(descriptor)),
                ..SubstitutionFormatString::default()
            })),
            ..FilterStateValue::default()
        }],
        ..SetFilterState::default()
    }
}

/// Key and value of one part, and what becomes of requests without it.
fn entry(part: &KeyPart) -> Value {
    let (value, absent) = match part {
        KeyPart::Header { name, absent } => (format!("%REQ({name}):{MAX_VALUE}%"), *absent),
        KeyPart::Query { name, absent } => (format!("%QUERY_PARAM({name}):{MAX_VALUE}%"), *absent),
        KeyPart::Path => (format!("%PATH(NQ):{MAX_VALUE}%"), Absent::Together),
        KeyPart::Method => (format!("%REQ(:METHOD):{MAX_VALUE}%"), Absent::Together),
        // Networks cannot be formatted; the model has none of them with a quota.
        KeyPart::RemoteAddress | KeyPart::Network { .. } => {
            ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%".to_owned(), Absent::Together)
        }
        KeyPart::Constant { value, .. } => (value.clone(), Absent::Together),
    };
    let skip = (absent == Absent::Skip).then_some(SKIP_IF_ABSENT);
    list([part.key(), &value].into_iter().chain(skip).map(text))
}

fn text(text: &str) -> Value {
    Value { kind: Some(Kind::StringValue(text.to_owned())) }
}

fn list(values: impl IntoIterator<Item = Value>) -> Value {
    Value { kind: Some(Kind::ListValue(ListValue { values: values.into_iter().collect() })) }
}
