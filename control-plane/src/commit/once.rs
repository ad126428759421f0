//! What a change set that is made once is remembered by: enough to answer for it again.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{Action, Changed, Committed};
use crate::{
    model::{Key, Kind, Name},
    store::{IdempotencyKey, IdempotencyRecord, StoreError},
};

/// How many change sets are remembered; the oldest are forgotten first.
pub(super) const MOST_REMEMBERED: u32 = 100_000;

/// What a change set became, without what the resources were and are: those may hold what is nobody's business a day later.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    revision: u64,
    changed: Vec<Done>,
    fleets: Vec<Name>,
    limiters: bool,
}

#[derive(Serialize, Deserialize)]
struct Done {
    kind: Kind,
    name: Name,
    action: Action,
}

/// The record that `key`, if there is one, was used for what became `committed`.
pub(super) fn record(
    key: Option<&IdempotencyKey>,
    committed: &Committed,
    at: OffsetDateTime,
) -> Result<Option<IdempotencyRecord>, StoreError> {
    let Some(key) = key.cloned() else { return Ok(None) };
    let Committed { revision, ref changed, ref fleets, limiters, published: _ } = *committed;
    let done = |Changed { key, action, .. }: &Changed| Done { kind: key.kind, name: key.name.clone(), action: *action };
    let outcome = Outcome { revision, changed: changed.iter().map(done).collect(), fleets: fleets.clone(), limiters };
    let failed = |source: serde_json::Error| {
        let context = "keeping an idempotency key";
        StoreError::Failed { context, source: source.into() }
    };
    Ok(Some(IdempotencyRecord { key, outcome: serde_json::to_string(&outcome).map_err(failed)?, at }))
}

impl Committed {
    /// What was committed, as `record` says. What the resources were and are is not in it, and it counts as published now.
    ///
    /// # Errors
    /// A newer version has written it.
    pub fn again(record: &IdempotencyRecord) -> Result<Self, serde_json::Error> {
        let Outcome { revision, changed, fleets, limiters } = serde_json::from_str(&record.outcome)?;
        let changed = changed.into_iter().map(|Done { kind, name, action }| Changed {
            key: Key::new(kind, name),
            action,
            before: None,
            after: None,
        });
        Ok(Self { revision, changed: changed.collect(), fleets, limiters, published: Instant::now() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_answers_again() {
        let key = IdempotencyKey { owner: "ci".to_owned(), key: "k".to_owned(), fingerprint: vec![1] };
        let changed = Changed {
            key: Key::new(Kind::Route, "shop".parse().unwrap()),
            action: Action::Created,
            before: None,
            after: None,
        };
        let fleets = vec!["edge".parse().unwrap()];
        let committed =
            Committed { revision: 7, changed: vec![changed], fleets, limiters: true, published: Instant::now() };
        let record = record(Some(&key), &committed, OffsetDateTime::UNIX_EPOCH).unwrap().unwrap();
        let again = Committed::again(&record).unwrap();
        assert_eq!((again.revision, again.limiters), (7, true));
        assert_eq!((again.changed, again.fleets), (committed.changed, committed.fleets));
        assert!(Committed::again(&IdempotencyRecord { outcome: "{}".to_owned(), ..record }).is_err());
    }
}
