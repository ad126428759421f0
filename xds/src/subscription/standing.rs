//! What a client has of each resource that it asked for. Pure.
//!
//! It follows from what is kept to serve the client; nothing is kept for the sake of whoever asks.

use std::collections::{BTreeSet, HashSet};

use super::Progress;
use crate::{
    cache::{Kept, Table},
    resource::{Name, Resource},
};

/// What a client has of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There is a new version, which it was not sent yet; it may have an older one.
    NotSent,
    /// It was sent the newest version, and has not answered.
    Unanswered,
    /// It has applied the newest version.
    Applied,
    /// It has rejected the newest version; it may have an older one.
    Rejected,
    /// It asked for it by name, and there is none.
    Absent,
}

impl Progress {
    /// Name, newest version and standing of each resource that the client asked for, those that are there first. `table` may
    /// be newer than what was taken in.
    pub(crate) fn standings(&self, table: &Table) -> Vec<(Name, Option<Resource>, Standing)> {
        // Removals that are forgotten are no standing of anything.
        let changed = table.changes_since(self.seen()).into_iter().flatten();
        let changed: HashSet<&Name> = changed.filter(|(_, kept)| *kept == Kept::Live).map(|(name, _)| name).collect();
        let in_flight: HashSet<&Name> = self.in_flight().collect();
        let refused: HashSet<&Name> = self.refused().collect();
        let standing = |name: &Name| {
            if changed.contains(name) || self.marked(name).is_some() {
                Standing::NotSent
            } else if in_flight.contains(name) {
                Standing::Unanswered
            } else if refused.contains(name) {
                Standing::Rejected
            } else {
                Standing::Applied
            }
        };
        let there = table.resources().filter(|resource| self.interest.covers(resource.name()));
        let there = there.map(|resource| (resource.name().clone(), Some(resource.clone()), standing(resource.name())));
        let absent: BTreeSet<&Name> =
            self.interest.names.iter().filter(|name| table.resource(name).is_none()).collect();
        there.chain(absent.into_iter().map(|name| (name.clone(), None, Standing::Absent))).collect()
    }
}
