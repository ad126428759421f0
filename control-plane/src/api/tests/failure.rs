//! What a caller sees when something of ours fails.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use axum::{Router, body::Body, http::Method, routing::get};
use serde_json::json;
use time::OffsetDateTime;
use tokio::sync::watch;

use super::{
    super::router::surround,
    fixture::{Fixture, api},
};
use crate::{
    api::router,
    model::{Key, Name, endpoint::EndpointId},
    store::{
        self, AuditQuery, AuditRecords, Change, EndpointStore, EnrolmentRecord, EnrolmentRecords, EnrolmentUse, Entry,
        FoundProxy, HistoryQuery, IdempotencyKey, IdempotencyRecord, IdempotencyRecords, LeaseWrite, Leased, Loaded,
        NewEntry, ProxyRecord, ProxyRecords, QuarantineKey, QuarantineRecord, QuarantineRecords, Registrations,
        Revision, RevisionSummary, RolloutRecord, RolloutRecords, Rotation, SpanQuery, Store, StoreError, TokenRecord,
        TokenRecords, TokenTable, TraceRecords, Usage, Used, Write, audit::Hash,
    },
};

/// A store that can be away.
struct Fragile {
    store: Arc<dyn Store>,
    away: Arc<AtomicBool>,
}

impl Fragile {
    fn here(&self) -> Result<&dyn Store, StoreError> {
        if self.away.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("password=hunter2 refused".into()));
        }
        Ok(self.store.as_ref())
    }
}

#[async_trait]
impl EndpointStore for Fragile {
    async fn registrations(&self) -> Result<Registrations, StoreError> {
        self.here()?.registrations().await
    }
    async fn registrations_after(&self, after: u64) -> Result<Registrations, StoreError> {
        self.here()?.registrations_after(after).await
    }
    async fn leases(&self, service: &Name) -> Result<Vec<Leased>, StoreError> {
        self.here()?.leases(service).await
    }
    async fn write_leases(&self, writes: &[LeaseWrite]) -> Result<Vec<(Name, EndpointId)>, StoreError> {
        self.here()?.write_leases(writes).await
    }
    async fn expire_leases(&self, most: Duration) -> Result<u64, StoreError> {
        self.here()?.expire_leases(most).await
    }
    fn endpoint_wakeups(&self) -> watch::Receiver<()> {
        self.store.endpoint_wakeups()
    }
}

#[async_trait]
impl Store for Fragile {
    async fn load(&self) -> Result<Loaded, StoreError> {
        self.here()?.load().await
    }
    async fn usage(&self) -> Result<Usage, StoreError> {
        self.here()?.usage().await
    }

    async fn head(&self) -> Result<u64, StoreError> {
        self.here()?.head().await
    }
    async fn revisions_after(&self, after: u64) -> Result<Vec<Revision>, StoreError> {
        self.here()?.revisions_after(after).await
    }
    async fn revision(&self, number: u64) -> Result<Option<Revision>, StoreError> {
        self.here()?.revision(number).await
    }
    async fn history(&self, query: HistoryQuery) -> Result<Vec<RevisionSummary>, StoreError> {
        self.here()?.history(query).await
    }
    async fn changes_of(&self, key: &Key, before: Option<u64>, limit: u32) -> Result<Vec<Revision>, StoreError> {
        self.here()?.changes_of(key, before, limit).await
    }
    async fn changes_between(&self, span: SpanQuery) -> Result<Vec<Change>, StoreError> {
        self.here()?.changes_between(span).await
    }
    async fn begin(&self) -> Result<Box<dyn Write>, StoreError> {
        self.here()?.begin().await
    }
    fn wakeups(&self) -> watch::Receiver<()> {
        self.store.wakeups()
    }
    async fn close(&self) {
        self.store.close().await;
    }
}

#[async_trait]
impl RolloutRecords for Fragile {
    async fn rollouts(&self) -> Result<Vec<RolloutRecord>, StoreError> {
        self.here()?.rollouts().await
    }
    async fn move_rollout(&self, record: RolloutRecord) -> Result<bool, StoreError> {
        self.here()?.move_rollout(record).await
    }
    async fn forget_rollout(&self, fleet: &str) -> Result<(), StoreError> {
        self.here()?.forget_rollout(fleet).await
    }
    fn rollout_wakeups(&self) -> watch::Receiver<()> {
        self.store.rollout_wakeups()
    }
}

