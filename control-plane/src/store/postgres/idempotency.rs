//! The table of what was done under idempotency keys, in Postgres.

use async_trait::async_trait;
use sqlx::{query, query_as};
use time::OffsetDateTime;

use super::{PostgresStore, StoreError, bounded};
use crate::store::{
    failure::ANSWER_WITHIN,
    idempotency::{self, IDEMPOTENCY_KEPT_FOR, IdempotencyKey, IdempotencyRecord, IdempotencyRecords},
    postgres::lease::Lease,
    rows,
};

const FIND: &str = "SELECT fingerprint, outcome, at FROM idempotency WHERE owner = $1 AND key = $2 AND at >= $3";

const FORGET: &str = "
    DELETE FROM idempotency
    WHERE at < $1 OR number <= (SELECT max(number) FROM idempotency) - $2 OR owner = $3 AND key = $4";

const KEEP: &str = "INSERT INTO idempotency (owner, key, fingerprint, outcome, at) VALUES ($1, $2, $3, $4, $5)";

#[async_trait]
impl IdempotencyRecords for PostgresStore {
    async fn idempotency(
        &self,
        key: &IdempotencyKey,
        since: OffsetDateTime,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        find(&mut Lease::take(&self.pool).await?, key, since).await
    }
}

pub(super) async fn find(
    lease: &mut Lease,
    key: &IdempotencyKey,
    since: OffsetDateTime,
) -> Result<Option<IdempotencyRecord>, StoreError> {
    let row = query_as(FIND).bind(&key.owner).bind(&key.key).bind(rows::moment(since));
    let row = bounded("looking for an idempotency key", ANSWER_WITHIN, row.fetch_optional(lease.connection())).await?;
    lease.answered();
    row.map(|row| idempotency::record(key, row)).transpose()
}

/// Part of the transaction of `lease`.
pub(super) async fn keep(lease: &mut Lease, record: IdempotencyRecord, most: u32) -> Result<(), StoreError> {
    let IdempotencyRecord { key: IdempotencyKey { owner, key, fingerprint }, outcome, at } = record;
    let kept = async {
        let forgotten = query(FORGET).bind(rows::moment(at - IDEMPOTENCY_KEPT_FOR)).bind(i64::from(most) - 1);
        forgotten.bind(&owner).bind(&key).execute(lease.connection()).await?;
        let row = query(KEEP).bind(&owner).bind(&key).bind(fingerprint).bind(outcome).bind(rows::moment(at));
        row.execute(lease.connection()).await
    };
    bounded("keeping an idempotency key", ANSWER_WITHIN, kept).await?;
    lease.answered();
    Ok(())
}
