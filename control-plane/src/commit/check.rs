//! What a change set makes of a catalog, if it may be made.

use std::{sync::Arc, time::Instant};

use time::OffsetDateTime;

use super::{
    Action, ChangeSet, Changed, CommitError, Committed, Expect,
    parsed::{Parsed, Stamp, now},
};
use crate::{
    access::changes,
    model::{Catalog, Entry, Key},
    replica::Current,
    store::NewChange,
};

/// A change set that may be made.
pub(super) struct Checked {
    pub(super) committed: Committed,
    pub(super) next: Catalog,
    pub(super) new_changes: Vec<NewChange>,
    pub(super) at: OffsetDateTime,
}

/// What `edits` make of the current catalog, if they may.
pub(super) fn check(current: &Current, set: &ChangeSet, edits: Vec<Parsed>) -> Result<Checked, CommitError> {
    let Current { revision: head, catalog } = current;
    if let Some(expected) = set.if_revision
        && expected != *head
    {
        return Err(CommitError::Conflict { key: None, expected, current: None, head: *head });
    }
    let stamp = Stamp { revision: head + 1, at: now(), author: &set.author.name };
    changes::allowed(&set.author, catalog, edits.iter().map(|edit| (edit.key(), edit.becomes())))?;
    let mut changed = Vec::new();
    let mut changes = Vec::new();
    for edit in edits {
        let key = edit.key();
        let before = catalog.entry(&key);
        expectation(&key, edit.expect(), before, *head)?;
        let before_document = before.map(|entry| entry.document.clone());
        match edit {
            Parsed::Put { document, .. } if before_document.as_ref() == Some(&document) => {}
            Parsed::Delete { .. } if before.is_none() => {}
            edit => {
                let (key, entry) = edit.into_change(&stamp);
                let action = match (before, &entry) {
                    (_, None) => Action::Deleted,
                    (None, Some(_)) => Action::Created,
                    (Some(_), Some(_)) => Action::Updated,
                };
                let after = entry.as_ref().map(|entry| entry.document.clone());
                changed.push(Changed { key: key.clone(), action, before: before_document, after });
                changes.push((key, entry));
            }
        }
    }
    changed.sort_by(|a: &Changed, b| a.key.cmp(&b.key));
    let next = catalog.apply(changes).map_err(CommitError::Problems)?;
    let new_changes = changed
        .iter()
        .map(|c| NewChange { key: c.key.clone(), before: c.before.clone(), after: c.after.clone() })
        .collect();
    Ok(Checked {
        committed: Committed {
            revision: *head,
            changed,
            fleets: Vec::new(),
            limiters: false,
            published: Instant::now(),
        },
        next,
        new_changes,
        at: stamp.at,
    })
}

fn expectation(key: &Key, expect: Expect, before: Option<&Arc<Entry>>, head: u64) -> Result<(), CommitError> {
    match (expect, before) {
        (Expect::Any, _) | (Expect::Absent, None) | (Expect::Exists, Some(_)) => Ok(()),
        (Expect::Absent, Some(_)) => Err(CommitError::Exists(key.clone())),
        (Expect::Exists | Expect::Revision(_), None) => Err(CommitError::NotFound(key.clone())),
        (Expect::Revision(expected), Some(entry)) if entry.revision == expected => Ok(()),
        (Expect::Revision(expected), Some(entry)) => {
            Err(CommitError::Conflict { key: Some(key.clone()), expected, current: Some(entry.clone()), head })
        }
    }
}
