//! Several stores on one database.

use std::{sync::Arc, time::Duration};

use chancery_control_plane::store::{Revision, Store};
use serde_json::json;

use super::{change, commit, create, new_revision, open, service};

pub async fn what_is_committed_outlives_the_store(url: &str) {
    let store = open(url).await;
    let first = create(&store, "a").await;
    let second = create(&store, "b").await;
    let before = store.load().await.unwrap();
    store.close().await;
    assert!(store.head().await.is_err(), "a closed store answers nothing");

    let store = open(url).await;
    let after = store.load().await.unwrap();
    assert_eq!((after.revision, after.resources), (before.revision, before.resources));
    assert_eq!(store.revisions_after(0).await.unwrap(), [first, second]);
    assert_eq!(create(&store, "c").await.summary.number, 3);
}

pub async fn two_stores_see_each_others_revisions(url: &str) {
    let (left, right) = (open(url).await, open(url).await);
    let first = create(&left, "a").await;
    assert_eq!(right.revisions_after(0).await.unwrap(), [first]);
    let second = create(&right, "b").await;
    assert_eq!(left.head().await.unwrap(), 2);
    assert_eq!(left.revisions_after(1).await.unwrap(), [second]);
    assert_eq!(left.load().await.unwrap().resources, right.load().await.unwrap().resources);
}

pub async fn the_lock_is_shared(url: &str) {
    let (left, right) = (open(url).await, open(url).await);
    let first = left.begin().await.unwrap();
    let mut second = std::pin::pin!(right.begin());
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut second).await.is_err(), "the lock is held");
    let document = service("a", json!({}));
    first.commit(new_revision("first", vec![change("a", None, Some(&document))])).await.unwrap();
    let second = second.await.unwrap();
    assert_eq!(second.head(), 1);
    drop(second);
    assert_eq!(create(&left, "b").await.summary.number, 2);
}

pub async fn stores_can_start_at_the_same_instant(url: &str) {
    let starting: Vec<_> = (0..4)
        .map(|_| {
            let url = url.to_owned();
            tokio::spawn(async move { open(&url).await })
        })
        .collect();
    for (n, store) in starting.into_iter().enumerate() {
        let store = store.await.unwrap();
        assert_eq!(create(&store, &format!("s{n}")).await.summary.number, n as u64 + 1);
    }
}

pub async fn concurrent_writers_leave_no_gap_and_a_reader_misses_none(url: &str) {
    const WRITERS: usize = 8;
    const COMMITS: usize = 25;
    let stores = [open(url).await, open(url).await];
    let reader = tokio::spawn(read_until(open(url).await, 2 * WRITERS * COMMITS));
    let mut writers = Vec::new();
    for (number, store) in stores.into_iter().enumerate() {
        for writer in 0..WRITERS {
            let store = Arc::clone(&store);
            writers.push(tokio::spawn(async move {
                let mut numbers = Vec::new();
                for n in 0..COMMITS {
                    let name = format!("s{number}-{writer}-{n}");
                    let document = service(&name, json!({ "n": n }));
                    let revision = commit(&store, &name, vec![change(&name, None, Some(&document))]).await;
                    assert_eq!(revision.changes[0].key.name.as_str(), name);
                    numbers.push(revision.summary.number);
                }
                assert!(numbers.is_sorted(), "one writer's revisions are in its order");
                numbers
            }));
        }
    }
    let mut numbers = Vec::new();
    for writer in writers {
        numbers.extend(writer.await.unwrap());
    }
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(1..=(2 * WRITERS * COMMITS) as u64), "every number once");
    let seen = reader.await.unwrap();
    assert!(seen.iter().all(|revision| revision.changes.len() == 1), "no revision is seen without its changes");
    assert_eq!(open(url).await.load().await.unwrap().resources.len(), 2 * WRITERS * COMMITS);
}

/// Follows `store` as a replica does, and fails at the first revision that is out of order.
async fn read_until(store: Arc<dyn Store>, count: usize) -> Vec<Revision> {
    let mut seen: Vec<Revision> = Vec::new();
    while seen.len() < count {
        for revision in store.revisions_after(seen.len() as u64).await.unwrap() {
            assert_eq!(revision.summary.number, seen.len() as u64 + 1, "revisions arrive in order, each once");
            seen.push(revision);
        }
        tokio::task::yield_now().await;
    }
    seen
}
