//! Buckets as a proxy names them, and the numbers that a stream gives them.
//!
//! A name is a map of texts, long and without an order; a number is what the ledger and the streams talk about.

use std::collections::HashMap;

use chancery_proto::envoy::rlqs::BucketId;

use crate::decide::MAX_TEXT;

/// Entries of a bucket's name.
const MAX_ENTRIES: usize = 16;

/// Why a bucket's name is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidBucket {
    /// No entries.
    #[error("a bucket must have entries")]
    Empty,
    /// Too many.
    #[error("a bucket has at most {MAX_ENTRIES} entries")]
    TooMany,
    /// A key or value is too long.
    #[error("a key or value of a bucket has at most {MAX_TEXT} bytes")]
    TooLong,
}

/// Checks a name.
pub(super) fn check(bucket: &BucketId) -> Result<(), InvalidBucket> {
    match bucket.bucket.len() {
        0 => return Err(InvalidBucket::Empty),
        length if length > MAX_ENTRIES => return Err(InvalidBucket::TooMany),
        _ => {}
    }
    let long = bucket.bucket.iter().any(|(key, value)| key.len().max(value.len()) > MAX_TEXT);
    if long { Err(InvalidBucket::TooLong) } else { Ok(()) }
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
        assert_eq!(check(&bucket(&[])), Err(InvalidBucket::Empty));
        let many: Vec<String> = (0..=MAX_ENTRIES).map(|number| number.to_string()).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|number| (&**number, "")).collect();
        assert_eq!(check(&bucket(&many)), Err(InvalidBucket::TooMany));
        assert_eq!(check(&bucket(&many[1..])), Ok(()));
        assert_eq!(check(&bucket(&[("a", &"x".repeat(MAX_TEXT + 1))])), Err(InvalidBucket::TooLong));
    }
}