#[async_trait]
impl ProxyRecords for Fragile {
    async fn replica_begins(&self, replica: &str) -> Result<(), StoreError> {
        self.here()?.replica_begins(replica).await
    }
    async fn replica_lives(&self, replica: &str) -> Result<(), StoreError> {
        self.here()?.replica_lives(replica).await
    }
    async fn replica_ends(&self, replica: &str) -> Result<(), StoreError> {
        self.here()?.replica_ends(replica).await
    }
    async fn record_proxies(&self, replica: &str, records: Vec<ProxyRecord>) -> Result<(), StoreError> {
        self.here()?.record_proxies(replica, records).await
    }
    async fn proxies(&self, fleet: Option<&str>, id: Option<&str>) -> Result<Vec<FoundProxy>, StoreError> {
        self.here()?.proxies(fleet, id).await
    }
    async fn connected_to(&self, replica: &str) -> Result<Vec<(String, String)>, StoreError> {
        self.here()?.connected_to(replica).await
    }
    async fn forget_proxies(&self) -> Result<(), StoreError> {
        self.here()?.forget_proxies().await
    }
}

#[async_trait]
impl TraceRecords for Fragile {
    async fn traces_after(&self, after: u64) -> Result<BTreeMap<u64, String>, StoreError> {
        self.here()?.traces_after(after).await
    }
}

#[async_trait]
impl QuarantineRecords for Fragile {
    async fn quarantine(&self, records: Vec<QuarantineRecord>) -> Result<(), StoreError> {
        self.here()?.quarantine(records).await
    }
    async fn release(&self, keys: Vec<QuarantineKey>) -> Result<(), StoreError> {
        self.here()?.release(keys).await
    }
    async fn quarantined(&self) -> Result<Vec<QuarantineRecord>, StoreError> {
        self.here()?.quarantined().await
    }
}

#[async_trait]
impl AuditRecords for Fragile {
    async fn append_audit(&self, entries: Vec<NewEntry>) -> Result<(), StoreError> {
        self.here()?.append_audit(entries).await
    }
    async fn audit(&self, query: AuditQuery) -> Result<Vec<Entry>, StoreError> {
        self.here()?.audit(query).await
    }
    async fn audit_after(&self, sequence: u64, limit: u32) -> Result<Vec<Entry>, StoreError> {
        self.here()?.audit_after(sequence, limit).await
    }
    async fn revision_digests(&self, first: u64, last: u64) -> Result<Vec<(u64, Hash)>, StoreError> {
        self.here()?.revision_digests(first, last).await
    }
    async fn trim_audit(&self, before: OffsetDateTime, now: OffsetDateTime) -> Result<u64, StoreError> {
        self.here()?.trim_audit(before, now).await
    }
}

#[async_trait]
impl IdempotencyRecords for Fragile {
    async fn idempotency(
        &self,
        key: &IdempotencyKey,
        since: OffsetDateTime,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        self.here()?.idempotency(key, since).await
    }
}

#[async_trait]
impl TokenRecords for Fragile {
    async fn tokens(&self) -> Result<TokenTable, StoreError> {
        self.here()?.tokens().await
    }
    async fn token_serial(&self) -> Result<u64, StoreError> {
        self.here()?.token_serial().await
    }
    async fn add_token(&self, record: TokenRecord, entry: NewEntry) -> Result<bool, StoreError> {
        self.here()?.add_token(record, entry).await
    }
    async fn rotate_token(&self, id: &str, rotation: Rotation, entry: NewEntry) -> Result<bool, StoreError> {
        self.here()?.rotate_token(id, rotation, entry).await
    }
    async fn revoke_token(&self, id: &str, at: OffsetDateTime, entry: NewEntry) -> Result<bool, StoreError> {
        self.here()?.revoke_token(id, at, entry).await
    }
    async fn tokens_used(&self, used: Vec<(String, OffsetDateTime)>) -> Result<(), StoreError> {
        self.here()?.tokens_used(used).await
    }
    fn token_wakeups(&self) -> watch::Receiver<()> {
        self.store.token_wakeups()
    }
}

#[async_trait]
impl EnrolmentRecords for Fragile {
    async fn enrolments(&self, after: &str, limit: u32) -> Result<Vec<EnrolmentRecord>, StoreError> {
        self.here()?.enrolments(after, limit).await
    }
    async fn enrolment(&self, id: &str) -> Result<Option<EnrolmentRecord>, StoreError> {
        self.here()?.enrolment(id).await
    }
    async fn enrolment_of_token(&self, hash: &[u8]) -> Result<Option<EnrolmentRecord>, StoreError> {
        self.here()?.enrolment_of_token(hash).await
    }
    async fn enrolment_of_proxy(&self, fleet: &str, proxy: &str) -> Result<Option<EnrolmentRecord>, StoreError> {
        self.here()?.enrolment_of_proxy(fleet, proxy).await
    }
    async fn add_enrolment(&self, record: EnrolmentRecord, most: u32, entry: NewEntry) -> Result<bool, StoreError> {
        self.here()?.add_enrolment(record, most, entry).await
    }
    async fn use_enrolment(&self, id: &str, by: EnrolmentUse, entry: NewEntry) -> Result<Used, StoreError> {
        self.here()?.use_enrolment(id, by, entry).await
    }
    async fn renew_enrolment(
        &self,
        id: &str,
        held: &[u8],
        key: &[u8],
        valid_until: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        self.here()?.renew_enrolment(id, held, key, valid_until).await
    }
    async fn revoke_enrolment(&self, id: &str, at: OffsetDateTime, entry: NewEntry) -> Result<bool, StoreError> {
        self.here()?.revoke_enrolment(id, at, entry).await
    }
}

