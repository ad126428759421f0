//! How a database stands, for whoever checks an installation: looked at from outside, and left as it is.
//!
//! [`survey()`] neither makes a database nor brings its schema up to date, so it may be asked before anything is installed and
//! while control planes of another version run.

use std::time::Duration;

use time::OffsetDateTime;

use super::{KNOWN_URLS, Share, StoreError, postgres, schema::SchemaStanding, sqlite};

/// What is known of a database.
#[derive(Debug)]
pub struct Survey {
    /// What it is, with its version.
    pub engine: String,
    /// Whether it is there yet: a SQLite file is made by the first start.
    pub exists: bool,
    /// How its schema stands to the one that this program works with.
    pub schema: SchemaStanding,
    /// Whether it takes writes, and lets us make tables.
    pub writable: Result<(), StoreError>,
    /// How many connections its server has, of as many as there may be; none: it has no server.
    pub connections: Option<Share>,
    /// How many of them one control plane may take.
    pub pool: u32,
    /// How far it is behind the server that it copies, if it is a copy.
    pub behind: Option<Duration>,
    /// How many seconds its clock is ahead of ours; none: it has no other.
    pub clock_ahead: Option<f64>,
}

/// Looks at the database at `url`, as [`open`](super::open) takes it, within a few seconds.
///
/// # Errors
/// As for [`open`](super::open), but for the schema, of which the survey tells.
pub async fn survey(url: &str) -> Result<Survey, StoreError> {
    match url.split_once(':') {
        Some(("postgres" | "postgresql", _)) => postgres::survey::survey(url).await,
        Some(("sqlite", place)) => sqlite::survey::survey(place).await,
        _ => Err(StoreError::Url(KNOWN_URLS.to_owned())),
    }
}

/// Seconds by which a clock that said `theirs` is ahead of ours, that was asked and answered at these times.
pub(super) fn ahead(theirs: f64, asked: OffsetDateTime, answered: OffsetDateTime) -> f64 {
    let seconds = |at: OffsetDateTime| at.unix_timestamp_nanos() as f64 / 1e9;
    theirs - f64::midpoint(seconds(asked), seconds(answered))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_there_and_back_is_no_difference_of_clocks() {
        let asked = OffsetDateTime::UNIX_EPOCH + Duration::from_secs(100);
        assert!(ahead(101.0, asked, asked + Duration::from_secs(2)).abs() < 1e-6);
        assert!((ahead(98.0, asked, asked + Duration::from_secs(2)) + 3.0).abs() < 1e-6);
    }

    #[tokio::test]
    async fn what_is_no_database_is_said_to_be_none_without_its_password() {
        let error = survey("mysql://user:hunter2@host/db").await.unwrap_err().to_string();
        assert!(error.contains("postgres://") && !error.contains("hunter2"), "{error}");
    }

    #[tokio::test]
    async fn a_file_is_looked_at_and_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chancery.db");
        let url = format!("sqlite://{}", path.display());
        let before = survey(&url).await.unwrap();
        assert!(!before.exists && before.schema == SchemaStanding::Missing && before.writable.is_ok(), "{before:?}");
        assert!(!path.exists());
        super::super::open(&url).await.unwrap().close().await;
        let after = survey(&url).await.unwrap();
        assert!(after.exists && after.writable.is_ok() && after.engine.starts_with("SQLite 3."), "{after:?}");
        assert!(matches!(after.schema, SchemaStanding::Current { version } if version >= 8), "{after:?}");
        assert!(survey("sqlite:///nowhere/at/all.db").await.is_err());
    }
}
