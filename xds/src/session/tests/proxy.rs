//! A model of how Envoy takes its configuration, in either variant.
//!
//! What matters of it here: a cluster that is new or changed is *warming* until its endpoints have come; for a
//! changed one it does not ask for them again. While any is warming it neither acknowledges clusters nor asks for
//! them. It asks for listeners when it has clusters, for routes when it has listeners, and on a new stream for
//! everything at once. Clusters and listeners it takes one by one, and names those it rejects; a response with routes
//! it takes or rejects as a whole.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chancery_proto::{
    Message,
    envoy::discovery::{DeltaDiscoveryRequest, DiscoveryRequest},
    google::{protobuf::Any, rpc::Status},
    type_url,
};

use crate::{
    Resource,
    subscription::{
        Sent, Subscription,
        delta::{Delta, DeltaReply},
        sotw::{Sotw, SotwReply},
    },
};

/// What a client has of one type: name to version and body.
pub(super) type Held = BTreeMap<String, (String, String)>;

/// How a client of one variant words what it wants to say.
pub(super) trait Dialect: Subscription {
    /// Whether what a response does not have in it is deleted.
    const FULL: bool;

    /// The first request of a stream. `names` is `None` for all.
    fn open(names: Option<&BTreeSet<String>>, held: &Held, version: &str) -> Self::Request;

    /// A change of the names, or an answer, or both.
    fn say(nonce: &str, version: &str, before: &BTreeSet<String>, names: Option<&BTreeSet<String>>) -> Self::Request;

    /// What is said about an error.
    fn error(request: &mut Self::Request) -> &mut Option<Status>;

    /// The resources in a response.
    fn resources(reply: &Self::Reply) -> &[Resource];

    /// Applies a response, but for what is bad in it.
    fn apply(type_url: &str, reply: &Self::Reply, bad: &BTreeSet<String>, held: &mut Held) -> Vec<String>;

    /// The names in a response, and whether it has a resource for them.
    fn told(reply: &Self::Reply) -> Vec<(String, bool)>;
}

fn set(held: &mut Held, bad: &BTreeSet<String>, resource: &Resource) -> Option<String> {
    if bad.contains(&**resource.name()) {
        return None;
    }
    let body = Any::decode(resource.any_bytes()).unwrap().value;
    let entry = (resource.version().to_string(), String::from_utf8(body).unwrap());
    let name = resource.name().to_string();
    let changed = held.insert(name.clone(), entry.clone()) != Some(entry);
    changed.then_some(name)
}

impl Dialect for Delta {
    const FULL: bool = false;

    fn open(names: Option<&BTreeSet<String>>, held: &Held, _: &str) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            resource_names_subscribe: names.into_iter().flatten().cloned().collect(),
            initial_resource_versions: held
                .iter()
                .map(|(name, (version, _))| (name.clone(), version.clone()))
                .collect(),
            ..DeltaDiscoveryRequest::default()
        }
    }

    fn say(nonce: &str, _: &str, before: &BTreeSet<String>, names: Option<&BTreeSet<String>>) -> DeltaDiscoveryRequest {
        let none = BTreeSet::new();
        let names = names.unwrap_or(&none);
        DeltaDiscoveryRequest {
            response_nonce: nonce.into(),
            resource_names_subscribe: names.difference(before).cloned().collect(),
            resource_names_unsubscribe: before.difference(names).cloned().collect(),
            ..DeltaDiscoveryRequest::default()
        }
    }

    fn error(request: &mut DeltaDiscoveryRequest) -> &mut Option<Status> {
        &mut request.error_detail
    }

    fn resources(reply: &DeltaReply) -> &[Resource] {
        &reply.upserts
    }

    fn apply(_: &str, reply: &DeltaReply, bad: &BTreeSet<String>, held: &mut Held) -> Vec<String> {
        for name in &reply.removed {
            held.remove(&**name);
        }
        reply.upserts.iter().filter_map(|resource| set(held, bad, resource)).collect()
    }

    fn told(reply: &DeltaReply) -> Vec<(String, bool)> {
        let set = reply.upserts.iter().map(|resource| (resource.name().to_string(), true));
        set.chain(reply.removed.iter().map(|name| (name.to_string(), false))).collect()
    }
}

impl Dialect for Sotw {
    const FULL: bool = true;

    fn open(names: Option<&BTreeSet<String>>, _: &Held, version: &str) -> DiscoveryRequest {
        Self::say("", version, &BTreeSet::new(), names)
    }

