use std::{fs, path::Path};

use chancery_runtime::telemetry;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tempfile::TempDir;
use time::macros::datetime;

use super::*;
use crate::{
    model::{Document, Key as ResourceKey, Kind},
    store::{NewChange, NewRevision, open},
};

const NOW: OffsetDateTime = datetime!(2026-11-28 12:00 UTC);

/// A database with three revisions, a data folder, and a pair of keys.
struct Scene {
    folder: TempDir,
    identity: age::x25519::Identity,
}

impl Scene {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        fs::write(folder.path().join("data/admin-token"), "chy_admin").unwrap();
        let scene = Self { folder, identity: age::x25519::Identity::generate() };
        let store = open(&scene.database("old")).await.unwrap();
        let [first, second] = [1, 2].map(|port| service("shop", port));
        for (message, before, after) in
            [("one", None, Some(&first)), ("two", Some(&first), Some(&second)), ("three", Some(&second), Some(&first))]
        {
            let key = ResourceKey::new(Kind::Service, "shop".parse().unwrap());
            let changes = vec![NewChange { key, before: before.cloned(), after: after.cloned() }];
            let (author, from) = ("ada".to_owned(), String::new());
            let revision = NewRevision { author, message: message.to_owned(), at: NOW, changes, from };
            store.begin().await.unwrap().commit(revision).await.unwrap();
        }
        store.close().await;
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn database(&self, name: &str) -> String {
        format!("sqlite://{}", self.path(&format!("{name}.db")).display())
    }

    fn key(&self) -> Key {
        Key::Identities(vec![self.identity.clone()])
    }

    fn plan(&self, to: Destination) -> Plan {
        Plan {
            database: self.database("old"),
            folder: Some(self.path("data")),
            lock: Lock::Recipients(vec![self.identity.to_public()]),
            key: None,
            to,
        }
    }

    async fn create(&self) -> Created {
        create(self.plan(Destination::File(self.path("backup.age"))), NOW).await.unwrap()
    }

    fn restoration(&self, path: &Path) -> Restoration {
        Restoration {
            path: path.to_owned(),
            key: self.key(),
            database: self.database("new"),
            folder: Some(self.path("restored")),
            expected: Expected::Empty,
            accept_findings: false,
        }
    }

    /// A backup of these lines, sealed as any is.
    fn sealed(&self, lines: &str) -> PathBuf {
        let lock = Lock::Recipients(vec![self.identity.to_public()]);
        let mut sealing = lock.seal(Vec::new()).unwrap();
        sealing.write_all(lines.as_bytes()).unwrap();
        let path = self.path("forged.age");
        fs::write(&path, sealing.finish().unwrap()).unwrap();
        path
    }

    /// The lines of a backup.
    fn lines(&self, path: &Path) -> String {
        let mut text = String::new();
        io::Read::read_to_string(&mut self.key().open(File::open(path).unwrap()).unwrap(), &mut text).unwrap();
        text
    }
}

fn service(name: &str, port: u16) -> std::sync::Arc<Document> {
    let spec = json!({ "endpoints": [{ "address": "10.0.0.1", "port": port }] });
    serde_json::from_value(json!({ "kind": "Service", "name": name, "spec": spec })).unwrap()
}

/// `line` with something else in it, if it is a resource.
fn in_resource(line: &str, from: &str, to: &str) -> String {
    if line.starts_with("[\"resources\"") { line.replace(from, to) } else { line.to_owned() }
}

/// The last line anew, for lines that were changed.
fn ended(lines: &[String], counts: &Value) -> String {
    let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let sha256 = hexadecimal(&Sha256::digest(&body));
    format!("{body}{}\n", json!({ "end": { "rows": counts["rows"], "files": counts["files"], "sha256": sha256 } }))
}

