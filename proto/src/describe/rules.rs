//! The rules of protoc-gen-validate, and what they say of a value, in the words of Envoy.
//!
//! Its C++ code decides, which Envoy runs, not the documentation: lengths are counted in characters, a pattern has to match
//! the whole text. Rules that this code does not implement (addresses, URIs) are used nowhere in Envoy; they are
//! decided here as documented, should that change.

use std::fmt::{self, Write as _};

use envoy_types::pb::validate::{
    AnyRules, BytesRules, EnumRules, FieldRules, KnownRegex, StringRules, bytes_rules, field_rules::Type as RuleType,
    string_rules::WellKnown,
};
use prost::Message as _;
use regex::Regex;

use super::{table::EnumValue, wire::Scalar};
use crate::google::protobuf::{Duration, Timestamp};

mod text;

/// What is demanded of a field, or of an entry of one.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// A message has to be there.
    pub(super) required: bool,
    /// The rules of the message itself are not looked at.
    pub(super) skip: bool,
    pub(super) rule: Option<Rule>,
    /// Why rules cannot be read; a test holds that this does not happen.
    pub(super) misread: Option<String>,
}

/// What is demanded of a value of one kind.
#[derive(Debug)]
pub(super) enum Rule {
    Integer(Bounds<i128>),
    Float(Bounds<f64>),
    Bool(bool),
    Text(Box<StringRules>, Option<Regex>),
    Bytes(Box<BytesRules>),
    Enum(EnumRules),
    Any(AnyRules),
    /// In nanoseconds.
    Time(Bounds<i128>),
    Repeated(Box<Repeated>),
    Map(Box<Map>),
}

#[derive(Debug)]
pub(super) struct Repeated {
    pub(super) size: Size,
    pub(super) unique: bool,
    pub(super) items: Rules,
}

#[derive(Debug)]
pub(super) struct Map {
    pub(super) size: Size,
    pub(super) keys: Rules,
    pub(super) values: Rules,
}

/// How many entries there may be.
#[derive(Debug)]
pub(super) struct Size {
    least: Option<u64>,
    most: Option<u64>,
    ignore_empty: bool,
}

/// Where a number may be.
#[derive(Debug)]
pub(super) struct Bounds<T> {
    constant: Option<T>,
    lt: Option<T>,
    lte: Option<T>,
    gt: Option<T>,
    gte: Option<T>,
    within: Vec<T>,
    not_within: Vec<T>,
    ignore_empty: bool,
}

/// The [`Bounds`] of one of the many kinds of number.
macro_rules! bounds {
    ($rules:expr) => {{
        let rules = $rules;
        Bounds {
            ignore_empty: rules.ignore_empty(),
            constant: rules.r#const.map(Into::into),
            lt: rules.lt.map(Into::into),
            lte: rules.lte.map(Into::into),
            gt: rules.gt.map(Into::into),
            gte: rules.gte.map(Into::into),
            within: rules.r#in.into_iter().map(Into::into).collect(),
            not_within: rules.not_in.into_iter().map(Into::into).collect(),
        }
    }};
}

