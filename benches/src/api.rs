//! `api`: what a service owner waits for, by the size of the catalog and the store.
//!
//! A control plane of its own for each store and size, without proxies: edits of a route one after the other on a kept connection,
//! then by several writers at once; reads of one resource and of a page; a plan of a folder; a start. CPU is the control plane's
//! alone, without Postgres. Both stores sync what they commit.

use std::{
    fmt,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use chancery_e2e::{
    certificates::Authority,
    client::{Connection, Response},
    control_plane::{ADMIN_TOKEN, ControlPlane},
    document::{fleet, listener},
    postgres::Postgres,
    usage,
};
use clap::Args;
use http::{Method, Request, header};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    aims::{Aim, Bound, judged},
    catalog::{configure, pick, route},
    machine::Machine,
    report::{Samples, milliseconds, publish, table},
};

/// Writers at once.
const WRITERS: usize = 8;

/// Of a folder that is planned; one in so many differs from the catalog.
const FOLDER: usize = 1_000;
const DIFFERS: usize = 10;

/// How often a plan and a start are measured.
const PLANS: usize = 9;
const STARTS: usize = 5;

/// Resources of a page.
const PAGE: usize = 100;

/// Fleet and listener.
const OTHERS: usize = 2;

/// Resources of the catalogs: what a write costs must not grow with them.
const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];

/// What to measure.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Resources of the catalog
    #[arg(long, value_delimiter = ',', default_values_t = SIZES)]
    resources: Vec<usize>,
    /// Edits and reads per catalog
    #[arg(long, default_value_t = 1_000)]
    requests: usize,
    /// How long several write at once
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { resources: SIZES.to_vec(), requests: 1_000, seconds: 5 }
    }
}

/// Where the catalog is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Store {
    Sqlite,
    Postgres,
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "Postgres",
        })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    machine: Machine,
    writers: usize,
    folder: usize,
    catalogs: Vec<Measured>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Measured {
    store: Store,
    resources: usize,
    edit: Samples,
    cpu_per_edit_ms: f64,
    /// By all writers together.
    writes_per_second: f64,
    get: Samples,
    list: Samples,
    plan: Samples,
    /// From the start of the program to its readiness.
    start: Samples,
    memory_mb: f64,
    /// What an edit adds to the database, with the revision, the change and the audit log.
    stored_bytes_per_edit: f64,
}

/// Measures, prints and leaves the results in `out`.
pub(crate) async fn run(options: &Options, out: &Path) -> Result<()> {
    let postgres = Postgres::start_durable().await?.context("api needs Postgres")?;
    let mut catalogs = Vec::new();
    for &resources in &options.resources {
        ensure!(resources > OTHERS + 1, "a catalog has a fleet, a listener, a service and a route at least");
        for store in [Store::Sqlite, Store::Postgres] {
            eprintln!("api: {resources} resources on {store}");
            let folder = tempfile::tempdir()?;
            let database = match store {
                Store::Sqlite => format!("sqlite://{}", folder.path().join("chancery.db").display()),
                Store::Postgres => postgres.create_database().await?,
            };
            catalogs.push(measure(&postgres, store, &database, folder.path(), resources, options).await?);
        }
    }
    let report = Report { machine: Machine::describe(None), writers: WRITERS, folder: FOLDER, catalogs };
    publish(out, "api", &report, &report.markdown())
}

async fn measure(
    postgres: &Postgres,
    store: Store,
    database: &str,
    folder: &Path,
    resources: usize,
    options: &Options,
) -> Result<Measured> {
    let authority = Authority::create(folder, "authority")?;
    let mut control_plane = ControlPlane::start(folder, "control-plane", database, &authority).await?;
    // One token asks as often as it can.
    control_plane.start_again_with(&["--api-token-rate", "0"]).await?;
    let api = control_plane.caller();
    api.apply(&[fleet("edge"), listener("web", "edge", 10_000)]).await?;
    // A tenth are services.
    let services = (resources / 10).max(1);
    let routes = resources - OTHERS - services;
    configure(&api, routes, services).await?;

    let mut client = Client::open(&control_plane).await?;
    let stored = stored_bytes(postgres, store, database).await?;
    let cpu = usage::cpu(control_plane.pid())?;
    let mut edit = Samples::default();
    for number in 0..options.requests {
        let target = pick(number, routes);
        edit.push(client.edit(&route(target, services, &format!("edit-{number}"))).await?);
    }
    let cpu = usage::cpu(control_plane.pid())? - cpu;
    let stored = stored_bytes(postgres, store, database).await?.saturating_sub(stored);
    let writes_per_second = writes_per_second(&control_plane, routes, services, options.seconds).await?;

    let (mut get, mut list) = (Samples::default(), Samples::default());
    for number in 0..options.requests {
        get.push(client.timed(Method::GET, &format!("/api/v1/routes/r{}", pick(number, routes)), None).await?.0);
    }
    let mut cursor = String::new();
    for _ in 0..options.requests {
        let (took, page) = client.timed(Method::GET, &format!("/api/v1/routes?limit={PAGE}{cursor}"), None).await?;
        list.push(took);
        cursor = page["nextCursor"].as_str().map(|next| format!("&cursor={next}")).unwrap_or_default();
    }

    let differs = |number: usize| if number.is_multiple_of(DIFFERS) { "planned" } else { "start" };
    let planned: Vec<Value> = (0..FOLDER).map(|number| route(number, services, differs(number))).collect();
    let mut plan = Samples::default();
    for _ in 0..PLANS {
        let (took, answer) = client.timed(Method::POST, "/api/v1/plan", Some(&json!({ "resources": planned }))).await?;
        ensure!(
            answer["changed"].as_array().is_some_and(|changed| !changed.is_empty()),
            "nothing is planned: {answer}"
        );
        plan.push(took);
    }

    let memory = usage::memory(control_plane.pid())?;
    let mut start = Samples::default();
    for _ in 0..STARTS {
        control_plane.terminate().await?;
        let begun = Instant::now();
        control_plane.start_again().await?;
        start.push(begun.elapsed());
    }
    #[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
    let (requests, memory, stored) = (options.requests as f64, memory as f64, stored as f64);
    Ok(Measured {
        store,
        resources,
        edit,
        cpu_per_edit_ms: milliseconds(cpu) / requests,
        writes_per_second,
        get,
        list,
        plan,
        start,
        memory_mb: memory / 1e6,
        stored_bytes_per_edit: (stored / requests).round(),
    })
}

