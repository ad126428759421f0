//! The table of what was done under idempotency keys, in SQLite.

use async_trait::async_trait;
use sqlx::{Executor, Sqlite, SqliteConnection, query, query_as};
use time::OffsetDateTime;

use super::{SqliteStore, StoreError, bounded};
use crate::store::{
    failure::ANSWER_WITHIN,
    idempotency::{self, IDEMPOTENCY_KEPT_FOR, IdempotencyKey, IdempotencyRecord, IdempotencyRecords},
    rows,
};

const FIND: &str = "SELECT fingerprint, outcome, at FROM idempotency WHERE owner = ?1 AND key = ?2 AND at >= ?3";

const FORGET: &str = "
    DELETE FROM idempotency
    WHERE at < ?1 OR number <= (SELECT max(number) FROM idempotency) - ?2 OR owner = ?3 AND key = ?4";

const KEEP: &str = "INSERT INTO idempotency (owner, key, fingerprint, outcome, at) VALUES (?1, ?2, ?3, ?4, ?5)";

#[async_trait]
impl IdempotencyRecords for SqliteStore {
    async fn idempotency(
        &self,
        key: &IdempotencyKey,
        since: OffsetDateTime,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        find(&self.readers, key, since).await
    }
}

pub(super) async fn find(
    executor: impl Executor<'_, Database = Sqlite>,
    key: &IdempotencyKey,
    since: OffsetDateTime,
) -> Result<Option<IdempotencyRecord>, StoreError> {
    let row = query_as(FIND).bind(&key.owner).bind(&key.key).bind(rows::moment(since)).fetch_optional(executor);
    let row = bounded("looking for an idempotency key", ANSWER_WITHIN, row).await?;
    row.map(|row| idempotency::record(key, row)).transpose()
}

/// Part of the transaction of `connection`.
pub(super) async fn keep(
    connection: &mut SqliteConnection,
    record: IdempotencyRecord,
    most: u32,
) -> Result<(), StoreError> {
    let IdempotencyRecord { key: IdempotencyKey { owner, key, fingerprint }, outcome, at } = record;
    let kept = async {
        let forgotten = query(FORGET).bind(rows::moment(at - IDEMPOTENCY_KEPT_FOR)).bind(i64::from(most) - 1);
        forgotten.bind(&owner).bind(&key).execute(&mut *connection).await?;
        let row = query(KEEP).bind(&owner).bind(&key).bind(fingerprint).bind(outcome).bind(rows::moment(at));
        row.execute(connection).await
    };
    bounded("keeping an idempotency key", ANSWER_WITHIN, kept).await.map(drop)
}
