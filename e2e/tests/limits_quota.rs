//! Limits that Envoy enforces itself (RLQS): two real Envoys share what one real limiter assigns them.
//!
//! Envoy reports every five seconds, so a test here takes a few of them. What is asserted are bounds and who has
//! more than whom, never when.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use chancery_e2e::{
    bootstrap::{Protocol, fixed, with_filter, with_grpc_cluster},
    client::{fetch, get},
    document::limit_per_key,
    envoy::Envoy,
    limited::Limited,
    limiter::{Limiter, secure},
    load::{Load, Tally},
    port::free_port,
    required,
    scene::Scene,
    upstream::Upstream,
    wait::until,
};
use chancery_proto::{
    envoy::rlqs::{
        BucketId, RateLimitQuotaResponse, RateLimitQuotaUsageReports,
        rate_limit_quota_response::bucket_action::BucketAction as Action,
        rate_limit_quota_service_client::RateLimitQuotaServiceClient, rate_limit_quota_usage_reports::BucketQuotaUsage,
    },
    envoy::types::rate_limit_strategy::Strategy,
    google::protobuf,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming, transport::Channel};

/// Requests per second of the limit `shared`, and at once.
const RATE: f64 = 100.0;
const BURST: f64 = 20.0;

const RULES: &str = "
domain: edge
descriptors:
- key: chancery.limit
  value: shared
  rate_limit: {per: 1s, requests_per_unit: 100, burst: 20}
";

/// How long Envoys may take to report, and to do as they are told then. They report every five seconds.
const REPORTED: Duration = Duration::from_secs(40);

/// Over how long admitted requests are counted.
const MEASURED: Duration = Duration::from_secs(3);

/// A limiter with [`RULES`], an upstream, and Envoys that have the limiter's quota filter.
struct Edge {
    limiter: Limiter,
    upstream: Upstream,
    envoys: Vec<(Envoy, SocketAddr)>,
    // Last, so that it outlives whoever has files in it.
    folder: tempfile::TempDir,
}

impl Edge {
    async fn start(envoys: usize) -> Result<Option<Self>> {
        let Some(program) = required::envoy() else { return Ok(None) };
        let folder = tempfile::tempdir()?;
        let limiter = limiter(folder.path(), &[]).await?;
        let mut edge = Self { limiter, upstream: Upstream::start("shop").await?, envoys: Vec::new(), folder };
        for number in 0..envoys {
            let listen = SocketAddr::from(([127, 0, 0, 1], free_port()));
            let mut bootstrap = fixed(listen, edge.upstream.address);
            with_filter(&mut bootstrap, quota_filter());
            with_grpc_cluster(&mut bootstrap, "limiter", edge.limiter.grpc);
            let envoy = Envoy::start(&program, edge.folder.path(), &format!("envoy-{number}"), &bootstrap).await?;
            envoy.live().await?;
            edge.envoys.push((envoy, listen));
        }
        Ok(Some(edge))
    }

    /// Clients that go on calling an Envoy, `clients` at a time.
    fn load(&self, envoy: usize, clients: usize) -> Load {
        Load::start(self.envoys[envoy].1, clients, || get("shop.example.com", "/"))
    }
}

async fn limiter(folder: &Path, arguments: &[&str]) -> Result<Limiter> {
    let rules = folder.join("limits.yaml");
    fs::write(&rules, RULES)?;
    let rules = rules.display().to_string();
    let mut all = vec!["--config", &*rules];
    all.extend(arguments);
    Limiter::start(folder, "limiter", &all).await
}

/// Everything is in one bucket, and passes until the limiter has said how much may.
fn quota_filter() -> Value {
    let action = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.rate_limit_quota.v3.RateLimitQuotaBucketSettings",
        "bucket_id_builder": { "bucket_id_builder": { "chancery.limit": { "string_value": "shared" } } },
        "reporting_interval": "5s",
    });
    json!({
        "name": "envoy.filters.http.rate_limit_quota",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rate_limit_quota.v3.RateLimitQuotaFilterConfig",
            "domain": "edge",
            "rlqs_server": { "envoy_grpc": { "cluster_name": "limiter" } },
            "bucket_matchers": { "on_no_match": { "action": { "name": "bucket", "typed_config": action } } },
        },
    })
}

fn admitted(tally: &Tally) -> u64 {
    tally.by_status.get(&200).copied().unwrap_or(0)
}

/// Admitted requests per second of each load, over a while.
async fn rates(loads: &[&Load]) -> Result<Vec<f64>> {
    let (begun, before): (_, Vec<_>) = (Instant::now(), loads.iter().map(|load| admitted(&load.so_far())).collect());
    until("it was measured for long enough", REPORTED, async || {
        ensure!(begun.elapsed() >= MEASURED, "only {:?}", begun.elapsed());
        Ok(())
    })
    .await?;
    let after = loads.iter().map(|load| admitted(&load.so_far()));
    let seconds = begun.elapsed().as_secs_f64();
    Ok(after.zip(before).map(|(after, before)| (after - before) as f64 / seconds).collect())
}

