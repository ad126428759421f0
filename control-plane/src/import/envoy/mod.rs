//! Envoy's own static configuration: listeners with their routes, and clusters.
//!
//! A listener becomes a `Listener` with `Route`s, and a cluster a `Service`, only if what Chancery would tell Envoy then says all that
//! they say (`covered`). Otherwise they are carried as they are, as a whole `EnvoyPatch`, and what kept them from being more is listed.
//! A route sends to services alone, so a listener that sends to a cluster which is none is carried as it is, too.

mod cluster;
mod covered;
mod filters;
mod listener;
mod message;
mod rule;

use std::collections::{BTreeMap, BTreeSet};

use chancery_proto::type_url;
use serde_json::{Value, json};

use super::{
    Import,
    draft::{self, Names},
    fields::{Fields, Node, Place, Report},
};
use crate::model::{Kind, Name, Resource, fleet::Fleet};

/// How many listeners, or clusters, there may be.
const MAX_RESOURCES: usize = 10_000;

/// How an import is to be done.
#[derive(Clone, Debug)]
pub struct Options {
    /// The fleet that is to do what the configuration says. It is there already.
    pub fleet: Name,
    /// Who owns what is made.
    pub team: Option<Name>,
}

/// A resource of Envoy and where it stands.
struct Source<'a> {
    name: String,
    message: Value,
    place: Place<'a>,
}

/// Resources for the static configurations in `documents`.
pub fn import(documents: &[Value], options: &Options) -> Import {
    let report = Report::default();
    let (mut listeners, mut clusters) = (Vec::new(), Vec::new());
    for (index, value) in documents.iter().enumerate() {
        let root = Node { value, place: Place::root(&report, index) };
        if let Some(fields) = root.object() {
            configuration(fields, &mut listeners, &mut clusters);
        }
    }
    let fleet = draft::document(Kind::Fleet, options.fleet.as_str(), None, json!({}));
    let resources = match draft::resource(&fleet) {
        Some(Resource::Fleet(fleet)) => resources(&listeners, &clusters, &fleet, options.team.as_ref()),
        _ => Vec::new(),
    };
    Import { resources, unmatched: report.into_vec() }
}

fn configuration<'a>(mut fields: Fields<'a>, listeners: &mut Vec<Source<'a>>, clusters: &mut Vec<Source<'a>>) {
    fields.lacks("admin", "is a matter of the proxy's own start", "keep it in the bootstrap file");
    fields.lacks("node", "is a matter of the proxy's own start", "chancery bootstrap says who a proxy is");
    fields.lacks("dynamic_resources", "is where configuration comes from", "the control plane takes its place");
    let resources = fields.object("static_resources").or_else(|| fields.object("staticResources"));
    let Some(mut resources) = resources else {
        fields.place.lacks("has no static_resources", "import a file that has");
        return;
    };
    for (name, type_url, found) in
        [("listeners", type_url::LISTENER, &mut *listeners), ("clusters", type_url::CLUSTER, &mut *clusters)]
    {
        for node in resources.items(name) {
            let Some(source) = source(node, type_url) else { continue };
            if found.iter().any(|known| known.name == source.name) {
                source
                    .place
                    .lacks("has the name of another one", "give it a name of its own; until then it is left out");
            } else if found.len() == MAX_RESOURCES {
                source.place.lacks("is one of too many", "import fewer at once");
                break;
            } else {
                found.push(source);
            }
        }
    }
    resources.lacks("secrets", "is not read", "name files of the proxy, or write an EnvoyPatch with a Secret");
}

fn source<'a>(node: Node<'a>, type_url: &str) -> Option<Source<'a>> {
    match message::read(type_url, node.value) {
        Ok(message) => {
            let name = message::text(&message, "/name").unwrap_or_default().to_owned();
            Some(Source { name, message, place: node.place })
        }
        Err(violations) => {
            for violation in violations {
                node.place.below(&violation.path).lacks(violation.reason, "mend it; until then it is left out");
            }
            None
        }
    }
}

fn resources(listeners: &[Source<'_>], clusters: &[Source<'_>], fleet: &Fleet, team: Option<&Name>) -> Vec<Value> {
    let mut names = Names::default();
    // What each cluster is, and what each that is a service is called.
    let specs: BTreeMap<&str, _> =
        clusters.iter().map(|source| (source.name.as_str(), cluster::service(&source.message))).collect();
    let mut called: BTreeMap<&str, String> = BTreeMap::new();
    for source in clusters.iter().filter(|source| specs[source.name.as_str()].is_ok()) {
        called.entry(&source.name).or_insert_with(|| names.free(Kind::Service, &source.name));
    }
    let service = |name: &str| called.get(name).cloned();
    let (mut made, mut routes, mut carried) = (Vec::new(), Vec::new(), Vec::new());
    let mut used: BTreeSet<&str> = BTreeSet::new();
    for source in listeners {
        match listener::converted(&source.message, fleet, &service) {
            Ok(converted) => {
                let name = names.free(Kind::Listener, &source.name);
                used.extend(listener::clusters(&source.message));
                made.push(draft::document(Kind::Listener, &name, team, converted.listener));
                for (route, hosts, mut spec) in converted.routes {
                    spec["listeners"] = json!([format!("{}/{name}", fleet.name)]);
                    spec["hosts"] = hosts.into();
                    routes.push((source, draft::document(Kind::Route, &names.free(Kind::Route, &route), team, spec)));
                }
            }
            Err(paths) => carried.push((source, type_url::LISTENER, paths)),
        }
    }
    let listeners_are_carried = !carried.is_empty();
    for source in clusters {
        match &specs[source.name.as_str()] {
            Ok(spec) if used.contains(source.name.as_str()) => {
                let name = &called[source.name.as_str()];
                made.push(draft::document(Kind::Service, name, team, spec.clone()));
                // Who is carried as it is may ask for it by the name that it has there.
                if listeners_are_carried && *name != source.name {
                    carried.push((source, type_url::CLUSTER, Vec::new()));
                }
            }
            // A service that no route sends to is sent to nobody.
            Ok(_) => carried.push((source, type_url::CLUSTER, Vec::new())),
            Err(paths) => carried.push((source, type_url::CLUSTER, paths.clone())),
        }
    }
    for (source, route) in routes {
        match draft::refusals(&route).first() {
            None => made.push(route),
            Some(refusal) => {
                let reason = format!("makes a Route that is refused: {}: {}", refusal.path, refusal.reason);
                source.place.lacks(reason, "split its virtual hosts");
            }
        }
    }
    for (source, type_url, paths) in carried {
        let mut resource = json!({ "@type": type_url });
        if let (Some(resource), Some(message)) = (resource.as_object_mut(), source.message.as_object()) {
            resource.extend(message.clone());
        }
        let name = names.free(Kind::EnvoyPatch, &source.name);
        let spec = json!({ "fleet": fleet.name.as_str(), "resource": resource });
        let patch = draft::exact_document(Kind::EnvoyPatch, &name, team, spec);
        let refusals = draft::refusals(&patch);
        for refusal in &refusals {
            let path = refusal.path.trim_start_matches("spec.resource").trim_start_matches('.');
            source.place.below(path).lacks(refusal.reason.clone(), "mend it; until then it is left out");
        }
        if refusals.is_empty() {
            for path in paths {
                let instead = format!("nothing has to be done: all of it is carried as it is, by EnvoyPatch {name}");
                source.place.below(&path).lacks("is said by no resource but a patch", instead);
            }
            made.push(patch);
        }
    }
    made
}

#[cfg(test)]
mod tests;
