//! Programs of two versions on one database, as while replicas are upgraded one after the other, and on the way back.
//!
//! The program of the version before is this one without its last migration.

use std::{collections::BTreeMap, sync::Arc, time::Duration as StdDuration};

use chancery_control_plane::{
    model::endpoint::{Health, RegisteredEndpoint},
    store::{
        Action, AuditQuery, EnrolmentRecord, FoundProxy, IdempotencyKey, IdempotencyRecord, LeaseAction, LeaseWrite,
        NewEntry, ProxyRecord, QuarantineKey, QuarantineRecord, RolloutRecord, Store, StoreError, TokenRecord,
        open_knowing, schema_version,
    },
};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};
use time::{Duration, OffsetDateTime};

use super::{change, create, new_revision, open, service};

/// From which version on there are idempotency keys.
const IDEMPOTENCY: i64 = 8;

/// From which version on it is kept in which trace a revision was made.
const TRACES: i64 = 9;

/// From which version on there are enrolments.
const ENROLMENTS: i64 = 10;

/// The table of what was migrated.
const MIGRATIONS: &str = "_sqlx_migrations";

fn now() -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + Duration::days(20_000)
}

/// Uses everything that the schema of version `known` has a table for.
async fn fill(store: &Arc<dyn Store>, known: i64) {
    let text = str::to_owned;
    create(store, "before").await;
    store.replica_begins("old").await.unwrap();
    let proxy = ProxyRecord { fleet: text("edge"), id: text("a"), connected: true, status: text("{}") };
    store.record_proxies("old", vec![proxy]).await.unwrap();
    let [fleet, form, type_url, name, version] = ["edge", "byHost", "type/A", "a", "1"].map(text);
    let key = QuarantineKey { fleet, form, type_url, name, version };
    store.quarantine(vec![QuarantineRecord { key, good: Some(vec![0, 255]), cause: text("{}") }]).await.unwrap();
    let endpoint = RegisteredEndpoint {
        address: [10, 0, 0, 1].into(),
        port: 80,
        priority: 0,
        weight: 1,
        labels: BTreeMap::new(),
        zone: None,
        health: Health::Healthy,
    };
    let action = LeaseAction::Register { endpoint, ttl: StdDuration::from_secs(600) };
    let lease = LeaseWrite { service: "before".parse().unwrap(), id: "one".parse().unwrap(), action };
    store.write_leases(&[lease]).await.unwrap();
    let rollout = RolloutRecord { fleet: text("edge"), step: 1, state: text("{}") };
    assert!(store.move_rollout(rollout).await.unwrap());
    let token = TokenRecord {
        id: text("id"),
        name: text("ci"),
        grants: text("{}"),
        hash: vec![0, 255],
        previous: None,
        created_by: text("admin"),
        created_at: now(),
        ttl: Duration::days(1),
        expires_at: now() + Duration::days(1),
        last_used_at: None,
        revoked_at: None,
    };
    let entry = NewEntry::done(Action::CreateToken, "admin", "10.0.0.1", now());
    assert!(store.add_token(token, entry).await.unwrap());
    if known >= IDEMPOTENCY {
        let mut write = store.begin().await.unwrap();
        let key = IdempotencyKey { owner: text("ci"), key: text("a"), fingerprint: vec![7] };
        write.keep(IdempotencyRecord { key, outcome: text("{}"), at: now() }, 10).await.unwrap();
        write.end().await.unwrap();
    }
    if known >= TRACES {
        let mut write = store.begin().await.unwrap();
        write.traced("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").await.unwrap();
        let document = service("traced", json!({}));
        write.commit(new_revision("traced", vec![change("traced", None, Some(&document))])).await.unwrap();
    }
    if known >= ENROLMENTS {
        let enrolment = EnrolmentRecord {
            id: text("id"),
            fleet: text("edge"),
            proxy: None,
            hash: vec![0, 255],
            life: Duration::days(1),
            created_by: text("admin"),
            created_at: now(),
            expires_at: now() + Duration::days(1),
            used: None,
            revoked_at: None,
        };
        let entry = NewEntry::done(Action::CreateEnrolment, "admin", "10.0.0.1", now());
        assert!(store.add_enrolment(enrolment, 10, entry).await.unwrap());
    }
}

