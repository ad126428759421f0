//! What a backup is worth, whatever it was made of and whatever it is restored to: SQLite and Postgres, in all four pairs.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic here is the report of a failed test")]

#[allow(dead_code, unused_macros, reason = "only its tools are used here")]
#[path = "../../control-plane/src/store/conformance/mod.rs"]
mod conformance;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use chancery_control_plane::{
    backup::{
        self, Destination, Plan, Restoration,
        seal::{Key, Lock},
    },
    model::{Catalog, Document, Entry, Problems, endpoint::RegisteredEndpoint, parse},
    store::{
        Action, IdempotencyKey, IdempotencyRecord, LeaseAction, LeaseWrite, Loaded, NewChange, NewEntry, NewRevision,
        QuarantineKey, QuarantineRecord, RolloutRecord, Rotation, Store, Stored, TokenRecord,
        audit::chain::Chain,
        state::{self, Expected, Piece, Row},
    },
    translate,
};
use chancery_e2e::{postgres::Postgres, wait::PATIENCE};
use conformance::{change, commit, open};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::mpsc;

const NOW: OffsetDateTime = time::macros::datetime!(2026-11-28 12:00 UTC);

/// One database of each kind, where both are there, and a pair of keys.
struct Scene {
    folder: tempfile::TempDir,
    postgres: Option<Arc<Postgres>>,
    identity: age::x25519::Identity,
}

impl Scene {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder, postgres: Postgres::shared().await.unwrap(), identity: age::x25519::Identity::generate() }
    }

    fn kinds(&self) -> &'static [&'static str] {
        if self.postgres.is_some() { &["sqlite", "postgres"] } else { &["sqlite"] }
    }

    async fn database(&self, kind: &str) -> String {
        match &self.postgres {
            Some(postgres) if kind == "postgres" => postgres.create_database().await.unwrap(),
            _ => format!("sqlite://{}", self.folder.path().join(format!("{:x}.db", rand::random::<u64>())).display()),
        }
    }

    async fn back_up(&self, database: &str) -> backup::Created {
        let path = self.folder.path().join(format!("{:x}.age", rand::random::<u64>()));
        let lock = Lock::Recipients(vec![self.identity.to_public()]);
        let plan = Plan { database: database.to_owned(), folder: None, lock, key: None, to: Destination::File(path) };
        backup::create(plan, NOW).await.unwrap()
    }

    fn key(&self) -> Key {
        Key::Identities(vec![self.identity.clone()])
    }

    async fn restore(&self, path: &Path, database: &str, expected: Expected) -> Result<(), backup::BackupError> {
        let restoration = Restoration {
            path: path.to_owned(),
            key: self.key(),
            database: database.to_owned(),
            folder: None,
            expected,
            accept_findings: false,
        };
        backup::restore(restoration, NOW).await.map(drop)
    }
}

/// Every row of the database, by table.
async fn rows(database: &str) -> BTreeMap<String, Vec<Row>> {
    let (to, mut from) = mpsc::channel(8);
    let collected = async {
        let Some(Piece::Begin(contents)) = from.recv().await else { panic!("no beginning") };
        let mut rows: BTreeMap<String, Vec<Row>> = BTreeMap::new();
        loop {
            match from.recv().await.expect("an end") {
                Piece::Row(table, row) => rows.entry(contents.tables[table].name.clone()).or_default().push(row),
                Piece::End => return rows,
                Piece::Begin(_) => panic!("it begins again"),
            }
        }
    };
    let (read, rows) = tokio::join!(state::read(database, to), collected);
    read.unwrap();
    rows
}

