//! Decisions on a small store in memory, made of `model::cell`; once answering at once, once to be waited for.

use std::{collections::HashMap, time::Duration};

use metrics_exporter_prometheus::PrometheusBuilder;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::*;
use crate::{
    model::{
        cell::Meter,
        descriptor::{Descriptor, Entry, Override},
        key::CellKey,
        limit::Unit,
        rule::{Amount, DescriptorSpec, DomainSpec, LimitSpec, Policy},
    },
    store::{Ask, Outcomes},
};

const TICKS: u64 = 1_000_000_000;

#[derive(Default)]
struct Cells {
    cells: Mutex<HashMap<CellKey, u64>>,
    asked: Mutex<Vec<Ask>>,
    given_back_alone: Mutex<Vec<Ask>>,
    now: Mutex<u64>,
    wait: bool,
    source: Option<Source>,
}

impl Store for Cells {
    fn give_back_alone(&self, refunds: &[Ask]) {
        self.given_back_alone.lock().extend_from_slice(refunds);
    }

    fn charge(&self, asks: &[Ask]) -> Charging {
        self.asked.lock().extend_from_slice(asks);
        let mut cells = self.cells.lock();
        let now = *self.now.lock();
        let ticks = |ticks| if ticks == u64::MAX { Duration::MAX } else { Duration::from_nanos(ticks) };
        let outcomes: Outcomes = asks
            .iter()
            .map(|ask| {
                let cell = cells.entry(ask.key).or_default();
                let charged = Meter::new(&ask.limit, TICKS).charge(*cell, now, ask.hits, ask.policy.debt);
                *cell = charged.cell;
                Outcome {
                    admitted: charged.admitted,
                    remaining: charged.remaining,
                    reset: ticks(charged.reset),
                    retry: ticks(charged.retry),
                    source: self.source.unwrap_or(Source::Memory),
                }
            })
            .collect();
        if self.wait { Charging::Waiting(Box::pin(async move { outcomes })) } else { Charging::Done(outcomes) }
    }
}

struct Bench {
    limiter: Limiter,
    store: Arc<Cells>,
}

impl Bench {
    fn new(specs: Vec<DescriptorSpec>) -> Self {
        Self::on(Cells::default(), specs, None)
    }

    fn on(store: Cells, specs: Vec<DescriptorSpec>, fleet: Option<&str>) -> Self {
        let domain = DomainSpec {
            name: "d".into(),
            descriptors: specs,
            fleets: fleet.map(|fleet| [fleet.to_owned()].into()),
            origin: "test".into(),
        };
        let rules = Rules::build(&[domain]).unwrap();
        let store = Arc::new(store);
        *store.now.lock() = 1_000 * TICKS;
        let rules = Arc::new(ArcSwap::from_pointee(Ruleset::new(rules)));
        Self { limiter: Limiter::new(rules, store.clone(), SaltCell::new(Salt([7; 16]))), store }
    }

    async fn ask(&self, descriptors: &[Descriptor<'_>]) -> Verdict {
        let request = Request { domain: "d", descriptors: descriptors.into() };
        match self.limiter.decide(&request, &Caller::Anonymous).unwrap() {
            Deciding::Done(verdict) => verdict,
            Deciding::Waiting(verdict) => verdict.await,
        }
    }

    fn refusal<'a>(&self, domain: &'a str, descriptors: Vec<Descriptor<'a>>) -> Option<Refused> {
        self.limiter.decide(&Request { domain, descriptors: descriptors.into() }, &Caller::Trusted).err()
    }
}

/// A rule for `key`, which is also its name: so many a minute.
fn rule(key: &str, requests: u32) -> DescriptorSpec {
    counted(key, requests, Algorithm::TokenBucket)
}

