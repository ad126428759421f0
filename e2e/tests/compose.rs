//! The installation of `deploy/compose`, from its own files, as plain processes: a request passes Envoy, sidecar and service, a limit
//! holds over both limiters, an edit at one control plane reaches the Envoy of the other, and Prometheus sees everyone.
//!
//! Grafana, Jaeger, Loki, the collector and the agent for logs are not on this machine; `manifests.rs` looks at their files.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use chancery_e2e::{
    api::Api,
    client::{Response, fetch, fetch_tls, get, request},
    compose::{Laid, Place, address_of},
    postgres::Postgres,
    process::{Process, own_program},
    redis,
    required::{self, required},
    wait::{PATIENCE, until},
};
use http::{Method, Request};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

const HOST: &str = "demo.localhost";

/// What is run here, and whom that needs.
const RUN: [&str; 9] = [
    "control-plane-1",
    "control-plane-2",
    "resources",
    "rate-limiter-1",
    "rate-limiter-2",
    "envoy",
    "sidecar",
    "prometheus",
    "alertmanager",
];

/// Prometheus looks every 15 seconds.
const SCRAPED: Duration = Duration::from_secs(90);

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

fn prepare(mode: &str, secrets: &Path) -> Result<()> {
    let prepare = || -> Result<BTreeMap<PathBuf, Vec<u8>>> {
        let mut command = Command::new(deploy("compose/prepare"));
        let output = command.arg(mode).arg(secrets).env("CHANCERY", own_program("chancery")?).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let made = fs::read_dir(secrets)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        made.into_iter().filter(|path| path.is_file()).map(|path| Ok((path.clone(), fs::read(path)?))).collect()
    };
    // Once more changes nothing.
    ensure!(prepare()? == prepare()?, "what was prepared is prepared anew");
    Ok(())
}

