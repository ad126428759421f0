//! A connection on loan from the pool.
//!
//! Invariant: it goes back to the pool only if its last statement was answered; otherwise it is
//! closed. A future that is dropped midway therefore costs a connection, and never leaves one in an
//! unknown state.

use sqlx::{PgConnection, Postgres, pool::PoolConnection};
use tokio::{sync::OwnedMutexGuard, time::timeout};

use super::{StoreError, pool::Pool};
use crate::store::failure::{ANSWER_WITHIN, failure};

/// A connection that is closed when dropped, unless it [`answered`](Lease::answered).
pub(super) struct Lease {
    connection: PoolConnection<Postgres>,
    answered: bool,
}

impl Lease {
    /// A connection that has just answered a ping.
    pub(super) async fn take(pool: &Pool) -> Result<Self, StoreError> {
        let connection = pool.acquire().await.map_err(|error| failure("connecting", error))?;
        Ok(Self { connection, answered: true })
    }

    /// To run a statement on; say [`Lease::answered`] once that is complete.
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        self.answered = false;
        &mut self.connection
    }

    /// The statement is complete.
    pub(super) fn answered(&mut self) {
        self.answered = true;
    }

    /// Rolls back in the background, and gives up `turn` after that.
    pub(super) fn roll_back(mut self, turn: OwnedMutexGuard<()>) {
        if !self.answered {
            return; // closing it rolls back as well
        }
        self.answered = false;
        // In a runtime, as wherever a connection of sqlx is dropped.
        tokio::spawn(async move {
            let rollback = sqlx::raw_sql("ROLLBACK").execute(&mut *self.connection);
            self.answered = matches!(timeout(ANSWER_WITHIN, rollback).await, Ok(Ok(_)));
            drop((self, turn));
        });
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.answered {
            self.connection.close_on_drop();
        }
    }
}
