//! The metrics of the control plane, each declared here and nowhere else.

/// Gauge: the revision this replica serves.
pub const REVISION: &str = "chancery_revision";
/// Gauge: how many endpoints are registered, as far as this replica knows.
pub const REGISTERED_ENDPOINTS: &str = "chancery_registered_endpoints";
/// Histogram: how long an API request takes, in seconds, by `route`, `method` and `status`.
pub const API_REQUEST_DURATION: &str = "chancery_api_request_duration_seconds";

/// Tells the recorder what the metrics mean. Call once, after the recorder is installed.
pub fn describe() {
    metrics::describe_gauge!(REVISION, "Revision of the configuration that this replica serves");
    metrics::describe_gauge!(REGISTERED_ENDPOINTS, "Endpoints that are registered with a lease");
    metrics::describe_histogram!(API_REQUEST_DURATION, metrics::Unit::Seconds, "Time an API request takes");
    chancery_xds::metrics::describe();
}