/// Measures until rates are as wanted.
async fn rates_become(what: &str, loads: &[&Load], wanted: impl Fn(&[f64]) -> bool) -> Result<Vec<f64>> {
    until(what, REPORTED, async || {
        let rates = rates(loads).await?;
        ensure!(wanted(&rates), "{rates:?} per second");
        Ok(rates)
    })
    .await
}

/// What two Envoys may admit in a while: the rate, bursts that they have again when shares change, and the haste of a machine
/// whose clock and whose counting are not the same.
fn within_limit(rates: &[f64]) -> bool {
    rates.iter().sum::<f64>() <= RATE + 2.0 * BURST / MEASURED.as_secs_f64() + 0.05 * RATE
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_envoys_share_a_limit_by_demand() -> Result<()> {
    let Some(mut edge) = Edge::start(2).await? else { return Ok(()) };
    let one = edge.load(0, 4);
    rates_become("one Envoy has the whole limit", &[&one], |rates| within_limit(rates) && rates[0] > 0.7 * RATE)
        .await?;

    let (begun, before) = (Instant::now(), edge.upstream.requests());
    let two = edge.load(1, 4);
    let even = |rates: &[f64]| within_limit(rates) && rates.iter().all(|&rate| rate > 0.3 * RATE && rate < 0.65 * RATE);
    rates_become("two greedy Envoys have half each", &[&one, &two], even).await?;

    drop(two.stop().await?);
    let greedy = |rates: &[f64]| within_limit(rates) && rates[0] > 0.8 * RATE;
    rates_become("who goes on has nearly all", &[&one], greedy).await?;
    // The other has still something left for a start.
    let first = fetch(edge.envoys[1].1, get("shop.example.com", "/")).await?;
    assert_eq!(first.status, 200, "{}", first.text());

    let two = edge.load(1, 4);
    rates_become("half each again", &[&one, &two], even).await?;
    drop(two.stop().await?);
    edge.envoys[1].0.terminate().await?;
    rates_become("an Envoy that goes gives back its share", &[&one], |rates| {
        within_limit(rates) && rates[0] > 0.8 * RATE
    })
    .await?;
    // Whatever happened to shares on the way: what was admitted too much had to be paid back within two reports.
    let (admitted, most) =
        (edge.upstream.requests() - before, RATE * (begun.elapsed().as_secs_f64() + 10.0) + 3.0 * BURST);
    assert!(admitted as f64 <= most, "{admitted} in {:?}, more than {most}", begun.elapsed());
    let tally = one.stop().await?;
    assert_eq!(tally.errors, 0, "{tally}");
    assert!(tally.by_status.keys().all(|status| [200, 429].contains(status)), "{tally}");
    Ok(())
}

/// Whatever happens to shares on the way, in the long run it is the limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limiter_that_is_away_and_comes_back() -> Result<()> {
    let Some(mut edge) = Edge::start(1).await? else { return Ok(()) };
    let load = edge.load(0, 4);
    let limited = |rates: &[f64]| within_limit(rates) && rates[0] > 0.7 * RATE;
    rates_become("the limit holds", &[&load], limited).await?;
    edge.limiter.kill();
    let rates = rates(&[&load]).await?;
    assert!(within_limit(&rates), "without the limiter an assignment holds as long as it was given: {rates:?}");
    edge.limiter.start_again().await?;
    rates_become("it holds again", &[&load], limited).await?;
    load.stop().await?;
    Ok(())
}

/// Envoy compares assignments by less than they say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_whose_period_alone_is_edited() -> Result<()> {
    let Some(edge) = Edge::start(1).await? else { return Ok(()) };
    let file = edge.folder.path().join("limits.yaml");
    fs::write(&file, RULES.replace("per: 1s, requests_per_unit: 100", "per: 40s, requests_per_unit: 1000"))?;
    until("the long period is loaded", REPORTED, async || {
        let limits = edge.limiter.json("/limits").await?.to_string();
        ensure!(limits.contains("1000"), "{limits}");
        Ok(())
    })
    .await?;
    let load = edge.load(0, 4);
    let slow = |rates: &[f64]| rates[0] > 0.1 * RATE && rates[0] < 0.5 * RATE;
    rates_become("a quarter of the rate passes", &[&load], slow).await?;
    fs::write(&file, RULES)?;
    rates_become("all of it passes", &[&load], |rates| within_limit(rates) && rates[0] > 0.7 * RATE).await?;
    load.stop().await?;
    Ok(())
}

