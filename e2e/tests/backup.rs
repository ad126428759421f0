//! `chancery backup`, as `docs/operations/backup.md` has it: the drill, in which everything is lost and comes back, and what must not
//! happen to a backup.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use age::secrecy::ExposeSecret as _;
use anyhow::{Context, Result, ensure};
use chancery_control_plane::{
    model::{Document, Key},
    store::{self, NewChange, NewRevision},
};
use chancery_e2e::{
    api::Api,
    bootstrap::{Protocol, Proxy},
    certificates::Authority,
    client::{fetch, get},
    command::User,
    control_plane::ControlPlane,
    document::{fleet, listener, route_saying, route_to, service},
    envoy::Envoy,
    load::Load,
    port::free_port,
    postgres::{Postgres, Stop},
    process::own_program,
    required,
    scene::Scene,
    upstream::Upstream,
    wait::until,
};
use serde_json::Value;
use time::OffsetDateTime;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// How many resources are there in the drill.
const RESOURCES: usize = 10_000;

/// How long a step of the drill may take. What it does take is printed.
const STEP: Duration = Duration::from_secs(240);

const HOST: &str = "shop-0.example.com";

/// A folder with the keys of a backup in it: `key.txt` and `recipients.txt`, as `age-keygen` makes them.
struct Keys {
    recipient: String,
}

impl Keys {
    fn make(folder: &Path) -> Result<Self> {
        let identity = age::x25519::Identity::generate();
        let recipient = identity.to_public().to_string();
        fs::write(folder.join("key.txt"), format!("# a key\n{}\n", identity.to_string().expose_secret()))?;
        fs::write(folder.join("recipients.txt"), format!("{recipient}\n"))?;
        Ok(Self { recipient })
    }
}

/// Writes that go on, one after the other, until they are to stop.
struct Writer {
    stop: CancellationToken,
    task: AbortOnDropHandle<Result<Vec<(u64, Instant)>>>,
}

impl Writer {
    /// Each write is told of once it is acknowledged: its revision, and when that was.
    fn start(api: Api) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            while !stopped.is_cancelled() {
                let port = u16::try_from(acknowledged.len() % 60_000)? + 1;
                let written = api.put(&service("busy", &[SocketAddr::from(([10, 0, 0, 1], port))])).await?;
                acknowledged.push((written["revision"].as_u64().context("a revision")?, Instant::now()));
            }
            Ok(acknowledged)
        }));
        Self { stop, task }
    }

    async fn stop(self) -> Result<Vec<(u64, Instant)>> {
        self.stop.cancel();
        self.task.await?
    }
}

