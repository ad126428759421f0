//! What fleets are not served, kept in step with the database: other replicas learn of it, and this one after a restart.
//!
//! What a replica quarantines it does at once and by itself ([`Shelf`](crate::publish::Shelf)); here one task writes it down, and
//! takes over what others wrote, when something changes here and every few seconds. Of a version that the fleet is
//! not to be served any more, whoever sees it first forgets the row. A database that is away changes nothing here: what was to
//! be written is written later.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use chancery_runtime::telemetry::chain;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::{
    metrics as m,
    publish::{Cause, Place, Publisher, Quarantined, RouteForm},
    store::{QuarantineKey, QuarantineRecord, Store, StoreError},
};

/// How often is looked what others wrote, and whether a suspect waits for too long.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Keeps the two of `keeper` in step until `stop`.
pub async fn run(mut keeper: Keeper, stop: CancellationToken) {
    let changed = keeper.publisher.quarantine_changed();
    let mut away = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = changed.notified() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        keeper.publisher.tick(Instant::now());
        match keeper.step().await {
            Ok(()) => away = false,
            Err(error) if !away => {
                away = true;
                tracing::warn!(error = chain(&error), "cannot keep in the database what is quarantined");
            }
            Err(_) => {}
        }
    }
}

/// Brings the two together.
pub struct Keeper {
    publisher: Arc<Publisher>,
    store: Arc<dyn Store>,
    /// What both had when they were last looked at.
    agreed: BTreeSet<QuarantineKey>,
}

/// A cause, as it is written down.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenCause {
    proxy: String,
    words: String,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    revision: u64,
}

impl Keeper {
    /// Nothing is agreed on yet.
    pub fn new(publisher: Arc<Publisher>, store: Arc<dyn Store>) -> Self {
        Self { publisher, store, agreed: BTreeSet::new() }
    }

    /// Writes what is new here, takes over what is new there, and forgets on either side what the other has ended.
    ///
    /// # Errors
    /// The store does not answer; what was not done is done with the next step.
    pub async fn step(&mut self) -> Result<(), StoreError> {
        let mut here: BTreeMap<QuarantineKey, (Place, Quarantined)> = BTreeMap::new();
        for (place, quarantined) in self.publisher.quarantined() {
            here.insert(key(&place, &quarantined), (place, quarantined));
        }
        let there: BTreeMap<QuarantineKey, QuarantineRecord> =
            self.store.quarantined().await?.into_iter().map(|record| (record.key.clone(), record)).collect();

        let new_here = here.iter().filter(|(key, _)| !self.agreed.contains(*key) && !there.contains_key(*key));
        let records: Vec<_> = new_here.map(|(key, (_, quarantined))| record(key.clone(), quarantined)).collect();
        let ended_here = self.agreed.iter().filter(|key| !here.contains_key(*key) && there.contains_key(*key));
        let mut ended: Vec<_> = ended_here.cloned().collect();
        let ended_there: Vec<_> = self.agreed.iter().filter(|key| !there.contains_key(*key)).collect();
        // If a revision ended it, that one is on its way; else somebody has found it good.
        if !ended_there.is_empty() && self.publisher.revision() == self.store.head().await? {
            for (place, _) in ended_there.into_iter().filter_map(|key| here.get(key)) {
                self.publisher.release(place);
            }
        }
        let new_there =
            there.values().filter(|record| !self.agreed.contains(&record.key) && !here.contains_key(&record.key));
        for record in new_there {
            if self.take_over(record) == Some(false) {
                ended.push(record.key.clone());
            }
        }

        if !records.is_empty() {
            self.store.quarantine(records).await?;
        }
        if !ended.is_empty() {
            self.store.release(ended.clone()).await?;
        }
        let now = self.publisher.quarantined();
        metrics::gauge!(m::QUARANTINE).set(now.len() as f64);
        // What came here since the look is written with the next step, and what ended is forgotten then.
        let known = |key: &QuarantineKey| here.contains_key(key) || there.contains_key(key);
        self.agreed = now.iter().map(|(place, quarantined)| key(place, quarantined)).filter(known).collect();
        Ok(())
    }

    /// None if it cannot be said yet whether it applies.
    fn take_over(&self, record: &QuarantineRecord) -> Option<bool> {
        let place = place(&record.key)?;
        let WrittenCause { proxy, words, at, revision } = serde_json::from_str(&record.cause).ok()?;
        let cause = Cause { proxy, words, at: at.into(), revision };
        if self.publisher.revision() < revision {
            return None;
        }
        self.publisher.quarantine(&place, &record.key.version, record.good.as_deref(), cause)
    }
}

fn key(place: &Place, quarantined: &Quarantined) -> QuarantineKey {
    QuarantineKey {
        fleet: place.fleet.to_string(),
        form: place.form.as_str().to_owned(),
        type_url: place.id.0.to_string(),
        name: place.id.1.to_string(),
        version: quarantined.rejected.version().to_string(),
    }
}

fn place(key: &QuarantineKey) -> Option<Place> {
    Some(Place {
        fleet: key.fleet.parse().ok()?,
        form: RouteForm::called(&key.form)?,
        id: (key.type_url.as_str().into(), key.name.as_str().into()),
    })
}

fn record(key: QuarantineKey, quarantined: &Quarantined) -> QuarantineRecord {
    let Cause { proxy, words, at, revision } = quarantined.cause.clone();
    let cause = serde_json::to_string(&WrittenCause { proxy, words, at: at.into(), revision }).unwrap_or_default();
    QuarantineRecord { key, good: quarantined.good.as_ref().map(|good| good.body().to_vec()), cause }
}

#[cfg(test)]
mod tests;
