//! The JSON Schema of a kind, for editors and for `GET /api/schemas`.

use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::{Envelope, EnvoyPatchSpec, FleetSpec, ListenerSpec, RateLimitSpec, RouteSpec, ServiceSpec, TeamSpec};
use crate::model::Kind;

/// The JSON Schema (2020-12) of a whole document of `kind`; it stands alone.
pub fn schema(kind: Kind) -> Value {
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
    document["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    document["title"] = json!(kind.as_str());
    document["description"] = spec["description"].clone();
    document["properties"]["kind"] = json!({ "const": kind.as_str() });
    document["properties"]["spec"] = spec;
    document["$defs"] = Value::Object(components);
    localize(&mut document);
    document
}

/// The schema of a type, and of the types it refers to.
fn parts<T: ToSchema>() -> (Value, Map<String, Value>) {
    let mut components = Vec::new();
    T::schemas(&mut components);
    // A schema is data that serializes; `null` would accept nothing, and a test reads every schema.
    let value = |schema| serde_json::to_value(schema).unwrap_or_default();
    (value(T::schema()), components.into_iter().map(|(name, schema)| (name, value(schema))).collect())
}

/// Lets references lead to `$defs` instead of OpenAPI's components.
fn localize(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get_mut("$ref") {
                *target = target.replace("#/components/schemas/", "#/$defs/");
            }
            map.values_mut().for_each(localize);
        }
        Value::Array(values) => values.iter_mut().for_each(localize),
        _ => {}
    }
}
