//! A listener with its routes, if it is an HTTP listener that Chancery would run in the same way.

mod logs;
mod tcp;

use std::collections::BTreeMap;

use chancery_proto::type_url;
use serde_json::{Value, json};

use super::{
    covered::uncovered,
    filters,
    message::{duration, items, shown, text},
    rule,
};
use crate::{
    import::draft,
    model::{Kind, Resource, fleet::Fleet, listener::Listener, route::HostPattern},
    translate,
};

/// The filter that speaks HTTP.
const HTTP: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

/// A listener and its routes, before they have names of their own.
#[derive(Debug)]
pub(super) struct Converted {
    /// Its spec.
    pub(super) listener: Value,
    /// Its routes.
    pub(super) routes: Vec<Hosts>,
}

/// What a route may be called, its hosts, and what of its spec is not said by them: its rules, or where connections are carried.
pub(super) type Hosts = (String, Vec<String>, Value);

/// The clusters that a listener sends to by routes of its own.
pub(super) fn clusters(listener: &Value) -> Vec<&str> {
    let filters = || items(listener, "/filter_chains").iter().flat_map(|chain| items(chain, "/filters"));
    let hosts = filters().flat_map(|filter| items(filter, "/typed_config/route_config/virtual_hosts"));
    let asked = hosts.flat_map(|host| items(host, "/routes")).flat_map(rule::clusters);
    asked.chain(filters().flat_map(tcp::clusters)).collect()
}

/// What says all that `listener` says; or the paths of what nothing says.
pub(super) fn converted(
    listener: &Value,
    fleet: &Fleet,
    service: &impl Fn(&str) -> Option<String>,
) -> Result<Converted, Vec<String>> {
    const FILTER: &str = "filter_chains[0].filters[0].typed_config";
    let only = |path: &str| Err(vec![path.to_owned()]);
    if tcp::carries(listener) {
        return tcp::converted(listener, fleet, service);
    }
    let [chain] = items(listener, "/filter_chains") else { return only("filter_chains") };
    let [filter] = items(chain, "/filters") else { return only("filter_chains[0].filters") };
    if text(filter, "/typed_config/@type") != Some(HTTP) {
        return only("filter_chains[0].filters[0]");
    }
    let Some(routes) = filter.pointer("/typed_config/route_config") else {
        return only(&format!("{FILTER}.route_config"));
    };
    let context = chain.pointer("/transport_socket/typed_config");
    let certificate = context.and_then(|context| {
        let certificate = context.pointer("/common_tls_context/tls_certificates/0")?;
        Some(json!({
            "certificateFile": certificate["certificate_chain"]["filename"],
            "privateKeyFile": certificate["private_key"]["filename"],
            "clients": clients(context),
        }))
    });
    let manager = &filter["typed_config"];
    let spec = draft::dense(json!({
        "fleet": fleet.name.as_str(),
        "address": listener.pointer("/address/socket_address/address"),
        "port": listener.pointer("/address/socket_address/port_value"),
        "protocol": if certificate.is_some() { "https" } else { "http" },
        "tls": certificate,
        "proxyProtocol": has_proxy_protocol(listener).then_some(true),
        "timeouts": draft::given(timeouts(manager)),
        "accessLogs": logs::access_logs(manager),
    }));
    let spec = draft::without_refused(Kind::Listener, spec);
    let Some(Resource::Listener(parsed)) = draft::resource(&draft::document(Kind::Listener, "a", None, spec.clone()))
    else {
        return only("address");
    };
    let made = shown(type_url::LISTENER, &translate::listener::listener(&parsed, fleet));
    let mut source = listener.clone();
    if let Some(fields) = source.pointer_mut("/filter_chains/0/filters/0/typed_config").and_then(Value::as_object_mut) {
        fields.remove("route_config");
    }
    let mut missing = uncovered(&source, &made, &["name", "stat_prefix"]);
    let mut by_rules: BTreeMap<String, usize> = BTreeMap::new();
    let mut converted = Converted { listener: spec, routes: Vec::new() };
    for (name, _) in routes.as_object().into_iter().flatten() {
        if !["name", "virtual_hosts", "ignore_port_in_host_matching", "validate_clusters"].contains(&name.as_str()) {
            missing.push(format!("{FILTER}.route_config.{name}"));
        }
    }
    for (index, host) in items(routes, "/virtual_hosts").iter().enumerate() {
        let path = format!("{FILTER}.route_config.virtual_hosts[{index}]");
        match virtual_host(host, &parsed, fleet, service) {
            Err(paths) => missing.extend(paths.into_iter().map(|missing| format!("{path}.{missing}"))),
            // Nothing is for such a host, here or there.
            Ok((_, _, route)) if items(&route, "/rules").is_empty() => {}
            Ok((name, hosts, route)) => {
                let key = route.to_string();
                let at = *by_rules.entry(key).or_insert(converted.routes.len());
                match converted.routes.get_mut(at) {
                    Some((_, known, _)) => known.extend(hosts),
                    None => converted.routes.push((name, hosts, route)),
                }
            }
        }
    }
    if missing.is_empty() { Ok(converted) } else { Err(missing) }
}

