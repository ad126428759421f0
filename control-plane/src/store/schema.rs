//! The schema: its migrations, and the check that a database has exactly the one we work with.
//!
//! Migrations are listed by hand rather than found by `sqlx::migrate!`: that macro would be the only
//! reason to compile sqlx's procedural macros, which bring both drivers a second time.
//!
//! A database that is behind is brought up to date at start. One that is ahead belongs to a newer program. By one version
//! that is no obstacle: replicas are upgraded one after the other and share the database meanwhile, and an upgrade can be taken
//! back. It works because a migration only expands what is there; what nobody uses any more is taken away by a later one, and not
//! before every program that may still run has done without it (the tests in `expansion` hold that). A release brings one version
//! at most. Further ahead, rows may mean what we do not understand, so it stops the start.

#[cfg(test)]
mod expansion;

use std::borrow::Cow;

use sqlx::{
    SqlSafeStr,
    migrate::{AppliedMigration, Migrate, MigrateError, Migration, MigrationType, Migrator},
};

use super::{
    StoreError,
    failure::{ANSWER_WITHIN, failure, late},
};

/// How the schema of a database stands to the one that this program works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaStanding {
    /// There is none yet.
    Missing,
    /// It is the same.
    Current {
        /// Its version.
        version: i64,
    },
    /// It is older; the next start brings it up to date.
    Behind {
        /// What is there.
        found: i64,
        /// What this program works with.
        needed: i64,
    },
    /// It is of the version after this program's, which works with it: an upgrade is under way.
    Next {
        /// What is there.
        found: i64,
    },
    /// It belongs to a program that is newer by more; this one will not start on it.
    Ahead {
        /// What is there.
        found: i64,
        /// What this program works with.
        needed: i64,
    },
    /// A migration was made that is not the one this program has.
    Altered {
        /// Which one.
        version: i64,
    },
}

/// The migrations of the Postgres back end.
pub(super) fn postgres() -> Migrator {
    migrator(&[
        (1, "revisions", include_str!("../../migrations/postgres/0001_revisions.sql")),
        (2, "proxies", include_str!("../../migrations/postgres/0002_proxies.sql")),
        (3, "quarantine", include_str!("../../migrations/postgres/0003_quarantine.sql")),
        (4, "endpoints", include_str!("../../migrations/postgres/0004_endpoints.sql")),
        (5, "rollouts", include_str!("../../migrations/postgres/0005_rollouts.sql")),
        (6, "tokens", include_str!("../../migrations/postgres/0006_tokens.sql")),
        (7, "audit", include_str!("../../migrations/postgres/0007_audit.sql")),
        (8, "idempotency", include_str!("../../migrations/postgres/0008_idempotency.sql")),
        (9, "revision traces", include_str!("../../migrations/postgres/0009_revision_traces.sql")),
        (10, "enrolments", include_str!("../../migrations/postgres/0010_enrolments.sql")),
    ])
}

/// The migrations of the SQLite back end.
pub(super) fn sqlite() -> Migrator {
    migrator(&[
        (1, "revisions", include_str!("../../migrations/sqlite/0001_revisions.sql")),
        (2, "proxies", include_str!("../../migrations/sqlite/0002_proxies.sql")),
        (3, "quarantine", include_str!("../../migrations/sqlite/0003_quarantine.sql")),
        (4, "endpoints", include_str!("../../migrations/sqlite/0004_endpoints.sql")),
        (5, "rollouts", include_str!("../../migrations/sqlite/0005_rollouts.sql")),
        (6, "tokens", include_str!("../../migrations/sqlite/0006_tokens.sql")),
        (7, "audit", include_str!("../../migrations/sqlite/0007_audit.sql")),
        (8, "idempotency", include_str!("../../migrations/sqlite/0008_idempotency.sql")),
        (9, "revision traces", include_str!("../../migrations/sqlite/0009_revision_traces.sql")),
        (10, "enrolments", include_str!("../../migrations/sqlite/0010_enrolments.sql")),
    ])
}

/// How far a database may be ahead of a program, in versions of the schema.
const AHEAD: i64 = 1;

/// `migrator` as a program has it that knows the schema up to version `known`.
pub(super) fn known_up_to(migrator: &Migrator, known: i64) -> Migrator {
    Migrator::with_migrations(migrator.iter().filter(|migration| migration.version <= known).cloned().collect())
}

/// Runs the migrations that are missing.
///
/// On error, `connection` may still hold the migrations' lock: close it.
///
/// # Errors
///
/// [`StoreError::Schema`] if the database is ahead of `migrator` by more than a version; [`StoreError::Failed`] if one
/// of the migrations in it is not the one we have.
pub(super) async fn migrate<C: Migrate>(migrator: &Migrator, connection: &mut C) -> Result<(), StoreError> {
    migrate_to(migrator, connection, None).await
}

