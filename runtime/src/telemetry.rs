//! Logs, metrics, and the one line on stdout.
//!
//! Logs go to stderr: pretty for a person at a terminal, JSON lines for a machine. Stdout carries
//! a single line, the ready line, so that whoever starts a program can wait for it and read the
//! addresses out of it.
//!
//! Both [`init_logs`] and [`metrics()`] may be called by every part: `chancery dev` runs all of them
//! in one process, and so do tests. The first call decides.

use std::{
    error::Error,
    io::{self, IsTerminal, Write},
    sync::OnceLock,
};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde::Serialize;
use tracing_subscriber::EnvFilter;

/// Bounds of every histogram's buckets, in seconds. Fixed buckets hold no samples, so their memory
/// does not grow, and they can be added up over replicas.
const SECONDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Sends logs to stderr, once per process.
///
/// `filter` is a `tracing` filter such as `info,chancery_xds=debug`, usually what
/// [`log_filter`] found.
///
/// # Errors
/// The filter cannot be parsed.
pub fn init_logs(filter: &str) -> Result<(), InvalidFilter> {
    let parsed = EnvFilter::try_new(filter).map_err(|source| InvalidFilter { filter: filter.to_owned(), source })?;
    let builder = tracing_subscriber::fmt().with_env_filter(parsed).with_writer(io::stderr);
    // Failing means that logs are set up already, by another part of this process.
    let _ = if io::stderr().is_terminal() {
        builder.with_target(false).compact().try_init()
    } else {
        builder.json().flatten_event(true).with_current_span(false).try_init()
    };
    Ok(())
}

/// Sends logs to stderr, once per process, by the filter that the environment asks for ([`log_filter`]); `default` otherwise.
///
/// # Errors
/// The filter cannot be parsed.
pub fn init_logs_from_environment(default: &str) -> Result<(), InvalidFilter> {
    init_logs(&log_filter(|name| std::env::var(name).ok(), default))
}

/// The filter that `CHANCERY_LOG`, else `RUST_LOG`, asks for; `default` otherwise.
pub fn log_filter(variable: impl Fn(&str) -> Option<String>, default: &str) -> String {
    let said = |name| variable(name).filter(|filter| !filter.trim().is_empty());
    said("CHANCERY_LOG").or_else(|| said("RUST_LOG")).unwrap_or_else(|| default.to_owned())
}

/// A log filter that cannot be parsed.
#[derive(Debug, thiserror::Error)]
#[error("invalid log filter {filter:?}")]
pub struct InvalidFilter {
    filter: String,
    #[source]
    source: tracing_subscriber::filter::ParseError,
}

/// The process's metrics, which [`admin`](crate::admin) serves; the first call starts to record.
///
/// # Errors
/// Something else records this process's metrics already.
pub fn metrics() -> Result<PrometheusHandle, MetricsUnavailable> {
    static HANDLE: OnceLock<Result<PrometheusHandle, MetricsUnavailable>> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let recorder = PrometheusBuilder::new()
                .set_buckets(SECONDS)
                .map_err(|error| MetricsUnavailable(error.to_string()))?
                .build_recorder();
            let handle = recorder.handle();
            metrics::set_global_recorder(recorder).map_err(|error| MetricsUnavailable(error.to_string()))?;
            crate::metrics::describe();
            Ok(handle)
        })
        .clone()
}

/// Metrics cannot be recorded.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot record metrics: {0}")]
pub struct MetricsUnavailable(String);

/// An error and its causes on one line, as it belongs in a log: `cannot load X: no such file`.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[derive(Serialize)]
struct Ready<'a, T> {
    event: &'static str,
    #[serde(flatten)]
    fields: &'a T,
}

/// Prints the one line that stdout is for: `{"event":"ready",…fields}`.
///
/// # Errors
/// Stdout is closed, or `fields` is not a map.
pub fn ready_line<T: Serialize>(fields: &T) -> io::Result<()> {
    let mut line = ready_text(fields)?;
    line.push('\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(line.as_bytes())?;
    stdout.flush()
}

fn ready_text<T: Serialize>(fields: &T) -> io::Result<String> {
    serde_json::to_string(&Ready { event: "ready", fields }).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_starts_with_the_event() {
        let text = ready_text(&serde_json::json!({"api": "127.0.0.1:8080"})).unwrap();
        assert_eq!(text, r#"{"event":"ready","api":"127.0.0.1:8080"}"#);
    }

    #[test]
    fn every_part_may_initialize() {
        init_logs("info").unwrap();
        init_logs("debug").unwrap();
        let first = metrics().unwrap();
        let second = metrics().unwrap();
        metrics::counter!("telemetry_test_total").increment(1);
        assert!(first.render().contains("telemetry_test_total 1"));
        assert!(second.render().contains("telemetry_test_total 1"));
    }

    #[test]
    fn our_variable_wins_over_the_general_one_and_an_empty_one_says_nothing() {
        let both = |name: &str| Some(if name == "CHANCERY_LOG" { "debug" } else { "warn" }.to_owned());
        assert_eq!(log_filter(both, "info"), "debug");
        let general = |name: &str| Some(if name == "CHANCERY_LOG" { " " } else { "warn" }.to_owned());
        assert_eq!(log_filter(general, "info"), "warn");
        assert_eq!(log_filter(|_| None, "info"), "info");
    }

    #[test]
    fn a_filter_that_cannot_be_parsed_is_named() {
        let error = init_logs("chancery=loud").unwrap_err();
        assert!(error.to_string().contains("chancery=loud"));
    }
}
