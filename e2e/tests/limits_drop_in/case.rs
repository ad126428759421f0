//! Random rules, and random requests that meet them. What the two services deliberately do not share is not made:
//! `_` in keys (there, key and value are joined by one), values that end in `*`, hits that are given back; and
//! beside limits that requests bring along shared cells and other limits on the same cell.

use chancery_proto::{
    envoy::{
        rate_limit_common::{
            RateLimitDescriptor,
            rate_limit_descriptor::{Entry, RateLimitOverride},
        },
        rls::RateLimitRequest,
    },
    google::protobuf::UInt64Value,
};
use rand::{
    Rng,
    rngs::StdRng,
    seq::{IndexedRandom, SliceRandom},
};
use serde_json::{Map, Value, json};

const KEYS: [&str; 4] = ["a", "b", "ab", "abc"];
const VALUES: [&str; 6] = ["", "x", "y", "xy", "xyz", "z"];

/// What a rule can have as key and value.
const PATTERNS: [(&str, &str); 14] = [
    ("a", ""),
    ("a", "x"),
    ("a", "xy"),
    ("a", "x*"),
    ("a", "xy*"),
    ("a", "*"),
    ("b", ""),
    ("b", "y"),
    ("b", "x*"),
    ("ab", ""),
    ("ab", "z"),
    ("ab", "*"),
    ("a*", ""),
    ("ab*", ""),
];

/// Mostly long ones, so that hardly any window ends during a test.
const UNITS: [&str; 11] = ["second", "minute", "hour", "hour", "day", "DAY", "week", "Week", "month", "year", "year"];

/// None of them between zero and the most hits of a request: that these never pass is remembered beyond the end of the
/// window, and what is refused so is not counted.
const LIMITS: [u32; 8] = [0, 5, 6, 7, 8, 9, 11, 14];

/// Units of the domains whose requests bring limits along, and their numbers there.
const BROUGHT_UNITS: [(&str, i32); 7] =
    [("second", 1), ("minute", 2), ("hour", 3), ("day", 4), ("month", 5), ("year", 6), ("week", 7)];

/// How many such a domain admits everywhere: a remembered refusal is not counted, which a larger limit would show.
const BROUGHT: u32 = 8;

/// The only unit of a domain whose requests bring limits along.
type Brought = Option<(&'static str, i32)>;

const DEPTH: usize = 3;

/// A domain.
pub(crate) struct Case {
    pub(crate) domain: String,
    /// Its rules, as a file for either service: JSON is YAML.
    pub(crate) rules: Value,
    /// Whether requests bring limits along.
    brings: Brought,
}

impl Case {
    pub(crate) fn random(rng: &mut StdRng, number: usize) -> Self {
        let brings = if rng.random_bool(0.4) { BROUGHT_UNITS.choose(rng).copied() } else { None };
        let domain = format!("domain{number}");
        let rules = json!({ "domain": domain, "descriptors": descriptors(rng, brings, 1) });
        Self { domain, rules, brings }
    }

    /// A request, mostly of descriptors that a rule is for.
    pub(crate) fn request(&self, rng: &mut StdRng) -> RateLimitRequest {
        let count = *[1, 1, 1, 2, 2, 3, 5].choose(rng).unwrap();
        let domain = if rng.random_bool(0.02) { "elsewhere".to_owned() } else { self.domain.clone() };
        RateLimitRequest {
            domain,
            descriptors: (0..count).map(|_| self.descriptor(rng)).collect(),
            hits_addend: *[0, 0, 0, 0, 1, 2, 5].choose(rng).unwrap(),
        }
    }

    fn descriptor(&self, rng: &mut StdRng) -> RateLimitDescriptor {
        let mut entries = Vec::new();
        let mut below = &self.rules["descriptors"];
        while let Some(rule) = below.as_array().and_then(|rules| rules.choose(rng)) {
            let text = |field: &str| rule[field].as_str().unwrap_or_default();
            let any = *VALUES.choose(rng).unwrap();
            let value = match text("value") {
                "" => any.to_owned(),
                value if value.ends_with('*') => value.replace('*', any),
                value => value.to_owned(),
            };
            entries.push(Entry { key: text("key").trim_end_matches('*').to_owned(), value });
            if rng.random_bool(0.4) {
                break;
            }
            below = &rule["descriptors"];
        }
        if rng.random_bool(0.15) {
            let (key, value) = (KEYS.choose(rng).unwrap(), VALUES.choose(rng).unwrap());
            let entry = Entry { key: (*key).to_owned(), value: (*value).to_owned() };
            // Instead of the last, or as one more.
            entries.truncate(entries.len() - usize::from(!entries.is_empty() && rng.random_bool(0.5)));
            entries.push(entry);
        }
        let brought = self.brings.filter(|_| rng.random_bool(0.15));
        RateLimitDescriptor {
            entries,
            limit: brought.map(|(_, unit)| RateLimitOverride { requests_per_unit: BROUGHT, unit }),
            hits_addend: rng.random_bool(0.2).then(|| UInt64Value { value: rng.random_range(0..4) }),
            ..RateLimitDescriptor::default()
        }
    }
}

/// The rules of one level.
fn descriptors(rng: &mut StdRng, brings: Brought, level: usize) -> Value {
    let mut patterns = PATTERNS;
    patterns.shuffle(rng);
    let count = rng.random_range(1..6);
    let rules = patterns[..count].iter().map(|(key, value)| {
        let mut rule = Map::from_iter([("key".to_owned(), json!(key))]);
        let mut set = |field: &str, value: Value| rule.insert(field.to_owned(), value);
        if !value.is_empty() {
            set("value", json!(value));
        }
        if rng.random_bool(0.8) {
            set("rate_limit", limit(rng, brings));
        }
        if level < DEPTH && rng.random_bool(0.5) {
            set("descriptors", descriptors(rng, brings, level + 1));
        }
        for flag in ["shadow_mode", "quota_mode", "detailed_metric", "value_to_metric"] {
            if rng.random_bool(0.15) {
                set(flag, json!(true));
            }
        }
        if brings.is_none() && [key, value].iter().any(|text| text.ends_with('*')) && rng.random_bool(0.5) {
            set("share_threshold", json!(true));
        }
        Value::Object(rule)
    });
    rules.collect()
}

fn limit(rng: &mut StdRng, brings: Brought) -> Value {
    let name = format!("limit{}", rng.random_range(0..5));
    let others: Vec<String> = (0..5).map(|other| format!("limit{other}")).filter(|other| *other != name).collect();
    let mut limit = match rng.random_bool(0.1) {
        true => json!({ "unlimited": true }),
        false => json!({
            "unit": brings.map_or_else(|| *UNITS.choose(rng).unwrap(), |(unit, _)| unit),
            "requests_per_unit": if brings.is_some() { BROUGHT } else { *LIMITS.choose(rng).unwrap() },
        }),
    };
    if rng.random_bool(0.7) {
        limit["name"] = json!(name);
    }
    if rng.random_bool(0.2) {
        let replaced = others.choose_multiple(rng, 2);
        limit["replaces"] = replaced.map(|name| json!({ "name": name })).collect();
    }
    limit
}
