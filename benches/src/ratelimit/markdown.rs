//! The report for people.

use std::{fmt::Write as _, time::Duration};

use super::{
    aims,
    results::{Measured, Report, Summary},
};
use crate::report::{milliseconds, table, thousands};

const HEADER: [&str; 12] = [
    "server",
    "decisions/s",
    "× floor",
    "p50 ms",
    "p99 ms",
    "p99.9 ms",
    "max ms",
    "CPU µs",
    "Redis calls",
    "Redis CPU µs",
    "load busy",
    "MB",
];

/// All of it.
pub(super) fn write(report: &Report) -> String {
    let mut text = format!("# ratelimit\n\n{}\n\n", report.machine);
    let _ = writeln!(
        text,
        "Rounds: {}, in which the servers took turns, started anew each time. Figures are medians of the rounds; × floor is the\n\
         median of the ratios to the floor of the same round. CPU, calls and CPU of Redis are per decision; \"load busy\" is the share of a core that the\n\
         load itself took: near 100 % it is the load that is measured. MB is what the server holds after the load.\n",
        report.rounds
    );
    for line in &report.left_out {
        let _ = writeln!(text, "- Left out: {line}");
    }
    let _ = writeln!(text, "\n## At a glance: decisions per second\n\n{}", overview(report));
    let _ = writeln!(text, "\n## Aims\n\nThe floor is stock tonic.\n\n{}", aims::judge(report));
    for summary in &report.cases {
        let _ = writeln!(text, "\n## {}\n\n{}.\n\n{}", summary.case.name, summary.case, details(summary));
        let _ = writeln!(text, "![latency](ratelimit-{}.svg)", summary.case.name);
    }
    text
}

fn overview(report: &Report) -> String {
    let mut header = vec!["case"];
    let mut servers: Vec<_> = report.cases.iter().flat_map(|summary| &summary.servers).map(|one| one.server).collect();
    servers.sort_unstable();
    servers.dedup();
    let names: Vec<String> = servers.iter().map(ToString::to_string).collect();
    header.extend(names.iter().map(String::as_str));
    let rows: Vec<Vec<String>> = report
        .cases
        .iter()
        .map(|summary| {
            let of =
                |server| summary.of(server).map_or_else(String::new, |one| thousands(one.median(|r| r.per_second)));
            [summary.case.name.to_owned()].into_iter().chain(servers.iter().copied().map(of)).collect()
        })
        .collect();
    table(&header, &rows)
}

fn details(summary: &Summary) -> String {
    let rows: Vec<Vec<String>> = summary.servers.iter().map(row).collect();
    let mut text = table(&HEADER, &rows);
    for problem in &summary.problems {
        let _ = writeln!(text, "\n{problem}");
    }
    for measured in &summary.servers {
        if let Some(bytes) = measured.median_of(|round| round.bytes_per_key) {
            let longest = measured.median_of(|round| round.longest_while_filling_ms).unwrap_or_default();
            let server = measured.server;
            let _ = writeln!(
                text,
                "\n{server}: {bytes:.0} bytes per live key; {longest:.1} ms the longest answer while filling."
            );
        }
        let unanswered: u64 = measured.rounds.iter().map(|round| round.unanswered).sum();
        if unanswered > 0 {
            let _ = writeln!(text, "\n{}: {unanswered} requests had no answer in the end.", measured.server);
        }
        let without = measured.rounds.iter().map(|round| round.without_redis).fold(0.0, f64::max);
        if measured.is_void() {
            let (server, percent) = (measured.server, without * 100.0);
            let _ = writeln!(
                text,
                "\n**{server}: up to {percent:.1} % were decided without Redis, which was too slow to be measured.**"
            );
        }
        let failed: u64 = measured.rounds.iter().map(|round| round.failed).sum();
        if failed > 0 {
            let _ = writeln!(text, "\n{}: {failed} requests failed (a second is their deadline).", measured.server);
        }
        let refused = measured.median(|round| round.refused_share);
        if refused > 0.0 {
            let _ = writeln!(text, "\n{}: {:.1} % refused.", measured.server, refused * 100.0);
        }
    }
    text
}