/// Puts the resources of the drill into a database that has none.
async fn seed(database: &str, web: u16, upstream: SocketAddr) -> Result<()> {
    let store = store::open(database).await?;
    let mut resources = vec![fleet("edge"), listener("web", "edge", web)];
    for number in 0..RESOURCES / 5 {
        let name = format!("shop-{number}");
        resources.push(service(&name, &[upstream]));
        resources.push(route_to(&name, &format!("{name}.example.com"), &name));
    }
    for number in resources.len()..RESOURCES {
        resources.push(service(&format!("other-{number}"), &[upstream]));
    }
    for (number, part) in resources.chunks(1000).enumerate() {
        let change = |resource: &Value| -> Result<NewChange> {
            let document: Arc<Document> = serde_json::from_value(resource.clone())?;
            let key = Key::new(document.kind, document.name.clone());
            Ok(NewChange { key, before: None, after: Some(document) })
        };
        let changes = part.iter().map(change).collect::<Result<_>>()?;
        let (author, message, from) = ("ops".to_owned(), format!("part {number}"), String::new());
        let revision = NewRevision { author, message, at: OffsetDateTime::now_utc(), changes, from };
        store.begin().await?.commit(revision).await?;
    }
    store.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_drill_loses_nothing_that_was_acknowledged() -> Result<()> {
    let (Some(program), Some(mut postgres)) = (required::envoy(), Postgres::start().await?) else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let upstream = Upstream::start("blue").await?;
    let (authority, keys) = (Authority::create(folder.path(), "authority")?, Keys::make(folder.path())?);
    let (database, web) = (postgres.create_database().await?, free_port());
    seed(&database, web, upstream.address).await?;
    let mut before = ControlPlane::start(folder.path(), "before", &database, &authority).await?;
    fs::write(folder.path().join("before/ca.key"), "what a new machine needs")?;
    let admin =
        User::in_folder(folder.path()).of(&format!("http://{}", before.api), chancery_e2e::control_plane::ADMIN_TOKEN);
    let token = admin.asks("token create ci --role viewer -o json").await?;
    let token = token["token"].as_str().context("a token")?.to_owned();

    // While others write.
    let writer = Writer::start(before.caller());
    until("writes are acknowledged", STEP, async || {
        ensure!(
            before.caller().read("/api/v1/revisions?limit=1").await?["items"][0]["number"].as_u64() > Some(20),
            "few"
        );
        Ok(())
    })
    .await?;
    fs::create_dir(folder.path().join("backups"))?;
    let user = User::in_folder(folder.path()).with("CHANCERY_DATABASE", &database).patient(STEP);
    let begun = Instant::now();
    let create =
        format!("backup create --to backups --recipient {} --data-dir before --keep 7 --keep-for 30d", keys.recipient);
    let made = user.asks(&create).await?;
    let acknowledged = writer.stop().await?;
    let revision = made["revision"].as_u64().context("a revision")?;
    let file = made["file"].as_str().context("a file")?;
    ensure!(made["rows"]["resources"].as_u64() >= Some(RESOURCES as u64), "{made}");
    let until_begun = acknowledged.iter().filter(|(_, at)| *at < begun).count();
    ensure!(until_begun > 0, "nothing was acknowledged before");
    let lost = acknowledged.iter().filter(|(number, at)| *number > revision && *at < begun).count();
    ensure!(lost == 0, "{lost} writes that were acknowledged before the backup began are not in it: {made}");
    let verified = user.asks(&format!("backup verify {file} --identity key.txt")).await?;
    ensure!(verified["sha256"] == made["sha256"] && verified["revision"] == made["revision"], "{verified}");
    let at_backup = before.caller().read(&format!("/api/v1/revisions/{revision}")).await?;

    // The disaster: database and data folder are gone.
    before.kill();
    postgres.stop(Stop::Immediate).await?;
    drop(postgres);
    fs::remove_dir_all(folder.path().join("before"))?;

    let recovery = Instant::now();
    let postgres = Postgres::start().await?.context("Postgres was there")?;
    let database = postgres.create_database().await?;
    let user = User::in_folder(folder.path()).with("CHANCERY_DATABASE", &database).patient(STEP);
    let restored = user.asks(&format!("backup restore {file} --identity key.txt --data-dir after")).await?;
    ensure!(restored["rows"] == made["rows"], "{restored}");
    ensure!(fs::read_to_string(folder.path().join("after/ca.key"))? == "what a new machine needs", "another file");
    let after = ControlPlane::start(folder.path(), "after", &database, &authority).await?;
    let ready = recovery.elapsed();
    let proxy = Proxy { fleet: "edge", id: "envoy", protocol: Protocol::Delta, xds: after.xds, authority: &authority };
    let _envoy = Envoy::of(&program, folder.path(), &proxy).await?;
    until("Envoy serves what was restored", STEP, async || {
        let response = fetch(SocketAddr::from(([127, 0, 0, 1], web)), get(HOST, "/")).await?;
        ensure!(response.status == 200, "{}", response.status);
        Ok(())
    })
    .await?;
    let served = recovery.elapsed();

    let after_backup = acknowledged.iter().filter(|(number, _)| *number > revision).count();
    eprintln!(
        "drill: {RESOURCES} resources, {} revisions; backup {} bytes in {} s among {} writes; recovered in {:.1} s (restore {} s, control \
         plane ready after {:.1} s); lost: 0 of {until_begun} writes acknowledged before the backup began, {after_backup} of those after",
        revision,
        made["bytes"],
        made["seconds"],
        acknowledged.len(),
        served.as_secs_f64(),
        restored["seconds"],
        ready.as_secs_f64(),
    );
    let api = after.caller();
    ensure!(api.read(&format!("/api/v1/revisions/{revision}")).await? == at_backup, "another revision {revision}");
    let verdict = api.read("/api/v1/audit/verify").await?;
    ensure!(verdict["whole"] == true, "{verdict}");
    // Tokens are good still, and revisions go on from where the backup is.
    let viewer = Api::new(after.api, &token);
    ensure!(viewer.read("/api/v1/services/busy").await?["kind"] == "Service", "the token reads nothing");
    let next = api.put(&service("busy", &[upstream.address])).await?;
    ensure!(next["revision"] == revision + 1, "{next}");
    Ok(())
}

/// A control plane that never ran on anything but SQLite moves to Postgres with its history.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_moves_from_sqlite_to_postgres() -> Result<()> {
    let Some(postgres) = Postgres::start().await? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let authority = Authority::create(folder.path(), "authority")?;
    Keys::make(folder.path())?;
    let mut old = ControlPlane::start_alone(folder.path(), &authority).await?;
    old.caller().apply(&[fleet("edge"), listener("web", "edge", 1)]).await?;
    let history = old.caller().read("/api/v1/revisions").await?;
    ensure!(old.terminate().await?.success(), "{}", old.log());
    let user = User::in_folder(folder.path());
    user.does("backup create --to move.age --recipients-file recipients.txt --identity key.txt --database sqlite://chancery.db --no-files", "")
        .await?;
    let database = postgres.create_database().await?;
    user.does(&format!("backup restore move.age --identity key.txt --database {database} --no-files"), "").await?;
    let new = ControlPlane::start(folder.path(), "new", &database, &authority).await?;
    ensure!(new.caller().read("/api/v1/revisions").await? == history, "another history");
    // While that works with the database, nobody replaces it.
    let refused = user
        .runs(
            &format!(
                "backup restore move.age --identity key.txt --database {database} --replace-revision 1 --no-files"
            ),
            "",
        )
        .await?;
    ensure!(refused.code == 1 && refused.errors.contains("works with this database; stop it first"), "{refused:?}");
    ensure!(new.caller().read("/api/v1/revisions").await? == history, "another history");
    Ok(())
}

