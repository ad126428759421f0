//! What happens, told while it happens, to whoever listens: proxies that come, go, apply and refuse, and revisions.
//!
//! An event is made only if somebody listens, or listened a moment ago, and handed to all who do. Each has the same
//! bounded stretch of events before it; one that reads too slowly loses the oldest, and is told how many. The same
//! stretch is kept for a listener that comes back: it hears what happened while it was away, and is told how much of
//! that is not kept any more. Every event of this process has a number whether somebody listens or not.
//!
//! Invariants: listeners are given events in the order of their numbers, and what is kept ends with the newest event
//! and has no gap.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use serde::Serialize;
use time::OffsetDateTime;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, broadcast},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::model::Name;

/// How many events a listener may be behind. A fleet of thousands answers an edit within milliseconds, with two events each.
const MOST_BEHIND: usize = 1 << 14;

/// How many may listen at once.
const MOST_LISTENERS: usize = 64;

/// How long events are kept once nobody listens any more: who lost a connection is back by then.
const KEPT_FOR: Duration = Duration::from_secs(120);

/// The events of this process.
pub struct Feed {
    sender: broadcast::Sender<Arc<Told>>,
    past: Mutex<Past>,
    /// Tells the numbers of this process from those of another.
    run: String,
    places: Arc<Semaphore>,
    stopping: CancellationToken,
}

/// What there was so far.
#[derive(Default)]
struct Past {
    /// How many events.
    count: u64,
    /// The newest of them.
    kept: VecDeque<Arc<Told>>,
    /// When somebody listened last.
    heard: Option<Instant>,
}

/// An event, when it happened, and which one it is.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Event)]
pub struct Told {
    /// Its number among the events of this process, from 1.
    #[serde(skip)]
    pub number: u64,
    /// When it happened.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub at: OffsetDateTime,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happens. `fleet` is empty for a rate limiter, which belongs to none.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(tag = "event", rename_all = "camelCase")]
#[schema(as = EventKind)]
pub enum Event {
    /// A proxy or rate limiter connected to this replica.
    #[serde(rename_all = "camelCase")]
    Connected {
        /// Its id.
        proxy: String,
        /// Its fleet.
        fleet: String,
        /// Where it connects from.
        #[serde(skip_serializing_if = "Option::is_none")]
        address: Option<String>,
        /// The version it says it is.
        #[serde(skip_serializing_if = "Option::is_none")]
        envoy_version: Option<String>,
    },
    /// Its last stream to this replica ended.
    Disconnected {
        /// Its id.
        proxy: String,
        /// Its fleet.
        fleet: String,
    },
    /// It has applied a response.
    #[serde(rename_all = "camelCase")]
    Acknowledged {
        /// Its id.
        proxy: String,
        /// Its fleet.
        fleet: String,
        /// Type of the resources, by short name.
        r#type: String,
        /// Version of the response.
        version: String,
        /// The revision that the response brings it to.
        revision: u64,
        /// Milliseconds from response to answer.
        lag_ms: f64,
    },
    /// It has refused a response.
    #[serde(rename_all = "camelCase")]
    Rejected {
        /// Its id.
        proxy: String,
        /// Its fleet.
        fleet: String,
        /// Type of the resources, by short name.
        r#type: String,
        /// Version of the response.
        version: String,
        /// The revision that the response would have brought it to.
        revision: u64,
        /// Milliseconds from response to answer.
        lag_ms: f64,
        /// The proxy's words.
        message: String,
        /// The resources that its words name, or all in the response; the first hundred.
        resources: Vec<String>,
    },
    /// It has been sent everything up to a revision, and has answered.
    Settled {
        /// Its id.
        proxy: String,
        /// Its fleet.
        fleet: String,
        /// The revision.
        revision: u64,
    },
    /// A revision is being served by this replica.
    #[serde(rename_all = "camelCase")]
    Revision {
        /// Its number.
        revision: u64,
        /// Who committed it.
        author: String,
        /// Why.
        message: String,
        /// How many resources it changed.
        change_count: u64,
        /// Whose they were and are; none: nobody's.
        #[serde(skip)]
        owners: BTreeSet<Option<Name>>,
    },
    /// A revision has come further, or back, in a fleet that gets its revisions in stages.
    Rollout {
        /// The fleet.
        fleet: String,
        /// The revision.
        revision: u64,
        /// How far it has come: `applying`, `soaking`, `held`, `returned` or `promoted`.
        phase: String,
        /// Why it has failed, if it has.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
}

/// What a listener hears.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// An event.
    Event(Arc<Told>),
    /// Some were missed; how many, if that is known.
    Missed(Option<u64>),
}

/// As many listen as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MOST_LISTENERS} listen already")]
pub struct TooManyListeners;

impl Event {
    /// How the kind of event is called.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Connected { .. } => "connected",
            Self::Disconnected { .. } => "disconnected",
            Self::Acknowledged { .. } => "acknowledged",
            Self::Rejected { .. } => "rejected",
            Self::Settled { .. } => "settled",
            Self::Revision { .. } => "revision",
            Self::Rollout { .. } => "rollout",
        }
    }

    /// The proxy it is about, with its fleet; none if it is about all.
    pub fn about(&self) -> Option<(&str, &str)> {
        match self {
            Self::Connected { proxy, fleet, .. }
            | Self::Disconnected { proxy, fleet }
            | Self::Acknowledged { proxy, fleet, .. }
            | Self::Rejected { proxy, fleet, .. }
            | Self::Settled { proxy, fleet, .. } => Some((proxy, fleet)),
            Self::Revision { .. } | Self::Rollout { .. } => None,
        }
    }
}

