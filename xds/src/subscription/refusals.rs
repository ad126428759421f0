//! What a client has rejected of one type, and not taken since. Pure.
//!
//! Its old configuration goes on for these names, so what that needs must stay: nothing else of the stream is removed
//! on the strength of a rejected response. And a resource that the client has none of, because it rejected the only
//! one it was ever sent, is *lacking*: nothing that refers to it may be sent.
//!
//! Which names a rejection is about: Envoy takes clusters and listeners one by one and names the bad ones; of other
//! types it may have taken any part of the response, so all that was set in it counts. What was removed in it is
//! taken for removed: Envoy removes first. A name is done with when a later response with it is
//! acknowledged, when its removal is sent, or when it is asked for no more.

use std::collections::{BTreeMap, BTreeSet};

use super::Sent;
use crate::{
    rejection::{is_whole, mentions},
    resource::Name,
};

/// The names that a client has rejected, and not taken since.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    names: BTreeMap<Name, Refusal>,
    /// How many names are lacking, by their length.
    lacking: BTreeMap<usize, usize>,
    /// How often that has changed.
    changes: u64,
}

#[derive(Debug)]
struct Refusal {
    /// The oldest change that the client has not taken.
    since: u64,
    /// Whether the client has no other resource of this name.
    lacking: bool,
}

impl Refusals {
    /// The client rejected `sent`, the oldest change in which was `since`. `new` are the names in it that the
    /// client had no resource of; `piecewise` is whether it takes resources one by one.
    pub(super) fn add(&mut self, sent: &Sent, since: u64, new: &[Name], piecewise: bool, words: &str) {
        let new: BTreeSet<&Name> = new.iter().collect();
        let set: BTreeSet<&Name> = sent.set.iter().collect();
        let bad: BTreeSet<&Name> = sent
            .names
            .iter()
            .filter(|name| piecewise && is_whole(words) && (set.contains(name) || self.names.contains_key(&***name)))
            .filter(|name| mentions(words, name))
            .collect();
        let done = |name: &&Name| if bad.is_empty() { !set.contains(name) } else { !bad.contains(name) };
        for name in sent.names.iter().filter(done) {
            self.remove(name);
        }
        for name in if bad.is_empty() { set } else { bad } {
            let refusal = self.names.entry(name.clone()).or_insert(Refusal { since, lacking: false });
            refusal.since = refusal.since.min(since);
            if !refusal.lacking && new.contains(name) {
                refusal.lacking = true;
                *self.lacking.entry(name.len()).or_default() += 1;
                self.changes += 1;
            }
        }
    }

    /// `name` is done with. Returns the oldest change that the client had not taken.
    pub(super) fn remove(&mut self, name: &str) -> Option<u64> {
        let refusal = self.names.remove(name)?;
        if refusal.lacking {
            self.changes += 1;
            if let Some(count) = self.lacking.get_mut(&name.len()) {
                *count -= 1;
            }
            self.lacking.retain(|_, count| *count > 0);
        }
        Some(refusal.since)
    }

    /// All but these names are done with.
    pub(super) fn retain(&mut self, keeps: impl Fn(&str) -> bool) {
        let done: Vec<Name> = self.names.keys().filter(|name| !keeps(name)).cloned().collect();
        for name in done {
            self.remove(&name);
        }
    }

    /// The names.
    pub(super) fn names(&self) -> impl Iterator<Item = &Name> {
        self.names.keys()
    }

    /// Whether the client has no other resource called `name`, if it has rejected this one.
    pub(super) fn lacks(&self, name: &str) -> Option<bool> {
        self.names.get(name).map(|refusal| refusal.lacking)
    }

