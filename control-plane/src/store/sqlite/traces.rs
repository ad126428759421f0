//! The table of traces, in SQLite.

use std::collections::BTreeMap;

use async_trait::async_trait;
use sqlx::{SqliteConnection, SqliteExecutor, query, query_as};

use super::{SqliteStore, StoreError, bounded};
use crate::store::{
    failure::ANSWER_WITHIN,
    rows,
    traces::{self, TraceRecords},
};

const TRACES_AFTER: &str = "SELECT revision, traceparent FROM revision_traces WHERE revision > ?1";

const FORGET: &str = "DELETE FROM revision_traces WHERE revision <= ?1";

const TRACE: &str = "INSERT INTO revision_traces (revision, traceparent) VALUES (?1, ?2)";

#[async_trait]
impl TraceRecords for SqliteStore {
    async fn traces_after(&self, after: u64) -> Result<BTreeMap<u64, String>, StoreError> {
        find(&self.readers, after).await
    }
}

/// By `executor`: any connection, or the transaction of a write.
pub(super) async fn find(executor: impl SqliteExecutor<'_>, after: u64) -> Result<BTreeMap<u64, String>, StoreError> {
    let rows = query_as(TRACES_AFTER).bind(rows::column(after)).fetch_all(executor);
    traces::by_revision(bounded("reading traces", ANSWER_WITHIN, rows).await?)
}

/// Part of the transaction of `connection`.
pub(super) async fn keep(
    connection: &mut SqliteConnection,
    revision: u64,
    traceparent: &str,
) -> Result<(), StoreError> {
    let revision = rows::column(revision);
    let kept = async {
        query(FORGET).bind(revision - traces::KEPT).execute(&mut *connection).await?;
        query(TRACE).bind(revision).bind(traceparent).execute(&mut *connection).await
    };
    bounded("keeping a trace", ANSWER_WITHIN, kept).await?;
    Ok(())
}
