//! Leases in Postgres.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::{PostgresStore, lease::Lease};
use crate::{
    model::{Name, endpoint::EndpointId},
    store::{
        EndpointStore, LeaseWrite, Leased, Registrations, StoreError,
        endpoints::{self, EncodedWrite, REMOVED_FOR},
        failure::{ANSWER_WITHIN, LOAD_WITHIN, bounded},
        rows::{self, micros},
    },
};

const ALL: &str = "
    SELECT service, id, content, sequence FROM endpoints WHERE content IS NOT NULL
    UNION ALL SELECT '', '', NULL, sequence FROM endpoint_sequence";

const AFTER: &str = "SELECT service, id, content, sequence FROM endpoints WHERE sequence > $1";

const LEASES: &str = "
    SELECT id, content, ttl, expires_at - (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
    FROM endpoints WHERE service = $1 AND content IS NOT NULL ORDER BY id COLLATE \"C\"";

/// Takes the lock of those who write leases: the number above that of the writers of revisions.
///
/// The statement after it sees what the previous holder committed (`READ COMMITTED`), and nobody else writes meanwhile, so
/// all its parts see the same. Without the lock, two batches could wait for rows of each other.
const BEGIN: &str = "
    BEGIN ISOLATION LEVEL READ COMMITTED;
    SET LOCAL lock_timeout = '5s';
    SET LOCAL statement_timeout = '10s';
    SET LOCAL idle_in_transaction_session_timeout = '10s';
    SELECT pg_advisory_xact_lock(7163082334074663546)";

/// A whole batch: one round trip, however many endpoints it is about. The notification is delivered with the commit.
const WRITE: &str = "
    WITH input AS (
        SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::boolean[])
            AS w (service, id, content, ttl, removed)
    ), clock AS MATERIALIZED (
        SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now
    ), next AS (
        SELECT sequence + 1 AS number FROM endpoint_sequence
    ), registered AS (
        INSERT INTO endpoints AS e (service, id, content, ttl, expires_at, sequence)
        SELECT w.service, w.id, w.content, w.ttl, clock.now + w.ttl, next.number
        FROM input AS w, clock, next WHERE w.content IS NOT NULL
        ON CONFLICT (service, id) DO UPDATE SET
            content = excluded.content, ttl = excluded.ttl, expires_at = excluded.expires_at,
            sequence = CASE WHEN e.content = excluded.content THEN e.sequence ELSE excluded.sequence END
        RETURNING e.sequence
    ), renewed AS (
        UPDATE endpoints AS e SET expires_at = clock.now + e.ttl FROM input AS w, clock
        WHERE e.service = w.service AND e.id = w.id AND e.content IS NOT NULL
            AND w.content IS NULL AND NOT w.removed
    ), removed AS (
        UPDATE endpoints AS e SET content = NULL, expires_at = clock.now, sequence = next.number
        FROM input AS w, clock, next
        WHERE e.service = w.service AND e.id = w.id AND e.content IS NOT NULL AND w.removed
        RETURNING e.sequence
    ), advanced AS (
        UPDATE endpoint_sequence AS s SET sequence = next.number FROM next
        WHERE EXISTS (SELECT 1 FROM registered AS r WHERE r.sequence = next.number) OR EXISTS (SELECT 1 FROM removed)
        RETURNING pg_notify('chancery_endpoints', '')
    )
    SELECT w.service, w.id FROM input AS w
    WHERE w.content IS NULL AND NOT w.removed AND NOT EXISTS (
        SELECT 1 FROM endpoints AS e WHERE e.service = w.service AND e.id = w.id AND e.content IS NOT NULL)";

const IS_OVER: &str = "
    SELECT EXISTS (
        SELECT 1 FROM endpoints, (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now) AS clock
        WHERE expires_at < now AND ((content IS NOT NULL AND ttl <= $1) OR (content IS NULL AND expires_at < now - $2)))";

