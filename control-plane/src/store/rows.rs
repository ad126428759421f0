//! Rows as both back ends keep them, and the types they stand for.
//!
//! The queries of the two back ends select the same columns in the same order, so that what a row
//! means is said once, here. Documents are JSON text: byte for byte what was encoded, which
//! Postgres's `jsonb` is not (it refuses `\u0000` and reorders fields).

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::{Stream, TryStreamExt as _};
use serde::Serialize;
use time::OffsetDateTime;

use super::{
    Change, Loaded, NewChange, NewRevision, Revision, RevisionSummary, StoreError, Stored,
    audit::{self, Entry, Hash, NewEntry},
};
use crate::model::{Document, Key, Kind, Name};

/// `number, author, message, at, change_count`.
pub(super) type SummaryRow = (i64, String, String, i64, i64);

/// A [`SummaryRow`], then `kind, name, before, after` of one of its changes.
pub(super) type ChangeRow =
    (i64, String, String, i64, i64, Option<String>, Option<String>, Option<String>, Option<String>);

/// `kind, name, before, after` of a resource that differs between two revisions.
pub(super) type SpanRow = (String, String, Option<String>, Option<String>);

/// The head, then `document, revision, updated_at, updated_by` of a resource, if there is any.
pub(super) type ResourceRow = (i64, Option<String>, Option<i64>, Option<i64>, Option<String>);

/// A row does not stand for anything this program knows.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("{0} is no revision number or count")]
    Number(i64),
    #[error("{0} is no time in microseconds since 1970")]
    Time(i64),
    #[error("revision {revision} changed {kind}/{name}, which cannot be read as a resource")]
    Key { revision: i64, kind: String, name: String },
    #[error("a document of revision {revision} cannot be read")]
    Document {
        revision: i64,
        #[source]
        source: serde_json::Error,
    },
}

/// A revision as it is bound to statements.
pub(super) struct Encoded {
    pub(super) number: i64,
    pub(super) at: i64,
    pub(super) change_count: i64,
    pub(super) changes: Vec<EncodedChange>,
    /// What will have been stored; `author` and `message` are bound from here.
    pub(super) revision: Revision,
    /// The hash of what will have been stored.
    pub(super) digest: Hash,
    /// What is written down of it.
    pub(super) entry: NewEntry,
}

/// A change as it is bound to statements.
#[derive(Serialize)]
pub(super) struct EncodedChange {
    pub(super) kind: &'static str,
    pub(super) name: String,
    pub(super) before: Option<String>,
    pub(super) after: Option<String>,
}

/// `new` as revision `number`, in the form that a later read gives back.
pub(super) fn encode(number: u64, new: NewRevision) -> Result<Encoded, StoreError> {
    let NewRevision { author, message, at, changes, from } = new;
    let micros = moment(at);
    let at = time(micros)?;
    let mut changes: Vec<Change> =
        changes.into_iter().map(|NewChange { key, before, after }| Change { key, before, after }).collect();
    changes.sort_by(|a, b| a.key.cmp(&b.key));
    let encoded = changes.iter().map(encode_change).collect::<Result<Vec<_>, _>>()?;
    let change_count = changes.len() as u64;
    let summary = RevisionSummary { number, author: storable(author), message: storable(message), at, change_count };
    let texts = encoded.iter().map(|c| (c.kind, c.name.as_str(), c.before.as_deref(), c.after.as_deref()));
    let digest = audit::revision_digest((column(number), &summary.author, &summary.message, micros), texts);
    Ok(Encoded {
        digest,
        entry: audit::of_revision(&summary, &from),
        number: column(number),
        at: micros,
        change_count: column(change_count),
        changes: encoded,
        revision: Revision { summary, changes },
    })
}

