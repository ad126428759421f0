//! Whether an audit log is whole: entries come in, what is wrong with them comes out. Pure.
//!
//! The control plane runs it over its database, where the revisions are checked too, and the command line over an export. Reading may
//! go on while entries are added and old ones go.

use super::{Entry, Hash};

/// The most that is told of what is wrong: after a break, more of the same.
const MOST_FINDINGS: usize = 100;

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The entry at which it shows; 0: none.
    pub sequence: u64,
    /// What it is.
    pub problem: String,
}

/// Follows a chain from its first entry that is left.
#[derive(Debug, Default)]
pub struct Chain {
    first: Option<(u64, Hash)>,
    last: Option<(u64, Hash)>,
    last_revision: Option<u64>,
    /// An entry says that what came before the first one went.
    anchored: bool,
    entries: u64,
    /// An entry that has to be there, with the hash that it has to have.
    expected: Option<(u64, Hash)>,
    findings: Vec<Finding>,
}

impl Chain {
    /// A chain that has to hold an entry of this sequence and hash.
    pub fn expecting(expected: Option<(u64, Hash)>) -> Self {
        Self { expected, ..Self::default() }
    }

    /// The next entry.
    pub fn entry(&mut self, entry: &Entry) {
        let Entry { sequence, previous, hash, .. } = entry;
        let sequence = *sequence;
        match &self.last {
            None => {
                self.anchored = sequence == 1 && previous.is_empty();
                self.first = Some((sequence, previous.clone()));
            }
            Some((last, _)) if sequence > last + 1 => {
                let last = *last;
                self.finding(sequence, format!("the entries from {} to {} are missing", last + 1, sequence - 1));
            }
            Some((last, _)) if sequence <= *last => {
                self.finding(sequence, "the entry comes twice, or not in its place".to_owned());
            }
            Some((_, last_hash)) if last_hash != previous => {
                self.finding(sequence, format!("entry {sequence} does not follow the one before it"));
            }
            Some(_) => {}
        }
        if entry.computed_hash() != *hash {
            self.finding(sequence, format!("entry {sequence} was changed: it has another hash than it says"));
        }
        if let (Some((through, hash)), Some((first, previous))) = (entry.trimmed(), &self.first) {
            self.anchored |= through.checked_add(1) == Some(*first) && hash == previous;
        }
        if let Some((_, expected)) = self.expected.take_if(|(expected, _)| *expected == sequence)
            && expected != *hash
        {
            self.finding(sequence, format!("entry {sequence} has another hash than it had: the log was written anew"));
        }
        if let Some(revision) = entry.revision {
            let expected = self.last_revision.map_or(revision, |last| last + 1);
            if revision > expected {
                let missing = format!("the revisions from {expected} to {} have no entry", revision - 1);
                self.finding(sequence, missing);
            } else if revision < expected {
                self.finding(sequence, format!("revision {revision} has more than one entry"));
            }
            self.last_revision = Some(revision);
        }
        self.last = Some((sequence, hash.clone()));
        self.entries += 1;
    }

    /// The rows of `entry`'s revision have the hash `found`; none: they are not there.
    pub fn revision(&mut self, entry: &Entry, found: Option<&Hash>) {
        let Some(revision) = entry.revision else { return };
        let problem = match found {
            None => format!("revision {revision} is missing"),
            Some(found) if Some(found) != entry.digest.as_ref() => {
                format!("revision {revision} was changed: it has another hash than entry {} says", entry.sequence)
            }
            Some(_) => return,
        };
        self.finding(entry.sequence, problem);
    }

    /// No entry is left. `head` is the newest revision as it was before the first entry was asked for, if that is known.
    pub fn end(mut self, head: Option<u64>) -> Verdict {
        if let Some((first, _)) = self.first.take().filter(|_| !self.anchored) {
            let problem = format!("the entries before {first} are missing, and no entry says that they went");
            self.finding(first, problem);
        }
        if let Some((sequence, _)) = self.expected.take() {
            self.finding(sequence, format!("entry {sequence} is not there any more"));
        }
        if let (Some(head), Some(last)) = (head, self.last_revision)
            && head > last
        {
            self.finding(0, format!("the revisions from {} to {head} have no entry", last + 1));
        }
        Verdict { entries: self.entries, head: self.last, findings: self.findings }
    }

    fn finding(&mut self, sequence: u64, problem: String) {
        if self.findings.len() < MOST_FINDINGS {
            self.findings.push(Finding { sequence, problem });
        }
    }
}

