//! The HTTP port: decisions for those who do not speak gRPC, questions about the rules, health and metrics.
//!
//! `POST /json` is envoyproxy/ratelimit's: the request and the answer in protobuf's JSON mapping, the verdict also in
//! the status. The rest is for people: what is loaded, and why a request would be refused. Envoy comes over gRPC, so
//! nothing here is in a hurry; what a request may cost is bounded.

mod connections;
mod json;
mod limits;
mod probe;
mod problem;

use std::time::Duration;

use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State, rejection::BytesRejection},
    http::{HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use chancery_runtime::admin::{self, Admin};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::{catch_panic::CatchPanicLayer, timeout::TimeoutLayer};

use self::{connections::Bounds, json::RequestDto, problem::Problem};
use crate::{
    decide::{Caller, Deciding, Limiter},
    model::verdict::Verdict,
};

/// The largest body of a request, in bytes.
const MAX_BODY: usize = 1 << 20;

/// How long a request may take, its body included.
const DEADLINE: Duration = Duration::from_secs(10);

/// What connections are held to: some for people and probes, many for services.
const BOUNDS: Bounds = Bounds { connections: 1_024, head: DEADLINE };

/// How often recorded samples are folded into their buckets when nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// How long open connections get to finish once the shutdown has begun.
const GRACE: Duration = Duration::from_secs(2);

/// What the port answers from.
#[derive(Clone)]
pub struct Http {
    /// Decides.
    pub limiter: Limiter,
    /// Who asks, where the connection does not say it by an [`Extension`] of type [`Caller`].
    pub caller: Caller,
    /// Health and metrics.
    pub admin: Admin,
}

/// All routes.
pub fn router(http: Http) -> Router {
    let admin = http.admin.clone();
    Router::new()
        .route("/json", post(decide))
        .route("/limits", get(limits::list))
        .route("/limits/check", get(limits::check_query).post(limits::check))
        .route("/limits/probe", post(probe::probe))
        .route("/healthcheck", get(healthcheck))
        .method_not_allowed_fallback(async || Problem::new(StatusCode::METHOD_NOT_ALLOWED, "not a method of this path"))
        .fallback(async |uri: Uri| Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path())))
        .with_state(http)
        .merge(admin::router(admin))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, DEADLINE))
        .layer(CatchPanicLayer::new())
}

/// Serves the port until `stop`, which should come after [`Admin::stopping`].
pub async fn serve(listener: TcpListener, http: Http, stop: CancellationToken) {
    let metrics = http.admin.metrics.clone();
    tokio::select! {
        () = connections::serve(listener, router(http), BOUNDS, stop.clone()) => {}
        () = every(UPKEEP, || metrics.run_upkeep()) => {}
        () = async { stop.cancelled().await; tokio::time::sleep(GRACE).await } => {}
    }
}

async fn every(period: Duration, act: impl Fn()) {
    let mut ticks = tokio::time::interval(period);
    loop {
        ticks.tick().await;
        act();
    }
}

/// `POST /json`
async fn decide(
    State(http): State<Http>,
    caller: Option<Extension<Caller>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = RequestDto::parse(&body?)?;
    let request = body.request()?;
    let verdict = match http.limiter.decide(&request, &http.caller(caller))? {
        Deciding::Done(verdict) => verdict,
        Deciding::Waiting(verdict) => verdict.await,
    };
    Ok(answer(&verdict))
}

fn answer(verdict: &Verdict) -> Response {
    let body = Json(json::ResponseDto::new(verdict));
    if verdict.admitted {
        return body.into_response();
    }
    let mut response = (StatusCode::TOO_MANY_REQUESTS, body).into_response();
    if let Some(seconds) = json::retry_after(verdict) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// `GET /healthcheck`, in envoyproxy/ratelimit's words.
async fn healthcheck(State(http): State<Http>) -> impl IntoResponse {
    if http.admin.readiness.is_ready() && !http.admin.stopping.is_cancelled() {
        (StatusCode::OK, "OK")
    } else {
        (StatusCode::INTERNAL_SERVER_ERROR, "not ready")
    }
}

impl Http {
    fn caller(&self, connection: Option<Extension<Caller>>) -> Caller {
        connection.map_or_else(|| self.caller.clone(), |Extension(caller)| caller)
    }
}

#[cfg(test)]
mod tests;
