//! What one stream has been sent and what it said about it, readable while the stream goes on.
//!
//! The stream writes, others read: a short lock around plain data, and a word to those who wait until a
//! sequence has been applied. Nothing is queued. Who must hear of every answer, and not only of the last, gives the
//! status an [`Observe`].

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use chancery_proto::type_url;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    inspection::{Inspection, Questions},
    rejection::mentions,
    resource::{Name, TypeUrl},
    subscription::Sent,
};

/// The state of one stream.
pub struct StreamStatus {
    /// Who hears of every event.
    observer: Option<Box<dyn Observe>>,
    /// There are few; in the order in which they were asked for.
    types: Mutex<Vec<(TypeUrl, TypeStatus)>>,
    settled: AtomicU64,
    /// Wakes who waits for `settled` to move.
    moved: Notify,
    /// The newest change that is kept back because a cluster was rejected; 0 if none is.
    kept_back: AtomicU64,
    questions: Questions,
}

/// Hears what happens on a stream, in order, from the task that serves it: it must be quick and must not wait.
pub trait Observe: Send + Sync {
    /// Something happened.
    fn on(&self, event: StreamEvent<'_>);
}

/// What happens on a stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StreamEvent<'e> {
    /// A response was made, and goes out as soon as the connection takes it.
    Sent(&'e TypeUrl, &'e Stamp),
    /// A response was applied. The names are those that were set in it, and may have been new or changed.
    Acknowledged(&'e TypeUrl, &'e Stamp, &'e [Name]),
    /// A response was rejected. The names are those that were set in it, whether the client's words name them or not.
    Rejected(&'e TypeUrl, &'e Rejection, &'e [Name]),
    /// [`StreamStatus::settled`] has moved here.
    Settled(u64),
}

/// What was sent of one type, and what was answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TypeStatus {
    /// The last response.
    pub sent: Option<Stamp>,
    /// The last response that was applied.
    pub acknowledged: Option<Stamp>,
    /// The last response that was rejected: few ever are.
    pub rejected: Option<Box<Rejection>>,
}

/// One response.
#[derive(Clone, Debug, PartialEq)]
pub struct Stamp {
    /// Version of the whole.
    pub version: Arc<str>,
    /// Its nonce.
    pub nonce: Arc<str>,
    /// The sequence of the cache it stands for.
    pub sequence: u64,
    /// When it was sent, or answered.
    pub at: SystemTime,
    /// How long it took to be answered; zero while it is not.
    pub after: Duration,
}

/// A response that was rejected.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejection {
    /// Which one, and when the rejection came.
    pub response: Stamp,
    /// The client's words, the first 4 KiB of them.
    pub message: String,
    /// The resources in the response that the client's words name; all of them if none is named.
    pub resources: Vec<Name>,
}

impl Default for StreamStatus {
    fn default() -> Self {
        Self {
            observer: None,
            types: Mutex::default(),
            settled: AtomicU64::new(0),
            moved: Notify::new(),
            kept_back: AtomicU64::new(0),
            questions: Questions::default(),
        }
    }
}

impl fmt::Debug for StreamStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { observer: _, types, settled, moved: _, kept_back, questions: _ } = self;
        let mut shown = f.debug_struct("StreamStatus");
        shown
            .field("types", &*types.lock())
            .field("settled", settled)
            .field("kept_back", kept_back)
            .finish_non_exhaustive()
    }
}

impl StreamStatus {
    /// A status of a new stream, of which `observer` hears.
    pub fn observed(observer: Box<dyn Observe>) -> Self {
        Self { observer: Some(observer), ..Self::default() }
    }

    /// A copy of what is known, by type.
    pub fn types(&self) -> BTreeMap<TypeUrl, TypeStatus> {
        self.types.lock().iter().cloned().collect()
    }

    /// Looks at what is known, type by type, without a copy. The stream waits meanwhile: be quick.
    pub fn look(&self, mut at: impl FnMut(&TypeUrl, &TypeStatus)) {
        self.types.lock().iter().for_each(|(type_url, status)| at(type_url, status));
    }

