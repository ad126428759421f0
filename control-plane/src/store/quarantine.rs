//! What fleets are not served because a proxy has rejected it, kept so that other replicas, and this one after a restart, know.
//!
//! Beside the configuration: no revision, no lock of writers.

use async_trait::async_trait;

use super::StoreError;

/// A resource that a fleet is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantineRecord {
    /// Which resource, in which version.
    pub key: QuarantineKey,
    /// The encoded message that is served instead, if there is one.
    pub good: Option<Vec<u8>>,
    /// Who rejected it and why, as JSON.
    pub cause: String,
}

/// A version of a resource, as a fleet is served it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuarantineKey {
    /// The fleet.
    pub fleet: String,
    /// The form in which its proxies get their routes.
    pub form: String,
    /// The type URL.
    pub type_url: String,
    /// The name.
    pub name: String,
    /// The version.
    pub version: String,
}

/// `fleet, form, type, name, version, good, cause`.
pub(super) type QuarantineRow = (String, String, String, String, String, Option<Vec<u8>>, String);

/// What `rows` say.
pub(super) fn records(rows: Vec<QuarantineRow>) -> Vec<QuarantineRecord> {
    let record = |(fleet, form, type_url, name, version, good, cause): QuarantineRow| QuarantineRecord {
        key: QuarantineKey { fleet, form, type_url, name, version },
        good,
        cause,
    };
    rows.into_iter().map(record).collect()
}

/// The table of what is quarantined.
#[async_trait]
pub trait QuarantineRecords: Send + Sync {
    /// Records them, in place of other versions of the same resource.
    async fn quarantine(&self, records: Vec<QuarantineRecord>) -> Result<(), StoreError>;

    /// Forgets these versions, as far as they are recorded.
    async fn release(&self, keys: Vec<QuarantineKey>) -> Result<(), StoreError>;

    /// What is recorded, sorted by key.
    async fn quarantined(&self) -> Result<Vec<QuarantineRecord>, StoreError>;
}
