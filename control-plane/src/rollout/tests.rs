//! What follows from what was seen, second by second.

use std::time::Duration;

use super::*;
use crate::model::fleet::CanaryChoice;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn policy(on_failure: OnRolloutFailure) -> RolloutPolicy {
    RolloutPolicy {
        canaries: CanaryChoice::Percent(10),
        soak: Duration::from_secs(30),
        acknowledge_within: Duration::from_secs(60),
        error_rate: None,
        on_failure,
    }
}

fn at(seconds: u64) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn seen(canaries: &[(&str, bool)]) -> Seen {
    Seen { canaries: canaries.iter().map(|(id, has_it)| (name(id), *has_it)).collect(), failure: None }
}

fn bad() -> Seen {
    Seen { failure: Some(Failure::because("bad", at(0))), ..Seen::default() }
}

/// Revision 9 of a fleet at 7, given to `a` and `b` at the second 0.
fn begun() -> Rollout {
    Rollout::new(7).begin(9, [name("a"), name("b")].into(), true, at(0))
}

/// What becomes of `rollout`, with what is seen at some seconds.
fn after(rollout: &Rollout, policy: &RolloutPolicy, seen: Vec<(u64, Seen)>) -> Rollout {
    seen.into_iter()
        .fold(rollout.clone(), |rollout, (second, seen)| rollout.go_on(policy, seen, at(second)).unwrap_or(rollout))
}

/// What all have, what the canaries have, and how far that is.
fn state(rollout: &Rollout) -> (u64, u64, &'static str) {
    let phase = match rollout.last.as_ref().map(|last| &last.phase) {
        None => "idle",
        Some(Phase::Applying) => "applying",
        Some(Phase::Soaking { .. }) => "soaking",
        Some(Phase::Held { .. }) => "held",
        Some(Phase::Returned { .. }) => "returned",
        Some(Phase::Promoted { .. }) => "promoted",
    };
    (rollout.main(), rollout.canary(), phase)
}

fn reason(rollout: &Rollout) -> &str {
    match &rollout.last.as_ref().unwrap().phase {
        Phase::Held { failure } | Phase::Returned { failure } => &failure.reason,
        other => panic!("has not failed: {other:?}"),
    }
}

#[test]
fn a_revision_goes_to_the_canaries_and_then_to_all() {
    let policy = policy(OnRolloutFailure::Return);
    assert_eq!(state(&Rollout::new(7)), (7, 7, "idle"));
    let rollout = begun();
    assert_eq!((state(&rollout), rollout.under_way().is_some()), ((7, 9, "applying"), true));
    assert_eq!(rollout.go_on(&policy, seen(&[]), at(59)), None, "nothing happens");
    let one = after(&rollout, &policy, vec![(10, seen(&[("a", true)]))]);
    assert_eq!(state(&one), (7, 9, "applying"));
    let both = after(&one, &policy, vec![(20, seen(&[("a", true), ("b", true)]))]);
    assert_eq!(state(&both), (7, 9, "soaking"));
    assert_eq!(both.go_on(&policy, seen(&[("a", true), ("b", true)]), at(49)), None);
    let all = after(&both, &policy, vec![(50, seen(&[]))]);
    assert_eq!((state(&all), all.under_way(), all.tried()), ((9, 9, "promoted"), None, 9));
}

#[test]
fn what_speaks_against_it_returns_it_or_holds_it() {
    for (on_failure, expected) in
        [(OnRolloutFailure::Return, (7, 7, "returned")), (OnRolloutFailure::Hold, (7, 9, "held"))]
    {
        let policy = policy(on_failure);
        let soaking = after(&begun(), &policy, vec![(1, seen(&[("a", true), ("b", true)]))]);
        for rollout in [begun(), soaking] {
            let failed = after(&rollout, &policy, vec![(2, bad())]);
            assert_eq!((state(&failed), reason(&failed)), (expected, "bad"));
            assert_eq!((failed.under_way(), failed.tried()), (None, 9), "it is not tried again");
            assert_eq!(failed.go_on(&policy, bad(), at(3)), None);
        }
    }
    let promoted = after(
        &begun(),
        &policy(OnRolloutFailure::Return),
        vec![(1, seen(&[("a", true), ("b", true)])), (31, seen(&[])), (32, bad())],
    );
    assert_eq!(state(&promoted), (9, 9, "promoted"), "all have it, so nothing is taken back");
}

