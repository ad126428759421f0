//! Breakers and outlier detection under the cap.

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::policy::p2c::{self, Candidate};

const FAILURE: Verdict = Verdict::Failure { gateway: true };

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn set(settings: Settings, endpoints: usize) -> (EndpointSet, Vec<EndpointId>) {
    let mut set = EndpointSet::new(settings, Duration::ZERO);
    let ids = (0..endpoints).map(|_| set.insert()).collect();
    (set, ids)
}

fn with_outlier() -> Settings {
    Settings { breaker: None, outlier: Some(outlier::Settings::default()), ..Settings::default() }
}

/// Sends a request to an endpoint, if that may be asked.
fn ask(set: &mut EndpointSet, id: EndpointId, verdict: Verdict, now: Duration) -> Option<Change> {
    let admission = set.admit(id, false, now)?;
    Some(set.record(id, admission, verdict, None, now, &mut || 0.0))
}

/// Fails an endpoint until it is out, or will not be.
fn fail(set: &mut EndpointSet, id: EndpointId, now: Duration) -> Change {
    let mut last = Change::None;
    for _ in 0..20 {
        match ask(set, id, FAILURE, now) {
            Some(change) => last = change,
            None => return last,
        }
    }
    last
}

#[test]
fn one_that_always_fails_of_three_is_out_by_either_way() {
    for settings in [Settings::default(), with_outlier()] {
        let (mut set, ids) = set(settings, 3);
        let (mut failed, mut chances) = (0, (0..).map(|number| f64::from(number * 7 % 10) / 10.0));
        for request in 0..90 {
            let now = Duration::from_millis(request * 10);
            let candidates: Vec<_> =
                ids.iter().map(|id| Candidate { weight: 1, standing: set.standing(*id, now), tried: false }).collect();
            let choice = p2c::choose(&candidates, |_| 1.0, [chances.next().unwrap(), chances.next().unwrap()]).unwrap();
            let verdict = if choice.index == 0 { FAILURE } else { Verdict::Success };
            failed += u32::from(choice.index == 0);
            let _ = ask(&mut set, ids[choice.index], verdict, now).unwrap();
        }
        assert_eq!(failed, 5, "of Envoy's 30");
        assert_eq!((set.out(), set.standing(ids[0], secs(0))), (1, Standing::Out));
    }
}

/// The state of a breaker, and for how many milliseconds its endpoint is ejected.
fn shown(set: &EndpointSet, id: EndpointId, now: Duration) -> (Option<Phase>, Option<u128>) {
    let condition = set.condition(id, now).unwrap();
    assert_eq!(condition.standing, set.standing(id, now));
    (condition.breaker, condition.ejected.map(|wait| wait.as_millis()))
}

#[test]
fn the_way_of_a_breaker_is_shown_and_counted() {
    let (mut set, ids) = set(Settings::default(), 3);
    let id = ids[0];
    let counts = |set: &EndpointSet| {
        let Counts { opened, opened_again, probed, closed, .. } = set.counts();
        [opened, opened_again, probed, closed]
    };
    assert_eq!(shown(&set, id, secs(0)), (Some(Phase::Closed), None));
    assert_eq!(fail(&mut set, id, secs(0)), Change::Opened);
    assert_eq!(shown(&set, id, Duration::from_millis(400)).0, Some(Phase::Open(Duration::from_millis(600))));
    assert_eq!(shown(&set, id, secs(1)).0, Some(Phase::HalfOpen), "a probe is due");
    assert_eq!(counts(&set), [1, 0, 0, 0]);

    let probe = set.admit(id, false, secs(1)).unwrap();
    assert_eq!(shown(&set, id, secs(2)).0, Some(Phase::HalfOpen), "a probe is under way");
    assert_eq!(set.record(id, probe, FAILURE, None, secs(2), &mut || 0.0), Change::OpenedAgain);
    assert_eq!(shown(&set, id, secs(2)).0, Some(Phase::Open(secs(2))));
    assert_eq!(counts(&set), [1, 1, 1, 0]);

    let _lost = set.admit(id, false, secs(4)).unwrap();
    assert_eq!(shown(&set, id, secs(14)).0, Some(Phase::Open(secs(4))), "its probe had no answer in ten seconds");
    assert_eq!(set.admit(id, false, secs(14)), None);
    assert_eq!(counts(&set), [1, 2, 2, 0]);

    assert_eq!(ask(&mut set, id, Verdict::Success, secs(18)), Some(Change::Back));
    assert_eq!(shown(&set, id, secs(18)).0, Some(Phase::Closed));
    assert_eq!(counts(&set), [1, 2, 3, 1]);
}

