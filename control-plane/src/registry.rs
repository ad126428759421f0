//! Endpoints that registered themselves: this process's view of them, kept current by number, and the way to the proxies.
//!
//! Leases live in the database, so that all control planes agree about them, whichever of them an endpoint talks to.
//! Three tasks work on them: one writes (`batch`), one follows what changed and publishes it, one ends leases that are over.
//!
//! - **Who decides that a lease is over:** the database, by its clock. Every control plane asks it to, twice a second; whichever
//!   comes first removes the endpoint, and all learn of it as of any other change.
//! - **Who could not renew has not let a lease lapse.** A control plane ends only leases that are no longer than the time for
//!   which it has been able to take renewals. After a start, and after an outage of the database, every endpoint has the whole of its
//!   lease to come back.
//! - **Without the database everything stays as it is.** Endpoints that are there stay, and whoever registers is told to try again.
//! - **A service whose last lease ends has no endpoints** and answers 503. They are not kept: a process that fails to renew
//!   while the control plane works is as likely gone as alone, and requests to nobody would wait for a timeout each.
//!
//! Changes within 20 ms are published together. The first after a pause is published at once.

mod batch;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use chancery_runtime::telemetry::chain;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use batch::Batches;

use crate::{
    metrics::REGISTERED_ENDPOINTS,
    model::{
        Name,
        endpoint::{EndpointId, RegisteredEndpoint},
    },
    publish::Publisher,
    store::{LeaseWrite, REMOVED_FOR, Registration, Registrations, Store, StoreError},
    translate::endpoint,
};

/// How long changes are gathered after some were published.
const PUBLISH_GAP: Duration = Duration::from_millis(20);

/// How often the store is asked for changes, whatever was notified.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How often leases that are over are looked for.
const EXPIRE_INTERVAL: Duration = Duration::from_millis(500);

/// A task that was not run for so long was not there for renewals either: the machine slept, or had no time.
const PAUSE: Duration = Duration::from_secs(3);

/// The endpoints that are registered.
pub struct Registry {
    store: Arc<dyn Store>,
    publisher: Arc<Publisher>,
    known: Mutex<Known>,
    /// Since when renewals could be taken.
    able_since: Mutex<Instant>,
    batches: batch::Sender,
}

struct Known {
    /// Up to which number of the store's sequence.
    sequence: u64,
    /// When that was read.
    at: Instant,
    services: HashMap<Name, BTreeMap<EndpointId, RegisteredEndpoint>>,
}

impl Registry {
    /// Loads what is registered and publishes it. Writes wait for [`Batches`] to be run.
    ///
    /// # Errors
    /// The store did not answer.
    pub async fn load(store: Arc<dyn Store>, publisher: Arc<Publisher>) -> Result<(Self, Batches), StoreError> {
        let (batches, run) = batch::channel();
        let known = Known { sequence: 0, at: Instant::now(), services: HashMap::new() };
        let (known, able_since) = (Mutex::new(known), Mutex::new(Instant::now()));
        let registry = Self { store, publisher, known, able_since, batches };
        registry.reload().await?;
        Ok((registry, run))
    }

    /// Does all of `writes`, in which no endpoint stands twice, or nothing. They are in the store when this returns, and soon after
    /// with the proxies. Returns those that were to be renewed and are not registered.
    ///
    /// # Errors
    /// The store did not take them, or too many writes are waiting for it.
    pub async fn write(&self, writes: Vec<LeaseWrite>) -> Result<Vec<EndpointId>, StoreError> {
        self.batches.write(writes).await
    }

    /// How many endpoints `service` would have with `ids`, as far as this process knows.
    pub fn count_with<'a>(&self, service: &Name, ids: impl Iterator<Item = &'a EndpointId>) -> usize {
        let known = self.known.lock();
        match known.services.get(service) {
            Some(endpoints) => endpoints.len() + ids.filter(|id| !endpoints.contains_key(*id)).count(),
            None => ids.count(),
        }
    }

    /// Publishes what changes, until `shutdown`.
    pub async fn follow(self: Arc<Self>, shutdown: CancellationToken) {
        let mut wakeups = self.store.endpoint_wakeups();
        let mut away = false;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                woken = wakeups.changed() => if woken.is_err() { return },
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
            match self.catch_up().await {
                Ok(()) => away = false,
                Err(error) => {
                    if !std::mem::replace(&mut away, true) {
                        tracing::warn!(
                            error = chain(&error),
                            "cannot follow registered endpoints; they stay as they are"
                        );
                    }
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(PUBLISH_GAP) => {}
            }
        }
    }

    /// Ends leases that are over, until `shutdown`.
    pub async fn expire(self: Arc<Self>, shutdown: CancellationToken) {
        let mut last = Instant::now();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(EXPIRE_INTERVAL) => {}
            }
            if last.elapsed() > PAUSE {
                self.was_unable();
            }
            let able_for = self.able_since.lock().elapsed();
            match self.store.expire_leases(able_for).await {
                Ok(0) => {}
                Ok(expired) => tracing::info!(count = expired, "endpoints did not renew their leases and are gone"),
                // Who follows has logged it.
                Err(_) => self.was_unable(),
            }
            last = Instant::now();
        }
    }

    /// Renewals could not be taken until now.
    fn was_unable(&self) {
        *self.able_since.lock() = Instant::now();
    }

    async fn catch_up(&self) -> Result<(), StoreError> {
        let (sequence, at) = {
            let known = self.known.lock();
            (known.sequence, known.at)
        };
        if at.elapsed() > REMOVED_FOR / 2 {
            return self.reload().await;
        }
        let asked = Instant::now();
        let changed = self.store.registrations_after(sequence).await?;
        let mut known = self.known.lock();
        known.at = asked;
        let services = known.take(changed);
        self.publish(&known, services);
        Ok(())
    }

    async fn reload(&self) -> Result<(), StoreError> {
        let asked = Instant::now();
        let all = self.store.registrations().await?;
        let mut known = self.known.lock();
        known.at = asked;
        let before: Vec<Name> = std::mem::take(&mut known.services).into_keys().collect();
        let mut services = known.take(all);
        services.extend(before);
        self.publish(&known, services);
        Ok(())
    }

    fn publish(&self, known: &Known, services: BTreeSet<Name>) {
        if services.is_empty() {
            return;
        }
        let encoded = |service: Name| {
            let endpoints = known.services.get(&service).into_iter().flat_map(BTreeMap::values);
            let addition = endpoint::registered(endpoints);
            (service, addition)
        };
        let count: usize = known.services.values().map(BTreeMap::len).sum();
        metrics::gauge!(REGISTERED_ENDPOINTS).set(count as f64);
        self.publisher.publish_endpoints(services.into_iter().map(encoded).collect());
    }
}

impl Known {
    /// Takes in what changed, and says of which services.
    fn take(&mut self, changed: Registrations) -> BTreeSet<Name> {
        let mut services = BTreeSet::new();
        self.sequence = changed.sequence;
        for Registration { service, id, endpoint } in changed.endpoints {
            let endpoints = self.services.entry(service.clone()).or_default();
            match endpoint {
                Some(endpoint) => drop(endpoints.insert(id, endpoint)),
                None => drop(endpoints.remove(&id)),
            }
            if endpoints.is_empty() {
                self.services.remove(&service);
            }
            services.insert(service);
        }
        services
    }
}

#[cfg(test)]
mod tests;
