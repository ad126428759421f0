//! The edits of a change set, their documents read.

use std::{collections::BTreeSet, sync::Arc};

use time::OffsetDateTime;

use super::{ChangeSet, CommitError, Edit, Expect, prune::pruned};
use crate::{
    access::owner,
    model::{Catalog, Document, Entry, Key, Problems, Resource, fault, parse},
    replica::Current,
};

/// An edit whose document can be read.
#[derive(Clone)]
pub(super) enum Parsed {
    Put { document: Arc<Document>, resource: Resource, expect: Expect },
    Delete { key: Key, expect: Expect },
}

impl Parsed {
    pub(super) fn key(&self) -> Key {
        match self {
            Parsed::Put { document, .. } => document.key(),
            Parsed::Delete { key, .. } => key.clone(),
        }
    }

    /// What the resource becomes; none if it is deleted.
    pub(super) fn becomes(&self) -> Option<&Document> {
        match self {
            Parsed::Put { document, .. } => Some(document),
            Parsed::Delete { .. } => None,
        }
    }

    pub(super) fn expect(&self) -> Expect {
        match self {
            Parsed::Put { expect, .. } | Parsed::Delete { expect, .. } => *expect,
        }
    }

    pub(super) fn into_change(self, stamp: &Stamp<'_>) -> (Key, Option<Entry>) {
        match self {
            Parsed::Put { document, resource, .. } => {
                let key = document.key();
                let (revision, updated_at, updated_by) = (stamp.revision, stamp.at, stamp.author.to_owned());
                (key, Some(Entry { document, resource, revision, updated_at, updated_by }))
            }
            Parsed::Delete { key, .. } => (key, None),
        }
    }
}

/// Parses every edit, or says all that is wrong with the change: in the documents that cannot be read, and, as far as it
/// can be told without them, in the rest.
pub(super) fn parse_edits(set: &ChangeSet, current: &Current) -> Result<Vec<Parsed>, CommitError> {
    let mut problems = Problems::default();
    let mut parsed: Vec<Parsed> = Vec::with_capacity(set.edits.len());
    let mut unread: Vec<&Document> = Vec::new();
    let mut seen = BTreeSet::new();
    for edit in &set.edits {
        let key = match edit {
            Edit::Put { document, expect } => {
                match parse(document, &mut problems) {
                    Some(resource) => {
                        // What stands is not written anew.
                        let stands = current.catalog.entry(&document.key());
                        if stands.is_none_or(|entry| *entry.document != *document) {
                            let mut problems = problems.about(document.key().to_string());
                            fault::check_ends(&resource, now(), &mut problems);
                        }
                        let document = Arc::new(document.clone());
                        parsed.push(Parsed::Put { document, resource, expect: *expect });
                    }
                    None => unread.push(document),
                }
                document.key()
            }
            Edit::Delete { key, expect } => {
                parsed.push(Parsed::Delete { key: key.clone(), expect: *expect });
                key.clone()
            }
        };
        if !seen.insert(key.clone()) {
            problems.about(key.to_string()).report("stands twice in one change");
        }
    }
    if problems.is_empty() {
        return Ok(parsed);
    }
    let mut found = problems.into_vec();
    if seen.len() == set.edits.len() {
        let stamp = Stamp { revision: current.revision + 1, at: now(), author: &set.author.name };
        let changes = parsed.into_iter().map(|edit| edit.into_change(&stamp)).collect();
        found.extend(current.catalog.problems_beside(changes, &unread));
    }
    found.sort();
    Err(CommitError::Problems(found))
}

/// `edits`, and the deletions that come of what they do not name.
pub(super) fn with_pruned(mut edits: Vec<Parsed>, set: &ChangeSet, catalog: &Catalog) -> Vec<Parsed> {
    if let Some(selector) = &set.prune {
        let named = edits.iter().map(Parsed::key).collect();
        // What its author does not see it does not mean.
        let seen = |key: &Key| catalog.entry(key).is_some_and(|entry| set.author.sees(owner(&entry.document)));
        let gone = pruned(catalog, selector, &named).into_iter().filter(seen);
        edits.extend(gone.map(|key| Parsed::Delete { key, expect: Expect::Exists }));
    }
    edits
}

/// What a revision says of itself.
pub(super) struct Stamp<'a> {
    pub(super) revision: u64,
    pub(super) at: OffsetDateTime,
    pub(super) author: &'a str,
}

/// The time, as exact as stores keep it.
pub(super) fn now() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    now.replace_microsecond(now.microsecond()).unwrap_or(now)
}