#[tokio::test]
async fn what_is_made_is_whole_private_and_says_what_it_is() {
    let scene = Scene::start().await;
    let made = scene.create().await;
    assert_eq!((made.header.contents.revision, made.counts.files, made.verified), (3, 1, false));
    assert_eq!(made.counts.rows["changes"], 3);
    assert_eq!(made.findings, [""; 0]);
    let about = fs::metadata(&made.path).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&about) & 0o777, 0o600);
    assert_eq!(about.len(), made.bytes);
    let read = verify(made.path.clone(), scene.key()).await.unwrap();
    assert_eq!((&read.header, &read.counts, &read.sha256), (&made.header, &made.counts, &made.sha256));
    assert_eq!(read.findings, [""; 0]);
    let again = create(scene.plan(Destination::File(made.path)), NOW).await;
    assert!(matches!(again, Err(BackupError::Exists(_))), "{again:?}");
}

#[tokio::test]
async fn one_that_is_read_back_is_verified() {
    let scene = Scene::start().await;
    fs::create_dir(scene.path("backups")).unwrap();
    let plan = Plan { key: Some(scene.key()), ..scene.plan(Destination::Folder(scene.path("backups"))) };
    let made = create(plan, NOW).await.unwrap();
    assert_eq!(made.path, scene.path("backups/chancery-20261128T120000Z-r3.age"));
    assert!(made.verified);
    assert!(retention::list(&scene.path("backups")).unwrap()[0].verified);

    let other = Key::Identities(vec![age::x25519::Identity::generate()]);
    let plan = Plan { key: Some(other), ..scene.plan(Destination::File(scene.path("other.age"))) };
    let made = create(plan, NOW).await;
    assert!(matches!(made, Err(BackupError::Seal(SealError::WrongKey))), "{made:?}");
    assert!(!scene.path("other.age").exists());
}

#[tokio::test]
async fn a_passphrase_opens_what_it_sealed() {
    let scene = Scene::start().await;
    fs::write(scene.path("phrase"), "correct horse battery staple\n").unwrap();
    fs::write(scene.path("wrong"), "another\n").unwrap();
    let lock = Lock::passphrase_file(&scene.path("phrase")).unwrap();
    let plan = Plan { lock, ..scene.plan(Destination::File(scene.path("backup.age"))) };
    let path = create(plan, NOW).await.unwrap().path;
    let opened = verify(path.clone(), Key::passphrase_file(&scene.path("phrase")).unwrap()).await.unwrap();
    assert_eq!(opened.header.contents.revision, 3);
    for wrong in [Key::passphrase_file(&scene.path("wrong")).unwrap(), scene.key()] {
        let refused = verify(path.clone(), wrong).await;
        assert!(matches!(refused, Err(BackupError::Seal(SealError::WrongKey))), "{refused:?}");
    }
}

#[tokio::test]
async fn whatever_is_cut_off_or_changed_is_noticed() {
    let scene = Scene::start().await;
    let path = scene.create().await.path;
    let good = fs::read(&path).unwrap();
    let (file, step) = (scene.path("damaged.age"), good.len() / 40);
    for place in (0..good.len()).step_by(step) {
        let mut flipped = good.clone();
        flipped[place] ^= 0x10;
        for damaged in [&good[..place], &flipped] {
            fs::write(&file, damaged).unwrap();
            let read = verify(file.clone(), scene.key()).await;
            assert!(
                matches!(read, Err(BackupError::Seal(_) | BackupError::Format(_))),
                "{place} of {}: {read:?}",
                good.len()
            );
            let restored = restore(scene.restoration(&file), NOW).await;
            assert!(restored.is_err(), "{place}");
        }
    }
    // None of it left anything behind.
    assert!(!scene.path("restored").exists());
    restore(scene.restoration(&path), NOW).await.unwrap();
    assert_eq!(fs::read_to_string(scene.path("restored/admin-token")).unwrap(), "chy_admin");
}

