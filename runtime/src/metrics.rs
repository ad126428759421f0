//! The metrics that every program has, each declared here and nowhere else.

/// Counter: TLS handshakes that succeeded.
pub const TLS_HANDSHAKES: &str = "chancery_tls_handshakes_total";
/// Counter: TLS handshakes that were refused, by `reason`.
pub const TLS_HANDSHAKES_REFUSED: &str = "chancery_tls_handshakes_refused_total";
/// Counter: changes of TLS files, by `result`: `loaded`, or `refused`, which leaves the old ones in use.
pub const TLS_RELOADS: &str = "chancery_tls_reloads_total";
/// Gauge: when a certificate in use expires, in seconds since the Unix epoch, by its `file`.
pub const CERTIFICATE_EXPIRY: &str = "chancery_certificate_expiry_timestamp_seconds";
/// Counter: spans that a collector has taken.
pub const SPANS_EXPORTED: &str = "chancery_traces_spans_exported_total";
/// Counter: spans that were lost, by `reason`.
pub const SPANS_DROPPED: &str = "chancery_traces_spans_dropped_total";

/// Gauge: always 1, with the `version` of the program.
pub const BUILD_INFO: &str = "chancery_build_info";

/// Tells the recorder what the metrics mean. Call once, after the recorder is installed.
pub fn describe() {
    metrics::describe_counter!(TLS_HANDSHAKES, "TLS handshakes that succeeded");
    metrics::describe_counter!(TLS_HANDSHAKES_REFUSED, "TLS handshakes that were refused, by reason");
    metrics::describe_counter!(TLS_RELOADS, "Changes of TLS files, by result: loaded, or refused");
    metrics::describe_gauge!(
        CERTIFICATE_EXPIRY,
        metrics::Unit::Seconds,
        "When a certificate in use expires (Unix time), by its file"
    );
    metrics::describe_counter!(SPANS_EXPORTED, "Spans that the collector has taken");
    metrics::describe_counter!(
        SPANS_DROPPED,
        "Spans that were lost, by reason: the queue was full, the export failed, or the program ended"
    );
    metrics::describe_gauge!(BUILD_INFO, "Always 1, with the version of the program");
    metrics::gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    // Shown from the start, so that the first one is seen as an increase.
    metrics::counter!(SPANS_EXPORTED).increment(0);
    for reason in ["queue-full", "export", "end"] {
        metrics::counter!(SPANS_DROPPED, "reason" => reason).increment(0);
    }
    for result in ["loaded", "refused"] {
        metrics::counter!(TLS_RELOADS, "result" => result).increment(0);
    }
}
