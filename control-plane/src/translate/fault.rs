//! Faults on purpose, which end by themselves.
//!
//! Envoy's fault filter knows no end. So the filter of the listener is one that does as another, if an expression holds for
//! the request; the route says which and what, and the expression is `request.time < timestamp("2026-12-01T12:00:00Z")`. Nobody
//! has to take a fault back: it ends by the clock of the proxy, be every control plane away, and what is sent for a route depends on
//! nothing but the route. (A timer in the control plane would have to fire at every replica, and to reach every proxy in time.)

use chancery_proto::{
    any,
    cel::{CelMatcher, HttpAttributesCelMatchInput, call, field, text},
    envoy::{
        fault::{FaultDelay, fault_delay::FaultDelaySecifier},
        fault_filter::{FaultAbort, HttpFault, fault_abort::ErrorType},
        hcm::HttpFilter,
        xds_matcher::{
            Matcher,
            matcher::{
                MatcherList, MatcherType,
                matcher_list::{
                    FieldMatcher, Predicate,
                    predicate::{MatchType, SinglePredicate, single_predicate},
                },
            },
        },
    },
    google::protobuf::Any,
};
use time::format_description::well_known::Rfc3339;

use super::{
    composite::{self, execute, extension},
    value::{duration, percent},
};
use crate::model::fault::{Abort, Delay, Fault};

/// The filter, by the name that routes use.
const FILTER: &str = "chancery.fault";

/// The filter on every listener.
pub(super) fn filter() -> HttpFilter {
    composite::filter(FILTER)
}

/// What a rule with `fault` tells the filter, by its name.
pub(super) fn per_route(fault: &Fault) -> (String, Any) {
    composite::per_route(FILTER, until(fault))
}

/// Does as the fault filter, as long as the fault lasts.
fn until(fault: &Fault) -> Matcher {
    let predicate = SinglePredicate {
        input: Some(extension("request", &HttpAttributesCelMatchInput {})),
        matcher: Some(single_predicate::Matcher::CustomMatch(extension("until", &still(fault)))),
    };
    let matcher = FieldMatcher {
        predicate: Some(Predicate { match_type: Some(MatchType::SinglePredicate(predicate)) }),
        on_match: Some(execute("envoy.filters.http.fault", any::pack_typed(&settings(fault)))),
    };
    Matcher {
        matcher_type: Some(MatcherType::MatcherList(MatcherList { matchers: vec![matcher] })),
        ..Matcher::default()
    }
}

/// Whether the fault lasts still, for a request that begins now.
fn still(fault: &Fault) -> CelMatcher {
    // A time that was parsed has a year of four digits, and so a form.
    let expires = fault.expires.format(&Rfc3339).unwrap_or_default();
    CelMatcher::of(call("_<_", [field("request", "time"), call("timestamp", [text(&expires)])]))
}

fn settings(fault: &Fault) -> HttpFault {
    let Fault { delay, abort, expires: _ } = fault;
    HttpFault {
        delay: delay.map(|Delay { time, percent: share }| FaultDelay {
            fault_delay_secifier: Some(FaultDelaySecifier::FixedDelay(duration(time))),
            percentage: Some(percent(share)),
        }),
        abort: abort.map(|Abort { status, percent: share }| FaultAbort {
            error_type: Some(ErrorType::HttpStatus(status.into())),
            percentage: Some(percent(share)),
            ..FaultAbort::default()
        }),
        ..HttpFault::default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use time::macros::datetime;

    use super::*;
    use crate::translate::testing::snapshot;

    fn fault() -> Fault {
        Fault {
            delay: Some(Delay { time: Duration::from_millis(1500), percent: 10 }),
            abort: Some(Abort { status: 503, percent: 1 }),
            expires: datetime!(2026-12-01 12:00 UTC),
        }
    }

    #[test]
    fn what_happens_until_when() {
        insta::assert_snapshot!(snapshot(&settings(&fault())));
        insta::assert_snapshot!(snapshot(&until(&fault())));
        insta::assert_snapshot!(snapshot(&still(&fault())));
    }
}
