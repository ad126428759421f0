//! Where configuration is kept: resources, revisions and the changes between them; and beside it, leases of endpoints (`endpoints`)
//! and who did what (`audit`). All of it can be read and written as rows (`state`).
//!
//! One trait (`contract`), two implementations (`sqlite`, `postgres`), one conformance suite. They
//! share what a row means (`rows`), the schema's life (`schema`) and what an error means
//! (`failure`); the SQL is each one's own, since what makes it safe and quick differs.
//! Documents are stored as the user wrote them; what they mean is `model`'s business.

#[cfg(test)]
#[macro_use] // first: the macro is seen only below this line
mod conformance;

pub mod audit;
mod contract;
mod endpoints;
mod enrolments;
mod failure;
mod idempotency;
mod postgres;
mod proxies;
mod quarantine;
mod rollouts;
mod rows;
mod schema;
mod sqlite;
pub mod state;
mod survey;
mod tokens;
mod traces;

use std::sync::Arc;

pub use audit::{Action, AuditQuery, AuditRecords, Entry, NewEntry, Outcome};
pub use contract::{
    Change, HistoryQuery, Loaded, NewChange, NewRevision, Revision, RevisionSummary, Share, SpanQuery, Store,
    StoreError, Stored, Usage, Write,
};
pub use endpoints::{EndpointStore, LeaseAction, LeaseWrite, Leased, REMOVED_FOR, Registration, Registrations};
pub use enrolments::{ENROLMENT_KEPT_FOR, EnrolmentRecord, EnrolmentRecords, EnrolmentUse, Used};
pub use idempotency::{IDEMPOTENCY_KEPT_FOR, IdempotencyKey, IdempotencyRecord, IdempotencyRecords};
pub use proxies::{FoundProxy, LOST_AFTER, ProxyRecord, ProxyRecords, REMEMBERED, REMEMBERED_FOR};
pub use quarantine::{QuarantineKey, QuarantineRecord, QuarantineRecords};
pub use rollouts::{RolloutRecord, RolloutRecords};
pub use schema::SchemaStanding;
pub use survey::{Survey, survey};
pub use tokens::{Rotation, TOKEN_KEPT_FOR, TokenRecord, TokenRecords, TokenTable};
pub use traces::TraceRecords;

/// Opens the store at `url` and brings its schema up to date.
///
/// - `postgres://…` or `postgresql://…`: as libpq takes it, with `sslmode` and the `PG…` variables. Of several hosts, the first that
///   takes writes.
/// - `sqlite://PATH`: a file, created if it does not exist, in a directory that does. The path is
///   taken as it stands, without percent-encoding.
/// - `sqlite::memory:`: gone when the store is closed; for tests.
///
/// # Errors
///
/// [`StoreError::Url`] for anything else, [`StoreError::Unavailable`] if the database does not
/// answer within a few seconds, [`StoreError::Schema`] if it belongs to a program that is newer by more than one version
/// of the schema.
pub async fn open(url: &str) -> Result<Arc<dyn Store>, StoreError> {
    open_knowing(url, i64::MAX).await
}

/// As [`open`], as a program does that knows the schema up to version `known` only: what upgrades, and ways back, are tested with.
///
/// # Errors
///
/// As [`open`].
pub async fn open_knowing(url: &str, known: i64) -> Result<Arc<dyn Store>, StoreError> {
    match url.split_once(':') {
        Some(("postgres" | "postgresql", _)) => {
            let migrator = schema::known_up_to(&schema::postgres(), known);
            // Boxed: it is large, and stands in the future of whoever opens a store.
            Ok(Arc::new(Box::pin(postgres::PostgresStore::open(url, &migrator)).await?))
        }
        Some(("sqlite", place)) => {
            let migrator = schema::known_up_to(&schema::sqlite(), known);
            Ok(Arc::new(sqlite::SqliteStore::open(place, &migrator).await?))
        }
        // Only the scheme is repeated: there may be a password in the rest.
        Some((scheme, _)) => Err(StoreError::Url(format!("unknown scheme {scheme:?}; {KNOWN_URLS}"))),
        None => Err(StoreError::Url(format!("it has no scheme; {KNOWN_URLS}"))),
    }
}

/// The version of the schema that this program brings a database to.
pub fn schema_version() -> i64 {
    schema::newest(&schema::postgres())
}

const KNOWN_URLS: &str = "use sqlite://PATH or postgres://USER:PASSWORD@HOST/DATABASE";
