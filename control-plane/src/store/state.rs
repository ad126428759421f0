//! All that a store holds, as rows: read at one revision, and written into a database that holds nothing.
//!
//! This is what a backup is made of. Both back ends give and take the same rows, so what was read from one can be written to the other.
//!
//! - Reading takes no lock. It sees the database at one instant, whatever is written meanwhile, and holds a few rows at a time.
//! - Writing is one transaction: all of it is there in the end, or nothing.
//! - Rows carry the names of their columns with them, and are written into the schema that they were read from, which is then brought
//!   up to date as it would have been where they come from. So a program takes what older ones have made.
//! - What is in `STATE` is state; `REBUILT` makes itself anew within seconds. A test holds that every table is in one of them.
//! - Registered endpoints are leases, and yet state: without them their services would have no endpoints until each has registered
//!   anew. Their leases begin anew when they are written.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use tokio::sync::mpsc;

use super::{KNOWN_URLS, StoreError, audit::Hash, postgres, rows, schema, sqlite};

/// How long a few rows may take, to be read or written.
pub(super) const ROWS_WITHIN: Duration = Duration::from_secs(60);

/// Rows that are written at once, and bytes of them.
const AT_ONCE: (usize, usize) = (500, 4 << 20);

/// A row: numbers, texts, bytes as texts in hexadecimal, nulls.
pub type Row = Vec<Value>;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnKind {
    /// A number.
    Integer,
    /// A text.
    Text,
    /// A document as text, byte for byte as it was written.
    Json,
    /// Bytes, in hexadecimal.
    Bytes,
}

/// A table and its columns, in the order of a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// The name of each column, and what it holds.
    pub columns: Vec<(String, ColumnKind)>,
}

/// What the rows are of that follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Contents {
    /// The version of the schema.
    pub schema: i64,
    /// The newest revision.
    pub revision: u64,
    /// Sequence and hash of the newest entry of the audit log, if there is any.
    pub audit: Option<(u64, Hash)>,
    /// Where rows come from, in the order in which they come.
    pub tables: Vec<Table>,
}

/// A piece of all that a store holds; they come in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// What follows.
    Begin(Contents),
    /// A row of the table of this place in [`Contents::tables`].
    Row(usize, Row),
    /// Nothing: all came. Without it, something was lost.
    End,
}

/// Which database may be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// One that holds nothing.
    Empty,
    /// One whose newest revision is this; what it holds goes.
    Revision(u64),
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It holds something.
    #[error("the database is not empty: it is at revision {revision} and holds {what}")]
    NotEmpty {
        /// Its newest revision.
        revision: u64,
        /// How many rows of what.
        what: String,
    },
    /// It was to be replaced at another revision than it has.
    #[error("the database is at revision {found}, not at {expected}")]
    Moved {
        /// Which it has.
        found: u64,
        /// Which was named.
        expected: u64,
    },
    /// Somebody works with it.
    #[error(
        "the control plane {0:?} works with this database; stop it first (one that was killed counts for 15 seconds)"
    )]
    InUse(String),
    /// What came makes no sense.
    #[error("{0} cannot stand in a database")]
    Malformed(String),
    /// Rows did not come to their end.
    #[error("what was to be written broke off")]
    Incomplete,
}

type Columns = &'static [(&'static str, ColumnKind)];

use ColumnKind::{Bytes, Integer, Json, Text};

