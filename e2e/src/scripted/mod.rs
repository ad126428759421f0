//! Scripted proxies: clients that speak delta xDS over mTLS as Envoy does, and apply nothing.
//!
//! Thousands of them fit on one machine, and what each says and reads is decided here. Those of a [`Fleet`] behave,
//! [`Keepers`](keeper::Keepers) come back with what they have, [`faults`](crate::faults) misbehave.

pub mod fleet;
pub mod keeper;
pub mod script;
pub mod stream;

pub use fleet::Fleet;

use std::net::SocketAddr;

use anyhow::Result;

use crate::{
    api::Api,
    document::{fleet as fleet_called, listener, route_to, service},
};

/// How many resources go into one write while a catalog is set up.
const BATCH: usize = 500;

/// Fills a control plane: the fleet `edge` with the listener `web`, so many services `s0`, `s1` and so on with one
/// endpoint each, and so many routes, each of a host of its own, to them in turn.
pub async fn fill(api: &Api, services: usize, routes: usize) -> Result<()> {
    api.apply(&[fleet_called("edge"), listener("web", "edge", 10_000)]).await?;
    let endpoint = SocketAddr::from(([10, 0, 0, 1], 8080));
    let names: Vec<String> = (0..services).map(|number| format!("s{number}")).collect();
    let services = names.iter().map(|name| service(name, &[endpoint]));
    let route = |number: usize| {
        route_to(&format!("r{number}"), &format!("r{number}.example.com"), &names[number % names.len()])
    };
    let all: Vec<_> = services.chain((0..routes).map(route)).collect();
    for batch in all.chunks(BATCH) {
        api.apply(batch).await?;
    }
    Ok(())
}
