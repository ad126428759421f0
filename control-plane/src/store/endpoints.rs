//! What every store promises about endpoints that registered themselves.
//!
//! They are no revisions: a lease is a row that its owner renews, and that goes when it was not renewed in time. What
//! counts for that is the clock of the database alone, so control planes whose clocks differ agree.
//!
//! Every batch of writes holds one lock from its start to its commit, another one than that of revisions, and what
//! changes gets the next number of one sequence. So, as with revisions, a reader that has seen number *n* has seen all
//! that came before it. A renewal that changes nothing takes no number and wakes nobody.
//!
//! What was removed is remembered for [`REMOVED_FOR`]: a reader that has been away for longer reads everything anew.

use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use tokio::sync::watch;

use super::{StoreError, rows::micros};
use crate::model::{
    Name,
    endpoint::{EndpointId, RegisteredEndpoint},
};

/// How long a removal is found by [`EndpointStore::registrations_after`].
pub const REMOVED_FOR: Duration = Duration::from_secs(3600);

/// Something that is to become of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseWrite {
    /// Of which service.
    pub service: Name,
    /// Which one.
    pub id: EndpointId,
    /// What.
    pub action: LeaseAction,
}

/// What is to become of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseAction {
    /// It is there from now on, or still, until `ttl` has passed.
    Register {
        /// What is known of it.
        endpoint: RegisteredEndpoint,
        /// How long its lease is.
        ttl: Duration,
    },
    /// It is still there, as it was registered.
    Renew,
    /// It is gone.
    Remove,
}

/// What is registered now, or what changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registrations {
    /// Up to which number of the sequence.
    pub sequence: u64,
    /// The endpoints, in no order.
    pub endpoints: Vec<Registration>,
}

/// An endpoint and what is registered of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Of which service.
    pub service: Name,
    /// Which one.
    pub id: EndpointId,
    /// What is registered, `None` once it is gone.
    pub endpoint: Option<RegisteredEndpoint>,
}

/// An endpoint and its lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leased {
    /// Which one.
    pub id: EndpointId,
    /// What is registered of it.
    pub endpoint: RegisteredEndpoint,
    /// How long its lease is.
    pub ttl: Duration,
    /// What is left of it; zero if it is to be removed any moment.
    pub remaining: Duration,
}

/// A place where leases are kept.
#[async_trait]
pub trait EndpointStore: Send + Sync + 'static {
    /// Everything that is registered.
    async fn registrations(&self) -> Result<Registrations, StoreError>;

    /// What changed above number `after`, each endpoint once, as it is now. `sequence` is `after` if nothing did.
    async fn registrations_after(&self, after: u64) -> Result<Registrations, StoreError>;

    /// The endpoints of one service, by id.
    async fn leases(&self, service: &Name) -> Result<Vec<Leased>, StoreError>;

    /// Does all of `writes`, or nothing. No endpoint may stand in it twice.
    ///
    /// Returns those that were to be renewed and are not registered.
    async fn write_leases(&self, writes: &[LeaseWrite]) -> Result<Vec<(Name, EndpointId)>, StoreError>;

    /// Removes endpoints whose lease is over, if it is not longer than `most`. Returns how many.
    ///
    /// `most` is for the time after an outage: who could not renew a lease has not let it lapse.
    async fn expire_leases(&self, most: Duration) -> Result<u64, StoreError>;

    /// Marked changed whenever endpoints may have changed, by this process or another. Only a wake-up.
    fn endpoint_wakeups(&self) -> watch::Receiver<()>;
}

/// `service, id, content, sequence`.
pub(super) type RegistrationRow = (String, String, Option<String>, i64);

/// `id, content, ttl, remaining`.
pub(super) type LeasedRow = (String, String, i64, i64);

/// A write as it is bound to statements.
#[derive(Serialize)]
pub(super) struct EncodedWrite {
    pub(super) service: String,
    pub(super) id: String,
    /// What is registered; `None` to renew or remove.
    pub(super) content: Option<String>,
    pub(super) ttl: Option<i64>,
    pub(super) removed: bool,
}

pub(super) fn encode(writes: &[LeaseWrite]) -> Result<Vec<EncodedWrite>, StoreError> {
    let write = |LeaseWrite { service, id, action }: &LeaseWrite| {
        let (content, ttl) = match action {
            LeaseAction::Register { endpoint, ttl } => (Some(serde_json::to_string(endpoint)?), Some(micros(*ttl))),
            LeaseAction::Renew | LeaseAction::Remove => (None, None),
        };
        let removed = matches!(action, LeaseAction::Remove);
        Ok(EncodedWrite { service: service.to_string(), id: id.to_string(), content, ttl, removed })
    };
    let encoded: Result<_, serde_json::Error> = writes.iter().map(write).collect();
    encoded.map_err(|error| StoreError::Failed { context: "encoding an endpoint", source: Box::new(error) })
}

fn duration(micros: i64) -> Duration {
    Duration::from_micros(micros.max(0).unsigned_abs())
}

/// What `rows` say, above `after`. A row that this program cannot read (a newer one wrote it) is one that is gone.
pub(super) fn registrations(after: u64, rows: Vec<RegistrationRow>) -> Registrations {
    let mut read = Registrations { sequence: after, endpoints: Vec::with_capacity(rows.len()) };
    for (service, id, content, sequence) in rows {
        read.sequence = read.sequence.max(u64::try_from(sequence).unwrap_or(0));
        let endpoint = content.and_then(|content| endpoint(&service, &id, &content));
        if let Some((service, id)) = key(&service, &id) {
            read.endpoints.push(Registration { service, id, endpoint });
        }
    }
    read
}

pub(super) fn leased(service: &Name, rows: Vec<LeasedRow>) -> Vec<Leased> {
    let lease = |(id, content, ttl, remaining): LeasedRow| {
        let endpoint = endpoint(service.as_str(), &id, &content)?;
        Some(Leased { id: id.parse().ok()?, endpoint, ttl: duration(ttl), remaining: duration(remaining) })
    };
    rows.into_iter().filter_map(lease).collect()
}

/// What the keys of rows stand for.
pub(super) fn keys(rows: &[(String, String)]) -> Vec<(Name, EndpointId)> {
    rows.iter().filter_map(|(service, id)| key(service, id)).collect()
}

fn key(service: &str, id: &str) -> Option<(Name, EndpointId)> {
    Some((service.parse().ok()?, id.parse().ok()?))
}

fn endpoint(service: &str, id: &str, content: &str) -> Option<RegisteredEndpoint> {
    let read = serde_json::from_str(content);
    read.inspect_err(|error| tracing::warn!(service, endpoint = id, %error, "a registered endpoint cannot be read"))
        .ok()
}
