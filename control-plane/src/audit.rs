//! Writes down what no transaction of its own writes: refusals, sign-ins, decisions that are no revisions.
//!
//! - A decision is appended before its caller is answered ([`Audit::done`]). If the database does not take it, it waits with the rest.
//! - Refusals and sign-ins wait for the owner of the queue ([`Audit::run`]), a second at most, so that nobody who is refused can make
//!   the database work. Those that are alike are one entry per minute (`refusals`). If a process is killed, those of its
//!   last second are lost, repetitions of its last minute, and a decision whose caller was not answered yet. Nothing else is: revisions and
//!   tokens are written in one transaction with their entries.
//! - What waits while the database is away is bounded; what is dropped then is counted and logged.

mod refusals;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use chancery_runtime::telemetry::chain;
use parking_lot::Mutex;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::task::JoinError;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::refusals::Refusals;
use crate::{
    metrics::AUDIT_DROPPED,
    store::{Action, NewEntry, Store, StoreError},
};

/// How often what waits is written down.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// How often it is seen whether entries are too old.
const TRIM_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// The most entries of one transaction, and the most that wait.
const BATCH: usize = 256;
const MOST_WAITING: usize = 4096;

/// After so long the use of a token from the same address is told again.
const SIGN_IN_AGAIN: time::Duration = time::Duration::DAY;

/// How many pairs of principal and address are told apart; of more, none is told until one of these is a day old.
const MOST_SIGN_INS: usize = 100_000;

/// Who does something, and from where.
#[derive(Clone, Copy, Debug)]
pub struct By<'a> {
    /// The name of the principal; empty if nobody knows.
    pub name: &'a str,
    /// Where the request comes from: the other end of the connection, or what a trusted proxy says.
    pub address: Option<IpAddr>,
}

impl By<'_> {
    /// That they have done something.
    pub fn done(self, action: Action, at: OffsetDateTime) -> NewEntry {
        NewEntry::done(action, self.name, &shown(self.address), at)
    }
}

/// Who counts as one caller: an address, or the network of 64 bits of an IPv6 address. Whoever has one address of that has all of them.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => (address.to_bits() >> 64 << 64).to_be_bytes().into(),
        address => address,
    }
}

/// An address as it is written down.
pub fn shown(address: Option<IpAddr>) -> String {
    address.map(|address| address.to_canonical().to_string()).unwrap_or_default()
}

/// A time as it is written down.
pub fn moment(time: OffsetDateTime) -> Option<String> {
    time.format(&Rfc3339).ok()
}

/// What is to be written down.
pub struct Audit {
    store: Arc<dyn Store>,
    waiting: Mutex<Waiting>,
    decisions: TaskTracker,
}

#[derive(Default)]
struct Waiting {
    entries: Vec<NewEntry>,
    refusals: Refusals,
    /// By name and address, when a sign-in was told.
    sign_ins: HashMap<(String, Option<String>, String), OffsetDateTime>,
}

impl Audit {
    /// Writes to `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, waiting: Mutex::default(), decisions: TaskTracker::new() }
    }

    /// Carries a decision through, with its entry, even if whoever made it goes away.
    ///
    /// # Errors
    /// It panicked.
    pub async fn carried_through<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, JoinError> {
        self.decisions.spawn(work).await
    }

    /// Writes down what was done; when this returns it is, or the database is away.
    pub async fn done(&self, entry: NewEntry) {
        if let Err(error) = self.store.append_audit(vec![entry.clone()]).await {
            tracing::warn!(error = chain(&error), action = %entry.action, "an entry of the audit log waits for the database");
            self.waiting.lock().add([entry]);
        }
    }

    /// Something was refused.
    pub fn refused(&self, entry: NewEntry) {
        self.waiting.lock().refusals.note(entry);
    }

    /// Somebody is known; it is told once a day and address, with what is known of them beside their name, as JSON.
    pub fn signed_in(
        &self,
        by: By<'_>,
        subject: Option<&str>,
        at: OffsetDateTime,
        known: impl FnOnce() -> Option<String>,
    ) {
        let mut waiting = self.waiting.lock();
        if waiting.is_new(by, subject, at) {
            waiting.add([NewEntry { after: known(), ..by.done(Action::SignIn, at) }]);
        }
    }

    /// Writes down what waits, and forgets what is older than `keep`, until `stop`; then what waits still.
    pub async fn run(self: Arc<Self>, keep: Option<Duration>, stop: CancellationToken) {
        let (mut away, mut trimmed) = (false, None::<Instant>);
        loop {
            let stopped = tokio::select! {
                () = stop.cancelled() => true,
                () = tokio::time::sleep(WRITE_INTERVAL) => false,
            };
            if stopped {
                self.decisions.close();
                self.decisions.wait().await;
            }
            let now = OffsetDateTime::now_utc();
            match self.write(now, stopped).await {
                Ok(()) => away = false,
                Err(error) => {
                    if !std::mem::replace(&mut away, true) {
                        tracing::warn!(error = chain(&error), "the audit log waits for the database");
                    }
                }
            }
            if stopped {
                return;
            }
            if let Some(keep) = keep
                && trimmed.is_none_or(|trimmed| trimmed.elapsed() >= TRIM_INTERVAL)
            {
                trimmed = Some(Instant::now());
                if let Err(error) = self.trim(keep, now, &stop).await {
                    tracing::warn!(error = chain(&error), "old entries of the audit log are kept for now");
                }
            }
        }
    }

    async fn write(&self, now: OffsetDateTime, all: bool) -> Result<(), StoreError> {
        {
            let mut waiting = self.waiting.lock();
            let due = waiting.refusals.due(now, all);
            waiting.add(due);
        }
        loop {
            let batch: Vec<NewEntry> = {
                let mut waiting = self.waiting.lock();
                let end = waiting.entries.len().min(BATCH);
                waiting.entries.drain(..end).collect()
            };
            if batch.is_empty() {
                return Ok(());
            }
            if let Err(error) = self.store.append_audit(batch.clone()).await {
                let mut waiting = self.waiting.lock();
                let later = std::mem::take(&mut waiting.entries);
                waiting.add(batch.into_iter().chain(later));
                return Err(error);
            }
        }
    }

    async fn trim(&self, keep: Duration, now: OffsetDateTime, stop: &CancellationToken) -> Result<(), StoreError> {
        // Older than time itself there is nothing.
        let keep = time::Duration::try_from(keep).ok().and_then(|keep| now.checked_sub(keep));
        let Some(before) = keep else { return Ok(()) };
        while !stop.is_cancelled() && self.store.trim_audit(before, now).await? > 0 {}
        Ok(())
    }
}

