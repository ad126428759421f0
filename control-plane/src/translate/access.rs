//! Who may send requests, as Envoy's filter for access by roles takes it: twice on a chain, for the listener and for its rules, since
//! what a route tells a filter takes the place of what the listener has told it.

use chancery_proto::{
    any,
    envoy::{
        core::{CidrRange, TypedExtensionConfig},
        hcm::HttpFilter,
        mtls_authenticated,
        rbac::{
            Permission, Policy, Principal, Rbac as Rules, permission,
            principal::{Identifier, Set},
            rbac::Action,
        },
        rbac_filter::{Rbac, RbacPerRoute},
    },
    google::protobuf::Any,
};

use super::{
    filter::{always, off, on},
    route::header,
    tls::matcher,
    value::number,
};
use crate::model::{
    access::{Access, Caller, Network},
    service::tls::Peer,
};

/// The filter of rules, by the name that routes use.
const OF_RULE: &str = "chancery.access.rule";

const OF_LISTENER: &str = "chancery.access.listener";

/// The filter on every listener.
pub(super) fn filter() -> HttpFilter {
    off(OF_RULE, any::pack_typed(&Rbac::default()))
}

/// The filter on a listener that says who may.
pub(super) fn of_listener(access: &Access) -> HttpFilter {
    always(OF_LISTENER, any::pack_typed(&rbac(access)))
}

/// What a rule tells its filter, by its name.
pub(super) fn per_route(access: &Access) -> (String, Any) {
    on(OF_RULE, any::pack_typed(&RbacPerRoute { rbac: Some(rbac(access)) }))
}

/// One policy that says all: Envoy's filter either allows or denies.
fn rbac(access: &Access) -> Rbac {
    let Access { allow, deny } = access;
    let allowed = allow.iter().map(|callers| any_of(callers, caller));
    let denied = (!deny.is_empty()).then(|| principal(Identifier::NotId(any_of(deny, caller).into())));
    let policy = Policy {
        permissions: vec![Permission { rule: Some(permission::Rule::Any(true)) }],
        principals: vec![all_of(allowed.chain(denied).collect())],
        ..Policy::default()
    };
    let policies = [("access".to_owned(), policy)].into();
    Rbac { rules: Some(Rules { action: Action::Allow.into(), policies, ..Rules::default() }), ..Rbac::default() }
}

fn caller(caller: &Caller) -> Principal {
    let Caller { clients, networks, headers } = caller;
    let clients = (!clients.is_empty()).then(|| any_of(clients, client));
    let networks = (!networks.is_empty()).then(|| any_of(networks, network));
    let headers = headers.iter().map(|condition| principal(Identifier::Header(header(condition))));
    all_of(clients.into_iter().chain(networks).chain(headers).collect())
}

/// Who has shown a certificate that was verified, with this name in it.
fn client(peer: &Peer) -> Principal {
    let named =
        mtls_authenticated::Config { san_matcher: Some(matcher(peer)), ..mtls_authenticated::Config::default() };
    principal(Identifier::Custom(TypedExtensionConfig {
        name: "envoy.rbac.principals.mtls_authenticated".to_owned(),
        typed_config: Some(any::pack_typed(&named)),
    }))
}

/// Whose address, as the proxies in front that are trusted tell it, is in the network.
fn network(network: &Network) -> Principal {
    principal(Identifier::RemoteIp(range(network)))
}

pub(super) fn range(network: &Network) -> CidrRange {
    let Network { address, length } = network;
    CidrRange { address_prefix: address.to_string(), prefix_len: Some(number((*length).into())) }
}

fn any_of<T>(items: &[T], of: impl Fn(&T) -> Principal) -> Principal {
    match items {
        [one] => of(one),
        several => principal(Identifier::OrIds(Set { ids: several.iter().map(of).collect() })),
    }
}

fn all_of(mut parts: Vec<Principal>) -> Principal {
    match (parts.pop(), parts.is_empty()) {
        (Some(one), true) => one,
        (last, _) => principal(Identifier::AndIds(Set { ids: parts.into_iter().chain(last).collect() })),
    }
}

fn principal(identifier: Identifier) -> Principal {
    Principal { identifier: Some(identifier) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::route::{NamedMatch, ValueMatch},
        translate::{filter::told, testing::snapshot},
    };

    fn from(networks: &[(&str, u8)]) -> Caller {
        let network =
            |(address, length): &(&str, u8)| Network { address: address.parse().expect("an address"), length: *length };
        Caller { clients: vec![], networks: networks.iter().map(network).collect(), headers: vec![] }
    }

    #[test]
    fn whoever_is_allowed_and_not_denied_may() {
        let uri = |uri: &str| Peer::Uri(uri.into());
        let beta = NamedMatch { name: "x-beta".into(), value: ValueMatch::Exact("1".into()), invert: false };
        let office = Caller {
            clients: vec![uri("spiffe://a/b"), Peer::Dns("b.example.com".into())],
            headers: vec![beta],
            ..from(&[("10.0.0.0", 8)])
        };
        let admin = Caller { clients: vec![uri("spiffe://a/admin")], ..from(&[]) };
        let access = Access { allow: Some(vec![office, admin]), deny: vec![from(&[("10.1.0.0", 16), ("::1", 128)])] };
        insta::assert_snapshot!(snapshot(&rbac(&access)));
        let mut denied = access;
        denied.allow = None;
        insta::assert_snapshot!(snapshot(&rbac(&denied)));
        let told: RbacPerRoute = told(&per_route(&denied).1);
        assert_eq!(told.rbac, Some(rbac(&denied)));
    }

    #[test]
    fn a_client_is_who_its_certificate_names() {
        let Some(Identifier::Custom(custom)) = client(&Peer::Uri("spiffe://a/b".into())).identifier else {
            panic!("an extension")
        };
        let named: mtls_authenticated::Config = any::unpack(&custom.typed_config.expect("settings")).expect("a name");
        insta::assert_snapshot!(snapshot(&named));
    }
}
