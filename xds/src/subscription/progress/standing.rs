//! How a client stands with each resource that it asked for, by what it has said. Pure.
//!
//! It follows from what is kept anyway, so nothing is kept for it; it costs a look at every name, when somebody asks.

use std::collections::{BTreeMap, HashSet};

use super::Progress;
use crate::{
    cache::{Kept, Table},
    resource::Name,
};

/// How a client stands with one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The name.
    pub name: Name,
    /// How it stands.
    pub state: State,
    /// Whether it surely has a resource of this name: this one, or an older one.
    pub held: bool,
}

/// What a client has of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has said that it has it as it is.
    Current,
    /// It was sent it, and has not answered.
    Unanswered,
    /// It is still to be sent it.
    Unsent,
    /// It is not sent it, because it lacks something that it refers to and has rejected.
    KeptBack,
    /// It has rejected it, and is not sent it again until it changes.
    Rejected,
    /// There is none any more, and it may still have one: it has not said that it took the removal.
    Removing,
    /// It has asked for it, and there is none.
    Absent,
}

impl Progress {
    /// How the client stands with every name that it asked for, as `table` is, by name. What is of no use to it yet is left out.
    pub fn standings(&self, table: &Table) -> Vec<Standing> {
        if !self.started {
            return Vec::new();
        }
        let changed: Option<HashSet<&str>> = table
            .changes_since(self.seen)
            .map(|changes| changes.filter(|(_, kept)| *kept == Kept::Live).map(|(name, _)| &**name).collect());
        let changed = |name: &str| changed.as_ref().is_none_or(|changed| changed.contains(name));
        // The last word on a name is that of the last response with it.
        let mut in_flight = BTreeMap::new();
        for unanswered in &self.unanswered {
            let before = unanswered.oldest.saturating_sub(1);
            for name in &*unanswered.sent.names {
                in_flight
                    .entry(&**name)
                    .or_insert((false, table.had(name, before) == Some(true) && !unanswered.new.contains(name)));
            }
            for name in &*unanswered.sent.set {
                in_flight.entry(&**name).and_modify(|(set, _)| *set = true);
            }
        }
        let live = |name: &Name| {
            if self.parked.contains_key(name) {
                return None;
            }
            let (lacks, flying) = (self.refused.lacks(name), in_flight.get(&**name));
            let (kept_back, dirty) = (self.kept_back.get(name).map(|(want, _)| want), self.dirty.get(name));
            let (state, had) = match (kept_back, dirty) {
                (Some(want), _) => (State::KeptBack, want.sure),
                (None, Some(want)) => (State::Unsent, want.sure),
                _ if changed(name) => (State::Unsent, table.had(name, self.seen) == Some(true)),
                _ if flying.is_some_and(|(set, _)| *set) => (State::Unanswered, true),
                _ if lacks.is_some() => (State::Rejected, true),
                _ => (State::Current, true),
            };
            // What was not answered for, or was rejected, was the last that may be counted on.
            let held = had && lacks != Some(true) && (state == State::Current || flying.is_none_or(|(_, had)| *had));
            Some(Standing { name: name.clone(), state, held })
        };
        let covered = table.resources().map(crate::Resource::name).filter(|name| self.interest.covers(name));
        let mut standings: Vec<Standing> = covered.filter_map(live).collect();
        let gone = |name: &&Name| table.resource(name).is_none();
        // A removal may also be the answer to a name that there never was.
        let had = |name: &&Name| self.interest.covers(name) && in_flight.get(&***name).is_some_and(|(_, held)| *held);
        let removing: HashSet<&Name> = self.doomed.keys().chain(self.in_flight().filter(had)).filter(gone).collect();
        let absent = self.interest.names.iter().filter(gone).filter(|name| !removing.contains(name));
        standings.extend(absent.map(|name| Standing { name: name.clone(), state: State::Absent, held: false }));
        standings.extend(removing.iter().map(|name| Standing {
            name: (*name).clone(),
            state: State::Removing,
            held: false,
        }));
        standings.sort_by(|a, b| a.name.cmp(&b.name));
        standings
    }
}