const EXPIRE: &str = "
    WITH clock AS MATERIALIZED (
        SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now
    ), next AS (
        SELECT sequence + 1 AS number FROM endpoint_sequence
    ), expired AS (
        UPDATE endpoints AS e SET content = NULL, expires_at = clock.now, sequence = next.number FROM clock, next
        WHERE e.content IS NOT NULL AND e.expires_at < clock.now AND e.ttl <= $1
        RETURNING e.sequence
    ), forgotten AS (
        DELETE FROM endpoints AS e USING clock WHERE e.content IS NULL AND e.expires_at < clock.now - $2
    ), advanced AS (
        UPDATE endpoint_sequence AS s SET sequence = next.number FROM next WHERE EXISTS (SELECT 1 FROM expired)
        RETURNING pg_notify('chancery_endpoints', '')
    )
    SELECT count(*) FROM expired";

#[async_trait]
impl EndpointStore for PostgresStore {
    async fn registrations(&self) -> Result<Registrations, StoreError> {
        let mut lease = Lease::take(&self.pool).await?;
        let rows = sqlx::query_as(ALL).fetch_all(lease.connection());
        let rows = bounded("loading registered endpoints", LOAD_WITHIN, rows).await?;
        lease.answered();
        Ok(endpoints::registrations(0, rows))
    }

    async fn registrations_after(&self, after: u64) -> Result<Registrations, StoreError> {
        let mut lease = Lease::take(&self.pool).await?;
        let rows = sqlx::query_as(AFTER).bind(rows::column(after)).fetch_all(lease.connection());
        let rows = bounded("reading registered endpoints", ANSWER_WITHIN, rows).await?;
        lease.answered();
        Ok(endpoints::registrations(after, rows))
    }

    async fn leases(&self, service: &Name) -> Result<Vec<Leased>, StoreError> {
        let mut lease = Lease::take(&self.pool).await?;
        let rows = sqlx::query_as(LEASES).bind(service.as_str()).fetch_all(lease.connection());
        let rows = bounded("reading leases", ANSWER_WITHIN, rows).await?;
        lease.answered();
        Ok(endpoints::leased(service, rows))
    }

    async fn write_leases(&self, writes: &[LeaseWrite]) -> Result<Vec<(Name, EndpointId)>, StoreError> {
        const CONTEXT: &str = "writing leases";
        let mut columns: (Vec<String>, Vec<String>, Vec<Option<String>>, Vec<Option<i64>>, Vec<bool>) =
            Default::default();
        for EncodedWrite { service, id, content, ttl, removed } in endpoints::encode(writes)? {
            columns.0.push(service);
            columns.1.push(id);
            columns.2.push(content);
            columns.3.push(ttl);
            columns.4.push(removed);
        }
        let mut lease = Lease::take(&self.pool).await?;
        bounded(CONTEXT, ANSWER_WITHIN, sqlx::raw_sql(BEGIN).execute(lease.connection())).await?;
        let write = sqlx::query_as(WRITE)
            .bind(columns.0)
            .bind(columns.1)
            .bind(columns.2)
            .bind(columns.3)
            .bind(columns.4)
            .fetch_all(lease.connection());
        let unknown = bounded(CONTEXT, ANSWER_WITHIN, write).await?;
        bounded(CONTEXT, ANSWER_WITHIN, sqlx::raw_sql("COMMIT").execute(lease.connection())).await?;
        lease.answered();
        Ok(endpoints::keys(&unknown))
    }

    async fn expire_leases(&self, most: Duration) -> Result<u64, StoreError> {
        const CONTEXT: &str = "ending leases";
        let (most, remembered) = (micros(most), micros(REMOVED_FOR));
        let mut lease = Lease::take(&self.pool).await?;
        let is_over = sqlx::query_scalar(IS_OVER).bind(most).bind(remembered).fetch_one(lease.connection());
        let is_over: bool = bounded(CONTEXT, ANSWER_WITHIN, is_over).await?;
        if !is_over {
            lease.answered();
            return Ok(0);
        }
        bounded(CONTEXT, ANSWER_WITHIN, sqlx::raw_sql(BEGIN).execute(lease.connection())).await?;
        let expire = sqlx::query_scalar(EXPIRE).bind(most).bind(remembered).fetch_one(lease.connection());
        let expired = bounded(CONTEXT, ANSWER_WITHIN, expire).await?;
        bounded(CONTEXT, ANSWER_WITHIN, sqlx::raw_sql("COMMIT").execute(lease.connection())).await?;
        lease.answered();
        rows::number(expired)
    }

    fn endpoint_wakeups(&self) -> watch::Receiver<()> {
        self.endpoint_wakeups.subscribe()
    }
}
