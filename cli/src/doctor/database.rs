//! The database of the control plane, and its schema.

use std::time::Duration;

use chancery_control_plane::store::{SchemaStanding, Share, Survey};
use chancery_runtime::telemetry::chain;

use super::check::{Check, Found, Group, When};
use super::site::Site;

/// How far a copy may be behind.
const MOST_BEHIND: Duration = Duration::from_secs(30);

pub(super) const GROUP: Group = Group {
    name: "Database",
    checks: &[
        Check { name: "reachable", when: When::Always, probe: |site| Box::pin(reachable(site)) },
        Check { name: "writable", when: When::Always, probe: |site| Box::pin(of(site, writable)) },
        Check { name: "connections", when: When::Always, probe: |site| Box::pin(of(site, connections)) },
        Check { name: "replication", when: When::Always, probe: |site| Box::pin(of(site, replication)) },
    ],
};

pub(super) const SCHEMA: Group = Group {
    name: "Schema",
    checks: &[Check {
        name: "migrations",
        when: When::Always,
        probe: |site| Box::pin(of(site, move |survey| schema(survey, site.before_install))),
    }],
};

/// Why the rest is not looked at.
const AWAY: &str = "the database does not answer";

async fn reachable(site: &Site) -> Found {
    match site.database().await {
        None => Found::skipped("no control plane here"),
        Some(Err(reason)) => Found::failed(
            reason,
            "see that it runs and that CHANCERY_DATABASE names it; until then edits answer 503, and proxies go on with what they have",
        ),
        Some(Ok(Survey { engine, exists: false, .. })) => Found::passed(format!("{engine}, made by the first start")),
        Some(Ok(Survey { engine, .. })) => Found::passed(engine),
    }
}

async fn of(site: &Site, verdict: impl FnOnce(&Survey) -> Found) -> Found {
    match site.database().await {
        None => Found::skipped("no control plane here"),
        Some(Err(_)) => Found::skipped(AWAY),
        Some(Ok(survey)) => verdict(survey),
    }
}

fn writable(survey: &Survey) -> Found {
    match &survey.writable {
        Ok(()) if survey.exists => Found::passed("takes writes, and new tables"),
        Ok(()) => Found::skipped("not made yet"),
        Err(error) => Found::failed(
            chain(error),
            "name the primary and not a copy of it, and let the user create tables: GRANT CREATE ON SCHEMA public",
        ),
    }
}

fn connections(survey: &Survey) -> Found {
    let Some(Share { used, most }) = survey.connections else {
        return Found::skipped("a file has none");
    };
    let (left, pool) = (most.saturating_sub(used), survey.pool);
    let said = format!("{used} of {most} in use; a control plane takes up to {pool}");
    if left >= pool {
        return Found::passed(said);
    }
    Found::failed(
        said,
        "raise max_connections of Postgres, or end what else uses them: another replica would not get its own",
    )
}

fn replication(survey: &Survey) -> Found {
    match survey.behind {
        None => Found::skipped("it is no copy of another"),
        Some(behind) if behind <= MOST_BEHIND => {
            Found::passed(format!("{:.1} s behind its primary", behind.as_secs_f64()))
        }
        Some(behind) => Found::failed(
            format!("{:.0} s behind its primary, more than {} s", behind.as_secs_f64(), MOST_BEHIND.as_secs()),
            "look at pg_stat_replication on the primary: the network, or the disk of the copy",
        ),
    }
}

fn schema(survey: &Survey, before_install: bool) -> Found {
    match survey.schema {
        SchemaStanding::Current { version } => Found::passed(format!("version {version}, that of this program")),
        SchemaStanding::Missing if before_install || !survey.exists => {
            Found::passed("none yet; the first start makes it")
        }
        SchemaStanding::Missing => {
            Found::failed("there is none", "start a control plane, which makes it; or name the database that has it")
        }
        SchemaStanding::Behind { found, needed } if before_install => {
            Found::passed(format!("version {found}; the first start brings it to {needed}"))
        }
        SchemaStanding::Behind { found, needed } => Found::failed(
            format!("version {found}, this program works with {needed}"),
            "start a control plane of this version, which brings it up to date; one that runs is older than this command",
        ),
        SchemaStanding::Next { found } => {
            Found::passed(format!("version {found}, the one after this program's, which works with it"))
        }
        SchemaStanding::Ahead { found, needed } => Found::failed(
            format!("version {found}, newer than the {needed} of this program"),
            "install the version that the other control planes have; this one will not start here",
        ),
        SchemaStanding::Altered { version } => Found::failed(
            format!("migration {version} is not the one that this program has"),
            "restore the database, or name another: somebody has changed it, or it belongs to something else",
        ),
    }
}

#[cfg(test)]
mod tests {
    use chancery_control_plane::store::StoreError;

    use super::*;
    use crate::doctor::check::Outcome;

    fn survey() -> Survey {
        Survey {
            engine: "PostgreSQL 15.6".to_owned(),
            exists: true,
            schema: SchemaStanding::Current { version: 8 },
            writable: Ok(()),
            connections: Some(Share { used: 20, most: 97 }),
            pool: 10,
            behind: None,
            clock_ahead: Some(0.0),
        }
    }

    #[test]
    fn a_database_as_it_should_be_passes() {
        let survey = survey();
        for found in [writable(&survey), connections(&survey), schema(&survey, false)] {
            assert_eq!(found.outcome, Outcome::Passed, "{found:?}");
        }
        assert_eq!(replication(&survey).outcome, Outcome::Skipped);
    }

    #[test]
    fn what_is_wrong_comes_with_what_to_do() {
        let refused = Err(StoreError::Url("read-only".to_owned()));
        let read_only = writable(&Survey { writable: refused, ..survey() });
        assert!(read_only.said.contains("read-only") && read_only.next.unwrap().contains("primary"));
        let full = connections(&Survey { connections: Some(Share { used: 88, most: 97 }), ..survey() });
        assert_eq!(full.said, "88 of 97 in use; a control plane takes up to 10");
        assert_eq!(full.outcome, Outcome::Failed);
        let late = replication(&Survey { behind: Some(Duration::from_secs(31)), ..survey() });
        assert_eq!(late.outcome, Outcome::Failed);
        let near = replication(&Survey { behind: Some(Duration::from_secs(30)), ..survey() });
        assert_eq!(near.outcome, Outcome::Passed);
    }

    #[test]
    fn before_the_install_an_old_schema_is_no_problem_and_a_new_one_is() {
        use SchemaStanding as S;
        let outcome = |schema, before| super::schema(&Survey { schema, ..survey() }, before).outcome;
        let cases = [
            (S::Missing, Outcome::Passed, Outcome::Failed),
            (S::Behind { found: 7, needed: 8 }, Outcome::Passed, Outcome::Failed),
            (S::Next { found: 9 }, Outcome::Passed, Outcome::Passed),
            (S::Ahead { found: 10, needed: 8 }, Outcome::Failed, Outcome::Failed),
            (S::Altered { version: 3 }, Outcome::Failed, Outcome::Failed),
        ];
        for (schema, before, after) in cases {
            assert_eq!((outcome(schema, true), outcome(schema, false)), (before, after), "{schema:?}");
        }
    }
}
