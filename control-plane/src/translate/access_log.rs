//! What is written of requests, as Envoy's loggers take it.

use std::collections::BTreeMap;

use chancery_proto::{
    Message, any,
    chancery::XDS_CLUSTER,
    envoy::{
        accesslog::{
            AccessLog as EnvoyLog, AccessLogFilter, AndFilter, ComparisonFilter, DurationFilter, OrFilter,
            ResponseFlagFilter, RuntimeFilter, StatusCodeFilter, access_log::ConfigType,
            access_log_filter::FilterSpecifier, comparison_filter::Op,
        },
        core::{
            ApiVersion, DataSource, RuntimeUInt32, SubstitutionFormatString, data_source::Specifier,
            substitution_format_string,
        },
        file_access_log::FileAccessLog,
        grpc_access_log::{CommonGrpcAccessLogConfig, HttpGrpcAccessLogConfig},
        stream_access_log::{StderrAccessLog, StdoutAccessLog},
    },
    google::protobuf::{Any, Value, value::Kind},
};
use prost::Name;

use super::value::{duration, fraction, grpc_service, number};
use crate::model::access_log::{AccessLog, Field, Filter, Format, LogService, Sink};

/// What the log to the control plane is called.
pub(crate) const LOG_NAME: &str = "chancery.seen";

/// Headers that say what a request was before a rule rewrote it.
pub(crate) const ORIGINAL_HOST: &str = "x-envoy-original-host";

/// Beside each value that runtime could change; nobody does.
const RUNTIME: &str = "chancery.access_log";

/// `log_format` of `StdoutAccessLog` and `StderrAccessLog`.
const STREAM_FORMAT: u32 = 1;

/// `FileAccessLog.log_format`.
const FILE_FORMAT: u32 = 5;

/// `SubstitutionFormatString.json_format`.
const JSON_FORMAT: u32 = 2;

/// `google.protobuf.Struct.fields`.
const STRUCT_FIELDS: u32 = 1;

/// `google.protobuf.Value.struct_value`.
const STRUCT_VALUE: u32 = 5;

/// Key and value in an entry of a map.
const MAP_KEY: u32 = 1;
const MAP_VALUE: u32 = 2;

/// How much may wait to be sent to the control plane, on each thread.
const BUFFER: u32 = 16 * 1024;

/// The status from which on it is a failure.
const FAILURE: u16 = 500;

/// The loggers for `logs`, in their order.
pub(super) fn access_logs(logs: &[AccessLog]) -> Vec<EnvoyLog> {
    logs.iter().map(access_log).collect()
}

fn access_log(AccessLog { to, filter }: &AccessLog) -> EnvoyLog {
    let (name, config) = sink(to);
    EnvoyLog {
        name: format!("envoy.access_loggers.{name}"),
        filter: self::filter(filter),
        config_type: Some(ConfigType::TypedConfig(config)),
    }
}

fn sink(to: &Sink) -> (&'static str, Any) {
    let stream = |type_url, format: &Format| Any { type_url, value: nested(STREAM_FORMAT, &lines(format), Vec::new()) };
    match to {
        Sink::Stdout(format) => ("stdout", stream(StdoutAccessLog::type_url(), format)),
        Sink::Stderr(format) => ("stderr", stream(StderrAccessLog::type_url(), format)),
        Sink::File { path, format } => {
            let rest = FileAccessLog { path: path.clone(), access_log_format: None }.encode_to_vec();
            let value = nested(FILE_FORMAT, &lines(format), rest);
            ("file", Any { type_url: FileAccessLog::type_url(), value })
        }
        Sink::Service(service) => {
            let LogService { service, log_name, request_headers, response_headers, flush_interval, buffer } = service;
            let config = HttpGrpcAccessLogConfig {
                common_config: Some(CommonGrpcAccessLogConfig {
                    buffer_flush_interval: Some(duration(*flush_interval)),
                    ..grpc(service.as_str(), log_name, *buffer)
                }),
                additional_request_headers_to_log: request_headers.clone(),
                additional_response_headers_to_log: response_headers.clone(),
                ..HttpGrpcAccessLogConfig::default()
            };
            ("http_grpc", any::pack_typed(&config))
        }
        Sink::ControlPlane => {
            let config = HttpGrpcAccessLogConfig {
                common_config: Some(grpc(XDS_CLUSTER, LOG_NAME, BUFFER)),
                additional_request_headers_to_log: vec![ORIGINAL_HOST.to_owned()],
                ..HttpGrpcAccessLogConfig::default()
            };
            ("http_grpc", any::pack_typed(&config))
        }
    }
}