#[test]
fn who_does_not_acknowledge_in_time_or_stays_away_speaks_against_it() {
    let policy = policy(OnRolloutFailure::Return);
    let late = after(&begun(), &policy, vec![(59, seen(&[("a", true)])), (60, seen(&[]))]);
    assert_eq!((state(&late), reason(&late)), ((7, 7, "returned"), "b did not acknowledge it in time, or went away"));
    let nobody = Rollout::new(7).begin(9, BTreeSet::new(), true, at(0));
    assert_eq!(reason(&after(&nobody, &policy, vec![(60, seen(&[]))])), "no canary is connected");
    let came = after(&nobody, &policy, vec![(50, seen(&[("new", true)])), (80, seen(&[]))]);
    assert_eq!(state(&came), (9, 9, "promoted"));
    let crowd: Vec<Name> = (0..5).map(|n| name(&format!("p{n}"))).collect();
    let crowd = Rollout::new(7).begin(9, crowd.into_iter().collect(), true, at(0));
    let crowd = after(&crowd, &policy, vec![(60, seen(&[("p0", true)]))]);
    assert_eq!(reason(&crowd), "4 canaries have not acknowledged it or are away, one of them p4");

    let both = [("a", true), ("b", true)];
    let away = after(&begun(), &policy, vec![(10, seen(&both)), (30, seen(&[("b", false)]))]);
    assert_eq!(state(&after(&away, &policy, vec![(45, seen(&[]))])), (7, 9, "soaking"), "it may come back");
    assert_eq!(state(&after(&away, &policy, vec![(45, seen(&[])), (70, seen(&both))])), (9, 9, "promoted"));
    assert_eq!(state(&after(&away, &policy, vec![(90, seen(&[]))])), (7, 7, "returned"));
}

#[test]
fn where_nobody_is_connected_it_is_for_all_at_once() {
    let rollout = Rollout::new(7).begin(9, BTreeSet::new(), false, at(0));
    assert_eq!((state(&rollout), rollout.tried()), ((9, 9, "promoted"), 9));
}

#[test]
fn people_can_promote_and_return() {
    let hold = policy(OnRolloutFailure::Hold);
    let (held, returned) = (after(&begun(), &hold, vec![(1, bad())]), begun().give_back("ada", at(1)).unwrap());
    let promoted = begun().promote("ada", at(1)).unwrap();
    assert_eq!(state(&promoted), (9, 9, "promoted"));
    assert_eq!(state(&returned), (7, 7, "returned"));
    assert_eq!(reason(&returned), "was returned by hand");
    assert_eq!(state(&held.promote("ada", at(2)).unwrap()), (9, 9, "promoted"));
    let given_back = held.give_back("ada", at(2)).unwrap();
    assert_eq!((state(&given_back), reason(&given_back)), ((7, 7, "returned"), "bad"), "what was said stands");
    assert_eq!(state(&returned.promote("ada", at(2)).unwrap()), (9, 9, "promoted"));
    assert_eq!(returned.give_back("ada", at(2)), Err(Undecidable::Returned));
    for decided in [&Rollout::new(7), &promoted] {
        assert_eq!(decided.promote("ada", at(2)), Err(Undecidable::Nothing));
        assert_eq!(decided.give_back("ada", at(2)), Err(Undecidable::Nothing));
    }
}

#[test]
fn what_is_passed_over_is_settled_unless_what_failed_would_come_with_it() {
    let promoted = begun().promote("ada", at(1)).unwrap();
    for all_have_it in [Rollout::new(7), promoted] {
        let settled = all_have_it.settle(200).unwrap();
        assert_eq!((settled.main(), settled.canary(), settled.tried()), (200, 200, 200));
    }
    let held = after(&begun(), &policy(OnRolloutFailure::Hold), vec![(1, bad())]);
    for failed in [begun().give_back("ada", at(1)).unwrap(), held] {
        assert_eq!(failed.settle(200), None);
    }
}

#[test]
fn canaries_are_a_share_and_the_same_as_long_as_it_can_be() {
    let fleet = |n: u32| (0..n).map(|n| name(&format!("edge-{n}")));
    for (size, percent, expected) in
        [(0, 10, 0), (1, 1, 1), (3, 10, 1), (10, 10, 1), (11, 10, 2), (200, 25, 50), (7, 100, 7)]
    {
        assert_eq!(elect(fleet(size), percent).len(), expected, "{percent} % of {size}");
    }
    let (few, more) = (elect(fleet(100), 10), elect(fleet(100), 20));
    assert!(few.is_subset(&more));
    let without_one = elect(fleet(100).filter(|id| id != few.first().unwrap()), 10);
    assert_eq!(without_one.intersection(&few).count(), 9, "who is left stays");
}

#[test]
fn it_is_read_back_as_it_was_written() {
    let policy = policy(OnRolloutFailure::Hold);
    let failure = Failure {
        proxy: Some("a".to_owned()),
        resource_type: Some("Cluster".to_owned()),
        resources: vec!["shop".to_owned()],
        by: Some("ada".to_owned()),
        ..Failure::because("bad", at(5))
    };
    let failed = Seen { failure: Some(failure), ..Seen::default() };
    let soaking = after(&begun(), &policy, vec![(1, seen(&[("a", true), ("b", true)]))]);
    let all = [
        Rollout::new(7),
        begun(),
        soaking.clone(),
        after(&soaking, &policy, vec![(31, seen(&[]))]),
        after(&soaking, &policy, vec![(3, failed)]),
        begun().give_back("ada", at(1)).unwrap(),
    ];
    for rollout in all {
        let text = serde_json::to_string(&rollout).unwrap();
        assert_eq!(serde_json::from_str::<Rollout>(&text).unwrap(), rollout, "{text}");
    }
}
