//! `RateLimitRequest` and `RateLimitResponse` in protobuf's JSON mapping, as far as they are used here.
//!
//! Field names in both cases, 64-bit numbers as text, enums by name or number, null for absent; unknown fields are
//! refused. Written out by hand: the messages have a dozen fields, and a general mapping needs their descriptors.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use super::problem::Problem;
use crate::model::{
    descriptor::{Descriptor, Entry, Hits, Override, Request},
    limit::Unit,
    verdict::{Status, Verdict},
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RequestDto {
    domain: Option<String>,
    descriptors: Option<Vec<DescriptorDto>>,
    #[serde(alias = "hitsAddend")]
    hits_addend: Option<Number>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DescriptorDto {
    entries: Option<Vec<EntryDto>>,
    limit: Option<OverrideDto>,
    #[serde(alias = "hitsAddend")]
    hits_addend: Option<Number>,
    #[serde(alias = "isNegativeHits")]
    is_negative_hits: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryDto {
    key: Option<String>,
    value: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OverrideDto {
    #[serde(alias = "requestsPerUnit")]
    requests_per_unit: Option<Number>,
    unit: Option<UnitDto>,
}

/// A number as protobuf's JSON has it: bare or in quotes.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Number {
    Whole(u64),
    Float(f64),
    Text(String),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum UnitDto {
    Number(i32),
    Name(String),
}

impl RequestDto {
    /// Reads a body.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Problem> {
        let mut reader = serde_json::Deserializer::from_slice(body);
        let request = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let path = error.path().to_string();
            let place = if path == "." { String::new() } else { format!("{path}: ") };
            Problem::bad_request(format!("{place}{}", error.inner()))
        })?;
        reader.end().map_err(|error| Problem::bad_request(error.to_string()))?;
        Ok(request)
    }

    /// A question in a query: descriptors of entries.
    pub(super) fn of(domain: String, descriptors: Vec<Vec<(String, String)>>, hits: Option<u64>) -> Self {
        let entry = |(key, value)| EntryDto { key: Some(key), value: Some(value) };
        let descriptor = |entries: Vec<(String, String)>| DescriptorDto {
            entries: Some(entries.into_iter().map(entry).collect()),
            limit: None,
            hits_addend: hits.map(Number::Whole),
            is_negative_hits: None,
        };
        let descriptors = descriptors.into_iter().map(descriptor).collect();
        Self { domain: Some(domain), descriptors: Some(descriptors), hits_addend: None }
    }

    /// The request that it is.
    pub(super) fn request(&self) -> Result<Request<'_>, Problem> {
        let every = match narrow(self.hits_addend.as_ref(), "hitsAddend")? {
            0 => 1,
            hits => u64::from(hits),
        };
        let descriptors = self.descriptors.iter().flatten().enumerate();
        let descriptors = descriptors.map(|(index, descriptor)| {
            let read = descriptor.read(every);
            read.map_err(|reason| Problem::bad_request(format!("descriptors[{index}].{reason}")))
        });
        let domain = self.domain.as_deref().unwrap_or_default();
        Ok(Request { domain, descriptors: descriptors.collect::<Result<_, _>>()? })
    }
}

impl DescriptorDto {
    /// `every` is how much each descriptor counts that does not say it.
    fn read(&self, every: u64) -> Result<Descriptor<'_>, String> {
        let hits = self.hits_addend.as_ref().map(|hits| hits.read().map_err(|reason| format!("hitsAddend: {reason}")));
        let hits = hits.transpose()?.unwrap_or(every);
        let hits = if self.is_negative_hits == Some(true) { Hits::GiveBack(hits) } else { Hits::Take(hits) };
        let entries = self.entries.iter().flatten().map(|entry| Entry {
            key: entry.key.as_deref().unwrap_or_default(),
            value: entry.value.as_deref().unwrap_or_default(),
        });
        let limit = self.limit.as_ref().map(OverrideDto::read).transpose()?;
        Ok(Descriptor { entries: entries.collect(), hits, limit })
    }
}