impl Rules {
    pub(super) fn decode(bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            return Self::default();
        }
        match FieldRules::decode(bytes) {
            Ok(rules) => Self::of(rules),
            Err(error) => Self { misread: Some(error.to_string()), ..Self::default() },
        }
    }

    fn of(rules: FieldRules) -> Self {
        let message = rules.message.unwrap_or_default();
        let mut result = Self { required: message.required(), skip: message.skip(), ..Self::default() };
        result.rule = rules.r#type.map(|rule| match rule {
            RuleType::Float(rules) => Rule::Float(bounds!(rules)),
            RuleType::Double(rules) => Rule::Float(bounds!(rules)),
            RuleType::Int32(rules) => Rule::Integer(bounds!(rules)),
            RuleType::Int64(rules) => Rule::Integer(bounds!(rules)),
            RuleType::Uint32(rules) => Rule::Integer(bounds!(rules)),
            RuleType::Uint64(rules) => Rule::Integer(bounds!(rules)),
            RuleType::Sint32(rules) => Rule::Integer(bounds!(rules)),
            RuleType::Sint64(rules) => Rule::Integer(bounds!(rules)),
            RuleType::Fixed32(rules) => Rule::Integer(bounds!(rules)),
            RuleType::Fixed64(rules) => Rule::Integer(bounds!(rules)),
            RuleType::Sfixed32(rules) => Rule::Integer(bounds!(rules)),
            RuleType::Sfixed64(rules) => Rule::Integer(bounds!(rules)),
            RuleType::Bool(rules) => Rule::Bool(rules.r#const()),
            RuleType::String(rules) => {
                let pattern = rules.pattern.as_deref().map(|pattern| Regex::new(&format!("^(?:{pattern})$")));
                let pattern = pattern.transpose().unwrap_or_else(|error| {
                    result.misread = Some(error.to_string());
                    None
                });
                Rule::Text(Box::new(rules), pattern)
            }
            RuleType::Bytes(rules) => Rule::Bytes(Box::new(rules)),
            RuleType::Enum(rules) => Rule::Enum(rules),
            RuleType::Any(rules) => {
                result.required |= rules.required();
                Rule::Any(rules)
            }
            RuleType::Duration(rules) => {
                result.required |= rules.required();
                Rule::Time(Bounds {
                    constant: rules.r#const.map(nanoseconds),
                    lt: rules.lt.map(nanoseconds),
                    lte: rules.lte.map(nanoseconds),
                    gt: rules.gt.map(nanoseconds),
                    gte: rules.gte.map(nanoseconds),
                    within: rules.r#in.into_iter().map(nanoseconds).collect(),
                    not_within: rules.not_in.into_iter().map(nanoseconds).collect(),
                    ignore_empty: false,
                })
            }
            // What depends on the current time is left out: the verdict would change by itself.
            RuleType::Timestamp(rules) => {
                result.required |= rules.required();
                let instant = |at: Timestamp| nanoseconds(Duration { seconds: at.seconds, nanos: at.nanos });
                Rule::Time(Bounds {
                    constant: rules.r#const.map(instant),
                    lt: rules.lt.map(instant),
                    lte: rules.lte.map(instant),
                    gt: rules.gt.map(instant),
                    gte: rules.gte.map(instant),
                    within: Vec::new(),
                    not_within: Vec::new(),
                    ignore_empty: false,
                })
            }
            RuleType::Repeated(rules) => Rule::Repeated(Box::new(Repeated {
                size: Size { least: rules.min_items, most: rules.max_items, ignore_empty: rules.ignore_empty() },
                unique: rules.unique(),
                items: rules.items.map(|items| Self::of(*items)).unwrap_or_default(),
            })),
            RuleType::Map(rules) => Rule::Map(Box::new(Map {
                size: Size { least: rules.min_pairs, most: rules.max_pairs, ignore_empty: rules.ignore_empty() },
                keys: rules.keys.map(|keys| Self::of(*keys)).unwrap_or_default(),
                values: rules.values.map(|values| Self::of(*values)).unwrap_or_default(),
            })),
        });
        result
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        !self.required && !self.skip && self.rule.is_none()
    }

    /// What is wrong with a value, which is `values`' if it is of an enumeration.
    pub(super) fn scalar(&self, value: Scalar<'_>, values: &[EnumValue], report: &mut dyn FnMut(String)) {
        match (&self.rule, value) {
            (Some(Rule::Integer(bounds)), Scalar::Integer(value)) => {
                bounds.check(value, 0, &|value| value.to_string(), report);
            }
            (Some(Rule::Float(bounds)), Scalar::Float(value)) => {
                bounds.check(value, 0.0, &|value| value.to_string(), report);
            }
            (Some(Rule::Bool(constant)), Scalar::Bool(value)) if *constant != value => {
                report(format!("value must equal {constant}"));
            }
            (Some(Rule::Text(rules, pattern)), Scalar::Text(value)) => {
                text::check(rules, pattern.as_ref(), value, report);
            }
            (Some(Rule::Bytes(rules)), Scalar::Bytes(value)) => bytes(rules, value, report),
            (Some(Rule::Enum(rules)), Scalar::Integer(value)) => enumeration(rules, value, values, report),
            _ => {}
        }
    }

    /// What is wrong with a duration or a time.
    pub(super) fn time(&self, seconds: i128, nanos: i128, report: &mut dyn FnMut(String)) {
        if let Some(Rule::Time(bounds)) = &self.rule {
            let seconds_of = |value: i128| {
                let text = format!("{}.{:09}", value / 1_000_000_000, (value % 1_000_000_000).abs());
                format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
            };
            bounds.check(seconds * 1_000_000_000 + nanos, 0, &seconds_of, report);
        }
    }

    /// What is wrong with the type of an `Any`.
    pub(super) fn any(&self, type_url: &str, report: &mut dyn FnMut(String)) {
        let Some(Rule::Any(rules)) = &self.rule else { return };
        if !rules.r#in.is_empty() && !rules.r#in.iter().any(|known| known == type_url) {
            report(format!("type URL must be in list {:?}", rules.r#in));
        }
        if rules.not_in.iter().any(|other| other == type_url) {
            report(format!("type URL must not be in list {:?}", rules.not_in));
        }
    }
}

impl Size {
    /// `noun` is `item` or `pair`.
    pub(super) fn check(&self, found: usize, noun: &str, report: &mut dyn FnMut(String)) {
        let found = found as u64;
        if self.ignore_empty && found == 0 {
            return;
        }
        if self.least.is_some_and(|least| found < least) {
            report(format!("value must contain at least {} {noun}(s)", self.least.unwrap_or_default()));
        }
        if self.most.is_some_and(|most| found > most) {
            report(format!("value must contain no more than {} {noun}(s)", self.most.unwrap_or_default()));
        }
    }
}

