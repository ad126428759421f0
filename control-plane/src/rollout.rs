//! Which revision each part of a fleet should have, where revisions come in stages: canaries first. Pure.
//!
//! - **A revision goes to the canaries, then to all.** Once every canary has acknowledged it they have it alone for the
//!   soak time; then all others get it.
//! - **A rejection ends it**, and so does a canary that does not acknowledge in time, or goes away and does not come back, and a
//!   gate that does not hold. Then the canaries get back what the others have (`onFailure: return`), or keep what they have until
//!   somebody decides (`hold`).
//! - **One at a time.** Revisions that come while one is tried wait, and are tried together as the next. One that failed is not tried
//!   again: the next that changes something for the fleet is, with everything since.
//! - **Where there is nobody to ask**, because no proxy of the fleet is connected, a revision is for all at once.
//!
//! Here is what is decided, from what was seen; [`Stages`] sees, writes down and moves.

mod gate;
mod stages;
mod table;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

pub use gate::{Rates, broken};
pub use stages::{Decision, DecisionError, Shown, Stages};

use crate::model::{
    Name,
    fleet::{OnRolloutFailure, RolloutPolicy},
};

/// How far revisions have come to a fleet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// The revision that all have but canaries.
    pub stable: u64,
    /// The last that canaries were given, and what became of it.
    pub last: Option<Tried>,
}

/// A revision that canaries were given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tried {
    /// The revision.
    pub revision: u64,
    /// When they were given it.
    #[serde(with = "time::serde::rfc3339")]
    pub begun_at: OffsetDateTime,
    /// The canaries, and whether each has acknowledged it and is there.
    pub canaries: BTreeMap<Name, bool>,
    /// Since when one of them has not, or is not.
    #[serde(with = "time::serde::rfc3339::option")]
    pub waiting_since: Option<OffsetDateTime>,
    /// How far it has come.
    pub phase: Phase,
}

/// How far a revision has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "camelCase")]
pub enum Phase {
    /// Not all canaries have acknowledged it.
    Applying,
    /// All of them have.
    Soaking {
        /// Since when.
        #[serde(with = "time::serde::rfc3339")]
        since: OffsetDateTime,
    },
    /// It has failed, and they have it still.
    Held {
        /// Why.
        failure: Failure,
    },
    /// It has failed, and they have been given back what the others have.
    Returned {
        /// Why.
        failure: Failure,
    },
    /// All have it.
    Promoted {
        /// Since when.
        #[serde(with = "time::serde::rfc3339")]
        at: OffsetDateTime,
        /// Who decided so, if somebody did.
        by: Option<String>,
    },
}

/// Why a revision has failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Why: the proxy's own words, if one has rejected it.
    pub reason: String,
    /// The proxy that has rejected it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// The type of what it has rejected, by short name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_type: Option<String>,
    /// What it has rejected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// Who decided so, if somebody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// What one replica has seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Of the canaries that it knows something of, whether each has acknowledged the revision and is there.
    pub canaries: BTreeMap<Name, bool>,
    /// What speaks against the revision.
    pub failure: Option<Failure>,
}

/// Why nothing can be decided about a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undecidable {
    /// Nothing is tried.
    #[error("no revision is being rolled out to this fleet")]
    Nothing,
    /// The canaries have been given back what the others have.
    #[error("the canaries of this fleet have been given back what the others have already")]
    Returned,
}

impl Rollout {
    /// All have `stable`.
    pub fn new(stable: u64) -> Self {
        Self { stable, last: None }
    }

    /// The revision that all but the canaries should have.
    pub fn main(&self) -> u64 {
        self.stable
    }

    /// The revision that the canaries should have.
    pub fn canary(&self) -> u64 {
        match &self.last {
            Some(Tried { revision, phase: Phase::Applying | Phase::Soaking { .. } | Phase::Held { .. }, .. }) => {
                *revision
            }
            _ => self.stable,
        }
    }

    /// The newest revision that needs no trial any more: all have it, or it has failed.
    pub fn tried(&self) -> u64 {
        self.last.as_ref().map_or(self.stable, |last| last.revision.max(self.stable))
    }

    /// What is tried just now.
    pub fn under_way(&self) -> Option<&Tried> {
        self.last.as_ref().filter(|last| matches!(last.phase, Phase::Applying | Phase::Soaking { .. }))
    }

    /// Gives `revision` to `canaries`; to all, if nobody of the fleet is `connected`.
    #[must_use]
    pub fn begin(&self, revision: u64, canaries: BTreeSet<Name>, connected: bool, now: OffsetDateTime) -> Self {
        let phase = if connected { Phase::Applying } else { Phase::Promoted { at: now, by: None } };
        let stable = if connected { self.stable } else { revision };
        let canaries = canaries.into_iter().map(|canary| (canary, false)).collect();
        let waiting_since = connected.then_some(now);
        Self { stable, last: Some(Tried { revision, begun_at: now, canaries, waiting_since, phase }) }
    }

