//! The report for people: tables, and which aims are met.

use std::fmt::Write as _;

use super::{
    results::{Measured, Memory, Report, Summary},
    subject::Subject::{Envoy, Floor, Sidecar},
};
use crate::{
    aims::{Aim, Bound, judged},
    report::{table, thousands},
};

const HEADER: [&str; 12] = [
    "subject",
    "requests/s",
    "CPU µs",
    "CPU × floor",
    "CPU × envoy",
    "MB",
    "+p50 µs",
    "+p99 µs",
    "+p99.9 µs",
    "load busy",
    "upstream µs",
    "failed",
];

/// All of it.
pub(super) fn write(report: &Report) -> String {
    let mut text = format!("# sidecar\n\n{}\n\n", report.machine);
    let _ = writeln!(
        text,
        "Rounds: {}, in which the subjects took turns, started anew each time. Figures are medians of the rounds. Requests per second,\n\
         CPU per request and MB (resident after the load) are of a closed loop. +p50 to +p99.9 are of an open loop: latency\n\
         from when a request was due, less that of the upstream alone in the same round. Ratios of CPU are within a round, too.\n\
         Floor, sidecar and upstream have one worker thread each, Envoy has `--concurrency 1`.\n\
         \"load busy\" is the share of a core that the load itself took, \"upstream µs\" what the upstream took per request beside it: where\n\
         the two fill their core, requests per second are theirs, and CPU is what compares the subjects.\n",
        report.rounds
    );
    for line in &report.left_out {
        let _ = writeln!(text, "- Left out: {line}");
    }
    let _ = writeln!(text, "\n## Aims\n\n{}", judged(aims(report)));
    let _ = writeln!(text, "Allocations are counted by `cargo test -p chancery-sidecar --test allocations`.");
    for summary in &report.cases {
        let Summary { case, .. } = summary;
        let _ = writeln!(text, "\n## {}\n\n{case}; {}.\n\n{}", case.name, rate(summary), details(summary));
        let _ = writeln!(text, "![latency](sidecar-{}.svg)", case.name);
    }
    let _ = writeln!(text, "\n## Memory\n\n{}", memory(report));
    text
}

fn rate(summary: &Summary) -> String {
    match summary.per_second {
        Some(rate) => {
            let rate = thousands(rate.into());
            format!("in open loop {rate} requests per second, half of what the slowest subject carries")
        }
        None => "no open loop".to_owned(),
    }
}

fn details(summary: &Summary) -> String {
    let rows: Vec<Vec<String>> = summary.subjects.iter().map(|measured| row(summary, measured)).collect();
    let mut text = table(&HEADER, &rows);
    for measured in summary.subjects.iter().filter(|measured| measured.is_void()) {
        let _ = writeln!(text, "\n**{}: too much failed for its figures to mean anything.**", measured.subject);
    }
    for problem in &summary.problems {
        let _ = writeln!(text, "\n{problem}");
    }
    text
}

fn row(summary: &Summary, measured: &Measured) -> Vec<String> {
    let subject = measured.subject;
    let number = |value: Option<f64>, digits| value.map_or_else(String::new, |value| format!("{value:.digits$}"));
    let added = |at: usize| number(summary.added(subject).map(|added| added[at]), 0);
    let worst = |of: &mut dyn Iterator<Item = f64>| of.fold(0.0, f64::max);
    let failed = worst(&mut measured.closed.iter().map(|round| round.failed))
        .max(worst(&mut measured.open.iter().map(|round| round.failed)));
    vec![
        subject.to_string(),
        measured.closed(|round| round.per_second).map_or_else(String::new, thousands),
        number(measured.cpu(), 1),
        number(summary.cpu_ratio(subject, Floor), 2),
        number(summary.cpu_ratio(subject, Envoy), 2),
        number(measured.closed(|round| round.memory_mb.unwrap_or(f64::NAN)).filter(|mb| !mb.is_nan()), 1),
        added(0),
        added(1),
        added(2),
        number(measured.closed(|round| round.load_busy * 100.0), 0) + " %",
        number(measured.closed(|round| round.upstream_micros), 1),
        format!("{:.2} %", failed * 100.0),
    ]
}

fn memory(report: &Report) -> String {
    let connections = format!("{} connections MB", thousands(report.connections as f64));
    let row = |memory: &Memory| {
        vec![memory.subject.to_string(), format!("{:.1}", memory.idle_mb), format!("{:.1}", memory.occupied_mb)]
    };
    let rows: Vec<_> = report.memory.iter().map(row).collect();
    table(&["subject", "idle MB", &connections], &rows)
}

