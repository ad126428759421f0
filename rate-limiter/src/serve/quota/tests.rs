//! The stream as proxies see it: what they report, what they are told, and what that does to the cells.

use std::net::SocketAddr;

use arc_swap::ArcSwap;
use chancery_proto::{
    chancery::DESCRIPTOR_BUCKET,
    envoy::{
        rlqs::{
            rate_limit_quota_response::bucket_action::AbandonAction,
            rate_limit_quota_service_client::RateLimitQuotaServiceClient,
        },
        types::{
            TokenBucket,
            rate_limit_strategy::{BlanketRule, Strategy},
        },
    },
    google::protobuf,
};
use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Code, service::interceptor::InterceptedService, transport::Server};

use super::*;
use crate::{
    decide::{Deciding, Ruleset},
    model::{
        descriptor::{Descriptor, Entry, Hits, Request as Question},
        limit::{Algorithm, Limit},
        rule::{Amount, DescriptorSpec, DomainSpec, LimitSpec, Policy, Rules},
    },
    store::{Clock, Memory, SaltCell, memory},
};

/// How long a test waits for what must come.
const SOON: Duration = Duration::from_secs(20);

/// Who a client says it is, in place of a certificate.
const FLEET: &str = "fleet";

/// A service, and its rules.
struct Scene {
    address: SocketAddr,
    limiter: Limiter,
    rules: Arc<ArcSwap<Ruleset>>,
    _tasks: JoinSet<()>,
}

fn limit(requests: u32, seconds: u64) -> Amount {
    Amount::Limited(Limit::new(requests, Duration::from_secs(seconds), None, Algorithm::TokenBucket).unwrap())
}

fn rule(key: &str, amount: Amount, shadow: bool) -> DescriptorSpec {
    let limit = LimitSpec { amount, name: key.into(), replaces: Vec::new(), policy: Policy::default(), body: None };
    DescriptorSpec { key: key.into(), limit: Some(limit), shadow_mode: shadow, ..DescriptorSpec::default() }
}

fn ruleset(descriptors: Vec<DescriptorSpec>) -> Ruleset {
    let fleets = Some(["edge".to_owned()].into());
    let domain = DomainSpec { name: "edge".into(), descriptors, fleets, origin: "test".into() };
    Ruleset::new(Rules::build(&[domain]).unwrap())
}

impl Scene {
    async fn play(descriptors: Vec<DescriptorSpec>) -> Self {
        Self::sharing(descriptors, Shared::default()).await
    }

    async fn sharing(descriptors: Vec<DescriptorSpec>, shared: Shared) -> Self {
        let rules = Arc::new(ArcSwap::from_pointee(ruleset(descriptors)));
        let store = Arc::new(Memory::new(memory::CAPACITY, Clock::system()));
        let limiter = Limiter::new(rules.clone(), store, SaltCell::random());
        let service = QuotaService::new(limiter.clone(), Arc::new(shared), Arc::new(|| 1));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let named = |mut request: Request<()>| {
            if let Some(fleet) = request.metadata().get(FLEET) {
                let caller = Caller::Fleet(fleet.to_str().unwrap().into());
                request.extensions_mut().insert(Peer::new(([127, 0, 0, 1], 1).into(), caller));
            }
            Ok(request)
        };
        let service = InterceptedService::new(service.server(), named);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
        });
        Self { address, limiter, rules, _tasks: tasks }
    }

    async fn proxy(&self, fleet: &str) -> Proxy {
        let client = RateLimitQuotaServiceClient::connect(format!("http://{}", self.address)).await.unwrap();
        // As large as Envoy reads it.
        let mut client = client.max_decoding_message_size(usize::MAX);
        let (reports, outgoing) = mpsc::channel(8);
        let mut request = Request::new(ReceiverStream::new(outgoing));
        request.metadata_mut().insert(FLEET, fleet.parse().unwrap());
        let answers = client.stream_rate_limit_quotas(request).await.unwrap().into_inner();
        Proxy { reports, answers }
    }

    /// Whether one call about `key` is within its limit.
    fn passes(&self, key: &str) -> bool {
        let descriptor =
            Descriptor { entries: [Entry { key, value: "v" }].into_iter().collect(), hits: Hits::Take(1), limit: None };
        let request = Question { domain: "edge", descriptors: [descriptor].into_iter().collect() };
        match self.limiter.decide(&request, &Caller::Trusted).unwrap() {
            Deciding::Done(verdict) => verdict.admitted,
            Deciding::Waiting(_) => panic!("memory answers at once"),
        }
    }
}

