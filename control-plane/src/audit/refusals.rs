//! Refusals, those that are alike put together: a flood of them is a few entries a minute. Pure.
//!
//! The first is told at once, what follows within a minute when that is over. What is told apart in a minute is bounded as well:
//! beyond that, refusals are counted in one entry that says neither who nor from where.

use std::collections::HashMap;

use time::{Duration, OffsetDateTime};

use crate::store::{Action, NewEntry, Outcome};

/// For so long, what is alike is one entry.
const WINDOW: Duration = Duration::MINUTE;

/// How many are told apart at a time: 100 a minute are about 50 MB a day.
const MOST: usize = 100;

/// What is said of those that are not told apart.
const MANY: &str = "more refusals than are told apart";

/// Refusals of the last minute.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    alike: HashMap<Alike, Window>,
}

/// All that refusals have to have in common: actor, address, action, kind, name, detail.
type Alike = (String, String, Action, String, String, String);

#[derive(Debug)]
struct Window {
    /// The first that was not told yet, and how many there are like it.
    untold: Option<NewEntry>,
    /// When the last was told.
    told: Option<OffsetDateTime>,
}

impl Refusals {
    /// One more.
    pub(super) fn note(&mut self, mut entry: NewEntry) {
        if self.alike.len() >= MOST && !self.alike.contains_key(&alike(&entry)) {
            let many = NewEntry::done(Action::SignIn, "", "", entry.at);
            entry = NewEntry { outcome: Outcome::Refused, detail: MANY.to_owned(), times: entry.times, ..many };
        }
        let window = self.alike.entry(alike(&entry)).or_insert(Window { untold: None, told: None });
        match &mut window.untold {
            Some(untold) => untold.times += entry.times,
            untold @ None => *untold = Some(entry),
        }
    }

    /// What is to be told now; `all`: whatever there is.
    pub(super) fn due(&mut self, now: OffsetDateTime, all: bool) -> Vec<NewEntry> {
        let mut due = Vec::new();
        self.alike.retain(|_, window| {
            if !all && window.told.is_some_and(|told| now - told < WINDOW) {
                return true;
            }
            let Some(untold) = window.untold.take() else { return false };
            due.push(untold);
            window.told = Some(now);
            true
        });
        due.sort_by_key(|entry| entry.at);
        due
    }
}

fn alike(entry: &NewEntry) -> Alike {
    let NewEntry { actor, address, action, kind, name, detail, .. } = entry.clone();
    (actor, address, action, kind, name, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + Duration::seconds(seconds)
    }

    fn refusal(actor: &str, seconds: i64) -> NewEntry {
        NewEntry { outcome: Outcome::Refused, ..NewEntry::done(Action::Write, actor, "::1", at(seconds)) }
    }

    fn told(refusals: &mut Refusals, seconds: i64) -> Vec<(String, u64)> {
        refusals.due(at(seconds), false).into_iter().map(|entry| (entry.actor, entry.times)).collect()
    }

    #[test]
    fn the_first_is_told_at_once_and_the_others_of_its_minute_together() {
        let mut refusals = Refusals::default();
        refusals.note(refusal("a", 0));
        assert_eq!(told(&mut refusals, 1), [("a".to_owned(), 1)]);
        for second in 2..50 {
            refusals.note(refusal("a", second));
        }
        refusals.note(refusal("b", 50));
        assert_eq!(told(&mut refusals, 51), [("b".to_owned(), 1)]);
        assert_eq!(told(&mut refusals, 61), [("a".to_owned(), 48)]);
        assert_eq!(told(&mut refusals, 200), []);
        assert!(refusals.alike.is_empty(), "it does not grow");
    }

    #[test]
    fn a_flood_of_different_ones_is_bounded_and_none_is_forgotten() {
        let mut refusals = Refusals::default();
        let mut entries = Vec::new();
        for second in 0..600 {
            for caller in 0..50 {
                refusals.note(refusal(&format!("{second}-{caller}"), second));
            }
            entries.extend(refusals.due(at(second), false));
        }
        entries.extend(refusals.due(at(600), true));
        let total: u64 = entries.iter().map(|entry| entry.times).sum();
        assert_eq!(total, 600 * 50);
        assert!(entries.len() <= 11 * (MOST + 1), "{} entries in ten minutes", entries.len());
        assert!(entries.iter().any(|entry| entry.detail == MANY));
    }
}