#[test]
fn an_ejection_is_shown_until_its_end() {
    let (mut set, ids) = set(with_outlier(), 3);
    assert_eq!(fail(&mut set, ids[0], secs(0)), Change::Ejected(Cause::Consecutive5xx));
    assert_eq!(shown(&set, ids[0], secs(10)), (None, Some(20_000)));
    assert_eq!(shown(&set, ids[1], secs(10)), (None, None));
    set.tick(secs(30), &mut || 0.0);
    assert_eq!(shown(&set, ids[0], secs(30)), (None, None));
    set.remove(ids[0], secs(30));
    assert_eq!(set.condition(ids[0], secs(30)), None);
}

#[test]
fn the_cap_leaves_somebody_to_ask() {
    for (endpoints, percent, out) in [
        (1, 10, 0),
        (1, 100, 0),
        (2, 10, 1),
        (2, 100, 1),
        (3, 10, 1),
        (10, 10, 1),
        (19, 10, 1),
        (20, 10, 2),
        (10, 50, 5),
        (10, 100, 9),
        (10, 1_000, 9),
        (10, 0, 0),
    ] {
        for settings in [Settings::default(), with_outlier()] {
            let (mut set, ids) = set(Settings { max_ejection_percent: percent, ..settings }, endpoints);
            for id in &ids {
                fail(&mut set, *id, Duration::ZERO);
            }
            assert_eq!(set.out(), out, "{percent} % of {endpoints}");
            assert_eq!(set.counts().refused > 0, out < endpoints, "what was refused is counted");
        }
    }
}

#[test]
fn the_cap_is_on_both_ways_together() {
    let settings = Settings { outlier: Some(outlier::Settings::default()), ..Settings::default() };
    let (mut set, ids) = set(settings, 3);
    assert_eq!(fail(&mut set, ids[0], Duration::ZERO), Change::Ejected(Cause::Consecutive5xx));
    assert_eq!(fail(&mut set, ids[1], Duration::ZERO), Change::Refused);
    assert_eq!(set.out(), 1);
    // Slow failures, for which only the breaker's rate is meant: half of the answers.
    for round in 0..10 {
        let verdict = if round % 2 == 0 { Verdict::Success } else { FAILURE };
        ask(&mut set, ids[1], verdict, Duration::ZERO);
    }
    assert_eq!((set.out(), set.counts().opened), (1, 0));
    assert_eq!(set.tick(secs(30), &mut || 0.0), [(ids[0], Change::Back)]);
    assert_eq!(ask(&mut set, ids[1], FAILURE, secs(30)), Some(Change::None), "the window has moved on");
    for _ in 0..3 {
        ask(&mut set, ids[1], Verdict::RateLimited, secs(30));
    }
    assert_eq!(ask(&mut set, ids[1], Verdict::RateLimited, secs(30)), Some(Change::Opened));
}

#[test]
fn what_was_refused_goes_as_soon_as_there_is_room() {
    let (mut set, ids) = set(Settings::default(), 3);
    assert_eq!(fail(&mut set, ids[0], Duration::ZERO), Change::Opened);
    assert_eq!(fail(&mut set, ids[1], Duration::ZERO), Change::Refused);
    assert_eq!(ask(&mut set, ids[0], Verdict::Success, secs(1)), Some(Change::Back));
    assert_eq!(ask(&mut set, ids[1], FAILURE, secs(1)), Some(Change::Opened));
}