/// A proxy's end of a stream.
struct Proxy {
    reports: mpsc::Sender<RateLimitQuotaUsageReports>,
    answers: Streaming<RateLimitQuotaResponse>,
}

/// What a proxy was told of a bucket.
#[derive(Debug, PartialEq)]
enum Told {
    Abandon,
    Everything,
    Nothing,
    /// Tokens at once, and per second.
    Bucket(u32, f64),
}

fn bucket(key: &str) -> BucketId {
    BucketId { bucket: [(key.to_owned(), "v".to_owned())].into() }
}

fn used(key: &str, allowed: u64) -> BucketQuotaUsage {
    BucketQuotaUsage {
        bucket_id: Some(bucket(key)),
        time_elapsed: Some(protobuf::Duration { seconds: 5, nanos: 0 }),
        num_requests_allowed: allowed,
        num_requests_denied: 0,
    }
}

fn report(usages: Vec<BucketQuotaUsage>) -> RateLimitQuotaUsageReports {
    RateLimitQuotaUsageReports { domain: "edge".into(), bucket_quota_usages: usages }
}

impl Proxy {
    async fn next(&mut self) -> Result<Vec<(BucketId, Told)>, Status> {
        let answer =
            timeout(SOON, self.answers.message()).await.expect("an answer in time")?.expect("the stream goes on");
        Ok(answer.bucket_action.into_iter().map(told).collect())
    }

    async fn send(&mut self, report: RateLimitQuotaUsageReports) -> Result<Vec<(BucketId, Told)>, Status> {
        self.reports.send(report).await.unwrap();
        self.next().await
    }

    /// Reports so many requests for one bucket; says what it may do.
    async fn uses(&mut self, key: &str, allowed: u64) -> Told {
        let mut answer = self.send(report(vec![used(key, allowed)])).await.unwrap();
        assert_eq!((answer.len(), &answer[0].0), (1, &bucket(key)));
        answer.remove(0).1
    }
}

fn told(action: BucketAction) -> (BucketId, Told) {
    let assignment = match action.bucket_action {
        Some(Action::QuotaAssignmentAction(assignment)) => assignment,
        Some(Action::AbandonAction(AbandonAction {})) => return (action.bucket_id.unwrap(), Told::Abandon),
        None => panic!("{action:?}"),
    };
    assert_eq!(assignment.assignment_time_to_live, Some(protobuf::Duration { seconds: 30, nanos: 0 }));
    let told = match assignment.rate_limit_strategy.unwrap().strategy.unwrap() {
        Strategy::BlanketRule(rule) if rule == i32::from(BlanketRule::AllowAll) => Told::Everything,
        Strategy::BlanketRule(_) => Told::Nothing,
        Strategy::TokenBucket(bucket) => {
            let interval = bucket.fill_interval.unwrap().seconds as f64;
            Told::Bucket(bucket.max_tokens, f64::from(bucket.tokens_per_fill.unwrap().value) / interval)
        }
        Strategy::RequestsPerTimeUnit(_) => panic!("Envoy does not know what to do with this"),
    };
    (action.bucket_id.unwrap(), told)
}

