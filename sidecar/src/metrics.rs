//! The metrics of this program, each declared here and nowhere else.

/// Counter: requests answered, by `direction` and `status`, the class of it.
pub const REQUESTS: &str = "chancery_sidecar_requests_total";
/// Histogram: seconds to the head of the answer, by `direction`.
pub const DURATIONS: &str = "chancery_sidecar_request_duration_seconds";
/// Counter: answers that the sidecar made up itself, by `direction` and `reason`.
pub const LOCAL_ANSWERS: &str = "chancery_sidecar_local_answers_total";
/// Counter: requests that went out by a route, by `cluster`, `route` and `outcome`: the class of the answer's status, or the reason
/// why there was none.
pub const ROUTE_REQUESTS: &str = "chancery_sidecar_route_requests_total";
/// Histogram: seconds to the head of their answer, by `cluster` and `route`.
pub const ROUTE_DURATIONS: &str = "chancery_sidecar_route_request_duration_seconds";
/// Counter: tries that followed another, by `cluster` and `reason`: the status of that, which a gRPC status is taken for, or why
/// it had no answer.
pub const RETRIES: &str = "chancery_sidecar_retries_total";
/// Counter: failures after which nothing was tried any more, by `cluster` and `reason`.
pub const RETRIES_NOT_MADE: &str = "chancery_sidecar_retries_not_made_total";
/// Gauge: retries that could be paid for now, by `cluster`.
pub const RETRY_BUDGET: &str = "chancery_sidecar_retry_budget";
/// Counter: second requests beside slow ones, by `result`: the first good answer, or not, or no budget for it.
pub const HEDGES: &str = "chancery_sidecar_hedges_total";

/// Gauge: endpoints that are out, by `cluster`.
pub const ENDPOINTS_OUT: &str = "chancery_sidecar_endpoints_out";
/// Counter: endpoints that were put out, by `cluster` and `what`: a breaker `opened`, outlier detection `ejected`, or would have but
/// for the cap (`refused`).
pub const ENDPOINTS_PUT_OUT: &str = "chancery_sidecar_endpoints_put_out_total";
/// Counter: what breakers became, by `cluster` and `to`: `half-open` when a probe was sent, `closed` by a good one.
pub const BREAKER_TRANSITIONS: &str = "chancery_sidecar_breaker_transitions_total";

/// Counter: answers that callers did not take.
pub const STALLED: &str = "chancery_sidecar_stalled_total";
/// Counter: connections that were closed because they began nothing in time.
pub const SLOW_CONNECTIONS: &str = "chancery_sidecar_slow_connections_total";
/// Counter: connections of others that were passed to the application as they are.
pub const TUNNELS: &str = "chancery_sidecar_tunnels_total";

/// Counter: connections that reached an endpoint, by `cluster`.
pub const TCP_CARRIED: &str = "chancery_sidecar_tcp_connections_total";
/// Gauge: those that are open, by `cluster`.
pub const TCP_OPEN: &str = "chancery_sidecar_tcp_connections_open";
/// Counter: bytes carried, by `cluster` and `direction`.
pub const TCP_BYTES: &str = "chancery_sidecar_tcp_bytes_total";
/// Counter: attempts to connect to an endpoint that failed, by `cluster`.
pub const TCP_ATTEMPTS_FAILED: &str = "chancery_sidecar_tcp_attempts_failed_total";
/// Counter: connections that reached no endpoint, or did not end as their ends wanted, by `cluster` and `reason`.
pub const TCP_FAILURES: &str = "chancery_sidecar_tcp_failures_total";

/// Tells the recorder what the metrics mean. Call once, after the recorder is installed.
pub fn describe() {
    metrics::describe_counter!(REQUESTS, "Requests answered, by direction and class of status");
    metrics::describe_histogram!(DURATIONS, metrics::Unit::Seconds, "Time to the head of the answer, by direction");
    metrics::describe_counter!(LOCAL_ANSWERS, "Answers that the sidecar made up, by direction and reason");
    metrics::describe_counter!(ROUTE_REQUESTS, "Requests that went out, by cluster, route and outcome");
    metrics::describe_histogram!(
        ROUTE_DURATIONS,
        metrics::Unit::Seconds,
        "Time to the head of their answer, by cluster and route"
    );
    metrics::describe_counter!(RETRIES, "Tries that followed another, by cluster and what became of that");
    metrics::describe_counter!(
        RETRIES_NOT_MADE,
        "Failures after which nothing was tried any more, by cluster and reason"
    );
    metrics::describe_gauge!(RETRY_BUDGET, "Retries that could be paid for now, by cluster");
    metrics::describe_counter!(HEDGES, "Second requests beside slow ones, by result");
    metrics::describe_gauge!(ENDPOINTS_OUT, "Endpoints that get no requests because they failed, by cluster");
    metrics::describe_counter!(ENDPOINTS_PUT_OUT, "Endpoints put out, by cluster and what did it");
    metrics::describe_counter!(BREAKER_TRANSITIONS, "What breakers became, by cluster");
    metrics::describe_counter!(STALLED, "Answers that callers did not take");
    metrics::describe_counter!(SLOW_CONNECTIONS, "Connections closed because they began nothing in time");
    metrics::describe_counter!(TUNNELS, "Connections passed to the application as they are");
    metrics::describe_counter!(TCP_CARRIED, "Connections that reached an endpoint, by cluster");
    metrics::describe_gauge!(TCP_OPEN, "Connections that are open to endpoints, by cluster");
    metrics::describe_counter!(TCP_BYTES, metrics::Unit::Bytes, "Bytes carried, by cluster and direction");
    metrics::describe_counter!(TCP_ATTEMPTS_FAILED, "Endpoints that could not be connected to, by cluster");
    metrics::describe_counter!(TCP_FAILURES, "Connections that failed, by cluster and reason");
    // Shown from the start, so that the first one is seen as an increase.
    for result in ["won", "lost", "unpaid"] {
        metrics::counter!(HEDGES, "result" => result).increment(0);
    }
    chancery_xds::metrics::describe();
}
