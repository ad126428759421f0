mod examples;

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::model::{
    limit::{Limit, Unit},
    rule::{Amount, Policy, WithoutRedis},
};

fn read(text: &str) -> Result<Vec<DomainSpec>, Vec<String>> {
    parse("limits.yaml", text.as_bytes(), Algorithm::TokenBucket)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

/// The only domain of `text`.
fn good(text: &str) -> DomainSpec {
    let mut specs = read(text).unwrap_or_else(|problems| panic!("{text}\n{}", problems.join("\n")));
    assert_eq!(specs.len(), 1, "{text}");
    specs.remove(0)
}

fn limited(requests: u32, unit: Unit) -> Amount {
    Amount::Limited(Limit::new(requests, unit.duration(), None, Algorithm::TokenBucket).unwrap())
}

fn amount(level: &DescriptorSpec) -> Amount {
    level.limit.as_ref().unwrap().amount
}

#[test]
fn nested_rules_with_every_flag() {
    let spec = good(
        r#"
        domain: messages
        descriptors:
          - key: kind
            value: newsletter
            value_to_metric: yes
            descriptors:
              - key: to_number
                rate_limit: { unit: DAY, requests_per_unit: 5 }
                detailed_metric: true
                quota_mode: true
          - key: to_number
            value: 4930123456
            rate_limit:
              name: per-number
              replaces: [{ name: wide }, { name: "wider" }]
              unit: week
              requests_per_unit: 1_000
            shadow_mode: true
          - key: file
            value: img/*
            share_threshold: true
            rate_limit:
              unlimited: true
        "#,
    );
    assert_eq!((spec.name.as_str(), spec.origin.as_str()), ("messages", "limits.yaml"));
    let [kind, number, file] = spec.descriptors.as_slice() else { panic!("{spec:?}") };
    assert_eq!((kind.key.as_str(), kind.value.as_str(), kind.value_to_metric), ("kind", "newsletter", true));
    assert_eq!(kind.limit, None);
    let nested = &kind.descriptors[0];
    assert_eq!(amount(nested), limited(5, Unit::Day));
    assert!(nested.detailed_metric && nested.quota_mode && !nested.shadow_mode);
    let limit = number.limit.as_ref().unwrap();
    assert_eq!((number.value.as_str(), number.shadow_mode), ("4930123456", true));
    assert_eq!((limit.name.as_str(), limit.amount), ("per-number", limited(1000, Unit::Week)));
    assert_eq!(limit.replaces, ["wide", "wider"]);
    assert_eq!((amount(file), file.share_threshold), (Amount::Unlimited, true));
}

#[test]
fn what_this_limiter_adds() {
    let spec = good(
        r#"
        domain: d
        descriptors:
          - key: k
            rate_limit:
              requests_per_unit: 10
              per: 250ms
              burst: 30
              debt: true
              strict: true
              when_redis_is_down: deny
              body: '{"error":"slow down"}'
          - key: l
            rate_limit: { requests_per_unit: 3, unit: minute, algorithm: fixed-window, when_redis_is_down: allow }
        "#,
    );
    let limit = spec.descriptors[0].limit.as_ref().unwrap();
    let bucket = Limit::new(10, Duration::from_millis(250), Some(30), Algorithm::TokenBucket).unwrap();
    assert_eq!(limit.amount, Amount::Limited(bucket));
    assert_eq!(limit.policy, Policy { debt: true, strict: true, without_redis: WithoutRedis::Deny });
    assert_eq!(limit.body.as_deref(), Some(&br#"{"error":"slow down"}"#[..]));
    let limit = spec.descriptors[1].limit.as_ref().unwrap();
    let window = Limit::new(3, Duration::from_secs(60), None, Algorithm::FixedWindow).unwrap();
    assert_eq!((limit.amount, limit.policy.without_redis), (Amount::Limited(window), WithoutRedis::Allow));
}

#[test]
fn the_algorithm_is_the_callers_unless_a_rule_says_otherwise() {
    let text = b"{domain: d, descriptors: [{key: a, rate_limit: {unit: day, requests_per_unit: 1}}, \
        {key: b, rate_limit: {unit: day, requests_per_unit: 1, algorithm: token-bucket}}]}";
    let spec = parse("f", text, Algorithm::FixedWindow).unwrap().remove(0);
    let algorithms: Vec<Algorithm> = spec
        .descriptors
        .iter()
        .map(|level| match amount(level) {
            Amount::Limited(limit) => limit.algorithm(),
            Amount::Unlimited => panic!("unlimited"),
        })
        .collect();
    assert_eq!(algorithms, [Algorithm::FixedWindow, Algorithm::TokenBucket]);
}

#[test]
fn several_documents_are_several_domains() {
    let specs = read("---\ndomain: a\n---\n# nothing\n---\ndomain: b\ndescriptors:\n").unwrap();
    let named: Vec<_> = specs.iter().map(|spec| (spec.name.as_str(), spec.origin.as_str())).collect();
    assert_eq!(named, [("a", "limits.yaml#1"), ("b", "limits.yaml#2")]);
}

#[test]
fn aliases_and_merged_mappings_are_what_they_stand_for() {
    let spec = good(
        "domain: d\ndescriptors:\n- key: a\n  rate_limit: &slow { unit: hour, requests_per_unit: 7 }\n\
         - key: b\n  rate_limit: *slow\n- key: c\n  rate_limit: { <<: *slow, unit: day }\n",
    );
    let amounts: Vec<Amount> = spec.descriptors.iter().map(amount).collect();
    assert_eq!(amounts, [limited(7, Unit::Hour), limited(7, Unit::Hour), limited(7, Unit::Day)]);
}

#[test]
fn each_mistake_is_told_with_its_place() {
    let limit = "domain: d\ndescriptors:\n- key: k\n  rate_limit:\n    ";
    let cases: &[(&str, &[&str])] = &[
        ("", &["limits.yaml: holds no domain"]),
        ("# only words\n", &["limits.yaml: holds no domain"]),
        ("- a\n", &["limits.yaml:1:1: expected a mapping, found a list"]),
        (
            "domain: d\ndescriptors:\n- key: k\n  ratelimit:\n    unit: day\n",
            &["limits.yaml:4:3: descriptors[0]: unknown key \"ratelimit\": did you mean \"rate_limit\"?"],
        ),
        (
            "domain: d\ndescriptors:\n- key: k\n  colour: red\n  unit: day\n",
            &[
                "limits.yaml:4:3: descriptors[0]: unknown key \"colour\": known here are key, value, rate_limit, descriptors, \
                 shadow_mode, quota_mode, detailed_metric, value_to_metric, share_threshold",
                "limits.yaml:5:3: descriptors[0]: key \"unit\" belongs into rate_limit, not here",
            ],
        ),
        (
            "domain: d\ndescriptors: [a, b]\n",
            &[
                "limits.yaml:2:15: descriptors[0]: expected a mapping, found a scalar",
                "limits.yaml:2:18: descriptors[1]: expected a mapping, found a scalar",
            ],
        ),
        ("domain: d\ndescriptors: 7\n", &["limits.yaml:2:14: descriptors: expected a list, found a scalar"]),
        ("domain: [d]\n", &["limits.yaml:1:9: domain: expected a text, found a list"]),
        ("domain: d\ndomain: e\n", &["limits.yaml:2:1: key \"domain\" is given twice"]),
        ("domain: d\n? [a]\n: b\n", &["limits.yaml:2:3: a key must be a text"]),
        ("domain: !mine d\n", &["limits.yaml:1:9: tag \"!mine\" has no meaning here"]),
        (
            &format!("{limit}unit: fortnight\n    requests_per_unit: -5\n"),
            &[
                "limits.yaml:5:11: descriptors[0].rate_limit.unit: \"fortnight\" is not a unit: one of second, minute, hour, \
                 day, week, month, year",
                "limits.yaml:6:24: descriptors[0].rate_limit.requests_per_unit: \"-5\" is out of range: from 0 to 4294967295",
            ],
        ),
        (
            &format!("{limit}unit: day\n    requests_per_unit: 4294967296\n"),
            &[
                "limits.yaml:6:24: descriptors[0].rate_limit.requests_per_unit: \"4294967296\" is out of range: from 0 to \
               4294967295",
            ],
        ),
        (
            &format!("{limit}unit: day\n    requests_per_unit: 010\n"),
            &[
                "limits.yaml:6:24: descriptors[0].rate_limit.requests_per_unit: \"010\" is octal to some readers and decimal \
               to others: leave the zero away",
            ],
        ),
        (
            &format!("{limit}unit: day\n    requests_per_unit: '10'\n"),
            &[
                "limits.yaml:6:24: descriptors[0].rate_limit.requests_per_unit: expected a whole number, found a quoted text",
            ],
        ),
        (
            &format!("{limit}unit: day\n    requests_per_unit: 1.5\n"),
            &["limits.yaml:6:24: descriptors[0].rate_limit.requests_per_unit: \"1.5\" is not a whole number"],
        ),
        (
            &format!("{limit}unit: day\n"),
            &[
                "limits.yaml:5:5: descriptors[0].rate_limit: requests_per_unit is missing: how many are admitted, 0 for none",
            ],
        ),
        (
            &format!("{limit}requests_per_unit: 1\n"),
            &[
                "limits.yaml:5:5: descriptors[0].rate_limit: unit is missing: one of second, minute, hour, day, week, month, \
               year",
            ],
        ),
        (
            &format!("{limit}unlimited: true\n    unit: day\n    burst: 3\n"),
            &[
                "limits.yaml:6:11: descriptors[0].rate_limit.unit: has no meaning where the limit is unlimited",
                "limits.yaml:7:12: descriptors[0].rate_limit.burst: has no meaning where the limit is unlimited",
            ],
        ),
        (
            &format!("{limit}requests_per_unit: 1\n    unit: day\n    per: 3s\n"),
            &["limits.yaml:7:10: descriptors[0].rate_limit.per: stands beside unit: give one of them"],
        ),
        (
            &format!("{limit}requests_per_unit: 1\n    per: 3 s\n"),
            &[
                "limits.yaml:6:10: descriptors[0].rate_limit.per: \"3 s\" is not a duration such as 250ms, 10s, 5m, 1h or 7d",
            ],
        ),
        (
            &format!("{limit}requests_per_unit: 1\n    per: 367d\n"),
            &["limits.yaml:6:10: descriptors[0].rate_limit.per: the period must be between 1ms and 366 days"],
        ),
        (
            &format!("{limit}requests_per_unit: 1\n    unit: day\n    burst: 0\n"),
            &["limits.yaml:7:12: descriptors[0].rate_limit.burst: the burst must be at least 1"],
        ),
        (
            &format!("{limit}requests_per_unit: 1\n    unit: day\n    burst: 3\n    algorithm: fixed-window\n"),
            &["limits.yaml:7:12: descriptors[0].rate_limit.burst: is for token buckets; a fixed window admits \
               requests_per_unit at once"],
        ),
        (
            &format!(
                "{limit}requests_per_unit: 1\n    unit: day\n    algorithm: leaky\n    when_redis_is_down: panic\n"
            ),
            &[
                "limits.yaml:7:16: descriptors[0].rate_limit.algorithm: \"leaky\" is not one of token-bucket, fixed-window",
                "limits.yaml:8:25: descriptors[0].rate_limit.when_redis_is_down: \"panic\" is not one of local, allow, deny",
            ],
        ),
        (
            "domain: d\ndescriptors:\n- key: k\n  shadow_mode: perhaps\n",
            &["limits.yaml:4:16: descriptors[0].shadow_mode: \"perhaps\" is neither true nor false"],
        ),
    ];
    for (text, expected) in cases {
        let told = read(text).err().unwrap_or_default();
        assert_eq!(told, *expected, "{text}");
    }
}

#[test]
fn what_is_wrong_with_the_rules_is_told_on_its_line() {
    let limit = "rate_limit: {unit: day, requests_per_unit: 1";
    let cases: &[(&str, &[&str])] = &[
        ("descriptors:\n", &["limits.yaml:1:1: domain: the domain must not be empty"]),
        ("domain: ''\n", &["limits.yaml:1:9: domain: the domain must not be empty"]),
        // What follows from a slip is not told beside it.
        ("domian: d\n", &["limits.yaml:1:1: unknown key \"domian\": did you mean \"domain\"?"]),
        ("domain: [d]\n", &["limits.yaml:1:9: domain: expected a text, found a list"]),
        (
            "domain: d\ndescriptors:\n- kye: k\n",
            &["limits.yaml:3:3: descriptors[0]: unknown key \"kye\": did you mean \"key\"?"],
        ),
        (
            "domain: d\ndescriptors:\n- value: v\n- nope\n",
            &[
                "limits.yaml:3:3: descriptors[0]: the key must not be empty",
                "limits.yaml:4:3: descriptors[1]: expected a mapping, found a scalar",
            ],
        ),
        (
            "domain: d\ndescriptors:\n- key: k\n  value: v\n- key: k\n- {key: k, value: v, nope: 1}\n",
            &[
                "limits.yaml:6:3: descriptors[2]: has the same key and value as descriptors[0] beside it",
                "limits.yaml:6:22: descriptors[2]: unknown key \"nope\": known here are key, value, rate_limit, descriptors, \
                 shadow_mode, quota_mode, detailed_metric, value_to_metric, share_threshold",
            ],
        ),
        (
            &format!(
                "domain: d\ndescriptors:\n- key: a\n  descriptors:\n  - key: b\n    share_threshold: true\n    {limit}, name: me, \
                 replaces: [{{name: me}}, {{name: }}]}}\n"
            ),
            &[
                "limits.yaml:5:5: descriptors[0].descriptors[0]: share_threshold needs a value that ends in *",
                "limits.yaml:7:72: descriptors[0].descriptors[0].rate_limit.replaces[0]: a limit cannot replace itself",
                "limits.yaml:7:84: descriptors[0].descriptors[0].rate_limit.replaces[1]: the name must not be empty",
            ],
        ),
        ("domain: d\n---\ndomain: d\n", &["limits.yaml:3:9: domain: domain \"d\" is already in limits.yaml#1"]),
    ];
    for (text, expected) in cases {
        let told = read(text).err().unwrap_or_default();
        assert_eq!(told, *expected, "{text}");
    }
}

#[test]
fn text_that_is_not_yaml_is_refused_where_it_breaks() {
    for (text, place) in
        [("domain: 'd\n", "limits.yaml:"), ("a: b: c\n", "limits.yaml:1:"), ("domain: *x\n", "limits.yaml:1:")]
    {
        let told = read(text).unwrap_err();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with(place), "{told:?}");
    }
    let problems = parse("f", b"domain: d\nx: \xff\n", Algorithm::TokenBucket).unwrap_err();
    assert_eq!(problems[0].to_string(), "f:2:4: not UTF-8");
}

#[test]
fn what_is_too_much_is_refused_quickly() {
    let started = Instant::now();
    let deep = format!("domain: d\ndescriptors: {}{}", "[".repeat(100), "]".repeat(100));
    assert!(read(&deep).unwrap_err()[0].contains("nested deeper than 64 levels"));

    let mut block = "domain: d\ndescriptors:\n".to_owned();
    for level in 0..500 {
        let indent = " ".repeat(2 * level);
        block += &format!("{indent}- key: k\n{indent}  descriptors:\n");
    }
    assert!(read(&block).unwrap_err()[0].contains("nested deeper than 64 levels"));

    // Ten levels of ten aliases each stand for ten thousand million values.
    let mut laughs = "a0: &a0 [x]\n".to_owned();
    for level in 1..=10 {
        let below = format!("*a{}", level - 1);
        laughs += &format!("a{level}: &a{level} [{}]\n", vec![below; 10].join(", "));
    }
    let told = read(&laughs).unwrap_err().join("\n");
    assert!(told.contains("more than 500000 values, aliases counted in full"), "{told}");

    // A long text is copied too.
    let text = "x".repeat(1 << 20);
    let copies = vec!["*t"; 1_000].join(", ");
    let told = read(&format!("t: &t {text}\nu: [{copies}]\n")).unwrap_err().join("\n");
    assert!(told.contains("more than 500000 values"), "{}", told.len());

    let keys: String = (0..200).map(|key| format!("k{key}: 1\n")).collect();
    assert!(read(&keys).unwrap_err()[0].ends_with("more than 100 keys in one mapping"));

    let large = vec![b'#'; MAX_FILE + 1];
    let problems = parse("f", &large, Algorithm::TokenBucket).unwrap_err();
    assert_eq!(problems[0].to_string(), "f: larger than 4 MiB");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[test]
fn of_very_many_problems_the_first_are_listed_and_the_others_counted() {
    let text = format!("domain: d\ndescriptors:\n{}", "- key: k\n  nope: 1\n".repeat(1_000));
    let told = read(&text).unwrap_err();
    assert_eq!(told.len(), crate::config::MOST_PROBLEMS + 1);
    assert!(told.last().unwrap().starts_with("limits.yaml: and "), "{:?}", told.last());
}

#[test]
fn an_error_of_the_text_does_not_hide_what_came_before() {
    let told = read("domain: d\ncolour: 1\n---\ndomain: 'e\n").unwrap_err();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("limits.yaml:2:1: unknown key"), "{told:?}");
}

/// Writes what [`parse`] reads, for the law that reading undoes writing.
fn write(spec: &DomainSpec) -> String {
    let text = |text: &str| serde_json::to_string(text).unwrap();
    fn levels(all: &[DescriptorSpec], text: &dyn Fn(&str) -> String) -> String {
        let level = |level: &DescriptorSpec| {
            let mut said = vec![format!("key: {}", text(&level.key)), format!("value: {}", text(&level.value))];
            for (flag, set) in [
                ("shadow_mode", level.shadow_mode),
                ("quota_mode", level.quota_mode),
                ("detailed_metric", level.detailed_metric),
                ("value_to_metric", level.value_to_metric),
                ("share_threshold", level.share_threshold),
            ] {
                said.push(format!("{flag}: {set}"));
            }
            if let Some(limit) = &level.limit {
                said.push(format!("rate_limit: {{{}}}", limit_of(limit, text)));
            }
            said.push(format!("descriptors: [{}]", levels(&level.descriptors, text)));
            format!("{{{}}}", said.join(", "))
        };
        all.iter().map(level).collect::<Vec<_>>().join(",\n ")
    }
    fn limit_of(limit: &LimitSpec, text: &dyn Fn(&str) -> String) -> String {
        let mut said = match limit.amount {
            Amount::Unlimited => vec!["unlimited: true".to_owned()],
            Amount::Limited(limit) => {
                let mut said = vec![format!("requests_per_unit: {}", limit.requests())];
                said.push(match limit.unit() {
                    Some(unit) => format!("unit: {}", unit.name()),
                    None => format!("per: {}ms", limit.per().as_millis()),
                });
                if limit.algorithm() == Algorithm::FixedWindow {
                    said.push("algorithm: fixed-window".to_owned());
                } else {
                    said.push(format!("burst: {}", limit.burst()));
                }
                said
            }
        };
        let Policy { debt, strict, without_redis } = limit.policy;
        said.push(format!("name: {}, debt: {debt}, strict: {strict}", text(&limit.name)));
        said.push(format!("when_redis_is_down: {}", format!("{without_redis:?}").to_lowercase()));
        let replaces: Vec<String> = limit.replaces.iter().map(|name| format!("{{name: {}}}", text(name))).collect();
        said.push(format!("replaces: [{}]", replaces.join(", ")));
        if let Some(body) = &limit.body {
            said.push(format!("body: {}", text(std::str::from_utf8(body).unwrap())));
        }
        said.join(", ")
    }
    format!("domain: {}\ndescriptors: [{}]\n", text(&spec.name), levels(&spec.descriptors, &text))
}

fn any_amount() -> impl Strategy<Value = Amount> {
    let period = prop_oneof![
        proptest::sample::select(Unit::ALL.to_vec()).prop_map(Unit::duration),
        (1_u64..100_000_000).prop_map(Duration::from_millis),
    ];
    let limited = (0_u32..5_000, period, 1_u32..5_000, any::<bool>()).prop_filter_map(
        "a burst that cannot be counted",
        |(requests, per, burst, window)| {
            let (algorithm, burst) =
                if window { (Algorithm::FixedWindow, None) } else { (Algorithm::TokenBucket, Some(burst)) };
            Limit::new(requests, per, burst, algorithm).ok().map(Amount::Limited)
        },
    );
    prop_oneof![1 => Just(Amount::Unlimited), 5 => limited]
}

fn any_limit() -> impl Strategy<Value = LimitSpec> {
    let without = proptest::sample::select(vec![WithoutRedis::Local, WithoutRedis::Allow, WithoutRedis::Deny]);
    let policy = (any::<bool>(), any::<bool>(), without);
    let replaces = proptest::collection::vec("other-[a-z]{1,6}", 0..3);
    let body = proptest::option::of("[^\\p{C}]{1,20}");
    (any_amount(), "(name-[a-z]{1,4})?", replaces, policy, body).prop_map(
        |(amount, name, replaces, (debt, strict, without_redis), body)| LimitSpec {
            amount,
            name,
            replaces,
            policy: Policy { debt, strict, without_redis },
            body: body.map(Into::into),
        },
    )
}

fn any_level() -> impl Strategy<Value = DescriptorSpec> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let one = ("[a-z]{1,6}", "[^\\p{C}*]{0,8}", any::<bool>(), flags, proptest::option::of(any_limit())).prop_map(
        |(key, value, wildcard, (shadow_mode, quota_mode, metric, share), limit)| DescriptorSpec {
            key,
            value: if wildcard { value + "*" } else { value },
            limit,
            descriptors: Vec::new(),
            shadow_mode,
            quota_mode,
            detailed_metric: metric,
            value_to_metric: !metric,
            share_threshold: wildcard && share,
        },
    );
    one.prop_recursive(4, 24, 4, |below| {
        (below.clone(), proptest::collection::vec(below, 0..4))
            .prop_map(|(level, below)| DescriptorSpec { descriptors: distinct(below), ..level })
    })
}

/// Without levels that would stand for the same entry.
fn distinct(levels: Vec<DescriptorSpec>) -> Vec<DescriptorSpec> {
    let mut seen = std::collections::BTreeSet::new();
    levels.into_iter().filter(|level| seen.insert(format!("{}_{}", level.key, level.value))).collect()
}

proptest! {
    #[test]
    fn reading_undoes_writing(name in "[^\\p{C}]{1,12}", levels in proptest::collection::vec(any_level(), 0..5)) {
        let spec = DomainSpec { name, descriptors: distinct(levels), fleets: None, origin: "f".to_owned() };
        let text = write(&spec);
        let read = parse("f", text.as_bytes(), Algorithm::TokenBucket);
        prop_assert_eq!(read, Ok(vec![spec]), "{}", text);
    }

    #[test]
    fn bytes_of_any_kind_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse("f", &bytes, Algorithm::TokenBucket);
    }

    #[test]
    fn text_that_looks_like_yaml_is_answered(
        words in proptest::collection::vec(proptest::sample::select(vec![
            "domain", "descriptors", "key", "rate_limit", "unit", "replaces", ": ", "- ", "\n", "\n  ", "\n    ", "&a ", "*a",
            "<<", "{", "}", "[", "]", ", ", "---\n", "'", "\"", "|\n", "? ", "!!int ", "!x ", "day", "1", "~", "#", "\t", "%",
        ]), 0..60),
    ) {
        let _ = parse("f", words.concat().as_bytes(), Algorithm::TokenBucket);
    }

    #[test]
    fn a_good_text_with_a_byte_changed_is_answered(at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
        let mut text = b"domain: d\ndescriptors:\n- key: k\n  value: v*\n  rate_limit:\n    unit: day\n    requests_per_unit: 5\n".to_vec();
        *at.get_mut(&mut text) = byte;
        if let Err(problems) = parse("f", &text, Algorithm::TokenBucket) {
            let lines = text.split(|byte| *byte == b'\n').count();
            prop_assert!(problems.iter().all(|problem| problem.line <= lines), "{:?}", problems);
        }
    }
}
