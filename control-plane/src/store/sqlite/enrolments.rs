//! The table of enrolments, in SQLite.

use async_trait::async_trait;
use sqlx::{SqliteConnection, query, query_as};
use time::OffsetDateTime;

use super::{SqliteStore, StoreError, bounded};
use crate::store::{
    audit::NewEntry,
    enrolments::{self, ENROLMENT_KEPT_FOR, EnrolmentRecord, EnrolmentRecords, EnrolmentUse, Used},
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

const LIST: &str = select!("id > ?1 ORDER BY id LIMIT ?2");
const BY_ID: &str = select!("id = ?1");
const BY_TOKEN: &str = select!("hash = ?1");
const BY_PROXY: &str = select!("fleet = ?1 AND used_by = ?2 AND revoked_at IS NULL");

const FORGET: &str = "DELETE FROM enrolments WHERE coalesce(valid_until, expires_at) < ?1 OR revoked_at < ?1";

const ADD: &str = "
    INSERT INTO enrolments (id, fleet, proxy, hash, life, created_by, created_at, expires_at)
    SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 WHERE (SELECT count(*) FROM enrolments) < ?9";

// Of the same key it may come again.
const USE: &str = "
    UPDATE enrolments SET used_by = ?2, used_from = ?3, used_at = coalesce(used_at, ?4), key = ?5, valid_until = ?6
    WHERE id = ?1 AND revoked_at IS NULL AND expires_at > ?4 AND (used_by IS NULL OR used_by = ?2 AND key = ?5)";

const REPLACE: &str = "
    UPDATE enrolments AS old SET revoked_at = ?3
    WHERE id <> ?1 AND used_by = ?2 AND revoked_at IS NULL AND EXISTS (SELECT 1 FROM enrolments AS new
        WHERE new.id = ?1 AND new.fleet = old.fleet AND (new.proxy = ?2 OR old.valid_until <= ?3))";

const RENEW: &str = "
    UPDATE enrolments SET previous_key = ?2, key = ?3, valid_until = ?4
    WHERE id = ?1 AND revoked_at IS NULL AND (key = ?2 OR previous_key = ?2)";

const REVOKE: &str = "UPDATE enrolments SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL";

#[async_trait]
impl EnrolmentRecords for SqliteStore {
    async fn enrolments(&self, after: &str, limit: u32) -> Result<Vec<EnrolmentRecord>, StoreError> {
        let rows = query_as(LIST).bind(after).bind(limit).fetch_all(&self.readers);
        let rows = bounded("reading enrolments", ANSWER_WITHIN, rows).await?;
        rows.into_iter().map(enrolments::record).collect()
    }

    async fn enrolment(&self, id: &str) -> Result<Option<EnrolmentRecord>, StoreError> {
        let row = query_as(BY_ID).bind(id).fetch_optional(&self.readers);
        bounded("reading an enrolment", ANSWER_WITHIN, row).await?.map(enrolments::record).transpose()
    }

    async fn enrolment_of_token(&self, hash: &[u8]) -> Result<Option<EnrolmentRecord>, StoreError> {
        let row = query_as(BY_TOKEN).bind(hash).fetch_optional(&self.readers);
        bounded("looking for an enrolment", ANSWER_WITHIN, row).await?.map(enrolments::record).transpose()
    }

    async fn enrolment_of_proxy(&self, fleet: &str, proxy: &str) -> Result<Option<EnrolmentRecord>, StoreError> {
        let row = query_as(BY_PROXY).bind(fleet).bind(proxy).fetch_optional(&self.readers);
        bounded("looking for an enrolment", ANSWER_WITHIN, row).await?.map(enrolments::record).transpose()
    }

    async fn add_enrolment(&self, record: EnrolmentRecord, most: u32, entry: NewEntry) -> Result<bool, StoreError> {
        let added = self.with_entry(entry, async |connection| {
            let forgotten = rows::moment(record.created_at - ENROLMENT_KEPT_FOR);
            query(FORGET).bind(forgotten).execute(&mut *connection).await?;
            let row = query(ADD).bind(&record.id).bind(&record.fleet).bind(&record.proxy).bind(&record.hash);
            let row = row.bind(rows::column(record.life.whole_microseconds())).bind(&record.created_by);
            let row = row.bind(rows::moment(record.created_at)).bind(rows::moment(record.expires_at)).bind(most);
            Ok(row.execute(connection).await?.rows_affected() > 0)
        });
        bounded("adding an enrolment", ANSWER_WITHIN, added).await
    }

    async fn use_enrolment(&self, id: &str, by: EnrolmentUse, entry: NewEntry) -> Result<Used, StoreError> {
        let at = rows::moment(by.at);
        let used = async |connection: &mut SqliteConnection| {
            query(REPLACE).bind(id).bind(&by.proxy).bind(at).execute(&mut *connection).await?;
            let row = query(USE).bind(id).bind(&by.proxy).bind(&by.from).bind(at);
            let row = row.bind(&by.key).bind(rows::moment(by.valid_until));
            Ok(row.execute(connection).await?.rows_affected() > 0)
        };
        let used = async { enrolments::outcome(self.with_entry(entry, used).await) };
        bounded("using an enrolment", ANSWER_WITHIN, used).await
    }

    async fn renew_enrolment(
        &self,
        id: &str,
        held: &[u8],
        key: &[u8],
        valid_until: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        let row = query(RENEW).bind(id).bind(held).bind(key).bind(rows::moment(valid_until)).execute(&self.writer);
        Ok(bounded("renewing an enrolment", ANSWER_WITHIN, row).await?.rows_affected() > 0)
    }

    async fn revoke_enrolment(&self, id: &str, at: OffsetDateTime, entry: NewEntry) -> Result<bool, StoreError> {
        let revoked = self.with_entry(entry, async |connection| {
            let row = query(REVOKE).bind(id).bind(rows::moment(at)).execute(connection).await?;
            Ok(row.rows_affected() > 0)
        });
        bounded("revoking an enrolment", ANSWER_WITHIN, revoked).await
    }
}