impl<T: Copy + PartialOrd + fmt::Debug> Bounds<T> {
    fn check(&self, value: T, zero: T, show: &dyn Fn(T) -> String, report: &mut dyn FnMut(String)) {
        if self.ignore_empty && value == zero {
            return;
        }
        if let Some(constant) = self.constant
            && value != constant
        {
            report(format!("value must equal {}", show(constant)));
        }
        self.range(value, show, report);
        let list = |values: &[T]| {
            let mut text = String::new();
            for value in values {
                let separator = if text.is_empty() { "" } else { ", " };
                let _ = write!(text, "{separator}{}", show(*value));
            }
            text
        };
        if !self.within.is_empty() && !self.within.contains(&value) {
            report(format!("value must be in list [{}]", list(&self.within)));
        }
        if self.not_within.contains(&value) {
            report(format!("value must not be in list [{}]", list(&self.not_within)));
        }
    }

    /// A lower bound above the upper one means what is outside of both.
    fn range(&self, value: T, show: &dyn Fn(T) -> String, report: &mut dyn FnMut(String)) {
        let lower = self.gt.map(|bound| (bound, value > bound)).or(self.gte.map(|bound| (bound, value >= bound)));
        let upper = self.lt.map(|bound| (bound, value < bound)).or(self.lte.map(|bound| (bound, value <= bound)));
        let (opens, closes) = (if self.gt.is_some() { '(' } else { '[' }, if self.lt.is_some() { ')' } else { ']' });
        match (lower, upper) {
            (Some((from, above)), Some((to, below))) => {
                let (fine, side) = if from <= to { (above && below, "inside") } else { (above || below, "outside") };
                if !fine {
                    report(format!("value must be {side} range {opens}{}, {}{closes}", show(from), show(to)));
                }
            }
            (Some((from, false)), None) => {
                let or_equal = if self.gt.is_some() { "" } else { " or equal to" };
                report(format!("value must be greater than{or_equal} {}", show(from)));
            }
            (None, Some((to, false))) => {
                let or_equal = if self.lt.is_some() { "" } else { " or equal to" };
                report(format!("value must be less than{or_equal} {}", show(to)));
            }
            _ => {}
        }
    }
}

fn nanoseconds(duration: Duration) -> i128 {
    i128::from(duration.seconds) * 1_000_000_000 + i128::from(duration.nanos)
}

fn enumeration(rules: &EnumRules, value: i128, values: &[EnumValue], report: &mut dyn FnMut(String)) {
    let is = |number: i32| i128::from(number) == value;
    if rules.r#const.is_some_and(|constant| !is(constant)) {
        report(format!("value must equal {}", rules.r#const()));
    }
    if rules.defined_only() && !values.iter().any(|known| is(known.number)) {
        report("value must be one of the defined enum values".to_owned());
    }
    if !rules.r#in.is_empty() && !rules.r#in.iter().any(|known| is(*known)) {
        report(format!("value must be in list {:?}", rules.r#in));
    }
    if rules.not_in.iter().any(|other| is(*other)) {
        report(format!("value must not be in list {:?}", rules.not_in));
    }
}

fn bytes(rules: &BytesRules, value: &[u8], report: &mut dyn FnMut(String)) {
    if rules.ignore_empty() && value.is_empty() {
        return;
    }
    text::length(rules.len, rules.min_len, rules.max_len, value.len(), "bytes", report);
    let fails =
        |rule: &Option<Vec<u8>>, holds: &dyn Fn(&[u8]) -> bool| rule.as_deref().is_some_and(|rule| !holds(rule));
    let contains = |part: &[u8]| part.is_empty() || value.windows(part.len()).any(|window| window == part);
    for (failed, reason) in [
        (fails(&rules.r#const, &|constant| value == constant), "value must equal other bytes"),
        (fails(&rules.prefix, &|prefix| value.starts_with(prefix)), "value does not have the prefix"),
        (fails(&rules.suffix, &|suffix| value.ends_with(suffix)), "value does not have the suffix"),
        (fails(&rules.contains, &contains), "value does not contain the bytes"),
        (!rules.r#in.is_empty() && !rules.r#in.iter().any(|known| known == value), "value must be in list"),
        (rules.not_in.iter().any(|other| other == value), "value must not be in list"),
    ] {
        if failed {
            report(reason.to_owned());
        }
    }
    let lengths: &[usize] = match rules.well_known {
        Some(bytes_rules::WellKnown::Ip(true)) => &[4, 16],
        Some(bytes_rules::WellKnown::Ipv4(true)) => &[4],
        Some(bytes_rules::WellKnown::Ipv6(true)) => &[16],
        _ => return,
    };
    if !lengths.contains(&value.len()) {
        report("value must be a valid IP address".to_owned());
    }
}
