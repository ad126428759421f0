//! A second request beside a slow one, through the whole way out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use http::Response;
use tokio::{sync::Notify, time::timeout};

use super::support::{Backend, Client, DEADLINE, Sidecar, cluster, request, route_to, snapshot};
use crate::{
    config::snapshot::ClusterSettings,
    policy::{breaker, failure_accrual, hedge, retry_budget},
    proxy::body,
};

/// Enough of them, and the usual time is known.
const SAMPLES: u32 = 5;

/// Two endpoints that answer at once, but for the first request for `/slow`, which either of them may get: it is answered when the test
/// says so.
struct Scene {
    backends: [Backend; 2],
    sidecar: Sidecar,
    go_on: Arc<Notify>,
    /// Whether the caller of the slow request has gone away.
    cancelled: Arc<AtomicBool>,
}

/// Notes that it is dropped.
struct Guard(Arc<AtomicBool>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

impl Scene {
    async fn start(budget: retry_budget::Settings) -> Self {
        let (go_on, cancelled, seen) = (Arc::<Notify>::default(), Arc::default(), Arc::new(AtomicBool::new(false)));
        let backend = async || {
            let (go_on, cancelled, seen) = (go_on.clone(), Arc::clone(&cancelled), seen.clone());
            Backend::start(move |request| {
                let slow = request.uri().path() == "/slow" && !seen.swap(true, SeqCst);
                let (go_on, cancelled) = (go_on.clone(), Arc::clone(&cancelled));
                async move {
                    if slow {
                        let guard = Guard(cancelled);
                        go_on.notified().await;
                        std::mem::forget(guard);
                    }
                    Response::new(body::full(if slow { "slow" } else { "fast" }))
                }
            })
            .await
        };
        let backends = [backend().await, backend().await];
        // One failure would be enough to put an endpoint out.
        let accrual = failure_accrual::Settings { consecutive: Some(1), ..failure_accrual::Settings::default() };
        let mut settings = ClusterSettings {
            hedge: Some(hedge::Settings { samples: SAMPLES, ..hedge::Settings::default() }),
            retry_budget: budget,
            ..ClusterSettings::default()
        };
        settings.endpoints.breaker = Some(breaker::Settings { accrual, ..breaker::Settings::default() });
        let at = cluster("c", &backends.each_ref().map(|backend| backend.address), settings);
        let scene =
            Self { backends, sidecar: Sidecar::start(snapshot(at, route_to("c", None))).await, go_on, cancelled };
        let mut client = Client::connect(scene.sidecar.address).await;
        for _ in 0..2 * SAMPLES {
            assert_eq!(client.get("/").await.body, "fast");
        }
        scene
    }

    fn requests(&self) -> usize {
        self.backends.iter().map(Backend::requests).sum()
    }

    /// Everything is given back, and nobody is out.
    async fn is_as_before(&self) {
        let outbound = &self.sidecar.outbound;
        let upstream = outbound.world.load().upstreams["c"].clone();
        let given_back = async {
            let pending = || upstream.members.iter().map(|one| upstream.endpoints.pending(one.id)).sum::<u32>();
            while pending() + upstream.queue.under_way() as u32 + outbound.concurrency.lock().in_flight() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(DEADLINE, given_back).await.expect("all that was taken is given back");
        assert_eq!((upstream.endpoints.out(), upstream.endpoints.counts().opened), (0, 0));
    }
}

#[tokio::test]
async fn the_second_wins_and_the_first_is_cancelled_and_no_failure() {
    let scene = Scene::start(retry_budget::Settings::default()).await;
    let before = scene.backends.each_ref().map(Backend::requests);
    let answer = Client::connect(scene.sidecar.address).await.get("/slow").await;
    assert_eq!((answer.status, &*answer.body), (200, &b"fast"[..]));
    let after = scene.backends.each_ref().map(Backend::requests);
    assert_eq!(after, before.map(|requests| requests + 1), "the second goes to the other endpoint");
    scene.is_as_before().await;
    let cancelled = async {
        while !scene.cancelled.load(SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, cancelled).await.expect("the endpoint that was slow is left");
}

#[tokio::test]
async fn without_budget_there_is_no_second() {
    let scene = Scene::start(retry_budget::Settings { ratio: 0.0, least_per_second: 0, ..Default::default() }).await;
    no_second(&scene, "GET").await;
}

#[tokio::test]
async fn what_may_not_be_repeated_is_not_hedged() {
    no_second(&Scene::start(retry_budget::Settings::default()).await, "POST").await;
}

/// The slow request stays alone, for much longer than others take, and is answered in the end.
async fn no_second(scene: &Scene, method: &str) {
    let before = scene.requests();
    let mut client = Client::connect(scene.sidecar.address).await;
    let answer = client.send(request(method, "/slow", ""));
    tokio::pin!(answer);
    let early = timeout(Duration::from_millis(300), answer.as_mut()).await;
    assert!(early.is_err(), "{early:?}");
    assert_eq!(scene.requests(), before + 1);
    scene.go_on.notify_one();
    assert_eq!(answer.await.body, "slow");
    scene.is_as_before().await;
}
