//! Tracing as it is written.

use serde::Deserialize;
use utoipa::ToSchema;

use super::NameText;

/// Which requests of a listener are traced, and who is told. Spans have the URL of requests, with the query.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TracingSpec {
    /// The service that takes spans (OTLP over gRPC); its protocol is `http2`.
    pub service: NameText,
    /// What the proxies are called in spans (`service.name`); as the fleet if it is not given.
    #[schema(examples("edge"))]
    pub service_name: Option<String>,
    /// Which requests.
    pub sampling: Option<SamplingSpec>,
    /// What spans say besides.
    #[schema(max_items = 50)]
    pub tags: Option<Vec<TagSpec>>,
}

/// Which requests are traced, in percent, each 0 to 100 in steps of 0.01. A request that comes with a trace stays in it: whether it is
/// recorded is decided where the trace began.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SamplingSpec {
    /// Of those of which nothing is said yet; 1 if it is not given.
    #[schema(minimum = 0.0, maximum = 100.0)]
    pub random: Option<f64>,
    /// Of those whose client asks for it by a header `x-client-trace-id`: clients may be strangers; 0 if it is not given.
    #[schema(minimum = 0.0, maximum = 100.0)]
    pub client: Option<f64>,
    /// The most of all, however they were chosen; 100 if it is not given.
    #[schema(minimum = 0.0, maximum = 100.0)]
    pub overall: Option<f64>,
}

/// What spans say besides: exactly one of `literal` and `header`.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TagSpec {
    /// Under which name.
    #[schema(examples("deployment.environment"))]
    pub name: String,
    /// Always this.
    pub literal: Option<String>,
    /// That of a header of the request.
    #[schema(examples("x-tenant"))]
    pub header: Option<String>,
    /// What is said without that header; nothing if it is not given; only with `header`.
    pub default: Option<String>,
}