/// All that a store says of what [`fill`] has put there.
async fn said(store: &Arc<dyn Store>) -> String {
    let loaded = store.load().await.unwrap();
    let leases: Vec<_> = store.leases(&"before".parse().unwrap()).await.unwrap();
    let leases: Vec<_> = leases.into_iter().map(|one| (one.id, one.endpoint, one.ttl)).collect();
    let proxies = store.proxies(None, None).await.unwrap();
    let proxies: Vec<_> = proxies.into_iter().map(|FoundProxy { record, replica, .. }| (record, replica)).collect();
    let parts = (
        (loaded.revision, loaded.resources, store.revisions_after(0).await.unwrap()),
        (proxies, leases, store.quarantined().await.unwrap(), store.rollouts().await.unwrap()),
        (store.tokens().await.unwrap(), store.audit(AuditQuery { limit: 100, ..AuditQuery::default() }).await.unwrap()),
    );
    format!("{parts:#?}")
}

/// How many rows each table has.
async fn rows(url: &str) -> BTreeMap<String, i64> {
    const SQLITE: &str = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'";
    const POSTGRES: &str = "SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema()";
    macro_rules! count {
        ($connection:ty, $tables:expr) => {{
            let mut connection = <$connection>::connect(url).await.unwrap();
            let tables: Vec<String> = sqlx::query_scalar($tables).fetch_all(&mut connection).await.unwrap();
            let mut rows = BTreeMap::new();
            for table in tables {
                let count = AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
                let count = sqlx::query_scalar::<_, i64>(count).fetch_one(&mut connection).await.unwrap();
                rows.insert(table, count);
            }
            rows
        }};
    }
    if url.starts_with("sqlite") { count!(SqliteConnection, SQLITE) } else { count!(PgConnection, POSTGRES) }
}

pub async fn the_program_of_the_version_before_goes_on_and_starts_again(url: &str) {
    let version = schema_version();
    let previous = open_knowing(url, version - 1).await.unwrap();
    fill(&previous, version - 1).await;
    let head = previous.head().await.unwrap();
    let (before, rows_before) = (said(&previous).await, rows(url).await);

    // The upgrade begins: the new program brings the schema up to date, and the old one goes on.
    let new = open(url).await;
    assert_eq!(said(&new).await, before);
    let rows_after = rows(url).await;
    let unlike: Vec<_> = rows_before.iter().filter(|(name, rows)| rows_after.get(*name) != Some(*rows)).collect();
    assert_eq!(unlike, [(&MIGRATIONS.to_owned(), &(version - 1))], "one more migration, and nothing lost");
    assert_eq!(said(&previous).await, before);
    create(&previous, "by-the-old").await;
    create(&new, "by-the-new").await;
    assert_eq!(said(&previous).await, said(&new).await);

    // And is taken back: the old program starts on what the new one has left.
    new.close().await;
    previous.close().await;
    let back = open_knowing(url, version - 1).await.unwrap();
    assert_eq!(create(&back, "gone-back").await.summary.number, head + 3);
    back.close().await;
    assert_eq!(rows(url).await[MIGRATIONS], version, "nothing is undone");

    let again = open(url).await;
    assert_eq!(create(&again, "again").await.summary.number, head + 4);
}

pub async fn the_program_of_two_versions_before_is_refused(url: &str) {
    let version = schema_version();
    open(url).await.close().await;
    for known in [version - 2, 1] {
        let refused = open_knowing(url, known).await.err().unwrap();
        assert!(
            matches!(refused, StoreError::Schema { found, needed } if (found, needed) == (version, known)),
            "{refused:?}"
        );
        let told = format!("is at version {version}; this program is made for {known} and works with one version more");
        assert!(refused.to_string().contains(&told), "{refused}");
    }
    // It has left nothing behind that is in the way of others.
    create(&open(url).await, "after").await;
}

pub async fn replicas_of_two_versions_start_at_the_same_instant(url: &str) {
    let version = schema_version();
    let starting: Vec<_> = (0..6)
        .map(|number| {
            let url = url.to_owned();
            tokio::spawn(async move { open_knowing(&url, version - number % 2).await })
        })
        .collect();
    for (number, store) in starting.into_iter().enumerate() {
        let store = store.await.unwrap().unwrap();
        assert_eq!(create(&store, &format!("s{number}")).await.summary.number, number as u64 + 1);
    }
}

/// What is tried here is tried of the whole schema: whoever adds a table adds to [`fill`].
pub async fn no_table_is_left_out(url: &str) {
    let store = open(url).await;
    fill(&store, schema_version()).await;
    let empty: Vec<_> = rows(url).await.into_iter().filter(|(_, rows)| *rows == 0).collect();
    assert_eq!(empty, [], "tables without a row");
}
