//! The API as a whole: what it says of itself, and what its tests share.

use std::collections::BTreeSet;

mod access;
mod described;
mod enrolments;
mod events;
mod explain;
mod failure;
mod fixture;
mod guard;
mod history;
mod hostile;
mod idempotency;
mod load;
mod pages;
mod people;
mod resources;
mod schemas;
mod seen;

use super::openapi;

#[test]
fn the_description_of_the_api() {
    insta::assert_json_snapshot!(openapi());
}

/// Every reference leads somewhere, every operation has an id of its own.
#[test]
fn the_description_is_complete() {
    let description = serde_json::to_value(openapi()).unwrap();
    let text = description.to_string();
    let references: BTreeSet<_> =
        text.split("\"#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    for name in references {
        assert!(description["components"]["schemas"][name].is_object(), "{name} is not described");
    }
    let mut ids = BTreeSet::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap_or_default();
            assert!(!id.is_empty() && ids.insert(id), "{method} {path} has the id {id:?}");
            assert!(operation["summary"].is_string(), "{method} {path} has no summary");
            assert!(operation["responses"]["401"].is_object(), "{method} {path} has no errors");
        }
    }
    assert_eq!(description["openapi"], "3.1.0");
}
