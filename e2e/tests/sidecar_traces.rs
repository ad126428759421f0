//! Traces through a real sidecar: a collector sees who asked whom, and requests do not depend on it.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    client::{Response, fetch, get, request},
    collector::{Collector, Span},
    document::{route, service},
    port::free_port,
    sidecar_scene::{SidecarScene, retried},
    upstream::{Echo, Upstream},
    wait::{PATIENCE, until},
};
use http::Method;
use serde_json::Value;

const HOST: &str = "shop.example.com";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// A service named `shop`, and a route to it that tries again.
fn shop(at: SocketAddr) -> [Value; 2] {
    [service("shop", &[at]), route("shop", HOST, &retried("shop"))]
}

async fn ask(at: SocketAddr, path: &str, header: &str, value: &str) -> Result<Response> {
    fetch(at, request(Method::GET, HOST, path, &[(header, value)])).await
}

/// What the application, or the service, was told under this name.
fn told(answer: &Response, header: &str) -> Result<String> {
    let echo: Echo = serde_json::from_value(answer.json()?)?;
    echo.headers.get(header).cloned().with_context(|| format!("no {header} in {echo:?}"))
}

/// Spans of the trace, once there are so many.
async fn arrived(collector: &Collector, trace: &str, number: usize) -> Result<Vec<Span>> {
    until("spans arrive", PATIENCE, async || {
        let spans: Vec<_> = collector.spans().into_iter().filter(|span| span.trace == trace).collect();
        ensure!(spans.len() >= number, "{spans:#?}");
        Ok(spans)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_sees_the_way_of_a_request_with_every_try() -> Result<()> {
    let collector = Collector::start().await?;
    let (application, behind) = (Upstream::start("application").await?, Upstream::start("shop").await?);
    let (url, app) = (collector.url(), application.address.to_string());
    let flags =
        ["--insecure", "--app-addr", &app, "--service", "cart", "--otlp-endpoint", &url, "--drain-seconds", "3"];
    let mut scene = SidecarScene::start(&shop(behind.address), &flags).await?;
    let (inbound, outbound) = (scene.sidecar.inbound, scene.sidecar.outbound);

    // Somebody calls the application, and it calls the shop, which fails however often it is tried.
    let caller = format!("00-{TRACE}-{CALLER}-01");
    let context = told(&ask(inbound, "/cart?token=secret", "traceparent", &caller).await?, "traceparent")?;
    behind.answer_with(503);
    ensure!(ask(outbound, "/items?token=secret", "traceparent", &context).await?.status == 503);
    let tries = usize::try_from(behind.requests())?;
    ensure!(tries > 1, "it was tried once");

    let spans = arrived(&collector, TRACE, tries + 2).await?;
    ensure!(spans.len() == tries + 2 && spans.iter().all(|span| span.ended && span.name == "GET"), "{spans:#?}");
    ensure!(spans.iter().all(|span| span.says("service.name") == "cart"), "{spans:#?}");
    ensure!(spans.iter().all(|span| span.says("service.instance.id") == "side"), "{spans:#?}");
    ensure!(!format!("{spans:?}").contains("secret"), "{spans:#?}");
    let way = |direction: &str| spans.iter().find(|span| span.says("chancery.direction") == direction).cloned();
    let way_in = way("inbound").context("no span of the way in")?;
    ensure!((way_in.kind.as_str(), way_in.parent.as_str()) == ("Server", CALLER), "{way_in:#?}");
    ensure!((way_in.says("http.response.status_code"), way_in.failed) == ("200", false), "{way_in:#?}");
    ensure!(context == format!("00-{TRACE}-{}-01", way_in.id), "the application was told {context}");
    let way_out = way("outbound").context("no span of the way out")?;
    ensure!((&way_out.kind, &way_out.parent) == (&"Server".to_owned(), &way_in.id), "{way_out:#?}");
    ensure!((way_out.says("http.response.status_code"), way_out.failed) == ("503", true), "{way_out:#?}");
    let mut resent = Vec::new();
    for span in spans.iter().filter(|span| span.kind == "Client") {
        ensure!(span.parent == way_out.id && span.failed && span.says("error.type") == "503", "{span:#?}");
        ensure!(span.says("chancery.endpoint") == behind.address.to_string(), "{span:#?}");
        ensure!(span.says("chancery.cluster") == "shop" && span.says("url.path") == "/items", "{span:#?}");
        resent.push(span.says("http.request.resend_count").parse().unwrap_or(0));
    }
    resent.sort_unstable();
    ensure!(resent == (0..tries).collect::<Vec<_>>(), "{resent:?}");

    // B3 goes on as B3, below the span of the try; and what has ended when the sidecar does is not lost.
    behind.answer_with(200);
    let other = TRACE.replace('4', "5");
    let answer = ask(outbound, "/", "b3", &format!("{other}-{CALLER}-1")).await?;
    let context = told(&answer, "b3")?;
    ensure!(told(&answer, "traceparent").is_err(), "{}", answer.text());
    scene.sidecar.ask_to_end()?;
    scene.sidecar.ended().await?;
    let spans = arrived(&collector, &other, 2).await?;
    let attempt = spans.iter().find(|span| span.kind == "Client").context("no span of the try")?;
    ensure!(context == format!("{other}-{}-1-{}", attempt.id, attempt.parent), "{context}: {spans:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_collector_spans_are_lost_and_nothing_else() -> Result<()> {
    let behind = Upstream::start("shop").await?;
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}");
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()), ("OTEL_SERVICE_NAME", "cart")];
    let scene = SidecarScene::start_in(&shop(behind.address), &["--insecure"], &variables).await?;
    let outbound = scene.sidecar.outbound;

    let lines = |what: &str| scene.sidecar.log().matches(what).count();
    let dropped = async || -> Result<f64> {
        let metrics = scene.sidecar.metrics().await?;
        let lines = metrics.lines().filter(|line| line.starts_with("chancery_traces_spans_dropped_total"));
        Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    };
    let (mut all, mut good, mut first) = (0, 0, 0.0);
    until("spans are lost twice", PATIENCE, async || {
        all += 1;
        good += u32::from(fetch(outbound, get(HOST, "/")).await?.status == 200);
        let lost = dropped().await?;
        if first == 0.0 {
            first = lost;
        }
        ensure!(lost > first, "{lost} are lost, {first} of them at first");
        Ok(())
    })
    .await?;
    ensure!(good == all, "{good} of {all} requests were answered");
    ensure!(lines("takes no traces") == 1, "{}", scene.sidecar.log());

    let collector = Collector::start_at(port).await?;
    until("spans arrive again", PATIENCE, async || {
        ensure!(fetch(outbound, get(HOST, "/")).await?.status == 200);
        let spans = collector.spans();
        ensure!(spans.iter().any(|span| span.kind == "Client" && span.says("service.name") == "cart"), "{spans:?}");
        Ok(())
    })
    .await?;
    ensure!(lines("takes no traces") == 1 && lines("takes traces again") == 1, "{}", scene.sidecar.log());
    Ok(())
}
