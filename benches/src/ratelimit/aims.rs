//! What the limiter is to reach, beside what it reached: ratios within one run, which a quicker machine does not change.

use super::{
    case::Cores,
    load::Pace,
    results::{Measured, Report, Round, Summary},
    subject::Subject::{self, Envoyproxy, Exact, Floor, Leased, Memory},
};
use crate::{
    aims::{Aim, Bound, judged},
    report::milliseconds,
};

/// A table of all aims that this run can judge; what a server on Redis did without it is not among them.
pub(super) fn judge(report: &Report) -> String {
    judged(report.cases.iter().flat_map(of))
}

fn of(summary: &Summary) -> Vec<Aim> {
    let case = &summary.case;
    let mut aims = Vec::new();
    let valid = |server| summary.of(server).filter(|one| !one.is_void());
    let mut aim = |about: String, wanted, measured: Option<f64>| {
        aims.extend(measured.map(|measured| Aim { about, case: case.name, wanted, measured }));
    };
    let of_floor = |server| valid(server).and_then(|one| one.of_floor);
    match case.pace {
        _ if case.fill => {
            let memory = |of: fn(&Round) -> Option<f64>| summary.of(Memory)?.median_of(of);
            aim("memory per live key, bytes".into(), Bound::Most(64.0), memory(|round| round.bytes_per_key));
            let longest = memory(|round| round.longest_while_filling_ms);
            aim("longest answer while filling, ms".into(), Bound::Most(5.0), longest);
        }
        Pace::Open { .. } => {
            let p99 = |server| Some(milliseconds(valid(server)?.quantiles.p99));
            for server in [Memory, Leased, Exact] {
                let beyond = p99(server).zip(p99(Floor)).map(|(ours, floor)| ours - floor);
                aim(format!("{server}: p99 beyond the floor's, ms"), Bound::Most(0.3), beyond);
            }
        }
        Pace::Closed { .. } if case.cores == Cores::Shared => {
            aim(format!("{Memory} / floor"), Bound::Least(3.0), of_floor(Memory));
        }
        Pace::Closed { .. } if case.descriptors == 1 && !case.is_tight() => {
            aim(format!("{Memory} / floor"), Bound::Least(1.4), of_floor(Memory));
            aim(format!("{Leased} / floor"), Bound::Least(1.4), of_floor(Leased));
            aim(format!("{Exact} / floor"), Bound::Least(0.7), of_floor(Exact));
            aim(format!("{Exact} / {Envoyproxy}"), Bound::Least(6.0), ratio(summary, Exact, Envoyproxy));
            let calls = |one: &Measured| one.median_of(|round| round.redis_calls);
            aim(format!("{Leased}: Redis calls per decision"), Bound::Most(0.05), valid(Leased).and_then(calls));
        }
        Pace::Closed { .. } => {}
    }
    aims
}

fn ratio(summary: &Summary, ours: Subject, theirs: Subject) -> Option<f64> {
    let rate = |server| Some(summary.of(server).filter(|one| !one.is_void())?.median(|round| round.per_second));
    Some(rate(ours)? / rate(theirs)?)
}
