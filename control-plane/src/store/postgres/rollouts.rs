//! The table of rollouts, in Postgres.

use async_trait::async_trait;
use tokio::sync::watch;

use super::{PostgresStore, StoreError, bounded};
use crate::store::{
    failure::ANSWER_WITHIN,
    postgres::lease::Lease,
    rollouts::{self, RolloutRecord, RolloutRecords},
    rows,
};

// By bytes, as everywhere else.
const ROLLOUTS: &str = r#"SELECT fleet, step, state FROM rollouts ORDER BY fleet COLLATE "C""#;

const BEGIN: &str = "
    WITH moved AS (
        INSERT INTO rollouts (fleet, step, state) VALUES ($1, $2, $3) ON CONFLICT (fleet) DO NOTHING RETURNING fleet
    )
    SELECT pg_notify('chancery_rollouts', fleet) FROM moved";

const MOVE: &str = "
    WITH moved AS (
        UPDATE rollouts SET step = $2, state = $3 WHERE fleet = $1 AND step = $2 - 1 RETURNING fleet
    )
    SELECT pg_notify('chancery_rollouts', fleet) FROM moved";

const FORGET: &str = "DELETE FROM rollouts WHERE fleet = $1";

#[async_trait]
impl RolloutRecords for PostgresStore {
    async fn rollouts(&self) -> Result<Vec<RolloutRecord>, StoreError> {
        let mut lease = Lease::take(&self.pool).await?;
        let rows = bounded("reading rollouts", ANSWER_WITHIN, sqlx::query_as(ROLLOUTS).fetch_all(lease.connection()));
        let rows = rows.await?;
        lease.answered();
        rollouts::records(rows)
    }

    async fn move_rollout(&self, RolloutRecord { fleet, step, state }: RolloutRecord) -> Result<bool, StoreError> {
        let mut lease = Lease::take(&self.pool).await?;
        let sql = if step == 1 { BEGIN } else { MOVE };
        let row = sqlx::query(sql).bind(fleet).bind(rows::column(step)).bind(state);
        let moved = bounded("moving a rollout on", ANSWER_WITHIN, row.fetch_optional(lease.connection())).await?;
        lease.answered();
        Ok(moved.is_some())
    }

    async fn forget_rollout(&self, fleet: &str) -> Result<(), StoreError> {
        let mut lease = Lease::take(&self.pool).await?;
        let row = sqlx::query(FORGET).bind(fleet).execute(lease.connection());
        bounded("forgetting a rollout", ANSWER_WITHIN, row).await?;
        lease.answered();
        Ok(())
    }

    fn rollout_wakeups(&self) -> watch::Receiver<()> {
        self.rollout_wakeups.subscribe()
    }
}
