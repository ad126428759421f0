//! The demo resources, written through the API as a user would write them.
//!
//! They are written once, into an empty catalog; after that they belong to the user. Only their
//! ports are kept in step with `--port-offset`, and only while they carry our label. What an older
//! `chancery dev` seeded gets once what has been added since: see [`upgrade`].

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Result, bail};
use chancery_control_plane::model::Kind;
use http::{Method, StatusCode};
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tracing::warn;

use super::{FLEET, SIDECAR, http::Http, ports::Ports, upgrade};
use crate::{
    client::{Call, Client},
    failure::Failure,
};

/// The label of what was seeded.
pub(super) const LABEL: (&str, &str) = ("created-by", "chancery-dev");

/// The limit of the demo, and the path that it is on.
pub(super) const LIMIT: &str = "demo-per-client";
pub(super) const LIMITED_PATH: &str = "/limited";

/// The service that the sidecar stands in front of.
pub(super) const BEHIND_SIDECAR: &str = "demo-a";

/// How long a request waits for the limiter: an unoptimized build answers its first question only after a handshake.
const LIMITER_TIMEOUT: &str = "250ms";

/// How long to wait between two looks at whether the demo is served.
const POLL: Duration = Duration::from_millis(20);

/// What became of the demo.
#[derive(Debug)]
pub(super) struct Demo {
    /// It was written just now.
    pub(super) is_new: bool,
}

/// Writes the demo if the catalog is empty; moves its ports if they are not where they should be. `more` is what was asked for
/// beside it, which is written whenever it is not there. `mark` is the file that says which demo the catalog has got.
pub(super) async fn seed(api: &Client, ports: &Ports, more: &[Value], mark: &Path) -> Result<Demo, Failure> {
    let demo = resources(ports);
    let is_new = is_empty(api).await?;
    if is_new {
        apply(api, "Demo of chancery dev", &demo).await?;
        upgrade::set_mark(mark)?;
    }
    let (mut moved, mut missing) = (Vec::new(), Vec::new());
    // What was written just now is there, with the right ports.
    let written_before = if is_new { &[] } else { &demo[..] };
    for (wanted, is_more) in written_before.iter().map(|one| (one, false)).chain(more.iter().map(|one| (one, true))) {
        let Some(mut there) = find(api, wanted).await? else {
            if is_more {
                missing.push(wanted.clone());
            }
            continue;
        };
        if is_ours(&there) && move_ports(&mut there["spec"], &wanted["spec"]) {
            moved.push(document(&there));
        }
    }
    if !moved.is_empty() {
        apply(api, "Ports of chancery dev", &moved).await?;
    }
    if !is_new {
        upgrade::upgrade(api, &demo, mark).await?;
    }
    if !missing.is_empty() {
        apply_if_it_fits(api, "Chaos of chancery dev", &missing, "--chaos has no service and no route").await?;
    }
    Ok(Demo { is_new })
}

