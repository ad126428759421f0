//! Make before break: which type may be sent while another is not yet applied. Pure.
//!
//! On the way in, clusters and endpoints come before the listeners and routes that refer to
//! them; on the way out it is the other way round. Endpoints are never held back: an Envoy acknowledges
//! a cluster only once it is warm, and it is warm only once its endpoints have come.

use std::time::{Duration, Instant};

use chancery_proto::type_url;

use crate::subscription::{Gate, Progress};

/// Types whose additions must be acknowledged before additions of `type_url` go out.
pub(crate) fn additions_wait_for(type_url: &str) -> &'static [&'static str] {
    match type_url {
        type_url::LISTENER | type_url::SCOPED_ROUTE | type_url::ROUTE | type_url::VIRTUAL_HOST => {
            &[type_url::CLUSTER, type_url::ENDPOINT]
        }
        _ => &[],
    }
}

/// Types that must have nothing left to send or be acknowledged before removals of `type_url` go out.
pub(crate) fn removals_wait_for(type_url: &str) -> &'static [&'static str] {
    match type_url {
        type_url::CLUSTER => &[type_url::LISTENER, type_url::ROUTE, type_url::VIRTUAL_HOST],
        type_url::ENDPOINT => &[type_url::CLUSTER],
        type_url::SCOPED_ROUTE => &[type_url::LISTENER],
        type_url::ROUTE => &[type_url::LISTENER, type_url::SCOPED_ROUTE],
        _ => &[],
    }
}

/// The place of a type when several have something to send: lower goes first.
pub(crate) fn rank(type_url: &str) -> u8 {
    match type_url {
        type_url::CLUSTER => 0,
        type_url::ENDPOINT => 1,
        type_url::LISTENER => 2,
        type_url::SCOPED_ROUTE => 3,
        type_url::ROUTE => 4,
        type_url::VIRTUAL_HOST => 5,
        _ => 6,
    }
}

/// Since when a type has been held back for others; nothing is for ever.
///
/// The clock of removals begins only when the type's own additions are answered, and what they wait for is sent or
/// has waited long enough itself: the routes that lead away from a removed cluster may be waiting for
/// another cluster. Once begun, nothing sets it back.
#[derive(Debug, Default)]
pub(crate) struct Held {
    additions: Option<Instant>,
    removals: Option<Instant>,
}

impl Held {
    /// `gate`, or a wider one if what is behind it has waited for as long as `patience`.
    pub(crate) fn relent(&self, gate: Gate, now: Instant, patience: Duration) -> Gate {
        let (additions, removals) = (over(self.additions, now, patience), over(self.removals, now, patience));
        match gate {
            Gate::Shut if additions && removals => Gate::All,
            Gate::Shut if additions => Gate::Additions,
            Gate::Additions if removals => Gate::All,
            gate => gate,
        }
    }

    /// Whether changes of `progress` up to `sequence` are not sent, and have not waited for as long as `patience`.
    pub(crate) fn holds(&self, progress: &Progress, sequence: u64, now: Instant, patience: Duration) -> bool {
        progress.sent_through() < sequence && !over(self.additions, now, patience)
            || progress.has_unsent_removals() && !over(self.removals, now, patience)
    }

    /// Starts and stops the clocks, after what could be sent was sent. `free` is whether nothing is held that
    /// the removals wait for.
    pub(crate) fn update(&mut self, progress: &Progress, now: Instant, free: bool) {
        let waiting = progress.outstanding().is_some();
        self.additions = (progress.has_unsent_additions() && !waiting).then(|| self.additions.unwrap_or(now));
        let begins = (free && progress.additions_through() >= progress.removals_since()).then_some(now);
        self.removals = progress.has_unsent_removals().then(|| self.removals.or(begins)).flatten();
    }

    /// When it will relent next.
    pub(crate) fn relents(&self, patience: Duration) -> impl Iterator<Item = Instant> {
        self.additions.into_iter().chain(self.removals).map(move |since| since + patience)
    }
}

fn over(since: Option<Instant>, now: Instant, patience: Duration) -> bool {
    since.is_some_and(|since| since + patience <= now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPES: [&str; 6] = [
        type_url::CLUSTER,
        type_url::ENDPOINT,
        type_url::LISTENER,
        type_url::SCOPED_ROUTE,
        type_url::ROUTE,
        type_url::VIRTUAL_HOST,
    ];

    #[test]
    fn a_type_waits_only_for_lower_ranks_on_the_way_in() {
        for a in TYPES {
            for b in additions_wait_for(a) {
                assert!(rank(b) < rank(a), "{a} waits for {b}");
            }
        }
    }

    #[test]
    fn endpoints_and_clusters_wait_for_nothing_on_the_way_in() {
        assert!(additions_wait_for(type_url::CLUSTER).is_empty());
        assert!(additions_wait_for(type_url::ENDPOINT).is_empty());
    }

    #[test]
    fn waiting_for_removals_has_no_circle() {
        fn depth(type_url: &str, left: u8) -> bool {
            left > 0 && removals_wait_for(type_url).iter().all(|next| depth(next, left - 1))
        }
        for type_url in TYPES {
            assert!(depth(type_url, 6), "{type_url} waits for itself");
        }
    }
}