    /// What follows for a revision that is tried from what was `seen`, if anything.
    pub fn go_on(&self, policy: &RolloutPolicy, seen: Seen, now: OffsetDateTime) -> Option<Self> {
        let mut next = self.clone();
        let tried = next.last.as_mut()?;
        self.under_way()?;
        tried.canaries.extend(seen.canaries);
        let all = !tried.canaries.is_empty() && tried.canaries.values().all(|acknowledged| *acknowledged);
        tried.waiting_since = if all { None } else { tried.waiting_since.or(Some(now)) };
        let late = tried.waiting_since.is_some_and(|since| now >= since + policy.acknowledge_within);
        let failure = seen.failure.or_else(|| late.then(|| Failure::because(tried.who_is_missing(), now)));
        if let Some(failure) = failure {
            tried.phase = match policy.on_failure {
                OnRolloutFailure::Return => Phase::Returned { failure },
                OnRolloutFailure::Hold => Phase::Held { failure },
            };
        } else if all {
            match tried.phase {
                Phase::Soaking { since } if now >= since + policy.soak => {
                    tried.phase = Phase::Promoted { at: now, by: None };
                    next.stable = tried.revision;
                }
                Phase::Applying => tried.phase = Phase::Soaking { since: now },
                _ => {}
            }
        }
        (next != *self).then_some(next)
    }

    /// Gives what was tried last to all, whatever speaks against it.
    pub fn promote(&self, by: &str, now: OffsetDateTime) -> Result<Self, Undecidable> {
        let mut next = self.clone();
        let tried = next.last.as_mut().ok_or(Undecidable::Nothing)?;
        if matches!(tried.phase, Phase::Promoted { .. }) {
            return Err(Undecidable::Nothing);
        }
        tried.phase = Phase::Promoted { at: now, by: Some(by.to_owned()) };
        next.stable = tried.revision;
        Ok(next)
    }

    /// Gives the canaries back what the others have.
    pub fn give_back(&self, by: &str, now: OffsetDateTime) -> Result<Self, Undecidable> {
        let mut next = self.clone();
        let tried = next.last.as_mut().ok_or(Undecidable::Nothing)?;
        let by = Some(by.to_owned());
        let failure = match &tried.phase {
            Phase::Promoted { .. } => return Err(Undecidable::Nothing),
            Phase::Returned { .. } => return Err(Undecidable::Returned),
            Phase::Held { failure } => Failure { by, ..failure.clone() },
            Phase::Applying | Phase::Soaking { .. } => Failure { by, ..Failure::because("was returned by hand", now) },
        };
        tried.phase = Phase::Returned { failure };
        Ok(next)
    }

    /// All have everything up to `revision`, which has nothing new for the fleet. None if they have not: what was tried last has
    /// failed, and `revision` has that in it.
    pub fn settle(&self, revision: u64) -> Option<Self> {
        (self.tried() == self.stable).then(|| Self { stable: revision, ..self.clone() })
    }
}

impl Tried {
    fn who_is_missing(&self) -> String {
        let missing: Vec<&str> =
            self.canaries.iter().filter(|(_, there)| !**there).map(|(id, _)| id.as_str()).collect();
        match missing.as_slice() {
            [] => "no canary is connected".to_owned(),
            [.., last] if missing.len() > 3 => {
                format!("{} canaries have not acknowledged it or are away, one of them {last}", missing.len())
            }
            some => format!("{} did not acknowledge it in time, or went away", some.join(", ")),
        }
    }
}

impl Failure {
    /// What nobody has said.
    pub fn because(reason: impl Into<String>, at: OffsetDateTime) -> Self {
        Self { at, reason: reason.into(), proxy: None, resource_type: None, resources: Vec::new(), by: None }
    }
}

/// So many in a hundred of `proxies`, at least one if there is one: the same as long as it can be.
pub fn elect(proxies: impl IntoIterator<Item = Name>, percent: u32) -> BTreeSet<Name> {
    let mut ranked: Vec<([u8; 32], Name)> =
        proxies.into_iter().map(|id| (Sha256::digest(id.as_str()).into(), id)).collect();
    ranked.sort_unstable();
    let share = (ranked.len() as u64 * u64::from(percent)).div_ceil(100);
    ranked.into_iter().zip(0..share).map(|((_, id), _)| id).collect()
}

#[cfg(test)]
mod tests;