    /// The sequence up to which everything the client asked for was sent and answered, or is kept back because of
    /// a rejection. It only grows.
    pub fn settled(&self) -> u64 {
        self.settled.load(Ordering::Acquire)
    }

    /// Waits until [`StreamStatus::settled`] has come to `sequence`. It never does if the stream ends before.
    pub async fn settled_at(&self, sequence: u64) {
        loop {
            // In this order: what moves after the look wakes it.
            let moved = self.moved.notified();
            if self.settled() >= sequence {
                return;
            }
            moved.await;
        }
    }

    /// The rejections of responses at or after `sequence`, and those because of which such changes are kept back.
    pub fn rejections_since(&self, sequence: u64) -> Vec<(TypeUrl, Rejection)> {
        let types = self.types.lock();
        let rejected =
            types.iter().filter_map(|(of, status)| Some((of.clone(), Rejection::clone(status.rejected.as_ref()?))));
        let keeps_back =
            |type_url: &str| type_url == type_url::CLUSTER && self.kept_back.load(Ordering::Acquire) >= sequence;
        let since = |(type_url, rejection): &(TypeUrl, Rejection)| {
            rejection.response.sequence >= sequence || keeps_back(type_url)
        };
        rejected.filter(since).collect()
    }

    /// How the client stands with each resource that it asked for. The stream is asked, which costs it a look at every name:
    /// not for routine. Waits for as long as the stream takes to answer; none if it has ended, or too many ask at once.
    pub async fn inspect(&self) -> Option<Arc<Inspection>> {
        self.questions.ask().await
    }

    pub(crate) fn questions(&self) -> &Questions {
        &self.questions
    }

    pub(crate) fn on_kept_back(&self, newest: Option<u64>) {
        self.kept_back.store(newest.unwrap_or(0), Ordering::Release);
    }

    pub(crate) fn on_subscribed(&self, type_url: &TypeUrl) {
        self.with(type_url, |_| ());
    }

    pub(crate) fn on_sent(&self, type_url: &TypeUrl, sent: &Sent, now: SystemTime) {
        let stamp = stamp(sent, now, Duration::ZERO);
        self.with(type_url, |status| status.sent = Some(stamp.clone()));
        self.tell(StreamEvent::Sent(type_url, &stamp));
    }

    pub(crate) fn on_acknowledged(&self, type_url: &TypeUrl, sent: &Sent, now: SystemTime) {
        let stamp = stamp(sent, now, sent.at.elapsed());
        self.with(type_url, |status| status.acknowledged = Some(stamp.clone()));
        self.tell(StreamEvent::Acknowledged(type_url, &stamp, &sent.set));
    }

    pub(crate) fn on_rejected(&self, type_url: &TypeUrl, rejection: &Rejection, set: &[Name]) {
        self.with(type_url, |status| status.rejected = Some(Box::new(rejection.clone())));
        self.tell(StreamEvent::Rejected(type_url, rejection, set));
    }

    /// Everything up to `sequence` was sent and answered. A stream says so; who has no stream, for tests, may as well.
    pub fn on_settled(&self, sequence: u64) {
        // Most often it is where it was.
        if sequence <= self.settled() || self.settled.fetch_max(sequence, Ordering::AcqRel) >= sequence {
            return;
        }
        self.moved.notify_waiters();
        self.tell(StreamEvent::Settled(sequence));
    }

    fn with(&self, type_url: &TypeUrl, change: impl FnOnce(&mut TypeStatus)) {
        let mut types = self.types.lock();
        let at = types.iter().position(|(known, _)| known == type_url).unwrap_or_else(|| {
            types.reserve_exact(1);
            types.push((type_url.clone(), TypeStatus::default()));
            types.len() - 1
        });
        change(&mut types[at].1);
    }

    /// Without the lock: who hears may look at the status.
    fn tell(&self, event: StreamEvent<'_>) {
        if let Some(observer) = &self.observer {
            observer.on(event);
        }
    }
}

/// Which of the resources of a rejected response its message is about.
pub(crate) fn rejection(sent: &Sent, message: String, now: SystemTime) -> Rejection {
    let named: Vec<Name> = sent.names.iter().filter(|name| mentions(&message, name)).cloned().collect();
    let response = stamp(sent, now, sent.at.elapsed());
    Rejection { response, message, resources: if named.is_empty() { sent.names.to_vec() } else { named } }
}

