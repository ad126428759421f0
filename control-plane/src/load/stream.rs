//! What one stream has reported. Pure: time comes in as an argument.
//!
//! A report says what was counted since the one before it, and what is in progress now. Numbers are somebody else's: one
//! report adds at most `u32::MAX` of anything, sums saturate, and an interval that makes no sense is replaced by ours.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use chancery_proto::{envoy::endpoint::ClusterStats, google::protobuf};

use super::{Counts, window::Window};
use crate::model::Name;

/// What rates are taken over.
pub const WINDOW: Duration = Duration::from_secs(60);

/// The last minute, by the second.
type Minute = Window<1, 60>;

/// The last fifteen minutes, in steps of ten seconds.
type Quarter = Window<10, 90>;

/// What one stream has reported.
#[derive(Debug)]
pub(super) struct StreamLoad {
    opened: Instant,
    /// What is counted began here; none before the first report.
    began: Option<Instant>,
    last: Instant,
    all: Quarter,
    services: HashMap<Name, OneLoad>,
}

/// What it has reported of one service.
#[derive(Debug, Default)]
struct OneLoad {
    minute: Minute,
    in_progress: u64,
}

/// What there is to say of a service on one stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Seen {
    /// Over the last while.
    pub(super) counts: Counts,
    /// As of the last report.
    pub(super) in_progress: u64,
}

impl StreamLoad {
    /// Nothing reported yet.
    pub(super) fn new(opened: Instant) -> Self {
        Self { opened, began: None, last: opened, all: Quarter::default(), services: HashMap::new() }
    }

    /// Takes in a report that came at `now` and covers `interval`, unless it says otherwise itself. Clusters for which
    /// `service` has no name count only for all together; at most `room` services may join those that are known.
    pub(super) fn report(
        &mut self,
        report: &[ClusterStats],
        now: Instant,
        interval: Duration,
        mut room: usize,
        service: impl Fn(&str) -> Option<Name>,
    ) {
        self.last = now.max(self.last);
        let second = self.second(self.last);
        if self.began.is_none() && !report.is_empty() {
            let covers = report.iter().filter_map(|stats| stats.load_report_interval.as_ref()).find_map(plausible);
            // What came before the stream was opened may be in it.
            self.began = Some(self.last.checked_sub(covers.unwrap_or(interval)).unwrap_or(self.last));
        }
        // What a report does not mention has nothing in progress.
        self.services.values_mut().for_each(|load| load.in_progress = 0);
        for stats in report {
            let (counts, in_progress) = read(stats);
            if in_progress == 0 && counts.is_zero() {
                continue;
            }
            self.all.add(second, counts);
            let Some(name) = service(&stats.cluster_name) else { continue };
            if !self.services.contains_key(&name) {
                if room == 0 {
                    continue;
                }
                room -= 1;
            }
            let load = self.services.entry(name).or_default();
            load.minute.add(second, counts);
            load.in_progress = load.in_progress.saturating_add(in_progress);
        }
        self.all.expire(second);
        self.services.retain(|_, load| {
            load.minute.expire(second);
            load.in_progress > 0 || !load.minute.is_empty()
        });
        if self.services.capacity() > 4 * (self.services.len() + 16) {
            self.services.shrink_to_fit();
        }
    }

    /// How many services it keeps something of.
    pub(super) fn len(&self) -> usize {
        self.services.len()
    }

    /// The services it keeps something of.
    pub(super) fn services(&self) -> impl Iterator<Item = (&Name, Seen)> {
        self.services.iter().map(|(name, load)| (name, load.seen()))
    }

    /// What it has reported of a service; nothing is zero.
    pub(super) fn of(&self, service: &str) -> Seen {
        self.services.get(service).map_or(Seen { counts: Counts::default(), in_progress: 0 }, OneLoad::seen)
    }

    /// From when until when what is counted was counted; none before the first report.
    pub(super) fn span(&self) -> Option<(Instant, Instant)> {
        let began = self.began?;
        Some((began.max(self.last.checked_sub(WINDOW).unwrap_or(began)), self.last))
    }

    /// What was reported of all services in steps of ten seconds that begin at `since` or later, of the last 15 minutes; none
    /// before the first report.
    pub(super) fn counts_since(&self, since: Instant) -> Option<Counts> {
        self.began?;
        let since = since.saturating_duration_since(self.opened);
        let second = since.as_secs() + u64::from(since.subsec_nanos() > 0);
        Some(self.all.since(u32::try_from(second).unwrap_or(u32::MAX)))
    }

    fn second(&self, at: Instant) -> u32 {
        u32::try_from(at.saturating_duration_since(self.opened).as_secs()).unwrap_or(u32::MAX)
    }
}

impl OneLoad {
    fn seen(&self) -> Seen {
        Seen { counts: self.minute.sum(), in_progress: self.in_progress }
    }
}

/// What a report says of one cluster: all localities together.
fn read(stats: &ClusterStats) -> (Counts, u64) {
    let clamp = |value: u64| value.min(u32::MAX.into());
    let (mut counts, mut in_progress) = (Counts::default(), 0_u64);
    for locality in &stats.upstream_locality_stats {
        counts += Counts {
            successes: clamp(locality.total_successful_requests),
            errors: clamp(locality.total_error_requests),
            dropped: 0,
        };
        in_progress = in_progress.saturating_add(clamp(locality.total_requests_in_progress));
    }
    // By category, and their sum; some say only one of them.
    let by_category = stats.dropped_requests.iter().fold(0_u64, |sum, one| sum.saturating_add(one.dropped_count));
    counts.dropped = clamp(stats.total_dropped_requests.max(by_category));
    let counts = Counts { successes: clamp(counts.successes), errors: clamp(counts.errors), ..counts };
    (counts, clamp(in_progress))
}

fn plausible(interval: &protobuf::Duration) -> Option<Duration> {
    let interval = Duration::new(u64::try_from(interval.seconds).ok()?, u32::try_from(interval.nanos).ok()?);
    (interval <= WINDOW).then_some(interval)
}

#[cfg(test)]
mod tests;
