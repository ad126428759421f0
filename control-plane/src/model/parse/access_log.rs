//! What proxies write of requests, and where.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

use super::text;
use crate::model::{
    Name,
    access_log::{AccessLog, Field, Filter, Format, LogService, Share, Sink},
    problem::Problems,
    wire::{AccessLogSpec, LogFilterSpec, LogServiceSpec, LogSinkSpec},
};

mod operators;

pub use operators::examples;

/// The most fields of an object, and of all that are in it.
const MAX_FIELDS: usize = 100;

/// How deep objects may be nested.
const MAX_DEPTH: usize = 5;

/// The longest name of a field or a log.
const MAX_NAME: usize = 128;

/// What was logged waits so long for more, and so much of it: Envoy's own defaults.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
const BUFFER: u32 = 16 * 1024;

/// The longest that it may wait.
const MINUTE: Duration = Duration::from_secs(60);

/// The logs of the listener `name`.
pub(super) fn access_logs(name: &Name, specs: &[AccessLogSpec], problems: &mut Problems) -> Option<Vec<AccessLog>> {
    let logs = problems.each(specs, |spec, problems| access_log(name, spec, problems))?;
    let mut to_control_plane = logs.iter().enumerate().filter(|(_, log)| log.to == Sink::ControlPlane).skip(1);
    if let Some((second, _)) = to_control_plane.next() {
        problems.index(second).at("to").report("counts requests a second time");
    }
    Some(logs)
}

fn access_log(name: &Name, spec: &AccessLogSpec, problems: &mut Problems) -> Option<AccessLog> {
    let AccessLogSpec { to, text, json, filter } = spec;
    let filter = match filter {
        None => Some(Filter::default()),
        Some(spec) => self::filter(spec, &mut problems.at("filter")),
    };
    let has_lines = to.stdout.is_some() || to.stderr.is_some() || to.file.is_some();
    if !has_lines {
        for (field, _) in [("text", text.is_some()), ("json", json.is_some())].iter().filter(|(_, given)| *given) {
            problems.at(field).report("goes with stdout, stderr and file only");
        }
    }
    let format = match (text, json) {
        (None, None) => Some(Format::Text(Format::DEFAULT.to_owned())),
        (Some(text), None) => problems.at("text").ok(operators::check(text)).map(|()| Format::Text(text.clone())),
        (None, Some(fields)) => json_format(fields, &mut problems.at("json")),
        (Some(_), Some(_)) => {
            problems.report("can have only one of text and json");
            None
        }
    };
    let to = sink(name, to, format.as_ref(), &mut problems.at("to"));
    format?;
    Some(AccessLog { to: to?, filter: filter? })
}

fn json_format(fields: &BTreeMap<String, Value>, problems: &mut Problems) -> Option<Format> {
    let fields = self::fields(fields.iter(), 0, problems)?;
    if count(&fields) > MAX_FIELDS {
        problems.report(format!("needs 1 to {MAX_FIELDS} fields, those inside included"));
        return None;
    }
    Some(Format::Json(fields))
}

/// Exactly one of them. Of a format that is wrong nothing more is said.
fn sink(name: &Name, spec: &LogSinkSpec, format: Option<&Format>, problems: &mut Problems) -> Option<Sink> {
    let LogSinkSpec { stdout, stderr, file, service, control_plane } = spec;
    let mut given = Vec::new();
    let mut flag = |flag: Option<bool>, field: &str, sink: Option<Sink>| {
        if let Some(flag) = flag {
            given.push(text::only_true(flag, &mut problems.at(field)).and(sink));
        }
    };
    flag(*stdout, "stdout", format.cloned().map(Sink::Stdout));
    flag(*stderr, "stderr", format.cloned().map(Sink::Stderr));
    flag(*control_plane, "controlPlane", Some(Sink::ControlPlane));
    if let Some(path) = file {
        let path = problems.at("file").ok(text::file_path(path));
        given.push(path.zip(format.cloned()).map(|(path, format)| Sink::File { path, format }));
    }
    if let Some(spec) = service {
        given.push(self::service(name, spec, &mut problems.at("service")).map(Sink::Service));
    }
    problems.only_one(given, "stdout, stderr, file, service and controlPlane")
}