#[test]
fn a_breaker_is_probed_and_an_ejection_just_ends() {
    let (mut breakers, ids) = set(Settings::default(), 2);
    fail(&mut breakers, ids[0], Duration::ZERO);
    assert_eq!(breakers.standing(ids[0], secs(1)), Standing::Probe);
    let probe = breakers.admit(ids[0], false, secs(1)).unwrap();
    assert!(probe.is_probe());
    assert_eq!((breakers.standing(ids[0], secs(1)), breakers.admit(ids[0], false, secs(1))), (Standing::Out, None));
    breakers.cancel(ids[0], probe, secs(1));
    assert_eq!(ask(&mut breakers, ids[0], FAILURE, secs(1)), Some(Change::OpenedAgain));
    assert_eq!(breakers.counts().opened, 1);

    let (mut outliers, ids) = set(with_outlier(), 2);
    fail(&mut outliers, ids[0], Duration::ZERO);
    assert_eq!(outliers.next_tick(), Some(secs(10)));
    for at in [10, 20] {
        assert_eq!(outliers.tick(secs(at), &mut || 0.0), []);
    }
    assert_eq!(outliers.standing(ids[0], secs(29)), Standing::Out);
    assert_eq!(outliers.next_tick(), Some(secs(30)));
    assert_eq!(outliers.tick(secs(30), &mut || 0.0), [(ids[0], Change::Back)]);
    assert_eq!(outliers.standing(ids[0], secs(30)), Standing::In);
    fail(&mut outliers, ids[0], secs(30));
    assert_eq!(outliers.tick(secs(89), &mut || 0.0), []);
    assert_eq!(outliers.tick(secs(90), &mut || 0.0), [(ids[0], Change::Back)], "twice as long");
}

#[test]
fn endpoints_are_compared_at_the_end_of_an_interval() {
    let (mut set, ids) = set(with_outlier(), 5);
    for number in 0..100 {
        for id in &ids {
            // One fails every other time, never often in a row.
            let verdict = if *id == ids[3] && number % 2 == 0 { FAILURE } else { Verdict::Success };
            assert_eq!(ask(&mut set, *id, verdict, secs(1)), Some(Change::None));
        }
    }
    assert_eq!(set.tick(secs(9), &mut || 0.0), []);
    assert_eq!(set.tick(secs(10), &mut || 0.0), [(ids[3], Change::Ejected(Cause::SuccessRate))]);
    assert_eq!(set.tick(secs(20), &mut || 0.0), [], "each interval for itself");
}

#[test]
fn an_endpoint_that_asks_for_time_gets_it() {
    let (mut set, ids) = set(Settings::default(), 2);
    let change = (0..5).map(|_| {
        let admission = set.admit(ids[0], false, Duration::ZERO).unwrap();
        set.record(ids[0], admission, Verdict::RateLimited, Some(secs(20)), Duration::ZERO, &mut || 0.0)
    });
    assert_eq!(change.last(), Some(Change::Opened));
    assert_eq!((set.standing(ids[0], secs(19)), set.standing(ids[0], secs(20))), (Standing::Out, Standing::Probe));
}

#[test]
fn when_endpoints_go_those_who_are_out_come_back() {
    let (mut set, ids) = set(Settings { max_ejection_percent: 50, ..Settings::default() }, 4);
    fail(&mut set, ids[0], Duration::ZERO);
    fail(&mut set, ids[1], Duration::from_millis(500));
    assert_eq!(set.remove(ids[3], secs(1)), [ids[0]], "one of three");
    assert_eq!(set.remove(ids[2], secs(1)), [], "one of two");
    assert_eq!(set.remove(ids[0], secs(1)), [ids[1]], "the last is never out");
    assert_eq!(set.standing(ids[1], secs(1)), Standing::In);
    assert_eq!(set.standing(ids[0], secs(1)), Standing::Out, "who is gone is not asked");
    assert_eq!(set.admit(ids[0], true, secs(1)), None);
}

#[test]
fn new_settings_bring_back_whom_they_do_not_keep_out() {
    let both =
        Settings { outlier: Some(outlier::Settings::default()), max_ejection_percent: 50, ..Settings::default() };
    let (mut set, ids) = set(both, 4);
    fail(&mut set, ids[0], Duration::ZERO);
    set.configure(Settings { outlier: None, ..both }, secs(1));
    assert_eq!(set.standing(ids[0], secs(1)), Standing::In);
    fail(&mut set, ids[1], secs(1));
    assert_eq!(set.configure(both, secs(1)), []);
    assert_eq!(set.standing(ids[1], secs(1)), Standing::Out, "what both know is kept");
    assert_eq!(set.configure(Settings { max_ejection_percent: 0, ..both }, secs(1)), [ids[1]]);
}

