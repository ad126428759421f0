//! The same routes and the same faults through a real Envoy and through the sidecar: each row of `docs/sidecar-envoy.md` is as it
//! says there.

use std::{fs, net::SocketAddr, path::Path};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    bootstrap::Protocol,
    client::{Connection, fetch, request},
    demo::Demo,
    document::{route, service, service_with},
    scene::Scene,
    sidecar::Sidecar,
    sidecar_scene::retried,
    wait::{PATIENCE, until},
};
use http::Method;
use serde_json::{Value, json};

const HOST: &str = "shop.example.com";

/// Both, under one control plane.
struct Both {
    scene: Scene,
    sidecar: Sidecar,
}

impl Both {
    async fn start(resources: &[Value]) -> Result<Option<Self>> {
        let Some(scene) = Scene::start(Protocol::Delta).await? else { return Ok(None) };
        scene.api.apply_and_wait(resources).await?;
        let xds = scene.control_plane.xds;
        let sidecar = Sidecar::start(scene.folder(), "side", &scene.authority, xds, &["--insecure"]).await?;
        sidecar.ready().await?;
        let both = Self { scene, sidecar };
        for address in both.addresses() {
            until("it serves", PATIENCE, async || {
                let answer = fetch(address, request(Method::GET, HOST, "/", &[])).await?;
                ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
                Ok(())
            })
            .await?;
        }
        Ok(Some(both))
    }

    /// Of Envoy, and of the sidecar.
    fn addresses(&self) -> [SocketAddr; 2] {
        [self.scene.web, self.sidecar.outbound]
    }
}

/// The rows of the table: case, Envoy, sidecar.
fn table() -> Result<Vec<[String; 3]>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/sidecar-envoy.md");
    let text = fs::read_to_string(file)?;
    let rows = text.lines().filter(|line| line.starts_with("| GET") || line.starts_with("| POST"));
    rows.map(|row| {
        let cells: Vec<String> = row.split('|').map(|cell| cell.trim().to_owned()).collect();
        let [_, case, envoy, sidecar, ..] = &cells[..] else { anyhow::bail!("no row: {row}") };
        Ok([case.clone(), envoy.clone(), sidecar.clone()])
    })
    .collect()
}

/// What comes of one request under a fault.
async fn outcome(address: SocketAddr, demo: &Demo, method: &Method, fault: &str) -> Result<String> {
    let faults = json!({ "faults": { fault: 1.0 }, "latencyMs": 3000 });
    let mut connection = Connection::open(address).await?;
    // A connection to the service that is there already, so that it can be used again.
    demo.fails(&json!({})).await?;
    until("it serves", PATIENCE, async || {
        let answer = connection.send(request(Method::GET, HOST, "/", &[])).await?;
        ensure!(answer.status == 200, "{}", answer.status);
        Ok(())
    })
    .await?;
    demo.fails(&faults).await?;
    let before = demo.counted().await?.executions;
    let said = match connection.send(request(method.clone(), HOST, "/", &[])).await {
        Ok(answer) => answer.status.to_string(),
        Err(_) => "broken off".to_owned(),
    };
    let executions = demo.counted().await?.executions - before;
    Ok(format!("{said}, {executions} execution{}", if executions == 1 { "" } else { "s" }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_every_fault_both_do_what_the_table_says() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let demo = Demo::start(folder.path(), "demo", 1).await?;
    let mut rules = retried("shop");
    rules[0]["retry"]["perTryTimeout"] = "250ms".into();
    let Some(both) = Both::start(&[service("shop", &demo.upstreams), route("shop", HOST, &rules)]).await? else {
        return Ok(());
    };
    let rows = table()?;
    ensure!(rows.len() >= 12, "the table has {} rows", rows.len());
    let mut wrong = Vec::new();
    for [case, envoy, sidecar] in rows {
        let (method, fault) = case.split_once(", ").context("a case is a method and a fault")?;
        let method: Method = method.parse()?;
        for (who, address, wanted) in
            [("Envoy", both.addresses()[0], envoy), ("the sidecar", both.addresses()[1], sidecar)]
        {
            let said = outcome(address, &demo, &method, fault).await.with_context(|| format!("{case}, {who}"))?;
            println!("{case}: {who}: {said}");
            if said != wanted {
                wrong.push(format!("{case}: {who}: {said}, and not {wanted}"));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_that_always_fails_is_left_out_by_both() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (bad, good) = (Demo::start(folder.path(), "bad", 1).await?, Demo::start(folder.path(), "good", 2).await?);
    let all = [&bad.upstreams[..], &good.upstreams[..]].concat();
    let shop = service_with("shop", &all, json!({ "outlierDetection": { "maxEjectedPercent": 10 } }));
    let rules = json!([{ "match": { "path": { "prefix": "/" } }, "to": [{ "service": "shop" }] }]);
    let Some(both) = Both::start(&[shop, route("shop", HOST, &rules)]).await? else { return Ok(()) };
    bad.fails(&json!({ "faults": { "error": 1 }, "status": 500 })).await?;
    let mut failed = Vec::new();
    for address in both.addresses() {
        let mut connection = Connection::open(address).await?;
        let mut count = 0;
        for _ in 0..90 {
            count += u32::from(connection.send(request(Method::GET, HOST, "/", &[])).await?.status != 200);
        }
        failed.push(count);
    }
    println!("of 90 requests {failed:?} failed, of Envoy and of the sidecar");
    ensure!(failed[0] == 5, "{failed:?}");
    ensure!((1..=3).contains(&failed[1]), "{failed:?}");
    Ok(())
}