/// What is to be said of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// How many entries there are.
    pub entries: u64,
    /// Sequence and hash of the newest.
    pub head: Option<(u64, Hash)>,
    /// What is wrong, in the order of entries; nothing: the log is whole. At most a hundred.
    pub findings: Vec<Finding>,
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::{
        super::{Action, NewEntry, of_trim, sealed},
        *,
    };

    /// Two entries, a revision and its successor, one more entry.
    fn log() -> Vec<Entry> {
        let new = |actor: &str| NewEntry::done(Action::Write, actor, "::1", OffsetDateTime::UNIX_EPOCH);
        let mut log = Vec::new();
        for (actor, revision) in [("a", None), ("b", None), ("c", Some(7)), ("d", Some(8)), ("e", None)] {
            append(&mut log, new(actor), revision);
        }
        log
    }

    fn append(log: &mut Vec<Entry>, new: NewEntry, revision: Option<u64>) {
        let last = log.last().map(|entry| (entry.sequence, entry.hash.clone()));
        log.extend(sealed(vec![new], last, revision.map(|revision| (revision, format!("digest {revision}")))));
    }

    fn problems(log: &[Entry], head: Option<u64>) -> Vec<String> {
        let mut chain = Chain::default();
        for entry in log {
            chain.entry(entry);
            let found = entry.revision.map(|revision| format!("digest {revision}"));
            chain.revision(entry, found.as_ref());
        }
        chain.end(head).findings.into_iter().map(|finding| finding.problem).collect()
    }

    #[test]
    fn a_whole_log_has_nothing_wrong() {
        assert_eq!(problems(&log(), Some(8)), [""; 0]);
        assert_eq!(problems(&[], Some(8)), [""; 0], "a log that begins after the revisions");
    }

    #[test]
    fn every_field_counts() {
        type Tamper = fn(&mut Entry);
        let tampers: [Tamper; 14] = [
            |entry| entry.at += time::Duration::MICROSECOND,
            |entry| entry.actor.push('x'),
            |entry| entry.address.push('x'),
            |entry| entry.action.push('x'),
            |entry| entry.outcome.push('x'),
            |entry| entry.kind.push('x'),
            |entry| entry.name.push('x'),
            |entry| entry.detail.push('x'),
            |entry| entry.before = Some(String::new()),
            |entry| entry.after = Some(String::new()),
            |entry| entry.times += 1,
            |entry| entry.revision = Some(9),
            |entry| entry.digest = Some(String::new()),
            // A byte that moves from one field to the next.
            |entry| (entry.address, entry.actor) = (String::new(), "b::1".to_owned()),
        ];
        for (index, tamper) in tampers.into_iter().enumerate() {
            let mut log = log();
            tamper(&mut log[1]);
            let found = problems(&log, None);
            assert!(found.iter().any(|problem| problem.contains("entry 2 was changed")), "{index}: {found:?}");
        }
    }

    #[test]
    fn whoever_seals_an_entry_anew_breaks_the_next() {
        let mut log = log();
        log[1].actor = "somebody else".to_owned();
        log[1].hash = log[1].computed_hash();
        assert_eq!(problems(&log, None), ["entry 3 does not follow the one before it"]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let without = |range: std::ops::Range<usize>| {
            let mut log = log();
            log.drain(range);
            problems(&log, Some(8))
        };
        assert_eq!(without(1..2), ["the entries from 2 to 2 are missing"]);
        assert_eq!(without(0..2), ["the entries before 3 are missing, and no entry says that they went"]);
        assert_eq!(without(3..5), ["the revisions from 8 to 8 have no entry"]);
        let moved = {
            let mut log = log();
            log.swap(0, 1);
            problems(&log, None)
        };
        assert!(moved.contains(&"the entry comes twice, or not in its place".to_owned()), "{moved:?}");
    }

    #[test]
    fn what_went_by_retention_is_not_missed() {
        let mut log = log();
        let trim = of_trim(2, &log[1].hash, OffsetDateTime::UNIX_EPOCH);
        append(&mut log, trim, None);
        assert_eq!(problems(&log[2..], Some(8)), [""; 0]);
        assert_eq!(problems(&log[3..], Some(8)).len(), 1, "more went than was said");
        let mut lied = log[2..].to_vec();
        lied[0].previous = "another".to_owned();
        lied[0].hash = lied[0].computed_hash();
        assert!(!problems(&lied, Some(8)).is_empty());
    }

    #[test]
    fn whoever_writes_all_anew_does_not_get_past_a_head_that_was_kept() {
        let expecting = |sequence, hash: &str| {
            let mut chain = Chain::expecting(Some((sequence, hash.to_owned())));
            log().iter().for_each(|entry| chain.entry(entry));
            chain.end(None).findings.len()
        };
        assert_eq!(expecting(4, &log()[3].hash), 0);
        assert_eq!(expecting(4, &log()[2].hash), 1);
        assert_eq!(expecting(6, "cut off"), 1);
    }

    #[test]
    fn a_revision_that_was_changed_is_named() {
        let mut chain = Chain::default();
        for entry in &log() {
            chain.entry(entry);
            let changed = (entry.revision == Some(7)).then(|| "another".to_owned());
            chain.revision(entry, changed.as_ref());
        }
        let found: Vec<_> = chain.end(None).findings.into_iter().map(|finding| finding.problem).collect();
        assert_eq!(found, ["revision 7 was changed: it has another hash than entry 3 says", "revision 8 is missing",]);
    }
}
