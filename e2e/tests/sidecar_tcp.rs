//! A protocol that is not HTTP goes out through a sidecar under a real control plane: whole, to endpoints that are well, and undisturbed by
//! changes.

use std::net::SocketAddr;

use anyhow::{Result, bail, ensure};
use chancery_e2e::{
    certificates::proxy_uri,
    port::free_port,
    raw::{patch, typed},
    sidecar::Sidecar,
    sidecar_scene::SidecarScene,
    speaker::{Speaker, Talk},
    wait::{PATIENCE, until},
};
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// More connections than it takes until both of two endpoints have been asked.
const MANY: usize = 60;

/// A listener called `db` whose proxy says this beside its cluster.
fn listener(at: SocketAddr, mut more: Value) -> Value {
    more["stat_prefix"] = "db".into();
    more["cluster"] = "db".into();
    let proxy = typed("extensions.filters.network.tcp_proxy.v3.TcpProxy", more);
    let listener = json!({
        "name": "db",
        "address": { "socket_address": { "address": "0.0.0.0", "port_value": at.port() } },
        "filter_chains": [{ "filters": [{ "name": "tcp", "typed_config": proxy }] }],
    });
    patch("db-listener", json!({ "resource": typed("config.listener.v3.Listener", listener) }))
}

/// A cluster called `db` at these addresses, which says this beside them.
fn cluster(at: &[SocketAddr], mut more: Value) -> Value {
    let endpoint = |at: &SocketAddr| {
        let address = json!({ "socket_address": { "address": at.ip(), "port_value": at.port() } });
        json!({ "endpoint": { "address": address } })
    };
    let endpoints: Vec<_> = at.iter().map(endpoint).collect();
    more["name"] = "db".into();
    more["type"] = "STATIC".into();
    more["load_assignment"] = json!({ "cluster_name": "db", "endpoints": [{ "lb_endpoints": endpoints }] });
    patch("db-cluster", json!({ "resource": typed("config.cluster.v3.Cluster", more) }))
}

/// A sidecar that takes on `db`, to these endpoints, and where that is.
async fn scene(endpoints: &[SocketAddr], flags: &[&str]) -> Result<(SidecarScene, SocketAddr)> {
    let at = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let resources = [listener(at, json!({ "max_connect_attempts": 3 })), cluster(endpoints, json!({}))];
    let scene = SidecarScene::start(&resources, &[&["--insecure"], flags].concat()).await?;
    Ok((scene, at))
}

