//! Which requests a listener and its rules trace, seen by a collector behind a real Envoy.

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    client::request,
    collector::{Collector, Span},
    document::{listener, route, service, service_with},
    over_both_protocols,
    scene::Scene,
    upstream::{Echo, Upstream},
    wait::{PATIENCE, until},
};
use http::Method;
use serde_json::json;

/// A host of the routes here.
const HOST: &str = "shop.example.com";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

over_both_protocols!(Delta in delta: spans_of_the_chosen_requests_reach_the_collector);

/// The spans of requests for `path`, once there are so many.
async fn spans(collector: &Collector, path: &str, number: usize) -> Result<Vec<Span>> {
    until("spans arrive", PATIENCE, async || {
        let url = format!("http://{HOST}{path}");
        let spans: Vec<_> = collector.spans().into_iter().filter(|span| span.says("http.url") == url).collect();
        ensure!(spans.len() >= number, "{:#?}", collector.spans());
        Ok(spans)
    })
    .await
}

async fn spans_of_the_chosen_requests_reach_the_collector(scene: &Scene) -> Result<()> {
    let (upstream, collector) = (Upstream::start("shop").await?, Collector::start().await?);
    let mut web = listener("web", "edge", scene.web.port());
    web["spec"]["tracing"] = json!({
        "service": "collector",
        "sampling": { "random": 100 },
        "tags": [{ "name": "env", "literal": "prod" }, { "name": "tenant", "header": "x-tenant", "default": "nobody" }],
    });
    let rule = |path: &str, sampling| json!({ "match": { "path": { "exact": path } }, "to": [{ "service": "shop" }], "tracing": sampling });
    let rules = json!([
        rule("/quiet", json!({ "random": 0 })),
        rule("/asked", json!({ "random": 0, "client": 100 })),
        { "to": [{ "service": "shop" }] },
    ]);
    let refused = scene.api.json(Method::PUT, "/api/v1/listeners/web", Some(&web)).await?.json()?;
    assert_eq!(refused["problems"][0]["path"], "spec.tracing.service", "{refused}");
    let to = service_with("collector", &[collector.address], json!({ "protocol": "http2" }));
    let shop = service("shop", &[upstream.address]);
    scene.api.apply_and_wait(&[to, shop, route("shop", HOST, &rules), web]).await?;

    let ask = async |path: &str, headers: &[(&str, &str)]| -> Result<String> {
        let answer = scene.fetch(request(Method::GET, HOST, path, headers)).await?;
        let echo: Echo = serde_json::from_slice(&answer.body)?;
        echo.headers.get("traceparent").cloned().context("the service is told of no trace")
    };
    let caller = format!("00-{TRACE}-{CALLER}-01");
    for _ in 0..20 {
        let context = ask("/quiet", &[("x-client-trace-id", "mine")]).await?;
        ensure!(context.ends_with("-00"), "{context}");
    }
    ask("/asked", &[]).await?;
    let asked = ask("/asked", &[("x-client-trace-id", "mine")]).await?;
    ensure!(asked.ends_with("-01"), "{asked}");
    let below = ask("/below", &[("traceparent", &caller), ("x-tenant", "t1")]).await?;
    ensure!(below.starts_with(&format!("00-{TRACE}-")), "{below}");
    let mut contexts = Vec::new();
    for _ in 0..20 {
        contexts.push(ask("/cart", &[]).await?);
    }

    let cart = spans(&collector, "/cart", 20).await?;
    for span in &cart {
        let told = contexts.iter().any(|context| context.contains(&span.trace));
        ensure!(told && span.parent.is_empty() && span.ended && span.kind == "Server", "{span:#?}");
        let said = ["service.name", "env", "tenant"].map(|name| span.says(name));
        assert_eq!(said, ["edge", "prod", "nobody"], "{span:#?}");
    }
    let below = spans(&collector, "/below", 1).await?;
    assert_eq!((below[0].trace.as_str(), below[0].parent.as_str()), (TRACE, CALLER), "{below:#?}");
    assert_eq!(below[0].says("tenant"), "t1");
    assert_eq!(spans(&collector, "/asked", 1).await?.len(), 1, "that of the client who asked");
    assert_eq!(cart.len(), 20);
    assert_eq!(spans(&collector, "/quiet", 0).await?, [], "nothing is told of others");

    let deleted = scene.api.json(Method::DELETE, "/api/v1/services/collector", None).await?;
    assert_eq!(deleted.status, 422, "{}", deleted.text());
    Ok(())
}
