//! The schema: its migrations, and the check that a database has exactly the one we work with.
//!
//! Migrations are listed by hand rather than found by `sqlx::migrate!`: that macro would be the only
//! reason to compile sqlx's procedural macros, which bring both drivers a second time.
//!
//! A database that is behind is brought up to date at start. One that is ahead belongs to a newer
//! program, whose rows we may not understand, so it stops the start.

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
    ])
}

/// Runs the migrations that are missing.
///
/// On error, `connection` may still hold the migrations' lock: close it.
///
/// # Errors
///
/// [`StoreError::Schema`] if the database is ahead of `migrator`; [`StoreError::Failed`] if one of
/// the migrations in it is not the one we have.
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
    let error = match migrator.run_direct(last, connection, false).await {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    match error {
        MigrateError::VersionMissing(unknown) => {
            let applied = connection.list_applied_migrations(&migrator.table_name).await.unwrap_or_default();
            let found = applied.iter().map(|AppliedMigration { version, .. }| *version).max().unwrap_or(unknown);
            Err(StoreError::Schema { found, needed: newest(migrator) })
        }
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            Err(failure("bringing the schema up to date", error))
        }
        other => Err(StoreError::Failed { context: "checking the schema", source: Box::new(other) }),
    }
}

/// The version of the last of them.
pub(super) fn newest(migrator: &Migrator) -> i64 {
    migrator.iter().map(|migration| migration.version).max().unwrap_or(0)
}

fn migrator(migrations: &[(i64, &'static str, &'static str)]) -> Migrator {
    let migration = |&(version, description, sql): &(i64, &'static str, &'static str)| {
        Migration::new(version, Cow::Borrowed(description), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(migrations.iter().map(migration).collect())
}
