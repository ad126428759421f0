//! The table of tokens, in Postgres. A change, its count and its notification are one statement, and one
//! transaction with its entry in the audit log.

use async_trait::async_trait;
use sqlx::{PgConnection, Postgres, postgres::PgArguments, query, query_as, query_scalar};
use time::OffsetDateTime;
use tokio::sync::watch;

use super::{PostgresStore, StoreError, bounded};
use crate::store::{
    audit::NewEntry,
    failure::ANSWER_WITHIN,
    postgres::lease::Lease,
    rows,
    tokens::{self, Rotation, TOKEN_KEPT_FOR, TokenRecord, TokenRecords, TokenTable},
};

const SERIAL: &str = "SELECT serial FROM token_serial";

// By bytes, as everywhere else.
const TOKENS: &str = r#"
    SELECT id, name, grants, hash, previous_hash, previous_until, created_by, created_at, ttl, expires_at,
        last_used_at, revoked_at
    FROM tokens ORDER BY id COLLATE "C""#;

const ADD: &str = "
    WITH forgotten AS (
        DELETE FROM tokens WHERE expires_at < $9 OR revoked_at < $9
    ), changed AS (
        INSERT INTO tokens (id, name, grants, hash, created_by, created_at, ttl, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING RETURNING id
    ), counted AS (
        UPDATE token_serial SET serial = serial + 1 WHERE EXISTS (SELECT 1 FROM changed)
    )
    SELECT pg_notify('chancery_tokens', id) FROM changed";

const ROTATE: &str = "
    WITH changed AS (
        UPDATE tokens SET previous_hash = hash, previous_until = least(expires_at, $2), hash = $3, expires_at = $4
        WHERE id = $1 AND revoked_at IS NULL RETURNING id
    ), counted AS (
        UPDATE token_serial SET serial = serial + 1 WHERE EXISTS (SELECT 1 FROM changed)
    )
    SELECT pg_notify('chancery_tokens', id) FROM changed";

const REVOKE: &str = "
    WITH changed AS (
        UPDATE tokens SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL RETURNING id
    ), counted AS (
        UPDATE token_serial SET serial = serial + 1 WHERE EXISTS (SELECT 1 FROM changed)
    )
    SELECT pg_notify('chancery_tokens', id) FROM changed";

const USED: &str = "
    UPDATE tokens AS t SET last_used_at = u.at FROM unnest($1::text[], $2::bigint[]) AS u (id, at)
    WHERE t.id = u.id AND coalesce(t.last_used_at, 0) < u.at";

#[async_trait]
impl TokenRecords for PostgresStore {
    async fn tokens(&self) -> Result<TokenTable, StoreError> {
        let mut lease = Lease::take(&self.pool).await?;
        let read = async {
            let serial = query_scalar(SERIAL).fetch_one(lease.connection()).await?;
            Ok((serial, query_as(TOKENS).fetch_all(lease.connection()).await?))
        };
        let (serial, rows) = bounded("reading tokens", ANSWER_WITHIN, read).await?;
        lease.answered();
        tokens::table(serial, rows)
    }

    async fn token_serial(&self) -> Result<u64, StoreError> {
        let mut lease = Lease::take(&self.pool).await?;
        let serial = query_scalar(SERIAL).fetch_one(lease.connection());
        let serial = bounded("looking for changed tokens", ANSWER_WITHIN, serial).await?;
        lease.answered();
        rows::number(serial)
    }

    async fn add_token(&self, record: TokenRecord, entry: NewEntry) -> Result<bool, StoreError> {
        let row = query(ADD).bind(record.id).bind(record.name).bind(record.grants).bind(record.hash);
        let row = row.bind(record.created_by).bind(rows::moment(record.created_at));
        let row = row.bind(rows::column(record.ttl.whole_microseconds())).bind(rows::moment(record.expires_at));
        let row = row.bind(rows::moment(record.created_at - TOKEN_KEPT_FOR));
        self.with_entry("adding a token", entry, async |connection| answers(row, connection).await).await
    }

    async fn rotate_token(&self, id: &str, rotation: Rotation, entry: NewEntry) -> Result<bool, StoreError> {
        let Rotation { hash, expires_at, previous_until } = rotation;
        let row = query(ROTATE).bind(id).bind(rows::moment(previous_until)).bind(hash).bind(rows::moment(expires_at));
        self.with_entry("rotating a token", entry, async |connection| answers(row, connection).await).await
    }

    async fn revoke_token(&self, id: &str, at: OffsetDateTime, entry: NewEntry) -> Result<bool, StoreError> {
        let row = query(REVOKE).bind(id).bind(rows::moment(at));
        self.with_entry("revoking a token", entry, async |connection| answers(row, connection).await).await
    }

    async fn tokens_used(&self, used: Vec<(String, OffsetDateTime)>) -> Result<(), StoreError> {
        let (ids, times): (Vec<_>, Vec<_>) = used.into_iter().map(|(id, at)| (id, rows::moment(at))).unzip();
        let mut lease = Lease::take(&self.pool).await?;
        let noted = query(USED).bind(ids).bind(times).execute(lease.connection());
        bounded("noting the use of tokens", ANSWER_WITHIN, noted).await?;
        lease.answered();
        Ok(())
    }

    fn token_wakeups(&self) -> watch::Receiver<()> {
        self.token_wakeups.subscribe()
    }
}

/// Whether a statement that answers with a row if it changed anything has done so.
async fn answers(
    change: sqlx::query::Query<'_, Postgres, PgArguments>,
    connection: &mut PgConnection,
) -> Result<bool, sqlx::Error> {
    Ok(change.fetch_optional(connection).await?.is_some())
}
