//! `sizing`: what deployments of different sizes need, worked out from what the other parts measured.
//!
//! Nothing is measured here. `api`, `xds-fleet` and `ratelimit` left their figures in the folder of results; a size says what
//! is asked of a deployment, and [`needs`] how much of a machine that takes. Sizes stay within what was measured.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::report::{publish, table, thousands};

/// Of a core and of memory, so much is planned for; the rest is for what comes at once.
const SHARE: f64 = 0.5;

/// Memory is given in steps of so many MB.
const STEP: f64 = 256.0;

const DAYS: f64 = 30.0;

/// What is asked of a deployment.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Size {
    name: &'static str,
    proxies: f64,
    resources: f64,
    edits_per_minute: f64,
    /// Decisions of the rate limiter per second, over all replicas.
    decisions: f64,
    /// Keys that are counted at the same time.
    keys: f64,
}

const SIZES: [Size; 4] = [
    Size { name: "small", proxies: 50.0, resources: 200.0, edits_per_minute: 1.0, decisions: 1e3, keys: 1e4 },
    Size { name: "medium", proxies: 500.0, resources: 2e3, edits_per_minute: 10.0, decisions: 2e4, keys: 1e5 },
    Size { name: "large", proxies: 3e3, resources: 5e3, edits_per_minute: 30.0, decisions: 1e5, keys: 1e6 },
    Size { name: "extra large", proxies: 1e4, resources: 1e4, edits_per_minute: 60.0, decisions: 4e5, keys: 1e6 },
];

/// What that takes. Of each program there is one more than carries the load, so that one may be away.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Needs {
    size: Size,
    /// Of each of two control planes, either of which carries all proxies alone.
    control_plane_mb: f64,
    control_plane_cores: f64,
    /// From an edit until the last proxy in a hundred has it.
    reach_ms: f64,
    /// Until all proxies are back at the other control plane.
    return_s: f64,
    limiters: f64,
    limiter_cores: f64,
    limiter_mb: f64,
    /// Share of a core of Redis.
    redis_cores: f64,
    /// What edits add to Postgres in a month.
    database_gb_per_month: f64,
}

