//! The metrics of the control plane, each declared here and nowhere else.

/// Gauge: the revision this replica serves.
pub const REVISION: &str = "chancery_revision";
/// Gauge: how many revisions the database has that this replica does not serve yet.
pub const REVISION_BEHIND: &str = "chancery_revision_behind";
/// Gauge: proxies and limiters that are connected to this replica, by `fleet` (empty: limiters) and `status`: `synced`, `error` if
/// one refused what it was sent last, `stale` if it has not answered for half a minute.
pub const PROXIES: &str = "chancery_proxies";
/// Gauge: 1 while the database answers, else 0.
pub const STORE_AVAILABLE: &str = "chancery_store_available";
/// Gauge: connections of this replica to the database that are at work.
pub const STORE_POOL: &str = "chancery_store_pool_connections";
/// Gauge: how many it may have.
pub const STORE_POOL_MAX: &str = "chancery_store_pool_max_connections";
/// Gauge: connections of all clients to the database server.
pub const STORE_SERVER: &str = "chancery_store_server_connections";
/// Gauge: how many the server takes.
pub const STORE_SERVER_MAX: &str = "chancery_store_server_max_connections";
/// Gauge: bytes of the database.
pub const STORE_BYTES: &str = "chancery_store_bytes";
/// Gauge: how many endpoints are registered, as far as this replica knows.
pub const REGISTERED_ENDPOINTS: &str = "chancery_registered_endpoints";
/// Histogram: how long an API request takes, in seconds, by `route`, `method` and `status`.
pub const API_REQUEST_DURATION: &str = "chancery_api_request_duration_seconds";
/// Gauge: proxies' streams that report load.
pub const LOAD_STREAMS: &str = "chancery_load_streams";
/// Counter: reports of load that came in.
pub const LOAD_REPORTS: &str = "chancery_load_reports_total";

/// Gauge: proxies' streams that tell of requests.
pub const SEEN_STREAMS: &str = "chancery_seen_streams";
/// Counter: requests that proxies have told of.
pub const SEEN_REQUESTS: &str = "chancery_seen_requests_total";

/// Counter: resources that were taken back for a fleet because a proxy rejected them.
pub const QUARANTINED: &str = "chancery_quarantined_total";
/// Counter: rollouts that ended, by `outcome`: `promoted`, `returned` or `held`.
pub const ROLLOUTS: &str = "chancery_rollouts_total";
/// Gauge: resources that fleets are not served because a proxy rejected them.
pub const QUARANTINE: &str = "chancery_quarantine";

/// Counter: questions to a validating Envoy, by `outcome`: `taken`, `refused`, `crashed`, `undecided` (it misses what only proxies
/// have), `remembered` (it had answered before), `too_slow`, `failed` (the program itself is at fault).
pub const VALIDATIONS: &str = "chancery_validations_total";
/// Histogram: how long a validating Envoy runs, in seconds.
pub const VALIDATION_DURATION: &str = "chancery_validation_duration_seconds";

/// Counter: acknowledgements that are missing in the trace of their revision, which shows a hundred of each replica.
pub const ACKNOWLEDGEMENTS_UNTRACED: &str = "chancery_traces_acknowledgements_left_out_total";
/// Gauge: 1 if the issuer of people's tokens gave its keys when it was asked last, else 0; absent without an issuer.
pub const OIDC_ISSUER_AVAILABLE: &str = "chancery_oidc_issuer_available";
/// Gauge: how many keys of the issuer are known.
pub const OIDC_KEYS: &str = "chancery_oidc_keys";

/// Counter: certificates that were issued, by `reason`: `enrolment` or `renewal`.
pub const CERTIFICATES: &str = "chancery_certificates_issued_total";

/// Counter: entries of the audit log that were dropped because the database was away for long.
pub const AUDIT_DROPPED: &str = "chancery_audit_dropped_total";

/// Tells the recorder what the metrics mean. Call once, after the recorder is installed.
pub fn describe() {
    metrics::describe_gauge!(REVISION, "Revision of the configuration that this replica serves");
    metrics::describe_gauge!(REVISION_BEHIND, "Revisions in the database that this replica does not serve yet");
    metrics::describe_gauge!(PROXIES, "Proxies and limiters connected to this replica, by fleet and status");
    metrics::describe_gauge!(STORE_AVAILABLE, "Whether the database answers");
    metrics::describe_gauge!(STORE_POOL, "Connections of this replica to the database that are at work");
    metrics::describe_gauge!(STORE_POOL_MAX, "Connections that this replica may have to the database");
    metrics::describe_gauge!(STORE_SERVER, "Connections of all clients to the database server");
    metrics::describe_gauge!(STORE_SERVER_MAX, "Connections that the database server takes");
    metrics::describe_gauge!(STORE_BYTES, metrics::Unit::Bytes, "Size of the database");
    metrics::describe_gauge!(REGISTERED_ENDPOINTS, "Endpoints that are registered with a lease");
    metrics::describe_histogram!(
        API_REQUEST_DURATION,
        metrics::Unit::Seconds,
        "Time an API request takes, by route, method and status"
    );
    metrics::describe_gauge!(LOAD_STREAMS, "Streams on which proxies report load");
    metrics::describe_counter!(LOAD_REPORTS, "Reports of load from proxies");
    metrics::describe_gauge!(SEEN_STREAMS, "Streams on which proxies tell of requests");
    metrics::describe_counter!(SEEN_REQUESTS, "Requests that proxies have told of");
    metrics::describe_counter!(CERTIFICATES, "Certificates issued to proxies, by what they asked with");
    metrics::describe_counter!(QUARANTINED, "Resources taken back for a fleet because a proxy rejected them");
    metrics::describe_counter!(ROLLOUTS, "Rollouts that ended, by outcome");
    metrics::describe_gauge!(QUARANTINE, "Resources that fleets are not served because a proxy rejected them");
    metrics::describe_counter!(VALIDATIONS, "Questions to a validating Envoy, by outcome");
    metrics::describe_histogram!(VALIDATION_DURATION, metrics::Unit::Seconds, "Time a validating Envoy runs");
    metrics::describe_counter!(ACKNOWLEDGEMENTS_UNTRACED, "Acknowledgements left out of the trace of their revision");
    metrics::counter!(ACKNOWLEDGEMENTS_UNTRACED).increment(0);
    metrics::describe_gauge!(
        OIDC_ISSUER_AVAILABLE,
        "Whether the issuer of people's tokens gave its keys when it was asked last"
    );
    metrics::describe_gauge!(OIDC_KEYS, "Keys of the issuer of people's tokens that are known");
    metrics::describe_counter!(AUDIT_DROPPED, "Entries of the audit log dropped while the database was away");
    // Shown from the start, so that the first one is seen as an increase.
    for outcome in ["promoted", "returned", "held"] {
        metrics::counter!(ROLLOUTS, "outcome" => outcome).increment(0);
    }
    metrics::gauge!(REGISTERED_ENDPOINTS).set(0.0);
    chancery_xds::metrics::describe();
}
