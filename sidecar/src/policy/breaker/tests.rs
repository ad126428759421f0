//! The breaker against the numbers it is to keep, and against everything that can become of a probe.

use proptest::{collection::vec, prelude::*};

use super::*;

const FAILURE: Verdict = Verdict::Failure { gateway: false };

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// One that opens when it would.
struct Alone(Breaker);

impl Alone {
    fn new() -> Self {
        Self(Breaker::new(Settings::default()))
    }

    fn ask(&mut self, now: Duration, verdict: Verdict, chance: f64) -> Option<Judgement> {
        let pass = self.0.admit(now)?;
        let judgement = self.0.record(pass, verdict, now, chance);
        if judgement == Judgement::WouldOpen {
            self.0.open(now, chance, None);
        }
        Some(judgement)
    }

    /// One that opened at time zero, for a second.
    fn opened() -> Self {
        let mut alone = Self::new();
        while alone.ask(Duration::ZERO, FAILURE, 0.0).is_some() {}
        alone
    }
}

#[test]
fn it_stays_open_for_longer_each_time_and_starts_anew_when_closed() {
    for (chance, waits) in [
        (0.0, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]),
        (1.0, [1_500, 3_000, 6_000, 12_000, 24_000, 48_000, 90_000, 90_000]),
    ] {
        let mut alone = Alone::new();
        let mut now = Duration::ZERO;
        for _ in 0..4 {
            assert_eq!(alone.ask(now, FAILURE, chance), Some(Judgement::Unchanged));
        }
        assert_eq!(alone.ask(now, FAILURE, chance), Some(Judgement::WouldOpen));
        for wait in waits {
            assert_eq!(alone.0.until(), Some(now + ms(wait)));
            assert_eq!(alone.0.readiness(now + ms(wait - 1)), Readiness::Open);
            assert_eq!(alone.0.admit(now + ms(wait - 1)), None);
            now += ms(wait);
            assert_eq!(alone.ask(now, FAILURE, chance), Some(Judgement::OpenedAgain));
        }
        now = alone.0.until().unwrap();
        assert_eq!(alone.ask(now, Verdict::Success, chance), Some(Judgement::Closed));
        for _ in 0..5 {
            alone.ask(now, FAILURE, chance);
        }
        assert_eq!(alone.0.until(), Some(now + ms(waits[0])), "the count of openings begins anew");
    }
}

#[test]
fn one_request_probes_and_no_second() {
    let mut alone = Alone::opened();
    assert_eq!(alone.0.readiness(ms(1_000)), Readiness::Probe);
    let probe = alone.0.admit(ms(1_000)).unwrap();
    assert!(probe.is_probe());
    assert_eq!((alone.0.readiness(ms(1_001)), alone.0.admit(ms(1_001))), (Readiness::Open, None));
    assert_eq!(alone.0.record(probe, Verdict::Success, ms(1_002), 0.0), Judgement::Closed);
    assert!(!alone.0.admit(ms(1_002)).unwrap().is_probe());
}

#[test]
fn too_much_to_do_fails_a_probe() {
    let mut alone = Alone::opened();
    assert_eq!(alone.ask(ms(1_000), Verdict::RateLimited, 0.0), Some(Judgement::OpenedAgain));
}

#[test]
fn a_probe_without_an_answer_gives_its_place_back() {
    let mut alone = Alone::opened();
    let probe = alone.0.admit(ms(1_000)).unwrap();
    alone.0.cancel(probe, ms(1_500));
    let probe = alone.0.admit(ms(1_500)).unwrap();
    assert_eq!(alone.0.record(probe, Verdict::Ignored, ms(1_600), 0.0), Judgement::Unchanged);
    let probe = alone.0.admit(ms(1_600)).unwrap();
    assert!(probe.is_probe());
    assert_eq!(alone.0.record(probe, FAILURE, ms(1_600), 0.0), Judgement::OpenedAgain);
    assert_eq!(alone.0.until(), Some(ms(3_600)), "what decided nothing is not counted");
}

#[test]
fn a_probe_that_takes_too_long_has_failed() {
    let mut alone = Alone::opened();
    let lost = alone.0.admit(ms(1_000)).unwrap();
    assert_eq!(alone.0.admit(ms(10_999)), None);
    // Given up after ten seconds, and from then on two seconds open.
    assert_eq!(alone.0.admit(ms(11_000)), None);
    assert_eq!(alone.0.admit(ms(12_999)), None);
    let probe = alone.0.admit(ms(13_000)).unwrap();
    assert_eq!(alone.0.record(lost, Verdict::Success, ms(13_001), 0.0), Judgement::Unchanged, "too late");
    assert_eq!(alone.0.record(probe, FAILURE, ms(13_002), 0.0), Judgement::OpenedAgain);
    assert_eq!(alone.0.until(), Some(ms(17_002)));
}

