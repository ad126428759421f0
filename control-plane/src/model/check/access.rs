//! Who tells clients apart by certificates is served only where clients show them: elsewhere whom it allows may not, and whom it denies
//! may.

use std::collections::BTreeSet;

use super::list;
use crate::model::{Catalog, Key, Kind, Problems, listener::Listener, route::Route};

pub(super) fn put_route(next: &Catalog, route: &Route, problems: &mut Problems) {
    let nobody: Vec<Key> = route
        .listeners
        .iter()
        .filter_map(|place| next.listener(&place.listener))
        .filter(|listener| listener.clients.is_none())
        .map(|listener| Key::new(Kind::Listener, listener.name.clone()))
        .collect();
    if nobody.is_empty() {
        return;
    }
    for rule in rules(route) {
        let mut problems = problems.at("rules");
        let mut problems = problems.index(rule);
        let by = list(&nobody);
        problems.at("access").report(format!("tells clients apart by certificates, which {by} does not ask for"));
    }
}

/// Routes that are part of the change report it themselves.
pub(super) fn put_listener(next: &Catalog, changed: &BTreeSet<Key>, listener: &Listener, problems: &mut Problems) {
    if listener.clients.is_some() {
        return;
    }
    let tell_apart = |key: &Key| next.route(&key.name).is_some_and(|route| rules(route).next().is_some());
    let routes = next.routes_on(&listener.name).map(|name| Key::new(Kind::Route, name.clone()));
    let routes: Vec<Key> = routes.filter(|key| !changed.contains(key) && tell_apart(key)).collect();
    if !routes.is_empty() {
        let routes = list(&routes);
        problems.at("tls").at("clients").report(format!("is missing, but clients are told apart by {routes}"));
    }
}

/// The rules that tell clients apart by certificates.
fn rules(route: &Route) -> impl Iterator<Item = usize> {
    let by_certificate = route
        .forwards_by_rule()
        .filter(|(_, forward)| forward.access.as_ref().is_some_and(|access| access.names_clients()));
    by_certificate.map(|(rule, _)| rule)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{
        Resource,
        access::{Access, Caller},
        catalog::tests::{entry, fleet, listener, route, service},
        listener::Clients,
        route::Action,
        service::tls::{Authorities, Peer},
    };

    #[test]
    fn clients_are_told_apart_only_where_they_show_certificates() {
        let asking = |clients: Option<Clients>| {
            let Resource::Listener(mut web) = listener("web", "edge", "0.0.0.0", 80) else { panic!("a listener") };
            Arc::make_mut(&mut web).clients = clients;
            Resource::Listener(web)
        };
        let clients = || Some(Clients { authorities: Authorities::Mesh, required: true });
        let guarded = |clients: Vec<Peer>| {
            let rules = [("/a", "cart"), ("/b", "cart")];
            let Resource::Route(mut shop) = route("shop", &["edge/web"], &["*"], &rules) else { panic!("a route") };
            let Action::Forward(forward) = &mut Arc::make_mut(&mut shop).rules[1].action else {
                panic!("to a service")
            };
            let caller = Caller { clients, networks: vec![], headers: vec![] };
            forward.access = Some(Access { allow: None, deny: vec![caller] }.into());
            Resource::Route(shop)
        };
        let by_certificate = || guarded(vec![Peer::Dns("a".into())]);
        let loaded = |web, shop| Catalog::load([fleet("edge"), web, service("cart"), shop].map(entry));
        let put = |resource: Resource| vec![(resource.key(), Some(entry(resource)))];
        let said = |problems: Vec<crate::model::Problem>| problems.iter().map(ToString::to_string).collect::<Vec<_>>();

        let plain = loaded(asking(None), guarded(vec![])).unwrap();
        assert_eq!(
            said(plain.apply(put(by_certificate())).unwrap_err()),
            [
                "Route/shop: spec.rules[1].access: tells clients apart by certificates, which Listener/web does not ask for"
            ]
        );
        let asked = plain.apply(put(asking(clients()))).unwrap().apply(put(by_certificate())).unwrap();
        assert_eq!(
            said(asked.apply(put(asking(None))).unwrap_err()),
            ["Listener/web: spec.tls.clients: is missing, but clients are told apart by Route/shop"]
        );
        assert!(asked.apply([put(asking(None)), put(guarded(vec![]))].concat()).is_ok());
    }
}
