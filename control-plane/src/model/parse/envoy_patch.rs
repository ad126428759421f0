//! What a patch's spec means.
//!
//! A whole resource is encoded and checked here, so that what Envoy would refuse is told by the path in the
//! document. What a merge leads to depends on the target, which only the translation knows.

use chancery_proto::{
    describe::{
        Violation, check,
        json::{self, MessagePath},
        types::Type,
    },
    type_url,
};
use serde_json::{Map, Value};

use super::{host, text};
use crate::model::{
    Name,
    envoy_patch::{EnvoyPatch, EnvoyResource, PatchChange},
    problem::{Problems, Quoted},
    wire::{EnvoyPatchSpec, PatchTargetKindSpec, PatchTargetSpec},
};

/// What the names of our own resources start with that are made from no document.
const OWN_NAMES: &str = "chancery";

// It may be changed though no service makes it.
pub(in crate::model) use chancery_proto::chancery::RATE_LIMITER_CLUSTER as RATE_LIMITER;

/// The longest name of a resource.
const MAX_NAME: usize = 320;

/// The types that can be added.
const ADDED: [&str; 7] = [
    type_url::CLUSTER,
    type_url::ENDPOINT,
    type_url::LISTENER,
    type_url::ROUTE,
    type_url::VIRTUAL_HOST,
    type_url::SECRET,
    type_url::RUNTIME,
];

pub(super) fn envoy_patch(name: Name, spec: &EnvoyPatchSpec, problems: &mut Problems) -> Option<EnvoyPatch> {
    let EnvoyPatchSpec { fleet, resource, target, path, merge } = spec;
    let fleet = problems.at("fleet").ok(text::name(fleet));
    let change = match (resource, target, merge) {
        (Some(resource), None, None) => {
            if path.is_some() {
                problems.at("path").report("goes with merge only");
            }
            added(resource, &mut problems.at("resource"))
        }
        (None, Some(target), Some(patch)) => {
            let target = self::target(target, &mut problems.at("target"));
            let path = path.as_deref().unwrap_or_default().parse::<MessagePath>();
            let path = problems.at("path").ok(path);
            target.zip(path).map(|(target, path)| PatchChange::Merge { target, path, patch: patch.clone() })
        }
        _ => {
            problems.report("needs either resource, or target and merge");
            None
        }
    };
    Some(EnvoyPatch { name, fleet: fleet?, change: change? })
}

fn added(resource: &Value, problems: &mut Problems) -> Option<PatchChange> {
    let Value::Object(object) = resource else {
        problems.report("must be an object");
        return None;
    };
    let mut fields = object.clone();
    let Some(Value::String(type_url)) = fields.remove("@type") else {
        problems.at("@type").report("is required");
        return None;
    };
    let Some((type_url, of)) = ADDED.iter().find(|known| **known == type_url).zip(Type::of_url(&type_url)) else {
        let known: Vec<&str> = ADDED.iter().map(|known| type_url::message_name(known)).collect();
        problems.at("@type").report(format!("{} cannot be added; known are {}", Quoted(&type_url), known.join(", ")));
        return None;
    };
    let named = resource_named(type_url, &fields, problems);
    let message = match json::encode(of, &Value::Object(fields)) {
        Ok(message) => message,
        Err(found) => {
            report(found, problems);
            return None;
        }
    };
    report(check(type_url, &message), problems);
    Some(PatchChange::Add { resource: named?, message })
}

fn report(found: Vec<Violation>, problems: &mut Problems) {
    for Violation { path, reason } in found {
        problems.at_path(&path).report(reason);
    }
}

fn resource_named(type_url: &str, fields: &Map<String, Value>, problems: &mut Problems) -> Option<EnvoyResource> {
    let spellings = if type_url == type_url::ENDPOINT { ["cluster_name", "clusterName"] } else { ["name", "name"] };
    let mut problems = problems.at(spellings[0]);
    let Some(name) = spellings.iter().find_map(|spelling| fields.get(*spelling)).and_then(Value::as_str) else {
        problems.report("is required");
        return None;
    };
    if name.is_empty() || name.len() > MAX_NAME || name.contains(char::is_control) {
        problems.report(format!("must have 1 to {MAX_NAME} bytes and no control characters"));
        return None;
    }
    if name.starts_with(OWN_NAMES) {
        problems.report(format!("{} starts with {OWN_NAMES}, which is taken", Quoted(name)));
        return None;
    }
    let own = name.to_owned();
    Some(match type_url {
        type_url::CLUSTER => EnvoyResource::Cluster(own),
        type_url::ENDPOINT => EnvoyResource::Endpoints(own),
        type_url::LISTENER => EnvoyResource::Listener(own),
        type_url::ROUTE => EnvoyResource::RouteConfiguration(own),
        type_url::SECRET => EnvoyResource::Secret(own),
        type_url::RUNTIME => EnvoyResource::Runtime(own),
        _ => problems.ok(virtual_host(name))?,
    })
}

fn target(spec: &PatchTargetSpec, problems: &mut Problems) -> Option<EnvoyResource> {
    let PatchTargetSpec { kind, name } = spec;
    let mut problems = problems.at("name");
    let ours = || name.parse::<Name>().map_err(|error| format!("{} is not a name: it {error}", Quoted(name)));
    let named = match kind {
        PatchTargetKindSpec::VirtualHost => virtual_host(name),
        PatchTargetKindSpec::Cluster if name == RATE_LIMITER => Ok(EnvoyResource::Cluster(name.clone())),
        PatchTargetKindSpec::Cluster => ours().map(|name| EnvoyResource::Cluster(name.to_string())),
        PatchTargetKindSpec::Endpoints => ours().map(|name| EnvoyResource::Endpoints(name.to_string())),
        PatchTargetKindSpec::Listener => ours().map(|name| EnvoyResource::Listener(name.to_string())),
    };
    problems.ok(named)
}

/// `listener/host`.
fn virtual_host(text: &str) -> Result<EnvoyResource, String> {
    let parts = text.split_once('/').and_then(|(listener, host)| Some((listener.parse().ok()?, host)));
    let (listener, pattern) =
        parts.ok_or_else(|| format!("{} is not a listener and a host, such as web/*", Quoted(text)))?;
    Ok(EnvoyResource::VirtualHost(listener, host::pattern(pattern)?))
}
