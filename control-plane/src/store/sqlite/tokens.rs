//! The table of tokens, in SQLite.

use async_trait::async_trait;
use sqlx::{SqliteConnection, query, query_as, query_scalar};
use time::OffsetDateTime;
use tokio::sync::watch;

use super::{SqliteStore, StoreError, bounded};
use crate::store::{
    audit::NewEntry,
    failure::ANSWER_WITHIN,
    rows,
    tokens::{self, Rotation, TOKEN_KEPT_FOR, TokenRecord, TokenRecords, TokenTable},
};

const SERIAL: &str = "SELECT serial FROM token_serial";

const TOKENS: &str = "
    SELECT id, name, grants, hash, previous_hash, previous_until, created_by, created_at, ttl, expires_at,
        last_used_at, revoked_at
    FROM tokens ORDER BY id";

const FORGET: &str = "DELETE FROM tokens WHERE expires_at < ?1 OR revoked_at < ?1";

const ADD: &str = "
    INSERT INTO tokens (id, name, grants, hash, created_by, created_at, ttl, expires_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING";

const ROTATE: &str = "
    UPDATE tokens SET previous_hash = hash, previous_until = min(expires_at, ?2), hash = ?3, expires_at = ?4
    WHERE id = ?1 AND revoked_at IS NULL";

const REVOKE: &str = "UPDATE tokens SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL";

const COUNT: &str = "UPDATE token_serial SET serial = serial + 1";

const USED: &str = "UPDATE tokens SET last_used_at = ?2 WHERE id = ?1 AND coalesce(last_used_at, 0) < ?2";

#[async_trait]
impl TokenRecords for SqliteStore {
    async fn tokens(&self) -> Result<TokenTable, StoreError> {
        let read = async {
            let serial = query_scalar(SERIAL).fetch_one(&self.readers).await?;
            Ok((serial, query_as(TOKENS).fetch_all(&self.readers).await?))
        };
        let (serial, rows) = bounded("reading tokens", ANSWER_WITHIN, read).await?;
        tokens::table(serial, rows)
    }

    async fn token_serial(&self) -> Result<u64, StoreError> {
        let serial = query_scalar(SERIAL).fetch_one(&self.readers);
        rows::number(bounded("looking for changed tokens", ANSWER_WITHIN, serial).await?)
    }

    async fn add_token(&self, record: TokenRecord, entry: NewEntry) -> Result<bool, StoreError> {
        let added = self.change_tokens(entry, async |connection| {
            let forgotten = rows::moment(record.created_at - TOKEN_KEPT_FOR);
            query(FORGET).bind(forgotten).execute(&mut *connection).await?;
            let row = query(ADD).bind(&record.id).bind(&record.name).bind(&record.grants).bind(&record.hash);
            let row = row.bind(&record.created_by).bind(rows::moment(record.created_at));
            let row = row.bind(rows::column(record.ttl.whole_microseconds())).bind(rows::moment(record.expires_at));
            Ok(row.execute(connection).await?.rows_affected())
        });
        bounded("adding a token", ANSWER_WITHIN, added).await
    }

    async fn rotate_token(&self, id: &str, rotation: Rotation, entry: NewEntry) -> Result<bool, StoreError> {
        let Rotation { hash, expires_at, previous_until } = rotation;
        let rotated = self.change_tokens(entry, async |connection| {
            let row = query(ROTATE).bind(id).bind(rows::moment(previous_until)).bind(&hash);
            Ok(row.bind(rows::moment(expires_at)).execute(connection).await?.rows_affected())
        });
        bounded("rotating a token", ANSWER_WITHIN, rotated).await
    }

    async fn revoke_token(&self, id: &str, at: OffsetDateTime, entry: NewEntry) -> Result<bool, StoreError> {
        let revoked = self.change_tokens(entry, async |connection| {
            let row = query(REVOKE).bind(id).bind(rows::moment(at));
            Ok(row.execute(connection).await?.rows_affected())
        });
        bounded("revoking a token", ANSWER_WITHIN, revoked).await
    }

    async fn tokens_used(&self, used: Vec<(String, OffsetDateTime)>) -> Result<(), StoreError> {
        let noted = async {
            let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
            for (id, at) in used {
                query(USED).bind(id).bind(rows::moment(at)).execute(&mut *transaction).await?;
            }
            transaction.commit().await
        };
        bounded("noting the use of tokens", ANSWER_WITHIN, noted).await
    }

    fn token_wakeups(&self) -> watch::Receiver<()> {
        self.token_wakeups.subscribe()
    }
}

impl SqliteStore {
    /// Makes a change; if that changed anything, raises the serial and appends `entry`.
    async fn change_tokens(
        &self,
        entry: NewEntry,
        change: impl AsyncFnOnce(&mut SqliteConnection) -> Result<u64, sqlx::Error>,
    ) -> Result<bool, sqlx::Error> {
        let counted = async |connection: &mut SqliteConnection| {
            let changed = change(&mut *connection).await? > 0;
            if changed {
                query(COUNT).execute(connection).await?;
            }
            Ok(changed)
        };
        self.with_entry(entry, counted).await
    }
}
