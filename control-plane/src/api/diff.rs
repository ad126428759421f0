//! What differs between two versions of a resource, field by field. Pure.

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::model::Document;

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

/// What differs between two versions of a resource, of which one may not exist: its kind and its name go without saying, and
/// fields of a spec that is new or gone are told one by one.
pub(super) fn of_documents(before: Option<&Document>, after: Option<&Document>) -> Vec<FieldChange> {
    let value = |document: Option<&Document>| {
        let Some(document) = document else { return json!({ "spec": {} }) };
        let mut value = serde_json::to_value(document).unwrap_or_default();
        if let Value::Object(fields) = &mut value {
            fields.retain(|field, _| field != "kind" && field != "name");
        }
        value
    };
    differences(&value(before), &value(after))
}

/// The smallest fields that differ, in order of their path; the first 200 of them.
fn differences(before: &Value, after: &Value) -> Vec<FieldChange> {
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
            let Aligned { start, end } = Aligned::new(old, new);
            let (old_end, new_end) = (old.len() - end, new.len() - end);
            for index in start..old_end.max(new_end) {
                path.push_str(&format!("[{index}]"));
                compare(path, old[..old_end].get(index), new[..new_end].get(index), found);
                path.truncate(length);
            }
        }
        _ => found.push(FieldChange { path: path.clone(), before: before.cloned(), after: after.cloned() }),
    }
}

/// Which items of two lists are the same: those at the start and those at the end. What lies between is told apart by place. So one
/// item more, wherever it stands, is one difference.
pub(super) struct Aligned {
    /// So many at the start.
    pub(super) start: usize,
    /// So many at the end.
    pub(super) end: usize,
}

impl Aligned {
    pub(super) fn new(old: &[Value], new: &[Value]) -> Self {
        let same = |(a, b): &(&Value, &Value)| a == b;
        let start = old.iter().zip(new).take_while(same).count();
        let end = old[start..].iter().rev().zip(new[start..].iter().rev()).take_while(same).count();
        Self { start, end }
    }

    /// The place in the old list, of `old` items, of what is at `index` in the new one, of `new` items; none if it is new.
    pub(super) fn place_before(&self, index: usize, old: usize, new: usize) -> Option<usize> {
        let (old_end, new_end) = (old - self.end, new - self.end);
        if index >= new_end { Some(old_end + (index - new_end)) } else { (index < old_end).then_some(index) }
    }
}

#[cfg(test)]
mod tests {
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
    fn one_item_more_is_one_difference() {
        let of = |before: Value, after: Value| {
            let paths = differences(&before, &after).into_iter();
            paths.map(|change| (change.path, change.before, change.after)).collect::<Vec<_>>()
        };
        let (list, longer) = (json!(["a", "b", "c"]), json!(["a", "x", "b", "c"]));
        assert_eq!(of(list.clone(), longer.clone()), [("[1]".to_owned(), None, Some(json!("x")))]);
        assert_eq!(of(longer, list), [("[1]".to_owned(), Some(json!("x")), None)]);
        assert_eq!(of(json!([1, 1]), json!([1])), [("[1]".to_owned(), Some(json!(1)), None)]);
        let changed = of(json!([1, 2, 3, 9]), json!([1, 4, 9]));
        assert_eq!(
            changed,
            [("[1]".to_owned(), Some(json!(2)), Some(json!(4))), ("[2]".to_owned(), Some(json!(3)), None)]
        );
    }

    #[test]
    fn long_lists_are_cut() {
        let before = json!(vec![0; 1000]);
        assert_eq!(differences(&before, &json!(vec![1; 1000])).len(), LIMIT);
    }
}
