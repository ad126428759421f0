//! The streams that report, and sums over them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use chancery_proto::envoy::endpoint::ClusterStats;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{Counts, stream::StreamLoad};
use crate::model::Name;

/// How many pairs of stream and service are kept, over all streams; what is beyond is not counted by service. About 200
/// bytes each.
pub const MAX_ENTRIES: usize = 500_000;

/// Streams of one proxy: while it restarts there are two, and a third may be dead and not known to be.
const MAX_STREAMS: usize = 4;

/// The streams that report.
#[derive(Debug)]
pub struct Loads {
    interval: Duration,
    state: Mutex<State>,
    entries: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    streams: BTreeMap<(Name, Name, u64), Stream>,
}

#[derive(Clone, Debug)]
struct Stream {
    load: Arc<Mutex<StreamLoad>>,
    replaced: CancellationToken,
}

/// A stream that reports; dropping it takes away what it reported.
#[derive(Debug)]
pub struct Reporting {
    loads: Arc<Loads>,
    key: (Name, Name, u64),
    stream: Stream,
}

/// The load of a service in a fleet.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ServiceLoad {
    /// Over the last minute at most.
    pub counts: Counts,
    /// Requests that ended per second, in that time.
    pub requests_per_second: f64,
    /// Requests in progress, as of the last reports.
    pub in_progress: u64,
    /// How many proxies of the fleet report, whether they have something to report of the service or not.
    pub proxies: usize,
    /// Since when what is counted was counted; none if no proxy has reported.
    pub since: Option<Instant>,
}

/// What some proxies have reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// All services together.
    pub counts: Counts,
    /// How many proxies it is of.
    pub proxies: usize,
}

impl Loads {
    /// Nobody yet; proxies are to report every `interval`.
    pub fn new(interval: Duration) -> Self {
        Self { interval, state: Mutex::default(), entries: AtomicUsize::new(0) }
    }

    /// How often proxies are to report.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Registers a stream of a proxy. If it has too many, the oldest is replaced.
    pub fn connect(self: &Arc<Self>, fleet: Name, proxy: Name, now: Instant) -> Reporting {
        let stream = Stream { load: Arc::new(Mutex::new(StreamLoad::new(now))), replaced: CancellationToken::new() };
        let mut state = self.state.lock();
        let key = (fleet, proxy, state.next);
        state.next += 1;
        let own = of_proxy(&state, &key.0, &key.1).filter(|stream| !stream.replaced.is_cancelled());
        let own: Vec<&Stream> = own.collect();
        if own.len() >= MAX_STREAMS
            && let Some(oldest) = own.first()
        {
            oldest.replaced.cancel();
        }
        state.streams.insert(key.clone(), stream.clone());
        Reporting { loads: self.clone(), key, stream }
    }

    /// The load of a service, in each fleet in which some proxy reports, or in one.
    pub fn of_service(&self, service: &Name, fleet: Option<&Name>) -> BTreeMap<Name, ServiceLoad> {
        let mut sums: BTreeMap<Name, ServiceLoad> = BTreeMap::new();
        self.each(fleet, |of, newest, load| {
            let (seen, span) = (load.of(service.as_str()), load.span());
            sums.entry(of.clone()).or_default().add(seen.counts, seen.in_progress, newest, span);
        });
        sums
    }

    /// The load of every service that has some, by service and fleet.
    pub fn of_services(&self, fleet: Option<&Name>) -> BTreeMap<(Name, Name), ServiceLoad> {
        let mut sums: BTreeMap<(Name, Name), ServiceLoad> = BTreeMap::new();
        let mut reporting: BTreeMap<Name, usize> = BTreeMap::new();
        self.each(fleet, |of, newest, load| {
            let span = load.span();
            *reporting.entry(of.clone()).or_default() += usize::from(newest && span.is_some());
            for (service, seen) in load.services() {
                let sum = sums.entry((service.clone(), of.clone())).or_default();
                sum.add(seen.counts, seen.in_progress, newest, span);
            }
        });
        for ((_, fleet), load) in &mut sums {
            load.proxies = reporting.get(fleet).copied().unwrap_or_default();
        }
        sums
    }

