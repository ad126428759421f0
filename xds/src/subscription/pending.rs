//! What there is to know of a change that has to be sent, or was: why, when it came, in which response. Pure.

use super::Sent;
use crate::{cache::Table, resource::Name};

/// Why a resource has to be sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Want {
    /// The client may have an older one.
    pub(super) held: bool,
    /// And it does.
    pub(super) sure: bool,
    /// It is to hear of this name even if there is no such resource.
    pub(super) due: bool,
}

impl Want {
    pub(super) const NEW: Self = Self { held: false, sure: false, due: false };
    pub(super) const HELD: Self = Self { held: true, sure: true, due: false };
    pub(super) const PERHAPS_HELD: Self = Self { held: true, sure: false, due: false };
    pub(super) const ASKED: Self = Self { held: false, sure: false, due: true };

    /// For a client that had what there was at `sequence`.
    pub(super) fn since(table: &Table, name: &str, sequence: u64) -> Self {
        let had = table.had(name, sequence);
        Self { held: had != Some(false), sure: had == Some(true), due: false }
    }
}

/// The oldest and the newest of some sequences.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) oldest: u64,
    pub(super) newest: u64,
}

impl Default for Span {
    fn default() -> Self {
        Self { oldest: u64::MAX, newest: 0 }
    }
}

impl Span {
    pub(super) fn add(&mut self, oldest: u64, newest: u64) {
        self.oldest = self.oldest.min(oldest);
        self.newest = self.newest.max(newest);
    }
}

/// A response that was sent.
#[derive(Debug)]
pub(super) struct Unanswered {
    /// The oldest change in it.
    pub(super) oldest: u64,
    /// The names in it that the client had no resource of.
    pub(super) new: Vec<Name>,
    pub(super) sent: Sent,
}
