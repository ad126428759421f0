//! `--chaos`: a service with three endpoints, one of which fails, to see a breaker at work.
//!
//! Each endpoint is a demo upstream with a control port of its own, so that it can be healed and broken while everything runs.
//! The service and its route belong to the user like the rest of the demo; without the flag nobody serves there.

use std::net::SocketAddr;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};

use super::{FLEET, ports::Ports, seed};
use crate::demo::{Chaos, Faulty};

/// The service, and its route.
pub(super) const SERVICE: &str = "demo-chaos";

/// Who asks for this host is sent to it.
pub(super) const HOST: &str = "chaos.example.com";

/// What the last endpoint begins with: it answers everything with 503.
pub(super) const FAULTS: &str = r#"{"faults": {"error": 1}}"#;

/// An endpoint, for whoever wants to change its faults.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Endpoint {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    /// `PUT /chaos` switches its faults.
    pub(super) control: SocketAddr,
}

/// The endpoints; the last one is the one that fails.
pub(super) fn endpoints(ports: &Ports) -> Vec<Endpoint> {
    let endpoint = |(number, ports): (usize, &super::ports::ChaosPorts)| Endpoint {
        name: format!("{SERVICE}-{}", number + 1),
        address: ports.address,
        control: ports.control,
    };
    ports.chaos.iter().enumerate().map(endpoint).collect()
}

/// Starts them.
pub(super) async fn start(endpoints: &[Endpoint]) -> Result<Vec<Faulty>> {
    let mut running = Vec::new();
    for (number, endpoint) in endpoints.iter().enumerate() {
        let chaos = if number + 1 == endpoints.len() { FAULTS.parse()? } else { Chaos::default() };
        running.push(Faulty::start(&endpoint.name, &[endpoint.address], endpoint.control, chaos).await?);
    }
    Ok(running)
}

/// The service and its route. Callers do not notice one endpoint that fails, since failures are tried again elsewhere; and a
/// breaker that stays open for no more than eight seconds is one whose way can be watched.
pub(super) fn resources(ports: &Ports) -> [Value; 2] {
    let endpoints: Vec<Value> = ports
        .chaos
        .iter()
        .map(|ports| json!({ "address": ports.address.ip().to_string(), "port": ports.address.port() }))
        .collect();
    [
        seed::resource(
            "Service",
            SERVICE,
            json!({
                "endpoints": endpoints,
                "connectTimeout": "1s",
                "breaker": { "consecutiveFailures": 2, "openFor": "5s", "openForMost": "5s" },
            }),
        ),
        seed::resource(
            "Route",
            SERVICE,
            json!({
                "listeners": [format!("{FLEET}/web")],
                "hosts": [HOST],
                "rules": [{
                    "match": { "path": { "prefix": "/" } },
                    "to": [{ "service": SERVICE }],
                    "timeout": "5s",
                    "retry": { "on": ["5xx", "reset", "connect-failure"], "attempts": 2 },
                }],
            }),
        ),
    ]
}
