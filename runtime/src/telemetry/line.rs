//! A log line for machines: one JSON object, flat, so that whoever collects it can ask for a field by its name.
//!
//! What the spans around an event say stands in the line itself, so every line of a request has the request's id. Names are written in
//! camel case, as everywhere in JSON of ours: `retry_in` in the source is `retryIn` in the line. Which there are is
//! listed in `docs/operations/logs.md`.
//!
//! `tracing-subscriber`'s own JSON nests spans in a list, where no rule of an alert can reach them.

use std::{collections::BTreeSet, fmt};

use serde_json::{Map, Value};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields, FormattedFields,
        format::{JsonFields, Writer},
        time::{FormatTime as _, SystemTime},
    },
    registry::LookupSpan,
};

/// Writes events as JSON lines.
pub(super) struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let mut said = Said::default();
        event.record(&mut said);
        let mut line = Line::begin(&timestamp, event.metadata().level().as_str(), &said.message);
        line.field("target", &event.metadata().target().into());
        for (name, value) in &said.fields {
            line.field(name, value);
        }
        // The nearest span has the last word.
        for span in context.event_scope().into_iter().flatten() {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<JsonFields>>().map_or("", |fields| fields.as_str());
            // Written by `JsonFields`.
            let fields: Map<String, Value> = serde_json::from_str(fields).unwrap_or_default();
            for (name, value) in &fields {
                line.field(name, value);
            }
        }
        writeln!(writer, "{}", line.end())
    }
}

/// A line under way. Of fields with one name, the first counts.
struct Line {
    text: String,
    names: BTreeSet<String>,
}

impl Line {
    fn begin(timestamp: &str, level: &str, message: &str) -> Self {
        let mut line = Self { text: String::new(), names: BTreeSet::new() };
        for (name, value) in [("timestamp", timestamp), ("level", level), ("message", message)] {
            line.field(name, &value.into());
        }
        line
    }

    fn field(&mut self, name: &str, value: &Value) {
        let name = camel_case(name);
        if self.names.contains(&name) {
            return;
        }
        self.text.push(if self.names.is_empty() { '{' } else { ',' });
        self.text.push_str(&format!("{}:{value}", Value::from(name.as_str())));
        self.names.insert(name);
    }

    fn end(mut self) -> String {
        self.text.push('}');
        self.text
    }
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut name, word| {
        let mut letters = word.chars();
        name.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        name.push_str(letters.as_str());
        name
    })
}

/// What an event says.
#[derive(Default)]
struct Said {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Said {
    fn say(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(message)) => self.message = message,
            // What the crate `log` says of where it was called.
            (name, _) if name.starts_with("log.") => {}
            (name, value) => self.fields.push((name, value)),
        }
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.say(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.say(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.say(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.say(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.say(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.say(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that `say` logs, without their timestamps.
    fn lines(say: impl FnOnce()) -> Vec<String> {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .fmt_fields(JsonFields::new())
            .event_format(JsonLine)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, say);
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        text.lines()
            .map(|line| {
                let (timestamp, rest) = line.split_once(',').unwrap();
                assert!(timestamp.starts_with(r#"{"timestamp":"2"#) && timestamp.ends_with(r#"Z""#), "{line}");
                rest.to_owned()
            })
            .collect()
    }

    #[test]
    fn a_line_is_flat_and_has_what_the_spans_around_it_say() {
        let told = lines(|| {
            let trace = None::<String>;
            let request = tracing::info_span!("request", request_id = "r-1", trace_id = trace, revision = 1);
            let _request = request.enter();
            let _inner = tracing::info_span!("inner", fleet = "edge", empty = tracing::field::Empty).entered();
            tracing::warn!(revision = 7, retry_in = ?std::time::Duration::from_secs(2), ok = true, "it's {}", "said");
        });
        let target = module_path!();
        let expected = format!(
            r#""level":"WARN","message":"it's said","target":"{target}","revision":7,"retryIn":"2s","ok":true,"fleet":"edge","requestId":"r-1"}}"#
        );
        assert_eq!(told, [expected]);
    }

    #[test]
    fn what_others_say_makes_no_line_of_its_own() {
        let told = lines(|| tracing::info!(reason = "a\"}\n{\"level\":\"ERROR", "b\nc"));
        assert_eq!(told.len(), 1);
        let line: Value = serde_json::from_str(&format!("{{{}", told[0])).unwrap();
        assert_eq!((&line["message"], &line["reason"]), (&"b\nc".into(), &"a\"}\n{\"level\":\"ERROR".into()));
    }
}
