//! Two replicas of the control plane on one Postgres, an Envoy on each: every change arrives everywhere, whatever happens
//! to connections, and a database that is away stops writes only.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::{Context, Result, ensure};
use chancery_control_plane::{
    model::Document,
    store::{self, NewChange, NewRevision},
};
use chancery_e2e::{
    api::Api,
    bootstrap::{Protocol, Proxy, XDS_CLUSTER},
    certificates::Authority,
    client::{Connection, get},
    control_plane::ControlPlane,
    document::{fleet, listener, resource},
    envoy::Envoy,
    port::free_port,
    postgres::{Postgres, Stop},
    required,
    wait::{PATIENCE, until},
};
use http::Method;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

/// One replica, and the Envoy of a fleet that is connected to it.
struct Side {
    control_plane: ControlPlane,
    api: Api,
    fleet: &'static str,
    web: SocketAddr,
    envoy: Envoy,
}

struct Pair {
    left: Side,
    right: Side,
    postgres: Postgres,
    database: String,
    authority: Authority,
    program: PathBuf,
    folder: tempfile::TempDir,
}

impl Pair {
    /// Two replicas with a fleet each. Every route here is on the listeners of both fleets.
    async fn start() -> Result<Option<Self>> {
        let (Some(program), Some(postgres)) = (required::envoy(), Postgres::start().await?) else { return Ok(None) };
        let database = postgres.create_database().await?;
        let folder = tempfile::tempdir()?;
        let authority = Authority::create(folder.path(), "authority")?;
        let mut sides = Vec::new();
        for name in ["left", "right"] {
            let control_plane = ControlPlane::start(folder.path(), name, &database, &authority).await?;
            let api = control_plane.caller();
            let port = free_port();
            api.apply(&[fleet(name), listener(name, name, port)]).await?;
            let xds = control_plane.xds;
            let proxy = Proxy { fleet: name, id: "one", protocol: Protocol::Delta, xds, authority: &authority };
            let envoy = Envoy::of(&program, folder.path(), &proxy).await?;
            sides.push(Side { control_plane, api, fleet: name, web: ([127, 0, 0, 1], port).into(), envoy });
        }
        let (Some(right), Some(left)) = (sides.pop(), sides.pop()) else { unreachable!("two were pushed") };
        Ok(Some(Self { left, right, postgres, database, authority, program, folder }))
    }

    fn sides(&self) -> [&Side; 2] {
        [&self.left, &self.right]
    }

    /// Waits until both Envoys answer for `host` with `body`.
    async fn both_serve(&self, host: &str, body: &str) -> Result<()> {
        self.left.serves(host, body).await?;
        self.right.serves(host, body).await
    }
}

impl Side {
    async fn serves(&self, host: &str, body: &str) -> Result<()> {
        let what = format!("the Envoy of {} answers for {host} with {body:?}", self.fleet);
        until(&what, PATIENCE, async || {
            let response = Connection::open(self.web).await?.send(get(host, "/")).await?;
            ensure!(response.text() == body, "it answers {} {:?}", response.status, response.text());
            Ok(())
        })
        .await
    }
}

/// A route on these fleets that answers everything with `body`. A fleet's listener is called as the fleet is.
fn saying(name: &str, fleets: &[&str], body: &str) -> Value {
    let listeners: Vec<String> = fleets.iter().map(|fleet| format!("{fleet}/{fleet}")).collect();
    let rules = json!([{ "respond": { "status": 200, "body": body } }]);
    resource("Route", name, json!({ "listeners": listeners, "hosts": [host(name)], "rules": rules }))
}

fn host(name: &str) -> String {
    format!("{name}.example.com")
}

