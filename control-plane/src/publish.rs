//! What each fleet is served: translated changes on their way into the caches.
//!
//! One cache per fleet, filled by revision: the cache's sequence is the revision's number, so "this
//! proxy has applied revision 7" needs no bookkeeping of its own.
//!
//! Routes are translated one virtual host at a time. They are joined here to the RouteConfiguration of
//! their listener, from encoded pieces: an edit costs the translation of its own hosts, and one copy.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use chancery_proto::type_url;
use chancery_xds::{Cache, Resource, Update};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{
    model::Name,
    translate::snapshot::{FleetChange, FleetChanges, join_virtual_hosts},
};

/// The caches of all fleets.
#[derive(Default)]
pub struct Publisher {
    fleets: Mutex<HashMap<Name, Fleet>>,
}

/// What the streams of a fleet are served from.
#[derive(Clone, Default)]
pub struct Served {
    /// The resources.
    pub cache: Arc<Cache>,
    /// Cancelled when the fleet is deleted.
    pub ended: CancellationToken,
}

#[derive(Default)]
struct Fleet {
    served: Served,
    /// Per listener: its virtual hosts by name, encoded.
    virtual_hosts: BTreeMap<Name, BTreeMap<String, Bytes>>,
}