/// The sum of a metric of the cluster.
async fn metric(sidecar: &Sidecar, name: &str) -> Result<f64> {
    let metrics = sidecar.metrics().await?;
    let lines = metrics.lines().filter(|line| line.starts_with(name) && line.contains("cluster=\"db\""));
    Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

async fn refused(at: SocketAddr) -> Result<()> {
    until("the port is closed", PATIENCE, async || {
        ensure!(TcpStream::connect(at).await.is_err(), "it is open");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_goes_down_costs_no_new_connection() -> Result<()> {
    let (one, two) = (Speaker::start("one").await?, Speaker::start("two").await?);
    let (scene, at) = scene(&[one.address, two.address], &["--tcp-listener", "db"]).await?;
    // The port is there as soon as the sidecar is ready. Each connection stays open, so that the other endpoint's turn comes.
    let mut talks = Vec::new();
    while !["one", "two"].iter().all(|name| talks.iter().any(|talk: &Talk| talk.with == *name)) {
        ensure!(talks.len() < MANY, "only one of two endpoints is asked");
        talks.push(Talk::begin(at).await?);
    }
    let clusters = scene.sidecar.page("/clusters").await?;
    let shown = clusters["clusters"].as_array().into_iter().flatten().find(|one| one["name"] == "db");
    ensure!(shown.is_some_and(|db| db["tcpConnections"] == talks.len()), "{clusters:#}");
    for talk in &mut talks {
        talk.say(200_000).await?;
    }

    drop(two);
    talks.retain(|talk| talk.with == "one");
    while metric(&scene.sidecar, "chancery_sidecar_tcp_attempts_failed_total").await? == 0.0 {
        ensure!(talks.len() < 2 * MANY, "the endpoint that is down is never asked");
        talks.push(Talk::begin(at).await?);
    }
    for mut talk in talks {
        talk.say(100_000).await?;
        talk.end().await?;
    }
    let metrics = scene.sidecar.metrics().await?;
    ensure!(!metrics.contains("reason=\"connect\""), "{metrics}");
    ensure!(metric(&scene.sidecar, "chancery_sidecar_tcp_bytes_total").await? > 3_000_000.0, "{metrics}");
    until("nothing is open", PATIENCE, async || {
        let open = metric(&scene.sidecar, "chancery_sidecar_tcp_connections_open").await?;
        ensure!(open == 0.0, "{open}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_end_no_connection() -> Result<()> {
    let (one, two) = (Speaker::start("one").await?, Speaker::start("two").await?);
    let (scene, at) = scene(&[one.address], &["--tcp-listener", "db"]).await?;
    let mut talks = [Talk::begin(at).await?, Talk::begin(at).await?];
    let say = async |talks: &mut [Talk]| {
        for talk in talks {
            talk.say(100_000).await?;
        }
        anyhow::Ok(())
    };
    say(&mut talks).await?;
    scene.api.put_and_wait(&cluster(&[two.address], json!({}))).await?;
    say(&mut talks).await?;
    let new = Talk::begin(at).await?;
    ensure!(new.with == "two", "{}", new.with);
    new.end().await?;

    scene.api.delete_and_wait("EnvoyPatch", "db-listener").await?;
    refused(at).await?;
    say(&mut talks).await?;
    let [first, second] = talks;
    first.end().await?;
    // The port is opened anew while a connection to the old one is open.
    scene.api.put_and_wait(&listener(at, json!({}))).await?;
    let again = until("the port is open", PATIENCE, async || Talk::begin(at).await).await?;
    ensure!(again.with == "two", "{}", again.with);
    again.end().await?;
    second.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_waits_for_connections_and_refuses_none() -> Result<()> {
    let one = Speaker::start("one").await?;
    let (mut scene, at) = scene(&[one.address], &["--tcp-listener", "db"]).await?;
    let mut talk = Talk::begin(at).await?;
    scene.sidecar.ask_to_end()?;
    scene.sidecar.not_ready().await?;
    let mut late = Talk::begin(at).await?;
    late.say(100_000).await?;
    talk.say(100_000).await?;
    talk.end().await?;
    late.end().await?;
    scene.sidecar.ended().await?;
    let log = scene.sidecar.log();
    ensure!(!log.contains("error:") && !log.contains("have not ended in time"), "{log}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_has_a_port_only_where_it_is_asked_for() -> Result<()> {
    let one = Speaker::start("one").await?;
    let (scene, at) = scene(&[one.address], &["--tcp-listener", "db=127.0.0.1:0", "--tcp-listener", "other"]).await?;
    let listeners = scene.sidecar.page("/listeners").await?;
    let address = match &listeners["listeners"] {
        Value::Array(all) if all.len() == 2 && all[1]["standing"] == "absent" => all[0]["address"].as_str(),
        _ => bail!("{listeners:#}"),
    };
    let own: SocketAddr = address.unwrap_or_default().parse()?;
    ensure!(own != at && TcpStream::connect(at).await.is_err(), "{own}");
    Talk::begin(own).await?.end().await?;
    let dump = scene.sidecar.page("/config_dump").await?;
    let listener_shown =
        dump["resources"].as_array().into_iter().flatten().find(|one| one["name"] == "db" && one["type"] == "listener");
    let ignored = listener_shown.map(|db| db["ignored"].to_string()).unwrap_or_default();
    ensure!(ignored == r#"["filter_chains.filters.typed_config.stat_prefix"]"#, "{ignored}");

    // What cannot be done is told by its field, and what was there before goes on.
    scene.api.put(&listener(at, json!({ "tunneling_config": { "hostname": "elsewhere:1" } }))).await?;
    until("the refusal names the field", PATIENCE, async || {
        let proxy = scene.api.proxy("side").await?.to_string();
        ensure!(proxy.contains("filter_chains[0].filters[0].typed_config.tunneling_config"), "{proxy}");
        Ok(())
    })
    .await?;
    Talk::begin(own).await?.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_sidecars_know_each_other_over_mtls() -> Result<()> {
    let one = Speaker::start("one").await?;
    let (scene, at) = scene(&[], &["--tcp-listener", "db"]).await?;
    let app = one.address.to_string();
    let flags = ["--inbound-protocol", "tcp", "--app-addr", &app];
    let callee = Sidecar::start(scene.folder(), "callee", &scene.authority, scene.xds(), &flags).await?;
    callee.ready().await?;
    let spoken_to = |uri: String| {
        let validation = json!({
            "trusted_ca": { "filename": scene.authority.file() },
            "match_typed_subject_alt_names": [{ "san_type": "URI", "matcher": { "exact": uri } }],
        });
        let context = json!({ "common_tls_context": { "validation_context": validation } });
        let context = typed("extensions.transport_sockets.tls.v3.UpstreamTlsContext", context);
        let socket = json!({ "name": "envoy.transport_sockets.tls", "typed_config": context });
        cluster(&[callee.inbound], json!({ "transport_socket": socket }))
    };
    scene.api.put_and_wait(&spoken_to(proxy_uri("edge", "callee"))).await?;
    let mut talk = Talk::begin(at).await?;
    ensure!(talk.with == "one", "{}", talk.with);
    talk.say(3_000_000).await?;
    talk.end().await?;
    scene.api.put_and_wait(&spoken_to(proxy_uri("edge", "other"))).await?;
    ensure!(Talk::begin(at).await.is_err(), "it is not who it has to be");
    let failed = metric(&scene.sidecar, "chancery_sidecar_tcp_failures_total").await?;
    ensure!(failed == 1.0, "{failed}");
    Ok(())
}