fn counted(key: &str, requests: u32, algorithm: Algorithm) -> DescriptorSpec {
    let limit = Limit::new(requests, Duration::from_secs(60), None, algorithm).unwrap();
    DescriptorSpec {
        key: key.into(),
        limit: Some(LimitSpec {
            amount: Amount::Limited(limit),
            name: key.into(),
            replaces: Vec::new(),
            policy: Policy::default(),
            body: Some(bytes::Bytes::copy_from_slice(key.as_bytes())),
        }),
        ..DescriptorSpec::default()
    }
}

fn edit(mut spec: DescriptorSpec, edit: impl FnOnce(&mut DescriptorSpec, &mut LimitSpec)) -> DescriptorSpec {
    let mut limit = spec.limit.take().unwrap();
    edit(&mut spec, &mut limit);
    spec.limit = Some(limit);
    spec
}

fn of(key: &str) -> Descriptor<'_> {
    take(key, 1)
}

fn take(key: &str, hits: u64) -> Descriptor<'_> {
    let entry = Entry { key, value: "v" };
    Descriptor { entries: SmallVec::from_slice(&[entry]), hits: Hits::Take(hits), limit: None }
}

fn admitted(verdict: &Verdict) -> Vec<bool> {
    verdict.statuses.iter().map(|status| status.admitted).collect()
}

fn remaining(verdict: &Verdict) -> Vec<u64> {
    verdict.statuses.iter().map(|status| status.remaining).collect()
}

#[tokio::test]
async fn what_has_no_limit_is_admitted() {
    let free = edit(rule("free", 1), |_, limit| limit.amount = Amount::Unlimited);
    let bench = Bench::new(vec![rule("a", 3), free]);
    let verdict = bench.ask(&[of("nothing"), of("free"), of("a")]).await;
    assert!(verdict.admitted);
    assert_eq!(remaining(&verdict), [0, u32::MAX.into(), 2]);
    assert_eq!(verdict.statuses.iter().map(|s| s.limit.is_some()).collect::<Vec<_>>(), [false, false, true]);
    assert_eq!(verdict.statuses.iter().map(|s| s.rule.is_some()).collect::<Vec<_>>(), [false, true, true]);
    assert_eq!(verdict.tightest, Some(2));
    assert_eq!(bench.store.asked.lock().len(), 1);

    let request = Request { domain: "elsewhere", descriptors: [of("a"), brought("a", 0)].into_iter().collect() };
    let Deciding::Done(verdict) = bench.limiter.decide(&request, &Caller::Anonymous).unwrap() else { panic!() };
    assert!(verdict.admitted && verdict.statuses.len() == 2 && verdict.tightest.is_none());
}

#[tokio::test]
async fn a_refusal_gives_back_what_other_buckets_were_charged() {
    for wait in [false, true] {
        let store = Cells { wait, ..Cells::default() };
        let debt = edit(rule("debt", 9), |_, limit| limit.policy.debt = true);
        let shadow = edit(rule("shadow", 9), |spec, _| spec.shadow_mode = true);
        let window = counted("window", 9, Algorithm::FixedWindow);
        let bench = Bench::on(store, vec![rule("wide", 9), rule("narrow", 1), debt, shadow, window], None);
        let all = [take("wide", 2), of("narrow"), of("debt"), of("shadow"), of("window")];
        let first = bench.ask(&all).await;
        assert!(first.admitted);
        assert_eq!(remaining(&first), [7, 0, 8, 8, 8]);

        let second = bench.ask(&all).await;
        assert!(!second.admitted);
        assert_eq!(admitted(&second), [true, false, true, true, true]);
        assert_eq!(second.body.as_deref(), Some(&b"narrow"[..]));
        assert_eq!(second.statuses[1].reset, Duration::from_secs(60));
        assert_eq!(second.tightest, Some(1));

        let look = ["wide", "debt", "shadow", "window"].map(|key| take(key, 0));
        assert_eq!(remaining(&bench.ask(&look).await), [7, 7, 8, 7], "waiting: {wait}");
    }
}

