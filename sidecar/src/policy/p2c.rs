//! Which endpoint a request goes to: of two that are drawn, the one that costs less ("the power of two choices",
//! Mitzenmacher; tower's `balance::p2c`).
//!
//! Endpoints are drawn by weight, and never the same twice: of two endpoints both are always looked at. What is compared is the cost
//! divided by the weight, so that one of weight 3 carries three times what one of weight 1 does when both are busy.
//!
//! Not all are drawn from, but the first of these that is not empty:
//! 1. those that are due a probe and have not been tried: nothing else brings them back, since what they cost is dear;
//! 2. those that are in, and have not been tried for this request;
//! 3. those that are in;
//! 4. panic: those that have not been tried; all. A request that probably fails is better than one that certainly does.

/// One endpoint, as far as drawing goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its share of what is drawn; zero counts as one.
    pub weight: u32,
    /// Whether it may be asked.
    pub standing: Standing,
    /// Whether this request has been sent to it before.
    pub tried: bool,
}

/// Whether an endpoint may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may.
    In,
    /// By one request, as a probe.
    Probe,
    /// It may not.
    Out,
}

/// What was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Which of the candidates.
    pub index: usize,
    /// Whether all are out.
    pub panic: bool,
}

/// Chooses one of `candidates`; none if there are none. Asks `cost` for two of them at most.
pub fn choose(candidates: &[Candidate], cost: impl Fn(usize) -> f64, chances: [f64; 2]) -> Option<Choice> {
    let tiers: [fn(&Candidate) -> bool; 5] = [
        |candidate| candidate.standing == Standing::Probe && !candidate.tried,
        |candidate| candidate.standing == Standing::In && !candidate.tried,
        |candidate| candidate.standing == Standing::In,
        |candidate| !candidate.tried,
        |_| true,
    ];
    tiers.iter().enumerate().find_map(|(tier, belongs)| {
        let index = choose_among(candidates, belongs, &cost, chances)?;
        Some(Choice { index, panic: tier >= 3 })
    })
}

fn choose_among(
    candidates: &[Candidate],
    belongs: &dyn Fn(&Candidate) -> bool,
    cost: impl Fn(usize) -> f64,
    chances: [f64; 2],
) -> Option<usize> {
    let first = draw(candidates, belongs, None, chances[0])?;
    let Some(second) = draw(candidates, belongs, Some(first), chances[1]) else { return Some(first) };
    let weighed = |index: usize| cost(index) / f64::from(candidates[index].weight.max(1));
    Some(if weighed(second) < weighed(first) { second } else { first })
}