#[tokio::test]
async fn a_report_is_answered_with_the_share_of_every_bucket() {
    let scene = Scene::play(vec![
        rule("limited", limit(100, 1), false),
        rule("never", limit(0, 1), false),
        rule("free", Amount::Unlimited, false),
        rule("shadow", limit(1, 3_600), true),
    ])
    .await;
    let mut proxy = scene.proxy("edge").await;
    let keys = ["unknown", "limited", "never", "free", "shadow"];
    let usages = keys.iter().map(|key| used(key, 50)).collect();
    let expected = [Told::Everything, Told::Bucket(100, 100.0), Told::Nothing, Told::Everything, Told::Everything];
    let expected: Vec<_> = keys.iter().map(|key| bucket(key)).zip(expected).collect();
    assert_eq!(proxy.send(report(usages)).await.unwrap(), expected);
    // A domain that has no rules limits nothing.
    let mut other = scene.proxy("edge").await;
    let elsewhere = RateLimitQuotaUsageReports { domain: "elsewhere".into(), ..report(vec![used("limited", 1)]) };
    assert_eq!(other.send(elsewhere).await.unwrap(), [(bucket("limited"), Told::Everything)]);
}

#[tokio::test]
async fn proxies_share_and_are_told_at_once() {
    let scene = Scene::play(vec![rule("limited", limit(1_000, 1), false)]).await;
    let (mut one, mut two) = (scene.proxy("edge").await, scene.proxy("edge").await);
    assert_eq!(one.uses("limited", 3_000).await, Told::Bucket(1_000, 1_000.0));
    assert_eq!(two.uses("limited", 3_000).await, Told::Bucket(500, 500.0));
    assert_eq!(one.next().await.unwrap(), [(bucket("limited"), Told::Bucket(500, 500.0))]);
    drop(two);
    assert_eq!(one.next().await.unwrap(), [(bucket("limited"), Told::Bucket(1_000, 1_000.0))]);
}

#[tokio::test]
async fn what_is_used_is_charged_to_the_cell_that_calls_are_decided_by() {
    let scene =
        Scene::play(vec![rule("limited", limit(10, 3_600), false), rule("shadow", limit(1, 3_600), true)]).await;
    let mut proxy = scene.proxy("edge").await;
    proxy.uses("limited", 9).await;
    assert!(scene.passes("limited") && !scene.passes("limited"));
    assert_eq!(proxy.uses("shadow", 1_000).await, Told::Everything);
    assert!(scene.passes("shadow"), "a shadow refuses nobody");
}

