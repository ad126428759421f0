//! The decision against Envoy's documentation of its conditions, and against the rules that we add.

use proptest::prelude::*;

use super::*;
use crate::policy::retry_budget;

const NOW: Duration = Duration::ZERO;

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Of an idempotent request, tried once, with nothing in the way.
fn ended(outcome: Outcome) -> Ended {
    Ended {
        outcome,
        tries: 1,
        idempotent: true,
        replayable: true,
        headers_sent: false,
        remaining: None,
        pushback: Pushback::Unsaid,
        retriable_header: false,
        ratelimited: false,
        overloaded: false,
    }
}

fn on(list: &str) -> RetryPolicy {
    let (on, unknown) = Conditions::parse(list);
    assert!(unknown.is_empty(), "{unknown:?}");
    RetryPolicy { on, retries: 1, status_codes: vec![418, 429], ..RetryPolicy::default() }
}

fn budget() -> RetryBudget {
    RetryBudget::new(retry_budget::Settings::default())
}

fn decide(policy: &RetryPolicy, ended: &Ended) -> Decision {
    policy.decide(ended, &mut budget(), NOW, 0.0)
}

const RETRY: Decision = Decision::Retry(Duration::ZERO);

#[test]
fn conditions_mean_what_they_mean_in_envoy() {
    let grpc = |code: &str| Outcome::Response { status: 200, grpc: Some(GrpcStatus::parse(code.as_bytes())) };
    let outcomes: [(&str, Outcome); 22] = [
        ("200", Outcome::http(200)),
        ("404", Outcome::http(404)),
        ("409", Outcome::http(409)),
        ("429", Outcome::http(429)),
        ("500", Outcome::http(500)),
        ("502", Outcome::http(502)),
        ("503", Outcome::http(503)),
        ("504", Outcome::http(504)),
        ("505", Outcome::http(505)),
        ("connect", Outcome::Fault(Fault::Connect)),
        ("refused", Outcome::Fault(Fault::RefusedStream)),
        ("reset", Outcome::Fault(Fault::Reset)),
        ("malformed", Outcome::Fault(Fault::Malformed)),
        ("timeout", Outcome::Fault(Fault::TryTimeout)),
        ("overload", Outcome::Fault(Fault::LocalOverload)),
        ("gone", Outcome::Fault(Fault::Cancelled)),
        ("ok", grpc("0")),
        ("g1", grpc("1")),
        ("g4", grpc("4")),
        ("g8", grpc("8")),
        ("g13", grpc("13")),
        ("g14", grpc("14")),
    ];
    for (list, expected) in [
        ("", ""),
        ("5xx", "500 502 503 504 505 connect refused reset malformed timeout"),
        ("gateway-error", "502 503 504 connect refused reset malformed timeout"),
        ("reset", "connect refused reset malformed timeout"),
        ("reset-before-request", "connect"),
        ("connect-failure", "connect"),
        ("refused-stream", "refused"),
        ("retriable-4xx", "409"),
        ("retriable-status-codes", "429"),
        ("cancelled", "g1"),
        ("deadline-exceeded", "g4"),
        ("resource-exhausted", "g8"),
        ("internal", "g13"),
        ("unavailable", "g14"),
        ("unavailable, connect-failure", "connect g14"),
    ] {
        let policy = on(list);
        let retried = outcomes.iter().filter(|(_, outcome)| decide(&policy, &ended(*outcome)) == RETRY);
        assert_eq!(retried.map(|(name, _)| *name).collect::<Vec<_>>().join(" "), expected, "{list}");
    }
}

#[test]
fn headers_of_the_response_count() {
    let answer = ended(Outcome::http(503));
    for (list, ended, expected) in [
        ("retriable-headers", Ended { retriable_header: true, ..answer }, RETRY),
        ("retriable-headers", answer, Decision::Stop(Stop::NoCondition)),
        ("5xx", Ended { retriable_header: true, ..answer }, RETRY),
        ("5xx", Ended { ratelimited: true, ..answer }, Decision::Stop(Stop::NoCondition)),
        ("5xx,envoy-ratelimited", Ended { ratelimited: true, ..answer }, RETRY),
        ("5xx", Ended { overloaded: true, ..answer }, Decision::Stop(Stop::NoCondition)),
    ] {
        assert_eq!(decide(&on(list), &ended), expected, "{list} {ended:?}");
    }
}

#[test]
fn names_that_are_no_condition_are_told() {
    let (conditions, unknown) = Conditions::parse(" 5xx , whenever,,reset,5XX");
    assert_eq!(conditions, Conditions::SERVER_ERROR.with(Conditions::RESET));
    assert_eq!(unknown, ["whenever", "5XX"]);
}

