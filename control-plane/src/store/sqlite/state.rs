//! All that a SQLite file holds, read and written.

use futures_util::TryStreamExt as _;
use serde_json::Value;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _, SqliteConnection, query, query_as, query_scalar,
    raw_sql,
    sqlite::{SqliteJournalMode, SqliteRow, SqliteSynchronous},
};
use time::OffsetDateTime;
use tokio::sync::mpsc;

use super::{BUSY_TIMEOUT, HEAD, StoreError, audit, bounded, connect_options, existing_options};
use crate::store::{
    audit::{Action, NewEntry},
    failure::ANSWER_WITHIN,
    proxies::LOST_AFTER,
    rows, schema,
    state::{self, Batches, ColumnKind, Expected, Piece, ROWS_WITHIN, Table, WriteError, give},
};

const EXISTS: &str = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?1";

const LIVES: &str = "SELECT name FROM replicas WHERE seen_at > CAST(unixepoch('subsec') * 1000000 AS INTEGER) - ?1";

const LEASES_BEGIN_ANEW: &str = "
    UPDATE endpoints SET expires_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER) + ttl WHERE content IS NOT NULL";

/// Reads everything from the file of `place`, which is there and stays as it is.
pub(in crate::store) async fn read(place: &str, pieces: &mpsc::Sender<Piece>) -> Result<(), StoreError> {
    const CONTEXT: &str = "reading all that the database holds";
    let options = existing_options(place)?.busy_timeout(BUSY_TIMEOUT).pragma("query_only", "ON");
    let mut connection = bounded("opening the database file", ANSWER_WITHIN, options.connect()).await?;
    // The first statement takes the snapshot that the others see.
    bounded(CONTEXT, ANSWER_WITHIN, raw_sql("BEGIN").execute(&mut connection)).await?;
    let needed = state::schema_version();
    let found = version(&mut connection).await?;
    if found != needed {
        return Err(StoreError::Schema { found, needed });
    }
    let revision = query_scalar(HEAD).fetch_one(&mut connection);
    let revision = bounded(CONTEXT, ANSWER_WITHIN, revision).await?;
    let audit = query_as(audit::HEAD).fetch_optional(&mut connection);
    let audit = bounded(CONTEXT, ANSWER_WITHIN, audit).await?;
    if !give(pieces, Piece::Begin(state::contents(revision, audit)?)).await {
        return Ok(());
    }
    for (index, (table, order)) in state::tables().enumerate() {
        let select = AssertSqlSafe(select(&table, order));
        let mut found = query(select).fetch(&mut connection);
        while let Some(row) = bounded(CONTEXT, ROWS_WITHIN, found.try_next()).await? {
            let row = values(&table, &row).map_err(|error| super::failure(CONTEXT, error))?;
            if !give(pieces, Piece::Row(index, row)).await {
                return Ok(());
            }
        }
    }
    give(pieces, Piece::End).await;
    // Best effort: dropping the connection closes it as well.
    let _ = tokio::time::timeout(ANSWER_WITHIN, connection.close()).await;
    Ok(())
}

/// Writes what comes to the file of `place`.
pub(in crate::store) async fn write(
    place: &str,
    expected: Expected,
    (said, now): (&str, OffsetDateTime),
    mut pieces: mpsc::Receiver<Piece>,
) -> Result<(), WriteError> {
    const CONTEXT: &str = "writing all that the database holds";
    let contents = state::begin(&mut pieces).await?;
    let options = connect_options(place)?.busy_timeout(BUSY_TIMEOUT).synchronous(SqliteSynchronous::Full);
    let connect = options.journal_mode(SqliteJournalMode::Wal);
    let mut connection = bounded("opening the database file", ANSWER_WITHIN, connect.connect()).await?;
    let begin = connection.begin_with("BEGIN IMMEDIATE");
    let mut transaction = bounded("taking the writers' lock", ANSWER_WITHIN, begin).await?;
    let found = version(&mut transaction).await?;
    let needed = state::schema_version();
    if found > needed {
        return Err(StoreError::Schema { found, needed }.into());
    }
    if found > 0 {
        make_room(&mut transaction, expected).await?;
    } else {
        state::check(expected, 0, &[])?;
    }
    let mut migrator = schema::sqlite();
    migrator.set_locking(false);
    schema::migrate_to(&migrator, &mut *transaction, Some(contents.schema)).await?;
    for table in &contents.tables {
        let clear = AssertSqlSafe(format!("DELETE FROM {}", table.name));
        bounded(CONTEXT, ROWS_WITHIN, raw_sql(clear).execute(&mut *transaction)).await?;
    }
    let mut batches = Batches::of(pieces);
    while let Some((table, rows)) = batches.next(&contents).await? {
        let insert = AssertSqlSafe(insert(&contents.tables[table]));
        bounded(CONTEXT, ROWS_WITHIN, query(insert).bind(rows).execute(&mut *transaction)).await?;
    }
    schema::migrate(&migrator, &mut *transaction).await?;
    bounded(CONTEXT, ROWS_WITHIN, raw_sql(LEASES_BEGIN_ANEW).execute(&mut *transaction)).await?;
    let entry = NewEntry { detail: said.to_owned(), ..NewEntry::done(Action::Restore, "", "", now) };
    bounded(CONTEXT, ANSWER_WITHIN, audit::append(&mut transaction, vec![entry], None)).await?;
    bounded(CONTEXT, ROWS_WITHIN, transaction.commit()).await?;
    // The log of writes goes into the file; if not now, then when it is opened next.
    let _ = bounded(CONTEXT, ROWS_WITHIN, connection.close()).await;
    Ok(())
}