impl Waiting {
    fn add(&mut self, entries: impl IntoIterator<Item = NewEntry>) {
        for entry in entries {
            if self.entries.len() < MOST_WAITING {
                self.entries.push(entry);
            } else {
                metrics::counter!(AUDIT_DROPPED).increment(1);
                tracing::error!(action = %entry.action, actor = entry.actor, "an entry of the audit log is dropped: too many wait");
            }
        }
    }

    fn is_new(&mut self, by: By<'_>, subject: Option<&str>, at: OffsetDateTime) -> bool {
        let who = (by.name.to_owned(), subject.map(str::to_owned), shown(by.address.map(network)));
        if self.sign_ins.get(&who).is_some_and(|told| at - *told < SIGN_IN_AGAIN) {
            return false;
        }
        if self.sign_ins.len() >= MOST_SIGN_INS {
            self.sign_ins.retain(|_, told| at - *told < SIGN_IN_AGAIN);
        }
        let room = self.sign_ins.len() < MOST_SIGN_INS;
        if room {
            self.sign_ins.insert(who, at);
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{self, AuditQuery};

    fn at(hours: i64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + time::Duration::hours(hours)
    }

    async fn audit() -> Audit {
        Audit::new(store::open("sqlite::memory:").await.unwrap())
    }

    async fn log(audit: &Audit) -> Vec<(String, String, u64)> {
        let query = AuditQuery { limit: 1000, ..AuditQuery::default() };
        let entries = audit.store.audit(query).await.unwrap();
        entries.into_iter().rev().map(|entry| (entry.actor, entry.action, entry.times)).collect()
    }

    #[tokio::test]
    async fn a_sign_in_is_told_once_a_day_and_address() {
        let audit = audit().await;
        let from = |name, address: &'static str| By { name, address: address.parse().ok() };
        for (by, hours) in [
            (from("ci", "10.0.0.1"), 0),
            (from("ci", "::ffff:10.0.0.1"), 1),
            (from("ci", "10.0.0.2"), 1),
            (from("ada", "10.0.0.1"), 2),
            (from("ci", "10.0.0.1"), 23),
            (from("ci", "10.0.0.1"), 24),
        ] {
            audit.signed_in(by, None, at(hours), || None);
        }
        audit.write(at(24), false).await.unwrap();
        let actors: Vec<_> = log(&audit).await.into_iter().map(|(actor, ..)| actor).collect();
        assert_eq!(actors, ["ci", "ci", "ada", "ci"]);
    }

    #[tokio::test]
    async fn what_waits_is_bounded_and_kept_in_order() {
        let audit = audit().await;
        let entry = |name: &str| By { name, address: None }.done(Action::Promote, at(0));
        audit.waiting.lock().add((0..MOST_WAITING + 10).map(|n| entry(&n.to_string())));
        audit.write(at(0), false).await.unwrap();
        audit.done(entry("last")).await;
        let entries = audit.store.audit_after(0, u32::MAX).await.unwrap();
        let actors: Vec<_> = entries.iter().map(|entry| entry.actor.clone()).collect();
        let expected: Vec<_> = (0..MOST_WAITING).map(|n| n.to_string()).chain(["last".to_owned()]).collect();
        assert!(actors == expected, "{} entries", actors.len());
    }

    #[tokio::test]
    async fn a_stop_writes_down_what_waits() {
        let audit = Arc::new(audit().await);
        let refused = NewEntry {
            outcome: store::Outcome::Refused,
            ..By { name: "ci", address: None }.done(Action::Write, at(0))
        };
        for _ in 0..3 {
            audit.refused(refused.clone());
        }
        let stop = CancellationToken::new();
        stop.cancel();
        audit.clone().run(None, stop).await;
        assert_eq!(log(&audit).await, [("ci".to_owned(), "write".to_owned(), 3)]);
    }
}