/// `api`, as far as it is needed.
#[derive(Deserialize)]
struct Api {
    catalogs: Vec<Catalog>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Catalog {
    store: String,
    resources: f64,
    cpu_per_edit_ms: f64,
    memory_mb: f64,
    stored_bytes_per_edit: f64,
}

/// `xds-fleet`, as far as it is needed.
#[derive(Deserialize)]
struct Fleets {
    measured: Vec<Fleet>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fleet {
    subject: String,
    proxies: f64,
    stream_kb: f64,
    single: Changes,
    cold_ms: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Changes {
    /// p50, p99, longest.
    reach_ms: [f64; 3],
    cpu_per_delivery_us: f64,
}

/// `ratelimit`, as far as it is needed.
#[derive(Deserialize)]
struct Limits {
    cases: Vec<LimitCase>,
}

#[derive(Deserialize)]
struct LimitCase {
    case: CaseName,
    servers: Vec<Server>,
}

#[derive(Deserialize)]
struct CaseName {
    name: String,
}

#[derive(Deserialize)]
struct Server {
    server: String,
    rounds: Vec<Round>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Round {
    per_second: f64,
    redis_cpu_micros: Option<f64>,
    memory_mb: [f64; 2],
    bytes_per_key: Option<f64>,
}

/// What one unit of everything costs, on one machine.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Costs {
    /// Resources and MB, of a control plane on Postgres.
    memory: Vec<[f64; 2]>,
    cpu_per_edit_ms: f64,
    stored_bytes_per_edit: f64,
    stream_kb: f64,
    cpu_per_delivery_us: f64,
    /// Proxies and milliseconds, p99.
    reach: Vec<[f64; 2]>,
    cold_ms_per_proxy: f64,
    decisions_per_core: f64,
    redis_cpu_micros: f64,
    limiter_mb: f64,
    bytes_per_key: f64,
}

#[derive(Serialize)]
struct Report {
    costs: Costs,
    sizes: Vec<Needs>,
}

/// Reads the results in `out`, prints what sizes need and leaves that there too.
pub(crate) fn run(out: &Path) -> Result<()> {
    let costs = Costs::of(&read(out, "api")?, &read(out, "xds-fleet")?, &read(out, "ratelimit")?)?;
    let report = Report { sizes: SIZES.iter().map(|size| needs(*size, &costs)).collect(), costs };
    publish(out, "sizing", &report, &report.markdown())
}

fn read<T: DeserializeOwned>(folder: &Path, part: &str) -> Result<T> {
    let file = folder.join(format!("{part}.json"));
    let how = || format!("no figures in {}: make bench ARGS={part}", file.display());
    let text = fs::read(&file).with_context(how)?;
    serde_json::from_slice(&text).with_context(how)
}

impl Costs {
    /// The dearest of what was measured, where sizes differ.
    fn of(api: &Api, fleets: &Fleets, limits: &Limits) -> Result<Self> {
        let catalogs: Vec<&Catalog> = api.catalogs.iter().filter(|catalog| catalog.store == "postgres").collect();
        let ours: Vec<&Fleet> = fleets.measured.iter().filter(|fleet| fleet.subject == "chancery").collect();
        ensure!(!catalogs.is_empty() && !ours.is_empty(), "nothing was measured on Postgres, or of our own xDS server");
        let rounds = |case: &str, server: &str| -> Result<&Vec<Round>> {
            let case = limits.cases.iter().find(|one| one.case.name == case);
            let server = case.and_then(|case| case.servers.iter().find(|one| one.server == server));
            server.map(|server| &server.rounds).context("ratelimit was run without the cases that sizes go by")
        };
        // Keys as users have them: many, some of them hot, shared by replicas over Redis.
        let leased = rounds("many-zipf", "leased")?;
        let million = rounds("million-keys", "memory")?;
        let most = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
        let least = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::INFINITY, f64::min);
        Ok(Self {
            memory: catalogs.iter().map(|catalog| [catalog.resources, catalog.memory_mb]).collect(),
            cpu_per_edit_ms: most(&mut catalogs.iter().map(|catalog| catalog.cpu_per_edit_ms)),
            stored_bytes_per_edit: most(&mut catalogs.iter().map(|catalog| catalog.stored_bytes_per_edit)),
            stream_kb: most(&mut ours.iter().map(|fleet| fleet.stream_kb)),
            cpu_per_delivery_us: most(&mut ours.iter().map(|fleet| fleet.single.cpu_per_delivery_us)),
            reach: ours.iter().map(|fleet| [fleet.proxies, fleet.single.reach_ms[1]]).collect(),
            cold_ms_per_proxy: most(&mut ours.iter().map(|fleet| fleet.cold_ms / fleet.proxies)),
            decisions_per_core: least(&mut leased.iter().map(|round| round.per_second)),
            redis_cpu_micros: most(&mut leased.iter().filter_map(|round| round.redis_cpu_micros)),
            limiter_mb: most(&mut leased.iter().map(|round| round.memory_mb[1])),
            bytes_per_key: most(&mut million.iter().filter_map(|round| round.bytes_per_key)),
        })
    }
}

/// How much of a machine like the measured one a size takes.
fn needs(size: Size, costs: &Costs) -> Needs {
    let steps = |mb: f64| (mb / SHARE / STEP).ceil() * STEP;
    let halves = |cores: f64| (cores / SHARE * 2.0).ceil() / 2.0;
    let edits = size.edits_per_minute / 60.0;
    let cpu = edits * (costs.cpu_per_edit_ms / 1e3 + size.proxies * costs.cpu_per_delivery_us / 1e6);
    let limiter_cores = halves(size.decisions / costs.decisions_per_core);
    // One of the limiters may be away; the others then carry the load with the cores that each has.
    let limiters = (limiter_cores / 4.0).ceil() + 1.0;
    Needs {
        control_plane_mb: steps(between(&costs.memory, size.resources) + size.proxies * costs.stream_kb / 1e3),
        control_plane_cores: halves(cpu).max(1.0),
        reach_ms: between(&costs.reach, size.proxies),
        return_s: size.proxies * costs.cold_ms_per_proxy / 1e3,
        limiters,
        limiter_cores: (limiter_cores / (limiters - 1.0) * 2.0).ceil() / 2.0,
        limiter_mb: steps(costs.limiter_mb + size.keys * costs.bytes_per_key / 1e6),
        redis_cores: size.decisions * costs.redis_cpu_micros / 1e6,
        database_gb_per_month: edits * 86_400.0 * DAYS * costs.stored_bytes_per_edit / 1e9,
        size,
    }
}

/// On the line between the points to both sides; beyond the first and the last, theirs.
fn between(points: &[[f64; 2]], at: f64) -> f64 {
    let mut sorted = points.to_vec();
    sorted.sort_by(|one, other| one[0].total_cmp(&other[0]));
    let above = sorted.iter().position(|[x, _]| *x >= at);
    match above {
        Some(0) => sorted[0][1],
        Some(above) => {
            let ([x0, y0], [x1, y1]) = (sorted[above - 1], sorted[above]);
            y0 + (y1 - y0) * (at - x0) / (x1 - x0)
        }
        None => sorted.last().map_or(f64::NAN, |[_, y]| *y),
    }
}

impl Report {
    fn markdown(&self) -> String {
        let header = [
            "size",
            "proxies",
            "resources",
            "edits/min",
            "decisions/s",
            "control planes",
            "p99 of an edit",
            "fleet back in",
            "limiters",
            "Redis",
            "Postgres",
        ];
        let rows: Vec<Vec<String>> = self.sizes.iter().map(Needs::row).collect();
        format!(
            "# sizing\n\nWorked out from `api`, `xds-fleet` and `ratelimit`, each on the machine that its own report names. Programs are \
             planned to use half of what they\nare given, and one of each may be away.\n\n{}",
            table(&header, &rows),
        )
    }
}

impl Needs {
    fn row(&self) -> Vec<String> {
        let Size { name, proxies, resources, edits_per_minute, decisions, .. } = self.size;
        vec![
            name.to_owned(),
            thousands(proxies),
            thousands(resources),
            thousands(edits_per_minute),
            thousands(decisions),
            format!("2 × {}, {} MB", cores(self.control_plane_cores), thousands(self.control_plane_mb)),
            format!("{:.0} ms", self.reach_ms),
            format!("{:.1} s", self.return_s),
            format!("{} × {}, {} MB", self.limiters, cores(self.limiter_cores), thousands(self.limiter_mb)),
            format!("{:.0} % of a core", self.redis_cores * 100.0),
            format!("{:.2} GB a month", self.database_gb_per_month),
        ]
    }
}

fn cores(count: f64) -> String {
    format!("{count} {}", if count > 1.0 { "cores" } else { "core" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs() -> Costs {
        Costs {
            memory: vec![[10.0, 100.0], [10_000.0, 200.0]],
            cpu_per_edit_ms: 1.0,
            stored_bytes_per_edit: 2_000.0,
            stream_kb: 100.0,
            cpu_per_delivery_us: 40.0,
            reach: vec![[1_000.0, 60.0], [10_000.0, 300.0]],
            cold_ms_per_proxy: 2.0,
            decisions_per_core: 100_000.0,
            redis_cpu_micros: 2.0,
            limiter_mb: 60.0,
            bytes_per_key: 50.0,
        }
    }

    #[test]
    fn a_point_between_others_is_on_their_line() {
        let points = [[1_000.0, 60.0], [10_000.0, 300.0]];
        assert_eq!([500.0, 1_000.0, 5_500.0, 20_000.0].map(|at| between(&points, at)), [60.0, 60.0, 180.0, 300.0]);
    }

    #[test]
    fn the_largest_size_needs_what_its_parts_add_up_to() {
        let needs = needs(SIZES[3], &costs());
        // 200 MB of catalog and 10,000 streams of 100 KB, doubled, in steps.
        assert_eq!(needs.control_plane_mb, 2_560.0);
        // An edit a second, a millisecond and 10,000 deliveries of 40 µs, doubled: 0.8 of a core.
        assert_eq!(needs.control_plane_cores, 1.0);
        assert_eq!((needs.reach_ms, needs.return_s), (300.0, 20.0));
        // Four cores' worth, doubled, on two limiters of four; and one more.
        assert_eq!((needs.limiters, needs.limiter_cores), (3.0, 4.0));
        assert_eq!(needs.redis_cores, 0.8);
        // 60 × 60 × 24 × 30 edits of 2 KB.
        assert!((needs.database_gb_per_month - 5.184).abs() < 1e-9, "{}", needs.database_gb_per_month);
    }

    #[test]
    fn results_that_lack_a_part_say_which_command_makes_it() {
        let folder = tempfile::tempdir().unwrap();
        let error = run(folder.path()).unwrap_err();
        assert!(format!("{error:#}").contains("make bench ARGS=api"), "{error:#}");
    }
}
