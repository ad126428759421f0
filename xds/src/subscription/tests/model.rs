//! Models of clients that keep to the protocol.

use std::collections::{BTreeMap, BTreeSet};

use chancery_proto::{
    envoy::discovery::{DeltaDiscoveryRequest, DiscoveryRequest},
    google::rpc::Status,
};

use super::*;
use crate::{
    cache::Table,
    subscription::{
        delta::{Delta, DeltaReply},
        sotw::{Sotw, SotwReply},
    },
};

pub(super) const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// How a client changes its mind.
#[derive(Clone, Copy, Debug)]
pub(super) enum Want {
    Name(usize),
    NoName(usize),
    All,
    NotAll,
}

/// What a client is interested in.
#[derive(Debug, Default)]
pub(super) struct Wants {
    all: bool,
    names: BTreeSet<String>,
}

impl Wants {
    fn covers(&self, name: &str) -> bool {
        self.all || self.names.contains(name)
    }

    fn list(&self) -> Vec<String> {
        self.all.then(|| "*".to_owned()).into_iter().chain(self.names.iter().cloned()).collect()
    }
}

/// A client that keeps to the protocol.
pub(super) trait Client {
    type Variant: Subscription<Reply: Debug>;

    fn new(rules: TypeRules) -> Self;

    /// The first request on a new stream; none as long as it wants nothing.
    fn open(&mut self) -> Option<<Self::Variant as Subscription>::Request>;

    /// Changes its mind.
    fn want(&mut self, want: Want) -> Option<<Self::Variant as Subscription>::Request>;

    /// Applies a response, or refuses to, and answers.
    fn read(
        &mut self,
        sent: &Sent,
        reply: &<Self::Variant as Subscription>::Reply,
        accept: bool,
    ) -> <Self::Variant as Subscription>::Request;

    /// Refuses a response it has long answered.
    fn repeat(&self, nonce: &str) -> <Self::Variant as Subscription>::Request;

    /// Names that it refused, and was not told of again since.
    fn refused(&self) -> BTreeSet<String>;

    /// Names of which it has something else than it should.
    fn wrong(&self, table: &Table) -> BTreeSet<String>;
}

type Held = BTreeMap<String, String>;

fn error() -> Option<Status> {
    Some(Status { message: "no".into(), ..Status::default() })
}

pub(super) struct DeltaClient {
    rules: TypeRules,
    wants: Wants,
    held: Held,
    refused: BTreeSet<String>,
    open: bool,
}

impl DeltaClient {
    fn request(&mut self, subscribe: &[&str], unsubscribe: &[&str]) -> Option<DeltaDiscoveryRequest> {
        if !self.open {
            return self.open();
        }
        Some(DeltaDiscoveryRequest {
            resource_names_subscribe: strings(subscribe),
            resource_names_unsubscribe: strings(unsubscribe),
            ..DeltaDiscoveryRequest::default()
        })
    }
}

impl Client for DeltaClient {
    type Variant = Delta;

    fn new(rules: TypeRules) -> Self {
        Self { rules, wants: Wants::default(), held: Held::new(), refused: BTreeSet::new(), open: false }
    }

    fn open(&mut self) -> Option<DeltaDiscoveryRequest> {
        let mut names = self.wants.list();
        self.open = !names.is_empty();
        if self.rules.full_state && names == ["*"] {
            names.clear(); // the legacy wildcard
        }
        self.open.then(|| DeltaDiscoveryRequest {
            resource_names_subscribe: names,
            initial_resource_versions: self.held.clone().into_iter().collect(),
            ..DeltaDiscoveryRequest::default()
        })
    }

    fn want(&mut self, want: Want) -> Option<DeltaDiscoveryRequest> {
        match want {
            // It drops what it holds, and so must be told again: whoever asks is answered.
            Want::Name(name) => {
                self.held.remove(NAMES[name]);
                self.wants.names.insert(NAMES[name].into());
                self.request(&[NAMES[name]], &[])
            }
            Want::NoName(name) if self.wants.names.remove(NAMES[name]) => {
                self.held.remove(NAMES[name]);
                self.open.then(|| self.request(&[], &[NAMES[name]])).flatten()
            }
            Want::All if !self.wants.all => {
                self.wants.all = true;
                self.request(&["*"], &[])
            }
            Want::NotAll if self.wants.all => {
                self.wants.all = false;
                self.held.retain(|name, _| self.wants.names.contains(name));
                self.open.then(|| self.request(&[], &["*"])).flatten()
            }
            // A phantom.
            Want::NoName(name) => self.open.then(|| self.request(&[], &[NAMES[name]])).flatten(),
            Want::All | Want::NotAll => None,
        }
    }

