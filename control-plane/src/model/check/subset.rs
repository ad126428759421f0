//! Rules choose by those labels only that the service names: Envoy would answer all others as if no endpoint had them.

use std::collections::BTreeSet;

use super::list;
use crate::model::{
    Catalog, Key, Kind, Problems,
    problem::Quoted,
    route::{Route, Target},
    service::{Labels, Service},
};

pub(super) fn put_route(next: &Catalog, route: &Route, problems: &mut Problems) {
    for (rule, forward) in route.forwards_by_rule() {
        for (index, target) in forward.to.iter().enumerate() {
            let Some(service) = next.service(&target.service).filter(|_| !target.subset.is_empty()) else { continue };
            let mut problems = problems.at("rules");
            let mut problems = problems.index(rule);
            let mut problems = problems.at("to");
            let mut problems = problems.index(index);
            let key = Key::new(Kind::Service, service.name.clone());
            if is_unknown(service, target) {
                problems.at("subset").report(format!("is by {}, by which {key} has no subsets", names(&target.subset)));
            }
            if service.session_affinity.is_some() {
                problems.at("subset").report(format!("does not go with sessionAffinity of {key}: {WHATEVER_LABELS}"));
            }
        }
    }
}

/// Why a subset does not go with sessions.
const WHATEVER_LABELS: &str = "a session stays at its endpoint, whatever labels that has";

/// Routes that are part of the change report it themselves.
pub(super) fn put_service(next: &Catalog, changed: &BTreeSet<Key>, service: &Service, problems: &mut Problems) {
    let with = |wanted: &dyn Fn(&Target) -> bool| {
        let wants = |key: &Key| {
            let targets = next.route(&key.name).into_iter().flat_map(|route| route.forwards()).flat_map(|one| &one.to);
            targets.filter(|target| target.service == service.name).any(wanted)
        };
        let routes = next.routes_to(&service.name).map(|name| Key::new(Kind::Route, name.clone()));
        routes.filter(|key| !changed.contains(key) && wants(key)).collect::<Vec<Key>>()
    };
    let routes = with(&|target| is_unknown(service, target));
    if !routes.is_empty() {
        problems.at("subsets").report(format!("lacks one that is used by {}", list(&routes)));
    }
    let routes = with(&|target| service.session_affinity.is_some() && !target.subset.is_empty());
    if !routes.is_empty() {
        let routes = list(&routes);
        problems
            .at("sessionAffinity")
            .report(format!("does not go with subsets, as {routes} has them: {WHATEVER_LABELS}"));
    }
}

fn is_unknown(service: &Service, target: &Target) -> bool {
    !target.subset.is_empty() && !service.subsets.has(&target.subset)
}

fn names(labels: &Labels) -> String {
    labels.keys().map(|name| Quoted(name).to_string()).collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use super::*;
    use crate::model::{
        Resource,
        catalog::tests::{entry, fleet, listener, route, service},
        route::Action,
        service::{SessionAffinity, SubsetFallback, Subsets},
    };

    #[test]
    fn a_rule_chooses_by_what_the_service_names() {
        let labels =
            |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), "v2".to_owned())).collect::<Labels>();
        let with = |names: &[&str]| {
            let Resource::Service(mut cart) = service("cart") else { panic!("a service") };
            let selector = names.iter().map(|name| (*name).to_owned()).collect();
            let selectors = BTreeMap::from([(selector, SubsetFallback::None)]);
            Arc::make_mut(&mut cart).subsets = Subsets { selectors, default: Labels::new() };
            Resource::Service(cart)
        };
        let wanting = |names: &[&str]| {
            let rules = [("/a", "cart"), ("/b", "cart")];
            let Resource::Route(mut shop) = route("shop", &["edge/web"], &["*"], &rules) else { panic!("a route") };
            let Action::Forward(forward) = &mut Arc::make_mut(&mut shop).rules[1].action else {
                panic!("to a service")
            };
            forward.to[0].subset = labels(names);
            Resource::Route(shop)
        };
        let loaded =
            |cart, shop| Catalog::load([fleet("edge"), listener("web", "edge", "0.0.0.0", 80), cart, shop].map(entry));
        let put = |resource: Resource| vec![(resource.key(), Some(entry(resource)))];
        let said = |result: Result<Catalog, Vec<crate::model::Problem>>| {
            result.err().into_iter().flatten().map(|problem| problem.to_string()).collect::<Vec<_>>()
        };
        for names in [&["stage"][..], &["stage", "version"]] {
            let told = names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(" and ");
            assert_eq!(
                said(loaded(with(&["version"]), wanting(names))),
                [format!("Route/shop: spec.rules[1].to[0].subset: is by {told}, by which Service/cart has no subsets")]
            );
        }
        let good = loaded(with(&["version", "stage"]), wanting(&["stage", "version"])).unwrap();
        assert_eq!(
            said(good.apply(put(with(&["version"])))),
            ["Service/cart: spec.subsets: lacks one that is used by Route/shop"]
        );
        assert!(good.apply([put(with(&["version"])), put(wanting(&[]))].concat()).is_ok());

        let keeping_sessions = || {
            let Resource::Service(mut cart) = with(&["version"]) else { panic!("a service") };
            Arc::make_mut(&mut cart).session_affinity = Some(SessionAffinity::Header("x-session".into()));
            Resource::Service(cart)
        };
        let why = "a session stays at its endpoint, whatever labels that has";
        assert_eq!(
            said(loaded(keeping_sessions(), wanting(&["version"]))),
            [format!(
                "Route/shop: spec.rules[1].to[0].subset: does not go with sessionAffinity of Service/cart: {why}"
            )]
        );
        let good = loaded(with(&["version"]), wanting(&["version"])).unwrap();
        assert_eq!(
            said(good.apply(put(keeping_sessions()))),
            [format!("Service/cart: spec.sessionAffinity: does not go with subsets, as Route/shop has them: {why}")]
        );
        assert!(loaded(keeping_sessions(), wanting(&[])).is_ok());
    }
}