#[tokio::test]
async fn errors_say_what_a_file_is() {
    let scene = Scene::start().await;
    let said = async |path: PathBuf| telemetry::chain(&verify(path, scene.key()).await.unwrap_err());
    fs::write(scene.path("text"), "some text\n").unwrap();
    assert_eq!(
        said(scene.path("text")).await,
        "the backup cannot be opened or sealed: it is not a file of age, or its beginning is damaged"
    );
    assert_eq!(said(scene.sealed("some text\n")).await, "the backup cannot be used: it is no backup of Chancery");
    let lines = scene.lines(&scene.create().await.path);
    let newer = lines.replacen("\"chancery-backup\":1", "\"chancery-backup\":7", 1);
    assert_eq!(
        said(scene.sealed(&newer)).await,
        "the backup cannot be used: it has format 7; this program reads 1 to 1"
    );
    let schema = format!("\"schema\":{}", state::schema_version());
    let newer = lines.replacen(&schema, "\"schema\":99", 1);
    assert!(said(scene.sealed(&newer)).await.starts_with("the backup has schema 99, this program knows"));
    let cut = &lines[..lines.find("{\"end\"").unwrap()];
    assert!(said(scene.sealed(cut)).await.contains("it is cut short after line"));
    let changed = lines.replacen("\"ada\"", "\"eve\"", 1);
    assert!(said(scene.sealed(&changed)).await.contains("it has another hash than it says"));
    let more = lines.clone() + "{}\n";
    assert!(said(scene.sealed(&more)).await.contains("it goes on after its end"));
}

/// Whoever forges hash and counts too does not get past what the rows say of each other.
#[tokio::test]
async fn a_state_that_is_not_whole_is_told_and_not_restored() {
    let scene = Scene::start().await;
    let text = scene.lines(&scene.create().await.path);
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let counts: Value = serde_json::from_str(&lines.pop().unwrap()).unwrap();
    let counts = &counts["end"];
    type Tamper = fn(&str) -> String;
    let tampers: [(&str, Tamper); 5] = [
        ("revision 2 was changed", |line| line.replace("[\"revisions\",2,\"ada\"", "[\"revisions\",2,\"eve\"")),
        ("audit log, entry 1: entry 1 was changed", |line| line.replace("[\"audit\",1,", "[\"audit\",1,1")),
        ("Service/shop is missing, or not as its last change says", |line| in_resource(line, "10.0.0.1", "10.6.6.6")),
        ("a row of resources cannot be understood", |line| in_resource(line, ",3,", ",-3,")),
        ("Service/shop cannot be read", |line| in_resource(line, "\\\"kind\\\"", "\\\"kin\\\"")),
    ];
    for (expected, tamper) in tampers {
        let changed: Vec<String> = lines.iter().map(|line| tamper(line)).collect();
        assert_ne!(changed, lines, "{expected}");
        let path = scene.sealed(&ended(&changed, counts));
        let read = verify(path.clone(), scene.key()).await.unwrap();
        assert!(read.findings.iter().any(|finding| finding.contains(expected)), "{expected}: {:?}", read.findings);
        let restored = restore(scene.restoration(&path), NOW).await;
        assert!(matches!(restored, Err(BackupError::Findings(_))), "{expected}: {restored:?}");
    }
    // Once somebody has looked at it, it can be restored all the same.
    let changed: Vec<String> = lines.iter().map(|line| tampers[0].1(line)).collect();
    let path = scene.sealed(&ended(&changed, counts));
    let accepted = Restoration { accept_findings: true, ..scene.restoration(&path) };
    assert!(!restore(accepted, NOW).await.unwrap().findings.is_empty());
}