/// Commits changes that somebody could have made, and whatever else a control plane writes down.
async fn live(store: &Arc<dyn Store>, chance: &mut StdRng) {
    let mut now: BTreeMap<String, Arc<Document>> = BTreeMap::new();
    let document = |kind: &str, name: &str, spec: Value| -> Arc<Document> {
        serde_json::from_value(json!({ "kind": kind, "name": name, "spec": spec })).unwrap()
    };
    let fleet = document("Fleet", "edge", json!({}));
    let listener =
        document("Listener", "web", json!({ "fleet": "edge", "address": "127.0.0.1", "port": 80, "protocol": "http" }));
    let [fleet, listener] = [fleet, listener].map(|after| {
        let key = chancery_control_plane::model::Key::new(after.kind, after.name.clone());
        NewChange { key, before: None, after: Some(after) }
    });
    let (author, message, from) = ("ops".to_owned(), "it's \"all\"\n\t\\ 😀 \u{2028}".to_owned(), "::1".to_owned());
    let first = NewRevision { author, message, at: NOW, changes: vec![fleet, listener], from };
    store.begin().await.unwrap().commit(first).await.unwrap();
    for round in 0..40 {
        let mut changes = Vec::new();
        for number in 0..chance.random_range(1..4) {
            let name = format!("s{}", (chance.random_range(0..4) * 4) + number);
            let before = now.get(&name).cloned();
            let after = (before.is_none() || chance.random_bool(0.7)).then(|| {
                let endpoint =
                    json!({ "address": format!("10.0.0.{}", chance.random_range(1..250)), "port": round + 1 });
                let mut document = (*document("Service", &name, json!({ "endpoints": [endpoint] }))).clone();
                document.labels = [("note".to_owned(), "é".repeat(chance.random_range(1..9)))].into();
                Arc::new(document)
            });
            changes.push(change(&name, before.as_ref(), after.as_ref()));
            match after {
                Some(after) => now.insert(name, after),
                None => now.remove(&name),
            };
        }
        commit(store, &"x".repeat(round + 1), changes).await;
    }
    let done = |action| NewEntry::done(action, "admin", "10.0.0.1", NOW);
    for id in ["a", "b", "c"] {
        let record = TokenRecord {
            id: id.to_owned(),
            name: format!("token-{id}"),
            grants: r#"{"role":"owner","teams":["it's"]}"#.to_owned(),
            hash: (0..32).map(|_| chance.random()).collect(),
            previous: None,
            created_by: "admin".to_owned(),
            created_at: NOW,
            ttl: time::Duration::days(30),
            expires_at: NOW + time::Duration::days(30),
            last_used_at: None,
            revoked_at: None,
        };
        assert!(store.add_token(record, done(Action::CreateToken)).await.unwrap());
    }
    let rotation = Rotation { hash: vec![], expires_at: NOW + time::Duration::days(9), previous_until: NOW };
    assert!(store.rotate_token("b", rotation, done(Action::RotateToken)).await.unwrap());
    assert!(store.revoke_token("c", NOW, done(Action::RevokeToken)).await.unwrap());
    let key = |name: &str| QuarantineKey {
        fleet: "edge".to_owned(),
        form: "whole".to_owned(),
        type_url: "type".to_owned(),
        name: name.to_owned(),
        version: "1".to_owned(),
    };
    let good = [None, Some(vec![]), Some(vec![0, 255, 39, 92])];
    let rejected = good.into_iter().enumerate().map(|(index, good)| {
        let cause = r#"{"says":"\u0000 no"}"#.to_owned();
        QuarantineRecord { key: key(&index.to_string()), good, cause }
    });
    store.quarantine(rejected.collect()).await.unwrap();
    for step in 1..3 {
        let record = RolloutRecord { fleet: "edge".to_owned(), step, state: format!("{{\"step\":{step}}}") };
        assert!(store.move_rollout(record).await.unwrap());
    }
    let mut write = store.begin().await.unwrap();
    for name in ["late", "early"] {
        let key = IdempotencyKey { owner: "ci".to_owned(), key: name.to_owned(), fingerprint: vec![7, 0, 255] };
        write.keep(IdempotencyRecord { key, outcome: "{}".to_owned(), at: NOW }, 100).await.unwrap();
    }
    write.end().await.unwrap();
    let endpoint = json!({ "address": "10.0.0.9", "port": 80, "weight": 1, "health": "healthy" });
    let endpoint: RegisteredEndpoint = serde_json::from_value(endpoint).unwrap();
    let register = |id: &str| LeaseWrite {
        service: "s0".parse().unwrap(),
        id: id.parse().unwrap(),
        action: LeaseAction::Register { endpoint: endpoint.clone(), ttl: Duration::from_secs(60) },
    };
    store.write_leases(&[register("one"), register("two")]).await.unwrap();
    let gone = LeaseWrite { action: LeaseAction::Remove, ..register("two") };
    store.write_leases(&[gone]).await.unwrap();
}

/// What each fleet's proxies are sent.
fn sent(loaded: Loaded) -> String {
    let mut problems = Problems::default();
    let entry = |Stored { document, revision, updated_at, updated_by }: Stored| {
        let resource = parse(&document, &mut problems)?;
        Some(Entry { document, resource, revision, updated_at, updated_by })
    };
    let entries: Vec<Entry> = loaded.resources.into_iter().filter_map(entry).collect();
    format!("{:?}", translate::snapshot::full(&Catalog::load(entries).unwrap()))
}