/// A proxy that lives through all of it serves what it has, and then what is in the backup: what came after is taken back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_was_there_all_along_follows_to_the_backup() -> Result<()> {
    let Some(mut scene) = Scene::start(Protocol::Delta).await? else { return Ok(()) };
    Keys::make(scene.folder())?;
    let user = User::in_folder(scene.folder());
    let (kept, news) = ("kept.example.com", "news.example.com");
    let said = async |scene: &Scene, host: &str, body: &str| {
        scene.fetch_until(body, get(host, "/"), |response| response.text() == body).await.map(drop)
    };
    scene.api.put_and_wait(&route_saying("kept", kept, "kept")).await?;
    scene.api.put_and_wait(&route_saying("news", news, "in the backup")).await?;
    user.does(
        "backup create --to a.age --recipients-file recipients.txt --database sqlite://chancery.db --no-files",
        "",
    )
    .await?;
    scene.api.put_and_wait(&route_saying("news", news, "after the backup")).await?;
    said(&scene, news, "after the backup").await?;
    scene.control_plane.kill();
    for file in ["chancery.db", "chancery.db-wal", "chancery.db-shm"] {
        let _ = fs::remove_file(scene.folder().join(file));
    }
    let load = Load::start(scene.web, 2, move || get(kept, "/"));
    load.goes_on_for(50).await?;
    user.does("backup restore a.age --identity key.txt --database sqlite://chancery.db --no-files", "").await?;
    scene.control_plane.start_again().await?;
    said(&scene, news, "in the backup").await?;
    scene.api.put_and_wait(&route_saying("news", news, "after the restore")).await?;
    said(&scene, news, "after the restore").await?;
    let tally = load.stop().await?;
    ensure!(tally.failed() == 0, "{tally}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_leaves_no_half_backup() -> Result<()> {
    let folder = tempfile::tempdir()?;
    Keys::make(folder.path())?;
    let store = store::open(&format!("sqlite://{}", folder.path().join("a.db").display())).await?;
    store.close().await;
    fs::create_dir(folder.path().join("backups"))?;
    // What cannot be compressed: more than the limit below.
    fs::create_dir(folder.path().join("data"))?;
    let noise: Vec<u8> = (0..300_000).map(|_| rand::random()).collect();
    fs::write(folder.path().join("data/noise"), noise)?;
    let create = "backup create --to backups --recipients-file recipients.txt --database sqlite://a.db --data-dir data";
    let program = own_program("chancery")?;
    let limited = |blocks: u32| -> Result<std::process::Output> {
        // A signal would end it; with that ignored, a write fails as on a full disk.
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" {create}");
        Ok(Command::new("sh").args(["-c", &script]).arg(&program).current_dir(folder.path()).output()?)
    };
    let failed = limited(128)?;
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    ensure!(failed.status.code() == Some(2) && said.contains("File too large"), "{}: {said}", failed.status);
    let left: Vec<PathBuf> =
        fs::read_dir(folder.path().join("backups"))?.map(|e| Ok(e?.path())).collect::<Result<_>>()?;
    ensure!(left.is_empty(), "{left:?}");
    ensure!(limited(4096)?.status.success(), "with room it is made");
    Ok(())
}

