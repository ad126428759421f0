//! All that a Postgres database holds, read and written.

use futures_util::TryStreamExt as _;
use serde_json::Value;
use sqlx::{
    AssertSqlSafe, Connection as _, PgConnection, Row as _, postgres::PgRow, query, query_as, query_scalar, raw_sql,
};
use time::OffsetDateTime;
use tokio::sync::mpsc;

use super::{CONNECT_WITHIN, StoreError, audit, bounded, hosts::Hosts, sql};
use crate::store::{
    audit::{Action, NewEntry},
    failure::ANSWER_WITHIN,
    proxies::LOST_AFTER,
    rows, schema,
    state::{self, Batches, ColumnKind, Expected, Piece, ROWS_WITHIN, Table, WriteError, give},
};

/// One snapshot for all statements, and no lock that a writer would wait for.
const BEGIN_READING: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// Waits for nobody for long.
const WAIT_BRIEFLY: &str = "SET LOCAL lock_timeout = '5s'";

const EXISTS: &str = "SELECT to_regclass($1) IS NOT NULL";

const AUDIT_HEAD: &str = "SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1";

const LIVES: &str =
    "SELECT name FROM replicas WHERE seen_at > (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - $1";

const LEASES_BEGIN_ANEW: &str = "
    UPDATE endpoints SET expires_at = (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + ttl
    WHERE content IS NOT NULL";

/// Reads everything from the database at `url`.
pub(in crate::store) async fn read(url: &str, pieces: &mpsc::Sender<Piece>) -> Result<(), StoreError> {
    const CONTEXT: &str = "reading all that the database holds";
    let mut connection = Hosts::parse(url, "chancery backup")?.connect().await?;
    bounded(CONTEXT, ANSWER_WITHIN, raw_sql(BEGIN_READING).execute(&mut connection)).await?;
    let needed = state::schema_version();
    let found = version(&mut connection).await?;
    if found != needed {
        return Err(StoreError::Schema { found, needed });
    }
    let revision = query_scalar(sql::HEAD).fetch_one(&mut connection);
    let revision = bounded(CONTEXT, ANSWER_WITHIN, revision).await?;
    let audit = query_as(AUDIT_HEAD).fetch_optional(&mut connection);
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
    let _ = tokio::time::timeout(CONNECT_WITHIN, connection.close()).await;
    Ok(())
}

/// Writes what comes to the database at `url`.
pub(in crate::store) async fn write(
    url: &str,
    expected: Expected,
    (said, now): (&str, OffsetDateTime),
    mut pieces: mpsc::Receiver<Piece>,
) -> Result<(), WriteError> {
    const CONTEXT: &str = "writing all that the database holds";
    let contents = state::begin(&mut pieces).await?;
    let mut connection = Hosts::parse(url, "chancery backup")?.connect().await?;
    let mut transaction = bounded(CONTEXT, ANSWER_WITHIN, connection.begin()).await?;
    bounded(CONTEXT, ANSWER_WITHIN, raw_sql(WAIT_BRIEFLY).execute(&mut *transaction)).await?;
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
    schema::migrate_to(&schema::postgres(), &mut *transaction, Some(contents.schema)).await?;
    for table in &contents.tables {
        let clear = AssertSqlSafe(format!("DELETE FROM {}", table.name));
        bounded(CONTEXT, ROWS_WITHIN, raw_sql(clear).execute(&mut *transaction)).await?;
    }
    let mut batches = Batches::of(pieces);
    while let Some((table, rows)) = batches.next(&contents).await? {
        let insert = AssertSqlSafe(insert(&contents.tables[table]));
        bounded(CONTEXT, ROWS_WITHIN, query(insert).bind(rows).execute(&mut *transaction)).await?;
    }
    schema::migrate(&schema::postgres(), &mut *transaction).await?;
    bounded(CONTEXT, ROWS_WITHIN, raw_sql(LEASES_BEGIN_ANEW).execute(&mut *transaction)).await?;
    let entry = NewEntry { detail: said.to_owned(), ..NewEntry::done(Action::Restore, "", "", now) };
    bounded(CONTEXT, ANSWER_WITHIN, audit::append(&mut transaction, vec![entry], None)).await?;
    bounded(CONTEXT, ROWS_WITHIN, transaction.commit()).await?;
    // What was planned for a few rows is not good for what is there now. It is all there, whatever comes of this.
    let _ = bounded(CONTEXT, ROWS_WITHIN, raw_sql("ANALYZE").execute(&mut connection)).await;
    let _ = tokio::time::timeout(CONNECT_WITHIN, connection.close()).await;
    Ok(())
}

/// Drops all tables, if they may go.
async fn make_room(connection: &mut PgConnection, expected: Expected) -> Result<(), WriteError> {
    const CONTEXT: &str = "looking what the database holds";
    let mut there = Vec::new();
    for table in state::to_drop() {
        let exists = query_scalar(EXISTS).bind(table).fetch_one(&mut *connection);
        if bounded(CONTEXT, ANSWER_WITHIN, exists).await? {
            there.push(table);
        }
    }
    // Nobody adds to them from here on.
    let lock = AssertSqlSafe(format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", there.join(", ")));
    bounded("locking the database", ROWS_WITHIN, raw_sql(lock).execute(&mut *connection)).await?;
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
    let head = bounded(CONTEXT, ANSWER_WITHIN, query_scalar(sql::HEAD).fetch_one(&mut *connection)).await?;
    state::check(expected, rows::number(head)?, &counts)?;
    let drop = format!("DROP TABLE {}; DROP FUNCTION IF EXISTS audit_is_append_only()", there.join(", "));
    bounded(CONTEXT, ROWS_WITHIN, raw_sql(AssertSqlSafe(drop)).execute(connection)).await?;
    Ok(())
}

/// The version of the schema; 0 if there is none.
async fn version(connection: &mut PgConnection) -> Result<i64, StoreError> {
    const CONTEXT: &str = "checking the schema";
    let exists = query_scalar(EXISTS).bind("_sqlx_migrations").fetch_one(&mut *connection);
    if !bounded(CONTEXT, ANSWER_WITHIN, exists).await? {
        return Ok(0);
    }
    let version = query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations").fetch_one(connection);
    bounded(CONTEXT, ANSWER_WITHIN, version).await
}

fn select(table: &Table, order: &str) -> String {
    let column = |(name, kind): &(String, ColumnKind)| match kind {
        ColumnKind::Bytes => format!("encode(\"{name}\", 'hex')"),
        ColumnKind::Json => format!("\"{name}\"::text"),
        ColumnKind::Integer | ColumnKind::Text => format!("\"{name}\""),
    };
    let columns: Vec<_> = table.columns.iter().map(column).collect();
    format!("SELECT {} FROM {} ORDER BY {order}", columns.join(", "), table.name)
}

fn insert(table: &Table) -> String {
    let names: Vec<_> = table.columns.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    let value = |(index, (_, kind)): (usize, &(String, ColumnKind))| match kind {
        ColumnKind::Integer => format!("(e.value ->> {index})::bigint"),
        ColumnKind::Text => format!("e.value ->> {index}"),
        ColumnKind::Json => format!("(e.value ->> {index})::json"),
        ColumnKind::Bytes => format!("decode(e.value ->> {index}, 'hex')"),
    };
    let values: Vec<_> = table.columns.iter().enumerate().map(value).collect();
    let (table, names, values) = (&table.name, names.join(", "), values.join(", "));
    format!(
        "INSERT INTO {table} ({names}) SELECT {values}
        FROM json_array_elements($1::json) WITH ORDINALITY AS e (value, place) ORDER BY e.place"
    )
}

fn values(table: &Table, row: &PgRow) -> Result<Vec<Value>, sqlx::Error> {
    let value = |(index, (_, kind)): (usize, &(String, ColumnKind))| match kind {
        ColumnKind::Integer => row.try_get::<Option<i64>, _>(index).map(Value::from),
        _ => row.try_get::<Option<String>, _>(index).map(Value::from),
    };
    table.columns.iter().enumerate().map(value).collect()
}
