use std::time::Duration;

use http::HeaderMap;
use opentelemetry::trace::{Span as _, SpanId};

use super::*;

fn arrived(name: &'static str, value: &str) -> Arrived {
    Arrived::of(&HeaderMap::from_iter([(http::HeaderName::from_static(name), value.parse().unwrap())]))
}

fn records(traces: &Traces, arrived: &Arrived) -> bool {
    traces.begin("GET", SpanKind::Server, arrived).unwrap().is_recording()
}

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn nothing_is_made_where_nobody_is_told() {
    assert!(!Traces::off().are_made());
    assert!(Traces::off().begin("GET", SpanKind::Server, &arrived("traceparent", PARENT)).is_none());
}

async fn next(spans: &mut Spans) -> SpanData {
    tokio::time::timeout(Duration::from_secs(10), spans.next()).await.expect("a span ends").unwrap()
}

#[tokio::test]
async fn a_span_is_below_the_one_that_asked() {
    let (traces, mut spans) = traces(0.0);
    let server = traces.begin("GET", SpanKind::Server, &arrived("traceparent", PARENT)).unwrap();
    let client = traces.below("GET", SpanKind::Client, server.span_context()).unwrap();
    let (server_id, client_id) = (server.span_context().span_id(), client.span_context().span_id());
    drop(client);
    let client = next(&mut spans).await;
    assert_eq!((client.span_context.span_id(), client.parent_span_id), (client_id, server_id));
    assert!(!client.parent_span_is_remote && client.span_context.is_sampled());
    drop(server);
    let server = next(&mut spans).await;
    assert_eq!(server.parent_span_id.to_string(), "00f067aa0ba902b7");
    assert_eq!(server.span_context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert!(server.parent_span_is_remote && server.end_time >= server.start_time);
    assert_eq!(client.span_context.trace_id(), server.span_context.trace_id());
}

#[test]
fn what_was_decided_before_us_counts_and_our_share_for_the_rest() {
    let (all, _all) = traces(1.0);
    let (none, _none) = traces(0.0);
    let not_sampled = PARENT.replace("-01", "-00");
    for (name, value, decided) in [
        ("traceparent", PARENT, Some(true)),
        ("traceparent", &not_sampled, Some(false)),
        ("b3", "1", Some(true)),
        ("b3", "0", Some(false)),
        ("b3", "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", None),
        ("x-other", "1", None),
    ] {
        let arrived = arrived(name, value);
        assert_eq!(records(&all, &arrived), decided.unwrap_or(true), "{name}: {value}");
        assert_eq!(records(&none, &arrived), decided.unwrap_or(false), "{name}: {value}");
    }
    let (some, _some) = traces(0.25);
    let recorded = (0..4_000).filter(|_| records(&some, &Arrived::default())).count();
    assert!((700..1_300).contains(&recorded), "{recorded} of 4000");
}

#[test]
fn who_is_not_recorded_has_an_identity_to_pass_on() {
    let (none, _spans) = traces(0.0);
    let span = none.begin("GET", SpanKind::Server, &Arrived::default()).unwrap();
    assert!(span.span_context().is_valid() && span.span_context().span_id() != SpanId::INVALID);
    let below = none.below("GET", SpanKind::Client, span.span_context()).unwrap();
    assert!(!below.is_recording());
}