#[test]
fn answers_from_before_it_opened_decide_nothing() {
    let mut alone = Alone::new();
    let [early, late]: [Pass; 2] = std::array::from_fn(|_| alone.0.admit(Duration::ZERO).unwrap());
    while alone.ask(Duration::ZERO, FAILURE, 0.0).is_some() {}
    assert_eq!(alone.0.record(early, Verdict::Success, ms(1), 0.0), Judgement::Unchanged);
    assert_eq!(alone.0.readiness(ms(1)), Readiness::Open);
    let probe = alone.0.admit(ms(1_000)).unwrap();
    assert_eq!(alone.0.record(late, Verdict::Success, ms(1_001), 0.0), Judgement::Unchanged);
    assert_eq!(alone.0.record(probe, Verdict::Success, ms(1_002), 0.0), Judgement::Closed);
}

#[test]
fn an_endpoint_can_ask_for_more_time() {
    let mut breaker = Breaker::new(Settings::default());
    breaker.open(Duration::ZERO, 0.0, Some(ms(7_000)));
    assert_eq!(breaker.until(), Some(ms(7_000)));
    breaker.close();
    breaker.open(Duration::ZERO, 0.0, Some(ms(7)));
    assert_eq!(breaker.until(), Some(ms(1_000)));
}

#[test]
fn new_settings_leave_an_open_one_open() {
    let mut alone = Alone::opened();
    let settings = Settings {
        accrual: failure_accrual::Settings { consecutive: Some(1), success_rate: None },
        ..Settings::default()
    };
    alone.0.configure(settings);
    assert_eq!(alone.0.admit(ms(999)), None);
    assert_eq!(alone.ask(ms(1_000), Verdict::Success, 0.0), Some(Judgement::Closed));
    assert_eq!(alone.ask(ms(1_000), FAILURE, 0.0), Some(Judgement::WouldOpen));
}

/// What callers do, one after another.
#[derive(Clone, Copy, Debug)]
enum Act {
    Ask,
    Answer(usize, Verdict),
    Cancel(usize),
    /// The caller forgets to give its pass back.
    Lose(usize),
}

fn acts() -> impl Strategy<Value = Act> {
    let verdict =
        prop_oneof![Just(Verdict::Success), Just(FAILURE), Just(Verdict::RateLimited), Just(Verdict::Ignored)];
    prop_oneof![
        4 => Just(Act::Ask),
        3 => (any::<usize>(), verdict).prop_map(|(which, verdict)| Act::Answer(which, verdict)),
        1 => any::<usize>().prop_map(Act::Cancel),
        1 => any::<usize>().prop_map(Act::Lose),
    ]
}

proptest! {
    #[test]
    fn whatever_becomes_of_probes_it_is_never_stuck(
        acts in vec((acts(), 0..4_000_u64), 0..120), chance in 0.0..1.0, lose_the_rest: bool,
    ) {
        let mut breaker = Breaker::new(Settings::default());
        let mut held: Vec<Pass> = Vec::new();
        let mut now = Duration::ZERO;
        for (act, pause) in acts {
            now += ms(pause);
            match act {
                Act::Ask => {
                    let readiness = breaker.readiness(now);
                    let pass = breaker.admit(now);
                    let expected = match readiness { Readiness::Closed => Some(false), Readiness::Probe => Some(true), Readiness::Open => None };
                    prop_assert_eq!(pass.as_ref().map(Pass::is_probe), expected);
                    if pass.as_ref().is_some_and(Pass::is_probe) {
                        prop_assert!(!held.iter().any(|held| held.probe && held.era == breaker.era), "two probes");
                    }
                    held.extend(pass);
                }
                Act::Answer(which, verdict) if !held.is_empty() => {
                    let pass = held.swap_remove(which % held.len());
                    if breaker.record(pass, verdict, now, chance) == Judgement::WouldOpen {
                        breaker.open(now, chance, None);
                    }
                }
                Act::Cancel(which) if !held.is_empty() => breaker.cancel(held.swap_remove(which % held.len()), now),
                Act::Lose(which) if !held.is_empty() => drop(held.swap_remove(which % held.len())),
                _ => {}
            }
        }
        if !lose_the_rest {
            held.drain(..).for_each(|pass| breaker.cancel(pass, now));
        }
        // The longest a probe may take, and the longest it then is open.
        let wait = ms(if lose_the_rest { 10_000 + 90_000 } else { 90_000 + 10_000 + 60_000 });
        prop_assert!(breaker.admit(now + wait).is_some());
    }

    #[test]
    fn a_cancelled_probe_lets_the_next_one_probe_at_once(times in 1..30_usize, pause in 0..9_999_u64) {
        let mut alone = Alone::opened();
        let mut now = ms(1_000);
        for _ in 0..times {
            let probe = alone.0.admit(now).unwrap();
            prop_assert!(probe.is_probe());
            now += ms(pause);
            alone.0.cancel(probe, now);
        }
        prop_assert_eq!(alone.ask(now, Verdict::Success, 0.0), Some(Judgement::Closed));
    }
}
