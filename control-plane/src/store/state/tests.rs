use std::collections::BTreeSet;

use sqlx::{Connection as _, SqliteConnection, query_as, query_scalar};

use super::*;

/// A new table or column has to be given its place: state, or made anew.
#[tokio::test]
async fn every_table_and_column_has_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chancery.db").display().to_string();
    crate::store::open(&format!("sqlite://{file}")).await.unwrap().close().await;
    let mut connection = SqliteConnection::connect(&format!("sqlite://{file}")).await.unwrap();
    let found: Vec<String> = query_scalar(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> '_sqlx_migrations'",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let found: BTreeSet<String> = found.into_iter().collect();
    let known: BTreeSet<String> =
        STATE.iter().map(|(name, ..)| *name).chain(REBUILT.iter().copied()).map(str::to_owned).collect();
    assert_eq!(found, known);
    for (name, columns, _) in STATE {
        let found: Vec<(String, String)> = query_as("SELECT name, type FROM pragma_table_info(?1) ORDER BY cid")
            .bind(name)
            .fetch_all(&mut connection)
            .await
            .unwrap();
        let kinds = |kind: &ColumnKind| match kind {
            Integer => "INTEGER",
            Text | Json => "TEXT",
            Bytes => "BLOB",
        };
        let known: Vec<_> = columns.iter().map(|(name, kind)| ((*name).to_owned(), kinds(kind).to_owned())).collect();
        let found: Vec<_> =
            found.into_iter().filter(|(column, _)| (*name, column.as_str()) != ("idempotency", "number")).collect();
        assert_eq!(found, known, "{name}");
    }
}

#[tokio::test]
async fn names_that_are_none_do_not_reach_a_statement() {
    let begin = async |name: &str, column: &str| {
        let (to, mut from) = mpsc::channel(1);
        let table = Table { name: name.to_owned(), columns: vec![(column.to_owned(), Integer)] };
        let contents = Contents { schema: 1, revision: 0, audit: None, tables: vec![table] };
        to.send(Piece::Begin(contents)).await.unwrap();
        super::begin(&mut from).await
    };
    assert!(begin("revisions", "number").await.is_ok());
    for (name, column) in
        [("pg_authid", "number"), ("revisions; DROP TABLE x", "number"), ("revisions", "a\" b"), ("revisions", "")]
    {
        assert!(matches!(begin(name, column).await, Err(WriteError::Malformed(_))), "{name} {column}");
    }
}
