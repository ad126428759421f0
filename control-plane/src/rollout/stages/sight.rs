//! How canaries fare, as far as is known here.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use chancery_proto::type_url::short_name;

use super::{Stages, moves::Place, now};
use crate::{
    load::Counts,
    model::{
        Name,
        fleet::{CanaryChoice, RolloutPolicy},
    },
    proxies::Connection,
    publish::{CanaryRejection, sequence_of},
    rollout::{Failure, Phase, Rates, Rollout, Seen, Tried, broken, elect},
};

/// What the error rate before a revision is made of.
const BEFORE: Duration = Duration::from_secs(600);

impl Stages {
    /// What follows if `revision` goes to the canaries.
    pub(super) async fn begin(
        &self,
        fleet: &Name,
        place: &mut Place,
        rollout: &Rollout,
        policy: &RolloutPolicy,
        revision: u64,
    ) -> Rollout {
        let everywhere = self.proxies.everywhere(&**self.replica.store(), Some(fleet), None).await;
        let mut connected = everywhere.proxies;
        connected.retain(|proxy| proxy.connected);
        let ids = |canaries_only: bool| {
            let wanted = connected.iter().filter(move |proxy| proxy.canary || !canaries_only);
            wanted.filter_map(|proxy| proxy.id.parse::<Name>().ok())
        };
        let canaries: BTreeSet<Name> = match policy.canaries {
            CanaryChoice::Percent(percent) => elect(ids(false), percent),
            CanaryChoice::Labels(_) => ids(true).collect(),
        };
        let since = Instant::now().checked_sub(BEFORE).unwrap_or_else(Instant::now);
        let before = self.loads.counts_since(fleet, |proxy| canaries.contains(proxy), since);
        place.before = (revision, before.counts);
        place.here.clear();
        rollout.begin(revision, canaries, !connected.is_empty(), now())
    }

    /// How the canaries fare with what is tried, as far as is known here.
    pub(super) fn seen(&self, fleet: &Name, place: &mut Place, tried: &Tried, policy: &RolloutPolicy) -> Seen {
        let wanted = sequence_of(tried.revision);
        let is_canary = |connection: &Connection| connection.canary && connection.proxy.fleet.as_ref() == Some(fleet);
        let mut canaries: BTreeMap<Name, bool> =
            std::mem::take(&mut place.here).into_iter().map(|gone| (gone, false)).collect();
        for connection in self.proxies.connections(is_canary) {
            // A revision can have nothing for the form in which it gets its routes.
            let has_it = connection.status.settled() >= wanted || connection.cache.head() < wanted;
            canaries.insert(connection.proxy.id.clone(), has_it);
            place.here.insert(connection.proxy.id.clone());
        }
        let rejection = self.publisher.rejection(fleet, wanted).map(rejected);
        Seen { canaries, failure: rejection.or_else(|| self.bad_rate(fleet, place, tried, policy)) }
    }

    pub(super) fn bad_rate(
        &self,
        fleet: &Name,
        place: &Place,
        tried: &Tried,
        policy: &RolloutPolicy,
    ) -> Option<Failure> {
        let (gate, Phase::Soaking { since }) = (policy.error_rate.as_ref()?, &tried.phase) else { return None };
        let ago = Duration::try_from(now() - *since).unwrap_or_default();
        let since = Instant::now().checked_sub(ago)?;
        let count = |canaries: bool| {
            let counted = self.loads.counts_since(fleet, |proxy| tried.canaries.contains_key(proxy) == canaries, since);
            counted.counts
        };
        let before = if place.before.0 == tried.revision { place.before.1 } else { Counts::default() };
        let reason = broken(gate, &Rates { before, others: count(false), since: count(true) })?;
        Some(Failure::because(reason, now()))
    }
}

fn rejected(rejection: CanaryRejection) -> Failure {
    let CanaryRejection { proxy, type_url, resources, words, at, .. } = rejection;
    Failure {
        proxy: Some(proxy.to_string()),
        resource_type: Some(short_name(&type_url).to_owned()),
        resources: resources.iter().take(100).map(ToString::to_string).collect(),
        ..Failure::because(words, at.into())
    }
}
