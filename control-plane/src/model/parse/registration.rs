//! What the registrations of endpoints mean.

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;

use super::{
    service::{self, ip_address, subset},
    text,
};
use crate::model::{
    endpoint::{EndpointId, LEASES, RegisteredEndpoint},
    problem::{Problems, Quoted},
    wire::{DurationText, NamedRegistrationSpec, RegistrationSpec, RegistrationsSpec, Wire as _},
};

/// The lease of who asks for none in particular.
const DEFAULT_LEASE: Duration = Duration::from_secs(30);

/// How many endpoints one request may be about.
const MOST: usize = 5000;

/// An endpoint and how long it stays without being renewed.
pub type Registered = (RegisteredEndpoint, Duration);

/// What is to become of many endpoints of a service; each id stands in it once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Registrations {
    /// Those that are registered.
    pub register: Vec<(EndpointId, Registered)>,
    /// Those that are renewed.
    pub renew: Vec<EndpointId>,
    /// Those that are gone.
    pub deregister: Vec<EndpointId>,
}

/// The endpoint that `value` describes; `None` if `problems` now says why not.
pub fn registration(value: &Value, problems: &mut Problems) -> Option<Registered> {
    let RegistrationSpec { address, port, priority, weight, labels, zone, region, health, ttl } =
        RegistrationSpec::read(value, problems)?;
    let address = problems.at("address").ok(ip_address(&address));
    let ttl = lease(ttl.as_ref(), &mut problems.at("ttl"));
    let zone = service::zone(zone.as_deref(), region.as_deref(), problems);
    let labels = labels.map(|spec| subset::labels(&spec, &mut problems.at("labels"))).unwrap_or_default();
    let (priority, weight, health) = (priority.unwrap_or(0), weight.unwrap_or(1), health.unwrap_or_default());
    Some((RegisteredEndpoint { address: address?, port, priority, weight, labels, zone, health }, ttl?))
}

/// What `value` says of many endpoints; `None` if `problems` now says what is wrong with it.
pub fn registrations(value: &Value, problems: &mut Problems) -> Option<Registrations> {
    let RegistrationsSpec { register, renew, deregister } = RegistrationsSpec::read(value, problems)?;
    let before = problems.count();
    let mut seen = BTreeSet::new();
    let register = problems.at("register").each(register.unwrap_or_default(), |spec, problems| {
        let NamedRegistrationSpec { id, address, port, priority, weight, labels, zone, region, health, ttl } = spec;
        let id = endpoint_id(&id, &mut seen, &mut problems.at("id"));
        let address = problems.at("address").ok(ip_address(&address));
        let ttl = lease(ttl.as_ref(), &mut problems.at("ttl"));
        let zone = service::zone(zone.as_deref(), region.as_deref(), problems);
        let labels = labels.map(|spec| subset::labels(&spec, &mut problems.at("labels"))).unwrap_or_default();
        let (priority, weight, health) = (priority.unwrap_or(0), weight.unwrap_or(1), health.unwrap_or_default());
        Some((id?, (RegisteredEndpoint { address: address?, port, priority, weight, labels, zone, health }, ttl?)))
    });
    let mut ids = |given: Option<Vec<String>>, problems: &mut Problems| {
        problems.each(given.unwrap_or_default(), |id, problems| endpoint_id(&id, &mut seen, problems))
    };
    let renew = ids(renew, &mut problems.at("renew"));
    let deregister = ids(deregister, &mut problems.at("deregister"));
    if seen.len() > MOST {
        problems.report(format!("is about {} endpoints; one request may be about {MOST}", seen.len()));
    }
    let read = Registrations { register: register?, renew: renew?, deregister: deregister? };
    (problems.count() == before).then_some(read)
}

fn endpoint_id(text: &str, seen: &mut BTreeSet<EndpointId>, problems: &mut Problems) -> Option<EndpointId> {
    let id: EndpointId = problems.ok(text.parse())?;
    if !seen.insert(id.clone()) {
        problems.report(format!("{} stands twice in one request", Quoted(text)));
    }
    Some(id)
}

fn lease(given: Option<&DurationText>, problems: &mut Problems) -> Option<Duration> {
    let Some(given) = given else { return Some(DEFAULT_LEASE) };
    let lease = problems.ok(text::duration(given, *LEASES.end()))?;
    if lease < *LEASES.start() {
        problems.report(format!("must be between 1s and 10m, not {}", Quoted(&given.0)));
        return None;
    }
    Some(lease)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::endpoint::Health;

    fn refused(value: &Value) -> Vec<String> {
        let mut problems = Problems::default();
        assert_eq!(registrations(value, &mut problems), None);
        problems.into_vec().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let read = registration(&json!({ "address": "10.0.0.7", "port": 80 }), &mut Problems::default());
        let endpoint = RegisteredEndpoint {
            address: "10.0.0.7".parse().expect("an address"),
            port: 80,
            priority: 0,
            weight: 1,
            labels: Default::default(),
            zone: None,
            health: Health::Healthy,
        };
        assert_eq!(read, Some((endpoint, Duration::from_secs(30))));
    }

    #[test]
    fn every_problem_of_many_is_told_at_once() {
        let told = refused(&json!({
            "register": [
                { "id": "a", "address": "10.0.0.7", "port": 80, "ttl": "999ms" },
                { "id": "b/c", "address": "0.0.0.0", "port": 80, "ttl": "11m" },
            ],
            "renew": ["d", "a"],
        }));
        assert_eq!(
            told,
            [
                "register[0].ttl: must be between 1s and 10m, not \"999ms\"",
                "register[1].id: must have 1 to 128 characters of A-Z, a-z, 0-9, '.', '_', ':' and '-'",
                "register[1].address: 0.0.0.0 is not the address of one machine",
                "register[1].ttl: must be between 1ms and 10m, not \"11m\"",
                "renew[1]: \"a\" stands twice in one request",
            ]
        );
        let told = refused(&json!({ "register": [{ "id": "a", "address": "10.0.0.7", "port": 0, "weight": 129 }] }));
        assert_eq!(told.len(), 2, "{told:?}");
    }

    #[test]
    fn one_request_is_about_a_bounded_number() {
        let ids = |from: usize| (from..from + 3000).map(|n| format!("e{n}")).collect::<Vec<_>>();
        let told = refused(&json!({ "renew": ids(0), "deregister": ids(3000) }));
        assert_eq!(told, ["is about 6000 endpoints; one request may be about 5000"]);
    }
}
