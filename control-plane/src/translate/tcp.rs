//! A listener that carries connections as they are: one filter chain for each host that routes claim, which ends in Envoy's TCP proxy.
//!
//! Its routes are part of its message, for Envoy has no other way to learn of them. A chain for each host, and not for each route, so
//! that an edit closes what it has to: Envoy keeps the connections of a chain that is the same as before, and drains the others
//! (`ListenerImpl::supportUpdateFilterChain`). Nothing but chains may change for that, so a listener without a route is not there
//! at all, rather than being one with nothing to do.
//!
//! Which chain, Envoy knows by the name in the first bytes of TLS (SNI), which it reads and passes on: the name itself, else the
//! longest wildcard for it, else the chain for all. Who does not speak TLS where names are told apart meets none and is closed.

mod sources;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use chancery_proto::{
    any,
    envoy::{
        listener::{
            Filter, FilterChain, FilterChainMatch, Listener as EnvoyListener, ListenerFilter, filter, listener_filter,
        },
        tcp_proxy::{
            TcpProxy,
            tcp_proxy::{ClusterSpecifier, WeightedCluster, weighted_cluster::ClusterWeight},
        },
        tls_inspector::TlsInspector,
    },
    google::protobuf::Any,
};

use super::{
    access::range,
    listener::{CONNECTION_BUFFER, proxy_protocol_filter},
    route::virtual_host_name,
    value::{duration, number, socket_address},
};
use sources::{Sources, sources};

use crate::model::{
    Catalog,
    access::Network,
    listener::{Listener, ListenerProtocol},
    route::{HostPattern, Route, Target},
    tcp::Tcp,
};

/// How long a client may take to say whom it wants: whoever needs longer wants to tie up connections.
const FIRST_BYTES: Duration = Duration::from_secs(10);

/// What becomes of the connections for one host.
pub type Carried<'a> = (&'a HostPattern, &'a Arc<Route>);

/// The routes of `listener` by the hosts that they claim, in their order; none if it reads requests. `None` is a listener that
/// carries connections and has nobody to carry them to.
pub fn carried<'a>(listener: &Listener, catalog: &'a Catalog) -> Option<Vec<Carried<'a>>> {
    if listener.protocol.is_http() {
        return Some(Vec::new());
    }
    let of = |host| catalog.routes_claiming(&listener.name, host).find_map(|route| Some((host, catalog.route(route)?)));
    let carried: Vec<_> = catalog.hosts_on(&listener.name).filter_map(of).collect();
    (!carried.is_empty()).then_some(carried)
}

/// The listener with these routes, at least one.
pub fn listener(listener: &Listener, carried: &[Carried<'_>]) -> EnvoyListener {
    let Listener { name, address, port, proxy_protocol, protocol, .. } = listener;
    let tells_names = *protocol == ListenerProtocol::TlsPassthrough;
    let filters = proxy_protocol.then(proxy_protocol_filter).into_iter().chain(tells_names.then(tls_inspector));
    let chains = carried.iter().flat_map(|(host, route)| chains(listener, host, route));
    EnvoyListener {
        name: name.to_string(),
        address: Some(socket_address(address.to_string(), *port)),
        // Statistics go by name, not by address: the same on every proxy.
        stat_prefix: name.to_string(),
        per_connection_buffer_limit_bytes: Some(number(CONNECTION_BUFFER)),
        listener_filters: filters.collect(),
        listener_filters_timeout: Some(duration(FIRST_BYTES)),
        filter_chains: chains.collect(),
        ..EnvoyListener::default()
    }
}

/// Reads the name that a client asks for, and leaves it where it is.
fn tls_inspector() -> ListenerFilter {
    ListenerFilter {
        name: "envoy.filters.listener.tls_inspector".to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(any::pack_typed(&TlsInspector::default()))),
        ..ListenerFilter::default()
    }
}

