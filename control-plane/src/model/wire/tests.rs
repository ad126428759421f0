use serde_json::Value;

use super::*;
use crate::model::Kind;

/// Every `$ref` leads somewhere, every field is described.
fn complete(value: &Value, definitions: &Value, path: &str) {
    if let Some(target) = value["$ref"].as_str() {
        let name = target.strip_prefix("#/$defs/").unwrap_or_else(|| panic!("{path}: {target}"));
        assert!(definitions[name].is_object(), "{path}: {target}");
    }
    if let Some(properties) = value["properties"].as_object() {
        for (name, property) in properties {
            let one_of = property["oneOf"].as_array().into_iter().flatten();
            let described = one_of.chain([property]).any(|schema| schema["description"].is_string());
            let referred = property["$ref"].as_str().and_then(|target| target.rsplit('/').next());
            let by_type = referred.is_some_and(|name| definitions[name]["description"].is_string());
            assert!(described || by_type, "{path}.{name} has no description");
        }
    }
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| complete(value, definitions, &format!("{path}.{key}")));
        }
        Value::Array(values) => values.iter().for_each(|value| complete(value, definitions, path)),
        _ => {}
    }
}

#[test]
fn the_schema_of_every_kind_stands_alone() {
    for kind in Kind::ALL {
        let schema = schema(kind);
        assert_eq!(schema["properties"]["kind"]["const"], kind.as_str());
        complete(&schema, &schema["$defs"], kind.as_str());
    }
}

#[test]
fn the_schema_of_all_kinds_stands_alone() {
    let schema = schema_of_any();
    complete(&schema, &schema["$defs"], "all");
    for (kind, one) in Kind::ALL.into_iter().zip(schema["oneOf"].as_array().unwrap()) {
        assert_eq!(one["$ref"], format!("#/$defs/{kind}"));
        assert_eq!(schema["$defs"][kind.as_str()]["properties"]["kind"]["const"], kind.as_str());
    }
}

/// An example of a list is a list, not one of its items.
#[test]
fn examples_are_of_what_they_stand_at() {
    let schema = schema(Kind::Fleet);
    let addresses = &schema["$defs"]["RateLimiterSpec"]["properties"]["addresses"];
    assert_eq!(addresses["examples"][0][0], "limiter.internal:8081");
    assert_eq!(addresses["items"]["examples"], Value::Null);
    let labels = &schema["$defs"]["CanarySpec"]["properties"]["labels"];
    assert_eq!(labels["examples"][0]["track"], "canary");
    assert_eq!(labels["additionalProperties"]["examples"], Value::Null);
    assert_eq!(labels["propertyNames"]["examples"], Value::Null);
}

#[test]
fn the_schema_of_a_listener() {
    insta::assert_json_snapshot!(schema(Kind::Listener));
}
