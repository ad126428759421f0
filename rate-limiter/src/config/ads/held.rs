//! The resources that a server sent: which are in force, and which wait to become good. Pure.
//!
//! Every resource is judged by itself, and then all of them as a set. One that is wrong is told to the server and its last
//! good content stays in force; the others go on. What is wrong only because of another (two resources for one domain) is
//! tried again with every change.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use chancery_proto::{
    Message,
    any::pack_typed,
    chancery::RateLimitDomain,
    envoy::{
        discovery::{DiscoveryResponse, Resource},
        rate_limit_config::RateLimitConfig,
    },
    google::protobuf::Any,
    type_url::{self, short_name},
};
use chancery_xds::client::{Batch, Received, Refused};

use super::domain;
use crate::{
    config::{Problem, limitconfig},
    model::{limit::Algorithm, rule::DomainSpec},
};

/// A type, and a name in it. Chancery's own type comes first.
type Id = (Kind, Arc<str>);

/// The types of resources that hold limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Domain,
    Config,
}

/// What was received.
#[derive(Debug)]
pub(super) struct Held {
    algorithm: Algorithm,
    in_force: BTreeMap<Id, Arc<Loaded>>,
    /// Good in itself, but not beside the others.
    waiting: BTreeMap<Id, Arc<Loaded>>,
}

/// A resource that can be read.
#[derive(Debug)]
struct Loaded {
    version: String,
    body: Bytes,
    spec: DomainSpec,
}

impl Kind {
    pub(super) const ALL: [Self; 2] = [Self::Domain, Self::Config];

    pub(super) fn type_url(self) -> &'static str {
        match self {
            Self::Domain => type_url::RATE_LIMIT_DOMAIN,
            Self::Config => type_url::RATE_LIMIT_CONFIG,
        }
    }

    fn of(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == type_url)
    }
}

impl Held {
    /// Nothing yet. What does not say how it is counted is counted by `algorithm`.
    pub(super) fn new(algorithm: Algorithm) -> Self {
        Self { algorithm, in_force: BTreeMap::new(), waiting: BTreeMap::new() }
    }

    /// Takes a batch. `put` gets the set of all domains that would be in force, and may refuse it. Nothing of the batch
    /// is in force that is named in the error.
    pub(super) fn take(
        &mut self,
        batch: &Batch,
        put: &mut impl FnMut(Vec<DomainSpec>) -> Result<(), Vec<Problem>>,
    ) -> Result<(), Vec<Refused>> {
        let Some(kind) = Kind::of(&batch.type_url) else { return Ok(()) };
        let mut next = self.in_force.clone();
        for name in &batch.removed {
            let id = (kind, name.clone());
            next.remove(&id);
            self.waiting.remove(&id);
        }
        let mut refused = BTreeMap::new();
        let mut tried = std::mem::take(&mut self.waiting);
        for received in &batch.upserts {
            let id = (kind, received.name.clone());
            tried.remove(&id);
            match self.load(kind, received) {
                Ok(loaded) => {
                    tried.insert(id, loaded.into());
                }
                Err(problems) => {
                    refused.insert(id, told(problems.into_iter().map(|problem| (problem.path, problem.reason))));
                }
            }
        }
        next.extend(tried.clone());
        // Each turn takes something back, so this ends.
        while let Err(problems) = put(next.values().map(|loaded| loaded.spec.clone()).collect()) {
            let blamed: BTreeSet<Id> = {
                let named = |loaded: &Loaded| problems.iter().any(|problem| problem.file == loaded.spec.origin);
                let guilty = tried.iter().filter(|(_, loaded)| named(loaded)).map(|(id, _)| id.clone());
                let guilty: BTreeSet<Id> = guilty.collect();
                if guilty.is_empty() { tried.keys().cloned().collect() } else { guilty }
            };
            if blamed.is_empty() {
                // What was in force without this batch's removals is refused: it is another's matter, and theirs to tell.
                next.clone_from(&self.in_force);
                break;
            }
            for id in blamed {
                let Some(loaded) = tried.remove(&id) else { continue };
                match self.in_force.get(&id).filter(|_| !batch.removed.contains(&id.1)) {
                    Some(good) => next.insert(id.clone(), good.clone()),
                    None => next.remove(&id),
                };
                let of_it = problems.iter().filter(|problem| problem.file == loaded.spec.origin);
                let about =
                    if of_it.clone().next().is_some() { of_it.collect() } else { problems.iter().collect::<Vec<_>>() };
                let about = about.into_iter().map(|problem| (problem.path.clone(), problem.reason.clone()));
                refused.insert(id.clone(), told(about));
                self.waiting.insert(id, loaded);
            }
        }
        self.in_force = next;
        let in_batch = |id: &Id| id.0 == kind && batch.upserts.iter().any(|received| received.name == id.1);
        let refused: Vec<Refused> = refused
            .into_iter()
            .filter(|(id, _)| in_batch(id))
            .map(|((_, name), reason)| Refused { name, reason })
            .collect();
        if refused.is_empty() { Ok(()) } else { Err(refused) }
    }