#[tokio::test]
async fn what_was_charged_without_redis_goes_back_there_and_not_to_redis() {
    let store = Cells { source: Some(Source::WithoutRedis), ..Cells::default() };
    let bench = Bench::on(store, vec![rule("wide", 9), rule("none", 0)], None);
    assert!(!bench.ask(&[take("wide", 2), of("none")]).await.admitted);
    assert_eq!(bench.store.asked.lock().len(), 2);
    let given_back: Vec<_> = bench.store.given_back_alone.lock().iter().map(|ask| ask.hits).collect();
    assert_eq!(given_back, [Hits::GiveBack(2)]);
}

#[tokio::test]
async fn a_refund_in_a_refused_request_stands() {
    let bench = Bench::new(vec![rule("wide", 9), rule("none", 0)]);
    bench.ask(&[take("wide", 5)]).await;
    let refund = Descriptor { hits: Hits::GiveBack(3), ..of("wide") };
    assert!(!bench.ask(&[refund, take("wide", 0), of("none")]).await.admitted);
    assert_eq!(remaining(&bench.ask(&[take("wide", 0)]).await), [7]);
}

#[tokio::test]
async fn shadow_and_quota_never_refuse() {
    let shadow = edit(rule("shadow", 1), |spec, _| spec.shadow_mode = true);
    let quota = edit(rule("quota", 1), |spec, _| spec.quota_mode = true);
    let bench = Bench::new(vec![rule("a", 9), shadow, quota]);
    let all = [of("a"), of("shadow"), of("quota")];
    bench.ask(&all).await;
    let verdict = bench.ask(&all).await;
    assert!(verdict.admitted);
    assert_eq!(admitted(&verdict), [true, true, true]);
    assert_eq!(remaining(&verdict), [7, 0, 0]);
    assert_eq!(verdict.violations, [2]);
    assert_eq!(verdict.body, None);
}

#[tokio::test]
async fn a_replaced_limit_is_left_out() {
    let special = edit(rule("special", 5), |_, limit| limit.replaces = vec!["general".into(), "free".into()]);
    let free = edit(rule("free", 1), |_, limit| limit.amount = Amount::Unlimited);
    let other = edit(rule("other", 1), |_, limit| limit.name = String::new());
    let bench = Bench::new(vec![rule("general", 1), special, free, other]);
    let verdict = bench.ask(&[of("general"), of("special"), of("free"), of("other")]).await;
    assert_eq!(remaining(&verdict), [0, 4, u32::MAX.into(), 0]);
    assert!(verdict.statuses[0].limit.is_none() && verdict.statuses[0].rule.is_none());
    assert!(verdict.statuses[3].limit.is_some());
    // The one replaced was not charged.
    assert_eq!(remaining(&bench.ask(&[take("general", 0)]).await), [1]);
    // Who replaces by a limit of the request's own does not replace.
    let verdict = bench.ask(&[of("general"), brought("special", 50)]).await;
    // What was used of five a minute took twelve seconds, which is ten of fifty.
    assert_eq!(remaining(&verdict), [0, 39]);
    assert!(verdict.statuses[0].limit.is_some());
}

fn brought(key: &str, requests: u32) -> Descriptor<'_> {
    Descriptor { limit: Some(Override { requests, unit: Unit::Minute }), ..of(key) }
}

#[tokio::test]
async fn a_limit_of_the_request_stands_in_place_of_the_rule() {
    let shadow = edit(counted("a", 1, Algorithm::FixedWindow), |spec, _| spec.shadow_mode = true);
    let bench = Bench::new(vec![shadow]);
    let verdict = bench.ask(&[brought("a", 2), brought("a", 2), brought("a", 2), brought("b", 7)]).await;
    assert!(!verdict.admitted);
    assert_eq!(admitted(&verdict), [true, true, false, true]);
    assert!(verdict.statuses.iter().all(|status| status.rule.is_none()));
    let algorithms: Vec<_> = verdict.statuses.iter().map(|status| status.limit.unwrap().algorithm()).collect();
    assert_eq!(algorithms[2..], [Algorithm::FixedWindow, Algorithm::TokenBucket]);
    assert!(!bench.ask(&[brought("b", 0)]).await.admitted);
}

