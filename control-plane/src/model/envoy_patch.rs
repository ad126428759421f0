//! Raw configuration of Envoy: what the language of the users has no word for.

use std::fmt;

use chancery_proto::{describe::json::MessagePath, type_url};
use serde_json::Value;

use super::{Key, Kind, Name, route::HostPattern};

/// A patch, parsed.
#[derive(Clone, Debug, PartialEq)]
pub struct EnvoyPatch {
    /// The name.
    pub name: Name,
    /// The fleet whose proxies get it.
    pub fleet: Name,
    /// What it does.
    pub change: PatchChange,
}

/// What a patch does.
#[derive(Clone, Debug, PartialEq)]
pub enum PatchChange {
    /// Adds a whole resource.
    Add {
        /// What it is, and what it is called.
        resource: EnvoyResource,
        /// The message, encoded; the same JSON gives the same bytes.
        message: Vec<u8>,
    },
    /// Changes a part of one that is made from other resources.
    Merge {
        /// Which one: a cluster, endpoints, a listener or a virtual host.
        target: EnvoyResource,
        /// Where in it.
        path: MessagePath,
        /// What is merged there.
        patch: Value,
    },
}

/// A resource as Envoy knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EnvoyResource {
    /// A cluster.
    Cluster(String),
    /// The endpoints of a cluster.
    Endpoints(String),
    /// A secret.
    Secret(String),
    /// A layer of runtime values.
    Runtime(String),
    /// A listener.
    Listener(String),
    /// A whole route configuration.
    RouteConfiguration(String),
    /// What happens to the requests for a host on a listener of ours.
    VirtualHost(Name, HostPattern),
}

impl EnvoyResource {
    /// Its type.
    pub fn type_url(&self) -> &'static str {
        match self {
            Self::Cluster(_) => type_url::CLUSTER,
            Self::Endpoints(_) => type_url::ENDPOINT,
            Self::Secret(_) => type_url::SECRET,
            Self::Runtime(_) => type_url::RUNTIME,
            Self::Listener(_) => type_url::LISTENER,
            Self::RouteConfiguration(_) => type_url::ROUTE,
            Self::VirtualHost(..) => type_url::VIRTUAL_HOST,
        }
    }

    /// The resource of the catalog that it is made from if it is translated, unless nothing is called so.
    pub fn origin(&self) -> Option<Key> {
        let (kind, name) = match self {
            Self::Cluster(name) | Self::Endpoints(name) => (Kind::Service, name.parse().ok()?),
            Self::Listener(name) | Self::RouteConfiguration(name) => (Kind::Listener, name.parse().ok()?),
            Self::VirtualHost(listener, _) => (Kind::Listener, listener.clone()),
            Self::Secret(_) | Self::Runtime(_) => return None,
        };
        Some(Key::new(kind, name))
    }
}

impl fmt::Display for EnvoyResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster(name) => write!(f, "cluster {name}"),
            Self::Endpoints(name) => write!(f, "the endpoints of cluster {name}"),
            Self::Secret(name) => write!(f, "secret {name}"),
            Self::Runtime(name) => write!(f, "runtime layer {name}"),
            Self::Listener(name) => write!(f, "listener {name}"),
            Self::RouteConfiguration(name) => write!(f, "route configuration {name}"),
            Self::VirtualHost(listener, host) => write!(f, "virtual host {listener}/{host}"),
        }
    }
}

impl EnvoyPatch {
    /// The resource that it adds or changes.
    pub fn resource(&self) -> &EnvoyResource {
        match &self.change {
            PatchChange::Add { resource, .. } | PatchChange::Merge { target: resource, .. } => resource,
        }
    }

    /// What of the catalog it cannot be without, the fleet aside: what the target is made from, or the listener
    /// that a virtual host belongs to.
    pub fn needs(&self) -> Option<Key> {
        let is_part = matches!(self.resource(), EnvoyResource::VirtualHost(..));
        let is_merge = matches!(self.change, PatchChange::Merge { .. });
        if is_part || is_merge { self.resource().origin() } else { None }
    }
}
