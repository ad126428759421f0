//! Buckets as a proxy names them, and the numbers that a stream gives them.
//!
//! A name is a map of texts, long and without an order; a number is what the ledger and the streams talk about.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::{Duration, Instant},
};

use chancery_proto::{
    chancery::{ABSENT, DESCRIPTOR_BUCKET, SKIP_IF_ABSENT},
    envoy::rlqs::BucketId,
};
use serde::Deserialize;

use crate::{decide::MAX_TEXT, model::descriptor::Entry};

/// Entries of a bucket's name.
const MAX_ENTRIES: usize = 16;

/// Buckets with a share that one stream may have.
pub(super) const MAX_BUCKETS: usize = 10_000;

/// Bytes of all their names.
pub(super) const MAX_NAMES: usize = 32 << 20;

/// Why a bucket's name is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidBucket {
    /// No entries.
    #[error("a bucket must have entries")]
    Empty,
    /// Too many.
    #[error("a bucket has at most {MAX_ENTRIES} entries")]
    TooMany,
    /// The value of [`DESCRIPTOR_BUCKET`] is no descriptor.
    #[error("{DESCRIPTOR_BUCKET} is not the JSON of a descriptor")]
    Malformed(#[source] serde_json::Error),
}

/// What a bucket is about.
#[derive(Debug, PartialEq)]
pub(super) enum About<'a> {
    /// A descriptor whose entries came in no order.
    Unordered(Vec<Entry<'a>>),
    /// A descriptor.
    Ordered(Vec<(String, String)>),
    /// No limit: what it would be counted by is not there.
    Nothing,
    /// Longer than any proxy's headers. Only the client is to blame, so it must not cost the others their stream.
    TooMuch,
}

/// Reads a name.
pub(super) fn read(bucket: &BucketId) -> Result<About<'_>, InvalidBucket> {
    match bucket.bucket.len() {
        0 => return Err(InvalidBucket::Empty),
        length if length > MAX_ENTRIES => return Err(InvalidBucket::TooMany),
        _ => {}
    }
    if bucket.bucket.iter().any(|(key, value)| key.len().max(value.len()) > MAX_TEXT) {
        return Ok(About::TooMuch);
    }
    if let Some(text) = bucket.bucket.get(DESCRIPTOR_BUCKET) {
        return descriptor(text).map_err(InvalidBucket::Malformed);
    }
    Ok(About::Unordered(bucket.bucket.iter().map(|(key, value)| Entry { key, value }).collect()))
}

/// The descriptor that is written as [`DESCRIPTOR_BUCKET`] says.
fn descriptor(text: &str) -> Result<About<'static>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Written {
        descriptor: Vec<Vec<Option<String>>>,
    }
    let Written { descriptor } = serde_json::from_str(text)?;
    let mut entries = Vec::with_capacity(descriptor.len());
    for entry in descriptor {
        let mut parts = entry.into_iter();
        let (key, value, mode) = (parts.next().flatten(), parts.next().flatten(), parts.next().flatten());
        let value = value.filter(|value| !value.is_empty());
        if value.is_none() && mode.as_deref() == Some(SKIP_IF_ABSENT) {
            return Ok(About::Nothing);
        }
        entries.push((key.unwrap_or_default(), value.unwrap_or_else(|| ABSENT.to_owned())));
    }
    Ok(About::Ordered(entries))
}

/// The buckets of one stream that limits apply to, never more than [`MAX_BUCKETS`], whatever clients make up.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    numbers: HashMap<Arc<Name>, u32>,
    names: HashMap<u32, Arc<Name>>,
    bytes: usize,
    next: u32,
}

/// The entries of a bucket, sorted.
type Name = [(String, String)];

impl Buckets {
    /// The number of a bucket, a new one if it has none; `None` if there is no room for more.
    pub(super) fn number(&mut self, bucket: &BucketId) -> Option<u32> {
        let name = name(bucket);
        if let Some(&number) = self.numbers.get(&name) {
            return Some(number);
        }
        let bytes = self.bytes + bytes(&name);
        if self.names.len() >= MAX_BUCKETS || bytes > MAX_NAMES {
            return None;
        }
        self.bytes = bytes;
        // After four billion buckets one of the first may still be there.
        while self.names.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let number = self.next;
        self.next = number.wrapping_add(1);
        self.numbers.insert(name.clone(), number);
        self.names.insert(number, name);
        Some(number)
    }

