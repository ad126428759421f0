//! Leases in SQLite.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::SqliteConnection;
use tokio::sync::watch;

use super::SqliteStore;
use crate::{
    model::{Name, endpoint::EndpointId},
    store::{
        EndpointStore, LeaseWrite, Leased, Registrations, StoreError,
        endpoints::{self, REMOVED_FOR},
        failure::{ANSWER_WITHIN, LOAD_WITHIN, bounded},
        rows::{self, micros},
    },
};

const ALL: &str = "
    SELECT service, id, content, sequence FROM endpoints WHERE content IS NOT NULL
    UNION ALL SELECT '', '', NULL, sequence FROM endpoint_sequence";

const AFTER: &str = "SELECT service, id, content, sequence FROM endpoints WHERE sequence > ?1";

const LEASES: &str = "
    SELECT id, content, ttl, expires_at - CAST(unixepoch('subsec') * 1000000 AS INTEGER)
    FROM endpoints WHERE service = ?1 AND content IS NOT NULL ORDER BY id";

/// The time, and the number that the next change gets.
const NOW_AND_NEXT: &str = "SELECT CAST(unixepoch('subsec') * 1000000 AS INTEGER), sequence + 1 FROM endpoint_sequence";

// All writes travel as one JSON array: one statement each, however many endpoints they are about.
const UNKNOWN: &str = "
    SELECT w.value ->> 'service', w.value ->> 'id' FROM json_each(?1) AS w
    LEFT JOIN endpoints AS e
        ON e.service = w.value ->> 'service' AND e.id = w.value ->> 'id' AND e.content IS NOT NULL
    WHERE w.value ->> 'content' IS NULL AND NOT w.value ->> 'removed' AND e.id IS NULL";

const REGISTER: &str = "
    INSERT INTO endpoints AS e (service, id, content, ttl, expires_at, sequence)
    SELECT w.value ->> 'service', w.value ->> 'id', w.value ->> 'content', w.value ->> 'ttl', ?2 + (w.value ->> 'ttl'), ?3
    FROM json_each(?1) AS w WHERE w.value ->> 'content' IS NOT NULL
    ON CONFLICT (service, id) DO UPDATE SET
        content = excluded.content, ttl = excluded.ttl, expires_at = excluded.expires_at,
        sequence = CASE WHEN e.content IS excluded.content THEN e.sequence ELSE excluded.sequence END";

const RENEW: &str = "
    UPDATE endpoints SET expires_at = ?2 + ttl
    WHERE content IS NOT NULL AND (service, id) IN (
        SELECT w.value ->> 'service', w.value ->> 'id' FROM json_each(?1) AS w
        WHERE w.value ->> 'content' IS NULL AND NOT w.value ->> 'removed')";

const REMOVE: &str = "
    UPDATE endpoints SET content = NULL, expires_at = ?2, sequence = ?3
    WHERE content IS NOT NULL AND (service, id) IN (
        SELECT w.value ->> 'service', w.value ->> 'id' FROM json_each(?1) AS w WHERE w.value ->> 'removed')";

const IS_OVER: &str = "
    SELECT EXISTS (
        SELECT 1 FROM endpoints, (SELECT CAST(unixepoch('subsec') * 1000000 AS INTEGER) AS now)
        WHERE expires_at < now AND ((content IS NOT NULL AND ttl <= ?1) OR (content IS NULL AND expires_at < now - ?2)))";

const EXPIRE: &str = "
    UPDATE endpoints SET content = NULL, expires_at = ?2, sequence = ?3
    WHERE content IS NOT NULL AND expires_at < ?2 AND ttl <= ?1";

const FORGET: &str = "DELETE FROM endpoints WHERE content IS NULL AND expires_at < ?1";

const ADVANCE: &str = "
    UPDATE endpoint_sequence SET sequence = ?1 WHERE EXISTS (SELECT 1 FROM endpoints WHERE sequence = ?1)";

#[async_trait]
impl EndpointStore for SqliteStore {
    async fn registrations(&self) -> Result<Registrations, StoreError> {
        let rows = sqlx::query_as(ALL).fetch_all(&self.readers);
        Ok(endpoints::registrations(0, bounded("loading registered endpoints", LOAD_WITHIN, rows).await?))
    }

    async fn registrations_after(&self, after: u64) -> Result<Registrations, StoreError> {
        let rows = sqlx::query_as(AFTER).bind(rows::column(after)).fetch_all(&self.readers);
        Ok(endpoints::registrations(after, bounded("reading registered endpoints", ANSWER_WITHIN, rows).await?))
    }

    async fn leases(&self, service: &Name) -> Result<Vec<Leased>, StoreError> {
        let rows = sqlx::query_as(LEASES).bind(service.to_string()).fetch_all(&self.readers);
        Ok(endpoints::leased(service, bounded("reading leases", ANSWER_WITHIN, rows).await?))
    }

    async fn write_leases(&self, writes: &[LeaseWrite]) -> Result<Vec<(Name, EndpointId)>, StoreError> {
        let writes = serde_json::to_string(&endpoints::encode(writes)?)
            .map_err(|error| StoreError::Failed { context: "encoding endpoints", source: Box::new(error) })?;
        let written = async {
            let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
            let (now, next) = now_and_next(&mut transaction).await?;
            let unknown = sqlx::query_as(UNKNOWN).bind(&writes).fetch_all(&mut *transaction).await?;
            sqlx::query(REGISTER).bind(&writes).bind(now).bind(next).execute(&mut *transaction).await?;
            sqlx::query(RENEW).bind(&writes).bind(now).execute(&mut *transaction).await?;
            sqlx::query(REMOVE).bind(&writes).bind(now).bind(next).execute(&mut *transaction).await?;
            let changed = advance(&mut transaction, next).await?;
            transaction.commit().await?;
            Ok((unknown, changed))
        };
        let (unknown, changed) = bounded("writing leases", ANSWER_WITHIN, written).await?;
        if changed {
            self.endpoint_wakeups.send_replace(());
        }
        Ok(endpoints::keys(&unknown))
    }

    async fn expire_leases(&self, most: Duration) -> Result<u64, StoreError> {
        let (most, remembered) = (micros(most), micros(REMOVED_FOR));
        let is_over = sqlx::query_scalar(IS_OVER).bind(most).bind(remembered).fetch_one(&self.readers);
        if !bounded("looking for leases that are over", ANSWER_WITHIN, is_over).await? {
            return Ok(0);
        }
        let expired = async {
            let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
            let (now, next) = now_and_next(&mut transaction).await?;
            let expire = sqlx::query(EXPIRE).bind(most).bind(now).bind(next);
            let expired = expire.execute(&mut *transaction).await?.rows_affected();
            advance(&mut transaction, next).await?;
            sqlx::query(FORGET).bind(now - remembered).execute(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(expired)
        };
        let expired = bounded("ending leases", ANSWER_WITHIN, expired).await?;
        if expired > 0 {
            self.endpoint_wakeups.send_replace(());
        }
        Ok(expired)
    }

    fn endpoint_wakeups(&self) -> watch::Receiver<()> {
        self.endpoint_wakeups.subscribe()
    }
}

async fn now_and_next(connection: &mut SqliteConnection) -> Result<(i64, i64), sqlx::Error> {
    sqlx::query_as(NOW_AND_NEXT).fetch_one(connection).await
}

/// Says that number `next` is taken, if something took it.
async fn advance(connection: &mut SqliteConnection, next: i64) -> Result<bool, sqlx::Error> {
    Ok(sqlx::query(ADVANCE).bind(next).execute(connection).await?.rows_affected() > 0)
}
