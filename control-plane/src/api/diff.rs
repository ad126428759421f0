//! What differs between two versions of a resource, field by field.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// How many differences of one resource are told.
const LIMIT: usize = 200;

/// One field that differs.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct FieldChange {
    /// Where, as a JSON path.
    #[schema(examples("spec.rules[0].to[1].weight"))]
    path: String,
    /// What it was; absent when the field is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Value>,
    /// What it becomes; absent when the field goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Value>,
}

/// The smallest fields that differ, in order of their path; the first 200 of them.
pub(super) fn differences(before: &Value, after: &Value) -> Vec<FieldChange> {
    let mut found = Vec::new();
    compare(&mut String::new(), Some(before), Some(after), &mut found);
    found
}

fn compare(path: &mut String, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<FieldChange>) {
    if before == after || found.len() == LIMIT {
        return;
    }
    let length = path.len();
    match (before, after) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let added = new.keys().filter(|key| !old.contains_key(*key));
            for key in old.keys().chain(added) {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(key);
                compare(path, old.get(key), new.get(key), found);
                path.truncate(length);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            for index in 0..old.len().max(new.len()) {
                path.push_str(&format!("[{index}]"));
                compare(path, old.get(index), new.get(index), found);
                path.truncate(length);
            }
        }
        _ => found.push(FieldChange { path: path.clone(), before: before.cloned(), after: after.cloned() }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_smallest_fields_are_told() {
        let before =
            json!({ "team": "a", "spec": { "to": [{ "service": "x", "weight": 1 }], "timeout": "1s", "same": [1] } });
        let after = json!({ "spec": { "to": [{ "service": "x", "weight": 2 }, { "service": "y" }], "timeout": null, "same": [1] }, "labels": {} });
        let found = serde_json::to_value(differences(&before, &after)).unwrap();
        assert_eq!(
            found,
            json!([
                { "path": "spec.timeout", "before": "1s", "after": null },
                { "path": "spec.to[0].weight", "before": 1, "after": 2 },
                { "path": "spec.to[1]", "after": { "service": "y" } },
                { "path": "team", "before": "a" },
                { "path": "labels", "after": {} },
            ])
        );
    }

    #[test]
    fn long_lists_are_cut() {
        let before = json!(vec![0; 1000]);
        assert_eq!(differences(&before, &json!(vec![1; 1000])).len(), LIMIT);
    }
}
