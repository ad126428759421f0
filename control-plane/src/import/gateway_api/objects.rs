//! The documents of a source as objects of Kubernetes: what each is, what it is called, when it was made.

use std::fmt;

use serde_json::Value;

use crate::import::fields::{Fields, Node, Place, Report};

/// The group of the Gateway API.
pub(super) const GATEWAY: &str = "gateway.networking.k8s.io";

/// Where an object is that does not say so.
const DEFAULT_NAMESPACE: &str = "default";

/// How deeply lists of objects may hold lists.
const MAX_LISTS: usize = 4;

/// What Kubernetes writes for itself.
const BOOKKEEPING: [&str; 9] = [
    "uid",
    "resourceVersion",
    "generation",
    "selfLink",
    "managedFields",
    "ownerReferences",
    "finalizers",
    "generateName",
    "deletionTimestamp",
];

/// The text of the object before, which `kubectl apply` leaves in each.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What an object is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ObjectName {
    /// The namespace.
    pub(super) namespace: String,
    /// The name in it.
    pub(super) name: String,
}

impl ObjectName {
    /// As the name of a resource: with the namespace, unless that is the one that everybody has.
    pub(super) fn wanted(&self) -> String {
        match self.namespace.as_str() {
            DEFAULT_NAMESPACE => self.name.clone(),
            namespace => format!("{namespace}-{}", self.name),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One object.
#[derive(Debug)]
pub(super) struct Object<'a> {
    /// `HTTPRoute`
    pub(super) kind: &'a str,
    /// Its name.
    pub(super) name: ObjectName,
    /// When it was made, in RFC 3339; the end of all times if it is not known.
    pub(super) created: String,
    /// Its labels.
    pub(super) labels: Vec<(String, String)>,
    /// Everything else in it.
    pub(super) fields: Fields<'a>,
}

/// All objects of the documents, lists of them unpacked.
pub(super) fn objects<'a>(documents: &'a [Value], report: &'a Report) -> Vec<Object<'a>> {
    let mut found = Vec::new();
    for (index, value) in documents.iter().enumerate() {
        add(Node { value, place: Place::root(report, index) }, &mut found, MAX_LISTS);
    }
    found
}

fn add<'a>(node: Node<'a>, found: &mut Vec<Object<'a>>, lists: usize) {
    let Some(mut fields) = node.object() else { return };
    let version = fields.text("apiVersion").unwrap_or_default();
    let kind = fields.text("kind").unwrap_or_default();
    if kind == "List" && lists > 0 {
        fields.pass_over(&["metadata"]);
        for item in fields.items("items") {
            add(item, found, lists - 1);
        }
        return;
    }
    let mut created = None;
    let mut labels = Vec::new();
    let mut name = ObjectName { namespace: DEFAULT_NAMESPACE.to_owned(), name: String::new() };
    if let Some(mut metadata) = fields.object("metadata") {
        name.name = metadata.text("name").unwrap_or_default().to_owned();
        if let Some(namespace) = metadata.text("namespace") {
            name.namespace = namespace.to_owned();
        }
        created = metadata.text("creationTimestamp");
        for (key, value) in metadata.object("labels").map(|mut labels| labels.rest()).unwrap_or_default() {
            labels.extend(value.text().map(|value| (key.to_owned(), value.to_owned())));
        }
        metadata.pass_over(&BOOKKEEPING);
        if let Some(mut annotations) = metadata.object("annotations") {
            annotations.pass_over(&[LAST_APPLIED]);
            let place = annotations.place.of(&format!("{kind} {name}"));
            for (key, _) in annotations.rest() {
                place.at(key).lacks("is for a controller that is not here", "say by a resource what it stands for");
            }
        }
    }
    fields.place = fields.place.of(&format!("{kind} {name}"));
    fields.pass_over(&["status"]);
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let known = match kind {
        "GatewayClass" => {
            // Who serves gateways: here, the control plane.
            fields.rest();
            return;
        }
        "Gateway" | "HTTPRoute" | "GRPCRoute" | "TLSRoute" | "TCPRoute" | "ReferenceGrant" | "BackendTLSPolicy" => {
            group == GATEWAY
        }
        "Service" | "Namespace" | "ConfigMap" => group.is_empty(),
        "EndpointSlice" => group == "discovery.k8s.io",
        _ => false,
    };
    if known && !name.name.is_empty() {
        let created = created.unwrap_or("~").to_owned();
        found.push(Object { kind, name, created, labels, fields });
        return;
    }
    let place = fields.place.clone();
    fields.rest();
    if known {
        place.lacks("has no name in its metadata", "give it one");
    } else if group == GATEWAY || kind.ends_with("Route") {
        place.lacks("is a kind that is not read", "carry what is not HTTP by an EnvoyPatch with a whole Listener");
    } else {
        place.lacks("is not part of the Gateway API", "leave it where it is: it is not needed here");
    }
}
