//! `rate_limit`: how much, per how long, and how it behaves.

use std::time::Duration;

use bytes::Bytes;

use super::{
    LIMIT, REPLACES, Reader,
    tree::{Node, Position},
    words,
};
use crate::model::{
    limit::{Algorithm, InvalidLimit, Limit, Unit},
    rule::{Amount, LimitSpec, Policy, WithoutRedis},
};

/// A value and where it stands.
type At<T> = Option<(T, Position)>;

/// What was said of the amount.
#[derive(Clone, Copy, Default)]
struct Said {
    unlimited: bool,
    requests: Option<u32>,
    unit: At<Unit>,
    per: At<Duration>,
    burst: At<u32>,
    algorithm: At<Algorithm>,
}

/// The limit at `node`; `None` when there is a problem, which has been reported.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node) -> Option<LimitSpec> {
    let before = reader.problems.found;
    let (mut said, mut name, mut replaces) = (Said::default(), String::new(), Vec::new());
    let (mut policy, mut body) = (Policy::default(), None);
    for entry in reader.entries(node, LIMIT) {
        reader.below(entry, |reader, value| {
            let at = value.at;
            match entry.key.as_str() {
                "unit" => said.unit = reader.word(value, unit).map(|unit| (unit, at)),
                "requests_per_unit" => said.requests = reader.plain(value, "a whole number", words::number),
                "unlimited" => said.unlimited = reader.flag(value),
                "name" => name = reader.text(value),
                "replaces" => replaces = reader.list(value, replaced),
                "per" => said.per = reader.word(value, words::duration).map(|per| (per, at)),
                "burst" => said.burst = reader.plain(value, "a whole number", words::number).map(|burst| (burst, at)),
                "algorithm" => said.algorithm = reader.word(value, algorithm).map(|algorithm| (algorithm, at)),
                "debt" => policy.debt = reader.flag(value),
                "strict" => policy.strict = reader.flag(value),
                "when_redis_is_down" => policy.without_redis = reader.word(value, without_redis).unwrap_or_default(),
                _ => body = Some(Bytes::from(reader.text(value))).filter(|body| !body.is_empty()),
            }
        });
    }
    let amount = (reader.problems.found == before).then(|| amount(reader, node, &said))??;
    Some(LimitSpec { amount, name, replaces, policy, body })
}

fn replaced(reader: &mut Reader<'_>, node: &Node) -> String {
    let mut name = String::new();
    for entry in reader.entries(node, REPLACES) {
        name = reader.below(entry, |reader, value| reader.text(value));
    }
    name
}

fn amount(reader: &mut Reader<'_>, node: &Node, said: &Said) -> Option<Amount> {
    let Said { unlimited, requests, unit, per, burst, algorithm } = *said;
    if unlimited {
        let places = [
            ("unit", unit.map(|(_, at)| at)),
            ("per", per.map(|(_, at)| at)),
            ("burst", burst.map(|(_, at)| at)),
            ("algorithm", algorithm.map(|(_, at)| at)),
        ];
        let places = places.into_iter().filter_map(|(key, at)| Some((key, at?)));
        let wrong =
            places.map(|(key, at)| complain(reader, key, at, "has no meaning where the limit is unlimited")).count();
        return (wrong == 0).then_some(Amount::Unlimited);
    }
    let requests = requests.or_else(|| {
        reader.problem(node.at, "requests_per_unit is missing: how many are admitted, 0 for none");
        None
    });
    let period = match (unit, per) {
        (Some((unit, _)), None) => Some(unit.duration()),
        (None, Some((per, _))) => Some(per),
        (Some(_), Some((_, at))) => {
            complain(reader, "per", at, "stands beside unit: give one of them");
            None
        }
        (None, None) => {
            reader.problem(node.at, &format!("unit is missing: {}", units()));
            None
        }
    };
    let counted = algorithm.map_or(reader.algorithm, |(algorithm, _)| algorithm);
    if let (Algorithm::FixedWindow, Some((_, at))) = (counted, burst) {
        complain(reader, "burst", at, "is for token buckets; a fixed window admits requests_per_unit at once");
        return None;
    }
    match Limit::new(requests?, period?, burst.map(|(burst, _)| burst), counted) {
        Ok(limit) => Some(Amount::Limited(limit)),
        Err(error) => {
            let (key, at) = match error {
                InvalidLimit::Period => ("per", per.map(|(_, at)| at)),
                InvalidLimit::Burst | InvalidLimit::Refill { .. } => ("burst", burst.map(|(_, at)| at)),
            };
            match at {
                Some(at) => complain(reader, key, at, &error.to_string()),
                None => reader.problem(node.at, &error.to_string()),
            }
            None
        }
    }
}

fn complain(reader: &mut Reader<'_>, key: &str, at: Position, reason: &str) {
    reader.within(&format!(".{key}"), |reader| reader.problem(at, reason));
}

fn unit(text: &str) -> Result<Unit, String> {
    let found = Unit::ALL.into_iter().find(|unit| unit.name().eq_ignore_ascii_case(text));
    found.ok_or_else(|| format!("{} is not a unit: {}", words::quoted(text), units()))
}

fn units() -> String {
    let names: Vec<&str> = Unit::ALL.iter().map(|unit| unit.name()).collect();
    format!("one of {}", names.join(", "))
}

fn algorithm(text: &str) -> Result<Algorithm, String> {
    words::choice(text, &[("token-bucket", Algorithm::TokenBucket), ("fixed-window", Algorithm::FixedWindow)])
}

fn without_redis(text: &str) -> Result<WithoutRedis, String> {
    words::choice(text, &[("local", WithoutRedis::Local), ("allow", WithoutRedis::Allow), ("deny", WithoutRedis::Deny)])
}
