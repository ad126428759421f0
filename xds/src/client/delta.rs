//! The incremental variant, as a client speaks it. Pure.
//!
//! The versions of everything that was received are remembered; after a reconnect they are said first, so that only what
//! has changed is sent, and also what is gone.

use std::collections::BTreeMap;

use bytes::Bytes;
use chancery_proto::envoy::{
    core::Node,
    discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
};

use super::session::{Batch, Dialect, Interest, NotAskedFor, Received, Refused, Response, body, error_detail};
use crate::resource::{Name, TypeUrl};

/// What a client of the incremental variant asks for, and holds.
#[derive(Debug)]
pub(crate) struct Delta {
    node: Node,
    types: BTreeMap<TypeUrl, Subscribed>,
}

#[derive(Debug)]
struct Subscribed {
    interest: Interest,
    /// The version of each resource that was received and not removed.
    versions: BTreeMap<Name, String>,
}

impl Delta {
    pub(crate) fn new(node: Node, types: Vec<(TypeUrl, Interest)>) -> Self {
        let subscribed = |interest| Subscribed { interest, versions: BTreeMap::new() };
        Self { node, types: types.into_iter().map(|(type_url, interest)| (type_url, subscribed(interest))).collect() }
    }

    /// It has this, from an earlier life.
    pub(crate) fn hold(&mut self, type_url: &str, name: Name, version: String) {
        if let Some(subscribed) = self.types.get_mut(type_url) {
            subscribed.versions.insert(name, version);
        }
    }
}

impl Dialect for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    fn opening(&mut self) -> Vec<DeltaDiscoveryRequest> {
        let mut node = Some(self.node.clone());
        let first = |(type_url, subscribed): (&TypeUrl, &Subscribed)| DeltaDiscoveryRequest {
            // Once per stream is enough.
            node: node.take(),
            type_url: type_url.to_string(),
            resource_names_subscribe: match &subscribed.interest {
                Interest::Wildcard => vec!["*".to_owned()],
                Interest::Names(names) => names.iter().map(ToString::to_string).collect(),
            },
            initial_resource_versions: subscribed
                .versions
                .iter()
                .map(|(name, version)| (name.to_string(), version.clone()))
                .collect(),
            ..DeltaDiscoveryRequest::default()
        };
        self.types.iter().map(first).collect()
    }

    fn receive(&mut self, response: DeltaDiscoveryResponse) -> Result<Response, NotAskedFor> {
        let DeltaDiscoveryResponse { type_url, resources, removed_resources, nonce, system_version_info, .. } =
            response;
        let Some((type_url, subscribed)) = self.types.get_key_value(type_url.as_str()) else {
            return Err(NotAskedFor(type_url));
        };
        let type_url = type_url.clone();
        let mut upserts: BTreeMap<Name, (String, Bytes)> = BTreeMap::new();
        let mut malformed = Vec::new();
        for resource in resources {
            let name = Name::from(resource.name);
            // Without content it says only that what is held goes on living.
            let Some(any) = resource.resource else { continue };
            match body(any, &type_url) {
                Ok(body) => {
                    upserts.insert(name, (resource.version, body));
                }
                Err(reason) => malformed.push(Refused { name, reason }),
            }
        }
        let removed = removed_resources.into_iter().map(Name::from);
        // Of a name that was asked for, it is news that it has no resource; of others only if it had one.
        let removed = removed.filter(|name| match &subscribed.interest {
            Interest::Wildcard => subscribed.versions.contains_key(name),
            Interest::Names(names) => names.contains(name),
        });
        let removed = removed.filter(|name| !upserts.contains_key(name)).collect();
        let upserts = upserts.into_iter().map(|(name, (version, body))| Received { name, version, body }).collect();
        let batch = Batch { type_url, upserts, removed };
        Ok(Response { batch, malformed, nonce, version: system_version_info })
    }

    fn answer(&mut self, response: &Response, refused: &[Refused]) -> DeltaDiscoveryRequest {
        let Batch { type_url, upserts, removed } = &response.batch;
        if let Some(subscribed) = self.types.get_mut(type_url) {
            for Received { name, version, .. } in upserts {
                subscribed.versions.insert(name.clone(), version.clone());
            }
            for name in removed {
                subscribed.versions.remove(name);
            }
        }
        DeltaDiscoveryRequest {
            type_url: type_url.to_string(),
            response_nonce: response.nonce.clone(),
            error_detail: error_detail(refused),
            ..DeltaDiscoveryRequest::default()
        }
    }
}
