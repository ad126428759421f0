//! How a SQLite file stands.

use std::path::Path;

use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};

use super::{READERS, path_of};
use crate::store::{
    StoreError,
    failure::{ANSWER_WITHIN, bounded},
    schema::{self, SchemaStanding},
    survey::Survey,
};

/// Connections of one control plane: a writer and its readers.
const POOL: u32 = READERS + 1;

const MIGRATED: &str = "SELECT count(*) > 0 FROM sqlite_master WHERE type = 'table' AND name = '_sqlx_migrations'";

/// As [`survey()`](crate::store::survey()), at what follows `sqlite:` in the URL.
pub(in crate::store) async fn survey(place: &str) -> Result<Survey, StoreError> {
    let path = Path::new(path_of(place)?);
    if !path.exists() {
        return not_yet(path);
    }
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(false).busy_timeout(super::BUSY_TIMEOUT);
    let opening = SqliteConnection::connect_with(&options);
    let mut connection = bounded("opening the database file", ANSWER_WITHIN, opening).await?;
    let version = sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&mut connection);
    let version: String = bounded("asking for the version", ANSWER_WITHIN, version).await?;
    let made: bool =
        bounded("looking for the schema", ANSWER_WITHIN, sqlx::query_scalar(MIGRATED).fetch_one(&mut connection))
            .await?;
    let schema = schema::standing(&schema::sqlite(), &mut connection, made).await?;
    let writing = sqlx::raw_sql("BEGIN IMMEDIATE; ROLLBACK").execute(&mut connection);
    let writable = bounded("taking the writers' lock", ANSWER_WITHIN, writing).await.map(drop);
    // Best effort: dropping the connection closes it as well.
    let _ = tokio::time::timeout(ANSWER_WITHIN, connection.close()).await;
    Ok(Survey { engine: format!("SQLite {version}"), exists: true, schema, writable, ..nothing() })
}

fn not_yet(path: &Path) -> Result<Survey, StoreError> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
            Err(StoreError::Url(format!("the directory of {} does not exist", path.display())))
        }
        _ => Ok(nothing()),
    }
}

fn nothing() -> Survey {
    Survey {
        engine: "SQLite".to_owned(),
        exists: false,
        schema: SchemaStanding::Missing,
        writable: Ok(()),
        connections: None,
        pool: POOL,
        behind: None,
        clock_ahead: None,
    }
}