async fn assert_audited(store: &Arc<dyn Store>) {
    let mut chain = Chain::default();
    let head = store.head().await.unwrap();
    let digests: BTreeMap<_, _> = store.revision_digests(1, head).await.unwrap().into_iter().collect();
    for entry in store.audit_after(0, 10_000).await.unwrap() {
        chain.entry(&entry);
        chain.revision(&entry, entry.revision.and_then(|revision| digests.get(&revision)));
    }
    assert_eq!(chain.end(Some(head)).findings, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_restored_is_what_was_there() {
    let scene = Scene::start().await;
    for (seed, from) in (0..).zip(scene.kinds()) {
        let old_url = scene.database(from).await;
        let old = open(&old_url).await;
        live(&old, &mut StdRng::seed_from_u64(seed)).await;
        let made = scene.back_up(&old_url).await;
        assert_eq!(made.findings, [""; 0]);
        let was = rows(&old_url).await;
        for to in scene.kinds() {
            let new_url = scene.database(to).await;
            scene.restore(&made.path, &new_url, Expected::Empty).await.unwrap();
            let mut is = rows(&new_url).await;
            // The restoration has its entry; leases begin anew.
            let entry = is.get_mut("audit").unwrap().pop().unwrap();
            assert_eq!(entry[4], "restore");
            let mut was = was.clone();
            for table in [&mut is, &mut was] {
                for endpoint in table.get_mut("endpoints").unwrap() {
                    endpoint[4] = Value::Null;
                }
            }
            assert_eq!(is, was, "{from} to {to}");

            let new = open(&new_url).await;
            let [old_state, new_state] = [old.load().await.unwrap(), new.load().await.unwrap()];
            assert_eq!((new_state.revision, &new_state.resources), (old_state.revision, &old_state.resources));
            assert_eq!(sent(new_state), sent(old_state), "{from} to {to}");
            assert_eq!(new.revisions_after(0).await.unwrap(), old.revisions_after(0).await.unwrap());
            assert_eq!(new.tokens().await.unwrap(), old.tokens().await.unwrap());
            let service = "s0".parse().unwrap();
            let lease = new.leases(&service).await.unwrap();
            assert!(lease.len() == 1 && lease[0].remaining > Duration::from_secs(30), "{lease:?}");
            assert_audited(&new).await;
            // It goes on from there: revision, log, keys, leases.
            let next = commit(&new, "next", vec![change("next", None, Some(&conformance::service("next", json!({}))))]);
            assert_eq!(next.await.summary.number, made.header.contents.revision + 1);
            assert!(
                !new.add_token(
                    new.tokens().await.unwrap().records[0].clone(),
                    NewEntry::done(Action::CreateToken, "", "", NOW)
                )
                .await
                .unwrap()
            );
            assert_audited(&new).await;
            new.close().await;
        }
        old.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_mixed_and_only_what_was_named_is_replaced() {
    let scene = Scene::start().await;
    for kind in scene.kinds() {
        let url = scene.database(kind).await;
        let store = open(&url).await;
        live(&store, &mut StdRng::seed_from_u64(7)).await;
        let made = scene.back_up(&url).await;
        conformance::create(&store, "later").await;
        store.replica_begins("left").await.unwrap();
        let refused = async |expected| scene.restore(&made.path, &url, expected).await.unwrap_err().to_string();
        let said = refused(Expected::Revision(42)).await;
        assert!(said.contains("\"left\" works with this database"), "{said}");
        store.replica_ends("left").await.unwrap();
        let said = refused(Expected::Empty).await;
        assert!(said.starts_with("the database is not empty: it is at revision 42 and holds"), "{said}");
        assert_eq!(refused(Expected::Revision(41)).await, "the database is at revision 42, not at 41");
        assert_eq!(store.head().await.unwrap(), 42, "refused, and as it was");
        store.close().await;

        scene.restore(&made.path, &url, Expected::Revision(42)).await.unwrap();
        let store = open(&url).await;
        assert_eq!(store.head().await.unwrap(), 41);
        assert_audited(&store).await;
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_among_writers_is_of_one_revision_and_has_what_was_acknowledged() {
    let scene = Scene::start().await;
    for kind in scene.kinds() {
        let url = scene.database(kind).await;
        let store = open(&url).await;
        let (acknowledged, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let (store, acknowledged, stop) = (store.clone(), acknowledged.clone(), stop.clone());
                tokio::spawn(async move {
                    let mut before = None;
                    for number in 1_u64.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let name = format!("writer-{writer}");
                        let spec = json!({ "endpoints": [{ "address": "10.0.0.1", "port": number % 60_000 + 1 }] });
                        let after = conformance::service(&name, spec);
                        let made = commit(&store, "again", vec![change(&name, before.as_ref(), Some(&after))]).await;
                        acknowledged.fetch_max(made.summary.number, Ordering::SeqCst);
                        before = Some(after);
                    }
                })
            })
            .collect();
        let mut revisions = Vec::new();
        for _ in 0..5 {
            let enough = async {
                let begun = acknowledged.load(Ordering::SeqCst);
                while acknowledged.load(Ordering::SeqCst) < begun + 20 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::time::timeout(PATIENCE, enough).await.expect("writers go on");
            let before = acknowledged.load(Ordering::SeqCst);
            let made = scene.back_up(&url).await;
            assert!(made.header.contents.revision >= before, "{kind}: {before} was acknowledged: {:?}", made.header);
            assert_eq!(made.findings, [""; 0], "{kind}");
            revisions.push(made);
        }
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.await.unwrap();
        }
        // The last of them, restored, is what there was at its revision.
        let last = revisions.pop().unwrap();
        let new_url = scene.database(kind).await;
        scene.restore(&last.path, &new_url, Expected::Empty).await.unwrap();
        let new = open(&new_url).await;
        let mut history = store.revisions_after(0).await.unwrap();
        history.truncate(last.header.contents.revision as usize);
        assert_eq!(new.revisions_after(0).await.unwrap(), history, "{kind}");
        new.close().await;
        store.close().await;
    }
}