impl Feed {
    /// A feed whose listeners hear its end when `stop` is cancelled. `run` tells this process from others.
    pub fn new(run: String, stop: &CancellationToken) -> Self {
        let (places, past) = (Arc::new(Semaphore::new(MOST_LISTENERS)), Mutex::default());
        Self { sender: broadcast::Sender::new(MOST_BEHIND), past, run, places, stopping: stop.child_token() }
    }

    /// Tells all who listen. `event` is made only if somebody does, or may come back, and must be quick.
    pub fn tell(&self, event: impl FnOnce() -> Event) {
        self.tell_at(Instant::now(), event);
    }

    fn tell_at(&self, now: Instant, event: impl FnOnce() -> Event) {
        let mut past = self.past.lock();
        past.count += 1;
        // Who listens has said so first.
        let Some(heard) = past.heard else { return };
        if self.sender.receiver_count() > 0 {
            past.heard = Some(now);
        } else if now.saturating_duration_since(heard) > KEPT_FOR {
            past.heard = None;
            past.kept = VecDeque::new();
            return;
        }
        let told = Arc::new(Told { number: past.count, at: SystemTime::now().into(), event: event() });
        if past.kept.len() == MOST_BEHIND {
            past.kept.pop_front();
        }
        past.kept.push_back(told.clone());
        // The last listener may just have gone.
        let _ = self.sender.send(told);
    }

    /// Listens from here on, or, if `last` is the id of the event that the listener heard last, from there on.
    ///
    /// # Errors
    /// When too many listen.
    pub fn listen(&self, last: Option<&str>) -> Result<Listener, TooManyListeners> {
        let place = self.places.clone().try_acquire_owned().map_err(|_| TooManyListeners)?;
        let last = last.map(|last| self.number_of(last));
        let mut past = self.past.lock();
        past.heard = Some(Instant::now());
        let (missed, kept) = match last {
            None => (None, VecDeque::new()),
            Some(last) => past.since(last),
        };
        let (receiver, stopping) = (self.sender.subscribe(), self.stopping.clone());
        Ok(Listener { receiver, missed, kept, stopping, _place: place })
    }

    /// Lets every listener hear the end.
    pub fn end(&self) {
        self.stopping.cancel();
    }

    /// How the event is called to the outside.
    pub fn id_of(&self, told: &Told) -> String {
        format!("{}-{}", self.run, told.number)
    }

    fn number_of(&self, id: &str) -> Option<u64> {
        id.strip_prefix(&self.run)?.strip_prefix('-')?.parse().ok()
    }
}

impl Past {
    /// What came after the event of this number: how much of it is not kept, if any, and what is. Without a number of
    /// this process nobody knows.
    fn since(&self, last: Option<u64>) -> (Option<Option<u64>>, VecDeque<Arc<Told>>) {
        let Some(last) = last.filter(|last| *last <= self.count) else { return (Some(None), VecDeque::new()) };
        let kept: VecDeque<_> = self.kept.iter().filter(|told| told.number > last).cloned().collect();
        let missed = self.count - last - kept.len() as u64;
        ((missed > 0).then_some(Some(missed)), kept)
    }
}

