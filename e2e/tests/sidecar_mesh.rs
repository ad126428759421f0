//! From one sidecar to another over mTLS, under a real control plane: each proves who it is; and requests go on while what they
//! prove it with is replaced, while one of them ends, and while the control plane is away.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    api::Api,
    certificates::{Authority, proxy_uri},
    client::{fetch, get},
    control_plane::ControlPlane,
    document::{fleet, listener, route_to, service_with},
    load::Load,
    port::free_port,
    raw::{patch, typed},
    sidecar::Sidecar,
    upstream::{Echo, Upstream},
    wait::{PATIENCE, until},
};
use serde_json::{Value, json};

const HOST: &str = "shop.example.com";

/// The application calls out through `caller`, which reaches the service through one of the others. Nothing is retried.
struct Scene {
    caller: Sidecar,
    callees: Vec<Sidecar>,
    api: Api,
    authority: Authority,
    _service: Upstream,
    control_plane: ControlPlane,
    // Last, so that it outlives whoever has files in it.
    folder: tempfile::TempDir,
}

impl Scene {
    /// `tls` is what the caller's cluster says of TLS, and `service` what the service says beside where it is.
    async fn start(callees: &[&str], tls: impl Fn(&Authority) -> Value, service: Value) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let authority = Authority::create(folder.path(), "authority")?;
        let shop = Upstream::start("shop").await?;
        let control_plane = ControlPlane::start_alone(folder.path(), &authority).await?;
        let api = control_plane.caller();
        let app = shop.address.to_string();
        let xds = control_plane.xds;
        api.apply(&[fleet("edge"), listener("web", "edge", free_port())]).await?;
        let start = async |name: &str, more: &[&str]| Sidecar::start(folder.path(), name, &authority, xds, more).await;
        let caller = start("caller", &[]).await?;
        let mut started = Vec::new();
        for name in callees {
            started.push(start(name, &["--app-addr", &app]).await?);
        }
        let at: Vec<_> = started.iter().map(|callee| callee.inbound).collect();
        api.apply_and_wait(&[
            service_with("shop", &at, service),
            route_to("shop", HOST, "shop"),
            spoken_to(&tls(&authority)),
        ])
        .await?;
        caller.ready().await?;
        for callee in &started {
            callee.ready().await?;
        }
        Ok(Self { caller, callees: started, api, authority, _service: shop, control_plane, folder })
    }

    /// Whom the service sees calling, if the call arrives.
    async fn seen(&self) -> Result<String> {
        let answer = fetch(self.caller.outbound, get(HOST, "/")).await?;
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        let echo: Echo = serde_json::from_slice(&answer.body)?;
        echo.headers.get("x-chancery-peer").cloned().context("the service is not told who calls")
    }

    /// Waits until the service sees this caller.
    async fn sees(&self, uri: &str) -> Result<()> {
        until("the service sees the caller", PATIENCE, async || {
            let seen = self.seen().await?;
            ensure!(seen == uri, "{seen}");
            Ok(())
        })
        .await
    }
}

/// TLS for the cluster of the service.
fn spoken_to(context: &Value) -> Value {
    let context =
        typed("extensions.transport_sockets.tls.v3.UpstreamTlsContext", json!({ "common_tls_context": context }));
    let socket = json!({ "name": "envoy.transport_sockets.tls", "typed_config": context });
    let target = json!({ "kind": "Cluster", "name": "shop" });
    patch("mtls", json!({ "target": target, "merge": { "transport_socket": socket } }))
}

/// Trusts the authority, in its file, and expects this peer.
fn trusting(authority: &Authority, uri: &str) -> Value {
    let trusted = json!({ "filename": authority.file() });
    json!({ "validation_context": { "trusted_ca": trusted, "match_typed_subject_alt_names": named(uri) } })
}

/// Only who is called so; or whose name begins so, if it ends with a star.
fn named(uri: &str) -> Value {
    let matcher = match uri.strip_suffix('*') {
        Some(beginning) => json!({ "prefix": beginning }),
        None => json!({ "exact": uri }),
    };
    json!([{ "san_type": "URI", "matcher": matcher }])
}

fn sds(name: &str) -> Value {
    json!({ "name": name, "sds_config": { "ads": {}, "resource_api_version": "V3" } })
}

fn secret(name: &str, mut content: Value) -> Value {
    content["name"] = name.into();
    patch(name, json!({ "resource": typed("extensions.transport_sockets.tls.v3.Secret", content) }))
}

fn inline(path: &Path) -> Result<Value> {
    Ok(json!({ "inline_string": fs::read_to_string(path)? }))
}

