//! What was measured, as tables, beside what is aimed at.

use serde::Serialize;

use super::subject::Subject;
use crate::{machine::Machine, report::table};

/// Everything of one run.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) services: usize,
    pub(super) changes: u16,
    /// How many endpoints were changed at once, where many were.
    pub(super) together: usize,
    pub(super) measured: Vec<Measured>,
    /// Peers that did not serve the fleet, and why.
    pub(super) gave_up: Vec<String>,
}

/// One server with one fleet.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Measured {
    pub(super) subject: Subject,
    pub(super) proxies: usize,
    /// With the catalog, and one proxy served.
    pub(super) idle_kb: u64,
    /// Of a proxy that is connected and has no stream.
    pub(super) connection_kb: f64,
    /// Of one that has just been given all it asked for, its connection included.
    pub(super) served_kb: f64,
    /// The same after the changes, when what the rush took for a moment has gone back.
    pub(super) stream_kb: f64,
    /// Of one endpoint.
    pub(super) single: Changes,
    /// Of many endpoints at once.
    pub(super) many: Changes,
    /// Until a whole fleet is served after a restart.
    pub(super) cold_ms: f64,
    /// The same for one that says what it holds.
    pub(super) returning_ms: f64,
    /// Bytes per proxy in both.
    pub(super) bytes: [u64; 2],
    /// Streams that were told to come later in both.
    pub(super) put_off: [usize; 2],
}

/// What changes took.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Changes {
    /// From the request of a change until a proxy has it: p50, p99, longest.
    pub(super) reach_ms: [f64; 3],
    /// Of the server, per change and proxy.
    pub(super) cpu_per_delivery_us: f64,
    /// What of that the kernel took to send, to receive and to wake whoever waits.
    pub(super) kernel_per_delivery_us: f64,
}

impl Measured {
    /// Beyond what TLS and HTTP/2 keep of a connection.
    fn own_kb(&self) -> f64 {
        self.stream_kb - self.connection_kb
    }
}

impl Report {
    pub(super) fn markdown(&self) -> String {
        let header = [
            "server",
            "proxies",
            "idle MB",
            "conn KB",
            "served KB",
            "stream KB",
            "own KB",
            "p50 ms",
            "p99 ms",
            "max ms",
            "CPU µs",
            "kernel µs",
            "many p99 ms",
            "many CPU µs",
            "cold s",
            "returning s",
            "cold KB",
            "returning KB",
            "put off",
        ];
        let rows: Vec<_> = self.measured.iter().map(|one| self.row(one)).collect();
        let aims = ["aim", "proxies", "wanted", "measured", "verdict"];
        format!(
            "# xds-fleet\n\n{}\n\n{} services with an endpoint each, as many routes on one listener; delta ADS over mTLS on loopback, \
             the scripted proxies on the same machine.\nPer proxy: `conn` connected, after a refused request as large as the largest, \
             `served` just given all it asked for, `stream` after {} changes of one endpoint, when what the rush took for a moment has gone \
             back, `own` that less `conn`.\np50 to max: from the request of a change until a proxy has it. CPU: of the server, per change \
             and proxy; `kernel`: what of it the kernel took. `many`: {} endpoints changed at once; CPU per endpoint and proxy.\n`cold`, \
             `returning`: until the whole fleet is served after a restart of the server, handshakes included, with nothing and with known \
             versions; KB received per proxy.\n\n{}\n{}{}",
            self.machine,
            self.services,
            self.changes,
            self.together,
            table(&header, &rows),
            table(&aims, &self.aims()),
            self.gave_up.iter().map(|one| format!("\nGave up: {one}\n")).collect::<String>(),
        )
    }

    fn aims(&self) -> Vec<Vec<String>> {
        let ours = self.measured.iter().filter(|one| one.subject == Subject::Chancery);
        let mut rows = Vec::new();
        for one in ours {
            let mut aim = |about: &str, wanted: f64, least: bool, measured: f64| {
                let met = if least { measured >= wanted } else { measured <= wanted };
                let sign = if least { '≥' } else { '≤' };
                let verdict = if met { "met" } else { "missed" };
                let proxies = one.proxies.to_string();
                let cells = [about, &proxies, &format!("{sign} {wanted}"), &format!("{measured:.1}"), verdict];
                rows.push(cells.map(str::to_owned).to_vec());
            };
            aim("memory per stream, KB", 150.0, false, one.stream_kb);
            aim("memory per stream beyond its connection, KB", 30.0, false, one.own_kb());
            aim("p99 of a change, ms", 1000.0, false, one.single.reach_ms[1]);
            aim("CPU per delivered change, one by one, µs", 20.0, false, one.single.cpu_per_delivery_us);
            aim("CPU per delivered change, many at once, µs", 20.0, false, self.per_update(&one.many));
            let peers = self.measured.iter().filter(|peer| matches!(peer.subject, Subject::Snapshot | Subject::Linear));
            for peer in peers.filter(|peer| peer.proxies == one.proxies) {
                let wanted = if peer.subject == Subject::Snapshot { 3.0 } else { 1.0 };
                let cpu = peer.single.cpu_per_delivery_us / one.single.cpu_per_delivery_us;
                aim(&format!("{}: CPU per delivered change / ours", peer.subject), wanted, true, cpu);
                let memory = peer.stream_kb / one.stream_kb;
                aim(&format!("{}: memory per stream / ours", peer.subject), wanted, true, memory);
            }
        }
        rows
    }

    /// CPU per endpoint that was changed with others, and proxy that got it, in microseconds.
    fn per_update(&self, many: &Changes) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
        let together = self.together as f64;
        many.cpu_per_delivery_us / together
    }

    fn row(&self, one: &Measured) -> Vec<String> {
        #[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
        let kb = |bytes: u64| format!("{:.1}", bytes as f64 / 1024.0);
        let [p50, p99, max] = one.single.reach_ms.map(|ms| format!("{ms:.0}"));
        vec![
            one.subject.to_string(),
            one.proxies.to_string(),
            (one.idle_kb / 1024).to_string(),
            format!("{:.1}", one.connection_kb),
            format!("{:.1}", one.served_kb),
            format!("{:.1}", one.stream_kb),
            format!("{:.1}", one.own_kb()),
            p50,
            p99,
            max,
            format!("{:.1}", one.single.cpu_per_delivery_us),
            format!("{:.1}", one.single.kernel_per_delivery_us),
            format!("{:.0}", one.many.reach_ms[1]),
            format!("{:.2}", self.per_update(&one.many)),
            format!("{:.1}", one.cold_ms / 1e3),
            format!("{:.1}", one.returning_ms / 1e3),
            kb(one.bytes[0]),
            kb(one.bytes[1]),
            format!("{} {}", one.put_off[0], one.put_off[1]),
        ]
    }
}