/// What the timer and cron start is what makes a backup, with the settings that are deployed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scheduled_backup_is_made() -> Result<()> {
    let deployed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd");
    let read = |name: &str| fs::read_to_string(deployed.join(name)).with_context(|| name.to_owned());
    let unit = read("chancery-backup.service")?;
    let starts = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/chancery "));
    let starts = starts.context("it starts no backup")?;
    ensure!(read("chancery-backup.cron")?.contains(starts), "cron starts another: {starts}");

    let folder = tempfile::tempdir()?;
    let [state, backups] = ["state", "backups"].map(|name| folder.path().join(name));
    for made in [&state, &backups] {
        fs::create_dir(made)?;
    }
    Keys::make(folder.path())?;
    store::open(&format!("sqlite://{}", state.join("chancery.db").display())).await?.close().await;
    fs::write(state.join("admin-token"), "chy_token")?;
    let settings = read("control-plane.toml")?.replace("/var/lib/chancery-control-plane", &state.display().to_string());
    fs::write(folder.path().join("control-plane.toml"), settings)?;
    let starts = starts
        .replace("/etc/chancery/control-plane.toml", "control-plane.toml")
        .replace("/etc/chancery/backup-recipients.txt", "recipients.txt")
        .replace("/var/backups/chancery", "backups");
    let made = User::in_folder(folder.path()).asks(&starts).await?;
    ensure!(made["files"] == 1 && made["verified"] == false, "{made}");
    let file = made["file"].as_str().context("a file")?;
    let verified = User::in_folder(folder.path()).asks(&format!("backup verify {file} --identity key.txt")).await?;
    ensure!(verified["revision"] == 0, "{verified}");
    ensure!(folder.path().join(format!("{file}.verified")).is_file(), "that is noted nowhere");
    Ok(())
}

/// What a person who has the wrong file or the wrong key is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_say_what_to_do() -> Result<()> {
    let folder = tempfile::tempdir()?;
    Keys::make(folder.path())?;
    fs::create_dir(folder.path().join("other"))?;
    Keys::make(&folder.path().join("other"))?;
    store::open(&format!("sqlite://{}", folder.path().join("a.db").display())).await?.close().await;
    fs::write(folder.path().join("phrase"), "correct horse battery staple\n")?;
    let user = User::in_folder(folder.path());
    user.does("backup create --to a.age --recipients-file recipients.txt --database sqlite://a.db --no-files", "")
        .await?;
    user.does("backup create --to b.age --passphrase-file phrase --database sqlite://a.db --no-files", "").await?;
    user.does("backup verify b.age --passphrase-file phrase", "").await?;
    let key = fs::read_to_string(folder.path().join("key.txt"))?;
    let secret = key.lines().last().context("a key")?.to_owned();
    for (arguments, code, said) in [
        ("verify a.age --identity other/key.txt", 1, "the key does not open it"),
        ("verify b.age --identity key.txt", 1, "the key does not open it"),
        ("verify a.db --identity key.txt", 1, "it is not a file of age"),
        ("verify none.age --identity key.txt", 2, "none.age"),
        ("verify a.age --identity recipients.txt", 2, "line 1 of recipients.txt is no identity of age"),
        ("verify a.age --identity none.txt", 2, "cannot read none.txt"),
        ("create --to a.age --recipients-file recipients.txt --database sqlite://a.db", 1, "a.age is there already"),
        (
            "create --to c.age --recipients-file key.txt --database sqlite://a.db",
            2,
            "line 2 of key.txt is no recipient",
        ),
        (
            "create --to c.age --recipients-file recipients.txt --database sqlite://none.db",
            1,
            "there is no database file",
        ),
        (
            "create --to c.age --recipients-file recipients.txt --keep 3 --database sqlite://a.db",
            2,
            "c.age is no folder",
        ),
    ] {
        let outcome = user.runs(&format!("backup {arguments}"), "").await?;
        ensure!(outcome.code == code && outcome.errors.contains(said), "{arguments}: {outcome:?}");
        ensure!(!outcome.errors.contains(&secret), "{arguments}: {outcome:?}");
    }
    ensure!(!folder.path().join("c.age").exists(), "a backup was made");
    Ok(())
}
