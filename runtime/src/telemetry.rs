//! Logs, metrics, and the one line on stdout.
//!
//! Logs go to stderr: pretty for a person at a terminal, JSON lines for a machine (`line`). Stdout carries
//! a single line, the ready line, so that whoever starts a program can wait for it and read the
//! addresses out of it.
//!
//! Both [`init_logs`] and [`metrics()`] may be called by every part: `chancery dev` runs all of them
//! in one process, and so do tests. The first call decides.

mod line;

use std::{
    error::Error,
    io::{self, IsTerminal, Write},
    str::FromStr,
    sync::OnceLock,
};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde::{Deserialize, Serialize};
use tracing_subscriber::{EnvFilter, fmt::format::JsonFields};

use self::line::JsonLine;

/// Bounds of every histogram's buckets, in seconds. Fixed buckets hold no samples, so their memory
/// does not grow, and they can be added up over replicas.
const SECONDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// What log lines look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Pretty on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// For a person, coloured on a terminal.
    Pretty,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        match text {
            "auto" => Ok(Self::Auto),
            "pretty" => Ok(Self::Pretty),
            "json" => Ok(Self::Json),
            _ => Err(UnknownFormat(text.to_owned())),
        }
    }
}

/// A format of logs that there is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no format of logs; there are auto, pretty and json")]
pub struct UnknownFormat(String);

/// Sends logs to stderr, once per process.
///
/// `filter` is a `tracing` filter such as `info,chancery_xds=debug`, usually what
/// [`log_filter`] found.
///
/// # Errors
/// The filter cannot be parsed.
pub fn init_logs(filter: &str, format: LogFormat) -> Result<(), InvalidFilter> {
    let parsed = EnvFilter::try_new(filter).map_err(|source| InvalidFilter { filter: filter.to_owned(), source })?;
    let terminal = io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(parsed).with_writer(io::stderr);
    // Failing means that logs are set up already, by another part of this process.
    let _ = if format == LogFormat::Pretty || (format == LogFormat::Auto && terminal) {
        builder.with_target(false).compact().with_ansi(terminal).try_init()
    } else {
        builder.fmt_fields(JsonFields::new()).event_format(JsonLine).try_init()
    };
    Ok(())
}

/// Sends logs to stderr, once per process, as the environment asks for ([`log_filter`], `CHANCERY_LOG_FORMAT`); `default` is the
/// filter otherwise.
///
/// # Errors
/// The filter cannot be parsed.
pub fn init_logs_from_environment(default: &str) -> Result<(), InvalidFilter> {
    let format = std::env::var("CHANCERY_LOG_FORMAT").ok().and_then(|format| format.parse().ok());
    let said = std::env::var("CHANCERY_LOG").unwrap_or_default();
    init_logs(&log_filter(&said, |name| std::env::var(name).ok(), default), format.unwrap_or_default())
}

/// What is `said`, else what `RUST_LOG` asks for; `default` otherwise. What is empty says nothing.
pub fn log_filter(said: &str, variable: impl Fn(&str) -> Option<String>, default: &str) -> String {
    let general = || variable("RUST_LOG");
    let asked = Some(said.to_owned()).filter(|filter| !filter.trim().is_empty()).or_else(general);
    asked.filter(|filter| !filter.trim().is_empty()).unwrap_or_else(|| default.to_owned())
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
        init_logs("info", LogFormat::Auto).unwrap();
        init_logs("debug", LogFormat::Json).unwrap();
        let first = metrics().unwrap();
        let second = metrics().unwrap();
        metrics::counter!("telemetry_test_total").increment(1);
        assert!(first.render().contains("telemetry_test_total 1"));
        assert!(second.render().contains("telemetry_test_total 1"));
    }

    #[test]
    fn what_is_said_wins_over_the_general_variable_and_what_is_empty_says_nothing() {
        let general = |name: &str| (name == "RUST_LOG").then(|| "warn".to_owned());
        assert_eq!(log_filter("debug", general, "info"), "debug");
        assert_eq!(log_filter(" ", general, "info"), "warn");
        assert_eq!(log_filter("", |_| Some(String::new()), "info"), "info");
    }

    #[test]
    fn there_are_three_formats() {
        let named = ["auto", "pretty", "json"].map(|name| name.parse::<LogFormat>().unwrap());
        assert_eq!(named, [LogFormat::Auto, LogFormat::Pretty, LogFormat::Json]);
        assert_eq!(serde_json::to_value(named).unwrap(), serde_json::json!(["auto", "pretty", "json"]));
        assert!("xml".parse::<LogFormat>().unwrap_err().to_string().contains("xml"));
    }

    #[test]
    fn a_filter_that_cannot_be_parsed_is_named() {
        let error = init_logs("chancery=loud", LogFormat::Auto).unwrap_err();
        assert!(error.to_string().contains("chancery=loud"));
    }
}