fn service(listener: &Name, spec: &LogServiceSpec, problems: &mut Problems) -> Option<LogService> {
    let LogServiceSpec { name, log_name, request_headers, response_headers, flush_interval, buffer } = spec;
    let service = problems.at("name").ok(text::name(name));
    let log_name = match log_name {
        None => Some(listener.to_string()),
        Some(name) => problems.at("logName").ok(self::name(name)),
    };
    let mut headers = |field: &str, names: &Option<Vec<String>>| {
        text::distinct(names.as_deref().unwrap_or_default(), &mut problems.at(field), text::header_name)
    };
    let request_headers = headers("requestHeaders", request_headers);
    let response_headers = headers("responseHeaders", response_headers);
    let flush_interval = match flush_interval {
        None => Some(FLUSH_INTERVAL),
        Some(interval) => problems.at("flushInterval").ok(text::duration(interval, MINUTE)),
    };
    let buffer = match buffer {
        None => Some(BUFFER),
        Some(size) => problems.at("buffer").ok(text::size(size, "1B", "1MiB")),
    };
    Some(LogService {
        service: service?,
        log_name: log_name?,
        request_headers: request_headers?,
        response_headers: response_headers?,
        flush_interval: flush_interval?,
        buffer: buffer?,
    })
}

/// The fields of an object, each with everything in it; `within` so many others.
fn fields<'a>(
    fields: impl ExactSizeIterator<Item = (&'a String, &'a Value)>,
    within: usize,
    problems: &mut Problems,
) -> Option<BTreeMap<String, Field>> {
    if fields.len() == 0 {
        problems.report(format!("needs 1 to {MAX_FIELDS} fields"));
        return None;
    }
    let before = problems.count();
    let mut read = BTreeMap::new();
    for (name, value) in fields {
        let mut problems = problems.at(name);
        problems.ok(self::name(name));
        let field = match value {
            Value::String(text) => problems.ok(operators::check(text)).map(|()| Field::Text(text.clone())),
            Value::Object(_) if within + 1 == MAX_DEPTH => {
                problems.report(format!("is nested more than {MAX_DEPTH} deep"));
                None
            }
            Value::Object(fields) => self::fields(fields.iter(), within + 1, &mut problems).map(Field::Object),
            _ => {
                problems.report("must be a text or an object");
                None
            }
        };
        read.extend(field.map(|field| (name.clone(), field)));
    }
    (problems.count() == before).then_some(read)
}

/// How many texts and objects there are in `fields`.
fn count(fields: &BTreeMap<String, Field>) -> usize {
    let inside = fields.values().map(|field| match field {
        Field::Text(_) => 0,
        Field::Object(fields) => count(fields),
    });
    fields.len() + inside.sum::<usize>()
}

fn name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > MAX_NAME || text.contains(char::is_control) {
        return Err(format!("needs a name of 1 to {MAX_NAME} printable characters"));
    }
    Ok(text.to_owned())
}

fn filter(spec: &LogFilterSpec, problems: &mut Problems) -> Option<Filter> {
    let LogFilterSpec { min_status, min_duration, only_errors, percent } = spec;
    let before = problems.count();
    let min_duration = text::optional_duration(min_duration.as_ref(), text::DAY, &mut problems.at("minDuration"));
    let share = percent.and_then(|percent| {
        let mut problems = problems.at("percent");
        let share = problems.ok(text::share(percent))?;
        if share.hundredths() == 0 {
            problems.report("must not be 0; leave the log out");
        }
        Some(share)
    });
    let filter = Filter { min_status: *min_status, min_duration, only_errors: only_errors.unwrap_or(false), share };
    (problems.count() == before)
        .then_some(Filter { share: filter.share.filter(|share| *share != Share::ALL), ..filter })
}
