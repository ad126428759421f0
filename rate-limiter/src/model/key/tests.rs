//! No two lists are spelt alike, and a spelling names the same cell everywhere.

use proptest::{collection::vec, prelude::*};

use super::*;

type Named = (Option<Duration>, String, Vec<(String, String)>);

fn named() -> impl Strategy<Value = Named> {
    let text = || prop_oneof!["[ab_.]{0,3}", "[\\x00-\\x08]{0,9}", ".{0,20}", "[a-c]{60,90}"];
    let window = prop::option::of((1_u64..1_000).prop_map(Duration::from_millis));
    (window, text(), vec((text(), text()), 0..4))
}

fn entries(pairs: &[(String, String)]) -> impl Iterator<Item = Entry<'_>> + Clone {
    pairs.iter().map(|(key, value)| Entry { key, value })
}

/// What was spelt; there is one way to read it.
fn read(mut spelt: &[u8]) -> Named {
    let (window, rest) = spelt.split_first_chunk::<8>().unwrap();
    spelt = rest;
    let window = Some(Duration::from_nanos(u64::from_le_bytes(*window))).filter(|window| !window.is_zero());
    let mut texts = Vec::new();
    while let Some((length, rest)) = spelt.split_first_chunk::<8>() {
        let (text, rest) = rest.split_at(u64::from_le_bytes(*length) as usize);
        texts.push(String::from_utf8(text.to_vec()).unwrap());
        spelt = rest;
    }
    assert!(spelt.is_empty());
    let domain = texts.remove(0);
    let pairs = texts.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
    (window, domain, pairs)
}

proptest! {
    #[test]
    fn a_spelling_is_of_one_list_only(named in named()) {
        let (window, domain, pairs) = &named;
        prop_assert_eq!(spell(*window, domain, entries(pairs), read), named);
    }

    #[test]
    fn different_lists_have_different_keys(a in named(), b in named()) {
        let key = |(window, domain, pairs): &Named| Salt([1; 16]).key(&limit(*window, 1), domain, entries(pairs));
        prop_assert_eq!(key(&a) == key(&b), a == b);
    }
}

fn limit(window: Option<Duration>, requests: u32) -> Limit {
    let algorithm = if window.is_some() { Algorithm::FixedWindow } else { Algorithm::TokenBucket };
    Limit::new(requests, window.unwrap_or(Duration::from_secs(1)), None, algorithm).unwrap()
}

#[test]
fn an_edited_limit_goes_on_from_the_same_cell_unless_its_windows_are_others() {
    let key = |limit: Limit| Salt([1; 16]).key(&limit, "edge", [Entry { key: "a", value: "b" }].into_iter());
    let bucket = |per| Limit::new(5, Duration::from_secs(per), Some(9), Algorithm::TokenBucket).unwrap();
    let minutes = Some(Duration::from_secs(60));
    assert_eq!(key(bucket(1)), key(bucket(60)));
    assert_eq!(key(limit(minutes, 1)), key(limit(minutes, 7)));
    assert_ne!(key(limit(minutes, 1)), key(limit(Some(Duration::from_secs(3_600)), 1)));
    assert_ne!(key(limit(minutes, 1)), key(bucket(60)));
}

#[test]
fn keys_are_the_same_on_every_machine() {
    let key = |salt| {
        Salt([salt; 16]).key(&limit(None, 1), "edge", [Entry { key: "address", value: "192.0.2.1" }].into_iter())
    };
    assert_eq!(format!("{:032x}", key(1).0), "98c0847d614f571af09a1946d4fad309");
    assert_ne!(key(1), key(2));
}

#[test]
fn a_salt_does_not_show_itself() {
    assert_eq!(format!("{:?}", Salt([42; 16])), "Salt(..)");
}