/// Whether connections begin with who the client is.
fn has_proxy_protocol(listener: &Value) -> bool {
    let filters = items(listener, "/listener_filters").iter().filter_map(|filter| text(filter, "/typed_config/@type"));
    filters.into_iter().any(|url| url.ends_with(".proxy_protocol.v3.ProxyProtocol"))
}

/// What clients prove of themselves, if they are asked.
fn clients(context: &Value) -> Option<Value> {
    let trusted = context.pointer("/common_tls_context/validation_context/trusted_ca")?;
    let required = context["require_client_certificate"] == true;
    Some(json!({
        "trustedCa": { "file": trusted["filename"], "pem": trusted["inline_string"] },
        "required": (!required).then_some(false),
    }))
}

/// How long clients may take. Without end is no time of ours, so that is found missing.
fn timeouts(manager: &Value) -> Value {
    let time = |pointer: &str| duration(manager, pointer).filter(|time| time != "0s");
    json!({
        "requestHeaders": time("/request_headers_timeout"),
        "request": time("/request_timeout"),
        "streamIdle": time("/stream_idle_timeout"),
        "connectionIdle": time("/common_http_protocol_options/idle_timeout"),
        "maxConnection": time("/common_http_protocol_options/max_connection_duration"),
    })
}

fn virtual_host(
    host: &Value,
    listener: &Listener,
    fleet: &Fleet,
    service: &impl Fn(&str) -> Option<String>,
) -> Result<Hosts, Vec<String>> {
    let domains: Vec<String> =
        items(host, "/domains").iter().filter_map(Value::as_str).map(str::to_ascii_lowercase).collect();
    if let Some(index) = domains.iter().position(|domain| draft::refusal_of_host(domain).is_some()) {
        return Err(vec![format!("domains[{index}]")]);
    }
    let (mut rules, mut routes) = (Vec::new(), Vec::new());
    for (index, route) in items(host, "/routes").iter().enumerate() {
        match rule::rule(route, service).filter(|rule| draft::refusals_of_rule(rule).is_empty()) {
            Some(rule) => rules.push(rule),
            None => return Err(vec![format!("routes[{index}]")]),
        }
        routes.push(in_our_words(route, service));
    }
    let name = text(host, "/routes/0/name").and_then(|name| name.split_once('/')).map(|(route, _)| route);
    let name = name.or(text(host, "/name")).unwrap_or("routes").to_owned();
    if rules.is_empty() {
        return Ok((name, domains, json!({ "rules": rules })));
    }
    let own = json!({ "rules": rules.clone() });
    let spec = json!({ "listeners": [format!("{}/{}", fleet.name, listener.name)], "hosts": ["*"], "rules": rules });
    let Some(Resource::Route(route)) = draft::resource(&draft::document(Kind::Route, "a", None, spec)) else {
        return Err(vec!["routes".to_owned()]);
    };
    let made = translate::route::virtual_host(
        &listener.name,
        &HostPattern::Any,
        [&*route],
        &translate::route::References::default(),
        fleet,
    );
    let mut made = shown(type_url::VIRTUAL_HOST, &made);
    // Of a rule that pages of other origins may use, ours are two routes.
    if let Some(routes) = made.get_mut("routes").and_then(Value::as_array_mut) {
        routes.retain(|route| !is_for_preflights(route));
    }
    let mut source = host.clone();
    source["routes"] = Value::from(routes);
    if let Some(fields) = source.as_object_mut() {
        fields.remove("domains");
    }
    let mut missing = uncovered(&source, &made, &["name"]);
    for (index, (source, made)) in items(&source, "/routes").iter().zip(items(&made, "/routes")).enumerate() {
        // A condition more or less is another rule.
        if source["match"] != made["match"] {
            missing.push(format!("routes[{index}].match"));
        }
    }
    if missing.is_empty() { Ok((name, domains, own)) } else { Err(missing) }
}

/// Whether a route of ours is for what browsers ask before they send requests of a rule.
fn is_for_preflights(route: &Value) -> bool {
    let headers = items(route, "/match/headers");
    headers.iter().any(|header| text(header, "/name") == Some("access-control-request-method"))
}

/// A route as we would have said it, with clusters called by the names of services.
fn in_our_words(route: &Value, service: &impl Fn(&str) -> Option<String>) -> Value {
    let mut route = route.clone();
    if let Some(redirect) = route.get_mut("redirect").and_then(Value::as_object_mut)
        && redirect.remove("https_redirect") == Some(Value::Bool(true))
    {
        redirect.insert("scheme_redirect".to_owned(), "https".into());
    }
    // Those of a weighted choice are names, which are not compared.
    for pointer in ["/route/cluster", "/route/request_mirror_policies/0/cluster"] {
        if let Some(cluster) = route.pointer_mut(pointer)
            && let Some(name) = cluster.as_str().and_then(service)
        {
            *cluster = name.into();
        }
    }
    filters::in_our_words(&mut route);
    route
}
