//! What a proxy tells the limiter about a request: one descriptor per limit.
//!
//! A descriptor starts with the name of the limit; after it comes one entry per part of the key, in order.
//!
//! Envoy's own actions for headers and query parameters drop the whole descriptor, or the entry, where the request has no
//! such header: whoever leaves the header out is not counted. So these are written as a match of the client's address that
//! always holds, whose value is a format with a default: the one action that has both without a runtime flag.
//!
//! A format that Envoy does not know ends it, on loading: only those stand here that the oldest Envoy with this action has.

use chancery_proto::{
    chancery::{ABSENT, LIMIT_KEY},
    envoy::{
        matcher::AddressMatcher,
        rate_limit_filter::RateLimitPerRoute,
        route::{
            RateLimit as EnvoyRateLimit,
            rate_limit::{
                Action, HitsAddend,
                action::{
                    ActionSpecifier, GenericKey, MaskedRemoteAddress, QueryParameters, RemoteAddress,
                    RemoteAddressMatch, RequestHeaders,
                },
            },
        },
    },
    google::protobuf::UInt64Value,
};

use crate::{
    model::rate_limit::{Absent, Hits, KeyPart, RateLimit},
    translate::value::number,
};

/// What the requests of a rule with `limits` are counted by.
pub(super) fn descriptors<'a>(limits: impl IntoIterator<Item = &'a RateLimit>) -> RateLimitPerRoute {
    RateLimitPerRoute { rate_limits: limits.into_iter().flat_map(asked).collect(), ..RateLimitPerRoute::default() }
}

/// One question; two for a limit with debt: whether there is any, and at the end what the request is charged.
fn asked(limit: &RateLimit) -> Vec<EnvoyRateLimit> {
    let question = EnvoyRateLimit { actions: actions(limit), ..EnvoyRateLimit::default() };
    let hits = hits(&limit.hits);
    if !limit.mode.debt {
        return vec![EnvoyRateLimit { hits_addend: hits, ..question }];
    }
    let peek = HitsAddend { number: Some(UInt64Value { value: 0 }), ..HitsAddend::default() };
    let charge = EnvoyRateLimit { hits_addend: hits, apply_on_stream_done: true, ..question.clone() };
    vec![EnvoyRateLimit { hits_addend: Some(peek), ..question }, charge]
}

/// None for a single hit, which is what the limiter takes for granted.
fn hits(hits: &Hits) -> Option<HitsAddend> {
    let format = |format: String| HitsAddend { format, ..HitsAddend::default() };
    match hits {
        Hits::Number(1) => None,
        Hits::Number(number) => {
            Some(HitsAddend { number: Some(UInt64Value { value: u64::from(*number) }), ..HitsAddend::default() })
        }
        Hits::BytesReceived => Some(format("%BYTES_RECEIVED%".to_owned())),
        Hits::BytesSent => Some(format("%BYTES_SENT%".to_owned())),
        Hits::ResponseHeader(name) => Some(format(format!("%RESP({name})%"))),
    }
}

fn actions(limit: &RateLimit) -> Vec<Action> {
    let name = generic_key(LIMIT_KEY, limit.name.as_str());
    let parts = limit.key.iter().map(specifier);
    std::iter::once(name).chain(parts).map(|specifier| Action { action_specifier: Some(specifier) }).collect()
}

fn specifier(part: &KeyPart) -> ActionSpecifier {
    let key = part.key();
    match part {
        KeyPart::Header { name, absent: Absent::Skip } => header(name, key),
        KeyPart::Query { name, absent: Absent::Skip } => ActionSpecifier::QueryParameters(QueryParameters {
            query_parameter_name: name.clone(),
            descriptor_key: key.to_owned(),
            skip_if_absent: false,
        }),
        KeyPart::Header { name, absent: Absent::Together } => formatted(key, format!("%REQ({name})%")),
        KeyPart::Query { name, absent: Absent::Together } => formatted(key, format!("%QUERY_PARAM({name})%")),
        KeyPart::Path => formatted(key, "%PATH(NQ)%".to_owned()),
        KeyPart::Method => header(":method", key),
        KeyPart::RemoteAddress => ActionSpecifier::RemoteAddress(RemoteAddress {}),
        KeyPart::Network { ipv4, ipv6 } => ActionSpecifier::MaskedRemoteAddress(MaskedRemoteAddress {
            v4_prefix_mask_len: Some(number(u32::from(*ipv4))),
            v6_prefix_mask_len: Some(number(u32::from(*ipv6))),
        }),
        KeyPart::Constant { key, value } => generic_key(key, value),
    }
}

fn generic_key(key: &str, value: &str) -> ActionSpecifier {
    ActionSpecifier::GenericKey(GenericKey {
        descriptor_key: key.to_owned(),
        descriptor_value: value.to_owned(),
        ..GenericKey::default()
    })
}

fn header(name: &str, key: &str) -> ActionSpecifier {
    ActionSpecifier::RequestHeaders(RequestHeaders {
        header_name: name.to_owned(),
        descriptor_key: key.to_owned(),
        skip_if_absent: false,
    })
}

fn formatted(key: &str, format: String) -> ActionSpecifier {
    ActionSpecifier::RemoteAddressMatch(RemoteAddressMatch {
        descriptor_key: key.to_owned(),
        descriptor_value: format,
        default_value: ABSENT.to_owned(),
        // In none of no ranges: every address.
        address_matcher: Some(AddressMatcher { ranges: Vec::new(), invert_match: true }),
    })
}
