//! Documents as text: what is read, and what is refused with its place.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn yaml(text: &str) -> Result<Vec<Value>, String> {
    documents(Format::Yaml, text.as_bytes())
        .map(|documents| documents.into_iter().map(|document| document.value).collect())
        .map_err(|error| error.to_string())
}

fn json(text: &str) -> Result<Value, String> {
    documents(Format::Json, text.as_bytes()).map(|mut documents| documents.remove(0).value).map_err(|e| e.to_string())
}

#[test]
fn yaml_documents_are_separated_and_know_their_line() {
    let text = "---\n# nothing\n---\nkind: A\n---\n\nkind: B\n...\n";
    let read = documents(Format::Yaml, text.as_bytes()).unwrap();
    let lines: Vec<_> = read.iter().map(|document| document.line).collect();
    assert_eq!(lines, [4, 7]);
    assert_eq!(yaml("").unwrap(), Vec::<Value>::new());
    assert_eq!(yaml("# only a comment\n").unwrap(), Vec::<Value>::new());
}

#[test]
fn yaml_scalars_follow_the_core_schema() {
    let text = "[no, on, true, ~, 12, -3, +4, 0x1F, 0o17, 1.5, .5, 1e3, 1., '1', \"2\", 1.2.3, 10s, 1_000, e3, ., 0x, !!str 5]";
    assert_eq!(
        yaml(text).unwrap(),
        [json!([
            "no", "on", true, null, 12, -3, 4, 31, 15, 1.5, 0.5, 1000.0, 1.0, "1", "2", "1.2.3", "10s", "1_000", "e3",
            ".", "0x", "5"
        ])]
    );
    assert_eq!(yaml("a: 18446744073709551615").unwrap(), [json!({ "a": u64::MAX })]);
    assert_eq!(
        yaml("a: |\n  one\n  two\nb: >-\n  three\n  four\n").unwrap(),
        [json!({ "a": "one\ntwo\n", "b": "three four" })]
    );
    for refused in [".nan", "-.inf", "1e999", "!mine x", "!!binary aGk=", "0xFFFFFFFFFFFFFFFFF"] {
        assert!(yaml(&format!("a: {refused}")).is_err(), "{refused}");
    }
}

#[test]
fn an_error_says_where() {
    assert_eq!(yaml("a: 1\nb: 2\na: 3\n").unwrap_err(), "line 3, column 1: key \"a\" is given twice");
    assert!(yaml("a: [1, 2\nb: 3").unwrap_err().starts_with("line 2, column "));
    assert_eq!(json("{\n  \"a\": 1,\n  \"a\": 2}").unwrap_err(), "line 3, column 5: key \"a\" is given twice");
    assert_eq!(json("{\n  \"a\" 1}").unwrap_err(), "line 2, column 7: expected `:`");
    assert_eq!(json("{} x").unwrap_err(), "line 1, column 4: trailing characters");
    assert!(json("").unwrap_err().starts_with("line 1, column 1: EOF"));
    let broken = documents(Format::Yaml, b"a: b\nc: \xff\n").unwrap_err();
    assert_eq!((broken.line, broken.column), (2, 4));
}

#[test]
fn aliases_are_copies() {
    assert_eq!(yaml("a: &x { b: 1 }\nc: *x\n").unwrap(), [json!({ "a": { "b": 1 }, "c": { "b": 1 } })]);
    assert!(yaml("a: &x [*x]").is_err());
    assert!(yaml("a: *nothing").is_err());
    assert!(yaml("a: &x 1\n---\nb: *x").is_err(), "an anchor ends with its document");
}

#[test]
fn a_bomb_of_aliases_is_left_at_the_budget() {
    let mut text = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for level in 1..12 {
        let before = format!("*a{}, ", level - 1).repeat(10);
        text += &format!("a{level}: &a{level} [{before}]\n");
    }
    assert!(yaml(&text).unwrap_err().contains("take more than"));
    let long = "x".repeat(1 << 20);
    let copies = "*x, ".repeat(1000);
    assert!(yaml(&format!("a: &x {long}\nb: [{copies}]")).unwrap_err().contains("take more than"));
}

#[test]
fn depth_is_bounded_and_costs_no_time() {
    let size = 1 << 19;
    let started = Instant::now();
    for open in ["[", "{\"a\":", "{", "- ", "? ", "[\n", "&a [", "a:\n "] {
        let text = open.repeat(size / open.len());
        assert!(yaml(&text).is_err(), "{open}");
        assert!(json(&text).is_err(), "{open}");
    }
    assert!(started.elapsed() < Duration::from_secs(60), "took {:?}", started.elapsed());
    let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    for read in [|text: &str| yaml(text).map(drop), |text: &str| json(text).map(drop)] {
        assert!(read(&nested(MAX_DEPTH)).is_ok());
        assert!(read(&nested(MAX_DEPTH + 1)).unwrap_err().contains("nested deeper"));
    }
}

#[test]
fn wide_texts_are_left_at_the_budget() {
    let text = format!("[{}0]", "0,".repeat(4 << 20));
    assert!(json(&text).unwrap_err().contains("take more than"));
    assert!(yaml(&text).unwrap_err().contains("take more than"));
}

/// No control characters, and none of the two that the writer takes for line breaks, as YAML 1.1 did and 1.2 does not.
const TEXT: &str = "[\\PC&&[^\u{2028}\u{2029}]]{0,12}";

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        TEXT.prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::btree_map(TEXT, inner, 0..5).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Any text, and often one of what YAML has thought of differently over the years.
fn hard_text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[ab: #'\"|>-][ab \n\t\u{85}\u{2028}\u{2029}\u{feff}]{0,6}"]
}

proptest! {
    #[test]
    fn json_reads_what_was_written(value in any_value()) {
        prop_assert_eq!(json(&value.to_string()).unwrap(), value);
    }

    #[test]
    fn yaml_reads_what_was_written(value in any_value()) {
        let text = serde_norway::to_string(&value).unwrap();
        let expected = if value.is_null() { vec![] } else { vec![value] };
        prop_assert_eq!(yaml(&text).unwrap(), expected);
    }

    #[test]
    fn what_is_written_is_read(texts in proptest::collection::vec(hard_text(), 1..4), number in any::<f64>()) {
        let value = serde_json::json!({ "texts": texts, "number": number });
        prop_assert_eq!(yaml(&super::yaml(&value)).unwrap(), [value]);
    }

    #[test]
    fn no_text_makes_it_panic(text in "[\\[\\]{},:&*!|>'\"%@`?#\\- \\n\\tab01.~]{0,60}") {
        let _ = yaml(&text);
        let _ = json(&text);
    }
}