    /// What the proxies of `fleet` that are `wanted` have counted since, of the last 15 minutes: the gate of a rollout.
    ///
    /// Only what was surely counted after `since` is in it: a report covers the interval before it, so the first one is left
    /// out, and counts are kept in steps of ten seconds. A proxy that has connected anew has its history from then on.
    pub fn counts_since(&self, fleet: &Name, wanted: impl Fn(&Name) -> bool, since: Instant) -> Counted {
        let (mut counts, mut proxies) = (Counts::default(), BTreeSet::new());
        let since = since + self.interval;
        for ((_, proxy, _), stream) in self.streams(Some(fleet)).into_iter().filter(|((_, proxy, _), _)| wanted(proxy))
        {
            if let Some(counted) = stream.load.lock().counts_since(since) {
                counts += counted;
                proxies.insert(proxy);
            }
        }
        Counted { counts, proxies: proxies.len() }
    }

    /// Looks at each stream, of `fleet` or all, and whether it is the newest of its proxy. No lock is held for all of them.
    fn each(&self, fleet: Option<&Name>, mut look: impl FnMut(&Name, bool, &StreamLoad)) {
        let streams = self.streams(fleet);
        for (at, ((fleet, proxy, _), stream)) in streams.iter().enumerate() {
            let next = streams.get(at + 1);
            let newest = next.is_none_or(|((next_fleet, next, _), _)| (next_fleet, next) != (fleet, proxy));
            look(fleet, newest, &stream.load.lock());
        }
    }

    fn streams(&self, fleet: Option<&Name>) -> Vec<((Name, Name, u64), Stream)> {
        let state = self.state.lock();
        let wanted = state.streams.iter().filter(|((of, ..), _)| fleet.is_none_or(|fleet| fleet == of));
        wanted.map(|(key, stream)| (key.clone(), stream.clone())).collect()
    }
}

fn of_proxy<'a>(state: &'a State, fleet: &Name, proxy: &Name) -> impl Iterator<Item = &'a Stream> {
    let (from, to) = ((fleet.clone(), proxy.clone(), 0), (fleet.clone(), proxy.clone(), u64::MAX));
    state.streams.range(from..to).map(|(_, stream)| stream)
}

impl ServiceLoad {
    fn add(&mut self, counts: Counts, in_progress: u64, is_newest: bool, span: Option<(Instant, Instant)>) {
        let Some((from, to)) = span else { return };
        self.counts += counts;
        self.in_progress = self.in_progress.saturating_add(in_progress);
        self.proxies += usize::from(is_newest);
        self.since = Some(self.since.map_or(from, |since| since.min(from)));
        let seconds = to.saturating_duration_since(from).as_secs_f64().max(1.0);
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let rate = counts.requests() as f64 / seconds;
        self.requests_per_second += rate;
    }
}

impl Reporting {
    /// Takes in a report that came at `now`. Clusters for which `service` has no name count only for all
    /// together.
    pub fn report(&self, report: &[ClusterStats], now: Instant, service: impl Fn(&str) -> Option<Name>) {
        let mut load = self.stream.load.lock();
        let before = load.len();
        let room = MAX_ENTRIES.saturating_sub(self.loads.entries.load(Relaxed));
        load.report(report, now, self.loads.interval, room, service);
        let after = load.len();
        drop(load);
        // A few too many, where streams report at once, are of no consequence.
        if after >= before {
            self.loads.entries.fetch_add(after - before, Relaxed);
        } else {
            self.loads.entries.fetch_sub(before - after, Relaxed);
        }
    }

    /// Cancelled when the proxy has opened so many other streams that this one cannot be in use.
    pub fn replaced(&self) -> &CancellationToken {
        &self.stream.replaced
    }
}

impl Drop for Reporting {
    fn drop(&mut self) {
        self.loads.state.lock().streams.remove(&self.key);
        self.loads.entries.fetch_sub(self.stream.load.lock().len(), Relaxed);
    }
}

#[cfg(test)]
mod tests;
