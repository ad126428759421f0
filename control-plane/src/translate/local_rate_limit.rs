//! Limits that each proxy keeps by itself: a bucket of tokens for each route of Envoy's.

use chancery_proto::{
    any,
    envoy::{
        core::RuntimeFractionalPercent, hcm::HttpFilter, local_rate_limit_filter::LocalRateLimit as Filter,
        rate_limit_common::XRateLimitHeadersRfcVersion, types::TokenBucket,
    },
    google::protobuf::Any,
};

use super::{
    filter::{off, on},
    value::{duration, number, percent},
};
use crate::model::local_rate_limit::LocalRateLimit;

/// The filter, by the name that routes use.
const FILTER: &str = "envoy.filters.http.local_ratelimit";

/// The filter on every listener.
pub(super) fn filter() -> HttpFilter {
    off(FILTER, any::pack_typed(&Filter { stat_prefix: STATISTICS.to_owned(), ..Filter::default() }))
}

/// What a rule tells the filter, by its name.
pub(super) fn per_route(limit: &LocalRateLimit) -> (String, Any) {
    on(FILTER, any::pack_typed(&settings(limit)))
}

/// How its statistics begin.
const STATISTICS: &str = "local";

fn settings(limit: &LocalRateLimit) -> Filter {
    let LocalRateLimit { requests, per, burst } = limit;
    let always = || RuntimeFractionalPercent { default_value: Some(percent(100)), runtime_key: String::new() };
    Filter {
        stat_prefix: STATISTICS.to_owned(),
        token_bucket: Some(TokenBucket {
            max_tokens: *burst,
            tokens_per_fill: Some(number(*requests)),
            fill_interval: Some(duration(*per)),
        }),
        // Envoy does neither unless it is told to.
        filter_enabled: Some(always()),
        filter_enforced: Some(always()),
        enable_x_ratelimit_headers: XRateLimitHeadersRfcVersion::DraftVersion03.into(),
        enable_retry_after_header: true,
        // As a limiter is told to answer calls of gRPC.
        rate_limited_as_resource_exhausted: true,
        ..Filter::default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::translate::testing::snapshot;

    #[test]
    fn a_bucket_that_is_enforced() {
        let limit = LocalRateLimit { requests: 100, per: Duration::from_secs(60), burst: 200 };
        insta::assert_snapshot!(snapshot(&settings(&limit)));
    }
}
