//! The JSON Schema (2020-12) of documents, for editors, for `GET /api/schemas` and for whoever explains a field.

use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::{
    Envelope, EnvoyPatchSpec, FleetSpec, ListenerSpec, READ_ONLY, RateLimitSpec, RouteSpec, ServiceSpec, TeamSpec,
};
use crate::model::Kind;

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// The JSON Schema of a whole document of `kind`; it stands alone.
pub fn schema(kind: Kind) -> Value {
    let (mut document, components) = document(kind);
    document["$schema"] = json!(DIALECT);
    document["$id"] = json!(id(kind.as_str()));
    document["$defs"] = Value::Object(components);
    document
}

/// The JSON Schema of a document of any kind; it stands alone.
pub fn schema_of_any() -> Value {
    let mut definitions = Map::new();
    for kind in Kind::ALL {
        let (document, components) = document(kind);
        definitions.extend(components);
        definitions.insert(kind.to_string(), document);
    }
    json!({
        "$schema": DIALECT,
        "$id": id("all"),
        "title": "Resource",
        "description": "A resource of Chancery, by its kind.",
        "oneOf": Kind::ALL.map(|kind| json!({ "$ref": format!("#/$defs/{kind}") })),
        "$defs": definitions,
    })
}

/// By what schemas refer to each other; nothing has to be there.
fn id(name: &str) -> String {
    format!("https://chancery.dev/schemas/{name}.json")
}

/// The schema of a document of `kind`, and of what it refers to.
fn document(kind: Kind) -> (Value, Map<String, Value>) {
    let (spec, mut components) = match kind {
        Kind::Fleet => parts::<FleetSpec>(),
        Kind::Listener => parts::<ListenerSpec>(),
        Kind::Team => parts::<TeamSpec>(),
        Kind::Service => parts::<ServiceSpec>(),
        Kind::RateLimit => parts::<RateLimitSpec>(),
        Kind::Route => parts::<RouteSpec>(),
        Kind::EnvoyPatch => parts::<EnvoyPatchSpec>(),
    };
    let (mut document, more) = parts::<Envelope>();
    components.extend(more);
    components.remove("Kind");
    document["title"] = json!(kind.as_str());
    document["description"] = spec["description"].clone();
    document["properties"]["kind"] = json!({ "description": "What it is.", "const": kind.as_str() });
    document["properties"]["spec"] = spec;
    for field in READ_ONLY {
        document["properties"][field]["readOnly"] = json!(true);
    }
    localize(&mut document);
    components.values_mut().for_each(localize);
    (document, components)
}

/// The schema of a type, and of the types it refers to.
fn parts<T: ToSchema>() -> (Value, Map<String, Value>) {
    let mut components = Vec::new();
    T::schemas(&mut components);
    // A schema is data that serializes; `null` would accept nothing, and a test reads every schema.
    let value = |schema| serde_json::to_value(schema).unwrap_or_default();
    (value(T::schema()), components.into_iter().map(|(name, schema)| (name, value(schema))).collect())
}

/// Lets references lead to `$defs` instead of OpenAPI's components, and examples stand where they are valid.
fn localize(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get_mut("$ref") {
                *target = target.replace("#/components/schemas/", "#/$defs/");
            }
            lift_examples(map, "items", Value::is_array);
            lift_examples(map, "propertyNames", Value::is_object);
            lift_examples(map, "additionalProperties", Value::is_object);
            map.values_mut().for_each(localize);
        }
        Value::Array(values) => values.iter_mut().for_each(localize),
        _ => {}
    }
}

/// utoipa puts the example of a list (a map) at its `inner` schemas, where it would be one item (one key, one value).
fn lift_examples(outer: &mut Map<String, Value>, inner: &str, is_whole: fn(&Value) -> bool) {
    let Some(Value::Object(schema)) = outer.get_mut(inner) else { return };
    let whole = |examples: &Value| examples.as_array().is_some_and(|examples| examples.iter().all(is_whole));
    if let Some(examples) = schema.get("examples").filter(|examples| whole(examples)).cloned() {
        schema.remove("examples");
        outer.insert("examples".to_owned(), examples);
    }
}
