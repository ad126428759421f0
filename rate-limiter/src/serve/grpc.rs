//! The tonic services: `ShouldRateLimit` for whatever the short way leaves out, quotas, health and reflection.
//!
//! [`wire`](super::wire) hands every call here that is not a plain, complete, well-formed `ShouldRateLimit`. So errors are
//! told in one place, and the two ways cannot differ in them.

mod rate_limit;
mod until_stopped;

use axum::middleware::{map_request_with_state, map_response_with_state};
use chancery_proto::reflection::RATE_LIMIT_SERVICES;
use chancery_runtime::admin::Readiness;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};

use self::rate_limit::RateLimit;
use super::Service;

/// The name of the service, for health checks.
pub const SERVICE_NAME: &str = "envoy.service.ratelimit.v3.RateLimitService";

/// The path of its only method.
pub const METHOD: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

/// The largest request message, in bytes: tonic's own bound, said aloud.
pub const MAX_MESSAGE: usize = 4 << 20;

/// The largest question about health or descriptors, in bytes: a name.
const MAX_QUESTION: usize = 4 << 10;

/// `ShouldRateLimit`, quotas and `others` (health and the like) as one tonic service. What has no end of its own ends on `end`.
pub fn routes(service: Service, mut others: Routes, end: CancellationToken) -> Routes {
    let router = others.axum_router_mut();
    *router = std::mem::take(router).layer(map_request_with_state(end.clone(), until_stopped::question));
    let mut routes = others.add_service(service.quota.clone().server());
    let router = routes.axum_router_mut();
    *router = std::mem::take(router).layer(map_response_with_state(end, until_stopped::answer));
    routes.add_service(RateLimit(service))
}

/// Whether a call at this path may go on sending for as long as it likes.
pub(super) fn is_streamed(path: &str) -> bool {
    path.starts_with("/envoy.service.rate_limit_quota.v3.") || path.starts_with("/grpc.reflection.")
}

/// Server reflection, so that tools need no `.proto` files, in both versions that tools speak.
///
/// # Errors
/// The descriptors are of no use.
pub fn reflection(others: Routes) -> Result<Routes, tonic_reflection::server::Error> {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(RATE_LIMIT_SERVICES)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let newest = builder().build_v1()?.max_decoding_message_size(MAX_QUESTION);
    let usual = builder().build_v1alpha()?.max_decoding_message_size(MAX_QUESTION);
    Ok(others.add_service(newest).add_service(usual))
}

/// `grpc.health.v1`, the task that keeps it true (serving while `readiness` says so, until `stop`), and what is cancelled when
/// that has told who watches of the end.
pub async fn health(
    readiness: Readiness,
    stop: CancellationToken,
) -> (Routes, impl Future<Output = ()> + Send, CancellationToken) {
    let reporter = HealthReporter::new();
    // A new reporter says that all is well.
    tell(&reporter, ServingStatus::NotServing).await;
    let service = HealthServer::new(HealthService::from_health_reporter(reporter.clone()));
    let told = CancellationToken::new();
    // Whatever becomes of the task.
    let tells = told.clone().drop_guard();
    let report = async move {
        report(reporter, readiness, stop).await;
        drop(tells);
    };
    (Routes::new(service.max_decoding_message_size(MAX_QUESTION)), report, told)
}

async fn report(reporter: HealthReporter, readiness: Readiness, stop: CancellationToken) {
    let follow = async {
        loop {
            readiness.becomes(true).await;
            tell(&reporter, ServingStatus::Serving).await;
            readiness.becomes(false).await;
            tell(&reporter, ServingStatus::NotServing).await;
        }
    };
    tokio::select! {
        () = follow => {}
        () = stop.cancelled() => tell(&reporter, ServingStatus::NotServing).await,
    }
}

async fn tell(reporter: &HealthReporter, status: ServingStatus) {
    reporter.set_service_status("", status).await;
    reporter.set_service_status(SERVICE_NAME, status).await;
}
