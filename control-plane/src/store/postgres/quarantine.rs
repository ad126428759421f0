//! The table of what is quarantined, in Postgres. It has a few rows, if any: one statement each.

use async_trait::async_trait;

use super::{PostgresStore, StoreError, bounded};
use crate::store::{
    failure::ANSWER_WITHIN,
    postgres::lease::Lease,
    quarantine::{self, QuarantineKey, QuarantineRecord, QuarantineRecords},
};

const RECORD: &str = "
    INSERT INTO quarantine (fleet, form, type, name, version, good, cause) VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT (fleet, form, type, name) DO UPDATE SET
        version = excluded.version, good = excluded.good, cause = excluded.cause";

const RELEASE: &str =
    "DELETE FROM quarantine WHERE fleet = $1 AND form = $2 AND type = $3 AND name = $4 AND version = $5";

// By bytes, as everywhere else.
const QUARANTINED: &str = r#"
    SELECT fleet, form, type, name, version, good, cause FROM quarantine
    ORDER BY fleet COLLATE "C", form COLLATE "C", type COLLATE "C", name COLLATE "C""#;

#[async_trait]
impl QuarantineRecords for PostgresStore {
    async fn quarantine(&self, records: Vec<QuarantineRecord>) -> Result<(), StoreError> {
        let mut lease = Lease::take(&self.pool).await?;
        for QuarantineRecord { key, good, cause } in records {
            let QuarantineKey { fleet, form, type_url, name, version } = key;
            let row = sqlx::query(RECORD).bind(fleet).bind(form).bind(type_url).bind(name).bind(version);
            let row = row.bind(good).bind(cause).execute(lease.connection());
            bounded("recording a quarantine", ANSWER_WITHIN, row).await?;
        }
        lease.answered();
        Ok(())
    }

    async fn release(&self, keys: Vec<QuarantineKey>) -> Result<(), StoreError> {
        let mut lease = Lease::take(&self.pool).await?;
        for QuarantineKey { fleet, form, type_url, name, version } in keys {
            let row = sqlx::query(RELEASE).bind(fleet).bind(form).bind(type_url).bind(name).bind(version);
            bounded("ending a quarantine", ANSWER_WITHIN, row.execute(lease.connection())).await?;
        }
        lease.answered();
        Ok(())
    }

    async fn quarantined(&self) -> Result<Vec<QuarantineRecord>, StoreError> {
        let mut lease = Lease::take(&self.pool).await?;
        let rows = sqlx::query_as(QUARANTINED).fetch_all(lease.connection());
        let rows = bounded("reading the quarantine", ANSWER_WITHIN, rows).await?;
        lease.answered();
        Ok(quarantine::records(rows))
    }
}
