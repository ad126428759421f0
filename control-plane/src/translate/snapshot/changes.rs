//! What an edit changes about what a fleet gets, as data.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::ResourceId;
use crate::{model::Name, translate::envoy_patch::Misfit};

/// What became of the fleet itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FleetChange {
    /// It is new.
    Created,
    /// It was there and still is.
    #[default]
    Kept,
    /// It is gone, and all its resources with it.
    Deleted,
}

/// What an edit changes about what a fleet gets. No id is both put and removed; a name may be, where a patch takes over
/// what was translated or the other way round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FleetChanges {
    /// Whether the fleet came or went.
    pub fleet: FleetChange,
    /// New and changed resources, encoded, without the `Any` around them.
    pub put: BTreeMap<ResourceId, Bytes>,
    /// Resources that the fleet no longer gets.
    pub removed: BTreeSet<ResourceId>,
    /// Patches that do not fit what they are to change, which is put without them.
    pub misfits: Vec<Misfit>,
}

impl FleetChanges {
    /// The listeners whose whole route configuration is another one now, or is gone.
    pub fn routes_changed(&self) -> BTreeSet<&Name> {
        self.put.keys().chain(&self.removed).filter_map(ResourceId::routes_of).collect()
    }
}
