//! What an answer says beyond its verdict: limits that report without deciding, and are exceeded.
//!
//! The field and its meaning are envoyproxy/ratelimit's: positions of the descriptors, for a filter or an access log
//! behind the rate-limit filter to act on.

use chancery_proto::google::protobuf::{ListValue, Struct, Value, value::Kind};

use crate::model::verdict::Verdict;

/// The field that lists the positions.
const VIOLATIONS: &str = "quotaModeViolations";

/// The dynamic metadata of an answer; `None` if there is nothing to report.
pub(super) fn of(verdict: &Verdict) -> Option<Struct> {
    if verdict.violations.is_empty() {
        return None;
    }
    let place = |&index: &usize| Value { kind: Some(Kind::NumberValue(index as f64)) };
    let values = verdict.violations.iter().map(place).collect();
    let list = Value { kind: Some(Kind::ListValue(ListValue { values })) };
    Some(Struct { fields: [(VIOLATIONS.to_owned(), list)].into() })
}