/// Every table that is state: its name, its columns, and in which order its rows come. What others refer to comes before them.
const STATE: &[(&str, Columns, &str)] = &[
    (
        "revisions",
        &[("number", Integer), ("author", Text), ("message", Text), ("at", Integer), ("change_count", Integer)],
        "number",
    ),
    (
        "changes",
        &[("revision", Integer), ("kind", Text), ("name", Text), ("before", Json), ("after", Json)],
        "revision, kind, name",
    ),
    (
        "resources",
        &[
            ("kind", Text),
            ("name", Text),
            ("document", Json),
            ("revision", Integer),
            ("updated_at", Integer),
            ("updated_by", Text),
        ],
        "kind, name",
    ),
    (
        "audit",
        &[
            ("sequence", Integer),
            ("at", Integer),
            ("actor", Text),
            ("address", Text),
            ("action", Text),
            ("outcome", Text),
            ("kind", Text),
            ("name", Text),
            ("detail", Text),
            ("before", Text),
            ("after", Text),
            ("times", Integer),
            ("revision", Integer),
            ("digest", Text),
            ("previous", Text),
            ("hash", Text),
        ],
        "sequence",
    ),
    (
        "tokens",
        &[
            ("id", Text),
            ("name", Text),
            ("grants", Text),
            ("hash", Bytes),
            ("previous_hash", Bytes),
            ("previous_until", Integer),
            ("created_by", Text),
            ("created_at", Integer),
            ("ttl", Integer),
            ("expires_at", Integer),
            ("last_used_at", Integer),
            ("revoked_at", Integer),
        ],
        "id",
    ),
    ("token_serial", &[("serial", Integer)], "serial"),
    (
        "enrolments",
        &[
            ("id", Text),
            ("fleet", Text),
            ("proxy", Text),
            ("hash", Bytes),
            ("life", Integer),
            ("created_by", Text),
            ("created_at", Integer),
            ("expires_at", Integer),
            ("used_by", Text),
            ("used_from", Text),
            ("used_at", Integer),
            ("key", Bytes),
            ("previous_key", Bytes),
            ("valid_until", Integer),
            ("revoked_at", Integer),
        ],
        "id",
    ),
    (
        "quarantine",
        &[
            ("fleet", Text),
            ("form", Text),
            ("type", Text),
            ("name", Text),
            ("version", Text),
            ("good", Bytes),
            ("cause", Text),
        ],
        "fleet, form, type, name",
    ),
    ("rollouts", &[("fleet", Text), ("step", Integer), ("state", Text)], "fleet"),
    (
        "endpoints",
        &[
            ("service", Text),
            ("id", Text),
            ("content", Text),
            ("ttl", Integer),
            ("expires_at", Integer),
            ("sequence", Integer),
        ],
        "service, id",
    ),
    ("endpoint_sequence", &[("sequence", Integer)], "sequence"),
    // `number` is given anew, in this order.
    (
        "idempotency",
        &[("owner", Text), ("key", Text), ("fingerprint", Bytes), ("outcome", Text), ("at", Integer)],
        "number",
    ),
];

/// Every table that is not: who is connected, which replicas live, and in which traces revisions were made.
const REBUILT: &[&str] = &["proxies", "replicas", "revision_traces"];

/// Tables with one row from the start, which says nothing yet.
const COUNTERS: &[&str] = &["token_serial", "endpoint_sequence"];

/// Reads everything from the database at `url`, at one instant. What receives sets the pace. The schema is not touched.
///
/// # Errors
/// [`StoreError::Schema`] if it is not that of this program, others as [`open`](super::open) has them. Nobody receives any more:
/// no error, and no [`Piece::End`].
pub async fn read(url: &str, pieces: mpsc::Sender<Piece>) -> Result<(), StoreError> {
    match url.split_once(':') {
        Some(("postgres" | "postgresql", _)) => postgres::state::read(url, &pieces).await,
        Some(("sqlite", place)) => sqlite::state::read(place, &pieces).await,
        _ => Err(StoreError::Url(KNOWN_URLS.to_owned())),
    }
}

/// Writes what comes to the database at `url`, and an entry of the time `now` about it to the audit log, whose detail is `said`.
/// No control plane may work with it.
///
/// # Errors
/// The database is not as `expected`, or anything else is wrong with it or with what comes: it is as it was.
pub async fn write(
    url: &str,
    expected: Expected,
    (said, now): (&str, OffsetDateTime),
    pieces: mpsc::Receiver<Piece>,
) -> Result<(), WriteError> {
    match url.split_once(':') {
        Some(("postgres" | "postgresql", _)) => postgres::state::write(url, expected, (said, now), pieces).await,
        Some(("sqlite", place)) => sqlite::state::write(place, expected, (said, now), pieces).await,
        _ => Err(StoreError::Url(KNOWN_URLS.to_owned()).into()),
    }
}

/// The version of the schema that this program works with.
pub fn schema_version() -> i64 {
    schema::newest(&schema::sqlite())
}

/// What is read, of a database whose newest revision and entry of the audit log are these.
pub(super) fn contents(revision: i64, audit: Option<(i64, Hash)>) -> Result<Contents, StoreError> {
    let audit = match audit {
        Some((sequence, hash)) => Some((rows::number(sequence)?, hash)),
        None => None,
    };
    let tables = tables().map(|(table, _)| table).collect();
    Ok(Contents { schema: schema_version(), revision: rows::number(revision)?, audit, tables })
}

