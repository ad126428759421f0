//! Buckets as a proxy names them, and the numbers that a stream gives them.
//!
//! A name is a map of texts, long and without an order; a number is what the ledger and the streams talk about.

use std::collections::HashMap;

use chancery_proto::{
    chancery::{ABSENT, DESCRIPTOR_BUCKET, SKIP_IF_ABSENT},
    envoy::rlqs::BucketId,
};
use serde::Deserialize;

use crate::{decide::MAX_TEXT, model::descriptor::Entry};

/// Entries of a bucket's name.
const MAX_ENTRIES: usize = 16;

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

/// The buckets of one stream that limits apply to. As many as the ledger takes.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    numbers: HashMap<Name, u32>,
    ids: HashMap<u32, BucketId>,
    next: u32,
}

/// The entries of a bucket, sorted.
type Name = Box<[(String, String)]>;

impl Buckets {
    /// The number of a bucket, a new one if it has none.
    pub(super) fn number(&mut self, bucket: &BucketId) -> u32 {
        let name = name(bucket);
        if let Some(&number) = self.numbers.get(&name) {
            return number;
        }
        // After four billion buckets one of the first may still be there.
        while self.ids.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let number = self.next;
        self.next = number.wrapping_add(1);
        self.numbers.insert(name, number);
        self.ids.insert(number, bucket.clone());
        number
    }

    /// The bucket of a number.
    pub(super) fn id(&self, number: u32) -> Option<&BucketId> {
        self.ids.get(&number)
    }

    /// Forgets a bucket; says which number it had.
    pub(super) fn remove(&mut self, bucket: &BucketId) -> Option<u32> {
        let number = self.numbers.remove(&name(bucket))?;
        self.ids.remove(&number);
        Some(number)
    }
}

fn name(bucket: &BucketId) -> Name {
    let mut name: Vec<(String, String)> =
        bucket.bucket.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    name.sort_unstable();
    name.into()
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
        let number = buckets.number(&one);
        assert_ne!(number, buckets.number(&two));
        assert_eq!(number, buckets.number(&bucket(&[("b", "2"), ("a", "1")])));
        assert_eq!(buckets.id(number), Some(&one));
        assert_eq!((buckets.remove(&one), buckets.remove(&one)), (Some(number), None));
        assert_eq!(buckets.id(number), None);
        assert_ne!(buckets.number(&one), number, "what is under way to the old one must not reach the new one");
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
