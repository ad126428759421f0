//! Cells in Redis: one server, a master that sentinels name, or a cluster.
//!
//! [`Shared`] is what a process has once: the address, the leases, the number of replicas. Each worker has a store of
//! its own over it, with a link (one connection, one task) on the worker's runtime.
//!
//! A charge goes `leased` → `link` → `script` → Redis → `script` → answer. The arithmetic is
//! the model's on both ends: the script computes the new cell, and the answer is what [`model::cell`](crate::model::cell) says of the old one.
//!
//! What a user of Redis (ACL) must be allowed: keys `~ch:*` and `+evalsha +eval +script|load +get +set +time +zadd +zrem
//! +zremrangebyscore +zcard +pexpire +info +hello`, on a cluster also `+cluster|slots +asking`. Redis 7.0 or newer, or what speaks like it.
//!
//! The clock is Redis's (`TIME`, once per call), so limiters whose clocks differ count alike.

pub(crate) mod address;
pub(crate) mod breaker;
pub(crate) mod connect;
pub(crate) mod link;
pub mod metrics;
mod parting;
mod presence;
mod queue;
mod salt;
pub(crate) mod script;
pub mod survey;
pub(crate) mod tended;
#[cfg(test)]
pub(crate) mod testing;
mod ticket;

use std::{
    num::NonZeroU32,
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, task::JoinHandle, time::timeout};

use super::{
    Store,
    leased::{Leased, Leases},
    without_redis::Fallback,
};
pub use address::{Address, InvalidAddress};
use connect::Connector;
pub use connect::{ConnectError, InvalidTls, TlsFiles};
use link::{Link, LinkOptions, Settle};
use metrics::StoreMetrics;
pub use metrics::describe;
use presence::Presence;
pub use salt::SaltCell;
pub use script::Unexpected;
use tended::tended;

/// How long a charge may take, if nothing else is set.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_millis(5);

/// How long the end may take: giving back what is borrowed.
const CLOSING: Duration = Duration::from_secs(2);

/// What can be set about Redis.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// Where it is.
    pub address: Address,
    /// Files for TLS.
    pub tls: TlsFiles,
    /// How long a charge may take before the rule's policy for when Redis is away answers it.
    pub timeout: Duration,
    /// Whether tokens are borrowed and refusals remembered. Without, every decision is a charge in Redis.
    pub leases: bool,
    /// How many limiters there are, until Redis has said it.
    pub replicas: NonZeroU32,
}

impl RedisSettings {
    /// The usual settings for a Redis at `address`.
    pub fn new(address: Address) -> Self {
        Self { address, tls: TlsFiles::default(), timeout: DEFAULT_TIMEOUT, leases: true, replicas: NonZeroU32::MIN }
    }
}

/// What the workers of a process share.
pub struct Shared {
    connector: Arc<Connector>,
    options: LinkOptions,
    leases: Option<Arc<Leases>>,
    replicas: Arc<AtomicU32>,
    fallback: Fallback,
    metrics: Arc<StoreMetrics>,
    presence: Arc<Presence>,
    /// Until closed.
    heartbeat: Mutex<Option<JoinHandle<()>>>,
    links: Mutex<Vec<Weak<Link>>>,
}

impl Shared {
    /// Starts on the current runtime to say that this limiter is there. Does not wait for Redis, which may come later. `local` keeps cells
    /// while it is away, and must answer at once. `salt` becomes the one that all limiters on this Redis share.
    ///
    /// # Errors
    /// The TLS files are of no use.
    pub fn start(settings: RedisSettings, local: Arc<dyn Store>, salt: SaltCell) -> Result<Arc<Self>, InvalidTls> {
        Self::start_at(settings, local, salt, None)
    }

    /// As [`Shared::start`], by a given time in ticks instead of the server's.
    pub(crate) fn start_at(
        settings: RedisSettings,
        local: Arc<dyn Store>,
        salt: SaltCell,
        given_time: Option<Arc<AtomicU64>>,
    ) -> Result<Arc<Self>, InvalidTls> {
        let RedisSettings { address, tls, timeout, leases, replicas } = settings;
        let connector = Arc::new(Connector::new(address, &tls, salt)?);
        let replicas = Arc::new(AtomicU32::new(replicas.get()));
        let metrics = Arc::new(StoreMetrics::new());
        let leases = leases.then(|| Arc::new(Leases::new(replicas.clone(), metrics.clone())));
        let settle: Settle = match leases.clone() {
            Some(leases) => Arc::new(move |call, sent, reply| leases.settle(call, sent, reply)),
            None => Arc::new(|_, _, _| ()),
        };
        let presence = Arc::new(Presence::new(connector.clone(), replicas.clone()));
        let present = presence.clone();
        let heartbeat = tokio::spawn(tended("presence in Redis", move || present.clone().run()));
        Ok(Arc::new(Self {
            connector,
            options: LinkOptions { timeout, settle, given_time },
            leases,
            fallback: Fallback::new(local, replicas.clone()),
            replicas,
            metrics,
            presence,
            heartbeat: Mutex::new(Some(heartbeat)),
            links: Mutex::default(),
        }))
    }

    /// The store of one worker, with a link of its own on the current runtime. The link ends with the store.
    pub fn store_for_worker(&self) -> Arc<dyn Store> {
        Arc::new(self.leased())
    }

    pub(crate) fn leased(&self) -> Leased {
        let link = Link::spawn(self.connector.clone(), self.options.clone());
        let leased = Leased::new(self.leases.clone(), link, self.fallback.clone(), self.metrics.clone());
        self.links.lock().push(Arc::downgrade(leased.link()));
        leased
    }

    /// Whether Redis answers on any worker's link. A limiter without it still answers, by each rule's policy.
    pub fn answers(&self) -> bool {
        self.links.lock().iter().filter_map(Weak::upgrade).any(|link| link.answers())
    }

    /// How many limiters share this Redis, this one included.
    pub fn replicas(&self) -> u32 {
        self.replicas.load(Ordering::Relaxed)
    }

    /// Gives back what is borrowed and leaves, within two seconds. Call it when no more requests come.
    ///
    /// # Errors
    /// Redis is away. What was borrowed is lost then, which only tightens limits, for less than a second.
    pub async fn close(&self) -> Result<(), ConnectError> {
        if let Some(heartbeat) = self.heartbeat.lock().take() {
            heartbeat.abort();
        }
        let calls = self.leases.as_ref().map(|leases| leases.close()).unwrap_or_default();
        let closing = async {
            let mut connection = self.connector.connect(&Arc::new(Notify::new())).await?;
            let given = self.options.given_time.as_ref().map(|now| now.load(Ordering::Acquire));
            let returned = parting::give_back(&self.connector, &connection, &calls, given).await;
            self.presence.leave(&mut connection).await?;
            Ok(returned?)
        };
        timeout(CLOSING, closing).await.map_err(|_| ConnectError::Timeout)?
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(heartbeat) = self.heartbeat.lock().take() {
            heartbeat.abort();
        }
    }
}

#[cfg(test)]
mod tests;
