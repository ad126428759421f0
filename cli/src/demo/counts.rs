//! How often each request was executed, by its id.
//!
//! A request counts as executed as soon as the application sees its head: from there on nobody can know that it had no effect.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use serde::Serialize;

/// So many ids are kept; those beyond are counted together.
const MOST_IDS: usize = 1_000_000;

/// The count.
#[derive(Debug, Default)]
pub(super) struct Counts(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    executions: u64,
    by_id: HashMap<Bytes, u64>,
    without_room: u64,
}

/// What was counted.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Counted {
    /// All.
    pub(super) executions: u64,
    /// How many ids there were.
    pub(super) ids: usize,
    /// Those executed more than once, and how often.
    pub(super) repeated: BTreeMap<String, u64>,
    /// Executions of ids that there was no room for, so that it cannot be said whether they were repeated.
    pub(super) without_room: u64,
}

impl Counts {
    /// Counts one, and says the how manieth of this id it is.
    pub(super) fn count(&self, id: &Bytes) -> u64 {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.executions += 1;
        if let Some(count) = kept.by_id.get_mut(id) {
            *count += 1;
            return *count;
        }
        if kept.by_id.len() < MOST_IDS {
            kept.by_id.insert(id.clone(), 1);
        } else {
            kept.without_room += 1;
        }
        1
    }

    /// What was counted so far.
    pub(super) fn so_far(&self) -> Counted {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let repeated = kept.by_id.iter().filter(|(_, count)| **count > 1);
        Counted {
            executions: kept.executions,
            ids: kept.by_id.len(),
            repeated: repeated.map(|(id, count)| (String::from_utf8_lossy(id).into_owned(), *count)).collect(),
            without_room: kept.without_room,
        }
    }

    /// Begins again at nothing.
    pub(super) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Kept::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_executed_again_is_named() {
        let counts = Counts::default();
        let id = |id: &'static str| Bytes::from_static(id.as_bytes());
        assert_eq!([id("a"), id("b"), id("a"), id("a")].map(|id| counts.count(&id)), [1, 1, 2, 3]);
        let repeated = [("a".to_owned(), 3)].into();
        assert_eq!(counts.so_far(), Counted { executions: 4, ids: 2, repeated, without_room: 0 });
        counts.forget();
        assert_eq!(counts.so_far().executions, 0);
    }
}
