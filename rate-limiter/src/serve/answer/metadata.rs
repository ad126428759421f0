//! What an answer says beyond its verdict: limits that report without deciding, and are exceeded.
//!
//! The field and its meaning are envoyproxy/ratelimit's: positions of the descriptors, for a filter or an access log
//! behind the rate-limit filter to act on.

use chancery_proto::google::protobuf::{ListValue, Struct, Value, value::Kind};

use crate::model::verdict::{Status, Verdict};

/// The field that lists the positions.
const VIOLATIONS: &str = "quotaModeViolations";

/// The dynamic metadata of an answer; `None` if there is nothing to report.
pub(super) fn of(verdict: &Verdict) -> Option<Struct> {
    let exceeded = verdict.statuses.iter().enumerate().filter(|(_, status)| exceeded(status));
    let values: Vec<Value> = exceeded.map(|(index, _)| Value { kind: Some(Kind::NumberValue(index as f64)) }).collect();
    if values.is_empty() {
        return None;
    }
    let list = Value { kind: Some(Kind::ListValue(ListValue { values })) };
    Some(Struct { fields: [(VIOLATIONS.to_owned(), list)].into() })
}

fn exceeded(status: &Status) -> bool {
    status.admitted && status.remaining == 0 && status.rule.as_ref().is_some_and(|rule| rule.quota)
}