    /// The bucket of a number.
    pub(super) fn id(&self, number: u32) -> Option<BucketId> {
        self.names.get(&number).map(|name| BucketId { bucket: name.iter().cloned().collect() })
    }

    /// Forgets a bucket; says which number it had.
    pub(super) fn remove(&mut self, bucket: &BucketId) -> Option<u32> {
        // Most often there are none: limits that never had a share are not sorted for that.
        if self.names.is_empty() {
            return None;
        }
        let (name, number) = self.numbers.remove_entry(&name(bucket))?;
        self.names.remove(&number);
        self.bytes -= bytes(&name);
        Some(number)
    }
}

/// Buckets of one stream that have no share of anything and were not used of late. Envoy keeps what it is not told to forget.
#[derive(Debug, Default)]
pub(super) struct Unused {
    /// Since when, by fingerprint: if two are taken for one, one of them is forgotten too soon or too late.
    since: HashMap<u64, Instant>,
    hasher: RandomState,
}

impl Unused {
    /// Takes a report; whether the proxy is to forget the bucket, because it was not `used` for as long as `idle`.
    pub(super) fn reported(&mut self, bucket: &BucketId, used: bool, now: Instant, idle: Duration) -> bool {
        let entries = bucket.bucket.iter().map(|entry| self.hasher.hash_one(entry));
        let fingerprint = entries.fold(0, u64::wrapping_add);
        if used {
            self.since.remove(&fingerprint);
            return false;
        }
        let full = self.since.len() >= MAX_BUCKETS;
        let since = match self.since.get(&fingerprint) {
            Some(&since) => since,
            None if full => return true,
            None => *self.since.entry(fingerprint).or_insert(now),
        };
        let forget = now.saturating_duration_since(since) >= idle;
        if forget {
            self.since.remove(&fingerprint);
        }
        forget
    }
}

fn name(bucket: &BucketId) -> Arc<Name> {
    let mut name: Vec<(String, String)> =
        bucket.bucket.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    name.sort_unstable();
    name.into()
}

