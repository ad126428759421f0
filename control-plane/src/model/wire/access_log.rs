//! Access logs as they are written.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{DurationText, NameText, SizeText};

/// A log of the requests of a listener. What clients choose stands in it, so that whoever reads it must not believe it.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessLogSpec {
    /// Where it is written.
    pub to: LogSinkSpec,
    /// What a line says, with Envoy's command operators; only to `stdout`, `stderr` and `file`, and not with `json`. Lines are as Envoy
    /// writes them, without the query, if neither is given.
    #[schema(examples("%START_TIME% %REQ(:METHOD)% %PATH(NQ)% %RESPONSE_CODE% %DURATION%"))]
    pub text: Option<String>,
    /// What the fields of an object say, each by a text with command operators, or by an object of further fields, 5 deep at most; only to
    /// `stdout`, `stderr` and `file`, and not with `text`. At most 100 in all.
    #[schema(value_type = Option<Object>, examples(json!({ "request": { "method": "%REQ(:METHOD)%" }, "ms": "%DURATION%" })))]
    pub json: Option<BTreeMap<String, Value>>,
    /// Of which requests; of all if it is not given.
    pub filter: Option<LogFilterSpec>,
}

/// Where a log is written: exactly one of `stdout`, `stderr`, `file`, `service` and `controlPlane`.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogSinkSpec {
    /// `true`: the standard output of the proxy.
    pub stdout: Option<bool>,
    /// `true`: the standard error of the proxy.
    pub stderr: Option<bool>,
    /// A file on the machine of the proxy, by its absolute path. Lines are added; who turns files over tells Envoy so.
    #[schema(examples("/var/log/envoy/access.log"))]
    pub file: Option<String>,
    /// A service that takes Envoy's messages (`envoy.service.accesslog.v3`) over gRPC.
    pub service: Option<LogServiceSpec>,
    /// `true`: the control plane, which keeps the last requests seen, without their queries, for `plan/traffic`.
    pub control_plane: Option<bool>,
}

/// A service that takes logs. It is told path and query of requests.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogServiceSpec {
    /// The service; its protocol is `http2`.
    pub name: NameText,
    /// What the log is called there; as the listener if it is not given.
    pub log_name: Option<String>,
    /// Headers of requests that are told besides.
    #[schema(max_items = 50)]
    pub request_headers: Option<Vec<String>>,
    /// Headers of answers that are told besides.
    #[schema(max_items = 50)]
    pub response_headers: Option<Vec<String>>,
    /// How long what was logged may wait for more, 1ms to 1m; 1s if it is not given.
    pub flush_interval: Option<DurationText>,
    /// How much of it may wait, on each thread, 1B to 1MiB; 16KiB if it is not given.
    pub buffer: Option<SizeText>,
}

/// Of which requests: all that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogFilterSpec {
    /// At least this status.
    #[schema(minimum = 100, maximum = 599)]
    pub min_status: Option<u16>,
    /// Those that took at least so long, 1ms to 24h.
    pub min_duration: Option<DurationText>,
    /// Only failures: a status of 500 or more, or something that Envoy has a response flag for.
    #[schema(default = false)]
    pub only_errors: Option<bool>,
    /// Only a share of them, by chance: 0.01 to 100, in steps of 0.01.
    #[schema(minimum = 0.01, maximum = 100.0, default = 100.0)]
    pub percent: Option<f64>,
}
