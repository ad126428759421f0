//! The metrics of this crate, each declared here and nowhere else.

/// Gauge: open streams, by `protocol` (`delta`, `sotw`).
pub const STREAMS: &str = "chancery_xds_streams";
/// Counter: streams that were refused, by `reason` (the gRPC code).
pub const STREAMS_REFUSED: &str = "chancery_xds_streams_refused_total";
/// Counter: responses sent, by `type`.
pub const RESPONSES: &str = "chancery_xds_responses_total";
/// Counter: bytes of the responses sent, before TLS, by `type`.
pub const RESPONSE_BYTES: &str = "chancery_xds_response_bytes_total";
/// Counter: responses a client rejected, by `type`.
pub const REJECTIONS: &str = "chancery_xds_rejections_total";
/// Histogram: seconds from a response to its acknowledgement, by `type`.
pub const ACKNOWLEDGE_SECONDS: &str = "chancery_xds_acknowledge_seconds";
/// Gauge: 1 while a client is served, else 0.
pub const CLIENT_CONNECTED: &str = "chancery_xds_client_connected";
/// Counter: responses a client received, by `type`.
pub const CLIENT_RESPONSES: &str = "chancery_xds_client_responses_total";
/// Counter: resources a client refused, by `type`.
pub const CLIENT_REFUSALS: &str = "chancery_xds_client_refusals_total";

/// Tells the recorder what the metrics mean. Call once, after the recorder is installed.
pub fn describe() {
    metrics::describe_gauge!(STREAMS, "Open xDS streams");
    metrics::describe_counter!(STREAMS_REFUSED, "xDS streams refused");
    metrics::describe_counter!(RESPONSES, "xDS responses sent");
    metrics::describe_counter!(RESPONSE_BYTES, metrics::Unit::Bytes, "Bytes of xDS responses sent, before TLS");
    metrics::describe_counter!(REJECTIONS, "xDS responses rejected by a client");
    metrics::describe_histogram!(
        ACKNOWLEDGE_SECONDS,
        metrics::Unit::Seconds,
        "Time from an xDS response to its acknowledgement"
    );
    metrics::describe_gauge!(CLIENT_CONNECTED, "Whether the control plane serves this client");
    metrics::describe_counter!(CLIENT_RESPONSES, "xDS responses received");
    metrics::describe_counter!(CLIENT_REFUSALS, "xDS resources refused");
}
