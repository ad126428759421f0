//! Make before break: which type may be sent while another is not yet applied. Pure.
//!
//! On the way in, clusters and endpoints come before the listeners and routes that refer to
//! them; on the way out it is the other way round. Endpoints are never held back: an Envoy acknowledges
//! a cluster only once it is warm, and it is warm only once its endpoints have come.

use std::time::{Duration, Instant};

use chancery_proto::type_url;

use crate::subscription::{Gate, Progress};

/// The place of a type in the order. When several have something to send, the lower goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Cluster,
    Endpoint,
    Listener,
    ScopedRoute,
    Route,
    VirtualHost,
    /// Of types that nothing waits for.
    Last,
}

impl Place {
    /// How many types have a place of their own.
    pub(crate) const OWN: usize = Self::Last as usize;

    pub(crate) fn of(type_url: &str) -> Self {
        match type_url {
            type_url::CLUSTER => Self::Cluster,
            type_url::ENDPOINT => Self::Endpoint,
            type_url::LISTENER => Self::Listener,
            type_url::SCOPED_ROUTE => Self::ScopedRoute,
            type_url::ROUTE => Self::Route,
            type_url::VIRTUAL_HOST => Self::VirtualHost,
            _ => Self::Last,
        }
    }

    /// Types whose additions must be acknowledged before additions of this one go out.
    pub(crate) fn additions_wait_for(self) -> &'static [Self] {
        match self {
            Self::Listener | Self::ScopedRoute | Self::Route | Self::VirtualHost => &[Self::Cluster, Self::Endpoint],
            Self::Cluster | Self::Endpoint | Self::Last => &[],
        }
    }

    /// Whether a type takes part in the order: its changes are sent in the state that they were made in, together with
    /// those of the others. Endpoints do not: the newest are always the best.
    pub(crate) fn is_ordered(self) -> bool {
        !matches!(self, Self::Endpoint | Self::Last)
    }

    /// Types that must have nothing left to send or be acknowledged before removals of this one go out.
    pub(crate) fn removals_wait_for(self) -> &'static [Self] {
        match self {
            Self::Cluster => &[Self::Listener, Self::Route, Self::VirtualHost],
            Self::Endpoint => &[Self::Cluster],
            Self::ScopedRoute => &[Self::Listener],
            Self::Route => &[Self::Listener, Self::ScopedRoute],
            Self::Listener | Self::VirtualHost | Self::Last => &[],
        }
    }
}

/// Since when a type has been held back for others; nothing is for ever, unless the client has rejected something
/// that others must not go ahead of.
///
/// The clock of removals is for those that may begin to wait together: their type's own additions are answered, and what
/// they wait for is sent or has waited long enough itself: the routes that lead away from a removed cluster may
/// be waiting for another cluster. Once begun, nothing sets it back but a rejection, and what comes later waits for
/// the next round.
#[derive(Debug, Default)]
pub(crate) struct Held {
    additions: Option<Instant>,
    removals: Option<Round>,
}

/// Removals up to a sequence, and since when they have been held back.
#[derive(Clone, Copy, Debug)]
struct Round {
    since: Instant,
    through: u64,
}

impl Held {
    /// `gate`, or a wider one if what is behind it has waited for as long as `patience`. Up to `taken`, nothing that
    /// removals wait for was rejected.
    pub(crate) fn relent(&self, gate: Gate, now: Instant, patience: Duration, taken: u64) -> Gate {
        let gate = match gate {
            Gate::Shut if over(self.additions, now, patience) => Gate::Additions,
            gate => gate,
        };
        match (gate, self.relented_through(now, patience).filter(|relented| *relented <= taken)) {
            (Gate::Additions, Some(relented)) => Gate::Through(relented),
            (Gate::Through(sequence), Some(relented)) => Gate::Through(sequence.max(relented)),
            (gate, _) => gate,
        }
    }

    /// Up to which change others need not wait for `progress` to send its own: that is sent, or has waited for as
    /// long as `patience`.
    pub(crate) fn frees_through(&self, progress: &Progress, now: Instant, patience: Duration) -> u64 {
        let additions = if over(self.additions, now, patience) { u64::MAX } else { progress.sent_through() };
        let relented = self.relented_through(now, patience);
        let held = progress.unsent_removals().filter(|removal| relented.is_none_or(|through| *removal > through));
        additions.min(held.min().map_or(u64::MAX, |removal| removal.saturating_sub(1)))
    }

    /// Starts and stops the clocks, after what could be sent was sent. `busy` is whether nothing could for want of an
    /// answer. What the removals wait for holds nothing back up to `free`, and nothing up to `taken` was rejected there.
    pub(crate) fn update(&mut self, progress: &Progress, now: Instant, busy: bool, free: u64, taken: u64) {
        self.additions = (progress.has_unsent_additions() && !busy).then(|| self.additions.unwrap_or(now));
        let waits = |round: &Round| progress.unsent_removals().any(|removal| removal <= round.through);
        self.removals = self.removals.filter(|round| round.through <= taken && waits(round)).or_else(|| {
            let limit = free.min(taken).min(progress.additions_through());
            let newest = progress.unsent_removals().filter(|removal| *removal <= limit).max();
            newest.map(|through| Round { since: now, through })
        });
    }

    /// When it will relent next.
    pub(crate) fn relents(&self, patience: Duration) -> impl Iterator<Item = Instant> {
        self.additions.into_iter().chain(self.removals.map(|round| round.since)).map(move |since| since + patience)
    }

    fn relented_through(&self, now: Instant, patience: Duration) -> Option<u64> {
        self.removals.filter(|round| over(Some(round.since), now, patience)).map(|round| round.through)
    }
}

fn over(since: Option<Instant>, now: Instant, patience: Duration) -> bool {
    since.is_some_and(|since| since + patience <= now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES: [Place; Place::OWN] =
        [Place::Cluster, Place::Endpoint, Place::Listener, Place::ScopedRoute, Place::Route, Place::VirtualHost];

    #[test]
    fn a_type_waits_only_for_lower_places_on_the_way_in() {
        for a in PLACES {
            for b in a.additions_wait_for() {
                assert!(*b < a, "{a:?} waits for {b:?}");
            }
        }
    }

    #[test]
    fn endpoints_and_clusters_wait_for_nothing_on_the_way_in() {
        assert!(Place::Cluster.additions_wait_for().is_empty());
        assert!(Place::Endpoint.additions_wait_for().is_empty());
    }

    #[test]
    fn waiting_for_removals_has_no_circle() {
        fn depth(place: Place, left: u8) -> bool {
            left > 0 && place.removals_wait_for().iter().all(|next| depth(*next, left - 1))
        }
        for place in PLACES {
            assert!(depth(place, 6), "{place:?} waits for itself");
        }
    }
}