#[test]
fn what_may_have_had_an_effect_is_not_repeated() {
    for (fault, expected) in [
        (Fault::Connect, RETRY),
        (Fault::Unsent, RETRY),
        (Fault::RefusedStream, RETRY),
        (Fault::Reset, Decision::Stop(Stop::NotIdempotent)),
        (Fault::TryTimeout, Decision::Stop(Stop::NotIdempotent)),
    ] {
        let post = Ended { idempotent: false, ..ended(Outcome::Fault(fault)) };
        assert_eq!(decide(&on("5xx"), &post), expected, "{fault:?}");
        assert_eq!(decide(&RetryPolicy { repeatable: true, ..on("5xx") }, &post), RETRY, "{fault:?}, repeatable");
    }
    let post = Ended { idempotent: false, ..ended(Outcome::http(503)) };
    assert_eq!(decide(&on("5xx"), &post), Decision::Stop(Stop::NotIdempotent));
}

#[test]
fn what_never_was_sent_is_sent_again_at_once_and_free_of_charge() {
    let unsent = Ended { idempotent: false, ..ended(Outcome::Fault(Fault::Unsent)) };
    let never = RetryPolicy::default();
    let mut spent = RetryBudget::new(retry_budget::Settings {
        ratio: 0.0,
        least_per_second: 0,
        ..retry_budget::Settings::default()
    });
    for tries in 1..=3 {
        assert_eq!(never.decide(&Ended { tries, ..unsent }, &mut spent, NOW, 0.9), RETRY);
    }
    for (ended, stop) in [
        (Ended { tries: 4, ..unsent }, Stop::NoCondition),
        (Ended { replayable: false, ..unsent }, Stop::BodyNotKept),
        (Ended { remaining: Some(Duration::ZERO), ..unsent }, Stop::Deadline),
    ] {
        assert_eq!(never.decide(&ended, &mut spent, NOW, 0.9), Decision::Stop(stop), "{ended:?}");
    }
}

#[test]
fn each_reason_to_stop_is_enough() {
    let policy = RetryPolicy { retries: 2, ..on("5xx") };
    let failed = ended(Outcome::http(503));
    for (ended, stop) in [
        (Ended { headers_sent: true, ..failed }, Stop::HeadersSent),
        (Ended { tries: 3, ..failed }, Stop::TriesSpent),
        (Ended { replayable: false, ..failed }, Stop::BodyNotKept),
        (Ended { pushback: Pushback::Never, ..failed }, Stop::PushedBack),
        (Ended { remaining: Some(Duration::ZERO), ..failed }, Stop::Deadline),
        (Ended { pushback: Pushback::After(ms(50)), remaining: Some(ms(50)), ..failed }, Stop::Deadline),
    ] {
        assert_eq!(decide(&policy, &ended), Decision::Stop(stop), "{ended:?}");
    }
    assert_eq!(decide(&policy, &Ended { tries: 2, ..failed }), RETRY);
}

#[test]
fn waits_are_those_of_the_policy_and_the_server() {
    let policy = RetryPolicy { retries: 9, ..on("5xx") };
    let wait = |tries, pushback, chance| {
        let ended = Ended { tries, pushback, ..ended(Outcome::http(503)) };
        policy.decide(&ended, &mut budget(), NOW, chance)
    };
    assert_eq!(wait(1, Pushback::Unsaid, 1.0), Decision::Retry(ms(25)));
    assert_eq!(wait(2, Pushback::Unsaid, 1.0), Decision::Retry(ms(75)));
    assert_eq!(wait(9, Pushback::Unsaid, 1.0), Decision::Retry(ms(250)));
    assert_eq!(wait(1, Pushback::After(ms(2_000)), 0.0), Decision::Retry(ms(2_000)));
    assert_eq!(wait(1, Pushback::After(ms(2_000)), 1.0), Decision::Retry(ms(2_025)));
}

#[test]
fn only_what_is_retried_is_paid() {
    let mut budget = RetryBudget::new(retry_budget::Settings {
        least_per_second: 0,
        ratio: 1.0,
        ..retry_budget::Settings::default()
    });
    budget.deposit(NOW);
    let failed = ended(Outcome::http(503));
    for stopped in [
        Ended { tries: 2, ..failed },
        Ended { idempotent: false, ..failed },
        Ended { replayable: false, ..failed },
        Ended { remaining: Some(Duration::ZERO), ..failed },
    ] {
        assert_ne!(on("5xx").decide(&stopped, &mut budget, NOW, 0.0), RETRY);
    }
    assert_eq!(on("5xx").decide(&failed, &mut budget, NOW, 0.0), RETRY);
    assert_eq!(on("5xx").decide(&failed, &mut budget, NOW, 0.0), Decision::Stop(Stop::Budget));
}

proptest! {
    #[test]
    fn what_a_client_has_begun_to_read_or_may_have_caused_is_never_repeated(
        bits: u16, status in 100..600_u16, tries in 1..5_u32, idempotent: bool, headers_sent: bool, remaining in proptest::option::of(0..300_u64),
        chance in 0.0..1.0,
    ) {
        let policy = RetryPolicy { on: Conditions(bits), retries: 3, ..RetryPolicy::default() };
        let remaining = remaining.map(ms);
        let ended = Ended { tries, idempotent, headers_sent, remaining, ..ended(Outcome::http(status)) };
        if let Decision::Retry(wait) = policy.decide(&ended, &mut budget(), NOW, chance) {
            prop_assert!(!headers_sent && idempotent && tries <= 3);
            prop_assert!(remaining.is_none_or(|remaining| wait < remaining));
        }
    }
}