fn stamp(sent: &Sent, at: SystemTime, after: Duration) -> Stamp {
    Stamp { version: sent.version.clone(), nonce: sent.nonce.clone(), sequence: sent.sequence, at, after }
}

/// A status shared by a stream and its readers.
pub type SharedStatus = Arc<StreamStatus>;

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::{task::yield_now, time::timeout};

    use super::*;

    #[test]
    fn a_rejection_names_the_resources_its_message_is_about() {
        let sent = Sent {
            nonce: "1".into(),
            version: "v".into(),
            sequence: 3,
            names: ["web", "web-2", "api"].map(Name::from).into(),
            set: [].into(),
            complete: true,
            at: std::time::Instant::now(),
        };
        let words = "Error adding/updating listener(s) web-2: bad port";
        assert_eq!(rejection(&sent, words.into(), SystemTime::now()).resources, [Name::from("web-2")]);
        assert_eq!(rejection(&sent, "bad".into(), SystemTime::now()).resources.len(), 3);
    }

    #[tokio::test]
    async fn who_waits_for_a_sequence_is_woken_when_it_is_reached_or_passed() {
        let status = Arc::<StreamStatus>::default();
        let waiting = tokio::spawn({
            let status = status.clone();
            async move { status.settled_at(3).await }
        });
        yield_now().await;
        status.on_settled(2);
        yield_now().await;
        assert!(!waiting.is_finished());
        status.on_settled(5);
        timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
        assert_eq!(status.settled_at(4).now_or_never(), Some(()));
    }

    #[test]
    fn an_observer_hears_of_everything_once_and_may_look_at_the_status() {
        struct Heard(Arc<Mutex<Vec<String>>>);
        impl Observe for Heard {
            fn on(&self, event: StreamEvent<'_>) {
                self.0.lock().push(match event {
                    StreamEvent::Sent(_, stamp) => format!("sent {}", stamp.nonce),
                    StreamEvent::Acknowledged(_, stamp, set) => format!("acknowledged {} {set:?}", stamp.nonce),
                    StreamEvent::Rejected(_, rejection, set) => format!("rejected {set:?}: {}", rejection.message),
                    StreamEvent::Settled(sequence) => format!("settled {sequence}"),
                });
            }
        }
        let heard = Arc::default();
        let status = StreamStatus::observed(Box::new(Heard(Arc::clone(&heard))));
        let (cluster, now) = (type_url::CLUSTER.into(), SystemTime::now());
        let sent = Sent {
            nonce: "1".into(),
            version: "v".into(),
            sequence: 3,
            names: [].into(),
            set: ["shop".into()].into(),
            complete: true,
            at: std::time::Instant::now(),
        };
        status.on_sent(&cluster, &sent, now);
        status.on_acknowledged(&cluster, &sent, now);
        status.on_settled(3);
        status.on_settled(3);
        status.on_rejected(&cluster, &rejection(&sent, "bad".into(), now), &sent.set);
        assert_eq!(*heard.lock(), ["sent 1", "acknowledged 1 [\"shop\"]", "settled 3", "rejected [\"shop\"]: bad"]);
    }

    #[test]
    fn a_rejection_counts_for_changes_that_are_kept_back_because_of_it() {
        let status = StreamStatus::default();
        let response = Stamp {
            version: "v".into(),
            nonce: "1".into(),
            sequence: 3,
            at: SystemTime::UNIX_EPOCH,
            after: Duration::ZERO,
        };
        let rejection = Rejection { response, message: "bad".into(), resources: Vec::new() };
        status.on_rejected(&type_url::CLUSTER.into(), &rejection, &[]);
        status.on_rejected(&type_url::SECRET.into(), &rejection, &[]);
        let since = |sequence| status.rejections_since(sequence).len();
        assert_eq!([3, 4].map(since), [2, 0]);
        status.on_kept_back(Some(7));
        assert_eq!([3, 7, 8].map(since), [2, 1, 0]);
        status.on_kept_back(None);
        assert_eq!(since(4), 0);
    }
}
