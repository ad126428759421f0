//! What a shelf knows of its resources, and what follows for an update of its cache. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::Instant,
};

use chancery_proto::type_url;
use chancery_xds::{Resource, TypeUrl, Update, cache::Tables};

use super::{Id, Quarantined, sequence_of};

#[derive(Clone, Debug, Default)]
pub(super) struct State {
    /// The last that was given to the cache.
    pub(super) sequence: u64,
    pub(super) trials: HashMap<Id, Trial>,
    pub(super) quarantined: BTreeMap<Id, Quarantined>,
    /// To be offered again, alone.
    pub(super) suspects: VecDeque<Id>,
    pub(super) alone: Option<(Id, Instant)>,
    /// Clusters and endpoints that no revision has any more, but a last good version.
    pub(super) kept: BTreeSet<Id>,
}

/// What nobody has acknowledged yet.
#[derive(Clone, Debug)]
pub(super) struct Trial {
    /// What to go back to.
    pub(super) good: Option<Resource>,
    /// When it was set.
    pub(super) at: u64,
}

/// Whether `message` has `name` in it, as protobuf writes a string: its length before it.
fn names(message: &[u8], name: &str) -> bool {
    let mut written = Vec::with_capacity(name.len() + 2);
    prost::encoding::encode_varint(name.len() as u64, &mut written);
    written.extend_from_slice(name.as_bytes());
    message.windows(written.len()).any(|part| part == written)
}

impl State {
    /// Serves `good` again, and with it the clusters that it names and that are there no more.
    pub(super) fn bring_back(&mut self, tables: &Tables, type_url: &TypeUrl, good: &Resource, update: &mut Update) {
        let message = good.body();
        for of in [type_url::CLUSTER, type_url::ENDPOINT] {
            for gone in tables.table(of).removed_resources().filter(|gone| names(&message, gone.name())) {
                self.kept.insert((of.into(), gone.name().clone()));
                update.upsert(of, gone.clone());
            }
        }
        update.upsert(type_url.clone(), good.clone());
    }

    /// Sets the last good version in place of what is `known` to be bad. Returns what that is.
    pub(super) fn keep_out(
        &mut self,
        known: &BTreeMap<Id, Quarantined>,
        tables: &Tables,
        update: &mut Update,
    ) -> Vec<(Id, Quarantined)> {
        let mut bad = Vec::new();
        update.retain_upserts(|(type_url, resource)| {
            let id = (type_url.clone(), resource.name().clone());
            let found = known.get(&id).filter(|known| known.rejected.version() == resource.version());
            bad.extend(found.map(|found| (id, found.clone())));
            found.is_none()
        });
        for ((type_url, name), quarantined) in &bad {
            match &quarantined.good {
                Some(good) => self.bring_back(tables, type_url, good, update),
                None => update.remove(type_url.clone(), name.clone()),
            }
        }
        bad
    }

    /// What last good versions that are served name is not removed.
    pub(super) fn hold_on(&mut self, update: &mut Update) {
        let good: Vec<_> =
            self.quarantined.values().filter_map(|what| what.good.as_ref()).map(Resource::body).collect();
        if good.is_empty() {
            return;
        }
        let kept = &mut self.kept;
        update.retain_removals(|id| {
            let cluster = [type_url::CLUSTER, type_url::ENDPOINT].contains(&&*id.0);
            let needed = cluster && good.iter().any(|message| names(message, &id.1));
            if needed {
                kept.insert(id.clone());
            }
            !needed
        });
    }

    /// What was kept for last good versions and is needed no more is to be removed.
    pub(super) fn let_go(&mut self, update: &mut Update) {
        if self.kept.is_empty() {
            return;
        }
        let trials = self.trials.values().filter_map(|trial| trial.good.as_ref());
        let good: Vec<_> = trials
            .chain(self.quarantined.values().filter_map(|quarantined| quarantined.good.as_ref()))
            .map(Resource::body)
            .collect();
        self.kept.retain(|(type_url, name)| {
            let needed = good.iter().any(|message| names(message, name));
            if !needed {
                update.remove(type_url.clone(), name.clone());
            }
            needed
        });
    }

    /// The sequence at which `revision` is published.
    pub(super) fn next(&mut self, revision: u64) -> u64 {
        self.sequence = sequence_of(revision).max(self.sequence + 1);
        self.sequence
    }

    /// The next sequence within the revision.
    pub(super) fn step(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }
}
