use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::model::{
    limit::Algorithm,
    rule::{Amount, Policy, Rule},
};

fn limit(requests: u32, per: Duration) -> Limit {
    Limit::new(requests, per, Some(1), Algorithm::TokenBucket).unwrap()
}

fn rule(name: &str) -> Arc<Rule> {
    Arc::new(Rule {
        index: 0,
        domain: "edge".into(),
        path: "edge.key".into(),
        amount: Amount::Unlimited,
        name: name.into(),
        replaces: Vec::new(),
        policy: Policy::default(),
        shadow: false,
        quota: false,
        detailed_metric: false,
        levels: Box::default(),
        body: None,
    })
}

fn status(admitted: bool, limit: Option<Limit>, remaining: u64, reset: Duration) -> Status {
    Status { admitted, limit, rule: None, remaining, reset }
}

fn statuses() -> impl Strategy<Value = Status> {
    let limits = (any::<u32>(), prop_oneof![Just(1_u64), Just(60), Just(3_600), Just(604_800), 1..1_000_000_u64])
        .prop_map(|(requests, seconds)| limit(requests, Duration::from_secs(seconds)));
    let rules = ".{0,20}".prop_map(|name| rule(&name));
    let resets = prop_oneof![Just(Duration::MAX), any::<u64>().prop_map(Duration::from_nanos), Just(Duration::ZERO)];
    let remaining = prop_oneof![Just(0), 0..200_u64, any::<u64>()];
    (any::<bool>(), prop::option::of(limits), prop::option::of(rules), remaining, resets)
        .prop_map(|(admitted, limit, rule, remaining, reset)| Status { admitted, limit, rule, remaining, reset })
}

proptest! {
    /// Both forms are the same bytes, behind the head of a gRPC message.
    #[test]
    fn what_is_written_is_the_message(
        admitted: bool,
        statuses in prop::collection::vec(statuses(), 0..6),
        violations in prop::collection::vec(0..6_usize, 0..3),
        headers in prop::sample::select(vec![
            ResponseHeaders::None, ResponseHeaders::XRateLimit, ResponseHeaders::Ietf, ResponseHeaders::Both,
        ]),
    ) {
        let verdict = Verdict {
            admitted,
            tightest: statuses.iter().position(|status| status.limit.is_some()),
            statuses: statuses.into_iter().collect(),
            body: (!admitted).then(|| Bytes::from("slow down")),
            violations,
        };
        let answers = Answers::new(headers);
        let mut out = BytesMut::from(&b"before"[..]);
        answers.write(&verdict, &mut out);
        let frame = &out[b"before".len()..];
        prop_assert_eq!(frame[0], 0);
        prop_assert_eq!(u32::from_be_bytes(frame[1..5].try_into().unwrap()) as usize, frame.len() - FRAME_HEAD);
        let message = answers.message(&verdict);
        prop_assert_eq!(&frame[FRAME_HEAD..], message.encode_to_vec());
        prop_assert_eq!(pb::RateLimitResponse::decode(&frame[FRAME_HEAD..]), Ok(message));
    }
}

#[test]
fn the_code_is_never_unknown() {
    for (admitted, code) in [(true, 1), (false, 2)] {
        let verdict = Verdict { admitted, ..Verdict::default() };
        assert_eq!(Answers::default().message(&verdict).overall_code, code);
    }
}

#[test]
fn a_reset_is_rounded_up_to_whole_seconds() {
    let second = limit(5, Duration::from_secs(60));
    for (reset, seconds) in [(0, 0), (1, 1), (1_000, 1), (1_001, 2)] {
        let status = status(true, Some(second), 4, Duration::from_millis(reset));
        assert_eq!(status_message(&status).duration_until_reset.unwrap().seconds, seconds, "{reset} ms");
    }
    let long = status(false, Some(second), 0, Duration::MAX);
    assert!(reset_seconds(&long).is_some_and(|seconds| seconds < i32::MAX as u64));
}

#[test]
fn a_status_without_a_limit_says_only_that_it_is_admitted() {
    let message = status_message(&status(true, None, u64::MAX, Duration::ZERO));
    assert_eq!((message.code, message.limit_remaining), (1, u32::MAX));
    assert_eq!((message.current_limit, message.duration_until_reset), (None, None));
}

#[test]
fn places_of_exceeded_quotas_are_metadata() {
    let metadata = |violations: &[usize]| {
        let verdict = Verdict { admitted: true, violations: violations.to_vec(), ..Verdict::default() };
        Answers::default().message(&verdict).dynamic_metadata
    };
    assert_eq!(metadata(&[]), None);
    let fields = metadata(&[0, 2]).unwrap().fields;
    let Some(google::protobuf::value::Kind::ListValue(list)) = &fields["quotaModeViolations"].kind else {
        panic!("no list: {fields:?}");
    };
    let number = |value: f64| Some(google::protobuf::value::Kind::NumberValue(value));
    let kinds: Vec<_> = list.values.iter().map(|value| value.kind.clone()).collect();
    assert_eq!(kinds, [number(0.0), number(2.0)]);
}

#[test]
fn headers_tell_of_the_scarcest_limit_or_of_all() {
    let minute = limit(60, Duration::from_secs(60));
    let hour = limit(1_000, Duration::from_secs(3_600));
    let verdict = Verdict {
        admitted: true,
        statuses: [
            Status { rule: Some(rule("per \"hour\"")), ..status(true, Some(hour), 900, Duration::from_secs(9)) },
            status(true, Some(minute), 12, Duration::from_millis(1_500)),
            status(true, None, 0, Duration::ZERO),
        ]
        .into_iter()
        .collect(),
        tightest: Some(1),
        ..Verdict::default()
    };
    let text = |headers| {
        let message = Answers::new(headers).message(&verdict);
        let lines = message.response_headers_to_add.iter().map(|header| format!("{}: {}", header.key, header.value));
        lines.collect::<Vec<_>>()
    };
    assert!(text(ResponseHeaders::None).is_empty());
    let customary = ["x-ratelimit-limit: 60", "x-ratelimit-remaining: 12", "x-ratelimit-reset: 2"];
    assert_eq!(text(ResponseHeaders::XRateLimit), customary);
    let ietf = [
        r#"ratelimit-policy: "per \"hour\"";q=1000;w=3600, "default";q=60;w=60"#,
        r#"ratelimit: "per \"hour\"";r=900;t=9, "default";r=12;t=2"#,
    ];
    assert_eq!(text(ResponseHeaders::Ietf), ietf);
    assert_eq!(text(ResponseHeaders::Both), [customary.as_slice(), ietf.as_slice()].concat());
}
