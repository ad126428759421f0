//! The table of what is quarantined, in SQLite. It has a few rows, if any: one statement each.

use async_trait::async_trait;

use super::{SqliteStore, StoreError, bounded};
use crate::store::{
    failure::ANSWER_WITHIN,
    quarantine::{self, QuarantineKey, QuarantineRecord, QuarantineRecords},
};

const RECORD: &str = "
    INSERT INTO quarantine (fleet, form, type, name, version, good, cause) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
    ON CONFLICT (fleet, form, type, name) DO UPDATE SET
        version = excluded.version, good = excluded.good, cause = excluded.cause";

const RELEASE: &str =
    "DELETE FROM quarantine WHERE fleet = ?1 AND form = ?2 AND type = ?3 AND name = ?4 AND version = ?5";

const QUARANTINED: &str =
    "SELECT fleet, form, type, name, version, good, cause FROM quarantine ORDER BY fleet, form, type, name";

#[async_trait]
impl QuarantineRecords for SqliteStore {
    async fn quarantine(&self, records: Vec<QuarantineRecord>) -> Result<(), StoreError> {
        for QuarantineRecord { key, good, cause } in records {
            let QuarantineKey { fleet, form, type_url, name, version } = key;
            let row = sqlx::query(RECORD).bind(fleet).bind(form).bind(type_url).bind(name).bind(version);
            bounded("recording a quarantine", ANSWER_WITHIN, row.bind(good).bind(cause).execute(&self.writer)).await?;
        }
        Ok(())
    }

    async fn release(&self, keys: Vec<QuarantineKey>) -> Result<(), StoreError> {
        for QuarantineKey { fleet, form, type_url, name, version } in keys {
            let row = sqlx::query(RELEASE).bind(fleet).bind(form).bind(type_url).bind(name).bind(version);
            bounded("ending a quarantine", ANSWER_WITHIN, row.execute(&self.writer)).await?;
        }
        Ok(())
    }

    async fn quarantined(&self) -> Result<Vec<QuarantineRecord>, StoreError> {
        let rows = sqlx::query_as(QUARANTINED).fetch_all(&self.readers);
        Ok(quarantine::records(bounded("reading the quarantine", ANSWER_WITHIN, rows).await?))
    }
}