/// As [`migrate`], up to version `last` if it is given.
///
/// # Errors
/// The same.
pub(super) async fn migrate_to<C: Migrate>(
    migrator: &Migrator,
    connection: &mut C,
    last: Option<i64>,
) -> Result<(), StoreError> {
    let needed = newest(migrator);
    let result = match migrator.run_direct(last, connection, false).await {
        Err(MigrateError::VersionMissing(unknown)) => {
            let applied = connection.list_applied_migrations(&migrator.table_name).await.unwrap_or_default();
            let found = applied.iter().map(|AppliedMigration { version, .. }| *version).max().unwrap_or(unknown);
            if found > needed + AHEAD {
                return Err(StoreError::Schema { found, needed });
            }
            tracing::warn!(found, known = needed, "the database schema is of the version after this program's");
            // Those we know are still held to what we know of them.
            let mut tolerant = known_up_to(migrator, needed);
            tolerant.set_ignore_missing(true).run_direct(last, connection, false).await
        }
        result => result,
    };
    result.map_err(|error| match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            failure("bringing the schema up to date", error)
        }
        other => StoreError::Failed { context: "checking the schema", source: Box::new(other) },
    })
}

/// How the schema at `connection` stands; `made`: whether it has the table of migrations. Changes nothing.
pub(super) async fn standing<C: Migrate>(
    migrator: &Migrator,
    connection: &mut C,
    made: bool,
) -> Result<SchemaStanding, StoreError> {
    const CONTEXT: &str = "reading which migrations were made";
    if !made {
        return Ok(SchemaStanding::Missing);
    }
    let applied = connection.list_applied_migrations(&migrator.table_name);
    let applied = match tokio::time::timeout(ANSWER_WITHIN, applied).await {
        Ok(applied) => applied.map_err(|error| StoreError::Failed { context: CONTEXT, source: Box::new(error) })?,
        Err(_) => return Err(late(CONTEXT, ANSWER_WITHIN)),
    };
    Ok(compare(migrator, &applied))
}

fn compare(migrator: &Migrator, applied: &[AppliedMigration]) -> SchemaStanding {
    let ours = |version: i64| migrator.iter().find(|migration| migration.version == version);
    let needed = newest(migrator);
    let Some(found) = applied.iter().map(|applied| applied.version).max() else { return SchemaStanding::Missing };
    let altered =
        applied.iter().find(|applied| ours(applied.version).is_some_and(|own| own.checksum != applied.checksum));
    match altered {
        Some(altered) => SchemaStanding::Altered { version: altered.version },
        None if found > needed + AHEAD => SchemaStanding::Ahead { found, needed },
        None if found > needed => SchemaStanding::Next { found },
        None if applied.len() < migrator.iter().count() => SchemaStanding::Behind { found, needed },
        None => SchemaStanding::Current { version: found },
    }
}

/// The version that `migrator` leads to.
pub(super) fn newest(migrator: &Migrator) -> i64 {
    migrator.iter().map(|migration| migration.version).max().unwrap_or(0)
}

fn migrator(migrations: &[(i64, &'static str, &'static str)]) -> Migrator {
    let migration = |&(version, description, sql): &(i64, &'static str, &'static str)| {
        Migration::new(version, Cow::Borrowed(description), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(migrations.iter().map(migration).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_older_newer_other_or_the_same() {
        let migrator = postgres();
        let all: Vec<AppliedMigration> = migrator
            .iter()
            .map(|own| AppliedMigration { version: own.version, checksum: own.checksum.clone() })
            .collect();
        let needed = newest(&migrator);
        assert_eq!(compare(&migrator, &[]), SchemaStanding::Missing);
        assert_eq!(compare(&migrator, &all), SchemaStanding::Current { version: needed });
        let older = &all[..all.len() - 1];
        assert_eq!(compare(&migrator, older), SchemaStanding::Behind { found: needed - 1, needed });
        for (found, standing) in [
            (needed + 1, SchemaStanding::Next { found: needed + 1 }),
            (needed + 2, SchemaStanding::Ahead { found: needed + 2, needed }),
        ] {
            let later = AppliedMigration { version: found, checksum: vec![1].into() };
            let newer: Vec<_> = older.iter().chain(all.last()).map(copy).chain([later]).collect();
            assert_eq!(compare(&migrator, &newer), standing);
        }
        let mut other: Vec<_> = all.iter().map(copy).collect();
        other[2].checksum = vec![0].into();
        assert_eq!(compare(&migrator, &other), SchemaStanding::Altered { version: all[2].version });
    }

    fn copy(of: &AppliedMigration) -> AppliedMigration {
        AppliedMigration { version: of.version, checksum: of.checksum.clone() }
    }
}