/// Someone who listens; dropping it frees the place.
pub struct Listener {
    receiver: broadcast::Receiver<Arc<Told>>,
    /// To be told first.
    missed: Option<Option<u64>>,
    /// Then this.
    kept: VecDeque<Arc<Told>>,
    stopping: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Listener {
    /// The next of what it hears; none when the process stops. Can be dropped and asked again without a loss.
    pub async fn next(&mut self) -> Option<Heard> {
        if let Some(missed) = self.missed.take() {
            return Some(Heard::Missed(missed));
        }
        if let Some(told) = self.kept.pop_front() {
            return Some(Heard::Event(told));
        }
        tokio::select! {
            biased;
            () = self.stopping.cancelled() => None,
            received = self.receiver.recv() => match received {
                Ok(told) => Some(Heard::Event(told)),
                Err(broadcast::error::RecvError::Lagged(missed)) => Some(Heard::Missed(Some(missed))),
                Err(broadcast::error::RecvError::Closed) => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed() -> (Feed, CancellationToken) {
        let stopping = CancellationToken::new();
        (Feed::new("run".to_owned(), &stopping), stopping)
    }

    fn settled(revision: u64) -> Event {
        Event::Settled { proxy: "one".to_owned(), fleet: "edge".to_owned(), revision }
    }

    fn revision(heard: Option<Heard>) -> u64 {
        match heard {
            Some(Heard::Event(told)) => match told.event {
                Event::Settled { revision, .. } => revision,
                _ => panic!("{told:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn who_listens_hears_in_order_and_who_does_not_costs_nothing() {
        let (feed, stopping) = feed();
        feed.tell(|| panic!("made for nobody"));
        let mut listener = feed.listen(None).unwrap();
        feed.tell(|| settled(1));
        feed.tell(|| settled(2));
        assert_eq!(revision(listener.next().await), 1);
        assert_eq!(revision(listener.next().await), 2);
        stopping.cancel();
        assert_eq!(listener.next().await, None);
    }

    #[tokio::test]
    async fn a_slow_listener_loses_the_oldest_and_is_told() {
        let (feed, _) = feed();
        let mut listener = feed.listen(None).unwrap();
        for number in 1..=MOST_BEHIND as u64 + 3 {
            feed.tell(|| settled(number));
        }
        assert_eq!(listener.next().await, Some(Heard::Missed(Some(3))));
        assert_eq!(revision(listener.next().await), 4);
    }

    #[tokio::test]
    async fn who_comes_back_hears_what_happened_meanwhile() {
        let (feed, _) = feed();
        let mut listener = feed.listen(None).unwrap();
        feed.tell(|| settled(1));
        let Some(Heard::Event(told)) = listener.next().await else { panic!() };
        let id = feed.id_of(&told);
        assert_eq!(id, "run-1");
        drop(listener);
        feed.tell(|| settled(2));
        let mut again = feed.listen(Some(&id)).unwrap();
        feed.tell(|| settled(3));
        assert_eq!(revision(again.next().await), 2);
        assert_eq!(revision(again.next().await), 3);
    }

    #[tokio::test]
    async fn who_comes_back_is_told_what_is_not_kept() {
        let (feed, _) = feed();
        feed.tell(|| panic!("made for nobody"));
        let first = feed.listen(Some("run-0")).unwrap();
        drop(first);
        for number in 2..=MOST_BEHIND as u64 + 4 {
            feed.tell(|| settled(number));
        }
        let mut listener = feed.listen(Some("run-1")).unwrap();
        assert_eq!(listener.next().await, Some(Heard::Missed(Some(3))));
        assert_eq!(revision(listener.next().await), 5);
        for stranger in ["other-1", "run-99999999", "run-x", "", "run-18446744073709551616"] {
            let mut listener = feed.listen(Some(stranger)).unwrap();
            assert_eq!(listener.next().await, Some(Heard::Missed(None)), "{stranger}");
        }
    }

    #[tokio::test]
    async fn nothing_is_kept_for_long_once_nobody_listens() {
        let (feed, _) = feed();
        drop(feed.listen(None).unwrap());
        feed.tell(|| settled(1));
        feed.tell_at(Instant::now() + KEPT_FOR + Duration::from_secs(1), || panic!("made for nobody"));
        assert_eq!(feed.listen(Some("run-0")).unwrap().next().await, Some(Heard::Missed(Some(2))));
    }

    #[test]
    fn only_so_many_may_listen() {
        let (feed, _) = feed();
        let mut listeners: Vec<_> = (0..MOST_LISTENERS).map(|_| feed.listen(None).unwrap()).collect();
        assert!(feed.listen(None).is_err());
        listeners.pop();
        assert!(feed.listen(None).is_ok());
    }
}
