//! Leases of endpoints.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chancery_control_plane::{
    model::{
        endpoint::{Health, RegisteredEndpoint},
        service::Zone,
    },
    store::{LeaseAction, LeaseWrite, Registrations, Store},
};

use super::open;

const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(100);

fn endpoint(last: u8) -> RegisteredEndpoint {
    let labels = [("version".to_owned(), last.to_string())].into();
    RegisteredEndpoint {
        address: [10, 0, 0, last].into(),
        port: 80,
        priority: 0,
        weight: 1,
        labels,
        zone: Some(Zone { region: String::new(), zone: "a".into() }),
        health: Health::Healthy,
    }
}

fn write(id: &str, action: LeaseAction) -> LeaseWrite {
    LeaseWrite { service: "checkout".parse().unwrap(), id: id.parse().unwrap(), action }
}

fn register(id: &str, last: u8, ttl: Duration) -> LeaseWrite {
    write(id, LeaseAction::Register { endpoint: endpoint(last), ttl })
}

/// What `read` says: each id with the last part of its address, or nothing when it is gone.
fn told(read: &Registrations) -> BTreeMap<String, Option<String>> {
    let address = |endpoint: &RegisteredEndpoint| endpoint.address.to_string();
    read.endpoints.iter().map(|one| (one.id.to_string(), one.endpoint.as_ref().map(address))).collect()
}

fn there(id: &str, last: u8) -> (String, Option<String>) {
    (id.to_owned(), Some(format!("10.0.0.{last}")))
}

fn gone(id: &str) -> (String, Option<String>) {
    (id.to_owned(), None)
}

/// Ends leases until that has removed `count` endpoints.
async fn expire(store: &Arc<dyn Store>, count: u64, most: Duration) {
    let mut removed = 0;
    let removing = async {
        while removed < count {
            removed += store.expire_leases(most).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), removing).await.expect("leases end when they are over");
    assert_eq!(removed, count);
}

pub async fn what_is_registered_is_read_back(url: &str) {
    let store = open(url).await;
    assert_eq!(store.registrations().await.unwrap(), Registrations::default());
    let sick = RegisteredEndpoint { weight: 7, health: Health::Draining, ..endpoint(2) };
    let writes = [register("a", 1, LONG), write("b", LeaseAction::Register { endpoint: sick.clone(), ttl: LONG })];
    assert_eq!(store.write_leases(&writes).await.unwrap(), []);

    let all = store.registrations().await.unwrap();
    assert_eq!((all.sequence, told(&all)), (1, [there("a", 1), there("b", 2)].into()));
    let leases = store.leases(&"checkout".parse().unwrap()).await.unwrap();
    assert_eq!((leases[1].id.as_str(), &leases[1].endpoint, leases[1].ttl), ("b", &sick, LONG));
    assert!(leases[1].remaining <= LONG && leases[1].remaining > LONG / 2, "{leases:?}");
    assert_eq!(store.leases(&"other".parse().unwrap()).await.unwrap(), []);
}

pub async fn changes_of_endpoints_are_numbered_and_renewals_are_not(url: &str) {
    let store = open(url).await;
    store.write_leases(&[register("a", 1, LONG), register("b", 2, LONG)]).await.unwrap();
    let renewals = [register("a", 1, LONG), write("b", LeaseAction::Renew)];
    assert_eq!(store.write_leases(&renewals).await.unwrap(), []);
    let after = store.registrations_after(1).await.unwrap();
    assert_eq!((after.sequence, after.endpoints.len()), (1, 0), "a renewal is no change");

    store.write_leases(&[register("a", 9, LONG), register("b", 2, LONG), register("c", 3, LONG)]).await.unwrap();
    let after = store.registrations_after(1).await.unwrap();
    assert_eq!((after.sequence, told(&after)), (2, [there("a", 9), there("c", 3)].into()));

    store.write_leases(&[write("a", LeaseAction::Remove), write("nobody", LeaseAction::Remove)]).await.unwrap();
    let after = store.registrations_after(2).await.unwrap();
    assert_eq!((after.sequence, told(&after)), (3, [gone("a")].into()));
    store.write_leases(&[write("a", LeaseAction::Remove)]).await.unwrap();
    assert_eq!(store.registrations_after(3).await.unwrap().sequence, 3, "what is gone cannot go");
    let after = store.registrations_after(0).await.unwrap();
    assert_eq!(told(&after), [gone("a"), there("b", 2), there("c", 3)].into(), "each once, as it is now");
    assert_eq!(store.registrations().await.unwrap().sequence, 3);
}

