//! The resources that a server sent: which are in force. Pure.
//!
//! Every resource is judged by itself. One that is wrong is told to the server, its last good content stays in force, and the
//! others go on. Resources that refer to each other may come in any order: what is not there yet is missed only by the
//! request that needs it.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use chancery_proto::{
    Message,
    any::{pack_typed, unpack},
    chancery::RATE_LIMITER_CLUSTER,
    envoy::{
        cluster::Cluster as ClusterMessage,
        discovery::{DiscoveryResponse, Resource},
        endpoint::ClusterLoadAssignment,
        listener::Listener as ListenerMessage,
        route::RouteConfiguration,
        tls::Secret as SecretMessage,
    },
    google::protobuf::Any,
    type_url,
};
use chancery_xds::client::{Batch, Received, Refused};

use super::{
    from_xds::{self, ClusterSpec, Discovery, Problem, Routes, Secret, Served},
    ignored::{self, ignored},
    routes::RouteTable,
    snapshot::{Cluster, ClusterSettings, EndpointSpec, Snapshot},
    tls::UpstreamTls,
};

/// The types that are asked for, in the order in which Envoy wants them.
pub const TYPES: [&str; 5] =
    [type_url::SECRET, type_url::CLUSTER, type_url::ENDPOINT, type_url::LISTENER, type_url::ROUTE];

/// A resource that is in force.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Its version, as the server calls it.
    pub version: String,
    /// The message.
    pub body: Bytes,
    /// Fields that are set and not looked at.
    pub ignored: Vec<String>,
    parsed: Parsed,
}

#[derive(Clone, Debug)]
enum Parsed {
    Cluster {
        newest: Arc<ClusterSpec>,
        /// The one that stays in force while the newest waits for a secret.
        warm: Option<Arc<ClusterSpec>>,
    },
    Endpoints(Arc<[EndpointSpec]>),
    Listener(Served),
    /// What is asked by Envoy alone: a sidecar keeps its limits itself.
    OfEnvoy,
    Routes(Arc<RouteTable>),
    Secret(Arc<Secret>),
}

/// What is in force.
#[derive(Clone, Debug)]
pub struct Held {
    has_identity: bool,
    resources: BTreeMap<(&'static str, Arc<str>), Loaded>,
}

impl Held {
    /// Nothing yet. `has_identity`: the sidecar has a certificate to show to endpoints.
    pub fn new(has_identity: bool) -> Self {
        Self { has_identity, resources: BTreeMap::new() }
    }

    /// Takes a batch.
    ///
    /// # Errors
    /// What cannot be used, each with all that is wrong with it; the rest is in force.
    pub fn take(&mut self, batch: &Batch) -> Result<(), Vec<Refused>> {
        let Some(kind) = known(&batch.type_url) else { return Ok(()) };
        for name in &batch.removed {
            self.resources.remove(&(kind, name.clone()));
        }
        let mut refused = Vec::new();
        for received in &batch.upserts {
            match self.load(kind, received) {
                Ok(loaded) => self.insert(kind, received.name.clone(), loaded),
                Err(problems) => refused.push(Refused { name: received.name.clone(), reason: told(&problems) }),
            }
        }
        self.settle();
        if refused.is_empty() { Ok(()) } else { Err(refused) }
    }

    fn insert(&mut self, kind: &'static str, name: Arc<str>, mut loaded: Loaded) {
        if let (Parsed::Cluster { warm, .. }, Some(Parsed::Cluster { newest, warm: before })) =
            (&mut loaded.parsed, self.parsed(kind, &name))
        {
            *warm = Some(newest.clone()).filter(|newest| !self.waits(newest)).or_else(|| before.clone());
        }
        self.resources.insert((kind, name), loaded);
    }

    /// Forgets what stayed in force for want of secrets that have come.
    fn settle(&mut self) {
        let waiting = self.resources.iter().filter_map(|(key, loaded)| match &loaded.parsed {
            Parsed::Cluster { newest, warm: Some(_) } if !self.waits(newest) => Some(key.clone()),
            _ => None,
        });
        for key in waiting.collect::<Vec<_>>() {
            if let Some(Loaded { parsed: Parsed::Cluster { warm, .. }, .. }) = self.resources.get_mut(&key) {
                *warm = None;
            }
        }
    }

    fn load(&self, kind: &'static str, received: &Received) -> Result<Loaded, Vec<Problem>> {
        let body = &received.body;
        let parsed = match kind {
            type_url::CLUSTER if *received.name == *RATE_LIMITER_CLUSTER => Parsed::OfEnvoy,
            type_url::CLUSTER => {
                let spec = from_xds::cluster(&decode::<ClusterMessage>(body)?, self.has_identity)?;
                Parsed::Cluster { newest: Arc::new(spec), warm: None }
            }
            type_url::ENDPOINT => {
                Parsed::Endpoints(from_xds::endpoints(&decode::<ClusterLoadAssignment>(body)?)?.into())
            }
            type_url::SECRET => Parsed::Secret(from_xds::secret(&decode::<SecretMessage>(body)?)?.into()),
            type_url::LISTENER => Parsed::Listener(from_xds::listener(&decode::<ListenerMessage>(body)?)?),
            _ => Parsed::Routes(from_xds::routes(&decode::<RouteConfiguration>(body)?)?.into()),
        };
        let ignored = match &parsed {
            Parsed::Listener(Served::Tcp(_)) => ignored::of_tcp_listener(body),
            _ => ignored(kind, body),
        };
        Ok(Loaded { version: received.version.clone(), body: body.clone(), ignored, parsed })
    }

