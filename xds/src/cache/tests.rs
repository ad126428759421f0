use super::*;

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
    let tables = cache.read();
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
fn the_same_content_changes_nothing_and_wakes_nobody() {
    let cache = Cache::new();
    assert!(cache.apply(1, upsert("a", "1")));
    let watch = cache.watch();
    assert!(!cache.apply(2, upsert("a", "1")));
    assert!(!cache.apply(2, remove("b")));
    assert!(!watch.has_changed().unwrap());
    assert_eq!(cache.head(), 1);
}

#[test]
fn a_removed_resource_is_remembered_until_it_comes_back() {
    let cache = Cache::new();
    cache.apply(1, upsert("a", "1"));
    cache.apply(2, remove("a"));
    assert_eq!(since(&cache, 1).unwrap(), [("a".into(), Kept::Removed)]);
    assert!(cache.read().table(T).removed("a").is_some());
    cache.apply(3, upsert("a", "1"));
    assert_eq!(since(&cache, 1).unwrap(), [("a".into(), Kept::Live)]);
    assert!(cache.read().table(T).removed("a").is_none());
}

#[test]
fn it_is_known_when_a_resource_was_there() {
    let cache = Cache::new();
    let had = |sequence| cache.read().table(T).had("a", sequence);
    assert!(!had(0));
    cache.apply(2, upsert("a", "1"));
    cache.apply(3, upsert("a", "2"));
    assert_eq!([1, 2, 3, 4].map(had), [false, true, true, true]);
    cache.apply(5, remove("a"));
    assert_eq!([1, 2, 4, 5, 6].map(had), [false, true, true, false, false]);
    cache.apply(7, upsert("a", "2"));
    assert_eq!([2, 4, 5, 6, 7, 8].map(had), [true, true, false, false, true, true]);
}

#[test]
fn a_whole_type_is_recognised_by_the_version_it_had() {
    let cache = Cache::new();
    let version = || cache.read().table(T).resources().map(Resource::fingerprint).fold(0, u64::wrapping_add);
    cache.apply(1, upsert("a", "1"));
    let first = version();
    cache.apply(4, upsert("b", "1"));
    let second = version();
    cache.apply(5, remove("b"));
    assert_eq!(version(), first);
    cache.apply(9, upsert("a", "2"));
    let tables = cache.read();
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
    let tables = cache.read();
    let table = tables.table(T);
    assert_eq!(table.log.len(), MAX_TOMBSTONES);
    assert_eq!(table.tombstones.len(), MAX_TOMBSTONES);
    assert_eq!(table.tombstone_log.len(), MAX_TOMBSTONES);
    assert_eq!(table.past.len(), MAX_PAST);
}
