//! What a cache remembers of its resources, and what it tells those who have seen less.

use futures_util::FutureExt as _;

use super::*;
use crate::resource::Version;

const T: &str = "type.example/T";

fn upsert(name: &str, body: &str) -> Update {
    let mut update = Update::default();
    update.upsert(T, Resource::new(T, name, body.as_bytes()));
    update
}

fn remove(name: &str) -> Update {
    let mut update = Update::default();
    update.remove(T, name);
    update
}

fn since(cache: &Cache, sequence: u64) -> Option<Vec<(String, Kept)>> {
    let tables = cache.snapshot();
    tables.table(T).changes_since(sequence).map(|c| c.map(|(name, kept)| (name.to_string(), kept)).collect())
}

#[test]
fn each_name_stands_in_the_log_once_at_its_last_change() {
    let cache = Cache::new();
    cache.apply(1, upsert("a", "1"));
    cache.apply(2, upsert("b", "1"));
    cache.apply(5, upsert("a", "2"));
    assert_eq!(since(&cache, 0).unwrap(), [("b".into(), Kept::Live), ("a".into(), Kept::Live)]);
    assert_eq!(since(&cache, 2).unwrap(), [("a".into(), Kept::Live)]);
    assert_eq!(since(&cache, 5).unwrap(), []);
    assert_eq!(cache.head(), 5);
}

#[test]
fn what_is_set_and_removed_at_once_is_set() {
    let cache = Cache::new();
    cache.apply(1, upsert("a", "1"));
    let mut handed_over = upsert("a", "2");
    handed_over.remove(T, "a");
    assert!(cache.apply(2, handed_over));
    assert_eq!(cache.snapshot().table(T).resource("a").map(Resource::version), Some(Version::of(b"2")));
    assert_eq!(since(&cache, 1).unwrap(), [("a".into(), Kept::Live)]);
}

#[test]
fn the_same_content_changes_nothing_and_wakes_nobody() {
    let cache = Cache::new();
    assert!(cache.apply(1, upsert("a", "1")));
    let mut watch = cache.watch();
    assert!(!cache.apply(2, upsert("a", "1")));
    assert!(!cache.apply(2, remove("b")));
    assert!(watch.changed().now_or_never().is_none());
    assert_eq!(cache.head(), 1);
}

#[test]
fn what_is_renewed_is_a_change_of_what_is_there() {
    let cache = Cache::new();
    cache.apply(1, upsert("a", "1"));
    cache.apply(2, upsert("b", "1"));
    let renew = |name: &str| {
        let mut update = Update::default();
        update.renew(T, name);
        update
    };
    assert!(!cache.apply(3, renew("c")));
    assert!(cache.apply(3, renew("a")));
    assert_eq!(since(&cache, 0).unwrap(), [("b".into(), Kept::Live), ("a".into(), Kept::Live)]);
    let tables = cache.snapshot();
    assert_eq!(tables.table(T).had("a", 1), Some(true), "it was there all the time");
    assert_eq!(tables.table(T).resource("a").map(Resource::version), Some(Version::of(b"1")));
}

#[test]
fn a_removed_resource_is_remembered_until_it_comes_back() {
    let cache = Cache::new();
    cache.apply(1, upsert("a", "1"));
    cache.apply(2, remove("a"));
    assert_eq!(since(&cache, 1).unwrap(), [("a".into(), Kept::Removed)]);
    assert!(cache.snapshot().table(T).removed("a").is_some());
    cache.apply(3, upsert("a", "1"));
    assert_eq!(since(&cache, 1).unwrap(), [("a".into(), Kept::Live)]);
    assert!(cache.snapshot().table(T).removed("a").is_none());
}

#[test]
fn it_is_known_when_a_resource_was_there() {
    let cache = Cache::new();
    let had = |sequence| cache.snapshot().table(T).had("a", sequence);
    let [yes, no] = [true, false].map(Some);
    assert_eq!(had(0), no);
    cache.apply(2, upsert("a", "1"));
    cache.apply(3, upsert("a", "2"));
    assert_eq!([1, 2, 3, 4].map(had), [no, yes, yes, yes]);
    cache.apply(5, remove("a"));
    assert_eq!([1, 2, 4, 5, 6].map(had), [no, yes, yes, no, no]);
    cache.apply(7, upsert("a", "2"));
    assert_eq!([2, 4, 5, 6, 7, 8].map(had), [yes, yes, no, no, yes, yes]);
    assert_eq!(had(1), None, "that is too long ago");
}

