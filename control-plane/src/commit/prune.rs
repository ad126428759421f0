//! What a change deletes because it does not name it. Pure.

use std::collections::BTreeSet;

use crate::model::{Catalog, Key, Kind, Selector};

/// The resources of `catalog` that `selector` chooses, but for those that are `named`.
pub(super) fn pruned(catalog: &Catalog, selector: &Selector, named: &BTreeSet<Key>) -> Vec<Key> {
    let entries = Kind::ALL.into_iter().flat_map(|kind| catalog.entries(kind));
    let chosen = entries.filter(|entry| selector.selects(&entry.document)).map(|entry| entry.document.key());
    chosen.filter(|key| !named.contains(key)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        model::{Document, Resource},
        translate::testing::{entry, fleet, name, service},
    };

    #[test]
    fn only_what_carries_all_of_it_and_is_not_named_goes() {
        let document = |kind: &str, name: &str, team: &str, app: &str| -> Document {
            serde_json::from_value(
                json!({ "kind": kind, "name": name, "team": team, "labels": { "app": app }, "spec": {} }),
            )
            .unwrap()
        };
        let bare: Document = serde_json::from_value(json!({ "kind": "Service", "name": "bare", "spec": {} })).unwrap();
        let of = |document: Document| {
            let resource = Resource::Service(service(document.name.as_str()).into());
            entry(document, resource)
        };
        let catalog = Catalog::load([
            entry(document("Fleet", "edge", "ops", "shop"), Resource::Fleet(fleet("edge").into())),
            of(document("Service", "kept", "payments", "shop")),
            of(document("Service", "gone", "payments", "shop")),
            of(document("Service", "other-app", "payments", "blog")),
            of(document("Service", "other-team", "stock", "shop")),
            of(bare),
        ])
        .unwrap();
        let named = BTreeSet::from([Key::new(Kind::Service, name("kept"))]);
        let gone = |team: Option<&str>, app: Option<&str>| {
            let labels = app.map(|app| ("app".to_owned(), app.to_owned())).into_iter().collect();
            let selector = Selector { team: team.map(name), labels };
            pruned(&catalog, &selector, &named).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(gone(Some("payments"), Some("shop")), ["Service/gone"]);
        assert_eq!(gone(None, Some("shop")), ["Fleet/edge", "Service/gone", "Service/other-team"]);
        assert_eq!(gone(Some("payments"), None), ["Service/gone", "Service/other-app"]);
        assert!(gone(Some("nobody"), None).is_empty());
    }
}
