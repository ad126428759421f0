//! What a document refers to, read without parsing it. Pure.
//!
//! A document that cannot be parsed is still checked for references to nothing, so that its author hears of them
//! in the same answer. What does not even look like a reference is left to the parser to complain about.

use serde_json::Value;

use super::{Document, Key, Kind, parse::RATE_LIMITER};

/// The resources that `document` refers to, each with the path of the reference.
pub(super) fn references(document: &Document) -> Vec<(String, Key)> {
    let spec = &document.spec;
    let mut found = Vec::new();
    let mut note = |path: String, kind: Kind, name: Option<&str>| {
        if let Some(name) = name.and_then(|name| name.parse().ok()) {
            found.push((path, Key::new(kind, name)));
        }
    };
    match document.kind {
        Kind::Fleet | Kind::Team | Kind::RateLimit => {}
        Kind::Service => {
            let fleet = &spec["tls"]["mesh"]["fleet"];
            note("spec.tls.mesh.fleet".to_owned(), Kind::Fleet, fleet.as_str());
        }
        Kind::EnvoyPatch => {
            note("spec.fleet".to_owned(), Kind::Fleet, spec["fleet"].as_str());
            let name = spec["target"]["name"].as_str().filter(|name| *name != RATE_LIMITER);
            let (kind, name) = match spec["target"]["kind"].as_str() {
                Some("Cluster" | "Endpoints") => (Kind::Service, name),
                Some("VirtualHost") => (Kind::Listener, name.and_then(|name| Some(name.split_once('/')?.0))),
                _ => (Kind::Listener, name),
            };
            note("spec.target.name".to_owned(), kind, name);
        }
        Kind::Listener => {
            note("spec.fleet".to_owned(), Kind::Fleet, spec["fleet"].as_str());
            let authorizer = spec["externalAuthorization"]["service"].as_str();
            note("spec.externalAuthorization.service".to_owned(), Kind::Service, authorizer);
            note("spec.tracing.service".to_owned(), Kind::Service, spec["tracing"]["service"].as_str());
            for (log, value) in list(&spec["accessLogs"]) {
                let path = format!("spec.accessLogs[{log}].to.service.name");
                note(path, Kind::Service, value["to"]["service"]["name"].as_str());
            }
        }
        Kind::Route => {
            for (index, place) in list(&spec["listeners"]) {
                let listener = place.as_str().and_then(|place| place.split_once('/')).map(|(_, listener)| listener);
                note(format!("spec.listeners[{index}]"), Kind::Listener, listener);
            }
            for (provider, value) in list(&spec["jwtProviders"]) {
                let path = format!("spec.jwtProviders[{provider}].keys.service");
                note(path, Kind::Service, value["keys"]["service"].as_str());
            }
            for (target, value) in list(&spec["tcp"]["to"]) {
                let path = format!("spec.tcp.to[{target}].service");
                note(path, Kind::Service, value["service"].as_str());
            }
            for (rule, value) in list(&spec["rules"]) {
                for (target, value) in list(&value["to"]) {
                    let path = format!("spec.rules[{rule}].to[{target}].service");
                    note(path, Kind::Service, value["service"].as_str());
                }
                let mirror = value["mirror"]["service"].as_str();
                note(format!("spec.rules[{rule}].mirror.service"), Kind::Service, mirror);
                for (limit, value) in list(&value["rateLimits"]) {
                    let path = format!("spec.rules[{rule}].rateLimits[{limit}]");
                    note(path, Kind::RateLimit, value.as_str());
                }
            }
        }
    }
    found
}

fn list(value: &Value) -> impl Iterator<Item = (usize, &Value)> {
    value.as_array().into_iter().flatten().enumerate()
}
