//! Routes about connections: TLSRoute by the name that clients ask for, TCPRoute for a whole port.
//!
//! There is nothing in a connection to choose a rule by, so each has one, and a host of a listener belongs to the oldest route that claims it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{backend::Making, objects::ObjectName};
use crate::{
    import::{draft, fields::Place},
    model::Kind,
};

/// A route about connections that is let in somewhere.
pub(super) struct Carried<'a> {
    pub(super) name: ObjectName,
    pub(super) created: String,
    /// `TLSRoute` or `TCPRoute`.
    pub(super) kind: &'a str,
    pub(super) place: Place<'a>,
    /// The hosts that it has, each with a listener.
    pub(super) hosts: BTreeSet<(String, String)>,
    /// What becomes of connections.
    pub(super) tcp: Value,
}

/// The documents of `routes`.
pub(super) fn documents(mut routes: Vec<Carried<'_>>, making: &mut Making<'_>) -> Vec<Value> {
    routes.sort_by(|a, b| (&a.created, &a.name, a.kind).cmp(&(&b.created, &b.name, b.kind)));
    let mut taken = BTreeSet::new();
    let mut documents = Vec::new();
    for Carried { name, place, hosts, tcp, .. } in routes {
        let mut by_listener: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (host, listener) in hosts {
            if taken.insert((host.clone(), listener.clone())) {
                by_listener.entry(listener).or_default().insert(host);
            } else {
                place.lacks(
                    format!("claims {host} of {listener}, which an older route has"),
                    "claim it once: a connection goes one way",
                );
            }
        }
        let mut by_hosts: BTreeMap<BTreeSet<String>, Vec<String>> = BTreeMap::new();
        for (listener, hosts) in by_listener {
            by_hosts.entry(hosts).or_default().push(listener);
        }
        for (hosts, listeners) in by_hosts {
            let spec = json!({ "listeners": listeners, "hosts": hosts, "tcp": tcp });
            let called = making.names.free(Kind::Route, &name.wanted());
            let document = draft::document(Kind::Route, &called, making.team, spec);
            match draft::refusals(&document).first() {
                None => documents.push(document),
                Some(refusal) => {
                    let reason = format!("makes a route that is refused: {}: {}", refusal.path, refusal.reason);
                    place.lacks(reason, "write the route by hand");
                }
            }
        }
    }
    documents
}