    fn say(nonce: &str, version: &str, _: &BTreeSet<String>, names: Option<&BTreeSet<String>>) -> DiscoveryRequest {
        DiscoveryRequest {
            response_nonce: nonce.into(),
            version_info: version.into(),
            resource_names: names.into_iter().flatten().cloned().collect(),
            ..DiscoveryRequest::default()
        }
    }

    fn error(request: &mut DiscoveryRequest) -> &mut Option<Status> {
        &mut request.error_detail
    }

    fn resources(reply: &SotwReply) -> &[Resource] {
        &reply.resources
    }

    fn apply(type_url: &str, reply: &SotwReply, bad: &BTreeSet<String>, held: &mut Held) -> Vec<String> {
        if is_wildcard(type_url) {
            held.retain(|name, _| reply.resources.iter().any(|resource| **resource.name() == **name));
        }
        reply.resources.iter().filter_map(|resource| set(held, bad, resource)).collect()
    }

    fn told(reply: &SotwReply) -> Vec<(String, bool)> {
        reply.resources.iter().map(|resource| (resource.name().to_string(), true)).collect()
    }
}

#[derive(Debug, Default)]
struct Typed {
    asked: bool,
    names: BTreeSet<String>,
    nonce: String,
    version: String,
    held: Held,
    /// Whether it holds other than what the version says: some was only kept for a while, or some was rejected.
    lingering: bool,
}

/// An Envoy.
pub(super) struct Proxy<D: Dialect> {
    types: BTreeMap<&'static str, Typed>,
    /// Clusters that wait for their endpoints.
    warming: BTreeSet<String>,
    /// Clusters that are in use.
    active: BTreeSet<String>,
    /// Those of them that were told that there are no endpoints for them.
    empty: BTreeSet<String>,
    /// Whether clusters are to be acknowledged as soon as none is warming.
    withheld: bool,
    /// What is wrong with the last response of each type.
    errors: BTreeMap<&'static str, String>,
    /// How many responses it has rejected.
    pub(super) rejected: usize,
    pub(super) says: VecDeque<(&'static str, D::Request)>,
}

const TYPES: [&str; 4] = [type_url::CLUSTER, type_url::ENDPOINT, type_url::LISTENER, type_url::ROUTE];

impl<D: Dialect> Proxy<D> {
    pub(super) fn new() -> Self {
        let mut proxy = Self {
            types: TYPES.map(|type_url| (type_url, Typed::default())).into(),
            warming: BTreeSet::new(),
            active: BTreeSet::new(),
            empty: BTreeSet::new(),
            withheld: false,
            errors: BTreeMap::new(),
            rejected: 0,
            says: VecDeque::new(),
        };
        proxy.ask(type_url::CLUSTER);
        proxy
    }

    pub(super) fn held(&self, type_url: &str) -> &Held {
        &self.types[type_url].held
    }

    pub(super) fn has_asked(&self, type_url: &str) -> bool {
        self.types[type_url].asked
    }

    /// Whether it holds other clusters or listeners than the last versions say that it took.
    pub(super) fn is_lingering(&self) -> bool {
        self.types.iter().any(|(type_url, typed)| is_wildcard(type_url) && typed.lingering)
    }

    /// Routes that send to a cluster that is not in use.
    pub(super) fn broken(&self) -> Vec<(String, String)> {
        let routes =
            self.held(type_url::ROUTE).iter().filter(|(name, _)| self.held(type_url::LISTENER).contains_key(*name));
        let targets = routes.map(|(name, (_, body))| (name.clone(), target(body).to_owned()));
        targets.filter(|(_, cluster)| !self.active.contains(cluster) || self.empty.contains(cluster)).collect()
    }

    /// The stream broke; another is there.
    pub(super) fn reconnect(&mut self) {
        self.says.clear();
        self.errors.clear();
        self.withheld = false;
        let had: Vec<_> = TYPES.into_iter().filter(|type_url| self.types[type_url].asked).collect();
        for typed in self.types.values_mut() {
            typed.asked = false;
            typed.nonce.clear();
        }
        for type_url in had {
            if type_url != type_url::CLUSTER || self.warming.is_empty() {
                self.ask(type_url);
            }
        }
    }