/// `value` as an SQL integer. What is too large for one is larger than anything stored.
pub(super) fn column(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

/// `time` in the unit of the tables.
pub(super) fn moment(time: OffsetDateTime) -> i64 {
    column(time.unix_timestamp_nanos().div_euclid(1000))
}

/// `duration` in the unit of the tables.
pub(super) fn micros(duration: Duration) -> i64 {
    column(duration.as_micros())
}

/// A revision number or count from its column.
pub(super) fn number(value: i64) -> Result<u64, StoreError> {
    u64::try_from(value).map_err(|_| unreadable(Unreadable::Number(value)))
}

/// A summary from its row.
pub(super) fn summary(row: SummaryRow) -> Result<RevisionSummary, StoreError> {
    let (revision, author, message, at, change_count) = row;
    Ok(RevisionSummary {
        number: number(revision)?,
        author,
        message,
        at: time(at)?,
        change_count: number(change_count)?,
    })
}

/// Whole revisions from the rows of their changes, which come ordered by revision.
pub(super) fn revisions(rows: Vec<ChangeRow>) -> Result<Vec<Revision>, StoreError> {
    let mut revisions: Vec<Revision> = Vec::new();
    for (revision, author, message, at, change_count, kind, name, before, after) in rows {
        let summary = summary((revision, author, message, at, change_count))?;
        if revisions.last().is_none_or(|last| last.summary.number != summary.number) {
            revisions.push(Revision { summary, changes: Vec::new() });
        }
        if let (Some(kind), Some(name), Some(last)) = (kind, name, revisions.last_mut()) {
            last.changes.push(Change {
                key: key(revision, kind, name)?,
                before: before.map(|text| document(revision, &text)).transpose()?,
                after: after.map(|text| document(revision, &text)).transpose()?,
            });
        }
    }
    for revision in &mut revisions {
        revision.changes.sort_by(|a, b| a.key.cmp(&b.key));
    }
    Ok(revisions)
}

/// The hash of each revision, from the rows of its changes, which come ordered by revision. Of one revision at a time the rows are held.
pub(super) async fn digests(
    rows: impl Stream<Item = Result<ChangeRow, sqlx::Error>>,
) -> Result<Vec<(i64, Hash)>, sqlx::Error> {
    let mut rows = pin!(rows);
    let (mut digests, mut revision) = (Vec::new(), Vec::<ChangeRow>::new());
    while let Some(row) = rows.try_next().await? {
        if revision.first().is_some_and(|first| first.0 != row.0) {
            digests.extend(digest(&revision));
            revision.clear();
        }
        revision.push(row);
    }
    digests.extend(digest(&revision));
    Ok(digests)
}

/// That of one revision, from all its rows.
fn digest(rows: &[ChangeRow]) -> Option<(i64, Hash)> {
    let (revision, author, message, at, ..) = rows.first()?;
    let changes = rows.iter().filter_map(|(.., kind, name, before, after)| {
        Some((kind.as_deref()?, name.as_deref()?, before.as_deref(), after.as_deref()))
    });
    Some((*revision, audit::revision_digest((*revision, author, message, *at), changes)))
}

/// Digests by the number of their revision.
pub(super) fn numbered(digests: Vec<(i64, Hash)>) -> Result<Vec<(u64, Hash)>, StoreError> {
    digests.into_iter().map(|(revision, digest)| Ok((number(revision)?, digest))).collect()
}

/// Entries of the audit log as the JSON that statements take.
pub(super) fn audit(entries: &[Entry]) -> Result<String, sqlx::Error> {
    let row = |entry: &Entry| -> Result<serde_json::Value, serde_json::Error> {
        let mut row = serde_json::to_value(entry)?;
        row["at"] = moment(entry.at).into();
        Ok(row)
    };
    let rows: Result<Vec<_>, _> = entries.iter().map(row).collect();
    rows.and_then(|rows| serde_json::to_string(&rows)).map_err(|error| sqlx::Error::Encode(Box::new(error)))
}

/// The place of a cursor in the order of kinds and names; before everything without one.
pub(super) fn place(after: Option<&Key>) -> (&'static str, &str) {
    after.map_or(("", ""), |key| (key.kind.as_str(), key.name.as_str()))
}

/// What differs up to revision `to`, from its rows.
pub(super) fn span(to: u64, rows: Vec<SpanRow>) -> Result<Vec<Change>, StoreError> {
    let revision = column(to);
    let change = |(kind, name, before, after): SpanRow| {
        Ok(Change {
            key: key(revision, kind, name)?,
            before: before.map(|text| document(revision, &text)).transpose()?,
            after: after.map(|text| document(revision, &text)).transpose()?,
        })
    };
    rows.into_iter().map(change).collect()
}

/// Everything, from the rows of all resources: one row without a resource if there are none.
pub(super) fn loaded(rows: Vec<ResourceRow>) -> Result<Loaded, StoreError> {
    let mut head = 0;
    let mut resources = Vec::with_capacity(rows.len());
    for (newest, text, revision, updated_at, updated_by) in rows {
        head = newest;
        if let (Some(text), Some(revision), Some(updated_at), Some(updated_by)) =
            (text, revision, updated_at, updated_by)
        {
            resources.push(Stored {
                document: document(revision, &text)?,
                revision: number(revision)?,
                updated_at: time(updated_at)?,
                updated_by,
            });
        }
    }
    resources.sort_by_cached_key(|stored| stored.document.key());
    Ok(Loaded { revision: number(head)?, resources })
}

fn encode_change(change: &Change) -> Result<EncodedChange, StoreError> {
    let json = |document: &Option<Arc<Document>>| {
        document
            .as_deref()
            .map(serde_json::to_string)
            .transpose()
            .map_err(|source| StoreError::Failed { context: "encoding a document", source: Box::new(source) })
    };
    Ok(EncodedChange {
        kind: change.key.kind.as_str(),
        name: change.key.name.to_string(),
        before: json(&change.before)?,
        after: json(&change.after)?,
    })
}

/// Postgres's text cannot hold U+0000; in a message or an author it says nothing either.
pub(super) fn storable(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

fn key(revision: i64, kind: String, name: String) -> Result<Key, StoreError> {
    match (kind.parse::<Kind>(), name.parse::<Name>()) {
        (Ok(kind), Ok(name)) => Ok(Key::new(kind, name)),
        _ => Err(unreadable(Unreadable::Key { revision, kind, name })),
    }
}

fn document(revision: i64, text: &str) -> Result<Arc<Document>, StoreError> {
    serde_json::from_str(text).map(Arc::new).map_err(|source| unreadable(Unreadable::Document { revision, source }))
}

/// A time from its column.
pub(super) fn time(micros: i64) -> Result<OffsetDateTime, StoreError> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000)
        .map_err(|_| unreadable(Unreadable::Time(micros)))
}

fn unreadable(source: Unreadable) -> StoreError {
    StoreError::Failed { context: "reading what is stored", source: Box::new(source) }
}
