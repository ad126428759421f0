//! gRPC applications without a proxy: gRPC's own client (`xds:///`) finds its servers by what Chancery says.
//!
//! It is a second client, written by others than Envoy's: it speaks the state of the world, asks for each resource by its
//! name, and rejects by rules of its own. What it needs beyond what Envoy does is put on by patches: the
//! connection manager of an `api_listener`, and localities with a name and a weight.

use std::{net::SocketAddr, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    api::Api,
    certificates::Authority,
    control_plane::ControlPlane,
    document::{fleet, listener, route_to, service},
    process::Process,
    raw::{manager, patch},
    required,
    wait::{PATIENCE, until},
};
use http::Method;
use serde_json::{Value, json};

/// What the client asks for: `xds:///web` is listener `web`, and calls go to the host `web`.
const NAME: &str = "web";

/// Who the client is, in the fleet `edge`.
const CLIENT: &str = "application";

/// How often the route moves from one service to another, which removes the one before: an even number.
const MOVES: usize = 40;

/// A control plane, a client that calls `xds:///web` all the time, and the servers that it may find.
struct Story {
    client: Process,
    servers: Vec<Server>,
    control_plane: ControlPlane,
    api: Api,
    _folder: tempfile::TempDir,
}

struct Server {
    name: &'static str,
    address: SocketAddr,
    _process: Process,
}

impl Story {
    /// Starts with the first of `servers` behind the route, and the others behind none; `arguments` are the control plane's.
    async fn begin(servers: &[&'static str], arguments: &[&str]) -> Result<Option<Self>> {
        let Some(python) = required::python_with_grpc() else { return Ok(None) };
        let peer = |arguments: [&str; 2]| {
            let mut command = Command::new(&python);
            command.arg(script()).args(arguments);
            command
        };
        let folder = tempfile::tempdir()?;
        let mut started = Vec::new();
        for name in servers.iter().copied() {
            let mut process = Process::spawn(name, peer(["serve", name]), folder.path())?;
            let ready = process.ready(PATIENCE).await?;
            let address = ready["grpc"].as_str().context("the server says where it listens")?.parse()?;
            started.push(Server { name, address, _process: process });
        }
        let authority = Authority::create(folder.path(), "authority")?;
        let mut control_plane = ControlPlane::start_alone(folder.path(), &authority).await?;
        control_plane.start_again_with(arguments).await?;
        let api = control_plane.caller();
        let mut resources =
            vec![fleet("edge"), listener(NAME, "edge", 10_000), for_grpc(), route_to("who", NAME, servers[0])];
        for server in &started {
            resources.extend([service(server.name, &[server.address]), with_locality(server.name)]);
        }
        api.apply(&resources).await?;

        let bootstrap = folder.path().join("bootstrap.json");
        std::fs::write(&bootstrap, bootstrap_of(&control_plane, &authority)?.to_string())?;
        let mut command = peer(["call", &format!("xds:///{NAME}")]);
        command.env("GRPC_XDS_BOOTSTRAP", &bootstrap).env("no_grpc_proxy", "127.0.0.1");
        let client = Process::spawn("client", command, folder.path())?;
        Ok(Some(Self { client, servers: started, control_plane, api, _folder: folder }))
    }

    fn server(&self, name: &str) -> SocketAddr {
        self.servers.iter().find(|server| server.name == name).expect("a server of this story").address
    }

    /// What the client was answered, each answer that differed from the one before.
    fn answers(&self) -> Vec<String> {
        self.client.output().lines().map(str::to_owned).collect()
    }

    /// Moves the route so often, and returns who has answered the client.
    async fn moves(&self, count: usize) -> Result<Vec<&'static str>> {
        let mut answered = vec!["blue"];
        self.was_answered_by(&answered).await?;
        for to in ["green", "blue"].into_iter().cycle().take(count) {
            self.api.put(&route_to("who", NAME, to)).await?;
            answered.push(to);
            self.was_answered_by(&answered).await?;
        }
        Ok(answered)
    }