#[tokio::test]
async fn the_same_descriptor_twice_is_charged_twice() {
    let bench = Bench::new(vec![rule("a", 3)]);
    let verdict = bench.ask(&[of("a"), of("a")]).await;
    assert_eq!(remaining(&verdict), [2, 1]);
    let verdict = bench.ask(&[of("a"), of("a")]).await;
    assert_eq!(admitted(&verdict), [true, false]);
    assert_eq!(remaining(&bench.ask(&[take("a", 0)]).await), [1]);
}

#[tokio::test]
async fn what_can_never_pass_is_told_to_come_back_a_period_later() {
    let bench = Bench::new(vec![rule("none", 0), rule("few", 2)]);
    let verdict = bench.ask(&[of("none"), take("few", 3)]).await;
    let resets: Vec<_> = verdict.statuses.iter().map(|status| status.reset).collect();
    assert_eq!(resets, [Duration::from_secs(60); 2]);
}

#[tokio::test]
async fn headers_are_to_speak_of_the_longest_refusal_or_of_the_least_that_remains() {
    let hourly = edit(rule("hourly", 1), |_, limit| {
        let rare = Limit::new(1, Duration::from_secs(3_600), None, Algorithm::TokenBucket).unwrap();
        limit.amount = Amount::Limited(rare);
    });
    let bench = Bench::new(vec![rule("wide", 9), rule("few", 1), hourly]);
    let all = [of("none"), of("wide"), of("few"), of("hourly")];
    assert_eq!(bench.ask(&all).await.tightest, Some(2));
    assert_eq!(bench.ask(&all).await.tightest, Some(3));
    assert_eq!(bench.ask(&all[..3]).await.tightest, Some(2));
    assert_eq!(bench.ask(&all[..1]).await.tightest, None);
}

#[test]
fn what_no_proxy_sends_is_refused() {
    let bench = Bench::new(vec![rule("a", 99)]);
    let long = "x".repeat(MAX_TEXT + 1);
    let decide = |domain, descriptors| bench.refusal(domain, descriptors);
    let wide = |entries: usize| Descriptor {
        entries: std::iter::repeat_n(Entry { key: "a", value: "v" }, entries).collect(),
        ..of("a")
    };
    assert_eq!(decide("", vec![of("a")]), Some(Refused::NoDomain));
    assert_eq!(decide("d", vec![]), Some(Refused::NoDescriptors));
    assert_eq!(decide("d", vec![of("a"); MAX_PARTS]), None);
    assert!(matches!(decide("d", vec![of("a"); MAX_PARTS + 1]), Some(Refused::TooMany { what: "descriptors", .. })));
    assert_eq!(decide("d", vec![wide(MAX_PARTS)]), None);
    assert!(matches!(decide("d", vec![wide(MAX_PARTS + 1)]), Some(Refused::TooMany { count: 65, .. })));
    assert!(matches!(decide(&long, vec![of("a")]), Some(Refused::TooLong { what: "domain", .. })));
    assert_eq!(decide("d", vec![of(&long[1..])]), None);
    assert!(matches!(decide("d", vec![of(&long)]), Some(Refused::TooLong { .. })));
    let value = Descriptor { entries: SmallVec::from_slice(&[Entry { key: "a", value: &long }]), ..of("a") };
    assert!(matches!(decide("d", vec![value]), Some(Refused::TooLong { .. })));
    assert_eq!(bench.store.asked.lock().len(), MAX_PARTS);
}