impl OverrideDto {
    fn read(&self) -> Result<Override, String> {
        let requests = self.requests_per_unit.as_ref().map_or(Ok(0), Number::read);
        let requests = requests.and_then(|requests| u32::try_from(requests).map_err(|_| out_of_range(u32::MAX.into())));
        let requests = requests.map_err(|reason| format!("limit.requestsPerUnit: {reason}"))?;
        let unit = match &self.unit {
            Some(UnitDto::Name(name)) => Unit::ALL.into_iter().find(|unit| unit.name().to_ascii_uppercase() == *name),
            // The numbers of envoy.type.v3.RateLimitUnit.
            Some(UnitDto::Number(number)) => match number {
                1 => Some(Unit::Second),
                2 => Some(Unit::Minute),
                3 => Some(Unit::Hour),
                4 => Some(Unit::Day),
                5 => Some(Unit::Month),
                6 => Some(Unit::Year),
                7 => Some(Unit::Week),
                _ => None,
            },
            None => None,
        };
        let unit = unit.ok_or("limit.unit: must be SECOND, MINUTE, HOUR, DAY, WEEK, MONTH or YEAR")?;
        Ok(Override { requests, unit })
    }
}

impl Number {
    fn read(&self) -> Result<u64, String> {
        match self {
            Self::Whole(number) => Ok(*number),
            // Beyond 2^53 a float is not exact; no one means it so.
            Self::Float(number) if (0.0..=9_007_199_254_740_992.0).contains(number) && number.fract() == 0.0 => {
                Ok(*number as u64)
            }
            Self::Float(_) => Err("must be a whole number, not below zero".to_owned()),
            Self::Text(text) => text.parse().map_err(|_| out_of_range(u64::MAX)),
        }
    }
}

fn narrow(number: Option<&Number>, field: &str) -> Result<u32, Problem> {
    let number = number.map_or(Ok(0), Number::read);
    let narrow = number.and_then(|number| u32::try_from(number).map_err(|_| out_of_range(u32::MAX.into())));
    narrow.map_err(|reason| Problem::bad_request(format!("{field}: {reason}")))
}

fn out_of_range(most: u64) -> String {
    format!("must be a whole number from 0 to {most}")
}

/// The answer; fields of their default value are left out, as protobuf does.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ResponseDto<'v> {
    overall_code: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    statuses: Vec<StatusDto<'v>>,
    /// Base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    raw_body: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusDto<'v> {
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_limit: Option<LimitDto<'v>>,
    #[serde(skip_serializing_if = "is_zero")]
    limit_remaining: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_until_reset: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LimitDto<'v> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'v str,
    #[serde(skip_serializing_if = "is_zero")]
    requests_per_unit: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl<'v> ResponseDto<'v> {
    pub(super) fn new(verdict: &'v Verdict) -> Self {
        let raw_body = verdict.body.as_ref().filter(|_| !verdict.admitted).map(|body| BASE64_STANDARD.encode(body));
        let statuses = verdict.statuses.iter().map(StatusDto::new).collect();
        Self { overall_code: code(verdict.admitted), statuses, raw_body }
    }
}

impl<'v> StatusDto<'v> {
    fn new(status: &'v Status) -> Self {
        let name = status.rule.as_ref().map_or("", |rule| rule.name.as_str());
        let current_limit = status.limit.map(|limit| LimitDto {
            name,
            requests_per_unit: limit.requests(),
            unit: limit.unit().map(|unit| unit.name().to_ascii_uppercase()),
        });
        Self {
            code: code(status.admitted),
            current_limit,
            limit_remaining: u32::try_from(status.remaining).unwrap_or(u32::MAX),
            duration_until_reset: status.limit.map(|_| format!("{}s", whole_seconds(status))),
        }
    }
}

fn code(admitted: bool) -> &'static str {
    if admitted { "OK" } else { "OVER_LIMIT" }
}

/// Seconds until a request that was refused may be admitted; as over gRPC, whole ones, rounded up.
pub(super) fn retry_after(verdict: &Verdict) -> Option<u64> {
    verdict.statuses.iter().filter(|status| !status.admitted).map(whole_seconds).max()
}

fn whole_seconds(status: &Status) -> u64 {
    status.reset.as_secs() + u64::from(status.reset.subsec_nanos() > 0)
}