#[test]
fn in_a_panic_everyone_may_be_asked_and_nothing_is_counted() {
    let (mut set, ids) = set(Settings::default(), 2);
    fail(&mut set, ids[0], Duration::ZERO);
    for verdict in [Verdict::Success, FAILURE] {
        let admission = set.admit(ids[0], true, Duration::ZERO).unwrap();
        assert!(!admission.is_probe());
        assert_eq!(set.record(ids[0], admission, verdict, None, Duration::ZERO, &mut || 0.0), Change::None);
    }
    assert_eq!(set.standing(ids[0], Duration::from_millis(999)), Standing::Out);
}

/// What happens to a set.
#[derive(Clone, Debug)]
enum Act {
    Insert,
    Remove(usize),
    Ask(usize, Verdict),
    Cancel(usize),
    Configure(Box<Settings>),
}

fn settings() -> impl Strategy<Value = Settings> {
    (any::<bool>(), any::<bool>(), prop_oneof![Just(0), Just(10), Just(40), Just(100)]).prop_map(
        |(breaker, outlier, max_ejection_percent)| {
            let outlier = outlier.then(|| outlier::Settings {
                enforcing_consecutive_gateway_failure: 50,
                ..outlier::Settings::default()
            });
            Settings { breaker: breaker.then(breaker::Settings::default), outlier, max_ejection_percent }
        },
    )
}

fn acts() -> impl Strategy<Value = Act> {
    let verdict = prop_oneof![1 => Just(Verdict::Success), 4 => Just(FAILURE), 1 => Just(Verdict::RateLimited), 1 => Just(Verdict::Ignored)];
    prop_oneof![
        2 => Just(Act::Insert),
        1 => any::<usize>().prop_map(Act::Remove),
        30 => (0..6_usize, verdict).prop_map(|(which, verdict)| Act::Ask(which, verdict)),
        2 => (0..6_usize).prop_map(Act::Cancel),
        1 => settings().prop_map(|settings| Act::Configure(Box::new(settings))),
    ]
}

proptest! {
    #[test]
    fn the_cap_holds_whatever_happens(first in settings(), acts in vec((acts(), 0..800_u64), 0..250), mut seed in 0..97_u32) {
        let (mut set, mut ids) = set(first, 6);
        let mut settings = first;
        let mut now = Duration::ZERO;
        let mut chance = || { seed = seed * 31 % 97; f64::from(seed) / 97.0 };
        for (act, pause) in acts {
            now += Duration::from_millis(pause);
            set.tick(now, &mut chance);
            match act {
                Act::Insert => ids.push(set.insert()),
                Act::Remove(which) if !ids.is_empty() => { set.remove(ids.swap_remove(which % ids.len()), now); }
                Act::Configure(new) => { settings = *new; set.configure(settings, now); }
                Act::Ask(which, verdict) if !ids.is_empty() => {
                    let id = ids[which % ids.len()];
                    if let Some(admission) = set.admit(id, false, now) {
                        set.record(id, admission, verdict, None, now, &mut chance);
                    }
                }
                Act::Cancel(which) if !ids.is_empty() => {
                    let id = ids[which % ids.len()];
                    if let Some(admission) = set.admit(id, false, now) {
                        set.cancel(id, admission, now);
                    }
                }
                _ => {}
            }
            let most = if settings.max_ejection_percent == 0 { 0 } else {
                (ids.len() * settings.max_ejection_percent as usize / 100).max(1)
            };
            prop_assert!(set.out() <= most && (ids.is_empty() || set.out() < ids.len()), "{} of {} out", set.out(), ids.len());
            let standing_in = ids.iter().filter(|id| set.standing(**id, now) == Standing::In).count();
            prop_assert_eq!(standing_in, ids.len() - set.out());
        }
    }

    #[test]
    fn everybody_comes_back_in_the_end(failures in vec((0..6_usize, 0..900_u64), 0..300)) {
        let both = Settings { outlier: Some(outlier::Settings::default()), max_ejection_percent: 100, ..Settings::default() };
        let (mut set, ids) = set(both, 6);
        let mut now = Duration::ZERO;
        for (which, pause) in failures {
            now += Duration::from_millis(pause);
            set.tick(now, &mut || 0.0);
            ask(&mut set, ids[which], FAILURE, now);
        }
        now += secs(301);
        set.tick(now, &mut || 0.0);
        for id in &ids {
            prop_assert!(ask(&mut set, *id, Verdict::Success, now).is_some());
        }
        prop_assert_eq!(set.out(), 0);
    }
}