    fn read(&mut self, sent: &Sent, reply: &DeltaReply, accept: bool) -> DeltaDiscoveryRequest {
        let mut request = DeltaDiscoveryRequest { response_nonce: sent.nonce.to_string(), ..Default::default() };
        let names = strings(reply.upserts.iter().map(Resource::name)).into_iter().chain(strings(&reply.removed));
        let names: Vec<String> = names.collect();
        let distinct: BTreeSet<&String> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "a name stands twice in a response: {names:?}");
        if !accept {
            self.refused.extend(names);
            request.error_detail = error();
            return request;
        }
        for name in &names {
            self.refused.remove(name);
        }
        for resource in reply.upserts.iter().filter(|resource| self.wants.covers(resource.name())) {
            self.held.insert(resource.name().to_string(), resource.version().to_string());
        }
        for name in &reply.removed {
            self.held.remove(&**name);
        }
        request
    }

    fn repeat(&self, nonce: &str) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest { response_nonce: nonce.into(), error_detail: error(), ..Default::default() }
    }

    fn refused(&self) -> BTreeSet<String> {
        self.refused.clone()
    }

    fn wrong(&self, table: &Table) -> BTreeSet<String> {
        let should = |name: &str| {
            let resource = table.resource(name).filter(|_| self.wants.covers(name));
            resource.map(|resource| resource.version().to_string())
        };
        strings(NAMES.into_iter().filter(|name| self.held.get(*name).cloned() != should(name))).into_iter().collect()
    }
}

pub(super) struct SotwClient {
    rules: TypeRules,
    wants: Wants,
    held: Held,
    refused: BTreeSet<String>,
    open: bool,
    nonce: String,
    version: String,
}

impl SotwClient {
    fn request(&self) -> DiscoveryRequest {
        DiscoveryRequest {
            version_info: self.version.clone(),
            response_nonce: self.nonce.clone(),
            resource_names: self.wants.list(),
            ..DiscoveryRequest::default()
        }
    }
}

impl Client for SotwClient {
    type Variant = Sotw;

    fn new(rules: TypeRules) -> Self {
        Self {
            rules,
            wants: Wants::default(),
            held: Held::new(),
            refused: BTreeSet::new(),
            open: false,
            nonce: String::new(),
            version: String::new(),
        }
    }

    fn open(&mut self) -> Option<DiscoveryRequest> {
        self.nonce.clear();
        self.open = !self.wants.list().is_empty();
        self.open.then(|| self.request())
    }

    fn want(&mut self, want: Want) -> Option<DiscoveryRequest> {
        let before = self.wants.list();
        match want {
            Want::Name(name) => {
                self.wants.names.insert(NAMES[name].into());
            }
            Want::NoName(name) => {
                self.wants.names.remove(NAMES[name]);
            }
            Want::All => self.wants.all = true,
            Want::NotAll => self.wants.all = false,
        }
        match self.wants.list() {
            now if now == before => None,
            _ if !self.open => self.open(),
            _ => Some(self.request()),
        }
    }

    fn read(&mut self, sent: &Sent, reply: &SotwReply, accept: bool) -> DiscoveryRequest {
        self.nonce = sent.nonce.to_string();
        let resources = reply.resources.iter().map(|r| (r.name().to_string(), r.version().to_string()));
        let resources: Held = resources.collect();
        assert_eq!(resources.len(), reply.resources.len(), "a name stands twice in a response");
        if !accept {
            // What is absent was refused with it.
            let all = if self.rules.full_state { strings(NAMES) } else { resources.into_keys().collect() };
            self.refused.extend(all);
            return DiscoveryRequest { error_detail: error(), ..self.request() };
        }
        self.version = sent.version.to_string();
        if self.rules.full_state {
            self.refused.clear();
            self.held = resources;
        } else {
            // It may want some of them no more, or again, in a request that crosses this response and will
            // be dropped as stale. So it keeps them all.
            self.refused.retain(|name| !resources.contains_key(name));
            self.held.extend(resources);
        }
        self.request()
    }

    fn repeat(&self, nonce: &str) -> DiscoveryRequest {
        let request = self.request();
        if nonce == self.nonce {
            request
        } else {
            DiscoveryRequest { response_nonce: nonce.into(), error_detail: error(), ..request }
        }
    }

    fn refused(&self) -> BTreeSet<String> {
        self.refused.clone()
    }

    fn wrong(&self, table: &Table) -> BTreeSet<String> {
        let wrong = |name: &&str| {
            let has = self.held.get(*name);
            match table.resource(name).filter(|_| self.wants.covers(name)) {
                Some(resource) => has != Some(&resource.version().to_string()),
                // Only where absence deletes can it know that there is none.
                None => self.rules.full_state && self.wants.covers(name) && has.is_some(),
            }
        };
        strings(NAMES.iter().filter(|name| wrong(name))).into_iter().collect()
    }
}
