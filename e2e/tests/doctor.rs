//! `chancery doctor` and `chancery bundle` with real programs: all is well, then one thing is broken at a time and that is what is found,
//! with its next step, and nothing else; and no secret that was planted is anywhere in a bundle.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    certificates::{Authority, Identity},
    command::User,
    control_plane::{ADMIN_TOKEN, ControlPlane},
    dev::{Dev, free_offset},
    document::{resource, route_to, service_with},
    limiter::Limiter,
    port::free_port,
    postgres::{Postgres, Stop},
    redis::Redis,
    required,
    wait::until,
};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

/// Time for a finding that comes once a proxy has been silent for twenty seconds.
const LATE: Duration = Duration::from_secs(60);

/// What is planted, and must not be found.
const DATABASE_PASSWORD: &str = "planted-database-passphrase";
const REDIS_PASSWORD: &str = "planted-redis-passphrase";
const HEADER: &str = "planted-value-of-a-header";
const JWT: &str = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJwbGFudGVkIn0.c2lnbmF0dXJlLXBsYW50ZWQ";

/// A control plane on Postgres and a limiter on Redis, with the settings files that say the same.
struct Site {
    control_plane: ControlPlane,
    limiter: Limiter,
    postgres: Postgres,
    redis: Redis,
    authority: Authority,
    database: String,
    user: User,
    folder: tempfile::TempDir,
}

impl Site {
    async fn start() -> Result<Option<Self>> {
        let Some(postgres) = Postgres::start().await? else { return Ok(None) };
        let folder = tempfile::tempdir()?;
        let Some(redis) = Redis::start(folder.path()).await? else { return Ok(None) };
        ask_for_password(&redis)?;
        // Postgres trusts whoever comes from this machine, with any password.
        let database =
            postgres.create_database().await?.replace("postgres@", &format!("postgres:{DATABASE_PASSWORD}@"));
        let authority = Authority::create(folder.path(), "authority")?;
        let control_plane = ControlPlane::start(folder.path(), "control-plane", &database, &authority).await?;
        let (store, xds) = (redis_url(&redis), control_plane.xds.to_string());
        let arguments = ["--store", &store, "--xds", &xds, "--redis-timeout", "4000"];
        let limiter = Limiter::start_secure(folder.path(), "a", &authority, &arguments).await?;
        for entry in fs::read_dir(folder.path())? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "key") {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
            }
        }
        let user = User::in_folder(folder.path()).of(&format!("http://{}", control_plane.api), ADMIN_TOKEN);
        let site = Self { control_plane, limiter, postgres, redis, authority, database, user, folder };
        site.write_settings(&Identity {
            certificate: site.file("authority-rate-limiter-a.pem"),
            key: site.limiter_key(),
        })?;
        Ok(Some(site))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn limiter_key(&self) -> PathBuf {
        self.file("authority-rate-limiter-a.key")
    }

    /// Writes what an operator would have in /etc/chancery.
    fn write_settings(&self, limiter: &Identity) -> Result<()> {
        let ControlPlane { api, xds, admin, .. } = &self.control_plane;
        let ca = self.authority.file();
        let shown = |path: &Path| path.display().to_string();
        let lines = [
            ("data_dir", shown(&self.file("control-plane"))),
            ("api_addr", api.to_string()),
            ("xds_addr", xds.to_string()),
            ("admin_addr", admin.to_string()),
            ("tls_cert", shown(&self.file("authority-server.pem"))),
            ("tls_key", shown(&self.file("authority-server.key"))),
            ("client_ca", shown(&ca)),
            ("admin_token_file", shown(&self.file("admin.token"))),
        ];
        write(&self.file("control-plane.toml"), &lines)?;
        fs::write(self.file("control-plane.env"), format!("CHANCERY_DATABASE=\"{}\"\n", self.database))?;
        let lines = [
            ("xds", xds.to_string()),
            ("grpc_addr", self.limiter.grpc.to_string()),
            ("http_addr", self.limiter.http.to_string()),
            ("tls_cert", shown(&limiter.certificate)),
            ("tls_key", shown(&limiter.key)),
            ("client_ca", shown(&ca)),
        ];
        write(&self.file("rate-limiter.toml"), &lines)?;
        fs::write(self.file("rate-limiter.env"), format!("CHANCERY_STORE={}\n", redis_url(&self.redis)))?;
        Ok(())
    }

    async fn report(&self) -> Result<Value> {
        report(&self.user, "--control-plane-config control-plane.toml --rate-limiter-config rate-limiter.toml").await
    }

    /// Has the doctor find these, and nothing else.
    async fn finds(&self, expected: &[&str]) -> Result<Value> {
        let report = self.report().await?;
        ensure!(failed(&report) == expected, "expected {expected:?}: {report:#}");
        Ok(report)
    }

    async fn sql(&self, statement: &'static str) -> Result<()> {
        let mut connection = PgConnection::connect(&self.database).await?;
        sqlx::raw_sql(statement).execute(&mut connection).await?;
        Ok(connection.close().await?)
    }
}