/// Whatever somebody puts between header and end: it is refused or told of, and nothing panics.
#[tokio::test]
async fn nonsense_is_survived() {
    let scene = Scene::start().await;
    let text = scene.lines(&scene.create().await.path);
    let mut chance = StdRng::seed_from_u64(1);
    let odd = ["18446744073709551615", "9223372036854775807", "-1", "null", "[]", "\"\"", "1e400", "{", "\u{1f600}"];
    for _ in 0..100 {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let counts: Value = serde_json::from_str(&lines.pop().unwrap()).unwrap();
        for _ in 0..chance.random_range(1..4) {
            let line = chance.random_range(0..lines.len());
            let mut parts: Vec<String> = lines[line].split(',').map(str::to_owned).collect();
            let part = chance.random_range(0..parts.len());
            parts[part] = odd[chance.random_range(0..odd.len())].to_owned();
            lines[line] = parts.join(",");
        }
        let path = scene.sealed(&ended(&lines, &counts["end"]));
        if let Ok(read) = verify(path.clone(), scene.key()).await {
            let restored = restore(scene.restoration(&path), NOW).await;
            assert!(restored.is_err() || read.findings.is_empty(), "{:?}", read.findings);
        }
        for file in ["new.db", "new.db-wal", "new.db-shm"] {
            let _ = fs::remove_file(scene.path(file));
        }
    }
}

#[tokio::test]
async fn only_a_database_that_is_as_expected_is_written_to() {
    let scene = Scene::start().await;
    let path = scene.create().await.path;
    let onto =
        |expected| Restoration { database: scene.database("old"), folder: None, expected, ..scene.restoration(&path) };
    let refused = restore(onto(Expected::Empty), NOW).await.unwrap_err();
    let said = refused.to_string();
    assert!(said.starts_with("the database is not empty: it is at revision 3 and holds"), "{said}");
    let refused = restore(onto(Expected::Revision(2)), NOW).await.unwrap_err();
    assert_eq!(refused.to_string(), "the database is at revision 3, not at 2");

    let store = open(&scene.database("old")).await.unwrap();
    store.replica_begins("left").await.unwrap();
    let refused = restore(onto(Expected::Revision(3)), NOW).await.unwrap_err();
    assert!(refused.to_string().starts_with("the control plane \"left\" works with this database"), "{refused}");
    store.replica_ends("left").await.unwrap();
    store.close().await;
    restore(onto(Expected::Revision(3)), NOW).await.unwrap();
    let store = open(&scene.database("old")).await.unwrap();
    assert_eq!(store.head().await.unwrap(), 3);
    let log = store.audit_after(0, 100).await.unwrap();
    let last = log.last().unwrap();
    assert_eq!((last.sequence, last.action.as_str(), last.detail.as_str()), (4, "restore", "backup.age"));
}

/// A backup of an older schema is brought up to date as its database would have been.
#[tokio::test]
async fn a_backup_of_an_older_schema_is_restored() {
    let scene = Scene::start().await;
    let text = scene.lines(&scene.create().await.path);
    let newest = format!("\"schema\":{}", state::schema_version());
    // As it was before there were tokens, enrolments, an audit log and idempotency keys.
    let gone = ["tokens", "token_serial", "enrolments", "audit", "idempotency"];
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut counts: Value = serde_json::from_str(&lines.pop().unwrap()).unwrap();
    let mut header: Value = serde_json::from_str(&lines[0].replacen(&newest, "\"schema\":5", 1)).unwrap();
    header["contents"]["audit"] = Value::Null;
    let tables = header["contents"]["tables"].as_array_mut().unwrap();
    tables.retain(|table| !gone.contains(&table["name"].as_str().unwrap()));
    lines[0] = header.to_string();
    lines.retain(|line| !gone.iter().any(|table| line.starts_with(&format!("[\"{table}\""))));
    for table in gone {
        counts["end"]["rows"].as_object_mut().unwrap().remove(table);
    }
    let path = scene.sealed(&ended(&lines, &counts["end"]));
    restore(scene.restoration(&path), NOW).await.unwrap();
    let store = open(&scene.database("new")).await.unwrap();
    assert_eq!(store.head().await.unwrap(), 3);
    assert_eq!(store.audit_after(0, 9).await.unwrap().len(), 1);
    assert_eq!(store.token_serial().await.unwrap(), 0);
}
