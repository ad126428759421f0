//! The table of enrolments, in Postgres.

use async_trait::async_trait;
use sqlx::{PgConnection, Postgres, postgres::PgArguments, query, query_as};
use time::OffsetDateTime;

use super::{PostgresStore, StoreError, audit, bounded, lease::Lease};
use crate::store::{
    audit::NewEntry,
    enrolments::{self, ENROLMENT_KEPT_FOR, EnrolmentRecord, EnrolmentRecords, EnrolmentRow, EnrolmentUse, Used},
    failure::ANSWER_WITHIN,
    rows,
};

/// A `SELECT` of whole rows.
macro_rules! select {
    ($which:literal) => {
        concat!(
            "SELECT id, fleet, proxy, hash, life, created_by, created_at, expires_at, used_by, used_from, used_at, key, previous_key, ",
            "valid_until, revoked_at FROM enrolments WHERE ",
            $which
        )
    };
}

const LIST: &str = select!("id COLLATE \"C\" > $1 ORDER BY id COLLATE \"C\" LIMIT $2");
const BY_ID: &str = select!("id = $1");
const BY_TOKEN: &str = select!("hash = $1");
const BY_PROXY: &str = select!("fleet = $1 AND used_by = $2 AND revoked_at IS NULL");

const FORGET: &str = "DELETE FROM enrolments WHERE coalesce(valid_until, expires_at) < $1 OR revoked_at < $1";

const ADD: &str = "
    INSERT INTO enrolments (id, fleet, proxy, hash, life, created_by, created_at, expires_at)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8 WHERE (SELECT count(*) FROM enrolments) < $9";

// Of the same key it may come again.
const USE: &str = "
    UPDATE enrolments SET used_by = $2, used_from = $3, used_at = coalesce(used_at, $4), key = $5, valid_until = $6
    WHERE id = $1 AND revoked_at IS NULL AND expires_at > $4 AND (used_by IS NULL OR used_by = $2 AND key = $5)";

const REPLACE: &str = "
    UPDATE enrolments AS old SET revoked_at = $3
    WHERE id <> $1 AND used_by = $2 AND revoked_at IS NULL AND EXISTS (SELECT 1 FROM enrolments AS new
        WHERE new.id = $1 AND new.fleet = old.fleet AND (new.proxy = $2 OR old.valid_until <= $3))";

const RENEW: &str = "
    UPDATE enrolments SET previous_key = $2, key = $3, valid_until = $4
    WHERE id = $1 AND revoked_at IS NULL AND (key = $2 OR previous_key = $2)";

const REVOKE: &str = "UPDATE enrolments SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL";

#[async_trait]
impl EnrolmentRecords for PostgresStore {
    async fn enrolments(&self, after: &str, limit: u32) -> Result<Vec<EnrolmentRecord>, StoreError> {
        let mut lease = Lease::take(&self.pool).await?;
        let rows = query_as(LIST).bind(after).bind(i64::from(limit)).fetch_all(lease.connection());
        let rows = bounded("reading enrolments", ANSWER_WITHIN, rows).await?;
        lease.answered();
        rows.into_iter().map(enrolments::record).collect()
    }

    async fn enrolment(&self, id: &str) -> Result<Option<EnrolmentRecord>, StoreError> {
        self.one_enrolment(query_as(BY_ID).bind(id)).await
    }

    async fn enrolment_of_token(&self, hash: &[u8]) -> Result<Option<EnrolmentRecord>, StoreError> {
        self.one_enrolment(query_as(BY_TOKEN).bind(hash)).await
    }

    async fn enrolment_of_proxy(&self, fleet: &str, proxy: &str) -> Result<Option<EnrolmentRecord>, StoreError> {
        self.one_enrolment(query_as(BY_PROXY).bind(fleet).bind(proxy)).await
    }

    async fn add_enrolment(&self, record: EnrolmentRecord, most: u32, entry: NewEntry) -> Result<bool, StoreError> {
        let added = async |connection: &mut PgConnection| {
            let forgotten = rows::moment(record.created_at - ENROLMENT_KEPT_FOR);
            query(FORGET).bind(forgotten).execute(&mut *connection).await?;
            let row = query(ADD).bind(&record.id).bind(&record.fleet).bind(&record.proxy).bind(&record.hash);
            let row = row.bind(rows::column(record.life.whole_microseconds())).bind(&record.created_by);
            let row =
                row.bind(rows::moment(record.created_at)).bind(rows::moment(record.expires_at)).bind(i64::from(most));
            Ok(row.execute(connection).await?.rows_affected() > 0)
        };
        self.with_entry("adding an enrolment", entry, added).await
    }

    async fn use_enrolment(&self, id: &str, by: EnrolmentUse, entry: NewEntry) -> Result<Used, StoreError> {
        let at = rows::moment(by.at);
        let used = async |connection: &mut PgConnection| {
            query(REPLACE).bind(id).bind(&by.proxy).bind(at).execute(&mut *connection).await?;
            let row = query(USE).bind(id).bind(&by.proxy).bind(&by.from).bind(at);
            let row = row.bind(&by.key).bind(rows::moment(by.valid_until));
            Ok(row.execute(connection).await?.rows_affected() > 0)
        };
        let mut lease = Lease::take(&self.pool).await?;
        let used = async { enrolments::outcome(audit::with_entry(lease.connection(), entry, used).await) };
        let used = bounded("using an enrolment", ANSWER_WITHIN, used).await?;
        // What was taken broke the transaction off, and the connection with it.
        if used != Used::Taken {
            lease.answered();
        }
        Ok(used)
    }

    async fn renew_enrolment(
        &self,
        id: &str,
        held: &[u8],
        key: &[u8],
        valid_until: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        let mut lease = Lease::take(&self.pool).await?;
        let row = query(RENEW).bind(id).bind(held).bind(key).bind(rows::moment(valid_until));
        let renewed = bounded("renewing an enrolment", ANSWER_WITHIN, row.execute(lease.connection())).await?;
        lease.answered();
        Ok(renewed.rows_affected() > 0)
    }

    async fn revoke_enrolment(&self, id: &str, at: OffsetDateTime, entry: NewEntry) -> Result<bool, StoreError> {
        let revoked = async |connection: &mut PgConnection| {
            let row = query(REVOKE).bind(id).bind(rows::moment(at)).execute(connection).await?;
            Ok(row.rows_affected() > 0)
        };
        self.with_entry("revoking an enrolment", entry, revoked).await
    }
}

impl PostgresStore {
    async fn one_enrolment(
        &self,
        wanted: sqlx::query::QueryAs<'_, Postgres, EnrolmentRow, PgArguments>,
    ) -> Result<Option<EnrolmentRecord>, StoreError> {
        let mut lease = Lease::take(&self.pool).await?;
        let row = wanted.fetch_optional(lease.connection());
        let row = bounded("looking for an enrolment", ANSWER_WITHIN, row).await?;
        lease.answered();
        row.map(enrolments::record).transpose()
    }
}