#[tokio::test]
async fn a_bucket_may_be_a_whole_descriptor() {
    let scene = Scene::play(vec![rule("limited", limit(10, 3_600), false)]).await;
    let mut proxy = scene.proxy("edge").await;
    let written = |value: &str| BucketQuotaUsage {
        bucket_id: Some(BucketId {
            bucket: [(DESCRIPTOR_BUCKET.to_owned(), format!("{{\"descriptor\":[[\"limited\",{value}]]}}\n"))].into(),
        }),
        ..used("", 9)
    };
    let mut told = async |value: &str| proxy.send(report(vec![written(value)])).await.map(|mut told| told.remove(0).1);
    assert!(matches!(told(r#""v""#).await.unwrap(), Told::Bucket(10, _)));
    assert!(scene.passes("limited") && !scene.passes("limited"), "it is the cell of that descriptor");
    assert_eq!(told(r#"null,"skip""#).await.unwrap(), Told::Everything);
    let long = format!("\"{}\"", "v".repeat(MAX_TEXT));
    assert_eq!(told(&long).await.unwrap(), Told::Nothing, "and the stream goes on");
    assert_eq!(told("1").await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn an_overdrawn_limit_gives_nothing() {
    let scene = Scene::play(vec![rule("limited", limit(10, 3_600), false)]).await;
    let mut proxy = scene.proxy("edge").await;
    // As much as proxies that keep to their shares use in the first hour's first seconds.
    assert!(matches!(proxy.uses("limited", 10).await, Told::Bucket(10, _)));
    assert_eq!(proxy.uses("limited", 10).await, Told::Nothing);
    assert_eq!(proxy.uses("limited", 0).await, Told::Nothing, "nothing is paid back yet");
}

#[tokio::test]
async fn a_limit_that_is_taken_away_frees_its_buckets() {
    let scene = Scene::play(vec![rule("limited", limit(1_000, 1), false)]).await;
    let mut proxy = scene.proxy("edge").await;
    proxy.uses("limited", 10).await;
    scene.rules.store(Arc::new(ruleset(vec![rule("other", limit(1, 1), false)])));
    assert_eq!(proxy.uses("limited", 10).await, Told::Everything);
    scene.rules.store(Arc::new(ruleset(vec![rule("limited", limit(500, 1), false)])));
    // Nobody has a share of it that has not reported since.
    let mut newcomer = scene.proxy("edge").await;
    assert_eq!(newcomer.uses("limited", 10).await, Told::Bucket(500, 500.0));
}

#[tokio::test]
async fn a_domain_is_for_its_fleets() {
    let scene = Scene::play(vec![rule("limited", limit(10, 1), false)]).await;
    let mut stranger = scene.proxy("lab").await;
    let refused = stranger.send(report(vec![used("limited", 5)])).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!((0..10).all(|_| scene.passes("limited")), "a stranger's report was charged");
}

#[tokio::test]
async fn reports_that_make_no_sense_end_the_stream() {
    let scene = Scene::play(vec![rule("limited", limit(10, 1), false)]).await;
    let nameless = BucketQuotaUsage { bucket_id: None, ..used("limited", 1) };
    let empty = BucketQuotaUsage { bucket_id: Some(BucketId::default()), ..used("limited", 1) };
    let many = (0..17).map(|number| (number.to_string(), String::new())).collect();
    let many = BucketQuotaUsage { bucket_id: Some(BucketId { bucket: many }), ..used("limited", 1) };
    let no_domain = RateLimitQuotaUsageReports { domain: String::new(), ..report(vec![used("limited", 1)]) };
    let long_domain = RateLimitQuotaUsageReports { domain: "x".repeat(MAX_TEXT + 1), ..no_domain.clone() };
    let wrong = [report(vec![nameless]), report(vec![empty]), report(vec![many]), no_domain, long_domain];
    for wrong in wrong {
        let mut proxy = scene.proxy("edge").await;
        let refused = proxy.send(wrong.clone()).await.expect_err(&format!("{wrong:?}"));
        assert_eq!(refused.code(), Code::InvalidArgument, "{wrong:?}");
    }
    // Times that cannot be are taken for none.
    for (seconds, nanos) in [(-5, -5), (i64::MAX, i32::MAX), (0, 0)] {
        let time_elapsed = Some(protobuf::Duration { seconds, nanos });
        let usage = BucketQuotaUsage { time_elapsed, num_requests_denied: u64::MAX, ..used("limited", 1) };
        let answer = scene.proxy("edge").await.send(report(vec![usage])).await.unwrap();
        assert!(matches!(answer[0].1, Told::Bucket(..)), "{answer:?}");
    }
    let answer = scene.proxy("edge").await.send(report(vec![used("limited", u64::MAX)])).await.unwrap();
    assert_eq!(answer[0].1, Told::Nothing, "that many are more than any limit");
}

/// A bucket of the rule `limited` that a client made up.
fn made_up(value: String) -> BucketQuotaUsage {
    let bucket = [("limited".to_owned(), "v".to_owned()), ("client".to_owned(), value)].into();
    BucketQuotaUsage { bucket_id: Some(BucketId { bucket }), ..used("", 1) }
}

fn by_client() -> Vec<DescriptorSpec> {
    let nested = DescriptorSpec { key: "client".into(), ..rule("by client", limit(1_000, 1), false) };
    vec![DescriptorSpec { descriptors: vec![nested], ..rule("limited", limit(1_000, 1), false) }]
}

#[tokio::test]
async fn more_buckets_than_a_proxy_may_have_are_abandoned_and_the_others_go_on() {
    let scene = Scene::play(by_client()).await;
    let mut proxy = scene.proxy("edge").await;
    assert!(matches!(proxy.uses("limited", 5).await, Told::Bucket(..)));
    let many = (0..=bucket::MAX_BUCKETS).map(|number| made_up(number.to_string())).collect();
    let told = proxy.send(report(many)).await.unwrap();
    let abandoned = told.iter().filter(|(_, told)| *told == Told::Abandon).count();
    assert_eq!((told.len(), abandoned), (bucket::MAX_BUCKETS + 1, 2));
    assert!(matches!(proxy.uses("limited", 5).await, Told::Bucket(..)));
}

#[tokio::test]
async fn a_report_may_be_larger_than_other_messages() {
    let scene = Scene::play(by_client()).await;
    let mut proxy = scene.proxy("edge").await;
    let many = report((0..5_000).map(|number| made_up(format!("{number:>1024}"))).collect());
    assert!(prost::Message::encoded_len(&many) > 5 << 20);
    let told = proxy.send(many).await.unwrap();
    assert!(told.len() == 5_000 && told.iter().all(|(_, told)| matches!(told, Told::Bucket(..))));
}

#[tokio::test]
async fn buckets_that_never_had_a_share_are_abandoned_when_they_are_not_used() {
    let rules = vec![
        rule("never", limit(0, 1), false),
        rule("free", Amount::Unlimited, false),
        rule("shadow", limit(1, 3_600), true),
    ];
    let scene = Scene::sharing(rules, Shared { idle: Duration::ZERO, ..Shared::default() }).await;
    let mut proxy = scene.proxy("edge").await;
    for key in ["unknown", "free", "shadow"] {
        assert_eq!(proxy.uses(key, 1).await, Told::Everything, "{key} is in use");
        assert_eq!(proxy.uses(key, 0).await, Told::Abandon, "{key}");
    }
    let long = |allowed| BucketQuotaUsage {
        bucket_id: Some(BucketId { bucket: [("a".to_owned(), "v".repeat(MAX_TEXT + 1))].into() }),
        ..used("", allowed)
    };
    assert_eq!(proxy.send(report(vec![long(1)])).await.unwrap()[0].1, Told::Nothing);
    assert_eq!(proxy.send(report(vec![long(0)])).await.unwrap()[0].1, Told::Abandon);
    // A share of nothing is a share.
    assert_eq!((proxy.uses("never", 1).await, proxy.uses("never", 0).await), (Told::Nothing, Told::Nothing));
}

/// As Envoy 1.40 compares the bucket it has with the one it is told.
fn is_the_same_to_envoy(one: &TokenBucket, other: &TokenBucket) -> bool {
    let compared = |bucket: &TokenBucket| {
        let tokens = bucket.tokens_per_fill.as_ref().map(|tokens| tokens.value);
        (bucket.max_tokens, tokens, bucket.fill_interval.as_ref().map(|interval| interval.nanos))
    };
    compared(one) == compared(other)
}

#[tokio::test]
async fn a_limit_of_which_only_the_period_is_edited_is_another_to_envoy() {
    let scene = Scene::play(vec![rule("limited", limit(1_000, 3_600), false)]).await;
    let mut proxy = scene.proxy("edge").await;
    let mut told = async || {
        proxy.reports.send(report(vec![used("limited", 1)])).await.unwrap();
        let answer = proxy.answers.message().await.unwrap().unwrap();
        let Some(Action::QuotaAssignmentAction(assigned)) = answer.bucket_action[0].bucket_action else { panic!() };
        match assigned.rate_limit_strategy.and_then(|strategy| strategy.strategy) {
            Some(Strategy::TokenBucket(bucket)) => bucket,
            other => panic!("{other:?}"),
        }
    };
    let slow = told().await;
    assert!(is_the_same_to_envoy(&slow, &told().await), "what stays as it is must not be full again");
    scene.rules.store(Arc::new(ruleset(vec![rule("limited", limit(1_000, 7_200), false)])));
    let slower = told().await;
    assert_eq!((slow.max_tokens, slow.tokens_per_fill), (slower.max_tokens, slower.tokens_per_fill));
    assert!(!is_the_same_to_envoy(&slow, &slower), "{slow:?} and {slower:?}");
}
