//! Who may become a proxy: enrolments, by the hashes of their tokens, and who has used them.
//!
//! Beside the configuration, as tokens are. An enrolment is used by one key: whoever asks again with the same is answered again, since
//! an answer may have been lost. From then on it is the proxy's, until it is revoked, or another enrolment makes a proxy of the same name.

use async_trait::async_trait;
use time::{Duration, OffsetDateTime};

use super::{NewEntry, StoreError, rows};

/// For so long an enrolment that was revoked, or whose last certificate is over, is still listed.
pub const ENROLMENT_KEPT_FOR: Duration = Duration::days(90);

/// An enrolment, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrolmentRecord {
    /// Names it in the API; never given twice.
    pub id: String,
    /// Which fleet the proxy will be of.
    pub fleet: String,
    /// Which proxy it will be; none: it chooses a name that no other has.
    pub proxy: Option<String>,
    /// The hash of its token.
    pub hash: Vec<u8>,
    /// How long a certificate is good.
    pub life: Duration,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: OffsetDateTime,
    /// Until when the token is good.
    pub expires_at: OffsetDateTime,
    /// Who has used it.
    pub used: Option<EnrolmentUse>,
    /// Since when it is worth nothing.
    pub revoked_at: Option<OffsetDateTime>,
}

/// Who has used an enrolment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrolmentUse {
    /// The name of the proxy.
    pub proxy: String,
    /// The address that it came from.
    pub from: String,
    /// When it did first.
    pub at: OffsetDateTime,
    /// The hash of the public key that it has.
    pub key: Vec<u8>,
    /// And of the one before, which it has still if the answer to its last renewal was lost.
    pub previous_key: Option<Vec<u8>>,
    /// Until when its newest certificate is good.
    pub valid_until: OffsetDateTime,
}

/// What became of an attempt to use an enrolment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Used {
    /// It is used.
    Done,
    /// It is revoked, expired, or used with another key.
    Ended,
    /// Another enrolment has made a proxy of this name, whose certificate is still good.
    Taken,
}

/// The table of enrolments. With each change goes its entry in the audit log, but with renewals, of which there are many.
#[async_trait]
pub trait EnrolmentRecords: Send + Sync {
    /// Enrolments in the order of their ids, those after `after`, at most `limit`.
    async fn enrolments(&self, after: &str, limit: u32) -> Result<Vec<EnrolmentRecord>, StoreError>;

    /// The one of this id.
    async fn enrolment(&self, id: &str) -> Result<Option<EnrolmentRecord>, StoreError>;

    /// The one whose token has this hash.
    async fn enrolment_of_token(&self, hash: &[u8]) -> Result<Option<EnrolmentRecord>, StoreError>;

    /// The one that has made this proxy, unless it is revoked.
    async fn enrolment_of_proxy(&self, fleet: &str, proxy: &str) -> Result<Option<EnrolmentRecord>, StoreError>;

    /// Adds one that is not used, and forgets those that ended [`ENROLMENT_KEPT_FOR`] before it was made. Returns whether there were less
    /// than `most`.
    async fn add_enrolment(&self, record: EnrolmentRecord, most: u32, entry: NewEntry) -> Result<bool, StoreError>;

    /// Uses one. An older one that has made the same proxy is revoked, if its certificates are over or this one names the proxy.
    async fn use_enrolment(&self, id: &str, by: EnrolmentUse, entry: NewEntry) -> Result<Used, StoreError>;

    /// Notes that the holder of the key `held` has another key now, and a certificate that is good until `valid_until`. Returns whether
    /// the enrolment is not revoked and the key one of its last two.
    async fn renew_enrolment(
        &self,
        id: &str,
        held: &[u8],
        key: &[u8],
        valid_until: OffsetDateTime,
    ) -> Result<bool, StoreError>;

    /// Ends one that is not revoked. Returns whether there was one.
    async fn revoke_enrolment(&self, id: &str, at: OffsetDateTime, entry: NewEntry) -> Result<bool, StoreError>;
}

/// `id, fleet, proxy, hash, life, created_by, created_at, expires_at, used_by, used_from, used_at, key, previous_key, valid_until,
/// revoked_at`.
pub(super) type EnrolmentRow = (
    String,
    String,
    Option<String>,
    Vec<u8>,
    i64,
    String,
    i64,
    i64,
    Option<String>,
    Option<String>,
    Option<i64>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Option<i64>,
    Option<i64>,
);

/// What a row says.
pub(super) fn record(row: EnrolmentRow) -> Result<EnrolmentRecord, StoreError> {
    let (id, fleet, proxy, hash, life, created_by, created_at, expires_at, by, from, at, key, previous, until, revoked) =
        row;
    let used = match (by, from, at, key, until) {
        (Some(proxy), Some(from), Some(at), Some(key), Some(until)) => Some(EnrolmentUse {
            proxy,
            from,
            at: rows::time(at)?,
            key,
            previous_key: previous,
            valid_until: rows::time(until)?,
        }),
        _ => None,
    };
    Ok(EnrolmentRecord {
        id,
        fleet,
        proxy,
        hash,
        life: Duration::microseconds(life),
        created_by,
        created_at: rows::time(created_at)?,
        expires_at: rows::time(expires_at)?,
        used,
        revoked_at: revoked.map(rows::time).transpose()?,
    })
}

/// What became of an attempt to use an enrolment, which has changed it or not: no two may have made the same proxy.
pub(super) fn outcome(changed: Result<bool, sqlx::Error>) -> Result<Used, sqlx::Error> {
    match changed {
        Ok(true) => Ok(Used::Done),
        Ok(false) => Ok(Used::Ended),
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(Used::Taken),
        Err(error) => Err(error),
    }
}
