//! The conformance suite over a file and over memory, and what is SQLite's own.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::store::conformance::{self, change, create, new_revision, open, service, try_commit};

mod file {
    use super::*;

    basic_conformance_tests!(fresh_file);
    shared_conformance_tests!(fresh_file);
}

mod memory {
    use super::*;

    basic_conformance_tests!(fresh_memory);
}

async fn fresh_file() -> Option<(TempDir, String)> {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", directory.path().join("chancery.db").display());
    Some((directory, url))
}

async fn fresh_memory() -> Option<((), String)> {
    Some(((), "sqlite::memory:".to_owned()))
}

#[tokio::test]
async fn only_the_owner_can_read_the_file() {
    let (directory, url) = fresh_file().await.unwrap();
    let store = open(&url).await;
    create(&store, "a").await;
    let mut files = 0;
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
        files += 1;
    }
    assert_eq!(files, 3, "database, log, index of the log");
}

#[tokio::test]
async fn a_url_that_cannot_work_is_refused() {
    for url in [
        "sqlite://",
        "sqlite:///nowhere/at/all.db",
        "sqlite:///",
        "sqlite://a.db?mode=ro",
        "mysql://u:secret@h/d",
        "chancery",
    ] {
        let refused = crate::store::open(url).await.err();
        assert!(matches!(refused, Some(StoreError::Url(_))), "{url}: {refused:?}");
        assert!(!refused.unwrap().to_string().contains("secret"));
    }
}

#[tokio::test]
async fn a_path_is_taken_as_it_stands() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a b%20c#d ü.db");
    let store = open(&format!("sqlite://{}", path.display())).await;
    create(&store, "a").await;
    assert!(path.exists());
}

#[tokio::test]
async fn a_newer_schema_stops_the_start() {
    let (_directory, url) = fresh_file().await.unwrap();
    open(&url).await.close().await;
    let place = url.strip_prefix("sqlite:").unwrap();
    let mut connection = SqliteConnection::connect_with(&connect_options(place).unwrap()).await.unwrap();
    sqlx::query("INSERT INTO _sqlx_migrations VALUES (7000, 'from the future', 0, true, x'', 0)")
        .execute(&mut connection)
        .await
        .unwrap();
    let refused = crate::store::open(&url).await.err();
    assert!(matches!(refused, Some(StoreError::Schema { found: 7000, .. })), "{refused:?}");
}

#[tokio::test]
async fn a_changed_migration_stops_the_start() {
    let (_directory, url) = fresh_file().await.unwrap();
    open(&url).await.close().await;
    let place = url.strip_prefix("sqlite:").unwrap();
    let mut connection = SqliteConnection::connect_with(&connect_options(place).unwrap()).await.unwrap();
    sqlx::query("UPDATE _sqlx_migrations SET checksum = x'00'").execute(&mut connection).await.unwrap();
    let refused = crate::store::open(&url).await.err();
    assert!(matches!(refused, Some(StoreError::Failed { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_full_disk_is_an_outage_and_leaves_nothing() {
    let (_directory, url) = fresh_file().await.unwrap();
    let store: std::sync::Arc<dyn Store> = {
        let store = SqliteStore::open(url.strip_prefix("sqlite:").unwrap(), &schema::sqlite()).await.unwrap();
        sqlx::query("PRAGMA max_page_count = 30").execute(&store.writer).await.unwrap();
        std::sync::Arc::new(store)
    };
    create(&store, "small").await;
    let large = service("large", json!({ "text": "x".repeat(1 << 20) }));
    let refused = try_commit(&store, "large", vec![change("large", None, Some(&large))]).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    assert_eq!(store.head().await.unwrap(), 1);
    assert_eq!(create(&store, "small-too").await.summary.number, 2);
}

#[tokio::test]
async fn a_transaction_that_sqlite_has_rolled_back_itself_is_in_nobodys_way() {
    let (_directory, url) = fresh_file().await.unwrap();
    let store = SqliteStore::open(url.strip_prefix("sqlite:").unwrap(), &schema::sqlite()).await.unwrap();
    let mut transaction = store.writer.begin_with("BEGIN IMMEDIATE").await.unwrap();
    sqlx::raw_sql("ROLLBACK").execute(&mut *transaction).await.unwrap();
    drop(transaction);
    let store: std::sync::Arc<dyn Store> = std::sync::Arc::new(store);
    assert_eq!(create(&store, "after").await.summary.number, 1);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let (directory, url) = fresh_file().await.unwrap();
    std::fs::write(directory.path().join("chancery.db"), "This is a letter. ".repeat(1000)).unwrap();
    let refused = crate::store::open(&url).await.err();
    assert!(matches!(refused, Some(StoreError::Failed { .. })), "{refused:?}");
}

#[tokio::test]
async fn nobody_is_woken() {
    let (_directory, url) = fresh_file().await.unwrap();
    let (left, right) = (open(&url).await, open(&url).await);
    let wakeups = left.wakeups();
    let document = service("a", json!({}));
    let new = new_revision("unheard", vec![change("a", None, Some(&document))]);
    right.begin().await.unwrap().commit(new).await.unwrap();
    assert!(!wakeups.has_changed().unwrap());
}

#[tokio::test]
async fn the_audit_log_only_grows() {
    let store = SqliteStore::open(":memory:", &schema::sqlite()).await.unwrap();
    let entry =
        super::super::NewEntry::done(super::super::Action::Promote, "ada", "::1", time::OffsetDateTime::UNIX_EPOCH);
    super::super::AuditRecords::append_audit(&store, vec![entry]).await.unwrap();
    for statement in ["UPDATE audit SET actor = 'eve'", "DELETE FROM audit", "UPDATE audit SET times = 2"] {
        let refused = sqlx::query(statement).execute(&store.writer).await.unwrap_err();
        assert!(refused.to_string().contains("append-only"), "{statement}: {refused}");
    }
}