/// Every table that is read, with the order of its rows.
pub(super) fn tables() -> impl Iterator<Item = (Table, &'static str)> {
    STATE.iter().map(|(name, columns, order)| {
        let columns = columns.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect();
        (Table { name: (*name).to_owned(), columns }, *order)
    })
}

/// Every table that there may be, those that refer to others first.
pub(super) fn to_drop() -> impl Iterator<Item = &'static str> {
    let state = STATE.iter().rev().map(|(name, ..)| *name);
    REBUILT.iter().copied().chain(state).chain(["_sqlx_migrations"])
}

/// Every table whose rows make a database one that is not empty.
pub(super) fn to_count() -> impl Iterator<Item = &'static str> {
    STATE.iter().map(|(name, ..)| *name).filter(|name| !COUNTERS.contains(name))
}

/// Whether what is there may go.
pub(super) fn check(expected: Expected, revision: u64, counts: &[(&str, i64)]) -> Result<(), WriteError> {
    match expected {
        Expected::Revision(named) if named != revision => Err(WriteError::Moved { found: revision, expected: named }),
        Expected::Empty if counts.iter().any(|(_, count)| *count > 0) => {
            let some = counts.iter().filter(|(_, count)| *count > 0);
            let what: Vec<_> = some.map(|(name, count)| format!("{count} {}", name.replace('_', " "))).collect();
            Err(WriteError::NotEmpty { revision, what: what.join(", ") })
        }
        _ => Ok(()),
    }
}

/// What comes first, if its names are such as stand in statements, and its schema is one that this program has had.
pub(super) async fn begin(pieces: &mut mpsc::Receiver<Piece>) -> Result<Contents, WriteError> {
    let Some(Piece::Begin(contents)) = pieces.recv().await else { return Err(WriteError::Incomplete) };
    let plain = |name: &str| {
        !name.is_empty()
            && name.len() <= 60
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    for Table { name, columns } in &contents.tables {
        if !STATE.iter().any(|(known, ..)| known == name) {
            return Err(WriteError::Malformed(format!("table {name:?}")));
        }
        if let Some((column, _)) = columns.iter().find(|(column, _)| !plain(column)) {
            return Err(WriteError::Malformed(format!("column {column:?} of {name}")));
        }
        if columns.is_empty() {
            return Err(WriteError::Malformed(format!("{name} without columns")));
        }
    }
    let needed = schema_version();
    if !(1..=needed).contains(&contents.schema) {
        return Err(StoreError::Schema { found: contents.schema, needed }.into());
    }
    Ok(contents)
}

/// The next rows of one table, as a JSON array of arrays; none: all came.
pub(super) struct Batches {
    pieces: mpsc::Receiver<Piece>,
    /// One that came and belongs to the next batch.
    held: Option<Piece>,
}

impl Batches {
    pub(super) fn of(pieces: mpsc::Receiver<Piece>) -> Self {
        Self { pieces, held: None }
    }

    pub(super) async fn next(&mut self, contents: &Contents) -> Result<Option<(usize, String)>, WriteError> {
        let (mut table, mut rows, mut text) = (None, 0, String::from("["));
        loop {
            let piece = match self.held.take() {
                Some(piece) => Some(piece),
                None => self.pieces.recv().await,
            };
            match piece {
                Some(Piece::Row(of, row)) => {
                    let columns = contents.tables.get(of).map_or(0, |table| table.columns.len());
                    if row.len() != columns {
                        return Err(WriteError::Malformed("a row with columns that its table has not".to_owned()));
                    }
                    if table.is_some_and(|table| table != of) || rows == AT_ONCE.0 || text.len() > AT_ONCE.1 {
                        self.held = Some(Piece::Row(of, row));
                        break;
                    }
                    if table.is_some() {
                        text.push(',');
                    }
                    text.push_str(&Value::Array(row).to_string());
                    (table, rows) = (Some(of), rows + 1);
                }
                Some(Piece::End) if table.is_none() => return Ok(None),
                Some(Piece::End) => {
                    self.held = Some(Piece::End);
                    break;
                }
                Some(Piece::Begin(_)) | None => return Err(WriteError::Incomplete),
            }
        }
        text.push(']');
        Ok(table.map(|table| (table, text)))
    }
}

/// Gives `piece` to whoever receives; says whether anybody does.
pub(super) async fn give(pieces: &mpsc::Sender<Piece>, piece: Piece) -> bool {
    pieces.send(piece).await.is_ok()
}

#[cfg(test)]
mod tests;
