//! The table of traces, in Postgres.

use std::collections::BTreeMap;

use async_trait::async_trait;
use sqlx::{query, query_as};

use super::{PostgresStore, StoreError, bounded};
use crate::store::{
    failure::ANSWER_WITHIN,
    postgres::lease::Lease,
    rows,
    traces::{self, TraceRecords},
};

const TRACES_AFTER: &str = "SELECT revision, traceparent FROM revision_traces WHERE revision > $1";

const FORGET: &str = "DELETE FROM revision_traces WHERE revision <= $1";

const TRACE: &str = "INSERT INTO revision_traces (revision, traceparent) VALUES ($1, $2)";

#[async_trait]
impl TraceRecords for PostgresStore {
    async fn traces_after(&self, after: u64) -> Result<BTreeMap<u64, String>, StoreError> {
        find(&mut Lease::take(&self.pool).await?, after).await
    }
}

/// By the connection of `lease`.
pub(super) async fn find(lease: &mut Lease, after: u64) -> Result<BTreeMap<u64, String>, StoreError> {
    let rows = query_as(TRACES_AFTER).bind(rows::column(after)).fetch_all(lease.connection());
    let rows = bounded("reading traces", ANSWER_WITHIN, rows).await?;
    lease.answered();
    traces::by_revision(rows)
}

/// Part of the transaction of `lease`.
pub(super) async fn keep(lease: &mut Lease, revision: u64, traceparent: &str) -> Result<(), StoreError> {
    let revision = rows::column(revision);
    let kept = async {
        query(FORGET).bind(revision - traces::KEPT).execute(lease.connection()).await?;
        query(TRACE).bind(revision).bind(traceparent).execute(lease.connection()).await
    };
    bounded("keeping a trace", ANSWER_WITHIN, kept).await?;
    lease.answered();
    Ok(())
}
