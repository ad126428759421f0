//! How a Postgres database stands.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use time::OffsetDateTime;

use super::{CONNECT_WITHIN, MAX_CONNECTIONS, hosts::Hosts};
use crate::store::{
    Share, StoreError,
    failure::{ANSWER_WITHIN, bounded},
    schema,
    survey::{Survey, ahead},
};

/// Beside its pool a control plane has one connection to listen on, and one while it brings the schema up to date.
const POOL: u32 = MAX_CONNECTIONS + 2;

/// A copy that has replayed all that it was sent is not behind, however long ago that was.
const FACTS: &str = "
    SELECT current_setting('server_version'), clock.at,
        (SELECT coalesce(sum(numbackends), 0)::bigint FROM pg_stat_database),
        current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint,
        CASE WHEN NOT pg_is_in_recovery() THEN NULL
            WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
            ELSE extract(epoch FROM now() - pg_last_xact_replay_timestamp())::float8 END,
        to_regclass('_sqlx_migrations') IS NOT NULL
    FROM (SELECT extract(epoch FROM clock_timestamp())::float8 AS at) AS clock";

type Facts = (String, f64, i64, i64, Option<f64>, bool);

/// As [`survey()`](crate::store::survey()).
pub(in crate::store) async fn survey(url: &str) -> Result<Survey, StoreError> {
    let mut connection = Hosts::parse(url, "chancery doctor")?.connect().await?;
    let asked = OffsetDateTime::now_utc();
    let facts = sqlx::query_as::<_, Facts>(FACTS).fetch_one(&mut connection);
    let (version, at, used, most, behind, made) = bounded("asking how it stands", ANSWER_WITHIN, facts).await?;
    let answered = OffsetDateTime::now_utc();
    let schema = schema::standing(&schema::postgres(), &mut connection, made).await?;
    let writable = write(&mut connection).await;
    // Best effort: dropping the connection closes it as well.
    let _ = tokio::time::timeout(CONNECT_WITHIN, connection.close()).await;
    let count = |count: i64| u32::try_from(count).unwrap_or(u32::MAX);
    Ok(Survey {
        engine: format!("PostgreSQL {version}"),
        exists: true,
        schema,
        writable,
        connections: Some(Share { used: count(used), most: count(most) }),
        pool: POOL,
        behind: behind.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok()),
        clock_ahead: Some(ahead(at, asked, answered)),
    })
}

/// What bringing the schema up to date needs, taken back at once. The name is nobody else's.
async fn write(connection: &mut PgConnection) -> Result<(), StoreError> {
    let sql = format!("BEGIN; CREATE TABLE chancery_doctor_{:016x} (); ROLLBACK", rand::random::<u64>());
    let writing = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(connection);
    bounded("making a table", ANSWER_WITHIN, writing).await.map(drop)
}
