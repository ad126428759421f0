//! The harness itself, with a real Envoy and no control plane: what the other tests rely on to tell the truth.

use std::net::SocketAddr;

use anyhow::Result;
use chancery_e2e::{
    bootstrap::fixed,
    client::{Connection, fetch, get, request},
    envoy::Envoy,
    load::Load,
    port::free_port,
    required,
    upstream::{Echo, Upstream},
};
use http::Method;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_envoy_carries_requests_and_tells_its_stats() -> Result<()> {
    let Some(program) = required::envoy() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let upstream = Upstream::start("blue").await?;
    let web = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut envoy = Envoy::start(&program, folder.path(), "envoy", &fixed(web, upstream.address)).await?;
    envoy.live().await?;

    let response = fetch(web, request(Method::PUT, "a.example", "/p?q=1", &[("x-test", "yes")])).await?;
    let echo: Echo = serde_json::from_slice(&response.body)?;
    assert_eq!((response.header("x-upstream"), &*echo.method, &*echo.path, &*echo.query), ("blue", "PUT", "/p", "q=1"));
    assert_eq!((&*echo.host, &*echo.headers["x-test"]), ("a.example", "yes"));

    let load = Load::start(web, 4, || get("a.example", "/"));
    load.goes_on_for(200).await?;
    let tally = load.stop().await?;
    assert_eq!(tally.failed(), 0, "{tally}");
    assert_eq!(upstream.requests(), tally.requests() + 1);
    assert_eq!(envoy.wait_for_stat("http.web.downstream_rq_total", |n| n > 200).await?, tally.requests() + 1);
    assert!(envoy.config_dump().await?["configs"].is_array());
    assert!(envoy.terminate().await?.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_counts_what_it_loses() -> Result<()> {
    let upstream = Upstream::start("blue").await?;
    let load = Load::start(upstream.address, 2, || get("a.example", "/"));
    load.goes_on_for(20).await?;
    upstream.answer_with(503);
    load.goes_on_for(20).await?;
    drop(upstream);
    load.goes_on_for(20).await?;
    let tally = load.stop().await?;
    assert!(tally.by_status[&200] >= 20 && tally.by_status[&503] >= 10 && tally.errors >= 10, "{tally}");
    assert_eq!(tally.failed(), tally.by_status[&503] + tally.errors);
    assert_eq!(tally.first_failures.len(), 10);
    assert!(tally.first_failures[0].contains("503"), "{tally}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_connection_survives_an_announced_close() -> Result<()> {
    let Some(program) = required::envoy() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let upstream = Upstream::start("blue").await?;
    let web = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let envoy = Envoy::start(&program, folder.path(), "envoy", &fixed(web, upstream.address)).await?;
    envoy.live().await?;

    let mut connection = Connection::open(web).await?;
    connection.send(get("a.example", "/")).await?;
    envoy.tell("/healthcheck/fail").await?;
    let last = connection.send(get("a.example", "/")).await?;
    assert_eq!(last.header("connection"), "close", "Envoy announces the close while it drains");
    assert_eq!(connection.send(get("a.example", "/")).await?.status, 200);
    Ok(())
}