/// The programs that stand for what is not ours, by service.
struct Programs(BTreeMap<&'static str, PathBuf>);

impl Programs {
    fn found() -> Option<Self> {
        let redis = required("redis-server", redis::installed().then(|| PathBuf::from("redis-server")))?;
        Some(Self(BTreeMap::from([
            ("envoy", required::envoy()?),
            ("redis", redis),
            ("prometheus", required::prometheus_server("prometheus")?),
            ("alertmanager", required::prometheus_server("prometheus-alertmanager")?),
        ])))
    }

    /// How to run a service, and what tells it where to be that a container needs not be told.
    fn command(&self, name: &str, laid: &Laid, place: &Place) -> Result<Command> {
        let at = |port: u16| format!("127.0.0.1:{}", place.port(name, port));
        let flag = |name: &str, value: String| format!("--{name}={value}");
        let (program, arguments, more) = match name {
            "prometheus" => (self.0[name].clone(), &laid.command[..], vec![flag("web.listen-address", at(9090))]),
            "alertmanager" => {
                let alone = flag("cluster.listen-address", String::new());
                (self.0[name].clone(), &laid.command[..], vec![flag("web.listen-address", at(9093)), alone])
            }
            "envoy" => {
                let more = ["--concurrency", "2"].map(str::to_owned).to_vec();
                (self.0[name].clone(), &laid.command[1..], more)
            }
            "redis" => {
                let port = place.port(name, 6379).to_string();
                let secure = fs::read_to_string(laid.root.join("run/secrets/redis.conf"))?.contains("\ntls-port ");
                let flag = if secure { "--tls-port" } else { "--port" };
                let more = vec![flag.to_owned(), port, "--bind".to_owned(), "127.0.0.1".to_owned()];
                (self.0[name].clone(), &laid.command[1..], more)
            }
            _ => (own_program(&laid.command[0])?, &laid.command[1..], Vec::new()),
        };
        let mut command = Command::new(program);
        command.current_dir(&laid.root).args(arguments).args(more);
        command.env_remove("CHANCERY_DATA_DIR").envs(&laid.environment);
        // That the machine is busy is no reason to decide without Redis.
        if name.starts_with("rate-limiter") {
            command.env("CHANCERY_REDIS_TIMEOUT", "5000");
        }
        Ok(command)
    }
}

/// The installation. Dropping it kills it.
struct Installation {
    production: bool,
    place: Place,
    secrets: PathBuf,
    processes: Vec<(String, Process)>,
    _postgres: Postgres,
    folder: tempfile::TempDir,
}

impl Installation {
    /// Starts it, each service when those it waits for are well. `None` where something is missing and that may be.
    async fn start(mode: &str) -> Result<Option<Self>> {
        let (Some(programs), Some(mut postgres)) = (Programs::found(), Postgres::start().await?) else {
            return Ok(None);
        };
        let production = mode == "production";
        let folder = tempfile::tempdir()?;
        let secrets = folder.path().join("secrets");
        prepare(mode, &secrets)?;
        let mut connection = PgConnection::connect(&postgres.url()).await?;
        let password = fs::read_to_string(secrets.join("postgres-password"))?;
        let role = format!("CREATE ROLE chancery LOGIN PASSWORD '{}'", password.trim());
        for statement in [role.as_str(), "CREATE DATABASE chancery OWNER chancery"] {
            sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned())).execute(&mut connection).await?;
        }
        connection.close().await?;
        let mut files = vec![deploy("compose/compose.yaml")];
        if production {
            let [certificate, key] = ["tls.crt", "tls.key"].map(|file| secrets.join("postgres").join(file));
            postgres.secure(&certificate, &key, &deploy("compose/config/pg_hba.conf")).await?;
            files.push(deploy("compose/compose.production.yaml"));
        }
        // Who asks for a control plane by the name of both is given the second; the resources speak of addresses of Envoy.
        let aliases = [("control-plane", "control-plane-2"), ("resources", "envoy")];
        let place = Place::new(&files, &secrets, folder.path(), &aliases)?;
        place.is_at("postgres", 5432, postgres.port());
        let processes = Vec::new();
        let mut started = Self { production, place, secrets, processes, _postgres: postgres, folder };
        for name in started.place.compose.in_order(&RUN)? {
            if name != "postgres" {
                started.start_service(&programs, &name).await.with_context(|| name)?;
            }
        }
        Ok(Some(started))
    }

    async fn start_service(&mut self, programs: &Programs, name: &str) -> Result<()> {
        let laid = self.place.lay(name)?;
        if name == "resources" {
            // Envoy waits 100 ms for a limiter, which on a machine with other things to do is not for ever.
            let fleets = laid.root.join("etc/chancery/resources/common/fleets.yaml");
            fs::write(&fleets, fs::read_to_string(&fleets)?.replace("timeout: 100ms", "timeout: 10s"))?;
            // Files of the listener are where Envoy sees them.
            let listener = laid.root.join("etc/chancery/resources/listener/listener.yaml");
            let edge = self.folder.path().join("envoy/etc/envoy/edge").display().to_string();
            fs::write(&listener, fs::read_to_string(&listener)?.replace("/etc/envoy/edge", &edge))?;
        }
        let mut process = Process::spawn(name, programs.command(name, &laid, &self.place)?, &laid.root)?;
        let service = &self.place.compose.services[name];
        match (name, service.health_url()) {
            ("resources", _) => {
                let status = until("the resources are there", PATIENCE, async || {
                    ensure!(!process.is_running(), "not yet");
                    Ok(process.exited())
                })
                .await?;
                ensure!(status.is_some_and(|status| status.success()), "{}{}", process.output(), process.log());
            }
            // Others are asked by clients that only images have.
            (_, None) => {}
            (_, Some(url)) => {
                let (address, path) = address_of(&self.place.url(name, url))?;
                until(&format!("{name} is well"), 2 * PATIENCE, async || {
                    ensure!(process.is_running(), "it ended: {}", process.log());
                    let answer = fetch(address, get("health", &path)).await?;
                    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
                    Ok(())
                })
                .await?;
            }
        }
        self.processes.push((name.to_owned(), process));
        Ok(())
    }

    fn at(&self, service: &str, port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.place.port(service, port)))
    }

    /// What Envoy answers, over TLS in production.
    async fn ask(&self, request: Request<Bytes>) -> Result<Response> {
        let envoy = self.at("envoy", 10000);
        match self.production {
            true => fetch_tls(envoy, HOST, &self.secrets.join("ca/ca.crt"), request).await,
            false => fetch(envoy, request).await,
        }
    }

    fn api(&self, service: &str) -> Result<Api> {
        let token = fs::read_to_string(self.secrets.join("admin-token"))?;
        Ok(Api::new(self.at(service, 8080), token.trim()))
    }

    async fn metric(&self, service: &str, port: u16, name: &str) -> Result<f64> {
        let text = fetch(self.at(service, port), get("admin", "/metrics")).await?.text();
        let of_name =
            text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        Ok(of_name.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }
}

/// A request passes all there is, and the service is told who has called its sidecar.
async fn a_request_passes(installation: &Installation) -> Result<()> {
    until("the demo service answers through Envoy", 2 * PATIENCE, async || {
        let answer = installation.ask(get(HOST, "/hello")).await?;
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        let caller = "spiffe://chancery.local/fleet/edge/proxy/envoy-1";
        ensure!(answer.text().contains(caller), "not through the sidecar: {}", answer.text());
        Ok(())
    })
    .await?;
    let passed = installation.metric("sidecar", 15020, "chancery_sidecar_requests_total").await?;
    ensure!(passed > 0.0, "the sidecar has seen nothing");
    Ok(())
}

