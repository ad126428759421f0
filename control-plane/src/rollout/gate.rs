//! Whether the error rate through the canaries speaks against a revision. Pure.

use crate::{load::Counts, model::fleet::ErrorRateGate};

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Through the canaries, before they had the revision.
    pub before: Counts,
    /// Through the others, since.
    pub others: Counts,
    /// Through the canaries, since.
    pub since: Counts,
}

/// Why `gate` does not hold, if it does not. The canaries are held against themselves before; if too little is known of that,
/// against the others now; if too little is known of them as well, nothing is said.
pub fn broken(gate: &ErrorRateGate, rates: &Rates) -> Option<String> {
    let rate = |counts: Counts| counts.error_rate().filter(|_| counts.requests() >= gate.min_requests);
    let now = rate(rates.since)? * 100.0;
    let (than, whose) = match (rate(rates.before), rate(rates.others)) {
        (Some(before), _) => (before, "before"),
        (None, Some(others)) => (others, "through the others"),
        (None, None) => return None,
    };
    let than = than * 100.0;
    let margin = gate.margin_percent;
    (now > than + f64::from(margin)).then(|| {
        let requests = rates.since.requests();
        format!("{now:.1} % of {requests} requests through the canaries failed, {than:.1} % {whose}: more than {margin} % worse")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(requests: u64, errors: u64) -> Counts {
        Counts { successes: requests - errors, errors, dropped: 0 }
    }

    #[test]
    fn the_canaries_are_held_against_themselves_before_or_the_others() {
        let gate = ErrorRateGate { margin_percent: 2, min_requests: 100 };
        let none = counts(0, 0);
        let cases = [
            (counts(1000, 10), none, counts(100, 3), None),
            (
                counts(1000, 10),
                none,
                counts(100, 4),
                Some("4.0 % of 100 requests through the canaries failed, 1.0 % before"),
            ),
            (counts(1000, 10), none, counts(99, 99), None),
            (counts(1000, 500), counts(1000, 0), counts(100, 50), None),
            (counts(99, 0), counts(1000, 480), counts(100, 50), None),
            (
                counts(99, 0),
                counts(1000, 0),
                counts(200, 50),
                Some("25.0 % of 200 requests through the canaries failed, 0.0 % through the others"),
            ),
            (none, counts(99, 0), counts(200, 200), None),
        ];
        for (before, others, since, expected) in cases {
            let found = broken(&gate, &Rates { before, others, since });
            let expected = expected.map(|words| format!("{words}: more than 2 % worse"));
            assert_eq!(found, expected, "{before:?} {others:?} {since:?}");
        }
    }
}
