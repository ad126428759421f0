//! The tonic services: `ShouldRateLimit` for whatever the short way leaves out, quotas, and health.
//!
//! [`wire`](super::wire) hands every call here that is not a plain, complete, well-formed `ShouldRateLimit`. So errors are
//! told in one place, and the two ways cannot differ in them.

use std::time::Instant;

use chancery_proto::envoy::{
    rlqs::rate_limit_quota_service_server::RateLimitQuotaServiceServer,
    rls::{
        RateLimitRequest, RateLimitResponse,
        rate_limit_service_server::{RateLimitService, RateLimitServiceServer},
    },
};
use chancery_runtime::{admin::Readiness, telemetry::chain};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, service::Routes};
use tonic_health::{ServingStatus, server::HealthReporter};

use super::{Service, caller::caller_of, invalid, refusal, wire::request};
use crate::decide::Deciding;

/// The name of the service, for health checks.
pub const SERVICE_NAME: &str = "envoy.service.ratelimit.v3.RateLimitService";

/// The largest request message, in bytes: tonic's own bound, said aloud.
pub const MAX_MESSAGE: usize = 4 << 20;

/// `ShouldRateLimit`, quotas and `others` (health and the like) as one tonic service.
pub fn routes(service: Service, others: Routes) -> Routes {
    let quota = RateLimitQuotaServiceServer::new(service.quota.clone()).max_decoding_message_size(MAX_MESSAGE);
    let service = RateLimitServiceServer::new(RateLimit(service)).max_decoding_message_size(MAX_MESSAGE);
    others.add_service(service).add_service(quota)
}

/// `grpc.health.v1`, and the task that keeps it true: serving while `readiness` says so, until `stop`.
pub fn health(readiness: Readiness, stop: CancellationToken) -> (Routes, impl Future<Output = ()> + Send) {
    let (reporter, service) = tonic_health::server::health_reporter();
    (Routes::new(service), report(reporter, readiness, stop))
}

async fn report(reporter: HealthReporter, readiness: Readiness, stop: CancellationToken) {
    let tell = async |status| {
        reporter.set_service_status("", status).await;
        reporter.set_service_status(SERVICE_NAME, status).await;
    };
    let follow = async {
        loop {
            tell(ServingStatus::NotServing).await;
            readiness.becomes(true).await;
            tell(ServingStatus::Serving).await;
            readiness.becomes(false).await;
        }
    };
    tokio::select! {
        () = follow => {}
        () = stop.cancelled() => tell(ServingStatus::NotServing).await,
    }
}

#[derive(Clone)]
struct RateLimit(Service);

#[tonic::async_trait]
impl RateLimitService for RateLimit {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let began = Instant::now();
        let answer = self.decide(&request).await;
        self.0.meters.answered(1, began.elapsed());
        answer.map(Response::new)
    }
}

impl RateLimit {
    async fn decide(&self, request: &Request<RateLimitRequest>) -> Result<RateLimitResponse, Status> {
        let caller = caller_of(request.extensions());
        let deciding = {
            let request = request::of_message(request.get_ref()).map_err(invalid)?;
            self.0.limiter.decide(&request, &caller).map_err(|refused| {
                tracing::debug!(error = chain(&refused), "request refused");
                refusal(&refused)
            })?
        };
        let verdict = match deciding {
            Deciding::Done(verdict) => verdict,
            Deciding::Waiting(verdict) => verdict.await,
        };
        Ok(self.0.answers.message(&verdict))
    }
}
