//! Use from pages of other origins, as Envoy's filter takes it.
//!
//! The filter is the first of a chain: preflights are not counted or delayed, and what later filters answer themselves can be read by
//! the page too.

use chancery_proto::{
    any,
    envoy::{
        cors::{Cors as CorsFilter, CorsPolicy},
        hcm::HttpFilter,
        matcher::{StringMatcher, string_matcher::MatchPattern},
    },
    google::protobuf::Any,
};

use super::{
    filter::{off, on},
    value::{flag, regex, string_matcher},
};
use crate::model::cors::{Cors, Origin};

/// The filter, by the name that routes use.
const FILTER: &str = "envoy.filters.http.cors";

/// The filter on every listener.
pub(super) fn filter() -> HttpFilter {
    off(FILTER, any::pack_typed(&CorsFilter::default()))
}

/// What a rule tells the filter, by its name.
pub(super) fn per_route(cors: &Cors) -> (String, Any) {
    on(FILTER, any::pack_typed(&policy(cors)))
}

fn policy(cors: &Cors) -> CorsPolicy {
    let Cors { origins, methods, headers, expose_headers, max_age, credentials } = cors;
    CorsPolicy {
        allow_origin_string_match: origins.iter().map(origin).collect(),
        allow_methods: methods.join(","),
        allow_headers: headers.join(","),
        expose_headers: expose_headers.join(","),
        max_age: max_age.map(|age| age.as_secs().to_string()).unwrap_or_default(),
        allow_credentials: Some(flag(*credentials)),
        // A service knows nothing of preflights that are not for it.
        forward_not_matching_preflights: Some(flag(false)),
        ..CorsPolicy::default()
    }
}

fn origin(origin: &Origin) -> StringMatcher {
    let pattern = match origin {
        // To Envoy this is every origin.
        Origin::Any => MatchPattern::Exact("*".to_owned()),
        Origin::Exact(origin) => MatchPattern::Exact(origin.clone()),
        Origin::Pattern(pattern) => MatchPattern::SafeRegex(regex(pattern.clone())),
    };
    string_matcher(pattern)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::translate::testing::snapshot;

    #[test]
    fn what_browsers_are_told() {
        let cors = Cors {
            origins: vec![
                Origin::Any,
                Origin::Exact("https://shop.example.com".into()),
                Origin::Pattern(r"https://[^/:]+\.example\.com".into()),
            ],
            methods: vec!["GET".into(), "PUT".into()],
            headers: vec!["x-a".into(), "x-b".into()],
            expose_headers: vec!["x-c".into()],
            max_age: Some(Duration::from_secs(600)),
            credentials: true,
        };
        insta::assert_snapshot!(snapshot(&policy(&cors)));
    }
}