#[tokio::test]
async fn without_the_store_reads_go_on_and_writes_say_when_to_come_again() {
    let away = Arc::new(AtomicBool::new(false));
    let store = store::open("sqlite::memory:").await.unwrap();
    let api = Fixture::of(router(api(Arc::new(Fragile { store, away: away.clone() })).await));
    let body = json!({ "spec": { "endpoints": [] } });
    assert_eq!(api.json(Method::PUT, "/api/v1/services/a", body.clone()).await.status, 201);

    away.store(true, Ordering::Relaxed);
    assert_eq!(api.ask(Method::GET, "/api/v1/services/a", &[]).await.status, 200);
    for answer in [
        api.json(Method::PUT, "/api/v1/services/b", body.clone()).await,
        api.ask(Method::DELETE, "/api/v1/services/a", &[]).await,
        api.ask(Method::GET, "/api/v1/revisions", &[]).await,
        api.ask(Method::POST, "/api/v1/revisions/1/revert", &[]).await,
    ] {
        answer.problem(503, "store-unavailable");
        assert_eq!(answer.header("retry-after"), "2");
        assert!(!answer.text.contains("hunter2"), "{}", answer.text);
    }
    api.json(Method::PUT, "/api/v1/services/b", json!({ "spec": 7 })).await.problem(422, "invalid");

    away.store(false, Ordering::Relaxed);
    assert_eq!(api.json(Method::PUT, "/api/v1/services/b", body).await.status, 201);
}

async fn panics() {
    panic!("password=hunter2");
}

async fn surrounded() -> Fixture {
    let api = api(store::open("sqlite::memory:").await.unwrap()).await;
    let routes = Router::new().route("/panics", get(panics));
    Fixture::of(surround(routes, &api).with_state(api))
}

#[tokio::test]
async fn a_panic_is_told_without_details() {
    let answer = surrounded().await.bare(Method::GET, "/panics", &[], Body::empty()).await;
    answer.problem(500, "internal");
    assert!(!answer.text.contains("hunter2"), "{}", answer.text);
    assert!(!answer.header("x-request-id").is_empty());
}

#[tokio::test]
async fn without_the_store_the_proxies_here_are_listed_and_that_there_may_be_more_is_said() {
    let away = Arc::new(AtomicBool::new(false));
    let store = store::open("sqlite::memory:").await.unwrap();
    let engine = api(Arc::new(Fragile { store: store.clone(), away: away.clone() })).await;
    let status = json!({
        "id": "there", "role": "proxy", "fleet": "edge", "connected": true, "replica": "other",
        "connectedSince": "2026-11-21T03:00:00Z", "protocol": "delta", "settledRevision": 1, "wantedRevision": 1, "types": {},
    });
    let record = ProxyRecord { fleet: "edge".into(), id: "there".into(), connected: true, status: status.to_string() };
    store.record_proxies("other", vec![record]).await.unwrap();
    store.replica_lives("other").await.unwrap();
    let fixture = Fixture::of(router(engine));
    let listed = fixture.ask(Method::GET, "/api/v1/proxies", &[]).await;
    assert_eq!((&listed.body["complete"], &listed.body["items"][0]["id"]), (&json!(true), &json!("there")));
    let read = fixture.ask(Method::GET, "/api/v1/proxies/there", &[]).await;
    assert_eq!((&read.body["connected"], &read.body["replica"]), (&json!(true), &json!("other")));

    away.store(true, Ordering::Relaxed);
    let listed = fixture.ask(Method::GET, "/api/v1/proxies", &[]).await;
    assert_eq!(listed.seen(), (200, &json!({ "items": [], "complete": false })));
    let missing = fixture.ask(Method::GET, "/api/v1/proxies/there", &[]).await;
    assert!(missing.problem(404, "not-found")["detail"].to_string().contains("while the database is away"));
}
