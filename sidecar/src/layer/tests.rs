//! All layers together, as a stack, around endpoints that fail as they are told.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use proptest::prelude::*;
use tower::{Service, ServiceBuilder, ServiceExt};

use super::{
    breaker::{Endpoints, Host, Tried, Watched},
    concurrency::ConcurrencyLayer,
    deadline::DeadlineLayer,
    hedge::HedgeLayer,
    queue::{Limits, Queue, QueueLayer},
    replay::Replay,
    retry::RetryLayer,
    testing::{Answer, Frames, Mock, answer, watch},
    *,
};
use crate::policy::{
    concurrency::{Concurrency, Settings},
    deadline::Deadline,
    deadline::RouteTimeout,
    endpoints::{self, EndpointId},
    hedge::{self, Latencies},
    p2c::Standing,
    retry::{Conditions, RetryPolicy},
    retry_budget::{self, RetryBudget},
};

/// What an endpoint does with each request.
type Behaviour = Arc<dyn Fn() -> Answer + Send + Sync>;

/// Sends each try to an endpoint of its choice.
#[derive(Clone)]
struct Balance {
    endpoints: Arc<Endpoints>,
    hosts: Arc<[Host]>,
    behaviours: Arc<BTreeMap<EndpointId, Behaviour>>,
    tries: Arc<Mutex<BTreeMap<EndpointId, u32>>>,
}

impl Service<Asked<Replay<Full<Bytes>>>> for Balance {
    type Response = Response<Watched<Frames>>;
    type Error = Failed;
    type Future = BoxFuture<Result<Self::Response, Failed>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, asked: Asked<Replay<Full<Bytes>>>) -> Self::Future {
        let Asked { request, deadline, tried } = asked;
        let Some(mut ticket) = self.endpoints.choose(&self.hosts, &tried, deadline) else {
            return Box::pin(async { Err(Failed::NoEndpoint) });
        };
        *self.tries.lock().entry(ticket.endpoint()).or_default() += 1;
        let endpoint = Mock::new([self.behaviours[&ticket.endpoint()]()]);
        let request = request.map(|body| ticket.upload(body));
        Box::pin(watch(ticket, endpoint.oneshot(Asked::from(request))))
    }
}

/// A client's view of one cluster.
struct Proxy {
    clock: Clock,
    balance: Balance,
    concurrency: Arc<Mutex<Concurrency>>,
    queue: Arc<Queue>,
    policy: Arc<RetryPolicy>,
    budget: Arc<Mutex<RetryBudget>>,
    latencies: Arc<Mutex<Latencies>>,
}

impl Proxy {
    fn new(behaviours: impl IntoIterator<Item = Behaviour>) -> Self {
        let clock = Clock::start();
        let endpoints = Endpoints::new(clock, endpoints::Settings::default());
        let behaviours: BTreeMap<_, _> =
            behaviours.into_iter().map(|behaviour| (endpoints.insert(), behaviour)).collect();
        let hosts = behaviours.keys().map(|id| Host { id: *id, weight: 1, healthy: true }).collect();
        let limits = Limits { requests: 50, pending: 50, wait: Duration::from_millis(200) };
        Self {
            clock,
            balance: Balance { endpoints, hosts, behaviours: Arc::new(behaviours), tries: Arc::default() },
            concurrency: Arc::new(Mutex::new(Concurrency::new(Settings::Fixed(100), clock.now()))),
            queue: Arc::new(Queue::new(limits)),
            policy: Arc::new(RetryPolicy {
                on: Conditions::parse("5xx").0,
                retries: 2,
                per_try: Some(Duration::from_millis(300)),
                ..RetryPolicy::default()
            }),
            budget: Arc::new(Mutex::new(RetryBudget::new(retry_budget::Settings::default()))),
            latencies: Arc::default(),
        }
    }

    /// The status of an answer that was read to its end, or nothing.
    fn get(&self) -> impl Future<Output = Option<u16>> + Send + use<> {
        let stack = ServiceBuilder::new()
            .layer(DeadlineLayer { clock: self.clock, route: Some(RouteTimeout::new(Duration::from_secs(1))) })
            .layer(ConcurrencyLayer { clock: self.clock, concurrency: Arc::clone(&self.concurrency) })
            .layer(RetryLayer {
                clock: self.clock,
                policy: Arc::clone(&self.policy),
                retriable_headers: None,
                budget: Arc::clone(&self.budget),
                cluster: "c".into(),
            })
            .layer(HedgeLayer {
                clock: self.clock,
                settings: hedge::Settings::default(),
                repeatable: false,
                latencies: Arc::clone(&self.latencies),
                budget: Arc::clone(&self.budget),
            })
            .layer(QueueLayer { queue: Arc::clone(&self.queue) })
            .service(self.balance.clone());
        async move {
            let response = stack.oneshot(Request::new(Full::new(Bytes::from("body")))).await.ok()?;
            let status = response.status().as_u16();
            response.into_body().collect().await.ok()?;
            Some(status)
        }
    }

