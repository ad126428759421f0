//! Resources as a user would write them, short enough to stand in a test.

use std::net::SocketAddr;

use serde_json::{Value, json};

/// A fleet with nothing but defaults.
pub fn fleet(name: &str) -> Value {
    resource("Fleet", name, json!({}))
}

/// An HTTP listener on the loopback interface.
pub fn listener(name: &str, fleet: &str, port: u16) -> Value {
    resource("Listener", name, json!({ "fleet": fleet, "address": "127.0.0.1", "port": port, "protocol": "http" }))
}

/// A service with these endpoints, and nothing but defaults.
pub fn service(name: &str, endpoints: &[SocketAddr]) -> Value {
    service_with(name, endpoints, json!({}))
}

/// A service with these endpoints; `more` is the rest of its spec.
pub fn service_with(name: &str, endpoints: &[SocketAddr], mut more: Value) -> Value {
    more["endpoints"] = endpoints.iter().map(|at| json!({ "address": at.ip(), "port": at.port() })).collect();
    resource("Service", name, more)
}

/// A service whose endpoint is a host name that the proxy resolves.
pub fn dns_service(name: &str, host: &str, port: u16) -> Value {
    resource("Service", name, json!({ "endpoints": [{ "address": host, "port": port, "dns": true }] }))
}

/// A route on `edge/web`.
pub fn route(name: &str, host: &str, rules: &Value) -> Value {
    resource("Route", name, json!({ "listeners": ["edge/web"], "hosts": [host], "rules": rules }))
}

/// A route on `edge/web` that sends everything to one service.
pub fn route_to(name: &str, host: &str, service: &str) -> Value {
    route(name, host, &json!([{ "match": { "path": { "prefix": "/" } }, "to": [{ "service": service }] }]))
}

/// A route on `edge/web` by which the proxy answers everything with `body`.
pub fn route_saying(name: &str, host: &str, body: &str) -> Value {
    let rules = json!([{ "match": { "path": { "prefix": "/" } }, "respond": { "status": 200, "body": body } }]);
    route(name, host, &rules)
}

/// Any resource.
#[expect(clippy::needless_pass_by_value, reason = "callers write json!(…) in place")]
pub fn resource(kind: &str, name: &str, spec: Value) -> Value {
    json!({ "kind": kind, "name": name, "spec": spec })
}
