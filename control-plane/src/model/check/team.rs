//! Whether what a team has is within what it may have. A name that no `Team` has binds nobody.

use std::collections::{BTreeMap, BTreeSet};

use super::list;
use crate::model::{Catalog, Key, Kind, Name, Problems, Resource, route::Route, team::Team};

/// The hosts of a route are those of its team.
pub(super) fn hosts_of(next: &Catalog, unread: &BTreeSet<Key>, route: &Key, hosts: &Route, problems: &mut Problems) {
    let Some(team) = team_of(next, route).filter(|team| !unread.contains(&key(team))) else { return };
    for (index, host) in hosts.hosts.iter().enumerate() {
        if !team.may_claim(host) {
            problems.index(index).report(format!("is {host}, which {} may not claim", key(team)));
        }
    }
}

/// What a team has already is within what it may have now; routes that are part of the change report it themselves.
pub(super) fn put(next: &Catalog, changed: &BTreeSet<Key>, team: &Team, problems: &mut Problems) {
    let outside = |key: &&Key| {
        let route = if key.kind == Kind::Route { next.route(&key.name) } else { None };
        route.is_some_and(|route| route.hosts.iter().any(|host| !team.may_claim(host)))
    };
    let routes = next.owned_by(&team.name).filter(|key| !changed.contains(*key)).filter(outside);
    let routes: Vec<Key> = routes.cloned().collect();
    if !routes.is_empty() {
        problems.at("hosts").report(format!("do not cover what is claimed by {}", list(&routes)));
    }
}

/// No team that the change touches has more than it may. Of a change that adds too much, the first resource says so; of one that
/// only lowers the quota, the team.
pub(super) fn quotas(next: &Catalog, changed: &BTreeSet<Key>, problems: &mut Problems) {
    // By team and kind, the first resource that the change puts.
    let mut put: BTreeMap<(&Name, Kind), &Key> = BTreeMap::new();
    let mut teams: BTreeSet<&Name> = BTreeSet::new();
    for key in changed {
        let Some(entry) = next.entry(key) else { continue };
        if let Resource::Team(team) = &entry.resource {
            teams.insert(&team.name);
        }
        if let Some(team) = entry.document.team.as_ref().filter(|team| next.team(team).is_some()) {
            put.entry((team, key.kind)).or_insert(key);
            teams.insert(team);
        }
    }
    for team in teams.into_iter().filter_map(|team| next.team(team)) {
        for (kind, field) in [(Kind::Route, "routes"), (Kind::Service, "services"), (Kind::RateLimit, "rateLimits")] {
            let count = || next.owned_by(&team.name).filter(|key| key.kind == kind).count();
            within(team, (field, team.quotas.of(kind)), count, put.get(&(&team.name, kind)), problems);
        }
        let count = || {
            let routes = next.owned_by(&team.name).filter(|key| key.kind == Kind::Route);
            routes.filter_map(|key| next.route(&key.name)).map(|route| route.rules.len()).sum()
        };
        within(team, ("rules", team.quotas.rules), count, put.get(&(&team.name, Kind::Route)), problems);
    }
}

fn within(
    team: &Team,
    (field, quota): (&str, Option<usize>),
    count: impl FnOnce() -> usize,
    put: Option<&&Key>,
    problems: &mut Problems,
) {
    let Some(quota) = quota else { return };
    let count = count();
    if count <= quota {
        return;
    }
    match put {
        Some(key) => {
            let reason = format!("is {}, which would have {count} {field}; its quota is {quota}", team.name);
            problems.about(key.to_string()).at("team").report(reason);
        }
        None => {
            let reason = format!("is {quota}, but the team has {count}");
            problems.about(self::key(team).to_string()).at("spec").at("quotas").at(field).report(reason);
        }
    }
}

/// The team that a resource belongs to, if there is one of that name.
fn team_of<'a>(next: &'a Catalog, key: &Key) -> Option<&'a Team> {
    let team = next.entry(key)?.document.team.as_ref()?;
    next.team(team).map(AsRef::as_ref)
}

