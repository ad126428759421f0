use proptest::{collection::vec, option, prelude::*};

use super::*;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in of {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

/// Parent and decision: `trace-span decision`.
fn read(of: &[(&'static str, &str)]) -> String {
    let Arrived { parent, decision, .. } = Arrived::of(&headers(of));
    let parent = parent.map_or("none".to_owned(), |parent| format!("{}-{}", parent.trace_id(), parent.span_id()));
    format!("{parent} {}", decision.map_or("open".to_owned(), |decision| decision.to_string()))
}

fn own(sampled: bool) -> SpanContext {
    let flags = TraceFlags::default().with_sampled(sampled);
    let (trace, span) = (TraceId::from_bytes([0xab; 16]), SpanId::from_bytes([0xcd; 8]));
    SpanContext::new(trace, span, flags, false, TraceState::NONE)
}

/// All headers after ours were written over those that came.
fn written(came: &[(&'static str, &str)], sampled: bool) -> Vec<String> {
    let mut headers = headers(came);
    Arrived::of(&headers).formats.write(&own(sampled), SpanId::from_bytes([0xef; 8]), &mut headers);
    let mut lines: Vec<_> =
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    lines.sort();
    lines
}

#[test]
fn w3c_is_read_as_it_is_specified() {
    let (sampled, not) = (format!("{TRACE}-{SPAN} true"), format!("{TRACE}-{SPAN} false"));
    let none = "none open".to_owned();
    for (flags, expected) in [("01", &sampled), ("00", &not), ("03", &sampled), ("fe", &not)] {
        assert_eq!(&read(&[("traceparent", &format!("00-{TRACE}-{SPAN}-{flags}"))]), expected, "{flags}");
    }
    for (value, expected) in [
        (format!("cc-{TRACE}-{SPAN}-01"), &sampled),
        (format!("cc-{TRACE}-{SPAN}-01-more-to-come"), &sampled),
        (format!("00-{TRACE}-{SPAN}-01-more"), &none),
        (format!("ff-{TRACE}-{SPAN}-01"), &none),
        (format!("0000-{TRACE}-{SPAN}-01"), &none),
        (format!("+0-{TRACE}-{SPAN}-01"), &none),
        (format!("00-{}-{SPAN}-01", TRACE.to_uppercase()), &none),
        (format!("00-{}-{SPAN}-01", "0".repeat(32)), &none),
        (format!("00-{TRACE}-{}-01", "0".repeat(16)), &none),
        (format!("00-{}-{SPAN}-01", &TRACE[1..]), &none),
        (format!("00-{TRACE}-{SPAN}"), &none),
        (format!("00-{TRACE}-{SPAN}-1"), &none),
        (String::new(), &none),
    ] {
        assert_eq!(&read(&[("traceparent", &value)]), expected, "{value}");
    }
    let twice = format!("00-{TRACE}-{SPAN}-01");
    assert_eq!(read(&[("traceparent", &twice), ("traceparent", &twice)]), none);
}

#[test]
fn b3_is_read_in_both_forms() {
    let long = |decision: &str| format!("{TRACE}-{SPAN} {decision}");
    let short = |decision: &str| format!("{}{}-{SPAN} {decision}", "0".repeat(16), &TRACE[16..]);
    for (value, expected) in [
        (format!("{TRACE}-{SPAN}-1-{SPAN}"), long("true")),
        (format!("{TRACE}-{SPAN}-d"), long("true")),
        (format!("{TRACE}-{SPAN}-0"), long("false")),
        (format!("{TRACE}-{SPAN}"), long("open")),
        (format!("{}-{SPAN}-1", &TRACE[16..]), short("true")),
        ("0".to_owned(), "none false".to_owned()),
        ("1".to_owned(), "none true".to_owned()),
        ("d".to_owned(), "none true".to_owned()),
        (format!("{TRACE}-{SPAN}-1-x"), "none open".to_owned()),
        (format!("{TRACE}-{SPAN}-1-{SPAN}-x"), "none open".to_owned()),
        (format!("{TRACE}-x-1"), "none open".to_owned()),
    ] {
        assert_eq!(read(&[("b3", &value)]), expected, "{value}");
    }
    let ids = [("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN)];
    let with = |name, value| read(&[ids[0], ids[1], (name, value)]);
    assert_eq!(read(&ids), long("open"));
    assert_eq!(with("x-b3-sampled", "1"), long("true"));
    assert_eq!(with("x-b3-sampled", "false"), long("false"));
    assert_eq!(with("x-b3-flags", "1"), long("true"));
    assert_eq!(read(&[("x-b3-sampled", "0")]), "none false");
    assert_eq!(read(&[("x-b3-traceid", TRACE), ("x-b3-sampled", "1")]), "none true");
    // A form that says who asks counts for more than one that does not.
    assert_eq!(read(&[("b3", "x-y-1"), ids[0], ids[1], ("x-b3-sampled", "0")]), long("false"));
}

#[test]
fn the_word_of_w3c_comes_first() {
    let b3 = ("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1");
    let w3c = format!("00-{TRACE}-{SPAN}-00");
    assert_eq!(read(&[b3, ("traceparent", &w3c)]), format!("{TRACE}-{SPAN} false"));
    assert_eq!(read(&[b3, ("traceparent", "no")]), "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1 true");
}

#[test]
fn what_others_say_of_a_trace_is_exported_up_to_a_length() {
    let of = |states: &[&str]| {
        let parent = format!("00-{TRACE}-{SPAN}-01");
        let mut came = vec![("traceparent", parent.as_str())];
        came.extend(states.iter().map(|state| ("tracestate", *state)));
        Arrived::of(&headers(&came)).parent.unwrap().trace_state().header()
    };
    assert_eq!(of(&["rojo=1", "congo=2"]), "rojo=1,congo=2");
    assert_eq!(of(&["rojo"]), "");
    // Each of them is short enough for itself.
    let members: Vec<_> = ["a", "b", "c"].iter().map(|key| format!("{key}={}", "x".repeat(200))).collect();
    let members: Vec<_> = members.iter().map(String::as_str).collect();
    assert_eq!(of(&members[..2]), members[..2].join(","));
    assert_eq!(of(&members), "");
}

#[test]
fn a_context_goes_on_in_the_formats_in_which_it_came() {
    let (trace, span, parent) = ("ab".repeat(16), "cd".repeat(8), "ef".repeat(8));
    let w3c = |flags: &str| format!("traceparent: 00-{trace}-{span}-{flags}");
    let came = format!("00-{TRACE}-{SPAN}-01");
    assert_eq!(written(&[("traceparent", &came)], true), [w3c("01")]);
    assert_eq!(written(&[("traceparent", &came)], false), [w3c("00")]);
    assert_eq!(written(&[("b3", "0")], false), [format!("b3: {trace}-{span}-0-{parent}")]);
    let both = written(&[("b3", &format!("{TRACE}-{SPAN}-d")), ("traceparent", &came)], true);
    assert_eq!(both, [format!("b3: {trace}-{span}-d-{parent}"), w3c("01")]);
    let several = [
        format!("x-b3-parentspanid: {parent}"),
        "x-b3-sampled: 1".to_owned(),
        format!("x-b3-spanid: {span}"),
        format!("x-b3-traceid: {trace}"),
    ];
    let ids = [("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN)];
    assert_eq!(written(&ids, true), several);
    let debug = written(&[ids[0], ids[1], ("x-b3-flags", "1")], true);
    assert!(debug.contains(&"x-b3-flags: 1".to_owned()), "{debug:?}");
    let debug = written(&[ids[0], ids[1], ("x-b3-flags", "1")], false);
    assert!(!debug.iter().any(|line| line.contains("flags")), "{debug:?}");
}

#[test]
fn one_that_did_not_come_begins_in_w3cs_if_it_is_recorded() {
    let expected = format!("traceparent: 00-{}-{}-01", "ab".repeat(16), "cd".repeat(8));
    assert_eq!(written(&[], true), [expected]);
    assert!(written(&[], false).is_empty());
}

#[test]
fn a_state_does_not_outlive_the_context_it_came_with() {
    let state = ("tracestate", "rojo=1");
    let kept = written(&[("traceparent", &format!("00-{TRACE}-{SPAN}-01")), state], true);
    assert!(kept.contains(&"tracestate: rojo=1".to_owned()), "{kept:?}");
    for came in [vec![("traceparent", "no"), state], vec![state]] {
        let dropped = written(&came, true);
        assert!(!dropped.iter().any(|line| line.starts_with("tracestate")), "{dropped:?}");
    }
}

#[test]
fn an_id_of_64_bits_goes_on_as_one() {
    let trace = TraceId::from_bytes(u128::from(7_u64).to_be_bytes());
    assert_eq!(b3_id(trace), "0000000000000007");
    assert_eq!(b3_id(TraceId::from_bytes([1; 16])).len(), 32);
}

/// A value as somebody might send it: a right one, a broken one, or anything.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let right = "(00|01|ff)-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3]|[0-9a-f]{16}-[0-9a-f]{16}(-[01d](-[0-9a-f]{16})?)?|[01d]";
    let near = "[0-9a-fA-F]{0,33}(-[0-9a-f]{0,17}){0,5}";
    prop_oneof![right.prop_map(String::into_bytes), near.prop_map(String::into_bytes), vec(any::<u8>(), 0..80),]
}

proptest! {
    #[test]
    fn whatever_came_the_next_one_reads_what_we_wrote(
        values in vec(option::of(value()), 7),
        again in any::<prop::sample::Index>(),
        sampled in any::<bool>(),
    ) {
        let names = [TRACEPARENT, TRACESTATE, B3, B3_TRACE, B3_SPAN, B3_SAMPLED, B3_FLAGS];
        let mut headers = HeaderMap::new();
        for (name, value) in names.iter().zip(&values) {
            if let Some(value) = value.as_ref().and_then(|value| HeaderValue::from_bytes(value).ok()) {
                headers.append(name, value);
            }
        }
        // One of them comes twice.
        let name = &names[again.index(names.len())];
        if let Some(value) = headers.get(name).cloned() {
            headers.append(name, value);
        }
        let arrived = Arrived::of(&headers);
        let own = own(sampled);
        arrived.formats.write(&own, SpanId::INVALID, &mut headers);
        let read = Arrived::of(&headers);
        let came = arrived.formats.w3c || arrived.formats.b3 || arrived.formats.b3_headers;
        if came || sampled {
            let parent = read.parent.unwrap();
            prop_assert_eq!((parent.trace_id(), parent.span_id()), (own.trace_id(), own.span_id()));
            prop_assert_eq!(read.decision, Some(sampled));
        } else {
            prop_assert_eq!(read, arrived);
        }
    }
}