const BOTH: &[&str] = &["left", "right"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edits_through_either_replica_are_served_by_every_envoy() -> Result<()> {
    let Some(pair) = Pair::start().await? else { return Ok(()) };
    for edit in 0..100 {
        let body = format!("edit {edit}");
        pair.sides()[edit % 2].api.put(&saying("shop", BOTH, &body)).await?;
        pair.both_serve(&host("shop"), &body).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_is_held_open_hides_no_other() -> Result<()> {
    let Some(pair) = Pair::start().await? else { return Ok(()) };
    let store = store::open(&pair.database).await?;
    let held = store.begin().await?;
    let api = pair.left.api.clone();
    let later = tokio::spawn(async move { api.put(&saying("later", BOTH, "later")).await });
    until("the later write waits for the held one", PATIENCE, async || {
        let mut connection = PgConnection::connect(&pair.postgres.url()).await?;
        let waiting: i64 =
            sqlx::query_scalar("SELECT count(*) FROM pg_locks WHERE NOT granted").fetch_one(&mut connection).await?;
        ensure!(waiting > 0, "nothing waits for a lock");
        Ok(())
    })
    .await?;

    let document: Document = serde_json::from_value(saying("held", BOTH, "held"))?;
    let change = NewChange { key: document.key(), before: None, after: Some(Arc::new(document)) };
    let revision = NewRevision {
        author: "a test".into(),
        message: "held open".into(),
        at: std::time::SystemTime::now().into(),
        changes: vec![change],
        from: String::new(),
    };
    let held = held.commit(revision).await?;
    let later = later.await??;
    assert!(later["revision"].as_u64() > Some(held.summary.number), "{later}");
    pair.both_serve(&host("held"), "held").await?;
    pair.both_serve(&host("later"), "later").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fleets_edited_at_the_same_instant_miss_nothing() -> Result<()> {
    const EDITS: usize = 400;
    let Some(pair) = Pair::start().await? else { return Ok(()) };
    let [left, right] = pair.sides();
    for edit in 0..EDITS {
        let (ours, theirs) = (format!("left-{edit}"), format!("right-{edit}"));
        let (ours, theirs) = (saying(&ours, &["left"], &ours), saying(&theirs, &["right"], &theirs));
        // Each fleet is edited through the replica that serves the other.
        let (a, b) = tokio::join!(right.api.put(&ours), left.api.put(&theirs));
        a.with_context(|| format!("edit {edit} of left"))?;
        b.with_context(|| format!("edit {edit} of right"))?;
    }
    for side in pair.sides() {
        for edit in 0..EDITS {
            let name = format!("{}-{edit}", side.fleet);
            side.serves(&host(&name), &name).await?;
        }
    }
    let revisions = left.api.read("/api/v1/revisions?limit=1").await?;
    // One for each fleet and its listener, and one for each edit.
    assert_eq!(revisions["items"][0]["number"], 2 + 2 * EDITS);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_cut_off_from_notifications_still_learns() -> Result<()> {
    let Some(pair) = Pair::start().await? else { return Ok(()) };
    for round in 0..3 {
        let ended = pair.postgres.terminate_sessions("LISTEN").await?;
        ensure!(ended >= 1 || round > 0, "no replica listens");
        // At once, while nobody listens: the notification is lost, the change is not.
        let body = format!("round {round}");
        pair.sides()[round % 2].api.put(&saying("shop", BOTH, &body)).await?;
        pair.both_serve(&host("shop"), &body).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_database_the_control_plane_goes_on_except_for_writes() -> Result<()> {
    let Some(mut pair) = Pair::start().await? else { return Ok(()) };
    pair.left.api.put(&saying("shop", BOTH, "before")).await?;
    pair.both_serve(&host("shop"), "before").await?;

    pair.postgres.stop(Stop::Immediate).await?;
    for side in pair.sides() {
        let stored = side.api.read("/api/v1/routes/shop").await?;
        assert_eq!(stored["spec"]["rules"][0]["respond"]["body"], "before");
        let path = "/api/v1/routes/shop";
        let refused = side.api.json(Method::PUT, path, Some(&saying("shop", BOTH, "lost"))).await?;
        assert_eq!(refused.status, 503, "{}", refused.text());
        assert!(refused.header("retry-after").parse::<u32>().is_ok(), "{:?}", refused.headers);
        assert!(refused.header("content-type").starts_with("application/problem+json"));
    }
    // A proxy that starts now is served from what the replica has loaded.
    let (xds, authority) = (pair.left.control_plane.xds, &pair.authority);
    let proxy = Proxy { fleet: "left", id: "two", protocol: Protocol::Delta, xds, authority };
    let late = Envoy::of(&pair.program, pair.folder.path(), &proxy).await?;
    assert!(late.config_dump().await?.to_string().contains(&host("shop")), "the late proxy has no configuration");
    drop(late);
    pair.both_serve(&host("shop"), "before").await?;
    assert_eq!(pair.left.envoy.stat("control_plane.connected_state").await?, 1);

    pair.postgres.start_again().await?;
    until("writes work again, without a restart", PATIENCE, async || {
        pair.right.api.put(&saying("shop", BOTH, "after")).await
    })
    .await?;
    pair.both_serve(&host("shop"), "after").await
}

/// A control plane that answered before it has loaded would tell its proxies that they have nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_that_has_not_loaded_yet_tells_its_proxies_nothing() -> Result<()> {
    const TAKEN_AWAY: &str = "^(listener_manager\\.listener_removed|cluster_manager\\.cluster_removed)$";
    let Some(mut pair) = Pair::start().await? else { return Ok(()) };
    pair.left.api.put(&saying("shop", &["left"], "before")).await?;
    pair.left.serves(&host("shop"), "before").await?;
    let before = pair.left.envoy.stats(TAKEN_AWAY).await?;
    ensure!(before.len() == 2, "{before:?}");

    pair.left.control_plane.kill();
    pair.postgres.stop(Stop::Fast).await?;
    let Side { control_plane, envoy, .. } = &mut pair.left;
    let [knocks, handshakes] =
        ["upstream_cx_total", "ssl.handshake"].map(|stat| format!("cluster.{XDS_CLUSTER}.{stat}"));
    let (knocked, shaken) = (envoy.stat(&knocks).await?, envoy.stat(&handshakes).await?);
    tokio::try_join!(control_plane.start_again(), async {
        envoy.wait_for_stat(&knocks, |now| now > knocked).await?;
        assert_eq!(envoy.stat(&handshakes).await?, shaken, "it was let in");
        pair.postgres.start_again().await
    })?;
    pair.left.api.put(&saying("news", &["left"], "after")).await?;
    pair.left.serves(&host("news"), "after").await?;
    pair.left.serves(&host("shop"), "before").await?;
    assert_eq!(pair.left.envoy.stats(TAKEN_AWAY).await?, before);
    Ok(())
}