/// 20 a minute by key, whichever limiter is asked.
async fn a_limit_holds_over_both_limiters(installation: &Installation) -> Result<()> {
    let begun = Instant::now();
    let mut admitted = 0;
    for _ in 0..80 {
        let ask = request(Method::GET, HOST, "/limited", &[("x-api-key", "somebody")]);
        match installation.ask(ask).await?.status {
            200 => admitted += 1,
            429 => {}
            status => anyhow::bail!("{status}"),
        }
    }
    // A token comes back every three seconds.
    let most = 21 + begun.elapsed().as_secs() / 3;
    ensure!(most < 40, "80 requests took {:?}", begun.elapsed());
    ensure!((10..=most).contains(&admitted), "{admitted} of 80 were admitted, at most {most} may be");
    for limiter in ["rate-limiter-1", "rate-limiter-2"] {
        let decided = installation.metric(limiter, 6070, "chancery_rate_limiter_requests_total").await?;
        ensure!(decided > 10.0, "{limiter} has decided {decided} times");
        ensure!(
            installation.metric(limiter, 6070, "chancery_rate_limiter_without_redis_total").await? == 0.0,
            "without Redis"
        );
    }
    Ok(())
}

/// What is written at one control plane is served by the Envoy that is connected to the other.
async fn an_edit_reaches_the_envoy_of_the_other(installation: &Installation) -> Result<()> {
    for (replica, streams) in [("control-plane-1", false), ("control-plane-2", true)] {
        let open = installation.metric(replica, 9900, "chancery_xds_streams").await?;
        ensure!((open > 0.0) == streams, "{replica} has {open} streams");
    }
    let rules = json!([{ "match": { "path": { "prefix": "/" } }, "respond": { "status": 200, "body": "edited" } }]);
    let spec = json!({ "listeners": ["edge/web"], "hosts": ["edit.localhost"], "rules": rules });
    installation.api("control-plane-1")?.put(&json!({ "kind": "Route", "name": "edited", "spec": spec })).await?;
    until("the edit is served", 2 * PATIENCE, async || {
        let answer = installation.ask(get("edit.localhost", "/")).await?;
        ensure!(answer.text() == "edited", "{} {}", answer.status, answer.text());
        Ok(())
    })
    .await
}

/// Prometheus finds everyone by the files of targets, and its Alertmanager.
async fn prometheus_sees_everyone(installation: &Installation) -> Result<()> {
    let prometheus = installation.at("prometheus", 9090);
    let ask = async |path: &str| -> Result<Value> { fetch(prometheus, get("prometheus", path)).await?.json() };
    until("all targets are up", SCRAPED, async || {
        let targets = ask("/api/v1/targets?state=active").await?;
        let targets = targets["data"]["activeTargets"].as_array().context("no list")?;
        let up: Vec<_> = targets.iter().filter(|target| target["health"] == "up").collect();
        let jobs = |job: &str| up.iter().filter(|target| target["labels"]["job"] == job).count();
        let counted = ["chancery-control-plane", "chancery-rate-limiter", "chancery-sidecar"].map(jobs);
        ensure!(targets.len() == 5 && counted == [2, 2, 1], "{targets:?}");
        Ok(())
    })
    .await?;
    let rules = ask("/api/v1/rules").await?;
    ensure!(rules["data"]["groups"].as_array().is_some_and(|groups| !groups.is_empty()), "no rules: {rules}");
    until("Alertmanager is found", PATIENCE, async || {
        let found = ask("/api/v1/alertmanagers").await?;
        let expected = format!("http://{}/api/v2/alerts", installation.at("alertmanager", 9093));
        ensure!(found["data"]["activeAlertmanagers"][0]["url"] == expected.as_str(), "{found}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_installation_does_what_it_is_for() -> Result<()> {
    let Some(installation) = Installation::start("development").await? else { return Ok(()) };
    a_request_passes(&installation).await?;
    a_limit_holds_over_both_limiters(&installation).await?;
    an_edit_reaches_the_envoy_of_the_other(&installation).await?;
    prometheus_sees_everyone(&installation).await
}

/// With TLS to Postgres and Redis and from clients, passwords everywhere, and none without.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_for_production_does_so_over_tls() -> Result<()> {
    let Some(installation) = Installation::start("production").await? else { return Ok(()) };
    a_request_passes(&installation).await?;
    a_limit_holds_over_both_limiters(&installation).await?;
    let plain = fetch(installation.at("envoy", 10000), get(HOST, "/")).await;
    ensure!(plain.is_err(), "Envoy takes plaintext: {plain:?}");
    let password = fs::read_to_string(installation.secrets.join("postgres-password"))?;
    let url = |password: &str, mode: &str| {
        let port = installation.place.port("postgres", 5432);
        format!("postgres://chancery:{password}@127.0.0.1:{port}/chancery?sslmode={mode}")
    };
    PgConnection::connect(&url(password.trim(), "require")).await?.close().await?;
    for (password, mode) in [(password.trim(), "disable"), ("guessed", "require")] {
        ensure!(PgConnection::connect(&url(password, mode)).await.is_err(), "Postgres takes {password} with {mode}");
    }
    Ok(())
}
