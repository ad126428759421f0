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
use serde_json::Value;

use crate::{
    api::Api,
    document::{fleet as fleet_called, listener, route_to, service},
};

/// How many resources go into one write while a catalog is set up.
const BATCH: usize = 500;

/// The port of the endpoints that a catalog is filled with.
pub const PORT: u16 = 8080;

/// Service `number` of a catalog that was filled, with its endpoint at `port`.
pub fn filled(number: usize, port: u16) -> Value {
    service(&called(number), &[SocketAddr::from(([10, 0, 0, 1], port))])
}

/// How service `number` of such a catalog is called.
pub fn called(number: usize) -> String {
    format!("s{number}")
}

/// Fills a control plane: the fleet `edge` with the listener `web`, so many services `s0`, `s1` and so on with one
/// endpoint each, and so many routes, each of a host of its own, to them in turn.
pub async fn fill(api: &Api, services: usize, routes: usize) -> Result<()> {
    api.apply(&[fleet_called("edge"), listener("web", "edge", 10_000)]).await?;
    let route =
        |number: usize| route_to(&format!("r{number}"), &format!("r{number}.example.com"), &called(number % services));
    let all: Vec<_> = (0..services).map(|number| filled(number, PORT)).chain((0..routes).map(route)).collect();
    for batch in all.chunks(BATCH) {
        api.apply(batch).await?;
    }
    Ok(())
}
