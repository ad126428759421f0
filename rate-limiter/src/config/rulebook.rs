//! The rules in force, put together from every source of configuration and swapped in whole.
//!
//! A source gives its whole set each time. A set that does not go together with what the others gave is refused as a
//! whole, and what was in force stays.

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::Problem;
use crate::{
    decide::Ruleset,
    model::{
        limit::Algorithm,
        rule::{DomainSpec, Rules},
    },
};

/// Where rules come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Files.
    Files,
    /// An xDS server.
    Xds,
}

/// The rules in force.
pub struct Rulebook {
    current: Arc<ArcSwap<Ruleset>>,
    overrides: Algorithm,
    given: Mutex<BTreeMap<Source, Vec<DomainSpec>>>,
}

impl Rulebook {
    /// No rules yet. Limits that requests bring along are counted by `overrides`.
    pub fn new(overrides: Algorithm) -> Self {
        let current = Arc::new(ArcSwap::from_pointee(Ruleset::with(Rules::default(), overrides)));
        Self { current, overrides, given: Mutex::default() }
    }

    /// What a limiter decides by.
    pub fn current(&self) -> Arc<ArcSwap<Ruleset>> {
        self.current.clone()
    }

    /// Replaces what `source` gave. Cells are not touched: a limit that was edited goes on from where it was.
    ///
    /// # Errors
    /// Every problem; then nothing has changed.
    pub fn set(&self, source: Source, specs: Vec<DomainSpec>) -> Result<(), Vec<Problem>> {
        // Held while compiling, so that two sources cannot pass each other. Requests do not wait for it.
        let mut given = self.given.lock();
        let before = given.insert(source, specs);
        let all: Vec<DomainSpec> = given.values().flatten().cloned().collect();
        match Rules::build(&all) {
            Ok(rules) => {
                self.current.store(Arc::new(Ruleset::with(rules, self.overrides)));
                Ok(())
            }
            Err(problems) => {
                given.remove(&source);
                given.extend(before.map(|specs| (source, specs)));
                Err(problems.into_iter().map(Problem::from).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(name: &str) -> DomainSpec {
        DomainSpec { name: name.to_owned(), ..DomainSpec::default() }
    }

    fn domains(book: &Rulebook) -> Vec<String> {
        let rules = book.current().load_full();
        let mut names: Vec<String> = rules.rules.domains().map(|domain| domain.name().to_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn sources_stand_beside_each_other_and_a_bad_set_changes_nothing() {
        let book = Rulebook::new(Algorithm::TokenBucket);
        book.set(Source::Files, vec![domain("a"), domain("b")]).unwrap();
        book.set(Source::Xds, vec![domain("c")]).unwrap();
        assert_eq!(domains(&book), ["a", "b", "c"]);

        assert!(!book.set(Source::Xds, vec![domain("d"), domain("a")]).unwrap_err().is_empty());
        assert_eq!(domains(&book), ["a", "b", "c"]);

        book.set(Source::Files, vec![domain("b")]).unwrap();
        assert_eq!(domains(&book), ["b", "c"]);
        book.set(Source::Xds, Vec::new()).unwrap();
        assert_eq!(domains(&book), ["b"]);
    }

    #[test]
    fn limits_of_requests_are_counted_as_the_operator_said() {
        let book = Rulebook::new(Algorithm::FixedWindow);
        book.set(Source::Files, vec![domain("a")]).unwrap();
        assert_eq!(book.current().load().overrides, Algorithm::FixedWindow);
    }
}
