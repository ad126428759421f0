//! Which parts of a question Envoy refuses, when it refuses the whole and stops at the first thing that it minds. Pure.
//!
//! A group that is refused is asked about in two halves, until single parts are left. Where both halves are taken, it is their
//! meeting that is refused, and the group is told as it is. What Envoy says of a group may name one of it; that one is
//! asked about alone first.
//!
//! The number of questions is bounded: what is left then is told as a group.

/// How many halves are asked about at most. Enough for two culprits among thousands.
const MOST_QUESTIONS: usize = 48;

/// Why something is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// What Envoy said.
    pub(super) words: String,
    /// Whether the reason lies on this machine, and not in what was asked about.
    pub(super) is_ours: bool,
}

/// Parts, by index, that are refused together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Culprits {
    pub(super) parts: Vec<usize>,
    pub(super) words: String,
}

/// The search after the parts that are refused.
#[derive(Debug)]
pub(super) struct Search<'a> {
    names: &'a [&'a str],
    open: Vec<(Vec<usize>, Refusal)>,
    found: Vec<Culprits>,
    questions_left: usize,
}

impl<'a> Search<'a> {
    /// Among parts of these names, which are refused together.
    pub(super) fn new(names: &'a [&'a str], refusal: Refusal) -> Self {
        let open = vec![((0..names.len()).collect(), refusal)];
        Self { names, open, found: Vec::new(), questions_left: MOST_QUESTIONS }
    }

    /// The next two groups to ask about, which are to be answered to [`Search::hear`]; none at the end.
    pub(super) fn next(&mut self) -> Option<[Vec<usize>; 2]> {
        loop {
            let (group, refusal) = self.open.last()?;
            if group.len() > 1 && self.questions_left >= 2 {
                self.questions_left -= 2;
                return Some(self.halves(group, &refusal.words));
            }
            let (group, refusal) = self.open.pop()?;
            self.tell(group, refusal);
        }
    }

    /// What was answered to the groups of the last [`Search::next`].
    pub(super) fn hear(&mut self, halves: [Vec<usize>; 2], answers: [Option<Refusal>; 2]) {
        let Some((group, refusal)) = self.open.pop() else { return };
        if answers.iter().all(Option::is_none) {
            self.tell(group, refusal);
            return;
        }
        self.open.extend(halves.into_iter().zip(answers).filter_map(|(half, refusal)| Some((half, refusal?))));
    }

    /// What was found; groups that were not asked about further are told whole.
    pub(super) fn into_found(mut self) -> Vec<Culprits> {
        while let Some((group, refusal)) = self.open.pop() {
            self.tell(group, refusal);
        }
        self.found.sort_by(|a, b| a.parts.cmp(&b.parts));
        self.found
    }

    fn tell(&mut self, parts: Vec<usize>, Refusal { words, is_ours }: Refusal) {
        if !is_ours {
            self.found.push(Culprits { parts, words });
        }
    }

    fn halves(&self, group: &[usize], words: &str) -> [Vec<usize>; 2] {
        let named: Vec<usize> = group.iter().copied().filter(|part| mentions(words, self.names[*part])).collect();
        if let [named] = named.as_slice() {
            return [vec![*named], group.iter().copied().filter(|part| part != named).collect()];
        }
        let (left, right) = group.split_at(group.len() / 2);
        [left.to_vec(), right.to_vec()]
    }
}

/// Whether `name` stands in `words` and is not a part of a longer one. Only a hint: a word may be called so too.
fn mentions(words: &str, name: &str) -> bool {
    let in_name = |c: char| c.is_alphanumeric() || "-_./".contains(c);
    !name.is_empty()
        && words.match_indices(name).any(|(at, _)| {
            !words[..at].ends_with(in_name) && !words[at + name.len()..].trim_end_matches('.').starts_with(in_name)
        })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 40] = {
        let mut names = ["part"; 40];
        names[7] = "web";
        names
    };

    fn refusal(words: &str) -> Refusal {
        Refusal { words: words.to_owned(), is_ours: false }
    }

    /// Searches among `count` parts, where `refuses` is Envoy; with how many questions.
    fn search(count: usize, refuses: impl Fn(&[usize]) -> Option<Refusal>) -> (Vec<Vec<usize>>, usize) {
        let all: Vec<usize> = (0..count).collect();
        let mut search = Search::new(&NAMES[..count], refuses(&all).unwrap());
        let mut asked = 0;
        while let Some(halves) = search.next() {
            asked += 2;
            let answers = [refuses(&halves[0]), refuses(&halves[1])];
            search.hear(halves, answers);
        }
        (search.into_found().into_iter().map(|found| found.parts).collect(), asked)
    }

    proptest! {
        #[test]
        fn whoever_is_refused_alone_is_found(bad in prop::collection::btree_set(0_usize..40, 1..4)) {
            let refuses = |group: &[usize]| group.iter().find(|part| bad.contains(part)).map(|_| refusal("bad"));
            let (found, asked) = search(40, refuses);
            let single: Vec<_> = bad.iter().map(|part| vec![*part]).collect();
            prop_assert!(asked <= MOST_QUESTIONS);
            prop_assert_eq!(found, single);
        }

        #[test]
        fn the_number_of_questions_is_bounded_and_nobody_gets_away(bad in prop::collection::btree_set(0_usize..40, 20..40)) {
            let refuses = |group: &[usize]| group.iter().find(|part| bad.contains(part)).map(|_| refusal("bad"));
            let (found, asked) = search(40, refuses);
            prop_assert!(asked <= MOST_QUESTIONS);
            let found: BTreeSet<usize> = found.concat().into_iter().collect();
            prop_assert!(found.is_superset(&bad), "{:?}", found);
        }
    }

    #[test]
    fn what_is_refused_only_together_is_told_together() {
        let refuses = |group: &[usize]| (group.contains(&0) && group.contains(&1)).then(|| refusal("both"));
        assert_eq!(search(2, refuses).0, [vec![0, 1]]);
    }

    #[test]
    fn who_is_named_is_asked_about_first() {
        let refuses = |group: &[usize]| group.contains(&7).then(|| refusal("two hosts of web: bad"));
        assert_eq!(search(40, refuses), (vec![vec![7]], 2));
    }

    #[test]
    fn what_is_our_own_fault_is_no_culprit_and_hides_none() {
        let refuses = |group: &[usize]| match group {
            group if group.contains(&1) => Some(Refusal { words: "no such file".to_owned(), is_ours: true }),
            group => group.contains(&2).then(|| refusal("bad")),
        };
        assert_eq!(search(4, refuses).0, [vec![2]]);
    }

    #[test]
    fn a_name_is_no_part_of_a_longer_one() {
        assert!(mentions("Duplicate entry in route web", "web") && mentions("cluster 'web': bad", "web"));
        assert!(!mentions("Duplicate entry in route web-2", "web") && !mentions("web/a.example.com", "web"));
    }
}
