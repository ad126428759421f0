//! A catalog of any size, for whatever measures what its size costs.

use anyhow::Result;
use chancery_e2e::{
    api::Api,
    document::{resource, service},
};
use serde_json::{Value, json};

/// How many resources go into one write while a catalog is set up.
const BATCH: usize = 500;

/// Edits wander over the whole catalog, so that none profits from its place in it.
pub(crate) fn pick(edit: usize, routes: usize) -> usize {
    (edit * 7919) % routes
}

/// The host of a route.
pub(crate) fn host(number: usize) -> String {
    format!("r{number}.example.com")
}

/// A route on `edge/web` with three rules, to one of so many services; `body` is what `/version` answers.
pub(crate) fn route(number: usize, services: usize, body: &str) -> Value {
    let name = format!("r{number}");
    let spec = json!({
        "listeners": ["edge/web"],
        "hosts": [host(number)],
        "rules": [
            { "match": { "path": { "exact": "/version" } }, "respond": { "status": 200, "body": body } },
            { "match": { "path": { "prefix": "/api" }, "methods": ["GET", "POST"] },
              "to": [{ "service": format!("s{}", number % services) }], "timeout": "2s" },
            { "match": { "path": { "prefix": "/" } }, "to": [{ "service": format!("s{}", number % services) }] },
        ],
    });
    resource("Route", &name, spec)
}

/// Adds so many routes and services to a catalog that has the listener.
pub(crate) async fn configure(api: &Api, routes: usize, services: usize) -> Result<()> {
    // Nobody requests from these; an address that refuses connections at once is enough.
    let nowhere = [([127, 0, 0, 1], 9).into()];
    let all: Vec<Value> = (0..services)
        .map(|number| service(&format!("s{number}"), &nowhere))
        .chain((0..routes).map(|number| route(number, services, "start")))
        .collect();
    for batch in all.chunks(BATCH) {
        api.apply(batch).await?;
    }
    Ok(())
}