/// Waits until Envoy answers a request for the demo's host with anything but an error of its own.
pub(super) async fn served(listener: SocketAddr, within: Duration) -> Result<()> {
    let envoy = Http::to(listener);
    let deadline = tokio::time::Instant::now() + within;
    loop {
        let last = match envoy.get("/").await {
            Ok((StatusCode::OK, _)) => return Ok(()),
            Ok((status, _)) => format!("it answers {status}"),
            Err(error) => format!("{error:#}"),
        };
        if tokio::time::Instant::now() > deadline {
            bail!("Envoy does not serve the demo route at http://{listener}/ within {within:?}: {last}");
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The hosts are those under which this machine is reached, not `*`: what a user deletes should be
/// gone, and not answered by the demo.
pub(super) fn resources(ports: &Ports) -> [Value; 6] {
    let service = |name: &str, address: SocketAddr| {
        let endpoint = json!({ "address": address.ip().to_string(), "port": address.port() });
        resource("Service", name, json!({ "endpoints": [endpoint], "connectTimeout": "1s" }))
    };
    let [_, b] = ports.upstreams;
    let mut behind_sidecar = service(BEHIND_SIDECAR, ports.sidecar_inbound);
    behind_sidecar["spec"]["tls"] = json!({ "mesh": { "fleet": FLEET, "proxies": [SIDECAR] } });
    [
        resource(
            "Fleet",
            FLEET,
            json!({ "rateLimiter": { "addresses": [ports.limiter_grpc.to_string()], "timeout": LIMITER_TIMEOUT } }),
        ),
        resource(
            "Listener",
            "web",
            json!({
                "fleet": FLEET,
                "address": ports.listener.ip().to_string(),
                "port": ports.listener.port(),
                "protocol": "http",
            }),
        ),
        behind_sidecar,
        service("demo-b", b),
        resource(
            "RateLimit",
            LIMIT,
            json!({
                "key": [{ "remoteAddress": true }],
                "limit": { "requests": 5, "per": "10s" },
                "denied": { "body": "slow down\n" },
            }),
        ),
        resource(
            "Route",
            "demo",
            json!({
                "listeners": [format!("{FLEET}/web")],
                "hosts": ["localhost", "127.0.0.1", "demo.example.com"],
                "rules": [
                    {
                        "match": { "path": { "exact": "/hello" } },
                        "respond": { "status": 200, "body": "hello from Envoy, as Chancery told it\n" },
                    },
                    {
                        "match": { "path": { "exact": LIMITED_PATH } },
                        "to": [{ "service": "demo-a" }],
                        "rateLimits": [LIMIT],
                    },
                    {
                        "match": { "path": { "prefix": "/" } },
                        "to": [{ "service": "demo-a", "weight": 90 }, { "service": "demo-b", "weight": 10 }],
                        "timeout": "5s",
                    },
                ],
            }),
        ),
    ]
}

/// A resource with our label.
pub(super) fn resource(kind: &str, name: &str, spec: Value) -> Value {
    let mut resource = json!({ "kind": kind, "name": name, "labels": { LABEL.0: LABEL.1 } });
    resource["spec"] = spec;
    resource
}

/// A catalog that its user has changed so that this contradicts it goes without, which is told: `otherwise`.
pub(super) async fn apply_if_it_fits(
    api: &Client,
    message: &str,
    resources: &[Value],
    otherwise: &str,
) -> Result<(), Failure> {
    match apply(api, message, resources).await {
        Err(failure @ Failure::Refused(_)) => {
            warn!(
                error = failure.lines().join("; "),
                what = otherwise,
                "a part of the demo does not fit the resources there are"
            );
            Ok(())
        }
        done => done,
    }
}

async fn apply(api: &Client, message: &str, resources: &[Value]) -> Result<(), Failure> {
    let body = json!({ "message": message, "resources": resources });
    api.send(Call::new(Method::POST, "/api/v1/apply").body(body)).await.map(|_: IgnoredAny| ())
}

async fn is_empty(api: &Client) -> Result<bool, Failure> {
    for kind in Kind::ALL {
        let list: Value = api.get(format!("/api/v1/{}?limit=1", kind.collection())).await?;
        if list["items"].as_array().is_some_and(|items| !items.is_empty()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The resource of the same kind and name, if it is there.
pub(super) async fn find(api: &Client, wanted: &Value) -> Result<Option<Value>, Failure> {
    let kind = wanted["kind"].as_str().and_then(|kind| kind.parse::<Kind>().ok());
    let (Some(kind), Some(name)) = (kind, wanted["name"].as_str()) else { return Ok(None) };
    match api.get(format!("/api/v1/{}/{name}", kind.collection())).await {
        Ok(there) => Ok(Some(there)),
        Err(Failure::Refused(details)) if details.status == StatusCode::NOT_FOUND => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// What a user writes of a resource, without what the server adds.
pub(super) fn document(resource: &Value) -> Value {
    let mut document = json!({});
    for field in ["kind", "name", "team", "labels", "spec"] {
        if let Some(value) = resource.get(field) {
            document[field] = value.clone();
        }
    }
    document
}

/// Whether it is of the demo, and not (any more) the user's own.
pub(super) fn is_ours(resource: &Value) -> bool {
    resource["labels"][LABEL.0] == LABEL.1
}

/// Gives a listener, the endpoints of a service if there are as many, or the limiter of a fleet if it is the one here, the wanted
/// ports. Says whether it changed.
fn move_ports(there: &mut Value, wanted: &Value) -> bool {
    let mut changed = false;
    let of = |spec: &Value| spec["endpoints"].as_array().map_or(0, Vec::len);
    let endpoints = if of(there) == of(wanted) { of(wanted) } else { 0 };
    let pointers = (0..endpoints).map(|number| format!("/endpoints/{number}/port"));
    for pointer in pointers.chain(["/port".to_owned()]) {
        if let (Some(port), Some(wanted)) = (there.pointer_mut(&pointer), wanted.pointer(&pointer))
            && *port != *wanted
        {
            *port = wanted.clone();
            changed = true;
        }
    }
    if let (Some([address]), Some([wanted])) = (limiters(there), limiters(wanted))
        && address != wanted
        && host(address).is_some_and(|there| Some(there) == host(wanted))
    {
        there["rateLimiter"]["addresses"] = json!([wanted]);
        changed = true;
    }
    changed
}

/// The addresses of a fleet's limiters.
fn limiters(fleet: &Value) -> Option<&[Value]> {
    fleet["rateLimiter"]["addresses"].as_array().map(Vec::as_slice)
}

/// The host of `host:port`.
fn host(address: &Value) -> Option<&str> {
    Some(address.as_str()?.rsplit_once(':')?.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dev::chaos;

    #[test]
    fn only_ports_are_kept_in_step() {
        let all = |ports: &Ports| [&resources(ports)[..], &chaos::resources(ports)].concat();
        let (before, wanted) = (all(&Ports::with_offset(0)), all(&Ports::with_offset(100)));
        for (before, wanted) in before.iter().zip(&wanted) {
            let mut there = before.clone();
            let moved = move_ports(&mut there["spec"], &wanted["spec"]);
            assert_eq!(moved, before != wanted);
            assert_eq!(there, *wanted);
        }
        let mut edited =
            json!({ "endpoints": [{ "address": "10.0.0.7", "port": 1 }, { "address": "10.0.0.8", "port": 2 }] });
        assert!(!move_ports(&mut edited, &wanted[2]["spec"]));
        for elsewhere in [json!(["10.0.0.7:8081"]), json!(["127.0.0.1:8081", "127.0.0.1:8091"]), json!([])] {
            let mut edited = json!({ "rateLimiter": { "addresses": elsewhere } });
            assert!(!move_ports(&mut edited, &wanted[0]["spec"]), "{edited}");
        }
    }

    #[test]
    fn a_resource_is_written_back_without_what_the_server_added() {
        let read =
            json!({ "kind": "Fleet", "name": "edge", "spec": {}, "revision": 3, "updatedAt": "…", "updatedBy": "…" });
        assert_eq!(document(&read), json!({ "kind": "Fleet", "name": "edge", "spec": {} }));
    }
}