    /// Reads a response, and rejects what is new in it under names that end in one of the digits `bad`.
    pub(super) fn read(&mut self, type_url: &'static str, sent: &Sent, reply: &D::Reply, bad: &str) {
        let Some(typed) = self.types.get_mut(type_url) else { return };
        let is_new = |resource: &&Resource| {
            typed.held.get(&**resource.name()).is_none_or(|(version, _)| *version != resource.version().to_string())
        };
        let names = D::resources(reply).iter().filter(is_new).map(|resource| resource.name().to_string());
        let mut bad: BTreeSet<String> = names.filter(|name| name.ends_with(|end| bad.contains(end))).collect();
        if type_url == type_url::ENDPOINT {
            bad.clear();
        }
        if !bad.is_empty() {
            self.rejected += 1;
            let words =
                if is_wildcard(type_url) { bad.iter().cloned().collect::<Vec<_>>().join(", ") } else { "bad".into() };
            self.errors.insert(type_url, words);
        }
        if !bad.is_empty() && !is_wildcard(type_url) {
            bad = D::resources(reply).iter().map(|resource| resource.name().to_string()).collect();
        }
        let changed = D::apply(type_url, reply, &bad, &mut typed.held);
        if !is_wildcard(type_url) {
            // It may have crossed a request that wants it no more.
            typed.held.retain(|name, _| typed.names.contains(name));
        }
        typed.nonce = sent.nonce.to_string();
        typed.lingering = !sent.complete || !bad.is_empty();
        if bad.is_empty() {
            typed.version = sent.version.to_string();
        }
        match type_url {
            type_url::CLUSTER => {
                self.warming.extend(changed);
                let held = &self.types[type_url].held;
                self.warming.retain(|name| held.contains_key(name));
                self.active.retain(|name| held.contains_key(name));
                self.withheld = true;
                self.follow(type_url::ENDPOINT, type_url::CLUSTER);
                self.answer_when_warm();
            }
            type_url::ENDPOINT => {
                // Anything said about a cluster's endpoints, even the same again, warms it.
                for (name, has_endpoints) in D::told(reply) {
                    if has_endpoints {
                        self.empty.remove(&name);
                    }
                    if self.warming.remove(&name) {
                        if !has_endpoints {
                            self.empty.insert(name.clone());
                        }
                        self.active.insert(name);
                    }
                }
                self.answer(type_url);
                self.answer_when_warm();
            }
            type_url::LISTENER => {
                self.answer(type_url);
                self.follow(type_url::ROUTE, type_url::LISTENER);
            }
            _ => self.answer(type_url),
        }
    }

    fn answer_when_warm(&mut self) {
        if !self.warming.is_empty() {
            return;
        }
        if std::mem::take(&mut self.withheld) {
            self.answer(type_url::CLUSTER);
        } else if !self.types[type_url::CLUSTER].asked {
            self.ask(type_url::CLUSTER);
        }
        if !self.types[type_url::LISTENER].asked {
            self.ask(type_url::LISTENER);
        }
    }

    /// Asks for what the resources of another type refer to: that of the same name.
    fn follow(&mut self, type_url: &'static str, other: &str) {
        let names: BTreeSet<String> = self.held(other).keys().cloned().collect();
        let Some(typed) = self.types.get_mut(type_url) else { return };
        let had = typed.held.len();
        typed.held.retain(|name, _| names.contains(name));
        if typed.held.len() < had {
            // An Envoy repeats the version, and if it loses its stream just when it has asked for one of these again, it is
            // taken to have it; nothing in the protocol tells the two apart.
            typed.version.clear();
        }
        let before = std::mem::replace(&mut typed.names, names);
        if before == typed.names {
            return;
        }
        if typed.asked {
            // An answer it is not: an answered nonce says nothing more.
            let request = D::say(&typed.nonce, &typed.version, &before, Some(&typed.names));
            self.says.push_back((type_url, request));
        } else {
            self.ask(type_url);
        }
    }

    fn ask(&mut self, type_url: &'static str) {
        let Some(typed) = self.types.get_mut(type_url) else { return };
        typed.asked = true;
        let names = (!is_wildcard(type_url)).then_some(&typed.names);
        self.says.push_back((type_url, D::open(names, &typed.held, &typed.version)));
    }

    fn answer(&mut self, type_url: &'static str) {
        let typed = &self.types[type_url];
        let names = (!is_wildcard(type_url)).then_some(&typed.names);
        let mut answer = D::say(&typed.nonce, &typed.version, &typed.names, names);
        let message = self.errors.remove(type_url);
        *D::error(&mut answer) = message.map(|message| Status { message, ..Status::default() });
        self.says.push_back((type_url, answer));
    }
}

fn is_wildcard(type_url: &str) -> bool {
    [type_url::CLUSTER, type_url::LISTENER].contains(&type_url)
}

/// A route to a cluster, with its name as protobuf would write it.
pub(super) fn route_to(cluster: &str) -> String {
    format!("{}{cluster}#", char::from(u8::try_from(cluster.len()).unwrap()))
}

/// The cluster that a route sends to.
fn target(body: &str) -> &str {
    body[1..].split('#').next().unwrap_or_default()
}