/// The connections for `host`: those that are carried, and those that are closed because of whom they come from. None for a route that is
/// about requests.
fn chains(listener: &Listener, host: &HostPattern, route: &Route) -> Vec<FilterChain> {
    let Some(tcp) = &route.tcp else { return Vec::new() };
    let name = virtual_host_name(&listener.name, host);
    let proxy = || filter("envoy.filters.network.tcp_proxy", any::pack_typed(&proxy(listener, route, tcp)));
    let chain = |name: String, from: &BTreeSet<Network>, filters: Vec<Filter>| FilterChain {
        name,
        filter_chain_match: conditions(&listener.protocol, host, from),
        filters,
        ..FilterChain::default()
    };
    let everywhere = BTreeSet::new();
    match sources(listener.access.iter().chain(&tcp.access)) {
        None => vec![chain(name, &everywhere, vec![proxy()])],
        // Without a filter, Envoy closes connections. The host stays claimed, or a wildcard would have its connections.
        Some(Sources { allowed, .. }) if allowed.is_empty() => vec![chain(name, &everywhere, Vec::new())],
        Some(Sources { allowed, denied }) => {
            let refused = (!denied.is_empty()).then(|| chain(format!("{name} denied"), &denied, Vec::new()));
            [chain(name, &allowed, vec![proxy()])].into_iter().chain(refused).collect()
        }
    }
}

/// Which connections a chain is for; no networks are all.
fn conditions(protocol: &ListenerProtocol, host: &HostPattern, from: &BTreeSet<Network>) -> Option<FilterChainMatch> {
    let tells_names = *protocol == ListenerProtocol::TlsPassthrough;
    let conditions = FilterChainMatch {
        server_names: (tells_names && *host != HostPattern::Any).then(|| host.to_string()).into_iter().collect(),
        transport_protocol: if tells_names { "tls".to_owned() } else { String::new() },
        source_prefix_ranges: from.iter().map(range).collect(),
        ..FilterChainMatch::default()
    };
    (conditions != FilterChainMatch::default()).then_some(conditions)
}

fn filter(name: &str, settings: Any) -> Filter {
    Filter { name: name.to_owned(), config_type: Some(filter::ConfigType::TypedConfig(settings)) }
}

fn proxy(listener: &Listener, route: &Route, tcp: &Tcp) -> TcpProxy {
    let Tcp { to, access: _, idle_timeout, connect_attempts } = tcp;
    let timeouts = &listener.timeouts;
    TcpProxy {
        stat_prefix: route.name.to_string(),
        cluster_specifier: Some(cluster_specifier(to)),
        idle_timeout: Some(duration(idle_timeout.unwrap_or(timeouts.connection_idle))),
        max_connect_attempts: Some(number(*connect_attempts)),
        max_downstream_connection_duration: timeouts.max_connection.map(duration),
        ..TcpProxy::default()
    }
}

