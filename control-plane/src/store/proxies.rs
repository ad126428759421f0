//! What replicas tell each other of the proxies that are connected to them.
//!
//! It is beside the configuration and much less: no revision, no lock of writers, and it may be old or lost. Each
//! replica says of itself that it lives, and of its proxies what has changed. Time is the database's, so clocks that
//! differ do no harm.

use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;

/// Once a replica has been silent for so long, nobody knows how its proxies are.
pub const LOST_AFTER: Duration = Duration::from_secs(15);

/// How long a proxy that is gone is remembered.
pub const REMEMBERED_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// How many proxies that are gone are remembered.
pub const REMEMBERED: u32 = 10_000;

/// What a replica says of a proxy, or of a rate limiter.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ProxyRecord {
    /// Its fleet; empty for a rate limiter.
    pub fleet: String,
    /// Its id.
    pub id: String,
    /// Whether it is connected to the replica.
    pub connected: bool,
    /// How it is, as JSON.
    pub status: String,
}

/// A record, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundProxy {
    /// What the replica said.
    pub record: ProxyRecord,
    /// The replica.
    pub replica: String,
    /// Whether the replica has said of itself within [`LOST_AFTER`] that it lives.
    pub replica_lives: bool,
}

/// `fleet, id, connected, status, replica`, and whether that lives.
pub(super) type ProxyRow = (String, String, bool, String, String, bool);

/// What `rows` say.
pub(super) fn found(rows: Vec<ProxyRow>) -> Vec<FoundProxy> {
    let found = |(fleet, id, connected, status, replica, replica_lives): ProxyRow| FoundProxy {
        record: ProxyRecord { fleet, id, connected, status },
        replica,
        replica_lives,
    };
    rows.into_iter().map(found).collect()
}

/// The table of what replicas say of their proxies.
#[async_trait]
pub trait ProxyRecords: Send + Sync {
    /// Says that `replica` begins to live, with no proxies yet.
    async fn replica_begins(&self, replica: &str) -> Result<(), StoreError>;

    /// Says that `replica` lives.
    async fn replica_lives(&self, replica: &str) -> Result<(), StoreError>;

    /// Says that `replica` ends, and with it the connections of its proxies.
    async fn replica_ends(&self, replica: &str) -> Result<(), StoreError>;

    /// Writes what `replica` says of some proxies, each at most once, in one statement. That a proxy is not connected to it
    /// says nothing if another replica has spoken of it since.
    async fn record_proxies(&self, replica: &str, records: Vec<ProxyRecord>) -> Result<(), StoreError>;

    /// What is recorded, by fleet and id, of one fleet or all, of one id or all.
    async fn proxies(&self, fleet: Option<&str>, id: Option<&str>) -> Result<Vec<FoundProxy>, StoreError>;

    /// Fleet and id of the proxies that `replica` has recorded last, and as connected.
    async fn connected_to(&self, replica: &str) -> Result<Vec<(String, String)>, StoreError>;

    /// Forgets proxies that are gone for longer than [`REMEMBERED_FOR`], those beyond [`REMEMBERED`], and replicas likewise. A
    /// proxy of a replica that does not live counts as gone.
    async fn forget_proxies(&self) -> Result<(), StoreError>;
}