    /// Whether anything of a type is in force.
    pub(super) fn holds(&self, kind: Kind) -> bool {
        self.in_force.keys().any(|(of, _)| *of == kind)
    }

    /// Every domain in force.
    pub(super) fn specs(&self) -> Vec<DomainSpec> {
        self.in_force.values().map(|loaded| loaded.spec.clone()).collect()
    }

    /// Type, name and version of everything in force.
    pub(super) fn versions(&self) -> Vec<(Arc<str>, Arc<str>, String)> {
        let held = |((kind, name), loaded): (&Id, &Arc<Loaded>)| {
            (Arc::from(kind.type_url()), name.clone(), loaded.version.clone())
        };
        self.in_force.iter().map(held).collect()
    }

    /// What is in force, as one `DiscoveryResponse`.
    pub(super) fn save(&self) -> Vec<u8> {
        let resource = |((kind, name), loaded): (&Id, &Arc<Loaded>)| Resource {
            name: name.to_string(),
            version: loaded.version.clone(),
            resource: Some(Any { type_url: kind.type_url().to_owned(), value: loaded.body.to_vec() }),
            ..Resource::default()
        };
        let resources = self.in_force.iter().map(resource).map(|resource| pack_typed(&resource)).collect();
        DiscoveryResponse { resources, ..DiscoveryResponse::default() }.encode_to_vec()
    }

    /// What [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn restore(saved: &[u8], algorithm: Algorithm) -> Result<Self, String> {
        let mut held = Self::new(algorithm);
        let saved = DiscoveryResponse::decode(saved).map_err(|error| error.to_string())?;
        for any in saved.resources {
            let Resource { name, version, resource, .. } =
                chancery_proto::any::unpack(&any).map_err(|error| error.to_string())?;
            let Some(any) = resource else { continue };
            let Some(kind) = Kind::of(&any.type_url) else { continue };
            let received = Received { name: name.into(), version, body: any.value.into() };
            let loaded = held.load(kind, &received).map_err(|problems| told_all(&received.name, &problems))?;
            held.in_force.insert((kind, received.name), loaded.into());
        }
        Ok(held)
    }

    fn load(&self, kind: Kind, received: &Received) -> Result<Loaded, Vec<Problem>> {
        let Received { name, version, body } = received;
        let origin = format!("{} {name}", short_name(kind.type_url()));
        let unreadable = |error: prost::DecodeError| {
            let (file, reason) = (origin.clone(), format!("cannot be read: {error}"));
            vec![Problem { file, line: 0, column: 0, path: String::new(), reason }]
        };
        let spec = match kind {
            Kind::Domain => domain::read(&RateLimitDomain::decode(body.clone()).map_err(unreadable)?),
            Kind::Config => {
                limitconfig::read(&RateLimitConfig::decode(body.clone()).map_err(unreadable)?, self.algorithm)
            }
        };
        let spec = spec.map_err(|problems| problems.into_iter().map(Problem::from).collect::<Vec<_>>())?;
        Ok(Loaded { version: version.clone(), body: body.clone(), spec: DomainSpec { origin, ..spec } })
    }
}

/// Paths and reasons, on one line.
fn told(problems: impl Iterator<Item = (String, String)>) -> String {
    let one = |(path, reason): (String, String)| if path.is_empty() { reason } else { format!("{path}: {reason}") };
    problems.map(one).collect::<Vec<_>>().join("; ")
}

fn told_all(name: &str, problems: &[Problem]) -> String {
    format!("{name}: {}", told(problems.iter().map(|problem| (problem.path.clone(), problem.reason.clone()))))
}

#[cfg(test)]
mod tests;
