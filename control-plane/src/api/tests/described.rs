//! Nothing in the description of the API is left without words: types, fields, parameters, answers.

use serde_json::Value;

use crate::api::openapi;

#[test]
fn everything_is_described() {
    let description = serde_json::to_value(openapi()).unwrap();
    let mut silent = Silent { components: &description["components"]["schemas"], found: Vec::new() };
    for (name, schema) in description["components"]["schemas"].as_object().unwrap() {
        silent.schema(name, schema);
    }
    let mut operations = 0;
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            silent.operation(&format!("{method} {path}"), operation);
            operations += 1;
        }
    }
    assert!(operations > 70, "only {operations} operations were looked at");
    assert!(silent.found.is_empty(), "these say nothing of themselves:\n  {}", silent.found.join("\n  "));
}

/// What has no description.
struct Silent<'d> {
    components: &'d Value,
    found: Vec<String>,
}

impl Silent<'_> {
    fn operation(&mut self, place: &str, operation: &Value) {
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            self.text(&format!("{place}, parameter {}", parameter["name"]), &parameter["description"]);
        }
        for (status, answer) in operation["responses"].as_object().unwrap() {
            self.text(&format!("{place}, answer {status}"), &answer["description"]);
            self.contents(&format!("{place}, answer {status}"), &answer["content"]);
        }
        self.contents(&format!("{place}, body"), &operation["requestBody"]["content"]);
    }

    /// What is said in place; components are looked at by themselves.
    fn contents(&mut self, place: &str, contents: &Value) {
        for content in contents.as_object().into_iter().flat_map(|contents| contents.values()) {
            self.fields(place, &content["schema"]);
        }
    }

    fn text(&mut self, place: &str, text: &Value) {
        if text.as_str().is_none_or(|text| text.trim().is_empty()) {
            self.found.push(place.to_owned());
        }
    }

    fn schema(&mut self, place: &str, schema: &Value) {
        if !self.is_described(schema) {
            self.found.push(place.to_owned());
        }
        self.fields(place, schema);
    }

    fn fields(&mut self, place: &str, schema: &Value) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            self.schema(&format!("{place}.{name}"), field);
        }
        for choice in ["oneOf", "allOf", "anyOf"].iter().flat_map(|key| schema[key].as_array().into_iter().flatten()) {
            self.fields(place, choice);
        }
        for (end, inner) in [("[]", &schema["items"]), (".*", &schema["additionalProperties"])] {
            if inner.is_object() {
                self.fields(&format!("{place}{end}"), inner);
            }
        }
    }

    /// Whether it says something itself, or what it refers to, or one of its choices does.
    fn is_described(&self, schema: &Value) -> bool {
        let by_itself = schema["description"].as_str().is_some_and(|text| !text.trim().is_empty());
        let referred = schema["$ref"].as_str().and_then(|target| target.rsplit('/').next());
        let choices = ["oneOf", "allOf", "anyOf"].iter().flat_map(|key| schema[key].as_array().into_iter().flatten());
        by_itself
            || referred.is_some_and(|name| self.is_described(&self.components[name]))
            || choices.into_iter().any(|choice| self.is_described(choice))
    }
}