/// Drops all tables, if they may go.
async fn make_room(connection: &mut SqliteConnection, expected: Expected) -> Result<(), WriteError> {
    const CONTEXT: &str = "looking what the database holds";
    let there: Vec<&str> = {
        let mut there = Vec::new();
        for table in state::to_drop() {
            let exists = query_scalar::<_, i64>(EXISTS).bind(table).fetch_one(&mut *connection);
            if bounded(CONTEXT, ANSWER_WITHIN, exists).await? > 0 {
                there.push(table);
            }
        }
        there
    };
    if there.contains(&"replicas") {
        let lives = query_scalar(LIVES).bind(rows::micros(LOST_AFTER)).fetch_optional(&mut *connection);
        if let Some(name) = bounded(CONTEXT, ANSWER_WITHIN, lives).await? {
            return Err(WriteError::InUse(name));
        }
    }
    let mut counts = Vec::new();
    for table in state::to_count().filter(|table| there.contains(table)) {
        let count = AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        counts.push((table, bounded(CONTEXT, ROWS_WITHIN, query_scalar(count).fetch_one(&mut *connection)).await?));
    }
    let head = bounded(CONTEXT, ANSWER_WITHIN, query_scalar(HEAD).fetch_one(&mut *connection)).await?;
    state::check(expected, rows::number(head)?, &counts)?;
    for table in there {
        let drop = AssertSqlSafe(format!("DROP TABLE {table}"));
        bounded(CONTEXT, ROWS_WITHIN, raw_sql(drop).execute(&mut *connection)).await?;
    }
    Ok(())
}

/// The version of the schema; 0 if there is none.
async fn version(connection: &mut SqliteConnection) -> Result<i64, StoreError> {
    const CONTEXT: &str = "checking the schema";
    let exists = query_scalar::<_, i64>(EXISTS).bind("_sqlx_migrations").fetch_one(&mut *connection);
    if bounded(CONTEXT, ANSWER_WITHIN, exists).await? == 0 {
        return Ok(0);
    }
    let version = query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations").fetch_one(connection);
    bounded(CONTEXT, ANSWER_WITHIN, version).await
}

fn select(table: &Table, order: &str) -> String {
    let column = |(name, kind): &(String, ColumnKind)| match kind {
        // `hex` makes an empty text of a null.
        ColumnKind::Bytes => format!("CASE WHEN \"{name}\" IS NOT NULL THEN lower(hex(\"{name}\")) END"),
        _ => format!("\"{name}\""),
    };
    let columns: Vec<_> = table.columns.iter().map(column).collect();
    format!("SELECT {} FROM {} ORDER BY {order}", columns.join(", "), table.name)
}

fn insert(table: &Table) -> String {
    let names: Vec<_> = table.columns.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    let value = |(index, (_, kind)): (usize, &(String, ColumnKind))| match kind {
        ColumnKind::Bytes => format!("unhex(e.value ->> {index})"),
        _ => format!("e.value ->> {index}"),
    };
    let values: Vec<_> = table.columns.iter().enumerate().map(value).collect();
    let (table, names, values) = (&table.name, names.join(", "), values.join(", "));
    format!("INSERT INTO {table} ({names}) SELECT {values} FROM json_each(?1) AS e ORDER BY e.key")
}

fn values(table: &Table, row: &SqliteRow) -> Result<Vec<Value>, sqlx::Error> {
    let value = |(index, (_, kind)): (usize, &(String, ColumnKind))| match kind {
        ColumnKind::Integer => row.try_get::<Option<i64>, _>(index).map(Value::from),
        _ => row.try_get::<Option<String>, _>(index).map(Value::from),
    };
    table.columns.iter().enumerate().map(value).collect()
}
