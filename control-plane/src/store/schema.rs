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

use super::{StoreError, failure::failure};

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
    let needed = newest(migrator);
    let result = match migrator.run_direct(None, connection, false).await {
        Err(MigrateError::VersionMissing(unknown)) => {
            let applied = connection.list_applied_migrations(&migrator.table_name).await.unwrap_or_default();
            let found = applied.iter().map(|AppliedMigration { version, .. }| *version).max().unwrap_or(unknown);
            if found > needed + AHEAD {
                return Err(StoreError::Schema { found, needed });
            }
            tracing::warn!(found, known = needed, "the database schema is of the version after this program's");
            // Those we know are still held to what we know of them.
            let mut tolerant = known_up_to(migrator, needed);
            tolerant.set_ignore_missing(true).run_direct(None, connection, false).await
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