    /// Waits until the client has been answered by these, one after the other, and by nothing else.
    async fn was_answered_by(&self, names: &[&str]) -> Result<()> {
        let expected: Vec<String> = names.iter().map(|name| json!({ "answer": name }).to_string()).collect();
        until(&format!("the client is answered by {names:?}"), PATIENCE, async || {
            let said: Vec<String> = self.answers().iter().map(|line| line.replace(": ", ":")).collect();
            ensure!(said == expected, "it says {said:?}; its log: {}", self.client.log());
            Ok(())
        })
        .await
    }
}

fn script() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "grpc_client", "peer.py"].iter().collect()
}

/// Where the client finds the control plane, and how both know each other.
fn bootstrap_of(control_plane: &ControlPlane, authority: &Authority) -> Result<Value> {
    let identity = authority.proxy("edge", CLIENT)?;
    let tls = json!({
        "ca_certificate_file": authority.file(),
        "certificate_file": identity.certificate,
        "private_key_file": identity.key,
    });
    Ok(json!({
        "xds_servers": [{
            "server_uri": control_plane.xds.to_string(),
            "channel_creds": [{ "type": "tls", "config": tls }],
            "server_features": ["xds_v3"],
        }],
        "node": { "id": CLIENT, "cluster": "edge" },
    }))
}

/// gRPC looks for the connection manager of a client in the `api_listener`, not in a filter chain.
fn for_grpc() -> Value {
    let api_listener = json!({ "api_listener": { "api_listener": manager(NAME, NAME) } });
    patch("api-listener", json!({ "target": { "kind": "Listener", "name": NAME }, "merge": api_listener }))
}

/// gRPC takes endpoints only from a locality that has a weight, and rejects one without a locality.
fn with_locality(service: &str) -> Value {
    let locality = json!({ "locality": { "region": "here" }, "load_balancing_weight": 1 });
    let target = json!({ "kind": "Endpoints", "name": service });
    patch(&format!("locality-{service}"), json!({ "target": target, "path": "endpoints[0]", "merge": locality }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grpc_client_follows_edits_and_no_call_fails() -> Result<()> {
    let Some(story) = Story::begin(&["blue", "green", "red"], &[]).await? else { return Ok(()) };
    let mut expected = story.moves(MOVES).await?;
    // Endpoints alone.
    story.api.put_and_wait(&service("blue", &[story.server("red")])).await?;
    expected.push("red");
    story.was_answered_by(&expected).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grpc_client_follows_edits_while_its_connections_end_and_no_call_fails() -> Result<()> {
    let Some(story) = Story::begin(&["blue", "green"], &["--xds-connection-age", "1s"]).await? else {
        return Ok(());
    };
    // Long enough for a few connections.
    story.moves(5 * MOVES).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grpc_client_outlives_its_control_plane_and_comes_back() -> Result<()> {
    let Some(mut story) = Story::begin(&["blue", "green"], &[]).await? else { return Ok(()) };
    story.was_answered_by(&["blue"]).await?;
    story.control_plane.kill();
    story.control_plane.start_again().await?;
    until("the client is back", PATIENCE, async || {
        let client = story.api.proxy(CLIENT).await?;
        ensure!(client["connected"] == true && client["types"]["cluster"].is_object(), "{client}");
        Ok(())
    })
    .await?;
    story.api.put(&route_to("who", NAME, "green")).await?;
    story.was_answered_by(&["blue", "green"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_grpc_client_rejects_is_told_in_its_words_and_harms_no_call() -> Result<()> {
    let Some(story) = Story::begin(&["blue"], &[]).await? else { return Ok(()) };
    story.was_answered_by(&["blue"]).await?;
    // Envoy knows this way to choose an endpoint, gRPC does not.
    let maglev = json!({ "target": { "kind": "Cluster", "name": "blue" }, "merge": { "lb_policy": "MAGLEV" } });
    let path = "/api/v1/envoy-patches/maglev?wait=applied&timeout=10s";
    let answer = story.api.json(Method::PUT, path, Some(&patch("maglev", maglev))).await?.json()?;
    let refused = &answer["applied"]["refused"][0];
    assert!(refused.to_string().contains("LB policy"), "{answer}");
    assert_eq!(refused["proxy"], CLIENT, "{answer}");
    story.was_answered_by(&["blue"]).await
}
