//! Which requests are traced, and to whom that is told.

use super::text;
use crate::model::{
    Name,
    access_log::Share,
    problem::Problems,
    tracing::{Sampling, Tag, TagValue, Tracing},
    wire::{SamplingSpec, TagSpec, TracingSpec},
};

/// The longest name, or value, of a tag.
const MAX_TEXT: usize = 256;

/// What is traced where nothing else is said.
const USUAL: Sampling = Sampling { random: Share::ONE_PERCENT, client: Share::NONE, overall: Share::ALL };

/// Of a listener of `fleet`, if that could be read.
pub(super) fn tracing(fleet: Option<&Name>, spec: &TracingSpec, problems: &mut Problems) -> Option<Tracing> {
    let TracingSpec { service, service_name, sampling, tags } = spec;
    let service = problems.at("service").ok(text::name(service));
    let service_name = match service_name {
        None => fleet.map(ToString::to_string),
        Some(name) => problems.at("serviceName").ok(said(name)),
    };
    let sampling = match sampling {
        None => Some(USUAL),
        Some(spec) => self::sampling(spec, &mut problems.at("sampling")),
    };
    let tags = {
        let mut problems = problems.at("tags");
        let tags = problems.each(tags.iter().flatten(), tag);
        for (index, tag) in tags.iter().flatten().enumerate() {
            if tags.iter().flatten().take(index).any(|earlier| earlier.name == tag.name) {
                problems.index(index).at("name").report("is that of another tag");
            }
        }
        tags
    };
    Some(Tracing { service: service?, service_name: service_name?, sampling: sampling?, tags: tags? })
}

/// What is not given is as USUAL.
pub(super) fn sampling(spec: &SamplingSpec, problems: &mut Problems) -> Option<Sampling> {
    let SamplingSpec { random, client, overall } = spec;
    let mut share = |field: &str, percent: &Option<f64>, usual| match percent {
        None => Some(usual),
        Some(percent) => problems.at(field).ok(text::share(*percent)),
    };
    let random = share("random", random, USUAL.random);
    let client = share("client", client, USUAL.client);
    let overall = share("overall", overall, USUAL.overall);
    Some(Sampling { random: random?, client: client?, overall: overall? })
}

fn tag(spec: &TagSpec, problems: &mut Problems) -> Option<Tag> {
    let TagSpec { name, literal, header, default } = spec;
    let name = problems.at("name").ok(said(name));
    if default.is_some() && header.is_none() {
        problems.at("default").report("goes with header only");
    }
    let mut given = Vec::new();
    if let Some(literal) = literal {
        given.push(problems.at("literal").ok(said(literal)).map(TagValue::Literal));
    }
    if let Some(header) = header {
        let name = problems.at("header").ok(text::header_name(header));
        let default = match default {
            None => Some(String::new()),
            Some(default) => problems.at("default").ok(said(default)),
        };
        given.push(name.zip(default).map(|(name, default)| TagValue::Header { name, default }));
    }
    let value = problems.only_one(given, "literal and header");
    Some(Tag { name: name?, value: value? })
}

fn said(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > MAX_TEXT || text.contains(char::is_control) {
        return Err(format!("must have 1 to {MAX_TEXT} bytes and no control characters"));
    }
    Ok(text.to_owned())
}
