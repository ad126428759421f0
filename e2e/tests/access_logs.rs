//! What proxies write of requests, seen at a real Envoy: in files, on its output, and at a service.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    client::{get, request},
    document::{listener, route, service, service_with},
    log_service::LogService,
    over_both_protocols,
    scene::Scene,
    upstream::Upstream,
    wait::{PATIENCE, until},
};
use http::Method;
use serde_json::{Value, json};

/// A host of the routes here.
const HOST: &str = "shop.example.com";

over_both_protocols!(Delta in delta: lines_go_where_they_are_to, entries_go_to_a_service);

/// Listener `web` of `scene` with these logs.
fn logging(scene: &Scene, logs: &Value) -> Value {
    let mut web = listener("web", "edge", scene.web.port());
    web["spec"]["accessLogs"] = logs.clone();
    web
}

/// The lines of a file, once there are so many.
async fn lines(file: &Path, number: usize) -> Result<Vec<String>> {
    until("lines are written", PATIENCE, async || {
        let text = fs::read_to_string(file)?;
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        ensure!(lines.len() >= number, "{lines:#?}");
        Ok(lines)
    })
    .await
}

async fn lines_go_where_they_are_to(scene: &Scene) -> Result<()> {
    let upstream = Upstream::start("shop").await?;
    let file = |name: &str| scene.folder().join(name);
    let (objects, failures, usual) = (file("objects.log"), file("failures.log"), file("usual.log"));
    let logs = json!([
        { "to": { "file": objects }, "json": {
            "who": "%REQ(USER-AGENT)%", "status": "%RESPONSE_CODE%", "share": "100%%", "path": "%REQ(:PATH)%",
        } },
        { "to": { "file": failures }, "text": "%RESPONSE_CODE% %PATH(NQ)%", "filter": { "onlyErrors": true } },
        { "to": { "file": file("late.log") }, "text": "late", "filter": { "minDuration": "1h" } },
        { "to": { "file": file("odd.log") }, "text": "odd", "filter": { "minStatus": 404, "onlyErrors": true } },
        { "to": { "file": usual } },
        { "to": { "stdout": true }, "text": "on the output: %PATH%" },
        { "to": { "stderr": true }, "text": "on the error: %PATH%" },
    ]);
    let rules = json!([
        { "match": { "path": { "exact": "/missing" } }, "respond": { "status": 404 } },
        { "match": { "path": { "exact": "/gone" } }, "to": [{ "service": "nobody" }] },
        { "to": [{ "service": "shop" }] },
    ]);
    let nobody = service("nobody", &[([127, 0, 0, 1], 9).into()]);
    let shop = [service("shop", &[upstream.address]), nobody, route("shop", HOST, &rules), logging(scene, &logs)];
    scene.api.apply_and_wait(&shop).await?;

    let agent = ("user-agent", "\"quoted\", 7");
    for (path, status) in [("/cart?token=secret", 200), ("/missing", 404), ("/gone", 503)] {
        ensure!(scene.fetch(request(Method::GET, HOST, path, &[agent])).await?.status == status, "{path}");
    }
    let objects: Vec<Value> =
        lines(&objects, 3).await?.iter().map(|line| serde_json::from_str(line)).collect::<Result<_, _>>()?;
    let expected = json!({ "who": agent.1, "status": 200, "share": "100%", "path": "/cart?token=secret" });
    assert_eq!(objects[0], expected, "nobody can write fields of their own");
    assert_eq!(lines(&failures, 1).await?, ["503 /gone"], "nothing but failures");
    let usual = lines(&usual, 3).await?;
    ensure!(usual[0].contains("\"GET /cart HTTP/1.1\" 200") && usual[0].contains(HOST), "{usual:#?}");
    ensure!(!usual.join("").contains("secret"), "{usual:#?}");
    until("the output has it", PATIENCE, async || {
        let (output, log) = (scene.envoy.output(), scene.envoy.log());
        ensure!(output.contains("on the output: /gone") && log.contains("on the error: /gone"), "{output}{log}");
        Ok(())
    })
    .await?;
    ensure!(!scene.envoy.output().contains("on the error"), "{}", scene.envoy.output());
    assert_eq!(lines(&file("odd.log"), 1).await?, ["odd"], "all conditions hold");
    assert_eq!(fs::read_to_string(file("late.log"))?, "");
    Ok(())
}

async fn entries_go_to_a_service(scene: &Scene) -> Result<()> {
    let (upstream, logs) = (Upstream::start("shop").await?, LogService::start().await?);
    let to = json!({ "service": { "name": "logs", "logName": "shop", "requestHeaders": ["x-tenant"], "flushInterval": "1ms" } });
    let web = logging(scene, &json!([{ "to": to }]));
    let refused = scene.api.json(Method::PUT, "/api/v1/listeners/web", Some(&web)).await?.json()?;
    assert_eq!(refused["problems"][0]["path"], "spec.accessLogs[0].to.service.name", "{refused}");
    let shop = service("shop", &[upstream.address]);
    let rules = json!([{ "to": [{ "service": "shop" }] }]);
    let collector = service_with("logs", &[logs.address], json!({ "protocol": "http2" }));
    scene.api.apply_and_wait(&[shop, collector, route("shop", HOST, &rules), web]).await?;

    let asked = request(Method::POST, HOST, "/cart?a=b", &[("x-tenant", "t1"), ("cookie", "secret")]);
    ensure!(scene.fetch(asked).await?.status == 200);
    let (name, entry) =
        until("an entry arrives", PATIENCE, async || logs.entries().first().cloned().context("there is none")).await?;
    let request = entry.request.context("no request")?;
    assert_eq!((name.as_str(), request.authority.as_str(), request.path.as_str()), ("shop", HOST, "/cart?a=b"));
    assert_eq!(request.request_headers, [("x-tenant".to_owned(), "t1".to_owned())].into());

    // The service is kept for as long as something is sent to it.
    let kept = scene.api.json(Method::DELETE, "/api/v1/services/logs", None).await?;
    assert_eq!(kept.status, 422, "{}", kept.text());
    let silent = logging(scene, &json!([{ "to": to, "filter": { "percent": 0.01 } }]));
    scene.api.apply_and_wait(&[silent]).await?;
    let before = logs.entries().len();
    for _ in 0..50 {
        scene.fetch(get(HOST, "/")).await?;
    }
    scene.api.apply_and_wait(&[logging(scene, &json!([]))]).await?;
    ensure!(logs.entries().len() - before < 10, "{} of 50 were logged", logs.entries().len() - before);
    let deleted = scene.api.json(Method::DELETE, "/api/v1/services/logs", None).await?;
    assert_eq!(deleted.status, 200, "{}", deleted.text());
    scene.envoy.wait_for_stat("cluster_manager.cluster_removed", |removed| removed > 0).await?;
    Ok(())
}
