//! Resources in Envoy's own JSON, and the patches that carry them.

use serde_json::{Value, json};

use crate::document::resource;

/// An `EnvoyPatch` of the fleet `edge`.
pub fn patch(name: &str, mut spec: Value) -> Value {
    spec["fleet"] = "edge".into();
    resource("EnvoyPatch", name, spec)
}

/// A message of Envoy's with its type, which is told without `envoy.` before it.
pub fn typed(name: &str, mut fields: Value) -> Value {
    fields["@type"] = format!("type.googleapis.com/envoy.{name}").into();
    fields
}

/// A listener as only Envoy's own JSON can describe it; it takes `routes` over RDS, and says `server` of itself.
pub fn listener(name: &str, port: u16, routes: &str, server: &str) -> Value {
    let mut manager = manager(name, routes);
    manager["server_name"] = server.into();
    let listener = json!({
        "name": name,
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } },
        "filter_chains": [{ "filters": [{ "name": "http", "typed_config": manager }] }],
    });
    typed("config.listener.v3.Listener", listener)
}

/// A connection manager called `name` that takes `routes` over RDS and routes, and nothing else.
pub fn manager(name: &str, routes: &str) -> Value {
    let router =
        json!({ "name": "router", "typed_config": typed("extensions.filters.http.router.v3.Router", json!({})) });
    let manager = json!({
        "stat_prefix": name,
        "rds": { "route_config_name": routes, "config_source": { "ads": {}, "resource_api_version": "V3" } },
        "http_filters": [router],
    });
    typed("extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", manager)
}

/// A RouteConfiguration of these virtual hosts.
pub fn routes(name: &str, hosts: &[Value]) -> Value {
    typed("config.route.v3.RouteConfiguration", json!({ "name": name, "virtual_hosts": hosts }))
}

/// A virtual host for every domain, which does with all requests what `action` says.
pub fn host(name: &str, action: &Value) -> Value {
    let mut route = json!({ "match": { "prefix": "/" } });
    for (field, value) in action.as_object().into_iter().flatten() {
        route[field] = value.clone();
    }
    json!({ "name": name, "domains": ["*"], "routes": [route] })
}

/// Answers with `body`, for [`host`].
pub fn saying(body: &str) -> Value {
    json!({ "direct_response": { "status": 200, "body": { "inline_string": body } } })
}