/// Envoy refuses a share of nothing, where routes about requests may have one.
fn cluster_specifier(to: &[Target]) -> ClusterSpecifier {
    let sharing: Vec<&Target> = to.iter().filter(|target| target.weight > 0).collect();
    if let [Target { service, subset: _, weight: _ }] = sharing[..] {
        return ClusterSpecifier::Cluster(service.to_string());
    }
    let weighted = |target: &&Target| ClusterWeight {
        name: target.service.to_string(),
        weight: target.weight,
        ..ClusterWeight::default()
    };
    ClusterSpecifier::WeightedClusters(WeightedCluster { clusters: sharing.iter().map(weighted).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{
            access::{Access, Caller},
            service::Labels,
        },
        translate::testing::{http_listener, name, route, snapshot},
    };

    fn to(targets: &[(&str, u32)]) -> Vec<Target> {
        targets
            .iter()
            .map(|(service, weight)| Target { service: name(service), subset: Labels::new(), weight: *weight })
            .collect()
    }

    fn tcp(targets: &[(&str, u32)]) -> Tcp {
        Tcp { to: to(targets), access: None, idle_timeout: None, connect_attempts: 1 }
    }

    fn carrying(text: &str, tcp: Tcp) -> Arc<Route> {
        Route { tcp: Some(tcp), ..route(text, Vec::new()) }.into()
    }

    fn speaking(protocol: ListenerProtocol) -> Listener {
        Listener { protocol, ..http_listener("db", "edge") }
    }

    fn callers(address: &str, length: u8) -> Vec<Caller> {
        let networks = vec![Network { address: address.parse().unwrap(), length }];
        vec![Caller { clients: vec![], networks, headers: vec![] }]
    }

    fn office() -> Access {
        Access { allow: Some(callers("10.0.0.0", 8)), deny: vec![] }
    }

    #[test]
    fn connections_that_name_no_host_have_one_chain() {
        let plain =
            listener(&speaking(ListenerProtocol::Tcp), &[(&HostPattern::Any, &carrying("db", tcp(&[("db", 1)])))]);
        insta::assert_snapshot!(snapshot(&plain));
    }

    #[test]
    fn each_name_has_a_chain() {
        let (one, two) =
            (carrying("one", tcp(&[("one", 1)])), carrying("two", tcp(&[("two", 3), ("old", 0), ("one", 1)])));
        let hosts =
            [HostPattern::Any, HostPattern::Suffix("example.com".into()), HostPattern::Exact("a.example.com".into())];
        let carried = [(&hosts[0], &one), (&hosts[1], &two), (&hosts[2], &one)];
        insta::assert_snapshot!(snapshot(&listener(&speaking(ListenerProtocol::TlsPassthrough), &carried)));
    }

    #[test]
    fn a_host_more_changes_no_chain_of_others() {
        let sni = speaking(ListenerProtocol::TlsPassthrough);
        let route = carrying("one", tcp(&[("one", 1)]));
        let (old, new) = (HostPattern::Exact("a.example.com".into()), HostPattern::Exact("b.example.com".into()));
        let (before, mut after) =
            (listener(&sni, &[(&old, &route)]), listener(&sni, &[(&old, &route), (&new, &route)]));
        assert_eq!(after.filter_chains.remove(1).name, "db/b.example.com");
        assert_eq!(before, after);
    }

    #[test]
    fn who_may_not_connect_meets_a_chain_that_carries_nothing() {
        let sni = Listener { access: Some(office()), ..speaking(ListenerProtocol::TlsPassthrough) };
        let but = Access { allow: None, deny: callers("10.1.0.0", 16) };
        let route = carrying("db", Tcp { access: Some(but), ..tcp(&[("db", 1)]) });
        let host = HostPattern::Exact("a.example.com".into());
        insta::assert_snapshot!(snapshot(&listener(&sni, &[(&host, &route)])));
        let nobody = Listener { access: Some(Access { allow: Some(callers("11.0.0.0", 8)), deny: vec![] }), ..sni };
        let elsewhere = carrying("db", Tcp { access: Some(office()), ..tcp(&[("db", 1)]) });
        let chains = listener(&nobody, &[(&host, &elsewhere)]).filter_chains;
        assert_eq!(chains.len(), 1);
        assert!(chains[0].filters.is_empty());
        assert_eq!(chains[0].filter_chain_match.as_ref().unwrap().server_names, ["a.example.com"]);
    }

    #[test]
    fn what_is_carried_to_several_is_shared_by_their_weights() {
        let of = |targets: &[(&str, u32)]| {
            proxy(&speaking(ListenerProtocol::Tcp), &carrying("db", tcp(targets)), &tcp(targets))
        };
        insta::assert_snapshot!(snapshot(&of(&[("two", 3), ("old", 0), ("one", 1)])));
        let only = Some(ClusterSpecifier::Cluster("two".into()));
        assert_eq!(of(&[("two", 3), ("old", 0)]).cluster_specifier, only);
    }

    #[test]
    fn times_are_those_of_the_route_before_those_of_the_listener() {
        let seconds = |seconds| Some(duration(Duration::from_secs(seconds)));
        let mut plain = speaking(ListenerProtocol::Tcp);
        (plain.timeouts.connection_idle, plain.timeouts.max_connection) =
            (Duration::from_secs(4), Some(Duration::from_secs(5)));
        let mut said = tcp(&[("db", 1)]);
        let times = |said: &Tcp| {
            let proxy = proxy(&plain, &carrying("db", said.clone()), said);
            (proxy.idle_timeout, proxy.max_downstream_connection_duration)
        };
        assert_eq!(times(&said), (seconds(4), seconds(5)));
        said.idle_timeout = Some(Duration::from_secs(3));
        assert_eq!(times(&said), (seconds(3), seconds(5)));
    }
}