fn grpc(cluster: &str, log_name: &str, buffer: u32) -> CommonGrpcAccessLogConfig {
    CommonGrpcAccessLogConfig {
        log_name: log_name.to_owned(),
        grpc_service: Some(grpc_service(cluster)),
        transport_api_version: ApiVersion::V3.into(),
        buffer_size_bytes: Some(number(buffer)),
        ..CommonGrpcAccessLogConfig::default()
    }
}

/// A `SubstitutionFormatString`, encoded, for the fields of an object stand in a map, in no order.
fn lines(format: &Format) -> Vec<u8> {
    match format {
        Format::Text(text) => {
            let text = Specifier::InlineString(format!("{text}\n"));
            let text = DataSource { specifier: Some(text), ..DataSource::default() };
            let format = Some(substitution_format_string::Format::TextFormatSource(text));
            SubstitutionFormatString { format, ..SubstitutionFormatString::default() }.encode_to_vec()
        }
        Format::Json(fields) => nested(JSON_FORMAT, &object(fields), Vec::new()),
    }
}

/// A `google.protobuf.Struct`, its entries in the order of their keys at every depth.
fn object(fields: &BTreeMap<String, Field>) -> Vec<u8> {
    let mut object = Vec::new();
    for (name, field) in fields {
        let value = match field {
            Field::Text(text) => Value { kind: Some(Kind::StringValue(text.clone())) }.encode_to_vec(),
            Field::Object(fields) => nested(STRUCT_VALUE, &self::object(fields), Vec::new()),
        };
        let mut entry = Vec::new();
        prost::encoding::string::encode(MAP_KEY, name, &mut entry);
        object = nested(STRUCT_FIELDS, &nested(MAP_VALUE, &value, entry), object);
    }
    object
}

/// A message with one field more, `number`, a message that is encoded already.
fn nested(number: u32, message: &Vec<u8>, mut rest: Vec<u8>) -> Vec<u8> {
    prost::encoding::bytes::encode(number, message, &mut rest);
    rest
}

/// None: of all.
fn filter(filter: &Filter) -> Option<AccessLogFilter> {
    let Filter { min_status, min_duration, only_errors, share } = filter;
    let status = min_status.map(|status| at_least(status.into(), "status"));
    let status = status.map(|comparison| FilterSpecifier::StatusCodeFilter(StatusCodeFilter { comparison }));
    // A whole day in milliseconds fits.
    let slow = min_duration.map(|time| at_least(u32::try_from(time.as_millis()).unwrap_or(u32::MAX), "duration"));
    let slow = slow.map(|comparison| FilterSpecifier::DurationFilter(DurationFilter { comparison }));
    let errors = only_errors.then(|| {
        let failure = StatusCodeFilter { comparison: at_least(FAILURE.into(), "failure") };
        let flagged = FilterSpecifier::ResponseFlagFilter(ResponseFlagFilter { flags: Vec::new() });
        FilterSpecifier::OrFilter(OrFilter {
            filters: vec![of(FilterSpecifier::StatusCodeFilter(failure)), of(flagged)],
        })
    });
    let sampled = share.map(|share| {
        FilterSpecifier::RuntimeFilter(RuntimeFilter {
            runtime_key: format!("{RUNTIME}.share"),
            percent_sampled: Some(fraction(share)),
            // Otherwise it is chosen by the id of the request, and every log has the same ones, of which a client may have said the id.
            use_independent_randomness: true,
        })
    });
    let mut all: Vec<_> = [status, slow, errors, sampled].into_iter().flatten().map(of).collect();
    match all.len() {
        0 | 1 => all.pop(),
        _ => Some(of(FilterSpecifier::AndFilter(AndFilter { filters: all }))),
    }
}

