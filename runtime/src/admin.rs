//! The admin port: is it alive, is it ready, what does it measure.
//!
//! Alive means that the process answers at all. Ready means that every named condition holds and
//! the shutdown has not begun; `/readyz` answers 503 with the reasons until then, so that a load
//! balancer and a person see the same thing.

use std::{collections::BTreeMap, io, time::Duration};

use axum::{Json, Router, extract::State, http::StatusCode, http::header, response::IntoResponse, routing::get};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

/// How often recorded samples are folded into their buckets when nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// How long open connections get to finish once the shutdown has begun.
pub const GRACE: Duration = Duration::from_secs(2);

/// What must hold before the process is ready. Clones share the conditions.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    conditions: watch::Sender<BTreeMap<&'static str, bool>>,
}

/// One thing that must hold, such as "catalog loaded". It does not hold until [`met`](Self::met).
#[derive(Clone, Debug)]
pub struct Condition {
    name: &'static str,
    readiness: Readiness,
}

impl Readiness {
    /// Ready at once, until conditions are added.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition under the name that `/readyz` shows while it does not hold.
    pub fn condition(&self, name: &'static str) -> Condition {
        self.conditions.send_modify(|conditions| _ = conditions.insert(name, false));
        Condition { name, readiness: self.clone() }
    }

    /// The conditions that do not hold.
    pub fn waiting_for(&self) -> Vec<&'static str> {
        self.conditions.borrow().iter().filter(|(_, met)| !**met).map(|(name, _)| *name).collect()
    }

    /// Whether every condition holds.
    pub fn is_ready(&self) -> bool {
        all_met(&self.conditions.borrow())
    }

    /// Waits until the process is ready, or until it is not.
    pub async fn becomes(&self, ready: bool) {
        // This holds a sender, so the channel stays open.
        let _ = self.conditions.subscribe().wait_for(|conditions| all_met(conditions) == ready).await;
    }
}

impl Condition {
    /// The condition holds.
    pub fn met(&self) {
        self.set(true);
    }

    /// The condition does not hold any more.
    pub fn lost(&self) {
        self.set(false);
    }

    /// Says whether the condition holds.
    pub fn set(&self, met: bool) {
        self.readiness.conditions.send_if_modified(|conditions| conditions.insert(self.name, met) != Some(met));
    }
}

fn all_met(conditions: &BTreeMap<&'static str, bool>) -> bool {
    conditions.values().all(|met| *met)
}

/// What the admin port shows.
#[derive(Clone)]
pub struct Admin {
    /// Whether the process is ready.
    pub readiness: Readiness,
    /// What it measures.
    pub metrics: PrometheusHandle,
    /// Cancelled when the process begins to shut down: it is not ready from then on.
    pub stopping: CancellationToken,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReadyBody {
    ready: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    waiting_for: Vec<&'static str>,
}

/// `/livez`, `/readyz` and `/metrics`.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(admin)
}

/// Serves the admin port until `stop` is cancelled.
///
/// `stop` should come after [`Admin::stopping`]: while a process drains, its probes and metrics
/// still matter.
///
/// # Errors
/// The listener failed.
pub async fn serve(listener: TcpListener, admin: Admin, stop: CancellationToken) -> io::Result<()> {
    let upkeep = upkeep(admin.metrics.clone());
    let stopped = stop.clone();
    let server = axum::serve(listener, router(admin)).with_graceful_shutdown(async move { stopped.cancelled().await });
    tokio::select! {
        served = server => served,
        never = upkeep => never,
        () = async { stop.cancelled().await; tokio::time::sleep(GRACE).await } => Ok(()),
    }
}

/// Without a scrape, samples would pile up.
async fn upkeep(metrics: PrometheusHandle) -> io::Result<()> {
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        ticks.tick().await;
        metrics.run_upkeep();
    }
}

async fn readyz(State(admin): State<Admin>) -> impl IntoResponse {
    let mut waiting_for = admin.readiness.waiting_for();
    if admin.stopping.is_cancelled() {
        waiting_for.push("shutdown");
    }
    let ready = waiting_for.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(ReadyBody { ready, waiting_for }))
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], admin.metrics.render())
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    fn admin() -> Admin {
        Admin {
            readiness: Readiness::new(),
            metrics: crate::telemetry::metrics().unwrap(),
            stopping: CancellationToken::new(),
        }
    }

    async fn get(admin: &Admin, path: &str) -> (StatusCode, String) {
        let request = axum::http::Request::get(path).body(axum::body::Body::empty()).unwrap();
        let response = router(admin.clone()).oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn ready_when_every_condition_holds() {
        let admin = admin();
        let loaded = admin.readiness.condition("catalog loaded");
        let database = admin.readiness.condition("database reachable");
        let (status, body) = get(&admin, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body, r#"{"ready":false,"waitingFor":["catalog loaded","database reachable"]}"#);

        loaded.met();
        let ready = admin.readiness.clone();
        let waiting = tokio::spawn(async move { ready.becomes(true).await });
        database.met();
        tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
        assert_eq!(get(&admin, "/readyz").await, (StatusCode::OK, r#"{"ready":true}"#.to_owned()));

        database.lost();
        assert_eq!(get(&admin, "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(get(&admin, "/livez").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn not_ready_from_the_beginning_of_the_shutdown() {
        let admin = admin();
        assert_eq!(get(&admin, "/readyz").await.0, StatusCode::OK);
        admin.stopping.cancel();
        let (status, body) = get(&admin, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains("shutdown"), "{body}");
    }

    #[tokio::test]
    async fn serves_metrics_until_stopped() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, admin(), stop.clone()));
        ::metrics::counter!("admin_test_total").increment(3);

        let client: hyper_util::client::legacy::Client<_, axum::body::Body> =
            hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
        let response = client.get(format!("http://{address}/metrics").parse().unwrap()).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&body).contains("admin_test_total 3"));

        stop.cancel();
        server.await.unwrap().unwrap();
    }
}