#[test]
fn a_fleet_keeps_to_its_domain() {
    let bench = Bench::on(Cells::default(), vec![rule("a", 9)], Some("edge"));
    let open = Bench::new(vec![rule("a", 9)]);
    let may = |bench: &Bench, caller: Caller| {
        let request = Request { domain: "d", descriptors: [of("a")].into_iter().collect() };
        bench.limiter.decide(&request, &caller).is_ok()
    };
    let fleet = |name: &str| Caller::Fleet(name.into());
    for (caller, expected) in [
        (Caller::Trusted, true),
        (Caller::Anonymous, false),
        (Caller::Certified, false),
        (fleet("edge"), true),
        (fleet("inner"), false),
    ] {
        assert_eq!(may(&bench, caller.clone()), expected, "{caller:?}");
        assert!(may(&open, caller));
    }
}

#[test]
fn decisions_are_counted_by_rule_and_outcome() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let rendered = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        let detailed = edit(rule("each", 9), |spec, _| spec.detailed_metric = true);
        let shadow = edit(rule("shadow", 1), |spec, _| spec.shadow_mode = true);
        let bench = Bench::new(vec![rule("a", 10), rule("none", 0), detailed, shadow]);
        bench.refusal("d", vec![take("a", 8)]);
        bench.refusal("d", vec![of("a"), of("shadow"), of("each")]);
        bench.refusal("d", vec![of("a"), of("shadow"), of("none")]);
        bench.refusal("d", vec![]);
        bench.refusal("elsewhere", vec![of("a")]);
    });
    let text = rendered.render();
    for line in [
        r#"chancery_rate_limiter_requests_total{result="ok"} 3"#,
        r#"chancery_rate_limiter_requests_total{result="over_limit"} 1"#,
        r#"chancery_rate_limiter_requests_total{result="error"} 1"#,
        r"chancery_rate_limiter_unknown_domain_total 1",
        r"chancery_rate_limiter_given_back_total 1",
        r#"chancery_rate_limiter_decisions_total{domain="d",rule="d.a",outcome="ok"} 3"#,
        r#"chancery_rate_limiter_decisions_total{domain="d",rule="d.none",outcome="over_limit"} 1"#,
        r#"chancery_rate_limiter_decisions_total{domain="d",rule="d.shadow",outcome="shadow"} 1"#,
        r#"chancery_rate_limiter_decisions_total{domain="d",rule="d.each_v",outcome="ok"} 1"#,
        r#"chancery_rate_limiter_hits_total{domain="d",rule="d.a"} 10"#,
        r#"chancery_rate_limiter_near_limit_total{domain="d",rule="d.a"} 2"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
    }
}

#[test]
fn series_of_a_rule_are_capped_whatever_becomes_of_the_rules() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let rendered = recorder.handle();
    let put_in_force = || Bench::new(vec![edit(rule("capped", 9), |spec, _| spec.detailed_metric = true)]);
    let ask = |bench: &Bench, value: &str| {
        let entries = SmallVec::from_slice(&[Entry { key: "capped", value }]);
        let descriptors = [Descriptor { entries, ..of("capped") }].into_iter().collect();
        assert!(bench.limiter.decide(&Request { domain: "d", descriptors }, &Caller::Trusted).is_ok());
    };
    metrics::with_local_recorder(&recorder, || {
        let bench = put_in_force();
        ask(&bench, &"x".repeat(crate::metrics::MAX_VALUES));
        for n in 0..crate::metrics::MAX_SERIES + 4 {
            ask(&bench, &n.to_string());
        }
        let bench = put_in_force();
        ask(&bench, "0");
        ask(&bench, "another");
    });
    let text = rendered.render();
    let series = text.lines().filter(|line| line.starts_with("chancery_rate_limiter_hits_total{")).count();
    assert_eq!(series, crate::metrics::MAX_SERIES + 1);
    assert!(text.contains(r#"chancery_rate_limiter_hits_total{domain="d",rule="d.capped_0"} 2"#));
    assert!(!text.contains("d.capped_x"));
    assert!(text.contains(r#"chancery_rate_limiter_hits_total{domain="d",rule="other"} 6"#));
}
