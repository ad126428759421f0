//! Whether something grows: pure.
//!
//! A line is laid through what was seen after the warm-up, with the median of the slopes between all pairs of points (Theil and Sen), which
//! single peaks do not bend. What it gains from the end of the warm-up to the end is held against a bound: a part for what comes
//! and goes, and a part that is larger the longer the time.

use std::fmt;

use serde::Serialize;

/// How much something may grow.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Bound {
    /// However short the time.
    pub(crate) always: f64,
    /// On top, for each hour.
    pub(crate) an_hour: f64,
}

/// How much one thing of one process has grown.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Growth {
    process: String,
    what: &'static str,
    /// The first value after the warm-up, as the line says.
    from: f64,
    /// What the line gains until the end.
    gained: f64,
    /// What it may gain.
    allowed: f64,
}

impl Growth {
    /// Measures it on points of seconds and values, of which the share `warm_up` at the beginning does not count.
    pub(crate) fn measure(
        process: &str,
        what: &'static str,
        points: &[(f64, f64)],
        warm_up: f64,
        bound: Bound,
    ) -> Self {
        let end = points.last().map_or(0.0, |(seconds, _)| *seconds);
        let counted: Vec<_> = points.iter().filter(|(seconds, _)| *seconds >= end * warm_up).collect();
        let mut slopes = Vec::new();
        for (at, one) in counted.iter().enumerate() {
            slopes.extend(counted[at + 1..].iter().map(|other| (other.1 - one.1) / (other.0 - one.0)));
        }
        let slope = median(slopes);
        let from = median(counted.iter().map(|(seconds, value)| value - slope * (seconds - end * warm_up)).collect());
        let time = end * (1.0 - warm_up);
        let allowed = bound.always + bound.an_hour * time / 3600.0;
        Self { process: process.to_owned(), what, from, gained: slope * time, allowed }
    }

    /// Whether it is within bounds.
    pub(crate) fn is_within(&self) -> bool {
        self.gained <= self.allowed
    }

    /// For a table.
    pub(crate) fn row(&self) -> Vec<String> {
        let Self { process, what, from, gained, allowed } = self;
        let shown = |value: f64| {
            if what.contains("memory") { format!("{:.1} MB", value / 1e6) } else { format!("{value:.1}") }
        };
        let within = if self.is_within() { "yes" } else { "NO" };
        vec![process.clone(), (*what).to_owned(), shown(*from), shown(*gained), shown(*allowed), within.to_owned()]
    }
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { process, what, from, gained, allowed } = self;
        write!(f, "{what} of {process}: {gained:.0} on top of {from:.0}, of {allowed:.0} allowed")
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Bound = Bound { always: 10.0, an_hour: 100.0 };

    fn growth(value: impl Fn(f64) -> f64) -> Growth {
        let points: Vec<_> = (0..=360).map(|at| f64::from(at) * 10.0).map(|at| (at, value(at))).collect();
        Growth::measure("p", "memory", &points, 0.5, BOUND)
    }

    #[test]
    fn what_grows_steadily_is_found() {
        let grown = growth(|seconds| 1000.0 + seconds);
        assert!((grown.gained - 1800.0).abs() < 1.0 && (grown.from - 2800.0).abs() < 1.0, "{grown}");
        assert!((grown.allowed - 60.0).abs() < 1e-6 && !grown.is_within());
    }

    #[test]
    fn what_grows_at_first_only_or_comes_and_goes_is_not() {
        assert!(growth(|seconds| seconds.min(1700.0)).is_within());
        assert!(growth(|seconds| if seconds % 100.0 == 0.0 { 500.0 } else { 20.0 }).is_within());
        assert!(growth(|seconds| 2000.0 - seconds / 2.0).is_within());
    }

    #[test]
    fn nothing_seen_is_nothing_grown() {
        assert!(Growth::measure("p", "memory", &[], 0.5, BOUND).is_within());
    }
}