/// An identity, new each time, as a secret.
fn identity(authority: &Authority, uri: &str) -> Result<Value> {
    let files = authority.mesh("own", uri)?;
    let content = json!({ "certificate_chain": inline(&files.certificate)?, "private_key": inline(&files.key)? });
    Ok(secret("own", json!({ "tls_certificate": content })))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_are_who_their_bootstrap_files_say() -> Result<()> {
    let callee = proxy_uri("edge", "callee");
    let scene = Scene::start(&["callee"], |authority| trusting(authority, &callee), json!({})).await?;
    ensure!(scene.seen().await? == proxy_uri("edge", "caller"));

    let load = Load::start(scene.caller.outbound, 4, || get(HOST, "/"));
    load.goes_on_for(200).await?;
    // Both have new certificates, under the same names in the same places.
    for id in ["caller", "callee"] {
        scene.authority.proxy("edge", id)?;
    }
    until("the callee has taken its new certificate", PATIENCE, async || {
        let metrics = scene.callees[0].metrics().await?;
        ensure!(metrics.contains("chancery_tls_reloads_total{result=\"loaded\"} "), "{metrics}");
        Ok(())
    })
    .await?;
    load.goes_on_for(200).await?;
    let tally = load.stop().await?;
    ensure!(tally.failed() == 0, "{tally}");

    let other = proxy_uri("edge", "other");
    scene.api.put_and_wait(&spoken_to(&trusting(&scene.authority, &other))).await?;
    let answer = fetch(scene.caller.outbound, get(HOST, "/")).await?;
    ensure!(answer.status == 503 && answer.header("x-chancery-reason") == "connect", "{answer:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_replaced_under_load_without_a_lost_request() -> Result<()> {
    let context = |authority: &Authority| {
        let callee = named(&proxy_uri("edge", "callee"));
        json!({
            "tls_certificate_sds_secret_configs": [sds("own")],
            "combined_validation_context": {
                "default_validation_context": {
                    "trusted_ca": { "filename": authority.file() }, "match_typed_subject_alt_names": callee,
                },
                "validation_context_sds_secret_config": sds("mesh-ca"),
            },
        })
    };
    // The cluster comes first, and waits for what it names.
    let scene = Scene::start(&["callee"], context, json!({})).await?;
    let clusters = scene.caller.page("/clusters").await?;
    ensure!(!clusters["clusters"][0]["waitsForSecret"].is_null(), "{clusters:#}");
    let ca = |authority: &Authority| -> Result<Value> {
        let trusted = inline(&authority.file())?;
        Ok(secret("mesh-ca", json!({ "validation_context": { "trusted_ca": trusted } })))
    };
    let uri = |n: u32| format!("spiffe://chancery.local/fleet/edge/service/shop-{n}");
    scene.api.apply_and_wait(&[ca(&scene.authority)?, identity(&scene.authority, &uri(0))?]).await?;
    scene.sees(&uri(0)).await?;

    let load = Load::start(scene.caller.outbound, 4, || get(HOST, "/"));
    for n in 1..=5 {
        load.goes_on_for(100).await?;
        scene.api.put_and_wait(&identity(&scene.authority, &uri(n))?).await?;
        scene.sees(&uri(n)).await?;
    }
    load.goes_on_for(100).await?;
    let tally = load.stop().await?;
    ensure!(tally.failed() == 0, "{tally}");

    // A key is nowhere to be read.
    let dump = scene.caller.page("/config_dump").await?.to_string();
    ensure!(dump.contains("mesh-ca") && !dump.contains("BEGIN"), "{dump}");
    // One that is broken is refused, by its field, and what was there goes on.
    let broken = json!({ "certificate_chain": { "inline_string": "x" }, "private_key": { "inline_string": "y" } });
    scene.api.put(&secret("own", json!({ "tls_certificate": broken }))).await?;
    until("the refusal names the field", PATIENCE, async || {
        let proxy = scene.api.proxy("caller").await?.to_string();
        ensure!(proxy.contains("tls_certificate.certificate_chain"), "{proxy}");
        Ok(())
    })
    .await?;
    scene.sees(&uri(5)).await?;

    // Whoever is signed by another authority is nobody here any more.
    let foreign = Authority::create(scene.folder.path(), "foreign")?;
    scene.api.put_and_wait(&ca(&foreign)?).await?;
    let answer = fetch(scene.caller.outbound, get(HOST, "/")).await?;
    ensure!(answer.status == 503, "{answer:?}");
    Ok(())
}

/// Of the fleet `edge`.
fn any_callee(authority: &Authority) -> Value {
    trusting(authority, &proxy_uri("edge", "callee-*"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_ends_loses_no_request() -> Result<()> {
    for protocol in ["http1", "http2"] {
        let mut scene = Scene::start(&["callee-1", "callee-2"], any_callee, json!({ "protocol": protocol })).await?;
        let load = Load::start(scene.caller.outbound, 8, || get(HOST, "/"));
        load.goes_on_for(300).await?;
        scene.callees[0].ask_to_end()?;
        scene.callees[0].not_ready().await?;
        // Nobody has taken notice yet: it is still sent requests, over new connections too.
        load.goes_on_for(300).await?;
        let left = service_with("shop", &[scene.callees[1].inbound], json!({ "protocol": protocol }));
        scene.api.put(&left).await?;
        scene.callees[0].ended().await?;
        load.goes_on_for(300).await?;
        let tally = load.stop().await?;
        ensure!(tally.failed() == 0, "{protocol}: {tally}");
        let log = scene.callees[0].log();
        ensure!(!log.contains("have not ended in time"), "{log}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_go_on_while_the_control_plane_is_away_and_changes_when_it_is_back() -> Result<()> {
    let mut scene = Scene::start(&["callee-1"], any_callee, json!({})).await?;
    let load = Load::start(scene.caller.outbound, 4, || get(HOST, "/"));
    load.goes_on_for(200).await?;
    scene.control_plane.kill();
    load.goes_on_for(500).await?;
    scene.control_plane.start_again().await?;
    load.goes_on_for(200).await?;
    let tally = load.stop().await?;
    ensure!(tally.failed() == 0, "{tally}");
    let stranger = spoken_to(&trusting(&scene.authority, &proxy_uri("edge", "other")));
    scene.control_plane.caller().put(&stranger).await?;
    until("the change has arrived", PATIENCE, async || {
        let answer = fetch(scene.caller.outbound, get(HOST, "/")).await?;
        ensure!(answer.status == 503, "{}", answer.status);
        Ok(())
    })
    .await
}