fn key(team: &Team) -> Key {
    Key::new(Kind::Team, team.name.clone())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{
        Entry, Problem,
        catalog::tests::{entry, entry_of, fleet, listener, route, service},
        route::HostPattern,
        team::Quotas,
    };

    fn team(hosts: &[&str], quotas: Quotas) -> Resource {
        let hosts = hosts.iter().map(|host| HostPattern::Suffix((*host).to_owned())).collect();
        Resource::Team(Arc::new(Team { name: "payments".parse().unwrap(), hosts, quotas }))
    }

    fn shop(name: &str, host: &str) -> Resource {
        route(name, &["edge/web"], &[&format!("{name}.pay.example.com"), host], &[("/", "cart"), ("/b", "cart")])
    }

    fn put(entry: Entry) -> (Key, Option<Entry>) {
        (entry.resource.key(), Some(entry))
    }

    fn ours(resource: Resource) -> (Key, Option<Entry>) {
        put(entry_of("payments", resource))
    }

    /// With a route of payments, which may be no team yet.
    fn catalog(team: Option<Resource>) -> Catalog {
        let shared = [fleet("edge"), listener("web", "edge", "0.0.0.0", 80)].map(entry);
        let owned = [service("cart"), shop("shop", "b.pay.example.com")].map(|owned| entry_of("payments", owned));
        Catalog::load(shared.into_iter().chain(owned).chain(team.map(entry))).unwrap()
    }

    fn refused(catalog: &Catalog, changes: Vec<(Key, Option<Entry>)>) -> Vec<String> {
        catalog.apply(changes).expect_err("accepted").iter().map(Problem::to_string).collect()
    }

    #[test]
    fn a_route_claims_hosts_of_its_team() {
        let free = catalog(None);
        assert!(free.apply(vec![ours(shop("other", "b.example.com"))]).is_ok(), "a name without a team binds nobody");
        let bound = catalog(Some(team(&["pay.example.com"], Quotas::default())));
        assert_eq!(
            refused(&bound, vec![ours(shop("shop", "b.example.com"))]),
            ["Route/shop: spec.hosts[1]: is b.example.com, which Team/payments may not claim"]
        );
        assert!(bound.apply(vec![put(entry(shop("other", "b.example.com")))]).is_ok(), "it is not theirs");
        assert!(bound.apply(vec![ours(shop("shop", "c.pay.example.com"))]).is_ok());
    }

    #[test]
    fn hosts_that_are_claimed_cannot_be_taken_away() {
        let before = catalog(None);
        let narrow = put(entry(team(&["b.pay.example.com"], Quotas::default())));
        assert_eq!(
            refused(&before, vec![narrow.clone()]),
            ["Team/payments: spec.hosts: do not cover what is claimed by Route/shop"]
        );
        // In one change, the route says it itself.
        assert_eq!(
            refused(&before, vec![narrow, ours(shop("shop", "c.b.pay.example.com"))]),
            ["Route/shop: spec.hosts[0]: is shop.pay.example.com, which Team/payments may not claim"]
        );
    }

    #[test]
    fn a_team_has_no_more_than_its_quotas() {
        let quotas = Quotas { routes: Some(2), rules: Some(5), services: Some(1), rate_limits: None };
        let bound = catalog(Some(team(&["example.com"], quotas)));
        assert!(bound.apply(vec![ours(shop("two", "c.example.com"))]).is_ok());
        assert_eq!(
            refused(&bound, vec![ours(shop("two", "c.example.com")), ours(shop("three", "d.example.com"))]),
            [
                "Route/three: team: is payments, which would have 3 routes; its quota is 2",
                "Route/three: team: is payments, which would have 6 rules; its quota is 5"
            ]
        );
        assert_eq!(
            refused(&bound, vec![ours(service("two"))]),
            ["Service/two: team: is payments, which would have 2 services; its quota is 1"]
        );
        let lower = Quotas { rules: Some(1), services: Some(0), ..quotas };
        assert_eq!(
            refused(&bound, vec![put(entry(team(&["example.com"], lower)))]),
            [
                "Team/payments: spec.quotas.rules: is 1, but the team has 2",
                "Team/payments: spec.quotas.services: is 0, but the team has 1"
            ]
        );
    }

    #[test]
    fn a_team_with_resources_stays() {
        let bound = catalog(Some(team(&["example.com"], Quotas::default())));
        let gone = (Key::new(Kind::Team, "payments".parse().unwrap()), None);
        assert_eq!(
            refused(&bound, vec![gone.clone()]),
            ["Team/payments: is deleted, but used by Service/cart, Route/shop"]
        );
        let freed = [service("cart"), shop("shop", "b.pay.example.com")].map(|owned| put(entry(owned)));
        assert!(bound.apply(freed.into_iter().chain([gone]).collect()).is_ok());
    }
}
