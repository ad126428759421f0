//! How many requests are let in at once. A fixed number if one was set; else it is found, and the cluster of the service that the
//! application is may say how.
//!
//! What was found so far is kept for as long as the cluster says the same.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::{
    config::snapshot::Snapshot,
    layer::Clock,
    policy::concurrency::{Concurrency, Gradient2, Settings},
};

/// How it is found unless the service says how.
fn usual() -> Settings {
    Settings::Gradient2(Gradient2::default())
}

/// The limit, and who may change how it is found.
pub(super) struct InboundLimit {
    clock: Clock,
    concurrency: Arc<Mutex<Concurrency>>,
    service: Option<Arc<str>>,
}

impl InboundLimit {
    /// `fixed`: this many, whatever any service says; 0: not fixed. `service`: the cluster that may say how it is found.
    pub(super) fn new(fixed: u32, service: &str, clock: Clock) -> Self {
        let (settings, service) = match fixed {
            0 => (usual(), Some(service.into()).filter(|_| !service.is_empty())),
            fixed => (Settings::Fixed(fixed), None),
        };
        Self { clock, concurrency: Arc::new(Mutex::new(Concurrency::new(settings, clock.now()))), service }
    }

    /// To be taken and given back by requests.
    pub(super) fn concurrency(&self) -> Arc<Mutex<Concurrency>> {
        self.concurrency.clone()
    }

    /// Does as the service says from now on.
    pub(super) fn follow(&self, snapshot: &Snapshot) {
        let Some(service) = &self.service else { return };
        let asked = snapshot.clusters.get(service).and_then(|cluster| cluster.settings.adaptive_concurrency);
        self.concurrency.lock().configure(asked.unwrap_or_else(usual), self.clock.now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::snapshot::{Cluster, ClusterSettings},
        policy::concurrency::Aimd,
    };

    fn saying(asked: Option<Settings>) -> Snapshot {
        let settings = ClusterSettings { adaptive_concurrency: asked, ..ClusterSettings::default() };
        let cluster = Cluster { name: "shop".into(), endpoints: Vec::new(), settings };
        Snapshot { clusters: [("shop".into(), cluster.into())].into(), ..Snapshot::default() }
    }

    fn of(limit: &InboundLimit) -> u32 {
        limit.concurrency().lock().limit()
    }

    #[tokio::test]
    async fn the_service_says_how_it_is_found_as_long_as_it_is_there() {
        let limit = InboundLimit::new(0, "shop", Clock::start());
        let aimd = saying(Some(Settings::Aimd(Aimd { least: 2, most: 3, ..Aimd::default() })));
        assert_eq!(of(&limit), 20);
        limit.follow(&aimd);
        assert_eq!(of(&limit), 3);
        let under_way = limit.concurrency();
        assert!(under_way.lock().try_admit());
        limit.follow(&aimd);
        assert_eq!(under_way.lock().in_flight(), 1);
        for silent in [saying(None), Snapshot::default()] {
            limit.follow(&aimd);
            limit.follow(&silent);
            assert_eq!(of(&limit), 20);
        }
    }

    #[tokio::test]
    async fn it_is_asked_only_if_it_is_named_and_nothing_else_was_set() {
        let aimd = saying(Some(Settings::Aimd(Aimd { least: 2, most: 3, ..Aimd::default() })));
        for (fixed, service, limit) in [(7, "shop", 7), (0, "", 20), (0, "other", 20)] {
            let of_this = InboundLimit::new(fixed, service, Clock::start());
            of_this.follow(&aimd);
            assert_eq!(of(&of_this), limit, "{fixed} {service:?}");
        }
    }
}