fn row(measured: &Measured) -> Vec<String> {
    let ms = |time: Duration| format!("{:.2}", milliseconds(time));
    let optional = |value: Option<f64>, digits| value.map_or_else(String::new, |value| format!("{value:.digits$}"));
    let quantiles = measured.quantiles;
    vec![
        measured.server.to_string(),
        thousands(measured.median(|round| round.per_second)),
        optional(measured.of_floor, 2),
        ms(quantiles.p50),
        ms(quantiles.p99),
        ms(quantiles.p999),
        ms(quantiles.max),
        format!("{:.2}", measured.median(|round| round.cpu_micros)),
        optional(measured.median_of(|round| round.redis_calls), 3),
        optional(measured.median_of(|round| round.redis_cpu_micros), 2),
        format!("{:.0} %", measured.median(|round| round.load_busy) * 100.0),
        format!("{:.1}", measured.median(|round| round.memory_mb[1])),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

    use super::*;
    use crate::{
        machine::Machine,
        ratelimit::{case, results::Round, subject::Subject},
    };

    fn measured(server: Subject, per_second: [f64; 3]) -> Measured {
        let round = |(number, per_second)| Round {
            number,
            per_second,
            refused_share: 0.0,
            cpu_micros: 4.0,
            redis_cpu_micros: None,
            redis_calls: server.on_redis().then_some(0.25),
            load_busy: 0.5,
            memory_mb: [8.0, 9.0],
            bytes_per_key: None,
            longest_while_filling_ms: None,
            without_redis: 0.0,
            failed: 0,
            unanswered: 0,
            latencies: vec![(1_000_000, 99), (3_000_000, 1)],
        };
        Measured::new(server, per_second.into_iter().enumerate().map(round).collect())
    }

    #[test]
    fn a_report_compares_with_the_floor_of_the_same_round() {
        let case = case::all().into_iter().find(|case| case.name == "one-key").unwrap();
        // The second round was slow for all.
        let servers = vec![
            measured(Subject::Floor, [100_000.0, 50_000.0, 110_000.0]),
            measured(Subject::Leased, [150_000.0, 75_000.0, 160_000.0]),
        ];
        let cases = vec![Summary::new(case, servers, Vec::new())];
        let report = Report { machine: Machine::describe(None), rounds: 3, left_out: vec!["envoy".into()], cases };
        let text = write(&report);
        let line = |start: &str| {
            let mut squeezed = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
            squeezed.rfind(|line| line.starts_with(start)).unwrap()
        };
        let wanted =
            "| chancery, Redis leased | 150,000 | 1.50 | 1.00 | 1.00 | 3.00 | 3.00 | 4.00 | 0.250 | | 50 % | 9.0 |";
        assert_eq!(line("| chancery, Redis leased |"), wanted);
        assert_eq!(
            line("| chancery, Redis leased / floor"),
            "| chancery, Redis leased / floor | one-key | ≥ 1.4 | 1.50 | met |"
        );
        let calls = "| chancery, Redis leased: Redis calls per decision | one-key | ≤ 0.05 | 0.25 | missed |";
        assert_eq!(line("| chancery, Redis leased: "), calls);
        assert_eq!(line("- Left out"), "- Left out: envoy");
    }

    #[test]
    fn what_was_decided_without_redis_meets_no_aim() {
        let case = case::all().into_iter().find(|case| case.name == "one-key").unwrap();
        let mut leased = measured(Subject::Leased, [150.0; 3]);
        leased.rounds[1].without_redis = 0.3;
        let servers = vec![measured(Subject::Floor, [100.0; 3]), leased];
        let cases = vec![Summary::new(case, servers, Vec::new())];
        let report = Report { machine: Machine::describe(None), rounds: 3, left_out: Vec::new(), cases };
        let text = write(&report);
        assert!(!text.contains("| met |") && !text.contains("| missed |"), "{text}");
        assert!(text.contains("were decided without Redis"), "{text}");
    }
}