    /// What all of it is together.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for ((_, name), loaded) in &self.resources {
            match &loaded.parsed {
                Parsed::Cluster { newest, warm } => {
                    let cluster = self.cluster(name, newest, warm.as_ref());
                    snapshot.clusters.insert(name.clone(), Arc::new(cluster));
                }
                Parsed::Listener(Served::Http(routes)) => {
                    snapshot.listeners.insert(name.clone(), self.listener(routes));
                }
                Parsed::Listener(Served::Tcp(proxy)) => _ = snapshot.tcp.insert(name.clone(), proxy.clone()),
                Parsed::Endpoints(_) | Parsed::Routes(_) | Parsed::Secret(_) | Parsed::OfEnvoy => {}
            }
        }
        snapshot
    }

    /// As the newest says it, or the warm one while the newest waits for a secret. Who waits has nobody to connect to.
    fn cluster(&self, name: &Arc<str>, newest: &ClusterSpec, warm: Option<&Arc<ClusterSpec>>) -> Cluster {
        let spec = warm.filter(|_| self.waits(newest)).map_or(newest, |warm| warm);
        let endpoints = if self.waits(spec) { Vec::new() } else { self.endpoints(&spec.endpoints) };
        let settings = ClusterSettings { tls: self.tls(spec), ..spec.settings.clone() };
        Cluster { name: name.clone(), endpoints, settings }
    }

    /// Whether it names a secret that has not come.
    fn waits(&self, spec: &ClusterSpec) -> bool {
        self.tls(spec).is_some_and(|tls| tls.waits_for.is_some())
    }

    /// TLS with what secrets hold.
    fn tls(&self, spec: &ClusterSpec) -> Option<UpstreamTls> {
        let tls = spec.tls.as_ref()?;
        Some(tls.resolve(|name| match self.parsed(type_url::SECRET, name) {
            Some(Parsed::Secret(secret)) => Some(&**secret),
            _ => None,
        }))
    }

    fn endpoints(&self, discovery: &Discovery) -> Vec<EndpointSpec> {
        match discovery {
            Discovery::Inline(endpoints) => endpoints.clone(),
            Discovery::Eds(name) => match self.parsed(type_url::ENDPOINT, name) {
                Some(Parsed::Endpoints(endpoints)) => endpoints.to_vec(),
                _ => Vec::new(),
            },
        }
    }

    fn listener(&self, routes: &Routes) -> Option<Arc<RouteTable>> {
        match routes {
            Routes::Inline(routes) => Some(routes.clone()),
            Routes::Rds(name) => match self.parsed(type_url::ROUTE, name) {
                Some(Parsed::Routes(routes)) => Some(routes.clone()),
                _ => None,
            },
        }
    }

    fn parsed(&self, kind: &'static str, name: &Arc<str>) -> Option<&Parsed> {
        self.resources.get(&(kind, name.clone())).map(|loaded| &loaded.parsed)
    }

    /// Everything in force, by type and name.
    pub fn resources(&self) -> impl Iterator<Item = (&'static str, &Arc<str>, &Loaded)> {
        self.resources.iter().map(|((kind, name), loaded)| (*kind, name, loaded))
    }

    /// Type, name and version of everything in force.
    pub fn versions(&self) -> Vec<(Arc<str>, Arc<str>, String)> {
        self.resources().map(|(kind, name, loaded)| (kind.into(), name.clone(), loaded.version.clone())).collect()
    }

    /// What is in force, as one `DiscoveryResponse`.
    pub fn save(&self) -> Vec<u8> {
        let resource = |(kind, name, loaded): (&'static str, &Arc<str>, &Loaded)| Resource {
            name: name.to_string(),
            version: loaded.version.clone(),
            resource: Some(Any { type_url: kind.to_owned(), value: loaded.body.to_vec() }),
            ..Resource::default()
        };
        let resources = self.resources().map(resource).map(|resource| pack_typed(&resource)).collect();
        DiscoveryResponse { resources, ..DiscoveryResponse::default() }.encode_to_vec()
    }

    /// What [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// It cannot be read, or something in it cannot be used by this version, or with these settings.
    pub fn restore(saved: &[u8], has_identity: bool) -> Result<Self, String> {
        let mut held = Self::new(has_identity);
        let saved = DiscoveryResponse::decode(saved).map_err(|error| error.to_string())?;
        for any in saved.resources {
            let Resource { name, version, resource, .. } = unpack(&any).map_err(|error| error.to_string())?;
            let Some(any) = resource else { continue };
            let Some(kind) = known(&any.type_url) else { continue };
            let received = Received { name: name.into(), version, body: any.value.into() };
            let loaded = held.load(kind, &received).map_err(|found| format!("{}: {}", received.name, told(&found)))?;
            held.resources.insert((kind, received.name), loaded);
        }
        Ok(held)
    }
}

fn known(url: &str) -> Option<&'static str> {
    TYPES.into_iter().find(|known| *known == url)
}

fn decode<M: Message + Default>(body: &Bytes) -> Result<M, Vec<Problem>> {
    M::decode(body.clone())
        .map_err(|error| vec![Problem { path: String::new(), reason: format!("cannot be read: {error}") }])
}

/// Paths and reasons, on one line.
fn told(problems: &[Problem]) -> String {
    let one = |Problem { path, reason }: &Problem| {
        if path.is_empty() { reason.clone() } else { format!("{path}: {reason}") }
    };
    problems.iter().map(one).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests;
