//! What each fleet is served: translated changes on their way into the caches.
//!
//! One cache per fleet, filled by revision: the cache's sequence is the revision's number, so "this
//! proxy has applied revision 7" needs no bookkeeping of its own.
//!
//! Routes are translated one virtual host at a time. They are joined here to the RouteConfiguration of
//! their listener, from encoded pieces: the cost of an edit is the translation of its own hosts and one copy.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use chancery_proto::type_url;
use chancery_xds::{Cache, Resource, Update};
use parking_lot::Mutex;

use crate::{
    model::Name,
    translate::snapshot::{FleetChanges, join_virtual_hosts},
};

/// The caches of all fleets.
#[derive(Default)]
pub struct Publisher {
    fleets: Mutex<HashMap<Name, Fleet>>,
}

#[derive(Default)]
struct Fleet {
    cache: Arc<Cache>,
    /// Per listener: its virtual hosts by host, encoded.
    virtual_hosts: BTreeMap<Name, BTreeMap<String, Bytes>>,
}

impl Publisher {
    /// No fleets yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The cache of a fleet, if there is such a fleet.
    pub fn cache(&self, fleet: &Name) -> Option<Arc<Cache>> {
        self.fleets.lock().get(fleet).map(|fleet| fleet.cache.clone())
    }
}
