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

/// A fleet that asks the limiters at these addresses, and waits for them; `more` is the rest of what it says about them.
#[expect(clippy::needless_pass_by_value, reason = "callers write json!(…) in place")]
pub fn fleet_asking(name: &str, limiters: &[SocketAddr], more: Value) -> Value {
    let addresses: Vec<String> = limiters.iter().map(ToString::to_string).collect();
    let mut limiter = json!({ "addresses": addresses, "timeout": "10s", "onFailure": "deny" });
    for (field, value) in more.as_object().into_iter().flatten() {
        limiter[field] = value.clone();
    }
    resource("Fleet", name, json!({ "rateLimiter": limiter }))
}

/// A limit by the header `x-api-key`; `more` is the rest of its spec.
pub fn limit_per_key(name: &str, requests: u32, per: &str, mut more: Value) -> Value {
    more["key"] = json!([{ "header": "x-api-key" }]);
    more["limit"]["requests"] = requests.into();
    more["limit"]["per"] = per.into();
    resource("RateLimit", name, more)
}

/// A route on `edge/web` to one service, within these limits.
pub fn limited_route(name: &str, host: &str, service: &str, limits: &[&str]) -> Value {
    route(name, host, &json!([{ "to": [{ "service": service }], "rateLimits": limits }]))
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