    fn tries(&self) -> Vec<u32> {
        let tries = self.balance.tries.lock();
        self.balance.hosts.iter().map(|host| tries.get(&host.id).copied().unwrap_or_default()).collect()
    }

    /// Nothing is under way, waits or is held.
    fn is_at_rest(&self) -> bool {
        let pending = self.balance.hosts.iter().any(|host| self.balance.endpoints.pending(host.id) > 0);
        !pending && self.concurrency.lock().in_flight() == 0 && self.queue.under_way() == 0 && self.queue.pending() == 0
    }
}

fn always(of: impl Fn() -> Answer + Send + Sync + 'static) -> Behaviour {
    Arc::new(of)
}

fn good() -> Behaviour {
    always(|| answer(200).after(5).body(Frames::of(&["x"])))
}

#[tokio::test(start_paused = true)]
async fn nobody_sees_that_one_of_three_always_fails() {
    let proxy = Proxy::new([always(|| answer(503)), good(), good()]);
    for _ in 0..90 {
        assert_eq!(proxy.get().await, Some(200));
    }
    assert!(proxy.tries()[0] <= 7, "{:?}", proxy.tries());
    assert!(proxy.is_at_rest());
}

#[tokio::test(start_paused = true)]
async fn nobody_sees_that_one_of_three_hangs() {
    let proxy = Proxy::new([always(|| answer(200).after(60_000)), good(), good()]);
    for _ in 0..90 {
        assert_eq!(proxy.get().await, Some(200));
    }
    assert!(proxy.tries()[0] <= 7, "{:?}", proxy.tries());
    assert!(proxy.is_at_rest());
}

#[tokio::test(start_paused = true)]
async fn when_all_fail_retries_stay_within_their_budget() {
    let proxy = Proxy::new((0..3).map(|_| always(|| answer(503))));
    for _ in 0..1_000 {
        assert_eq!(proxy.get().await, Some(503));
    }
    let (tries, seconds) = (proxy.tries().iter().sum::<u32>(), proxy.clock.now().as_secs() as u32);
    let allowed = 1_000 + 1_000 / 5 + 100 * (seconds / 10 + 1);
    assert!(tries > 1_000 && tries <= allowed, "{tries} tries in {seconds} s, {allowed} allowed");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_well_again_has_its_traffic_back() {
    let failing = Arc::new(AtomicU32::new(1));
    let state = Arc::clone(&failing);
    let recovers = always(move || if state.load(Ordering::Relaxed) == 1 { answer(503) } else { answer(200).after(5) });
    let proxy = Proxy::new([recovers, good()]);
    let first = proxy.balance.hosts[0].id;
    while proxy.balance.endpoints.standing(first) == Standing::In {
        // Alone, so that it is asked at all.
        let ticket = proxy.balance.endpoints.choose(&proxy.balance.hosts[..1], &Tried::default(), Deadline::NEVER);
        drop(
            watch(ticket.unwrap(), async { Ok(Response::builder().status(503).body(Frames::default()).unwrap()) })
                .await,
        );
    }
    failing.store(0, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(2)).await;
    for _ in 0..100 {
        assert_eq!(proxy.get().await, Some(200));
    }
    assert!(proxy.tries()[0] >= 20, "{:?}", proxy.tries());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whoever_goes_away_whenever_leaves_nothing_behind(
        patience in proptest::collection::vec(0..400_u64, 1..150), seed: u32,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let number = Arc::new(AtomicU32::new(seed));
            let erratic = always(move || {
                let number = number.fetch_add(0x9E37_79B9, Ordering::Relaxed);
                let status = if number.is_multiple_of(3) { 503 } else { 200 };
                answer(status).after(u64::from(number >> 8) % 350).body(Frames::of(&["x", "y"]))
            });
            let proxy = Proxy::new([Arc::clone(&erratic), erratic, good()]);
            let requests = patience.into_iter().map(|patience| {
                let get = proxy.get();
                tokio::spawn(async move { tokio::time::timeout(Duration::from_millis(patience), get).await.ok() })
            });
            for request in requests.collect::<Vec<_>>() {
                request.await.unwrap();
            }
            prop_assert!(proxy.is_at_rest());
            // Whatever happened, each endpoint is asked again in the end.
            tokio::time::sleep(Duration::from_secs(200)).await;
            prop_assert!(proxy.balance.hosts.iter().all(|host| proxy.balance.endpoints.standing(host.id) != Standing::Out));
            Ok(())
        })?;
    }
}
