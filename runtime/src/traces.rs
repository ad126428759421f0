//! Spans, and their way to a collector of OpenTelemetry (OTLP over gRPC).
//!
//! Whoever makes spans asks [`Traces`] for them. Where no collector is configured there are none, and asking costs one comparison.
//! Spans are made directly, not from those of `tracing`: on the way of a request each costs what it records, and nothing else.
//!
//! - [`context`]: what headers say of a trace, and what they are made to say for the next one. Pure.
//! - [`step`]: spans below spans, for work that is not on the way of requests.
//! - [`settings`]: which collector, under which name, and how many traces.
//! - [`export`](Spans): the bounded queue in front of the collector, and what empties it.
//!
//! Invariant: making and ending a span never waits. What the queue has no room for is dropped and counted.

pub mod context;
mod export;
pub mod settings;
pub mod step;

use std::{borrow::Cow, time::SystemTime};

use opentelemetry::{
    Context,
    trace::{Link, SpanBuilder, SpanContext, TraceContextExt as _, TraceId, Tracer as _, TracerProvider as _},
};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SamplingResult, SdkTracer, SdkTracerProvider, ShouldSample},
};

pub use self::{
    context::{Arrived, Formats},
    export::{Export, FLUSH, Spans},
    settings::{InvalidTraces, Said, Settings},
    step::{Past, Place, Step},
};
pub use opentelemetry::{
    KeyValue,
    trace::{SpanKind, Status},
};
/// A span under way; it ends when it is dropped, at the latest.
pub use opentelemetry_sdk::trace::Span;
/// What is exported of a span.
pub use opentelemetry_sdk::trace::SpanData;

/// Makes spans, or does not. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Traces(Option<SdkTracer>);

/// Makes spans if there is a collector to be told of them; and what tells it.
pub fn begin(settings: Option<Settings>) -> (Traces, Export) {
    let Some(settings) = settings else { return (Traces::off(), Export(None)) };
    let (traces, spans) = traces(settings.ratio);
    (traces, Export(Some((spans, settings))))
}

/// Traces of which so many are recorded, from 0.0 to 1.0, unless whoever began one has decided; and the spans that come of it.
pub fn traces(ratio: f64) -> (Traces, Spans) {
    let (queue, spans) = export::queue();
    let provider = SdkTracerProvider::builder()
        .with_sampler(AsDecided { otherwise: Sampler::TraceIdRatioBased(ratio) })
        .with_span_processor(queue)
        // Whoever exports says whose they are.
        .with_resource(Resource::builder_empty().build())
        .build();
    (Traces(Some(provider.tracer("chancery"))), spans)
}

impl Traces {
    /// Makes none.
    pub fn off() -> Self {
        Self::default()
    }

    /// Whether spans are made at all.
    pub fn are_made(&self) -> bool {
        self.0.is_some()
    }

    /// Begins a span for work that others asked for. It records only if its trace does; its identity is there to be passed
    /// on either way. `None`: no spans are made.
    pub fn begin(&self, name: impl Into<Cow<'static, str>>, kind: SpanKind, arrived: &Arrived) -> Option<Span> {
        self.build(SpanBuilder::from_name(name).with_kind(kind), arrived)
    }

    /// Begins a span below one of our own, which records if that one does.
    pub fn below(&self, name: impl Into<Cow<'static, str>>, kind: SpanKind, parent: &SpanContext) -> Option<Span> {
        self.begin(name, kind, &Arrived::below(parent))
    }

    /// As [`Traces::below`], for what began at `from`.
    fn below_since(&self, name: &'static str, kind: SpanKind, parent: &SpanContext, from: SystemTime) -> Option<Span> {
        self.build(SpanBuilder::from_name(name).with_kind(kind).with_start_time(from), &Arrived::below(parent))
    }

    fn build(&self, builder: SpanBuilder, arrived: &Arrived) -> Option<Span> {
        let tracer = self.0.as_ref()?;
        let context = Context::new().with_value(Decided(arrived.decision));
        let context = match &arrived.parent {
            Some(parent) => context.with_remote_span_context(parent.clone()),
            None => context,
        };
        Some(tracer.build_with_context(builder, &context))
    }
}

/// What those before us have decided about a trace, in the context of a span that begins.
struct Decided(Option<bool>);

/// Records what was decided to be recorded; of the rest, by its own rule.
///
/// OpenTelemetry's own parent-based sampler takes a parent whose decision is left to us, as B3 knows it, for one that is not sampled.
#[derive(Clone, Debug)]
struct AsDecided {
    otherwise: Sampler,
}

impl ShouldSample for AsDecided {
    fn should_sample(
        &self,
        context: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let decided = context.and_then(|context| context.get::<Decided>()).and_then(|decided| decided.0);
        let sampler = match decided {
            Some(true) => &Sampler::AlwaysOn,
            Some(false) => &Sampler::AlwaysOff,
            None => &self.otherwise,
        };
        sampler.should_sample(context, trace, name, kind, attributes, links)
    }
}

#[cfg(test)]
mod tests;
