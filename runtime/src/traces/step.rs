//! Work that is told of step by step: each a span, with others below it.
//!
//! Who is on the way of a request counts allocations, and makes [`Span`]s itself. Everybody else passes a [`Place`] on, and
//! begins [`Step`]s there. Where a trace is not recorded there is no place, and all of this does nothing.

use std::{borrow::Cow, time::SystemTime};

use opentelemetry::{
    KeyValue, Value,
    trace::{Span as _, SpanContext, SpanKind, Status, TraceId},
};

use super::{Arrived, Span, Traces};

/// The longest text of somebody else that is recorded, in bytes.
const MOST_TEXT: usize = 1_024;

/// A place in a trace that is recorded, below which steps begin; or none. Clones are the same place.
#[derive(Clone, Debug, Default)]
pub struct Place(Option<Box<(Traces, SpanContext)>>);

/// A step under way, if it is recorded. It ends when it is dropped.
#[derive(Debug, Default)]
pub struct Step {
    span: Option<Span>,
    place: Place,
}

/// When something happened that is told of afterwards.
#[derive(Clone, Copy, Debug)]
pub struct Past {
    /// When it began.
    pub from: SystemTime,
    /// When it ended.
    pub to: SystemTime,
}

impl Traces {
    /// Begins a step that others asked for.
    pub fn step(&self, name: impl Into<Cow<'static, str>>, kind: SpanKind, arrived: &Arrived) -> Step {
        self.as_step(self.begin(name, kind, arrived))
    }

    fn as_step(&self, span: Option<Span>) -> Step {
        let recorded = span.as_ref().filter(|span| span.is_recording());
        let place = Place(recorded.map(|span| Box::new((self.clone(), span.span_context().clone()))));
        Step { span, place }
    }
}

impl Place {
    /// None: what begins here is not recorded.
    pub fn nowhere() -> Self {
        Self::default()
    }

    /// Whether what begins here is recorded.
    pub fn is_somewhere(&self) -> bool {
        self.0.is_some()
    }

    /// Begins a step of our own.
    pub fn begin(&self, name: &'static str) -> Step {
        match self.0.as_deref() {
            Some((traces, above)) => traces.as_step(traces.below(name, SpanKind::Internal, above)),
            None => Step::default(),
        }
    }

    /// Tells of a call to somebody else that is over. `words`: why it failed, if it did.
    pub fn tell(&self, name: &'static str, past: Past, attributes: Vec<KeyValue>, words: Option<&str>) {
        let Some((traces, above)) = self.0.as_deref() else { return };
        let Some(mut span) = traces.below_since(name, SpanKind::Client, above, past.from) else { return };
        span.set_attributes(attributes);
        if let Some(words) = words {
            span.set_status(Status::error(bounded(words).to_owned()));
        }
        span.end_with_timestamp(past.to);
    }

    /// As `traceparent` says it to others; `None`: nowhere.
    pub fn traceparent(&self) -> Option<String> {
        self.0.as_deref().map(|(_, place)| super::context::traceparent_of(place))
    }
}

impl Step {
    /// Where steps below this one begin.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The trace that it belongs to, recorded or not; `None`: no spans are made.
    pub fn trace(&self) -> Option<TraceId> {
        self.span.as_ref().map(|span| span.span_context().trace_id())
    }

    /// Says something of it. Text of somebody else is to be [`bounded`].
    pub fn says(&mut self, name: &'static str, value: impl Into<Value>) {
        if let Some(span) = self.span.as_mut().filter(|_| self.place.is_somewhere()) {
            span.set_attribute(KeyValue::new(name, value));
        }
    }

    /// Says why it failed.
    pub fn failed(&mut self, words: &str) {
        if let Some(span) = self.span.as_mut().filter(|_| self.place.is_somewhere()) {
            span.set_status(Status::error(bounded(words).to_owned()));
        }
    }
}

/// The beginning of a text, as much of it as is recorded.
pub fn bounded(text: &str) -> &str {
    &text[..text.floor_char_boundary(MOST_TEXT)]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::traces, *};

    #[tokio::test]
    async fn a_step_is_below_its_place_and_what_failed_says_why() {
        let (made, mut spans) = traces(1.0);
        let arrived = Arrived::of_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let above = made.step("PUT", SpanKind::Server, &arrived);
        let traceparent = above.place().traceparent().unwrap();
        let mut below = above.place().begin("commit");
        below.says("chancery.revision", 7);
        below.failed(&"é".repeat(MOST_TEXT));
        drop((below, above));
        let (below, above) = (spans.next().await.unwrap(), spans.next().await.unwrap());
        assert_eq!(above.span_context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(traceparent, format!("00-{}-{}-01", above.span_context.trace_id(), above.span_context.span_id()));
        assert_eq!(below.parent_span_id, above.span_context.span_id());
        assert_eq!(below.attributes, [KeyValue::new("chancery.revision", 7)]);
        let Status::Error { description } = below.status else { panic!("{:?}", below.status) };
        assert_eq!(description.len(), MOST_TEXT);
    }

    #[tokio::test]
    async fn what_is_over_is_told_with_its_times() {
        let (made, mut spans) = traces(1.0);
        let above = made.step("PUT", SpanKind::Server, &Arrived::default());
        let (from, to) =
            (SystemTime::UNIX_EPOCH + Duration::from_secs(1), SystemTime::UNIX_EPOCH + Duration::from_secs(3));
        above.place().tell("acknowledge", Past { from, to }, vec![KeyValue::new("a", "b")], Some("bad"));
        let told = spans.next().await.unwrap();
        assert_eq!((told.start_time, told.end_time, told.status), (from, to, Status::error("bad")));
        assert_eq!((told.attributes.len(), told.parent_span_is_remote), (1, false));
    }

    #[test]
    fn nowhere_nothing_is_recorded() {
        let (made, mut spans) = traces(0.0);
        for mut step in [
            made.step("GET", SpanKind::Server, &Arrived::default()),
            Traces::off().step("GET", SpanKind::Server, &Arrived::default()),
        ] {
            step.says("a", "b");
            step.failed("bad");
            assert!(step.place().traceparent().is_none() && !step.place().begin("below").place().is_somewhere());
            let past = Past { from: SystemTime::UNIX_EPOCH, to: SystemTime::UNIX_EPOCH };
            step.place().tell("told", past, Vec::new(), None);
        }
        drop(made);
        assert!(tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(spans.next()).is_none());
    }
}
