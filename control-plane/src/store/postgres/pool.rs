//! The connections of one control plane, to the host that takes writes.
//!
//! The driver's pool makes its connections by one set of options, which can be exchanged: where the database has several hosts, that
//! is done before the pool has to make a connection. A connection to a host that has become a replica meanwhile goes with the first
//! write that it refuses, as every connection whose statement failed does (`lease`).

use std::time::Duration;

use sqlx::{Connection as _, PgPool, Postgres, pool::PoolConnection, postgres::PgPoolOptions};
use tokio::time::timeout;

use super::{CONNECT_WITHIN, MAX_CONNECTIONS, hosts::Hosts};

/// How long an idle connection may take to answer. One that is silent is not alone: the others lead to the same host.
const PING_WITHIN: Duration = Duration::from_secs(1);

pub(super) struct Pool {
    pool: PgPool,
    hosts: Hosts,
}

impl Pool {
    /// Connects when it is needed.
    pub(super) fn new(hosts: Hosts) -> Self {
        let pool = PgPoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .acquire_timeout(CONNECT_WITHIN)
            .test_before_acquire(true)
            .connect_lazy_with(hosts.first());
        Self { pool, hosts }
    }

    /// A connection that has just answered a ping.
    pub(super) async fn acquire(&self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        if self.hosts.may_move() {
            if let Some(idle) = self.idle().await {
                return Ok(idle);
            }
            if self.pool.size() < MAX_CONNECTIONS {
                self.pool.set_connect_options(self.hosts.primary().await?);
            }
        }
        self.pool.acquire().await
    }

    /// One that is there already, if it answers; all that are idle are given up otherwise.
    async fn idle(&self) -> Option<PoolConnection<Postgres>> {
        let mut idle = self.pool.try_acquire()?;
        if let Ok(Ok(())) = timeout(PING_WITHIN, idle.ping()).await {
            return Some(idle);
        }
        idle.close_on_drop();
        while let Some(mut other) = self.pool.try_acquire() {
            other.close_on_drop();
        }
        None
    }

    /// How many connections are in use.
    pub(super) fn used(&self) -> u32 {
        self.pool.size().saturating_sub(u32::try_from(self.pool.num_idle()).unwrap_or(u32::MAX))
    }

    /// Ends all connections, and waits for those in use.
    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}
