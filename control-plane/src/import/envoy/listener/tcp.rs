//! A listener that carries connections as they are, if each of its chains does no more than that.
//!
//! A chain for several names becomes one for each of them, as ours are.

use std::sync::Arc;

use chancery_proto::type_url;
use serde_json::{Value, json};

use super::{
    super::{
        covered::uncovered,
        message::{duration, items, shown, text},
    },
    Converted, Hosts, has_proxy_protocol,
};
use crate::{
    import::draft,
    model::{
        Kind, Resource,
        fleet::Fleet,
        route::{HostPattern, Route},
    },
    translate,
};

/// The filter that carries.
const TCP: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";

/// What stands for every name.
const ANY: &str = "*";

/// Whether the chains of `listener` carry connections.
pub(super) fn carries(listener: &Value) -> bool {
    let chains = items(listener, "/filter_chains");
    !chains.is_empty() && chains.iter().all(|chain| text(chain, "/filters/0/typed_config/@type") == Some(TCP))
}

/// The clusters that a filter carries to.
pub(super) fn clusters(filter: &Value) -> impl Iterator<Item = &str> {
    let proxy = &filter["typed_config"];
    let weighted = items(proxy, "/weighted_clusters/clusters").iter().filter_map(|target| text(target, "/name"));
    text(proxy, "/cluster").filter(|_| text(proxy, "/@type") == Some(TCP)).into_iter().chain(weighted)
}

/// What says all that `listener` says; or the paths of what nothing says.
pub(super) fn converted(
    listener: &Value,
    fleet: &Fleet,
    service: &impl Fn(&str) -> Option<String>,
) -> Result<Converted, Vec<String>> {
    let only = |path: &str| Err(vec![path.to_owned()]);
    let chains: Vec<Value> = items(listener, "/filter_chains").iter().flat_map(by_name).collect();
    let tells_names = chains.len() > 1 || chains.iter().any(|chain| chain.get("filter_chain_match").is_some());
    let first = &chains[0]["filters"][0]["typed_config"];
    let spec = draft::dense(json!({
        "fleet": fleet.name.as_str(),
        "address": listener.pointer("/address/socket_address/address"),
        "port": listener.pointer("/address/socket_address/port_value"),
        "protocol": if tells_names { "tls-passthrough" } else { "tcp" },
        "proxyProtocol": has_proxy_protocol(listener).then_some(true),
        "timeouts": draft::given(json!({ "maxConnection": duration(first, "/max_downstream_connection_duration") })),
    }));
    let spec = draft::without_refused(Kind::Listener, spec);
    let Some(Resource::Listener(parsed)) = draft::resource(&draft::document(Kind::Listener, "a", None, spec.clone()))
    else {
        return only("address");
    };
    let mut source = listener.clone();
    let (mut routes, mut carried): (Vec<Hosts>, Vec<(HostPattern, Arc<Route>)>) = (Vec::new(), Vec::new());
    let mut own_words = Vec::new();
    for (index, mut chain) in chains.into_iter().enumerate() {
        let path = format!("filter_chains[{index}]");
        let name = text(&chain, "/filter_chain_match/server_names/0").unwrap_or(ANY).to_ascii_lowercase();
        // Without a name, ours is for whoever speaks TLS.
        if tells_names && name == ANY && text(&chain, "/filter_chain_match/transport_protocol") != Some("tls") {
            return only(&format!("{path}.filter_chain_match"));
        }
        let Some(tcp) = tcp(&chain["filters"][0]["typed_config"], service) else {
            return only(&format!("{path}.filters[0].typed_config"));
        };
        let own = draft::dense(json!({ "tcp": tcp }));
        let mut whole = own.clone();
        whole["listeners"] = json!([format!("{}/a", fleet.name)]);
        whole["hosts"] = json!([name]);
        let Some(Resource::Route(route)) = draft::resource(&draft::document(Kind::Route, "a", None, whole)) else {
            return only(&path);
        };
        if let Some(cluster) = chain.pointer_mut("/filters/0/typed_config/cluster")
            && let Some(called) = cluster.as_str().and_then(service)
        {
            *cluster = called.into();
        }
        carried.extend(route.hosts.first().cloned().map(|host| (host, route)));
        match routes.iter_mut().find(|(_, _, known)| *known == own) {
            Some((_, hosts, _)) => hosts.push(name),
            None => {
                let called = text(&chain, "/filters/0/typed_config/stat_prefix").unwrap_or(&name).to_owned();
                routes.push((called, vec![name], own));
            }
        }
        // Names have no case.
        if let Some(asked) = chain.pointer_mut("/filter_chain_match/server_names/0") {
            *asked = asked.as_str().unwrap_or_default().to_ascii_lowercase().into();
        }
        own_words.push(chain);
    }
    source["filter_chains"] = own_words.into();
    let carried: Vec<_> = carried.iter().map(|(host, route)| (host, route)).collect();
    let made = shown(type_url::LISTENER, &translate::tcp::listener(&parsed, &carried));
    match uncovered(&source, &made, &["name", "stat_prefix"]) {
        paths if paths.is_empty() => Ok(Converted { listener: spec, routes }),
        paths => Err(paths),
    }
}

/// A chain for each of the names of `chain`.
fn by_name(chain: &Value) -> Vec<Value> {
    let names = items(chain, "/filter_chain_match/server_names");
    if names.len() < 2 {
        return vec![chain.clone()];
    }
    let of = |name: &Value| {
        let mut chain = chain.clone();
        chain["filter_chain_match"]["server_names"] = json!([name]);
        chain
    };
    names.iter().map(of).collect()
}

/// Where `proxy` carries connections; `None` if to something that is no service.
fn tcp(proxy: &Value, service: &impl Fn(&str) -> Option<String>) -> Option<Value> {
    let mut to = Vec::new();
    if let Some(cluster) = text(proxy, "/cluster") {
        to.push(json!({ "service": service(cluster)? }));
    }
    for target in items(proxy, "/weighted_clusters/clusters") {
        to.push(json!({ "service": service(text(target, "/name")?)?, "weight": target["weight"] }));
    }
    Some(json!({
        "to": to,
        "idleTimeout": duration(proxy, "/idle_timeout"),
        "connectAttempts": proxy["max_connect_attempts"],
    }))
}