    /// The oldest change that the client has not taken.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.names.values().map(|refusal| refusal.since).min()
    }

    /// Whether there are names of which the client has no resource.
    fn has_lacking(&self) -> bool {
        !self.lacking.is_empty()
    }

    /// Differs when other names are lacking.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether `bytes`, an encoded message, has in it a name of which the client has no resource: as protobuf
    /// writes a string, its length before it. There may be such bytes that are no string; that is seldom, and
    /// costs only that the message waits.
    pub(super) fn is_lacking_in(&self, bytes: &[u8]) -> bool {
        let lacking = |name: &[u8]| {
            let name = std::str::from_utf8(name).ok();
            name.and_then(|name| self.names.get(name)).is_some_and(|refusal| refusal.lacking)
        };
        self.has_lacking()
            && (0..bytes.len()).any(|at| {
                let mut rest = &bytes[at..];
                let Ok(length) = prost::encoding::decode_varint(&mut rest) else { return false };
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                self.lacking.contains_key(&length) && rest.get(..length).is_some_and(lacking)
            })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::resource::{field_len, put_field};

    fn sent(names: &[&str]) -> Sent {
        let names: Arc<[Name]> = names.iter().map(|name| Name::from(*name)).collect();
        Sent {
            nonce: "1".into(),
            version: "v".into(),
            sequence: 3,
            set: names.clone(),
            names,
            complete: true,
            at: std::time::Instant::now(),
        }
    }

    fn names(refusals: &Refusals) -> Vec<&str> {
        refusals.names().map(|name| &**name).collect()
    }

    #[test]
    fn one_who_takes_one_by_one_has_taken_what_it_does_not_name() {
        let mut refusals = Refusals::default();
        refusals.add(&sent(&["web-1", "web-2"]), 3, &[], true, "Error adding/updating cluster(s) web-2: bad");
        assert_eq!(names(&refusals), ["web-2"]);
        refusals.add(&sent(&["web-1", "web-2"]), 5, &[], true, "bad");
        assert_eq!(names(&refusals), ["web-1", "web-2"], "who names none may have taken none");
        assert_eq!(refusals.oldest(), Some(3));
        refusals.add(&sent(&["web-1", "web-2"]), 6, &[], true, "cluster(s) web-1: bad");
        assert_eq!((names(&refusals), refusals.oldest()), (vec!["web-1"], Some(5)));
        let cut = format!("cluster(s) web-2: {}", "x".repeat(crate::rejection::MOST_WORDS));
        refusals.add(&sent(&["web-1", "web-2"]), 6, &[], true, &cut);
        assert_eq!(names(&refusals), ["web-1", "web-2"], "there may have been more");
    }

    #[test]
    fn of_other_types_all_counts_that_was_set() {
        let mut refusals = Refusals::default();
        let removed_too =
            Sent { names: ["gone", "web-1", "web-2"].map(Name::from).into(), ..sent(&["web-1", "web-2"]) };
        refusals.add(&removed_too, 3, &[], false, "web-2: bad");
        assert_eq!(names(&refusals), ["web-1", "web-2"]);
    }

    #[test]
    fn a_new_one_that_was_rejected_is_lacking_until_it_is_taken() {
        let mut refusals = Refusals::default();
        let long = "long".repeat(50);
        let mut message = Vec::with_capacity(field_len(5) + field_len(long.len()));
        put_field(&mut message, 1, b"web-1");
        put_field(&mut message, 2, long.as_bytes());
        refusals.add(&sent(&["web-1", "web", &long]), 3, &[], true, "bad");
        assert!(!refusals.has_lacking() && !refusals.is_lacking_in(&message), "the client has others of them");
        refusals.add(&sent(&["web", "eb-1"]), 4, &["web".into(), "eb-1".into()], true, "bad");
        assert!(refusals.has_lacking() && !refusals.is_lacking_in(&message), "a part of a name is another");
        for name in ["web-1", &long] {
            let new = [Name::from(name)];
            refusals.add(&sent(&[name]), 5, &new, true, "bad");
            refusals.add(&sent(&[name]), 6, &[], true, "bad again, but changed");
            assert!(refusals.is_lacking_in(&message));
            refusals.remove(name);
            assert!(!refusals.is_lacking_in(&message));
        }
        refusals.retain(|_| false);
        assert!(!refusals.has_lacking());
    }
}