/// What the database takes on its disk, the log of what is not yet in its tables included.
async fn stored_bytes(postgres: &Postgres, store: Store, database: &str) -> Result<u64> {
    match store {
        Store::Postgres => postgres.size_of(database).await,
        Store::Sqlite => {
            let file = database.strip_prefix("sqlite://").context("not a file")?;
            let length = |file: &str| std::fs::metadata(file).map_or(0, |of| of.len());
            Ok(length(file) + length(&format!("{file}-wal")))
        }
    }
}

/// Each writer edits routes of its own, one after the other.
async fn writes_per_second(control_plane: &ControlPlane, routes: usize, services: usize, seconds: u64) -> Result<f64> {
    let (begun, time) = (Instant::now(), Duration::from_secs(seconds));
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let mut client = Client::open(control_plane).await?;
        writers.push(tokio::spawn(async move {
            let mut writes = 0_u32;
            while begun.elapsed() < time {
                let target = pick(writer + WRITERS * writes as usize, routes);
                client.edit(&route(target, services, &format!("writer-{writer}-{writes}"))).await?;
                writes += 1;
            }
            Ok::<_, anyhow::Error>(writes)
        }));
    }
    let mut all = 0;
    for writer in writers {
        all += writer.await??;
    }
    Ok(f64::from(all) / begun.elapsed().as_secs_f64())
}

/// A caller on a kept connection.
struct Client {
    connection: Connection,
    host: String,
}

impl Client {
    async fn open(control_plane: &ControlPlane) -> Result<Self> {
        let host = control_plane.api.to_string();
        Ok(Self { connection: Connection::open(control_plane.api).await?, host })
    }

    async fn edit(&mut self, route: &Value) -> Result<Duration> {
        let name = route["name"].as_str().unwrap_or_default();
        let (took, answer) = self.timed(Method::PUT, &format!("/api/v1/routes/{name}"), Some(route)).await?;
        ensure!(answer["changed"][0]["action"] == "updated", "an edit changes nothing: {answer}");
        Ok(took)
    }

    /// How long a request takes that has to succeed, and the answer.
    async fn timed(&mut self, method: Method, path: &str, body: Option<&Value>) -> Result<(Duration, Value)> {
        let body = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.host)
            .header(header::AUTHORIZATION, format!("Bearer {ADMIN_TOKEN}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Bytes::from(body))?;
        let begun = Instant::now();
        let response: Response = self.connection.send(request).await?;
        let took = begun.elapsed();
        ensure!(response.status == 200, "{path}: {} {}", response.status, response.text());
        Ok((took, response.json()?))
    }
}

impl Report {
    fn markdown(&self) -> String {
        let header = [
            "store",
            "resources",
            "edit p50 ms",
            "p99",
            "CPU/edit ms",
            "writes/s",
            "get p50 ms",
            "p99",
            "list p50 ms",
            "p99",
            "plan ms",
            "start ms",
            "MB",
            "B/edit",
        ];
        let rows: Vec<Vec<String>> = self.catalogs.iter().map(Measured::row).collect();
        format!(
            "# api\n\n{}\n\nEdits of a route one after the other on a kept connection, and {} writers at once (writes/s). Lists are pages of \
             {PAGE}\nroutes. The plan is of {} routes, of which one in {DIFFERS} differs. CPU is the control plane's, without Postgres. Both stores \
             sync\nwhat they commit.\n\n{}\n{}",
            self.machine,
            self.writers,
            self.folder,
            table(&header, &rows),
            judged(self.catalogs.iter().flat_map(Measured::aims)),
        )
    }
}

impl Measured {
    fn row(&self) -> Vec<String> {
        let ms = |samples: &Samples, share| format!("{:.2}", milliseconds(samples.quantile(share)));
        vec![
            self.store.to_string(),
            self.resources.to_string(),
            ms(&self.edit, 0.5),
            ms(&self.edit, 0.99),
            format!("{:.2}", self.cpu_per_edit_ms),
            format!("{:.0}", self.writes_per_second),
            ms(&self.get, 0.5),
            ms(&self.get, 0.99),
            ms(&self.list, 0.5),
            ms(&self.list, 0.99),
            ms(&self.plan, 0.5),
            ms(&self.start, 0.5),
            format!("{:.0}", self.memory_mb),
            format!("{:.0}", self.stored_bytes_per_edit),
        ]
    }

    fn aims(&self) -> Vec<Aim> {
        let about = format!("{}, {} resources", self.store, self.resources);
        let aim = |case, samples: &Samples, share, most| Aim {
            about: about.clone(),
            case,
            wanted: Bound::Most(most),
            measured: milliseconds(samples.quantile(share)),
        };
        vec![
            aim("get p99 ms", &self.get, 0.99, 5.0),
            aim("list p99 ms", &self.list, 0.99, 5.0),
            aim("plan p50 ms", &self.plan, 0.5, 1_000.0),
            aim("start p50 ms", &self.start, 0.5, 2_000.0),
        ]
    }
}