/// From now on; a Redis that is started again asks for none.
fn ask_for_password(redis: &Redis) -> Result<()> {
    let answer = redis.cli(&["config", "set", "requirepass", REDIS_PASSWORD])?;
    ensure!(answer.contains("OK"), "{answer}");
    Ok(())
}

fn redis_url(redis: &Redis) -> String {
    format!("redis://:{REDIS_PASSWORD}@{}", redis.address)
}

fn write(path: &Path, lines: &[(&str, String)]) -> Result<()> {
    let text: String = lines.iter().map(|(key, value)| format!("{key} = \"{value}\"\n")).collect();
    Ok(fs::write(path, text)?)
}

/// What the doctor finds; its exit code says the same.
async fn report(user: &User, arguments: &str) -> Result<Value> {
    let outcome = user.runs(&format!("doctor {arguments} -o json"), "").await?;
    let report: Value = serde_json::from_str(&outcome.output).with_context(|| format!("{outcome:?}"))?;
    ensure!(outcome.code == i32::from(report["healthy"] != true), "{outcome:?}");
    Ok(report)
}

/// The checks that failed, as group/name; each says what to do.
fn failed(report: &Value) -> Vec<String> {
    let checks = report["checks"].as_array().into_iter().flatten();
    let failed = checks.filter(|check| check["outcome"] == "failed" && check["next"].is_string());
    failed
        .map(|check| format!("{}/{}", check["group"].as_str().unwrap_or("?"), check["name"].as_str().unwrap_or("?")))
        .collect()
}

fn check<'a>(report: &'a Value, group: &str, name: &str) -> &'a Value {
    let mut checks = report["checks"].as_array().into_iter().flatten();
    checks.find(|check| check["group"] == group && check["name"] == name).unwrap_or(&Value::Null)
}

fn outcome<'a>(report: &'a Value, group: &str, name: &str) -> &'a str {
    check(report, group, name)["outcome"].as_str().unwrap_or("not made")
}

