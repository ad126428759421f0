//! Who may use the API: tokens by their hashes, shared by all replicas.
//!
//! Beside the configuration: no revision, no lock of writers. Whatever changes what a token allows raises one serial, by which a
//! replica knows whether what it holds is current; that a token was used raises nothing.

use async_trait::async_trait;
use time::{Duration, OffsetDateTime};
use tokio::sync::watch;

use super::{NewEntry, StoreError, rows};

/// For so long a token that is revoked or has expired is still listed.
pub const TOKEN_KEPT_FOR: Duration = Duration::days(90);

/// A token, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// Names it in the API; never given twice.
    pub id: String,
    /// Whose it is; of those that are not revoked, no two have the same.
    pub name: String,
    /// What it allows, as JSON.
    pub grants: String,
    /// The hash of its secret.
    pub hash: Vec<u8>,
    /// That of the secret before, and how long it is good.
    pub previous: Option<(Vec<u8>, OffsetDateTime)>,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: OffsetDateTime,
    /// How long a new secret is good.
    pub ttl: Duration,
    /// Until when the secret is good.
    pub expires_at: OffsetDateTime,
    /// When it was used last, give or take a minute.
    pub last_used_at: Option<OffsetDateTime>,
    /// Since when it is worth nothing.
    pub revoked_at: Option<OffsetDateTime>,
}

/// All tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenTable {
    /// At which serial.
    pub serial: u64,
    /// Sorted by id.
    pub records: Vec<TokenRecord>,
}

/// Another secret for a token.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// The hash of the new secret.
    pub hash: Vec<u8>,
    /// Until when that is good.
    pub expires_at: OffsetDateTime,
    /// Until when the one before is.
    pub previous_until: OffsetDateTime,
}

/// The table of tokens. With each change that is made goes its entry in the audit log.
#[async_trait]
pub trait TokenRecords: Send + Sync {
    /// All of them.
    async fn tokens(&self) -> Result<TokenTable, StoreError>;

    /// How often what a token allows has changed.
    async fn token_serial(&self) -> Result<u64, StoreError>;

    /// Adds a token, and forgets those that ended [`TOKEN_KEPT_FOR`] before it was made. Returns whether its name was free.
    async fn add_token(&self, record: TokenRecord, entry: NewEntry) -> Result<bool, StoreError>;

    /// Gives a token that is not revoked another secret. Returns whether there is one.
    async fn rotate_token(&self, id: &str, rotation: Rotation, entry: NewEntry) -> Result<bool, StoreError>;

    /// Ends a token that is not revoked. Returns whether there was one.
    async fn revoke_token(&self, id: &str, at: OffsetDateTime, entry: NewEntry) -> Result<bool, StoreError>;

    /// Notes when tokens were used last, by id; an earlier time changes nothing.
    async fn tokens_used(&self, used: Vec<(String, OffsetDateTime)>) -> Result<(), StoreError>;

    /// Marked changed whenever another process may have changed one.
    fn token_wakeups(&self) -> watch::Receiver<()>;
}

/// `id, name, grants, hash, previous_hash, previous_until, created_by, created_at, ttl, expires_at, last_used_at, revoked_at`.
pub(super) type TokenRow =
    (String, String, String, Vec<u8>, Option<Vec<u8>>, Option<i64>, String, i64, i64, i64, Option<i64>, Option<i64>);

/// The table at `serial`, which was read before `rows` were: they may be newer, and never older.
pub(super) fn table(serial: i64, rows: Vec<TokenRow>) -> Result<TokenTable, StoreError> {
    let records = rows.into_iter().map(record).collect::<Result<_, _>>()?;
    Ok(TokenTable { serial: rows::number(serial)?, records })
}

fn record(row: TokenRow) -> Result<TokenRecord, StoreError> {
    let (id, name, grants, hash, previous_hash, previous_until, created_by, created_at, ttl, expires, used, revoked) =
        row;
    let time = |micros: Option<i64>| micros.map(rows::time).transpose();
    Ok(TokenRecord {
        id,
        name,
        grants,
        hash,
        previous: previous_hash.zip(time(previous_until)?),
        created_by,
        created_at: rows::time(created_at)?,
        ttl: Duration::microseconds(ttl),
        expires_at: rows::time(expires)?,
        last_used_at: time(used)?,
        revoked_at: time(revoked)?,
    })
}
