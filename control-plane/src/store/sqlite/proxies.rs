//! The table of what replicas say of their proxies, in SQLite.

use async_trait::async_trait;
use sqlx::{Sqlite, query::Query, sqlite::SqliteArguments};

use super::{SqliteStore, StoreError, bounded};
use crate::store::{
    failure::ANSWER_WITHIN,
    proxies::{self, FoundProxy, LOST_AFTER, ProxyRecord, ProxyRecords, REMEMBERED, REMEMBERED_FOR},
    rows::micros,
};

const LIVES: &str = "
    INSERT INTO replicas (name, seen_at) VALUES (?1, CAST(unixepoch('subsec') * 1000000 AS INTEGER))
    ON CONFLICT (name) DO UPDATE SET seen_at = excluded.seen_at";

const LOST: &str = "UPDATE proxies SET connected = false WHERE replica = ?1 AND connected";

const ENDS: &str = "DELETE FROM replicas WHERE name = ?1";

// `WHERE true`: without it, `ON` would be read as part of a join.
const RECORD: &str = "
    INSERT INTO proxies (fleet, id, replica, connected, status, written_at)
    SELECT e.value ->> 'fleet', e.value ->> 'id', ?1, e.value ->> 'connected', e.value ->> 'status',
        CAST(unixepoch('subsec') * 1000000 AS INTEGER)
    FROM json_each(?2) AS e WHERE true
    ON CONFLICT (fleet, id) DO UPDATE SET
        replica = excluded.replica, connected = excluded.connected,
        status = excluded.status, written_at = excluded.written_at
    WHERE excluded.connected OR proxies.replica = excluded.replica";

const PROXIES: &str = "
    SELECT p.fleet, p.id, p.connected, p.status, p.replica,
        coalesce(r.seen_at > CAST(unixepoch('subsec') * 1000000 AS INTEGER) - ?3, false)
    FROM proxies AS p LEFT JOIN replicas AS r ON r.name = p.replica
    WHERE (?1 IS NULL OR p.fleet = ?1) AND (?2 IS NULL OR p.id = ?2)
    ORDER BY p.fleet, p.id";

const CONNECTED_TO: &str = "SELECT fleet, id FROM proxies WHERE replica = ?1 AND connected";

const FORGET: &str = "
    DELETE FROM proxies WHERE (fleet, id) IN (
        SELECT fleet, id FROM (
            SELECT fleet, id, written_at, row_number() OVER (ORDER BY written_at DESC) AS place
            FROM proxies WHERE NOT connected OR replica NOT IN (
                SELECT name FROM replicas WHERE seen_at > CAST(unixepoch('subsec') * 1000000 AS INTEGER) - ?1)
        ) WHERE written_at < CAST(unixepoch('subsec') * 1000000 AS INTEGER) - ?2 OR place > ?3)";

const FORGET_REPLICAS: &str =
    "DELETE FROM replicas WHERE seen_at < CAST(unixepoch('subsec') * 1000000 AS INTEGER) - ?1";

impl SqliteStore {
    async fn run(&self, context: &'static str, query: Query<'_, Sqlite, SqliteArguments>) -> Result<(), StoreError> {
        bounded(context, ANSWER_WITHIN, query.execute(&self.writer)).await.map(|_| ())
    }
}

#[async_trait]
impl ProxyRecords for SqliteStore {
    async fn replica_begins(&self, replica: &str) -> Result<(), StoreError> {
        self.run("saying that this replica begins", sqlx::query(LOST).bind(replica)).await?;
        self.replica_lives(replica).await
    }

    async fn replica_lives(&self, replica: &str) -> Result<(), StoreError> {
        self.run("saying that this replica lives", sqlx::query(LIVES).bind(replica)).await
    }

    async fn replica_ends(&self, replica: &str) -> Result<(), StoreError> {
        self.run("saying that this replica ends", sqlx::query(LOST).bind(replica)).await?;
        self.run("saying that this replica ends", sqlx::query(ENDS).bind(replica)).await
    }

    async fn record_proxies(&self, replica: &str, records: Vec<ProxyRecord>) -> Result<(), StoreError> {
        const CONTEXT: &str = "recording proxies";
        let records = serde_json::to_string(&records)
            .map_err(|source| StoreError::Failed { context: CONTEXT, source: Box::new(source) })?;
        self.run(CONTEXT, sqlx::query(RECORD).bind(replica).bind(records)).await
    }

    async fn proxies(&self, fleet: Option<&str>, id: Option<&str>) -> Result<Vec<FoundProxy>, StoreError> {
        let rows = sqlx::query_as(PROXIES).bind(fleet).bind(id).bind(micros(LOST_AFTER)).fetch_all(&self.readers);
        Ok(proxies::found(bounded("reading proxies", ANSWER_WITHIN, rows).await?))
    }

    async fn connected_to(&self, replica: &str) -> Result<Vec<(String, String)>, StoreError> {
        let rows = sqlx::query_as(CONNECTED_TO).bind(replica).fetch_all(&self.readers);
        bounded("reading proxies", ANSWER_WITHIN, rows).await
    }

    async fn forget_proxies(&self) -> Result<(), StoreError> {
        let (lost, remembered) = (micros(LOST_AFTER), micros(REMEMBERED_FOR));
        let forget = sqlx::query(FORGET).bind(lost).bind(remembered).bind(i64::from(REMEMBERED));
        self.run("forgetting proxies", forget).await?;
        self.run("forgetting replicas", sqlx::query(FORGET_REPLICAS).bind(remembered)).await
    }
}