#[test]
fn a_whole_type_is_recognised_by_the_version_it_had() {
    let cache = Cache::new();
    let version = || cache.snapshot().table(T).resources().map(Resource::fingerprint).fold(0, u64::wrapping_add);
    cache.apply(1, upsert("a", "1"));
    let first = version();
    cache.apply(4, upsert("b", "1"));
    let second = version();
    cache.apply(5, remove("b"));
    assert_eq!(version(), first);
    cache.apply(9, upsert("a", "2"));
    let tables = cache.snapshot();
    let table = tables.table(T);
    assert_eq!(table.sequence_of(first), Some(5), "the newest time it was so");
    assert_eq!(table.sequence_of(second), Some(4));
    assert_eq!(table.sequence_of(7), None);
    assert_eq!(table.fingerprint, table.resources().map(Resource::fingerprint).fold(0, u64::wrapping_add));
}

#[test]
fn forgotten_removals_are_said_and_nothing_grows_without_bound() {
    let cache = Cache::new();
    let count = 3 * MAX_TOMBSTONES as u64;
    for i in 0..count {
        cache.apply(2 * i + 1, upsert(&format!("n{i}"), "1"));
        cache.apply(2 * i + 2, remove(&format!("n{i}")));
    }
    assert_eq!(since(&cache, 0), None);
    assert_eq!(since(&cache, 2 * count - 2).unwrap().len(), 1);
    let tables = cache.snapshot();
    let table = tables.table(T);
    assert_eq!(table.log.len(), MAX_TOMBSTONES);
    assert_eq!(table.tombstones.len(), MAX_TOMBSTONES);
    assert_eq!(table.tombstone_log.len(), MAX_TOMBSTONES);
    assert_eq!(table.past.len(), MAX_PAST);
}

#[test]
fn a_stream_that_is_one_change_behind_can_follow_however_much_is_removed() {
    let cache = Cache::new();
    let count = 2 * MAX_TOMBSTONES;
    let (mut all, mut none) = (Update::default(), Update::default());
    for i in 0..count {
        all.upsert(T, Resource::new(T, format!("n{i}"), b"1"));
        none.remove(T, format!("n{i}"));
    }
    cache.apply(1, all);
    cache.apply(2, none);
    assert_eq!(since(&cache, 1).unwrap().len(), count);
    // The next change makes room.
    cache.apply(3, upsert("other", "1"));
    assert_eq!(since(&cache, 1), None);
    assert_eq!(since(&cache, 2).unwrap().len(), 1);
    assert_eq!(cache.snapshot().table(T).tombstones.len(), MAX_TOMBSTONES);
}

#[test]
fn a_snapshot_stays_as_it_is() {
    let cache = Cache::new();
    cache.apply(1, upsert("a", "1"));
    let before = cache.snapshot();
    cache.apply(2, remove("a"));
    cache.apply(3, upsert("b", "1"));
    assert_eq!((before.head(), cache.snapshot().head()), (1, 3));
    assert!(before.table(T).resource("a").is_some() && before.table(T).resource("b").is_none());
    assert_eq!(before.table(T).changes_since(0).unwrap().count(), 1);
}

#[test]
fn a_sequence_that_does_not_grow_changes_nothing() {
    let cache = Cache::new();
    cache.apply(2, upsert("a", "1"));
    for sequence in [1, 2] {
        assert!(!cache.apply(sequence, upsert("a", "1")), "there is nothing to miss");
        let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| cache.apply(sequence, remove("a"))));
        assert!(refused.is_err());
    }
    assert_eq!(cache.head(), 2);
    assert!(cache.snapshot().table(T).resource("a").is_some());
    assert!(cache.apply(3, remove("a")), "it goes on");
}

#[test]
fn a_name_is_kept_once() {
    let cache = Cache::new();
    cache.apply(1, upsert("a", "1"));
    cache.apply(2, upsert("a", "2"));
    let tables = cache.snapshot();
    let table = tables.table(T);
    let shared = table.shared("a");
    assert!(Arc::ptr_eq(&shared, table.resource("a").unwrap().name()));
    assert!(table.changes_since(0).unwrap().all(|(name, _)| Arc::ptr_eq(&shared, name)));
    cache.apply(3, remove("a"));
    assert!(Arc::ptr_eq(&shared, &cache.snapshot().table(T).shared("a")));
}
