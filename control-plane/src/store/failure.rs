//! What an error of the driver means to a caller: worth trying again, or not.
//!
//! A driver reports the same outage in many ways (a refused connection, a pool that timed out, a
//! server that says it is shutting down), and sometimes not at all: a network that swallows packets
//! sends no error. So every wait goes through [`bounded`], and every error through [`failure`].

use std::{borrow::Cow, future::Future, time::Duration};

use sqlx::postgres::PgDatabaseError;

use super::StoreError;

/// How long a statement, or the wait for the writers' lock, may take.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How long [`super::Store::load`] may take: it grows with the catalog.
pub(super) const LOAD_WITHIN: Duration = Duration::from_secs(30);

/// How long bringing the schema up to date may take.
pub(super) const MIGRATE_WITHIN: Duration = Duration::from_secs(60);

/// A wait passed its deadline.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {limit:?} when {context}")]
struct Late {
    context: &'static str,
    limit: Duration,
}

/// The deadline `limit` passed when `context`.
pub(super) fn late(context: &'static str, limit: Duration) -> StoreError {
    StoreError::Unavailable(Box::new(Late { context, limit }))
}

/// What `future` answers, or [`StoreError::Unavailable`] once `limit` has passed.
pub(super) async fn bounded<T>(
    context: &'static str,
    limit: Duration,
    future: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(limit, future).await {
        Ok(result) => result.map_err(|error| failure(context, error)),
        Err(_) => Err(late(context, limit)),
    }
}

/// What `error` means, that came up when `context`.
pub(super) fn failure(context: &'static str, error: sqlx::Error) -> StoreError {
    if is_outage(&error) {
        StoreError::Unavailable(Box::new(error))
    } else {
        StoreError::Failed { context, source: Box::new(error) }
    }
}

/// Whether `error` goes by itself, so that trying again helps.
pub(super) fn is_outage(error: &sqlx::Error) -> bool {
    match error {
        // What answers is no database: a balancer before it that has none to lead to closes the connection it has just taken.
        sqlx::Error::Protocol(_) => true,
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or(Cow::Borrowed(""));
            if error.try_downcast_ref::<PgDatabaseError>().is_some() {
                is_postgres_outage(&code)
            } else {
                is_sqlite_outage(&code)
            }
        }
        _ => false,
    }
}

/// By SQLSTATE (PostgreSQL, Appendix A), whole classes first.
fn is_postgres_outage(code: &str) -> bool {
    const CLASSES: [&str; 4] = [
        "08", // connection exception
        "40", // transaction rollback: serialization, deadlock
        "53", // insufficient resources: disk, memory, connections
        "58", // system error: I/O
    ];
    const CODES: [&str; 8] = [
        "25006", // read-only transaction: a standby, until it is promoted
        "25P03", // we held the lock too long without a word
        "55P03", // lock not available in time
        "57014", // statement timeout
        "57P01", // administrator shutdown
        "57P02", // crash shutdown
        "57P03", // cannot connect now: starting up, shutting down
        "57P05", // idle session timeout
    ];
    CLASSES.iter().any(|class| code.starts_with(class)) || CODES.contains(&code)
}

/// By result code (sqlite.org/rescode.html); the low byte of an extended code is the primary one.
fn is_sqlite_outage(code: &str) -> bool {
    const BUSY: i32 = 5;
    const LOCKED: i32 = 6;
    const NO_MEMORY: i32 = 7;
    const IO_ERROR: i32 = 10;
    const FULL: i32 = 13;
    const CANNOT_OPEN: i32 = 14;
    code.parse::<i32>()
        .is_ok_and(|code| [BUSY, LOCKED, NO_MEMORY, IO_ERROR, FULL, CANNOT_OPEN].contains(&(code & 0xff)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_from_a_mistake() {
        for code in ["57P01", "57P03", "08006", "53300", "53100", "55P03"] {
            assert!(is_postgres_outage(code), "{code}");
        }
        for code in ["23505", "42P01", "28P01", "3D000", "22021", ""] {
            assert!(!is_postgres_outage(code), "{code}");
        }
        assert!(is_outage(&sqlx::Error::Protocol("unexpected response from SSLRequest".to_owned())));
        assert!(!is_outage(&sqlx::Error::RowNotFound));
        for code in ["5", "261", "13", "3338"] {
            assert!(is_sqlite_outage(code), "{code}");
        }
        for code in ["8", "11", "1555", "2067", ""] {
            assert!(!is_sqlite_outage(code), "{code}");
        }
    }

    #[tokio::test]
    async fn what_never_answers_is_unavailable() {
        let answer: Result<(), _> = bounded("waiting", Duration::from_millis(1), std::future::pending()).await;
        assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    }
}
