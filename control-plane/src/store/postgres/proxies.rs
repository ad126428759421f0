//! The table of what replicas say of their proxies, in Postgres. One round trip each.

use async_trait::async_trait;
use sqlx::{Postgres, postgres::PgArguments, query::Query};

use super::{PostgresStore, StoreError, bounded};
use crate::store::{
    failure::ANSWER_WITHIN,
    postgres::lease::Lease,
    proxies::{self, FoundProxy, LOST_AFTER, ProxyRecord, ProxyRecords, REMEMBERED, REMEMBERED_FOR},
    rows::micros,
};

const LIVES: &str = "
    INSERT INTO replicas (name, seen_at)
    VALUES ($1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
    ON CONFLICT (name) DO UPDATE SET seen_at = excluded.seen_at";

const BEGINS: &str = "
    WITH lost AS (UPDATE proxies SET connected = false WHERE replica = $1 AND connected)
    INSERT INTO replicas (name, seen_at)
    VALUES ($1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
    ON CONFLICT (name) DO UPDATE SET seen_at = excluded.seen_at";

const ENDS: &str = "
    WITH lost AS (UPDATE proxies SET connected = false WHERE replica = $1 AND connected)
    DELETE FROM replicas WHERE name = $1";

// Sorted, so that two replicas that write the same rows wait for each other and do not lock each other out.
const RECORD: &str = "
    INSERT INTO proxies (fleet, id, replica, connected, status, written_at)
    SELECT p.fleet, p.id, $1, p.connected, p.status::json, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
    FROM unnest($2::text[], $3::text[], $4::bool[], $5::text[]) AS p (fleet, id, connected, status)
    ORDER BY p.fleet, p.id
    ON CONFLICT (fleet, id) DO UPDATE SET
        replica = excluded.replica, connected = excluded.connected,
        status = excluded.status, written_at = excluded.written_at
    WHERE excluded.connected OR proxies.replica = excluded.replica";

const PROXIES: &str = "
    SELECT p.fleet, p.id, p.connected, p.status::text, p.replica,
        coalesce(r.seen_at > (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - $3, false)
    FROM proxies AS p LEFT JOIN replicas AS r ON r.name = p.replica
    WHERE ($1::text IS NULL OR p.fleet = $1) AND ($2::text IS NULL OR p.id = $2)
    ORDER BY p.fleet, p.id";

const CONNECTED_TO: &str = "SELECT fleet, id FROM proxies WHERE replica = $1 AND connected";

const FORGET: &str = "
    WITH now AS (
        SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS at
    ), lives AS (
        SELECT r.name FROM replicas AS r, now WHERE r.seen_at > now.at - $1
    ), gone AS (
        SELECT p.fleet, p.id, p.written_at, row_number() OVER (ORDER BY p.written_at DESC) AS place
        FROM proxies AS p WHERE NOT p.connected OR p.replica NOT IN (SELECT name FROM lives)
    ), silent AS (
        DELETE FROM replicas AS r USING now WHERE r.seen_at < now.at - $2
    )
    DELETE FROM proxies AS p USING gone, now
    WHERE p.fleet = gone.fleet AND p.id = gone.id AND (gone.written_at < now.at - $2 OR gone.place > $3)";

impl PostgresStore {
    async fn run(&self, context: &'static str, query: Query<'_, Postgres, PgArguments>) -> Result<(), StoreError> {
        let mut lease = Lease::take(&self.pool).await?;
        bounded(context, ANSWER_WITHIN, query.execute(lease.connection())).await?;
        lease.answered();
        Ok(())
    }
}

#[async_trait]
impl ProxyRecords for PostgresStore {
    async fn replica_begins(&self, replica: &str) -> Result<(), StoreError> {
        self.run("saying that this replica begins", sqlx::query(BEGINS).bind(replica)).await
    }

    async fn replica_lives(&self, replica: &str) -> Result<(), StoreError> {
        self.run("saying that this replica lives", sqlx::query(LIVES).bind(replica)).await
    }

    async fn replica_ends(&self, replica: &str) -> Result<(), StoreError> {
        self.run("saying that this replica ends", sqlx::query(ENDS).bind(replica)).await
    }

    async fn record_proxies(&self, replica: &str, records: Vec<ProxyRecord>) -> Result<(), StoreError> {
        let mut columns: (Vec<String>, Vec<String>, Vec<bool>, Vec<String>) = Default::default();
        for ProxyRecord { fleet, id, connected, status } in records {
            columns.0.push(fleet);
            columns.1.push(id);
            columns.2.push(connected);
            columns.3.push(status);
        }
        let record = sqlx::query(RECORD).bind(replica).bind(columns.0).bind(columns.1).bind(columns.2).bind(columns.3);
        self.run("recording proxies", record).await
    }

    async fn proxies(&self, fleet: Option<&str>, id: Option<&str>) -> Result<Vec<FoundProxy>, StoreError> {
        let mut lease = Lease::take(&self.pool).await?;
        let rows = sqlx::query_as(PROXIES).bind(fleet).bind(id).bind(micros(LOST_AFTER)).fetch_all(lease.connection());
        let rows = bounded("reading proxies", ANSWER_WITHIN, rows).await?;
        lease.answered();
        Ok(proxies::found(rows))
    }

    async fn connected_to(&self, replica: &str) -> Result<Vec<(String, String)>, StoreError> {
        let mut lease = Lease::take(&self.pool).await?;
        let rows = sqlx::query_as(CONNECTED_TO).bind(replica).fetch_all(lease.connection());
        let rows = bounded("reading proxies", ANSWER_WITHIN, rows).await?;
        lease.answered();
        Ok(rows)
    }

    async fn forget_proxies(&self) -> Result<(), StoreError> {
        let forget =
            sqlx::query(FORGET).bind(micros(LOST_AFTER)).bind(micros(REMEMBERED_FOR)).bind(i64::from(REMEMBERED));
        self.run("forgetting proxies", forget).await
    }
}
