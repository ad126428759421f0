//! `TcpProxy`, and what the listener around it must not say.
//!
//! Of a connection whose bytes are nobody's business nothing is known but where it was made. So a filter chain that is for some
//! connections only is refused, and so is a filter that could send bytes elsewhere, or change them.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use chancery_proto::{
    any,
    envoy::{
        core::{address, socket_address::PortSpecifier},
        listener::{FilterChain, FilterChainMatch, Listener, filter::ConfigType},
        tcp_proxy::{self, tcp_proxy::ClusterSpecifier},
    },
    google::protobuf::Any,
    type_url::message_name,
};

use super::{Problems, value};
use crate::config::tcp::{IDLE, TcpProxy};

/// The filter that carries TCP.
pub(super) const PROXY: &str = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";

/// Filters that only watch, or say who may connect and how often: without them, bytes still go where they are meant to go.
const PASSED_OVER: [&str; 7] = [
    "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit",
    "envoy.extensions.filters.network.ext_authz.v3.ExtAuthz",
    "envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit",
    "envoy.extensions.filters.network.mongo_proxy.v3.MongoProxy",
    "envoy.extensions.filters.network.ratelimit.v3.RateLimit",
    "envoy.extensions.filters.network.rbac.v3.RBAC",
    "envoy.extensions.filters.network.zookeeper_proxy.v3.ZooKeeperProxy",
];

/// Notes what would have some connections go another way than through `chain`, or other bytes than come.
pub(super) fn alone(problems: &mut Problems, listener: &Listener, path: &str, chain: &FilterChain) {
    const SOME: &str = "is for some connections only, and which these are is not told apart for TCP";
    if listener.filter_chains.len() > 1 {
        problems.add("filter_chains[1]", SOME);
    }
    if !listener.filter_chains.is_empty() && listener.default_filter_chain.is_some() {
        problems.add("default_filter_chain", SOME);
    }
    if chain.filter_chain_match.as_ref().is_some_and(|conditions| *conditions != FilterChainMatch::default()) {
        problems.add(format!("{path}.filter_chain_match"), SOME);
    }
    if listener.filter_chain_matcher.is_some() {
        problems.add("filter_chain_matcher", SOME);
    }
    if listener.fcds_config.is_some() {
        problems.add("fcds_config", "filter chains that come by themselves are not known here");
    }
    if listener.use_original_dst.is_some_and(|used| used.value) {
        problems.add("use_original_dst", "needs connections that were redirected here, and they are not");
    }
    let before = chain.filters.len().saturating_sub(1);
    for (f, filter) in chain.filters.iter().take(before).enumerate() {
        let name = match &filter.config_type {
            Some(ConfigType::TypedConfig(config)) => message_name(&config.type_url),
            _ => "",
        };
        if !PASSED_OVER.contains(&name) {
            let reason = "is a filter that could change bytes, or where they go";
            problems.add(format!("{path}.filters[{f}]"), reason);
        }
    }
}

/// Reads the filter.
pub(super) fn proxy(problems: &mut Problems, path: &str, listener: &Listener, config: &Any) -> Option<TcpProxy> {
    let proxy: tcp_proxy::TcpProxy = any::unpack(config).map_err(|error| problems.add(path, error.to_string())).ok()?;
    if proxy.tunneling_config.is_some() {
        problems.add(format!("{path}.tunneling_config"), "bytes are sent as they are, and not within HTTP");
    }
    if proxy.metadata_match.is_some() {
        problems.add(format!("{path}.metadata_match"), "parts of a cluster are not told apart here");
    }
    let idle = value::duration_at(problems, &format!("{path}.idle_timeout"), proxy.idle_timeout.as_ref());
    let connect_attempts = proxy.max_connect_attempts.as_ref().map_or(1, |attempts| attempts.value);
    if connect_attempts == 0 {
        problems.add(format!("{path}.max_connect_attempts"), "has to be one at least");
    }
    Some(TcpProxy {
        address: address(listener),
        clusters: clusters(problems, path, proxy.cluster_specifier)?,
        idle_timeout: Some(idle.unwrap_or(IDLE)).filter(|idle| !idle.is_zero()),
        connect_attempts,
    })
}

fn clusters(problems: &mut Problems, path: &str, named: Option<ClusterSpecifier>) -> Option<Vec<(Arc<str>, u32)>> {
    match named {
        Some(ClusterSpecifier::Cluster(name)) => Some(vec![(name.into(), 1)]),
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            let path = format!("{path}.weighted_clusters");
            for (c, _) in weighted.clusters.iter().enumerate().filter(|(_, one)| one.metadata_match.is_some()) {
                let path = format!("{path}.clusters[{c}].metadata_match");
                problems.add(path, "parts of a cluster are not told apart here");
            }
            if weighted.clusters.iter().all(|one| one.weight == 0) {
                problems.add(path, "gives every cluster a weight of zero");
                return None;
            }
            Some(weighted.clusters.into_iter().map(|one| (one.name.into(), one.weight)).collect())
        }
        None => {
            problems.add(path, "has to name clusters");
            None
        }
    }
}

/// Where the application connects: at the listener's own address if nobody from elsewhere reaches that, and otherwise at its port.
fn address(listener: &Listener) -> Option<SocketAddr> {
    let Some(address::Address::SocketAddress(socket)) = listener.address.as_ref()?.address.as_ref() else {
        return None;
    };
    let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else { return None };
    let port = u16::try_from(port).ok().filter(|port| *port > 0 && socket.protocol == 0)?;
    let own = socket.address.parse().ok().filter(IpAddr::is_loopback);
    Some((own.unwrap_or(Ipv4Addr::LOCALHOST.into()), port).into())
}

#[cfg(test)]
mod tests;