/// What is aimed at; of what failed nothing is judged.
fn aims(report: &Report) -> Vec<Aim> {
    let mut aims = Vec::new();
    let mut aim = |about: &str, case, most, measured: Option<f64>| {
        let wanted = Bound::Most(most);
        aims.extend(measured.map(|measured| Aim { about: about.to_owned(), case, wanted, measured }));
    };
    for summary in &report.cases {
        let case = summary.case.name;
        aim("CPU per request / envoy", case, 0.75, summary.cpu_ratio(Sidecar, Envoy));
        aim("CPU per request / floor", case, 1.4, summary.cpu_ratio(Sidecar, Floor));
        if let Some([_, envoy, _]) = summary.added(Envoy) {
            let most = (envoy * 10.0).round() / 10.0;
            aim("added p99, µs; at most envoy's", case, most, summary.added(Sidecar).map(|[_, p99, _]| p99));
        }
    }
    if let Some(memory) = report.memory.iter().find(|memory| memory.subject == Sidecar) {
        aim("memory idle, MB", "memory", 20.0, Some(memory.idle_mb));
        aim("memory with connections, MB", "memory", 40.0, Some(memory.occupied_mb));
    }
    aims
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

    use super::*;
    use crate::{
        machine::Machine,
        sidecar::{
            case,
            results::{Closed, Open},
            subject::Subject::{self, Direct},
        },
    };

    fn measured(subject: Subject, cpu: [f64; 3], p99: [f64; 3], failed: f64) -> Measured {
        let closed = |(round, cpu): (usize, f64)| Closed {
            round,
            per_second: 20_000.0,
            cpu_micros: (subject != Direct).then_some(cpu),
            upstream_micros: 8.0,
            load_busy: 0.5,
            memory_mb: (subject != Direct).then_some(12.0),
            failed,
        };
        let open = |(round, p99): (usize, f64)| Open {
            round,
            micros: [100.0, p99, 2.0 * p99],
            cpu_micros: None,
            failed: 0.0,
            latencies: vec![(100_000, 99)],
        };
        let closed = cpu.into_iter().enumerate().map(closed).collect();
        Measured::new(subject, closed, p99.into_iter().enumerate().map(open).collect())
    }

    fn report(sidecar_failed: f64) -> String {
        let case = case::all(true).into_iter().next().unwrap();
        // The second round was slow for all.
        let subjects = vec![
            measured(Direct, [0.0; 3], [200.0, 900.0, 210.0], 0.0),
            measured(Floor, [10.0, 30.0, 10.0], [260.0, 990.0, 270.0], 0.0),
            measured(Sidecar, [13.0, 39.0, 13.0], [290.0, 1_000.0, 300.0], sidecar_failed),
            measured(Envoy, [20.0, 40.0, 20.0], [300.0, 1_100.0, 310.0], 0.0),
        ];
        let cases = vec![Summary { case, per_second: Some(5_000), subjects, problems: vec![] }];
        let memory = vec![Memory { subject: Sidecar, idle_mb: 9.0, occupied_mb: 41.0 }];
        let machine = Machine::describe(None);
        write(&Report { machine, rounds: 3, left_out: vec!["this".into()], cases, memory, connections: 1_000 })
    }

    fn squeezed(text: &str) -> Vec<String> {
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn subjects_are_compared_within_their_round() {
        let text = squeezed(&report(0.0));
        for wanted in [
            "| sidecar | 20,000 | 13.0 | 1.30 | 0.65 | 12.0 | 0 | 90 | 180 | 50 % | 8.0 | 0.00 % |",
            "| direct | 20,000 | | | | | 0 | 0 | 0 | 50 % | 8.0 | 0.00 % |",
            "| CPU per request / envoy | http1 | ≤ 0.75 | 0.65 | met |",
            "| CPU per request / floor | http1 | ≤ 1.4 | 1.30 | met |",
            "| added p99, µs; at most envoy's | http1 | ≤ 100 | 90.00 | met |",
            "| memory with connections, MB | memory | ≤ 40 | 41.00 | missed |",
            "| sidecar | 9.0 | 41.0 |",
            "- Left out: this",
        ] {
            assert!(text.iter().any(|line| line == wanted), "{wanted}\n{text:#?}");
        }
    }

    #[test]
    fn what_failed_meets_no_aim() {
        let text = report(0.01);
        assert!(!text.contains("CPU per request /") && !text.contains("added p99,"), "{text}");
        assert!(text.contains("sidecar: too much failed"), "{text}");
    }
}
