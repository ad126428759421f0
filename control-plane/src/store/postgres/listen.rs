//! Hears of other processes' revisions, and of every process's changes of endpoints, rollouts and tokens: `LISTEN`, on a connection of its own.
//!
//! A notification only wakes; what happened is read from the tables. So losing one costs the time
//! until the next wake-up or poll, never a change, and every new connection begins with a wake-up
//! for what was missed before it.
//!
//! A listener sends nothing, so TCP would not notice for hours that its peer is gone: when it is
//! quiet, we ask.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sqlx::postgres::{PgListener, PgNotification, PgPoolOptions};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{CONNECT_WITHIN, hosts::Hosts};
use crate::store::failure::ANSWER_WITHIN;

/// What `sql::WRITE` notifies.
const REVISIONS: &str = "chancery_revision";

/// What batches of leases notify.
const ENDPOINTS: &str = "chancery_endpoints";

/// What rollouts notify.
const ROLLOUTS: &str = "chancery_rollouts";

/// What changes of tokens notify.
const TOKENS: &str = "chancery_tokens";

/// After how long without a notification to ask whether the server is there.
const QUIET: Duration = Duration::from_secs(10);

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Who is woken.
pub(super) struct Wake {
    /// Those who wait for revisions of others.
    pub(super) revisions: watch::Sender<()>,
    /// Those who wait for changes of endpoints.
    pub(super) endpoints: watch::Sender<()>,
    /// Those who wait for rollouts.
    pub(super) rollouts: watch::Sender<()>,
    /// Those who wait for changes of tokens.
    pub(super) tokens: watch::Sender<()>,
}

/// Wakes for every revision above `committed`, for every change of endpoints or of a rollout or of a token, and after every connect. Never returns.
pub(super) async fn listen(hosts: Hosts, committed: Arc<AtomicU64>, wake: Wake) {
    let mut attempt = 0;
    loop {
        let error = match subscribe(&hosts).await {
            Ok(mut listener) => {
                attempt = 0;
                tracing::debug!("listening for revisions of other control planes");
                wake.revisions.send_replace(());
                wake.endpoints.send_replace(());
                wake.rollouts.send_replace(());
                wake.tokens.send_replace(());
                relay(&mut listener, &committed, &wake).await
            }
            Err(error) => error,
        };
        let wait = pause(attempt, rand::random());
        tracing::warn!(
            error = chancery_runtime::telemetry::chain(&error),
            retry_in = ?wait,
            "not hearing of other control planes' revisions; they arrive by polling until this connects again"
        );
        attempt += 1;
        sleep(wait).await;
    }
}

/// A pool of one, so that a connection in an unknown state is given up together with it.
async fn subscribe(hosts: &Hosts) -> Result<PgListener, sqlx::Error> {
    let connected = async {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(CONNECT_WITHIN)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(hosts.primary().await?)
            .await?;
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.eager_reconnect(false);
        listener.listen_all([REVISIONS, ENDPOINTS, ROLLOUTS, TOKENS]).await?;
        Ok(listener)
    };
    timeout(ANSWER_WITHIN, connected).await.unwrap_or_else(|_| Err(silent()))
}

/// Returns why it cannot go on.
async fn relay(listener: &mut PgListener, committed: &AtomicU64, wake: &Wake) -> sqlx::Error {
    loop {
        match timeout(QUIET, listener.try_recv()).await {
            Ok(Ok(Some(notification))) => match notification.channel() {
                ENDPOINTS => wake.endpoints.send_replace(()),
                ROLLOUTS => wake.rollouts.send_replace(()),
                TOKENS => wake.tokens.send_replace(()),
                _ if is_ours(&notification, committed) => {}
                _ => wake.revisions.send_replace(()),
            },
            Ok(Ok(None)) => return std::io::Error::from(std::io::ErrorKind::ConnectionReset).into(),
            Ok(Err(error)) => return error,
            Err(_) => match timeout(ANSWER_WITHIN, sqlx::raw_sql("SELECT 1").execute(&mut *listener)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return error,
                Err(_) => return silent(),
            },
        }
    }
}

/// Numbers are unique, so one that we committed is nobody else's. Ours may arrive before we know it
/// to be committed; that wake-up finds nothing new.
fn is_ours(notification: &PgNotification, committed: &AtomicU64) -> bool {
    notification.payload().parse() == Ok(committed.load(Ordering::Relaxed))
}

fn silent() -> sqlx::Error {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

/// Doubles from [`FIRST_PAUSE`] to [`LONGEST_PAUSE`]; `unit`, from 0 to 1, takes up to half of it off,
/// so that replicas do not all come back at once.
fn pause(attempt: u32, unit: f64) -> Duration {
    let longest = FIRST_PAUSE.saturating_mul(1 << attempt.min(16)).min(LONGEST_PAUSE);
    longest.mul_f64(1.0 - unit.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_bounded() {
        assert_eq!(pause(0, 0.0), FIRST_PAUSE);
        assert_eq!(pause(1, 0.0), 2 * FIRST_PAUSE);
        assert_eq!(pause(1, 1.0), FIRST_PAUSE);
        assert_eq!(pause(u32::MAX, 0.0), LONGEST_PAUSE);
    }
}
