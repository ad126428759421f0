//! What a check is, and what it finds.
//!
//! A check is a probe, which looks, and a verdict, which is pure and beside it in the file of its group. All run side by side, each with
//! the same deadline, so that one that hangs costs the others nothing.

use std::{pin::Pin, time::Duration};

use futures_util::future::join_all;
use serde::Serialize;

use super::site::Site;

/// How long one check may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// A finding that is on its way.
pub(super) type Finding<'a> = Pin<Box<dyn Future<Output = Found> + 'a>>;

/// One thing to look at.
#[derive(Clone, Copy)]
pub(super) struct Check {
    /// What it is about.
    pub(super) name: &'static str,
    /// When it can be known.
    pub(super) when: When,
    /// Looks.
    pub(super) probe: for<'a> fn(&'a Site) -> Finding<'a>,
}

/// When something can be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// Always.
    Always,
    /// While the programs run.
    Running,
}

/// Checks of one thing.
#[derive(Clone, Copy)]
pub(super) struct Group {
    pub(super) name: &'static str,
    pub(super) checks: &'static [Check],
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Outcome {
    /// It is as it should be.
    Passed,
    /// It is not.
    Failed,
    /// It could not be looked at, or is not there.
    Skipped,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) outcome: Outcome,
    /// What there is, or what is wrong; one line.
    pub(super) said: String,
    /// What to do about it.
    pub(super) next: Option<String>,
}

/// A check that was made.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Checked {
    pub(crate) group: &'static str,
    pub(crate) name: &'static str,
    pub(crate) outcome: Outcome,
    pub(crate) said: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
}

impl Found {
    pub(super) fn passed(said: impl Into<String>) -> Self {
        Self { outcome: Outcome::Passed, said: said.into(), next: None }
    }

    pub(super) fn failed(said: impl Into<String>, next: impl Into<String>) -> Self {
        Self { outcome: Outcome::Failed, said: said.into(), next: Some(next.into()) }
    }

    pub(super) fn skipped(why: impl Into<String>) -> Self {
        Self { outcome: Outcome::Skipped, said: why.into(), next: None }
    }
}

/// Makes all checks that can be made now, in the order of the table.
pub(super) async fn run(groups: &[Group], site: &Site) -> Vec<Checked> {
    let all = groups.iter().flat_map(|group| group.checks.iter().map(move |check| (group.name, *check)));
    let possible = all.filter(|(_, check)| check.when == When::Always || !site.before_install);
    join_all(possible.map(|(group, check)| make(group, check, site, DEADLINE))).await
}

async fn make(group: &'static str, check: Check, site: &Site, within: Duration) -> Checked {
    let found = tokio::time::timeout(within, (check.probe)(site)).await.unwrap_or_else(|_| {
        Found::failed(
            format!("no answer within {} s", within.as_secs()),
            "look at the load of what was asked, and the network to it",
        )
    });
    let Found { outcome, said, next } = found;
    Checked { group, name: check.name, outcome, said, next }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_hangs_fails_alone_and_what_cannot_be_known_yet_is_left_out() {
        const CHECKS: &[Check] = &[
            Check { name: "hangs", when: When::Always, probe: |_| Box::pin(std::future::pending()) },
            Check { name: "fine", when: When::Always, probe: |_| Box::pin(async { Found::passed("it is") }) },
            Check { name: "later", when: When::Running, probe: |_| Box::pin(async { Found::passed("it runs") }) },
        ];
        let groups = [Group { name: "group", checks: CHECKS }];
        let mut site = Site::nothing();
        let made = |checked: &[Checked]| checked.iter().map(|one| (one.name, one.outcome)).collect::<Vec<_>>();
        let (hangs, fine) = (("hangs", Outcome::Failed), ("fine", Outcome::Passed));
        assert_eq!(made(&run(&groups, &site).await), [hangs, fine, ("later", Outcome::Passed)]);
        site.before_install = true;
        assert_eq!(made(&run(&groups, &site).await), [hangs, fine]);
    }
}
