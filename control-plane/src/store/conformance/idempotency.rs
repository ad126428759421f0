//! What is done once.

use std::sync::Arc;

use chancery_control_plane::store::{IDEMPOTENCY_KEPT_FOR, IdempotencyKey, IdempotencyRecord, Store};
use serde_json::json;
use time::{Duration, OffsetDateTime};

use super::{change, new_revision, open, service};

/// More than are kept here.
const MOST: u32 = 1000;

fn at(minutes: i64) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + Duration::days(20_000) + Duration::minutes(minutes)
}

fn key(owner: &str, key: &str) -> IdempotencyKey {
    IdempotencyKey { owner: owner.to_owned(), key: key.to_owned(), fingerprint: vec![0, 255, 10] }
}

fn record(key: IdempotencyKey, minutes: i64) -> IdempotencyRecord {
    IdempotencyRecord { key, outcome: r#"{"it's":"😀"}"#.to_owned(), at: at(minutes) }
}

/// Keeps a record without a revision.
async fn keep(store: &Arc<dyn Store>, record: IdempotencyRecord) {
    let mut write = store.begin().await.unwrap();
    write.keep(record, MOST).await.unwrap();
    write.end().await.unwrap();
}

pub async fn a_key_is_kept_with_what_it_was_used_for(url: &str) {
    let store = open(url).await;
    let (one, other) = (key("ci", "a"), key("ann", "a"));
    assert_eq!(store.idempotency(&one, at(0)).await.unwrap(), None);
    let mut write = store.begin().await.unwrap();
    assert_eq!(write.idempotency(&one, at(0)).await.unwrap(), None);
    write.keep(record(one.clone(), 0), MOST).await.unwrap();
    let document = service("a", json!({}));
    write.commit(new_revision("once", vec![change("a", None, Some(&document))])).await.unwrap();

    let same = IdempotencyKey { fingerprint: vec![7], ..one.clone() };
    assert_eq!(store.idempotency(&same, at(0)).await.unwrap(), Some(record(one.clone(), 0)), "with what it was for");
    assert_eq!(store.idempotency(&other, at(0)).await.unwrap(), None, "the keys of others are others");
    keep(&store, record(other.clone(), 1)).await;
    let mut write = store.begin().await.unwrap();
    assert_eq!((write.head(), store.head().await.unwrap()), (1, 1), "that is no revision");
    assert_eq!(write.idempotency(&other, at(0)).await.unwrap(), Some(record(other, 1)));
}

pub async fn a_key_counts_for_a_day(url: &str) {
    let store = open(url).await;
    let (first, second) = (key("ci", "a"), key("ci", "b"));
    keep(&store, record(first.clone(), 0)).await;
    assert!(store.idempotency(&first, at(0)).await.unwrap().is_some());
    assert_eq!(store.idempotency(&first, at(1)).await.unwrap(), None);
    let day = IDEMPOTENCY_KEPT_FOR.whole_minutes();
    keep(&store, record(second.clone(), day)).await;
    assert!(store.idempotency(&first, at(0)).await.unwrap().is_some(), "it is a day old, not more");
    keep(&store, record(second.clone(), day + 1)).await;
    assert_eq!(store.idempotency(&first, at(0)).await.unwrap(), None, "it is forgotten");
    let found = store.idempotency(&second, at(0)).await.unwrap().unwrap();
    assert_eq!(found.at, at(day + 1), "a key that does not count any more can be used again");
}

pub async fn what_is_dropped_keeps_no_key(url: &str) {
    let store = open(url).await;
    let key = key("ci", "a");
    let mut write = store.begin().await.unwrap();
    write.keep(record(key.clone(), 0), MOST).await.unwrap();
    drop(write);
    drop(store.begin().await.unwrap());
    assert_eq!(store.idempotency(&key, at(0)).await.unwrap(), None);
}

pub async fn only_so_many_keys_are_kept(url: &str) {
    let store = open(url).await;
    for n in 0..5 {
        let mut write = store.begin().await.unwrap();
        write.keep(record(key("ci", &n.to_string()), 0), 3).await.unwrap();
        write.end().await.unwrap();
    }
    let mut kept = Vec::new();
    for n in 0..5 {
        kept.push(store.idempotency(&key("ci", &n.to_string()), at(0)).await.unwrap().is_some());
    }
    assert_eq!(kept, [false, false, true, true, true]);
}

pub async fn a_key_is_used_once_over_all_stores(url: &str) {
    let stores = [open(url).await, open(url).await];
    let mut asking = Vec::new();
    for n in 0..8 {
        let store = stores[n % 2].clone();
        asking.push(tokio::spawn(async move {
            let mut write = store.begin().await.unwrap();
            if write.idempotency(&key("ci", "a"), at(0)).await.unwrap().is_some() {
                return 0;
            }
            write.keep(record(key("ci", "a"), 0), MOST).await.unwrap();
            let name = format!("s{n}");
            let document = service(&name, json!({}));
            write.commit(new_revision("once", vec![change(&name, None, Some(&document))])).await.unwrap();
            1
        }));
    }
    let mut made = 0;
    for one in asking {
        made += one.await.unwrap();
    }
    assert_eq!((made, stores[0].head().await.unwrap()), (1, 1));
}
