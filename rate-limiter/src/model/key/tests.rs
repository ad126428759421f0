//! No two lists are spelt alike, and a spelling names the same cell everywhere.

use proptest::{collection::vec, prelude::*};

use super::*;

type Named = (Algorithm, String, Vec<(String, String)>);

fn named() -> impl Strategy<Value = Named> {
    let text = || prop_oneof!["[ab_.]{0,3}", "[\\x00-\\x08]{0,9}", ".{0,20}", "[a-c]{60,90}"];
    let algorithm = prop_oneof![Just(Algorithm::TokenBucket), Just(Algorithm::FixedWindow)];
    (algorithm, text(), vec((text(), text()), 0..4))
}

fn entries(pairs: &[(String, String)]) -> impl Iterator<Item = Entry<'_>> + Clone {
    pairs.iter().map(|(key, value)| Entry { key, value })
}

/// What was spelt; there is one way to read it.
fn read(mut spelt: &[u8]) -> Named {
    let algorithm = match spelt.split_off_first() {
        Some(b'b') => Algorithm::TokenBucket,
        Some(b'w') => Algorithm::FixedWindow,
        other => panic!("{other:?}"),
    };
    let mut texts = Vec::new();
    while let Some((length, rest)) = spelt.split_first_chunk::<8>() {
        let (text, rest) = rest.split_at(u64::from_le_bytes(*length) as usize);
        texts.push(String::from_utf8(text.to_vec()).unwrap());
        spelt = rest;
    }
    assert!(spelt.is_empty());
    let domain = texts.remove(0);
    let pairs = texts.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
    (algorithm, domain, pairs)
}

proptest! {
    #[test]
    fn a_spelling_is_of_one_list_only(named in named()) {
        let (algorithm, domain, pairs) = &named;
        prop_assert_eq!(spell(*algorithm, domain, entries(pairs), read), named);
    }

    #[test]
    fn different_lists_have_different_keys(a in named(), b in named()) {
        let key = |(algorithm, domain, pairs): &Named| Salt([1; 16]).key(*algorithm, domain, entries(pairs));
        prop_assert_eq!(key(&a) == key(&b), a == b);
    }
}

#[test]
fn keys_are_the_same_on_every_machine() {
    let key = |salt| {
        Salt([salt; 16]).key(Algorithm::TokenBucket, "edge", [Entry { key: "address", value: "192.0.2.1" }].into_iter())
    };
    assert_eq!(format!("{:032x}", key(1).0), "ef87077ba9ff02fa6c06eed1e210d763");
    assert_ne!(key(1), key(2));
}

#[test]
fn a_salt_does_not_show_itself() {
    assert_eq!(format!("{:?}", Salt([42; 16])), "Salt(..)");
}