fn said<'a>(report: &'a Value, group: &str, name: &str) -> &'a str {
    check(report, group, name)["said"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_thing_that_breaks_is_found_and_nothing_else() -> Result<()> {
    let Some(mut site) = Site::start().await? else { return Ok(()) };
    // That the limiter is connected is in the database a moment after it is.
    let checks = [
        ("Settings", "control plane"),
        ("Settings", "rate limiter"),
        ("Database", "writable"),
        ("Database", "connections"),
        ("Schema", "migrations"),
        ("Clocks", "database"),
        ("Clocks", "control plane"),
        ("Clocks", "Redis"),
        ("Certificates", "chain"),
        ("Certificates", "names"),
        ("Programs", "versions"),
        ("Redis", "script"),
        ("Limits", "exactness"),
        ("Proxies", "connected"),
        ("Disk and files", "free space"),
    ];
    until("everything is well", LATE, async || {
        let well = site.finds(&[]).await?;
        for (group, name) in checks {
            ensure!(outcome(&well, group, name) == "passed", "{group}/{name}: {well:#}");
        }
        Ok(())
    })
    .await?;

    // The schema of an older version, and of a newer one.
    site.sql("CREATE TABLE kept AS SELECT * FROM _sqlx_migrations WHERE version = (SELECT max(version) FROM _sqlx_migrations)").await?;
    site.sql("DELETE FROM _sqlx_migrations WHERE version IN (SELECT version FROM kept)").await?;
    site.finds(&["Schema/migrations"]).await?;
    site.sql("INSERT INTO _sqlx_migrations SELECT * FROM kept").await?;
    site.sql("INSERT INTO _sqlx_migrations SELECT 9999, description, installed_on, success, checksum, execution_time FROM kept").await?;
    let newer = site.finds(&["Schema/migrations"]).await?;
    ensure!(said(&newer, "Schema", "migrations").contains("version 9999"), "{newer:#}");
    site.sql("DELETE FROM _sqlx_migrations WHERE version = 9999").await?;

    // A key that others may read, a certificate that has expired.
    fs::set_permissions(site.limiter_key(), fs::Permissions::from_mode(0o644))?;
    site.finds(&["Certificates/permissions"]).await?;
    fs::set_permissions(site.limiter_key(), fs::Permissions::from_mode(0o600))?;
    let expired = site.authority.expired_rate_limiter("a")?;
    fs::set_permissions(&expired.key, fs::Permissions::from_mode(0o600))?;
    site.write_settings(&expired)?;
    let old = site.finds(&["Certificates/validity"]).await?;
    ensure!(said(&old, "Certificates", "validity").contains("rate limiter: expired 2021-01-01"), "{old:#}");
    site.write_settings(&Identity { certificate: site.file("authority-rate-limiter-a.pem"), key: site.limiter_key() })?;

    // What they count and write in goes away, and comes back.
    site.redis.kill();
    let without = site.finds(&["Redis/reachable"]).await?;
    assert_eq!(outcome(&without, "Limits", "exactness"), "skipped");
    site.redis.start_again().await?;
    ask_for_password(&site.redis)?;
    site.postgres.stop(Stop::Fast).await?;
    let without = site.finds(&["Database/reachable"]).await?;
    assert_eq!(outcome(&without, "Schema", "migrations"), "skipped");
    ensure!(!without.to_string().contains(DATABASE_PASSWORD), "{without:#}");
    site.postgres.start_again().await?;
    until("everything is well again", LATE, async || site.finds(&[]).await).await?;

    // A limiter that has ended leaves its port, and a control plane that sees it no more.
    drop(std::mem::replace(&mut site.limiter, Limiter::start(site.folder.path(), "other", &[]).await?));
    until("its end is seen", LATE, async || site.finds(&["Ports/rate limiter", "Proxies/connected"]).await).await?;
    Ok(())
}

#[tokio::test]
async fn before_anything_is_installed_ports_have_to_be_free_and_there_has_to_be_room() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::create(folder.path(), "authority")?;
    let server = authority.server()?;
    fs::set_permissions(&server.key, fs::Permissions::from_mode(0o600))?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let taken = listener.local_addr()?;
    let user = User::in_folder(folder.path());
    let settings = |api: SocketAddr, data: &Path| {
        let local = || SocketAddr::from(([127, 0, 0, 1], free_port())).to_string();
        let shown = |path: &Path| path.display().to_string();
        let lines = [
            ("data_dir", shown(data)),
            ("api_addr", api.to_string()),
            ("xds_addr", local()),
            ("admin_addr", local()),
            ("tls_cert", shown(&server.certificate)),
            ("tls_key", shown(&server.key)),
            ("client_ca", shown(&authority.file())),
        ];
        write(&folder.path().join("control-plane.toml"), &lines)
    };
    const ARGUMENTS: &str = "--before-install --control-plane-config control-plane.toml";

    let free = SocketAddr::from(([127, 0, 0, 1], free_port()));
    settings(free, folder.path())?;
    let well = report(&user, ARGUMENTS).await?;
    ensure!(failed(&well).is_empty(), "{well:#}");
    assert_eq!(outcome(&well, "Schema", "migrations"), "passed");
    assert_eq!(outcome(&well, "Proxies", "connected"), "not made", "nothing runs yet");
    ensure!(!folder.path().join("chancery.db").exists(), "looking made a database");

    settings(taken, folder.path())?;
    let busy = report(&user, ARGUMENTS).await?;
    assert_eq!(failed(&busy), ["Ports/control plane"]);
    ensure!(busy.to_string().contains(&format!("sport = :{}", taken.port())), "{busy:#}");

    fs::write(folder.path().join("wrong.toml"), "xds_addr = 7\nno_such_setting = 1\n")?;
    let wrong = report(&user, "--before-install --control-plane-config wrong.toml").await?;
    assert_eq!(failed(&wrong), ["Settings/control plane"]);

    // A disk that is nearly full, where one can be made.
    let small = folder.path().join("small");
    fs::create_dir(&small)?;
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "none"]).arg(&small).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: a full disk needs a user who may mount one");
        return Ok(());
    }
    settings(free, &small)?;
    let full = report(&user, ARGUMENTS).await;
    Command::new("umount").arg(&small).status()?;
    assert_eq!(failed(&full?), ["Disk and files/free space"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dev_is_well_until_a_proxy_hangs_and_its_bundle_holds_no_secret() -> Result<()> {
    if required::envoy().is_none() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let dev = Dev::start(folder.path(), free_offset()?, &[]).await?;
    let user = User::in_folder(folder.path());
    until("all is well", LATE, async || {
        let report = report(&user, "--data-dir data").await?;
        ensure!(failed(&report).is_empty(), "{report:#}");
        for (group, name) in [
            ("Certificates", "names"),
            ("Ports", "sidecar"),
            ("Proxies", "up to date"),
            ("Disk and files", "open files"),
        ] {
            ensure!(outcome(&report, group, name) == "passed", "{group}/{name}: {report:#}");
        }
        Ok(())
    })
    .await?;
    // The admin port of each program is what `health` asks.
    for port in ["adminUrl", "rateLimiterHttp", "sidecarAdmin"] {
        assert_eq!(user.does(&format!("health {}", dev.address(port)?), "").await?, "ready\n");
    }
    let nobody = user.runs(&format!("health 127.0.0.1:{}", free_port()), "").await?;
    assert_eq!(nobody.code, 1, "{nobody:?}");

    // Secrets of every kind, where they might come from.
    let rules = json!([{ "to": [{ "service": "demo-a" }], "headers": { "request": { "set": [{ "name": "x-upstream-key", "value": HEADER }] } } }]);
    let route = resource(
        "Route",
        "planted",
        json!({ "listeners": ["edge/web"], "hosts": ["planted.example.com"], "rules": rules }),
    );
    let message = json!({ "resources": [route], "message": format!("see {JWT}") });
    let written = dev.api()?.json(http::Method::POST, "/api/v1/apply?wait=applied&timeout=20s", Some(&message)).await?;
    ensure!(written.status == 200, "{}", written.text());
    let key = fs::read_to_string(dev.text("clientKeyFile")?)?;
    let key = key.lines().nth(1).context("a key has lines")?.to_owned();
    let planted = [dev.text("adminToken")?, HEADER, JWT, &key];
    let files = bundle(&user, folder.path(), "--data-dir data", &planted).await?;
    for file in [
        "manifest.json",
        "doctor.json",
        "sidecar/config_dump.json",
        "envoy/config_dump.json",
        "rate-limiter/limits.json",
        "api/revisions.json",
    ] {
        ensure!(files.iter().any(|(path, _)| path.ends_with(file)), "{file} is not there");
    }
    let dump = &files.iter().find(|(path, _)| path.ends_with("envoy/config_dump.json")).context("no dump")?.1;
    ensure!(String::from_utf8_lossy(dump).contains("x-upstream-key"), "the header itself is not shown");

    // A cluster that never becomes warm: its proxy has not answered.
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let check = json!({ "healthCheck": { "path": "/healthz", "interval": "60s", "timeout": "55s" } });
    let service = service_with("silent", &[silent.local_addr()?], check);
    dev.api()?.apply(&[service, route_to("silent", "silent.example.com", "silent")]).await?;
    until("the proxy that hangs is found", LATE, async || {
        let report = report(&user, "--data-dir data").await?;
        ensure!(failed(&report) == ["Proxies/up to date"], "{report:#}");
        Ok(())
    })
    .await?;
    dev.interrupt().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_says_what_it_holds_and_lacks_and_no_password() -> Result<()> {
    let Some(site) = Site::start().await? else { return Ok(()) };
    let key = fs::read_to_string(site.limiter_key())?.lines().nth(1).context("a key has lines")?.to_owned();
    let arguments = "--control-plane-config control-plane.toml --rate-limiter-config rate-limiter.toml";
    let files =
        bundle(&site.user, site.folder.path(), arguments, &[DATABASE_PASSWORD, REDIS_PASSWORD, ADMIN_TOKEN, &key])
            .await?;
    let (_, manifest) = files.iter().find(|(path, _)| path.ends_with("manifest.json")).context("no manifest")?;
    let manifest: Value = serde_json::from_slice(manifest)?;
    let missing: Vec<_> =
        manifest["missing"].as_array().into_iter().flatten().filter_map(|one| one["path"].as_str()).collect();
    assert_eq!(missing, ["settings/sidecar.toml", "envoy/config_dump.json"], "{manifest:#}");
    let (_, settings) =
        files.iter().find(|(path, _)| path.ends_with("settings/rate-limiter.toml")).context("no settings")?;
    ensure!(String::from_utf8_lossy(settings).contains("store = \"***\""), "{}", String::from_utf8_lossy(settings));

    let again = site.user.runs(&format!("bundle --output bundle.tar.gz {arguments}"), "").await?;
    ensure!(again.code == 2 && again.errors.contains("is there already"), "{again:?}");
    Ok(())
}

/// Makes a bundle, and answers with what is in it. It is its owner's, and none of `planted` is in any byte of it.
async fn bundle(user: &User, folder: &Path, arguments: &str, planted: &[&str]) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    user.does(&format!("bundle --output bundle.tar.gz {arguments}"), "").await?;
    let archive = folder.join("bundle.tar.gz");
    ensure!(fs::metadata(&archive)?.permissions().mode() & 0o777 == 0o600, "others may read it");
    let unpacked = folder.join("unpacked");
    fs::create_dir_all(&unpacked)?;
    let output = Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(&unpacked).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (mut files, mut folders) = (Vec::new(), vec![unpacked]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() { folders.push(path) } else { files.push((path.clone(), fs::read(&path)?)) }
        }
    }
    ensure!(files.len() > 10, "{files:?}");
    for (path, contents) in &files {
        for secret in planted {
            let found = contents.windows(secret.len()).any(|window| window == secret.as_bytes());
            ensure!(!found, "{} holds {secret:?}", path.display());
        }
    }
    Ok(files)
}