fn of(specifier: FilterSpecifier) -> AccessLogFilter {
    AccessLogFilter { filter_specifier: Some(specifier) }
}

fn at_least(value: u32, key: &str) -> Option<ComparisonFilter> {
    let value = RuntimeUInt32 { default_value: value, runtime_key: format!("{RUNTIME}.{key}") };
    Some(ComparisonFilter { op: Op::Ge.into(), value: Some(value) })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        model::access_log::Share,
        translate::testing::{name, snapshot},
    };

    fn told<M: chancery_proto::Message + prost::Name + Default>(sink: &Sink) -> M {
        any::unpack(&super::sink(sink).1).expect("settings of this type")
    }

    #[test]
    fn lines_go_to_streams_and_files() {
        // Of one field each: maps in memory have no order.
        let inner = Field::Object([("b".to_owned(), Field::Text("%DURATION%".to_owned()))].into());
        let json = Format::Json([("a".to_owned(), inner)].into());
        let file = Sink::File { path: "/var/log/a.log".into(), format: json };
        insta::assert_snapshot!(snapshot(&told::<FileAccessLog>(&file)));
        let stdout = Sink::Stdout(Format::Text("%DURATION%".into()));
        insta::assert_snapshot!(snapshot(&told::<StdoutAccessLog>(&stdout)));
        let stderr = Sink::Stderr(Format::Text("%DURATION%".into()));
        insta::assert_snapshot!(snapshot(&told::<StderrAccessLog>(&stderr)));
        assert_eq!([file, stdout, stderr].map(|to| super::sink(&to).0), ["file", "stdout", "stderr"]);
    }

    #[test]
    fn the_same_fields_are_the_same_bytes() {
        let fields = || (0..20).map(|number| (format!("field-{number}"), Field::Text("%DURATION%".to_owned())));
        let nested = ("nested".to_owned(), Field::Object(fields().collect()));
        let to = Sink::Stdout(Format::Json(fields().chain([nested]).collect()));
        assert!((0..20).all(|_| sink(&to) == sink(&to)));
        let told = told::<StdoutAccessLog>(&to);
        assert_eq!(format!("{told:?}").matches("%DURATION%").count(), 40);
    }

    #[test]
    fn messages_go_to_services_and_to_the_control_plane() {
        let service = LogService {
            service: name("collector"),
            log_name: "shop".into(),
            request_headers: vec!["x-tenant".into()],
            response_headers: vec!["x-cache".into()],
            flush_interval: Duration::from_millis(1500),
            buffer: 1,
        };
        insta::assert_snapshot!(snapshot(&told::<HttpGrpcAccessLogConfig>(&Sink::Service(service))));
        insta::assert_snapshot!(snapshot(&told::<HttpGrpcAccessLogConfig>(&Sink::ControlPlane)));
    }

    #[test]
    fn all_conditions_have_to_hold() {
        assert_eq!(filter(&Filter::default()), None);
        let slow = Filter { min_duration: Some(Duration::from_secs(24 * 3600)), ..Filter::default() };
        insta::assert_snapshot!(snapshot(&filter(&slow)));
        let share = Share::of_hundredths(1);
        let failed = Filter { min_status: Some(400), only_errors: true, share, ..Filter::default() };
        insta::assert_snapshot!(snapshot(&filter(&failed)));
    }
}
