//! The table of rollouts, in SQLite.

use async_trait::async_trait;
use tokio::sync::watch;

use super::{SqliteStore, StoreError, bounded};
use crate::store::{
    failure::ANSWER_WITHIN,
    rollouts::{self, RolloutRecord, RolloutRecords},
    rows,
};

const ROLLOUTS: &str = "SELECT fleet, step, state FROM rollouts ORDER BY fleet";

const BEGIN: &str = "INSERT INTO rollouts (fleet, step, state) VALUES (?1, ?2, ?3) ON CONFLICT (fleet) DO NOTHING";

const MOVE: &str = "UPDATE rollouts SET step = ?2, state = ?3 WHERE fleet = ?1 AND step = ?2 - 1";

const FORGET: &str = "DELETE FROM rollouts WHERE fleet = ?1";

#[async_trait]
impl RolloutRecords for SqliteStore {
    async fn rollouts(&self) -> Result<Vec<RolloutRecord>, StoreError> {
        let rows = sqlx::query_as(ROLLOUTS).fetch_all(&self.readers);
        rollouts::records(bounded("reading rollouts", ANSWER_WITHIN, rows).await?)
    }

    async fn move_rollout(&self, RolloutRecord { fleet, step, state }: RolloutRecord) -> Result<bool, StoreError> {
        let sql = if step == 1 { BEGIN } else { MOVE };
        let row = sqlx::query(sql).bind(fleet).bind(rows::column(step)).bind(state).execute(&self.writer);
        Ok(bounded("moving a rollout on", ANSWER_WITHIN, row).await?.rows_affected() == 1)
    }

    async fn forget_rollout(&self, fleet: &str) -> Result<(), StoreError> {
        let row = sqlx::query(FORGET).bind(fleet).execute(&self.writer);
        bounded("forgetting a rollout", ANSWER_WITHIN, row).await?;
        Ok(())
    }

    fn rollout_wakeups(&self) -> watch::Receiver<()> {
        self.rollout_wakeups.subscribe()
    }
}