pub async fn who_is_not_registered_cannot_renew(url: &str) {
    let store = open(url).await;
    store.write_leases(&[register("a", 1, LONG), register("b", 2, LONG)]).await.unwrap();
    store.write_leases(&[write("b", LeaseAction::Remove)]).await.unwrap();
    let renewals = ["a", "b", "c"].map(|id| write(id, LeaseAction::Renew));
    let unknown = store.write_leases(&renewals).await.unwrap();
    let mut unknown: Vec<_> = unknown.iter().map(|(_, id)| id.as_str()).collect();
    unknown.sort_unstable();
    assert_eq!(unknown, ["b", "c"]);
    assert_eq!(told(&store.registrations().await.unwrap()), [there("a", 1)].into());
}

pub async fn a_lease_that_is_not_renewed_ends(url: &str) {
    let store = open(url).await;
    store.write_leases(&[register("brief", 1, SHORT), register("long", 2, LONG)]).await.unwrap();
    expire(&store, 1, LONG).await;
    let after = store.registrations_after(1).await.unwrap();
    assert_eq!((after.sequence, told(&after)), (2, [gone("brief")].into()));
    assert_eq!(store.expire_leases(LONG).await.unwrap(), 0);
    store.write_leases(&[register("brief", 3, LONG)]).await.unwrap();
    let again = [there("brief", 3), there("long", 2)];
    assert_eq!(told(&store.registrations().await.unwrap()), again.into(), "it may come back");
}

pub async fn a_lease_longer_than_renewals_were_possible_does_not_end(url: &str) {
    let store = open(url).await;
    store.write_leases(&[register("spared", 1, 2 * SHORT), register("over", 2, SHORT)]).await.unwrap();
    let is_over = async || {
        let leases = store.leases(&"checkout".parse().unwrap()).await.unwrap();
        leases.iter().all(|lease| lease.remaining.is_zero())
    };
    let over = async {
        while !is_over().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), over).await.expect("leases run out");
    assert_eq!(store.expire_leases(SHORT).await.unwrap(), 1);
    assert_eq!(told(&store.registrations().await.unwrap()), [there("spared", 1)].into());
    assert_eq!(store.write_leases(&[write("spared", LeaseAction::Renew)]).await.unwrap(), []);
    assert_eq!(store.expire_leases(LONG).await.unwrap(), 0, "it was renewed in the end");
}

pub async fn thousands_of_endpoints_are_one_batch(url: &str) {
    let store = open(url).await;
    let ids: Vec<String> = (0..5000).map(|n| format!("e{n}")).collect();
    let writes: Vec<_> = ids.iter().map(|id| register(id, 1, LONG)).collect();
    store.write_leases(&writes).await.unwrap();
    let all = store.registrations().await.unwrap();
    assert_eq!((all.sequence, all.endpoints.len()), (1, 5000));
    let renewals: Vec<_> = ids.iter().map(|id| write(id, LeaseAction::Renew)).collect();
    assert_eq!(store.write_leases(&renewals).await.unwrap(), []);
}

pub async fn stores_that_register_at_once_leave_no_gap_and_a_reader_misses_none(url: &str) {
    const BATCHES: u8 = 40;
    let reader = tokio::spawn(follow(open(url).await, 2 * usize::from(BATCHES)));
    let mut writers = Vec::new();
    for (side, store) in [open(url).await, open(url).await].into_iter().enumerate() {
        writers.push(tokio::spawn(async move {
            for batch in 0..BATCHES {
                // The shared one is in the batches of both, in another order.
                let (own, shared) =
                    (register(&format!("{side}-{batch}"), batch, LONG), register("shared", batch, LONG));
                let writes = if side == 0 { [own, shared] } else { [shared, own] };
                store.write_leases(&writes).await.unwrap();
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let seen = reader.await.unwrap();
    let now = told(&open(url).await.registrations().await.unwrap());
    assert_eq!(seen, now, "who follows ends where everything is");
    assert_eq!(now.len(), 2 * usize::from(BATCHES) + 1);
}

/// Follows `store` as a replica does, until it knows `count` endpoints beside the shared one and nothing is new.
async fn follow(store: Arc<dyn Store>, count: usize) -> BTreeMap<String, Option<String>> {
    let (mut sequence, mut seen) = (0, BTreeMap::new());
    loop {
        let read = store.registrations_after(sequence).await.unwrap();
        let quiet = read.endpoints.is_empty();
        sequence = read.sequence;
        seen.extend(told(&read));
        if quiet && seen.len() > count {
            return seen;
        }
        tokio::task::yield_now().await;
    }
}