fn bytes(name: &Name) -> usize {
    name.iter().map(|(key, value)| key.len() + value.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(entries: &[(&str, &str)]) -> BucketId {
        BucketId { bucket: entries.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect() }
    }

    #[test]
    fn a_bucket_keeps_its_number_until_it_is_removed() {
        let mut buckets = Buckets::default();
        let (one, two) = (bucket(&[("a", "1"), ("b", "2")]), bucket(&[("a", "1"), ("b", "3")]));
        let number = buckets.number(&one).unwrap();
        assert_ne!(Some(number), buckets.number(&two));
        assert_eq!(Some(number), buckets.number(&bucket(&[("b", "2"), ("a", "1")])));
        assert_eq!(buckets.id(number).as_ref(), Some(&one));
        assert_eq!((buckets.remove(&one), buckets.remove(&one)), (Some(number), None));
        assert_eq!(buckets.id(number), None);
        assert_ne!(buckets.number(&one), Some(number), "what is under way to the old one must not reach the new one");
    }

    #[test]
    fn a_proxy_cannot_fill_the_memory_with_buckets() {
        let mut buckets = Buckets::default();
        let numbered = |number: usize| bucket(&[("a", &number.to_string())]);
        assert!((0..MAX_BUCKETS).all(|number| buckets.number(&numbered(number)).is_some()));
        let more = numbered(MAX_BUCKETS);
        assert_eq!(buckets.number(&more), None);
        assert!(buckets.number(&numbered(7)).is_some(), "what it has goes on");
        buckets.remove(&numbered(7));
        assert!(buckets.number(&more).is_some(), "there is room again");

        let mut buckets = Buckets::default();
        let long = |number: u32| bucket(&[("a", &format!("{number:08}{}", "x".repeat(MAX_TEXT - 9)))]);
        let most = (MAX_NAMES / MAX_TEXT) as u32;
        assert!((0..most).all(|number| buckets.number(&long(number)).is_some()));
        assert_eq!((buckets.number(&long(most)), buckets.number(&bucket(&[("b", "")]))), (None, None));
        buckets.remove(&long(0));
        assert!(buckets.number(&long(most)).is_some());
    }

    #[test]
    fn a_bucket_without_a_share_is_kept_while_it_is_used() {
        let (mut unused, start, idle) = (Unused::default(), Instant::now(), Duration::from_secs(60));
        let (one, two) = (bucket(&[("a", "1"), ("b", "2")]), bucket(&[("a", "2")]));
        let mut forget =
            |bucket: &BucketId, used, after| unused.reported(bucket, used, start + Duration::from_secs(after), idle);
        assert!(!forget(&one, true, 0) && !forget(&one, false, 5) && !forget(&two, false, 5));
        assert!(!forget(&one, true, 60), "it is used again");
        assert!(!forget(&one, false, 65) && forget(&two, false, 65));
        assert!(!forget(&one, false, 124) && forget(&one, false, 125));
        assert!(unused.since.is_empty());
    }

    #[test]
    fn unused_buckets_do_not_fill_the_memory() {
        let (mut unused, now, idle) = (Unused::default(), Instant::now(), Duration::from_secs(60));
        let numbered = |number: usize| bucket(&[("a", &number.to_string())]);
        assert!((0..MAX_BUCKETS).all(|number| !unused.reported(&numbered(number), false, now, idle)));
        assert!(unused.reported(&numbered(MAX_BUCKETS), false, now, idle));
        assert!(!unused.reported(&numbered(0), false, now, idle));
        assert_eq!(unused.since.len(), MAX_BUCKETS);
    }

    #[test]
    fn names_are_bounded() {
        assert!(matches!(read(&bucket(&[])), Err(InvalidBucket::Empty)));
        let many: Vec<String> = (0..=MAX_ENTRIES).map(|number| number.to_string()).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|number| (&**number, "")).collect();
        assert!(matches!(read(&bucket(&many)), Err(InvalidBucket::TooMany)));
        assert!(matches!(read(&bucket(&many[1..])), Ok(About::Unordered(entries)) if entries.len() == MAX_ENTRIES));
        assert_eq!(read(&bucket(&[("a", &"x".repeat(MAX_TEXT + 1))])).unwrap(), About::TooMuch);
    }

    #[test]
    fn a_descriptor_is_read_as_envoy_writes_it() {
        let about = |text: &str| match read(&bucket(&[(DESCRIPTOR_BUCKET, text)])).unwrap() {
            About::Ordered(entries) => entries.iter().map(|(key, value)| format!("{key}={value}")).collect(),
            About::Nothing => vec!["nothing".to_owned()],
            other => panic!("{other:?}"),
        };
        let keyed =
            |value: &str| about(&format!("{{\"descriptor\":[[\"chancery.limit\",\"l\"],[\"x-a\",{value}]]}}\n"));
        assert_eq!(keyed(r#""k1""#), ["chancery.limit=l", "x-a=k1"]);
        assert_eq!(keyed(r#""a\"],[\u00ff""#), ["chancery.limit=l", "x-a=a\"],[\u{ff}"], "no client counts as another");
        assert_eq!((keyed("null"), keyed(r#""""#)), (keyed(r#""-""#), keyed(r#""-""#)));
        assert_eq!(keyed(r#""k1","skip""#), keyed(r#""k1""#));
        assert_eq!((keyed(r#"null,"skip""#), keyed(r#""","skip""#)), (vec!["nothing".into()], vec!["nothing".into()]));
    }

    #[test]
    fn what_is_no_descriptor_is_refused() {
        for text in ["", "{}", "[]", r#"{"descriptor": 1}"#, r#"{"descriptor": [["a", 1]]}"#] {
            let read = read(&bucket(&[(DESCRIPTOR_BUCKET, text)])).map(|_| ());
            assert!(matches!(read, Err(InvalidBucket::Malformed(_))), "{text}");
        }
    }
}