/// Draws one by weight, not `except`.
fn draw(
    candidates: &[Candidate],
    belongs: &dyn Fn(&Candidate) -> bool,
    except: Option<usize>,
    chance: f64,
) -> Option<usize> {
    let weights = || {
        let eligible = candidates.iter().enumerate().filter(|(index, one)| belongs(one) && Some(*index) != except);
        eligible.map(|(index, one)| (index, u64::from(one.weight.max(1))))
    };
    let total: u64 = weights().map(|(_, weight)| weight).sum();
    // Below the total also if rounding, or the caller, says otherwise.
    let mut point = ((chance * total as f64) as u64).min(total.checked_sub(1)?);
    weights().find_map(|(index, weight)| {
        let hit = point < weight;
        point = point.saturating_sub(weight);
        hit.then_some(index)
    })
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const IN: Candidate = Candidate { weight: 1, standing: Standing::In, tried: false };
    const TRIED: Candidate = Candidate { tried: true, ..IN };
    const OUT: Candidate = Candidate { standing: Standing::Out, ..IN };
    const OUT_AND_TRIED: Candidate = Candidate { tried: true, ..OUT };
    const PROBE: Candidate = Candidate { standing: Standing::Probe, ..IN };
    const TRIED_PROBE: Candidate = Candidate { tried: true, ..PROBE };

    /// How often each is chosen, over an even grid of chances.
    fn shares(candidates: &[Candidate], cost: impl Fn(usize) -> f64) -> Vec<u32> {
        let mut shares = vec![0; candidates.len()];
        for first in 0..60 {
            for second in 0..60 {
                let choice = choose(candidates, &cost, [f64::from(first) / 60.0, f64::from(second) / 60.0]).unwrap();
                shares[choice.index] += 1;
            }
        }
        shares
    }

    #[test]
    fn the_cheaper_of_two_is_chosen() {
        assert_eq!(shares(&[IN; 2], |index| [0.2, 0.1][index]), [0, 3_600]);
        // Of three, the dearest never, the cheapest whenever it is drawn: two times of three.
        assert_eq!(shares(&[IN; 3], |index| [0.2, 0.1, 0.3][index]), [1_200, 2_400, 0]);
        assert_eq!(shares(&[IN; 3], |_| 0.1), [1_200; 3]);
    }

    #[test]
    fn weight_counts_in_drawing_and_in_comparing() {
        let heavy = Candidate { weight: 3, ..IN };
        assert_eq!(shares(&[heavy, IN], |index| [0.29, 0.1][index]), [3_600, 0]);
        assert_eq!(shares(&[heavy, IN], |index| [0.31, 0.1][index]), [0, 3_600]);
        let equal_per_weight = shares(&[heavy, IN], |index| [3.0, 1.0][index]);
        assert_eq!(equal_per_weight, [2_700, 900]);
        assert_eq!(shares(&[Candidate { weight: 0, ..IN }, IN], |_| 0.1), [1_800; 2]);
    }

    #[test]
    fn those_who_are_in_and_untried_come_first() {
        for (candidates, expected) in [
            (vec![OUT, IN, TRIED], Choice { index: 1, panic: false }),
            (vec![OUT, TRIED, OUT], Choice { index: 1, panic: false }),
            (vec![IN, PROBE, IN], Choice { index: 1, panic: false }),
            (vec![IN, TRIED_PROBE, TRIED], Choice { index: 0, panic: false }),
            (vec![OUT_AND_TRIED, OUT, OUT_AND_TRIED], Choice { index: 1, panic: true }),
            (vec![OUT_AND_TRIED, TRIED_PROBE, OUT], Choice { index: 2, panic: true }),
            (vec![OUT_AND_TRIED], Choice { index: 0, panic: true }),
        ] {
            for chance in [0.0, 0.5, 0.999] {
                assert_eq!(choose(&candidates, |_| 1.0, [chance; 2]), Some(expected), "{candidates:?}");
            }
        }
        assert_eq!(choose(&[], |_| 1.0, [0.0; 2]), None);
    }

    fn candidate() -> impl Strategy<Value = Candidate> {
        let standing = prop_oneof![3 => Just(Standing::In), 1 => Just(Standing::Probe), 2 => Just(Standing::Out)];
        (prop_oneof![0..5_u32, Just(u32::MAX)], standing, any::<bool>())
            .prop_map(|(weight, standing, tried)| Candidate { weight, standing, tried })
    }

    proptest! {
        #[test]
        fn nobody_who_is_out_is_chosen_while_somebody_is_in(
            candidates in vec(candidate(), 1..20), chances: [f64; 2], costs in vec(any::<f64>(), 20),
        ) {
            let choice = choose(&candidates, |index| costs[index], chances).unwrap();
            let chosen = candidates[choice.index];
            let may_be_asked = |one: &Candidate| one.standing == Standing::In || one.standing == Standing::Probe && !one.tried;
            let somebody_is_in = candidates.iter().any(may_be_asked);
            prop_assert_eq!(choice.panic, !somebody_is_in);
            prop_assert!(choice.panic || chosen.standing != Standing::Out);
            let untried_in = candidates.iter().any(|one| one.standing == Standing::In && !one.tried);
            prop_assert!(!chosen.tried || !untried_in, "another host is preferred");
        }
    }
}
