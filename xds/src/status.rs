//! What one stream has been sent and what it said about it, readable while the stream goes on.
//!
//! The stream writes, others read: a short lock around plain data, and a watch for those who wait until a
//! sequence has been applied. Nothing is queued.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use chancery_proto::type_url;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    rejection::mentions,
    resource::{Name, TypeUrl},
    subscription::Sent,
};

/// The state of one stream.
#[derive(Debug)]
pub struct StreamStatus {
    types: Mutex<BTreeMap<TypeUrl, TypeStatus>>,
    settled: watch::Sender<u64>,
    /// The newest change that is kept back because a cluster was rejected; 0 if none is.
    kept_back: AtomicU64,
}

/// What was sent of one type, and what was answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TypeStatus {
    /// The last response.
    pub sent: Option<Stamp>,
    /// The last response that was applied.
    pub acknowledged: Option<Stamp>,
    /// The last response that was rejected.
    pub rejected: Option<Rejection>,
}

/// One response.
#[derive(Clone, Debug, PartialEq)]
pub struct Stamp {
    /// Version of the whole.
    pub version: String,
    /// Its nonce.
    pub nonce: String,
    /// The sequence of the cache it stands for.
    pub sequence: u64,
    /// When it was sent, or answered.
    pub at: SystemTime,
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
        Self { types: Mutex::default(), settled: watch::Sender::new(0), kept_back: AtomicU64::new(0) }
    }
}

impl StreamStatus {
    /// A copy of what is known, by type.
    pub fn types(&self) -> BTreeMap<TypeUrl, TypeStatus> {
        self.types.lock().clone()
    }

    /// The sequence up to which everything the client asked for was sent and answered, or is kept back because of
    /// a rejection. It only grows.
    pub fn settled(&self) -> u64 {
        *self.settled.borrow()
    }

    /// Marked changed when [`StreamStatus::settled`] moves.
    pub fn watch_settled(&self) -> watch::Receiver<u64> {
        self.settled.subscribe()
    }

    /// The rejections of responses at or after `sequence`, and those because of which such changes are kept back.
    pub fn rejections_since(&self, sequence: u64) -> Vec<(TypeUrl, Rejection)> {
        let types = self.types.lock();
        let rejected = types.iter().filter_map(|(type_url, status)| Some((type_url.clone(), status.rejected.clone()?)));
        let keeps_back =
            |type_url: &str| type_url == type_url::CLUSTER && self.kept_back.load(Ordering::Acquire) >= sequence;
        let since = |(type_url, rejection): &(TypeUrl, Rejection)| {
            rejection.response.sequence >= sequence || keeps_back(type_url)
        };
        rejected.filter(since).collect()
    }

    pub(crate) fn on_kept_back(&self, newest: Option<u64>) {
        self.kept_back.store(newest.unwrap_or(0), Ordering::Release);
    }

    pub(crate) fn on_sent(&self, type_url: &TypeUrl, sent: &Sent, now: SystemTime) {
        self.types.lock().entry(type_url.clone()).or_default().sent = Some(stamp(sent, now));
    }

    pub(crate) fn on_subscribed(&self, type_url: &TypeUrl) {
        self.types.lock().entry(type_url.clone()).or_default();
    }

    pub(crate) fn on_acknowledged(&self, type_url: &TypeUrl, sent: &Sent, now: SystemTime) {
        self.types.lock().entry(type_url.clone()).or_default().acknowledged = Some(stamp(sent, now));
    }

    pub(crate) fn on_rejected(&self, type_url: &TypeUrl, rejection: Rejection) {
        self.types.lock().entry(type_url.clone()).or_default().rejected = Some(rejection);
    }

    pub(crate) fn on_settled(&self, sequence: u64) {
        self.settled.send_if_modified(|settled| sequence > *settled && std::mem::replace(settled, sequence) < sequence);
    }
}

/// Which of the resources of a rejected response its message is about.
pub(crate) fn rejection(sent: Sent, message: String, now: SystemTime) -> Rejection {
    let named: Vec<Name> = sent.names.iter().filter(|name| mentions(&message, name)).cloned().collect();
    let response = stamp(&sent, now);
    Rejection { response, message, resources: if named.is_empty() { sent.names } else { named } }
}

fn stamp(sent: &Sent, at: SystemTime) -> Stamp {
    Stamp { version: sent.version.clone(), nonce: sent.nonce.clone(), sequence: sent.sequence, at }
}

/// A status shared by a stream and its readers.
pub type SharedStatus = Arc<StreamStatus>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_names_the_resources_its_message_is_about() {
        let sent = Sent {
            nonce: "1".into(),
            version: "v".into(),
            sequence: 3,
            names: ["web", "web-2", "api"].map(Name::from).into(),
            set: Vec::new(),
            complete: true,
            at: std::time::Instant::now(),
        };
        let words = "Error adding/updating listener(s) web-2: bad port";
        assert_eq!(rejection(sent.clone(), words.into(), SystemTime::now()).resources, [Name::from("web-2")]);
        assert_eq!(rejection(sent, "bad".into(), SystemTime::now()).resources.len(), 3);
    }

    #[test]
    fn a_rejection_counts_for_changes_that_are_kept_back_because_of_it() {
        let status = StreamStatus::default();
        let response = Stamp { version: "v".into(), nonce: "1".into(), sequence: 3, at: SystemTime::UNIX_EPOCH };
        let rejection = Rejection { response, message: "bad".into(), resources: Vec::new() };
        status.on_rejected(&type_url::CLUSTER.into(), rejection.clone());
        status.on_rejected(&type_url::SECRET.into(), rejection);
        let since = |sequence| status.rejections_since(sequence).len();
        assert_eq!([3, 4].map(since), [2, 0]);
        status.on_kept_back(Some(7));
        assert_eq!([3, 7, 8].map(since), [2, 1, 0]);
        status.on_kept_back(None);
        assert_eq!(since(4), 0);
    }
}
