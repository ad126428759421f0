//! What users write: the documents' shapes, as serde reads them and OpenAPI shows them.
//!
//! The types here are plain data with a doc comment per field, which is the reference documentation and goes into the
//! JSON Schema. The same schema drives the structural check (`shape`), so what is documented and what is
//! accepted cannot drift apart. What the values mean is the business of `parse`.

mod access;
mod access_log;
mod authorizer;
mod compression;
mod cors;
mod envelope;
mod envoy_patch;
mod fault;
mod fleet;
mod jwt;
mod listener;
mod load_balancing;
mod local_rate_limit;
mod matches;
mod rate_limit;
mod registration;
mod retry;
mod route;
mod scalar;
mod schema;
mod service;
mod shape;
mod subset;
mod tcp;
mod team;
mod tls;
mod tracing;

pub use access::{AccessSpec, CallerSpec};
pub use access_log::{AccessLogSpec, LogFilterSpec, LogServiceSpec, LogSinkSpec};
pub use authorizer::{
    AuthorizationBodySpec, AuthorizationHeadersSpec, AuthorizerProtocolSpec, ExternalAuthorizationSpec,
    RuleAuthorizationSpec,
};
pub use compression::{CompressionAlgorithmSpec, CompressionSpec};
pub use cors::CorsSpec;
pub use envelope::{Envelope, READ_ONLY};
pub use envoy_patch::{EnvoyPatchSpec, PatchTargetKindSpec, PatchTargetSpec};
pub use fault::{FaultAbortSpec, FaultDelaySpec, FaultSpec};
pub use fleet::{
    CanarySpec, ErrorRateGateSpec, FleetDefaultsSpec, FleetSpec, OnFailureSpec, OnRolloutFailureSpec, RateLimiterSpec,
    RolloutGatesSpec, RolloutSpec,
};
pub use jwt::{JwtClaimSpec, JwtKeysSpec, JwtProviderSpec, JwtSpec};
pub use listener::{
    ClientsSpec, ListenerProtocolSpec, ListenerSpec, ListenerTimeoutsSpec, ListenerTlsSpec, RouteDeliverySpec,
};
pub use load_balancing::{
    HashCookieSpec, HashKeySpec, LoadBalancingPolicySpec, LoadBalancingSettingsSpec, LoadBalancingSpec,
    SessionAffinitySpec, SessionCookieSpec, SlowStartSpec, ZoneAwareSpec,
};
pub use local_rate_limit::LocalRateLimitSpec;
pub use matches::{CookieMatchSpec, GrpcMatchSpec, HeaderMatchSpec, MatchSpec, PathMatchSpec, QueryMatchSpec};
pub use rate_limit::{
    AbsentSpec, AlgorithmSpec, ConstantSpec, DeniedSpec, EnforcementSpec, HitsSpec, KeyPartSpec, LimitSpec,
    NetworkSpec, RateLimitSpec, WhenRedisIsDownSpec,
};
pub use registration::{NamedRegistrationSpec, RegistrationSpec, RegistrationsSpec};
pub use retry::{BackoffSpec, RetryOnSpec, RetrySpec, RetryStatusSpec};
pub use route::{
    ConnectSpec, HeaderChangesSpec, HeaderSpec, HeadersSpec, MirrorSpec, RedirectSchemeSpec, RedirectSpec,
    RegexRewriteSpec, RespondSpec, RewriteSpec, RouteSpec, RuleSpec, TargetSpec, UpgradeSpec,
};
pub use scalar::{DurationText, NameText, SizeText, StatusNumber};
pub use schema::{schema, schema_of_any};
pub use service::{
    AdaptiveConcurrencySpec, BreakerSpec, ConcurrencyAlgorithmSpec, EndpointSpec, GrpcHealthCheckSpec, HealthCheckSpec,
    HedgingSpec, OutlierDetectionSpec, ProxyProtocolSpec, RetryBudgetSpec, ServiceProtocolSpec, ServiceSpec,
};
pub(in crate::model) use shape::Shape;
pub use shape::suggestion;
pub use subset::{SubsetFallbackSpec, SubsetsSpec};
pub use tcp::TcpSpec;
pub use team::{QuotasSpec, TeamSpec};
pub use tls::{ClientCertificateSpec, MeshSpec, ServiceTlsSpec, SubjectAltNameSpec, TlsVersionSpec, TrustedCaSpec};
pub use tracing::{SamplingSpec, TagSpec, TracingSpec};

use serde::de::DeserializeOwned;

use super::problem::Problems;

/// Something that has a shape: an envelope, or the `spec` of a kind.
pub(in crate::model) trait Wire: DeserializeOwned + utoipa::ToSchema {
    /// Its shape, worked out once.
    fn shape() -> &'static Shape;

    /// Reads `value`, or reports every place where it does not have this shape.
    fn read(value: &serde_json::Value, problems: &mut Problems) -> Option<Self> {
        let before = problems.count();
        Self::shape().check(value, problems);
        if problems.count() > before {
            return None;
        }
        // The shape has said yes, so this fails only where serde is stricter than the schema.
        serde_path_to_error::deserialize(value)
            .map_err(|error| problems.report(format!("{}: {}", error.path(), error.inner())))
            .ok()
    }
}

/// Gives types their [`Wire::shape`].
macro_rules! wire {
    ($($type:ty),*) => {$(
        impl Wire for $type {
            fn shape() -> &'static Shape {
                static SHAPE: std::sync::LazyLock<Shape> = std::sync::LazyLock::new(Shape::of::<$type>);
                &SHAPE
            }
        }
    )*};
}

wire!(Envelope, FleetSpec, ListenerSpec, TeamSpec, ServiceSpec, RateLimitSpec, RouteSpec, EnvoyPatchSpec);
wire!(RegistrationSpec, RegistrationsSpec);

#[cfg(test)]
mod tests;