/// A proxy's end of the stream, without a proxy.
struct Stream {
    reports: mpsc::Sender<RateLimitQuotaUsageReports>,
    answers: Streaming<RateLimitQuotaResponse>,
}

fn report(domain: &str, limit: Option<&str>, allowed: u64) -> RateLimitQuotaUsageReports {
    let bucket = |limit: &str| BucketId { bucket: [("chancery.limit".to_owned(), limit.to_owned())].into() };
    let usage = BucketQuotaUsage {
        bucket_id: limit.map(bucket),
        time_elapsed: Some(protobuf::Duration { seconds: 5, nanos: 0 }),
        num_requests_allowed: allowed,
        num_requests_denied: 0,
    };
    RateLimitQuotaUsageReports { domain: domain.to_owned(), bucket_quota_usages: vec![usage] }
}

impl Stream {
    async fn open(channel: Channel) -> Result<Self> {
        let (reports, outgoing) = mpsc::channel(8);
        let mut client = RateLimitQuotaServiceClient::new(channel);
        let answers = client.stream_rate_limit_quotas(ReceiverStream::new(outgoing)).await?.into_inner();
        Ok(Self { reports, answers })
    }

    async fn next(&mut self) -> Result<Strategy, tonic::Status> {
        let answer = self.answers.message().await?.expect("the stream goes on");
        let Some(Action::QuotaAssignmentAction(assignment)) = answer.bucket_action[0].bucket_action else {
            panic!("no assignment: {answer:?}")
        };
        Ok(assignment.rate_limit_strategy.and_then(|strategy| strategy.strategy).expect("a strategy"))
    }

    async fn send(&mut self, report: RateLimitQuotaUsageReports) -> Result<Strategy, tonic::Status> {
        self.reports.send(report).await.expect("the stream is open");
        self.next().await
    }
}

fn per_second(strategy: &Strategy) -> Option<f64> {
    let Strategy::TokenBucket(bucket) = strategy else { return None };
    let interval = bucket.fill_interval.as_ref()?.seconds as f64;
    Some(f64::from(bucket.tokens_per_fill.as_ref()?.value) / interval)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_told_of_each_other() -> Result<()> {
    let folder = tempfile::tempdir()?;
    // Several workers: streams are on threads of their own, and share all the same.
    let limiter = limiter(folder.path(), &["--workers", "4"]).await?;
    let channel = || Channel::from_shared(format!("http://{}", limiter.grpc));
    let (mut one, mut two) =
        (Stream::open(channel()?.connect().await?).await?, Stream::open(channel()?.connect().await?).await?);
    assert_eq!(per_second(&one.send(report("edge", Some("shared"), 50)).await?), Some(100.0));
    assert_eq!(per_second(&two.send(report("edge", Some("shared"), 50)).await?), Some(50.0));
    assert_eq!(per_second(&one.next().await?), Some(50.0), "without another report of its own");
    drop(two);
    assert_eq!(per_second(&one.next().await?), Some(100.0));
    let unknown = one.send(report("edge", Some("no-such-limit"), 1_000)).await?;
    assert_eq!(per_second(&unknown), None);
    assert!(matches!(unknown, Strategy::BlanketRule(0)), "allow all: {unknown:?}");
    for wrong in [report("", Some("shared"), 1), report("edge", None, 1)] {
        let mut stream = Stream::open(channel()?.connect().await?).await?;
        let refused = stream.send(wrong).await.expect_err("nonsense was answered");
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_has_no_quota_of_another() -> Result<()> {
    let Some(scene) = Scene::start(Protocol::Delta).await? else { return Ok(()) };
    let limit = limit_per_key("per-client", 60, "1m", json!({ "enforcement": "quota" }));
    let shop = Limited::start(&scene, &[limit], &[]).await?;
    until("the limiter has the limit", REPORTED, async || {
        let limits = shop.limiter.json("/limits").await?.to_string();
        ensure!(limits.contains("per-client"), "{limits}");
        Ok(())
    })
    .await?;
    let of = |entries: &[(&str, &str)]| {
        let mut report = report("edge", None, 1);
        let bucket = entries.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        report.bucket_quota_usages[0].bucket_id = Some(BucketId { bucket });
        report
    };
    let ann = [("chancery.limit", "per-client"), ("x-api-key", "ann")];
    let stream = async |fleet: &str| -> Result<Stream> {
        let identity = scene.authority.proxy(fleet, "asker")?;
        Stream::open(secure(shop.limiter.grpc, &scene.authority, &identity).await?).await
    };
    let refused = stream("lab").await?.send(of(&ann)).await.expect_err("a stranger has a quota");
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    let own = stream("edge").await?.send(of(&ann)).await?;
    assert_eq!(per_second(&own), Some(1.0));
    Ok(())
}
