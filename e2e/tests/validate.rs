//! What only a real Envoy can know is refused before it is stored, where one is asked; and whoever asks it is in nobody's way.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    api::{Api, check_refusal},
    bootstrap::Protocol,
    certificates::Authority,
    client::{Response, fetch, get},
    control_plane::ControlPlane,
    document::{dns_service, fleet, fleet_asking, listener, resource, route_saying, route_to, service_with},
    port::free_port,
    raw::{self, patch},
    scene::Scene,
    wait::{PATIENCE, until},
};
use http::Method;
use serde_json::{Value, json};

const HOST: &str = "news.example.com";

/// A scene whose control plane asks the Envoy of the scene.
async fn scene() -> Result<Option<Scene>> {
    let Some(mut scene) = Scene::start(Protocol::Delta).await? else { return Ok(None) };
    let program = scene.program.display().to_string();
    scene.control_plane.start_again_with(&["--envoy-validate", &program]).await?;
    Ok(Some(scene))
}

async fn apply(api: &Api, query: &str, resources: &[Value]) -> Result<Response> {
    api.json(Method::POST, &format!("/api/v1/apply{query}"), Some(&json!({ "resources": resources }))).await
}

/// Resource, path and reason of each problem of a refused change.
fn problems(answer: &Response) -> Result<Vec<[String; 3]>> {
    ensure!(answer.status == 422, "{} {}", answer.status, answer.text());
    let refusal = check_refusal("a change", answer)?;
    let problems = refusal["problems"].as_array().context("no problems")?;
    Ok(problems
        .iter()
        .map(|problem| {
            ["resource", "path", "reason"].map(|field| problem[field].as_str().unwrap_or_default().to_owned())
        })
        .collect())
}

/// Routes that answer everything; if they are `bad`, the same domain is given twice, which no field's constraint forbids.
fn routes(name: &str, body: &str, bad: bool) -> Value {
    let hosts: Vec<_> =
        ["one", "other"][..1 + usize::from(bad)].iter().map(|host| raw::host(host, &raw::saying(body))).collect();
    patch(&format!("{name}-routes"), json!({ "resource": raw::routes(name, &hosts) }))
}

fn raw_listener(name: &str, port: u16) -> Value {
    patch(&format!("{name}-listener"), json!({ "resource": raw::listener(name, port, name, "raw") }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_envoy_knows_is_refused_and_named_and_not_stored() -> Result<()> {
    let Some(scene) = scene().await? else { return Ok(()) };
    let port = free_port();
    let raw = ([127, 0, 0, 1], port).into();
    let before = scene.api.everything().await?;
    let bad = [raw_listener("raw", port), routes("raw", "bad", true), route_saying("news", HOST, "news")];
    let reason = "makes a route raw that Envoy refuses: Only a single wildcard domain is permitted in route raw";
    for query in ["?dryRun=true", ""] {
        let found = problems(&apply(&scene.api, query, &bad).await?)?;
        assert_eq!(found, [["EnvoyPatch/raw-routes", "spec.resource", reason].map(str::to_owned)], "{query}");
    }
    let plan = scene.api.json(Method::POST, "/api/v1/plan", Some(&json!({ "resources": bad }))).await?;
    assert_eq!(problems(&plan)?.len(), 1);
    assert_eq!(scene.api.everything().await?, before);

    let good = [raw_listener("raw", port), routes("raw", "good", false), route_saying("news", HOST, "news")];
    apply(&scene.api, "?dryRun=true", &good).await?;
    let asked = scene.control_plane.metric("chancery_validation_duration_seconds_count").await?;
    scene.api.apply_and_wait(&good).await?;
    until("the listener answers", PATIENCE, async || {
        let response = fetch(raw, get(HOST, "/")).await?;
        ensure!(response.text() == "good", "{} {}", response.status, response.text());
        Ok(())
    })
    .await?;
    let again = scene.control_plane.metric("chancery_validation_duration_seconds_count").await?;
    assert!(asked > 0.0, "it is counted");
    assert_eq!(asked, again, "what a dry run was told is remembered");
    let quarantine = scene.api.read("/api/v1/quarantine?fleet=edge").await?;
    assert_eq!(quarantine["items"], json!([]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_culprit_among_many_is_named() -> Result<()> {
    let Some(scene) = scene().await? else { return Ok(()) };
    scene.api.apply(&[route_saying("news", HOST, "news"), route_saying("old", "old.example.com", "old")]).await?;
    let mut many: Vec<Value> =
        (0..20).map(|n| route_saying(&format!("r-{n}"), &format!("r-{n}.example.com"), "ok")).collect();
    // Domains are unique among the hosts of a listener, also those that the change does not touch.
    many.push(patch(
        "stolen",
        json!({
            "target": { "kind": "VirtualHost", "name": format!("web/{HOST}") },
            "merge": { "domains": ["old.example.com"] },
        }),
    ));
    let pem = |text: &str| json!({ "inline_string": text });
    let secret =
        json!({ "name": "own", "tls_certificate": { "certificate_chain": pem("x"), "private_key": pem("y") } });
    let secret = raw::typed("extensions.transport_sockets.tls.v3.Secret", secret);
    many.push(patch("secret", json!({ "resource": secret })));
    let cluster = json!({ "name": "odd", "type": "STATIC", "lb_policy": "CLUSTER_PROVIDED" });
    many.push(patch("cluster", json!({ "resource": raw::typed("config.cluster.v3.Cluster", cluster) })));

    let found = problems(&apply(&scene.api, "", &many).await?)?;
    let places: Vec<_> = found.iter().map(|[resource, path, _]| (resource.as_str(), path.as_str())).collect();
    assert_eq!(
        places,
        [
            ("EnvoyPatch/cluster", "spec.resource"),
            ("EnvoyPatch/secret", "spec.resource"),
            ("EnvoyPatch/stolen", "spec.merge"),
        ],
        "{found:?}"
    );
    for (problem, words) in found.iter().zip(["cluster 'odd'", "certificate chain", "domain old.example.com"]) {
        assert!(problem[2].contains(words), "{problem:?}");
    }
    Ok(())
}

/// Envoy on this machine must not mind what is only on the proxies'.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_right_is_taken() -> Result<()> {
    let Some(scene) = scene().await? else { return Ok(()) };
    let trap = scene.folder().join("written-by-validation");
    let tls = json!({ "certificateFile": "/etc/of-the-proxy/tls.crt", "privateKeyFile": "/etc/of-the-proxy/tls.key" });
    let https = resource(
        "Listener",
        "secure",
        json!({ "fleet": "inner", "address": "0.0.0.0", "port": 443, "protocol": "https", "tls": tls }),
    );
    let limiter = ([127, 0, 0, 1], free_port()).into();
    let log = raw::typed("extensions.access_loggers.file.v3.FileAccessLog", json!({ "path": trap }));
    let script = format!("local file = io.open('{}', 'w')", trap.display());
    let lua =
        raw::typed("extensions.filters.http.lua.v3.Lua", json!({ "default_source_code": { "inline_string": script } }));
    let mut scripted = raw::listener("scripted", 1, "raw", "raw");
    let filters = &mut scripted["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"];
    filters.as_array_mut().context("no filters")?.insert(0, json!({ "name": "lua", "typed_config": lua }));
    let mut of_inner = patch("scripted", json!({ "resource": scripted }));
    of_inner["spec"]["fleet"] = "inner".into();
    let mut logged = patch(
        "log",
        json!({
            "target": { "kind": "Listener", "name": "secure" },
            "path": "filter_chains[0].filters[0].typed_config",
            "merge": { "access_log": [{ "name": "file", "typed_config": log }] },
        }),
    );
    logged["spec"]["fleet"] = "inner".into();
    let inline = |file: &Path| Ok::<_, anyhow::Error>(json!({ "inline_string": fs::read_to_string(file)? }));
    let own = scene.authority.server()?;
    let certificate = json!({ "certificate_chain": inline(&own.certificate)?, "private_key": inline(&own.key)? });
    let secrets = [
        ("certificate", json!({ "tls_certificate": certificate })),
        ("authority", json!({ "validation_context": { "trusted_ca": inline(&scene.authority.file())? } })),
        ("tickets", json!({ "session_ticket_keys": { "keys": [{ "inline_string": "k".repeat(80) }] } })),
        ("generic", json!({ "generic_secret": { "secret": { "inline_string": "s" } } })),
    ];
    for (name, mut secret) in secrets {
        secret["name"] = name.into();
        let secret = raw::typed("extensions.transport_sockets.tls.v3.Secret", secret);
        scene.api.put(&patch(name, json!({ "resource": secret }))).await?;
    }
    let layer = raw::typed("service.runtime.v3.Runtime", json!({ "name": "more", "layer": { "a.b": 1 } }));
    scene.api.put(&patch("layer", json!({ "resource": layer }))).await?;
    let health = json!({ "healthCheck": { "path": "/health" } });
    scene
        .api
        .apply(&[
            fleet_asking("inner", &[limiter], json!({})),
            https,
            of_inner,
            logged,
            service_with("shop", &[([10, 0, 0, 1], 80).into(), ([10, 0, 0, 2], 80).into()], health),
            dns_service("far", "far.example.com", 80),
            route_to("shop", "shop.example.com", "shop"),
            route_to("far", "far.example.com", "far"),
        ])
        .await?;
    assert!(!trap.exists(), "a patch has written a file on the machine of the control plane");
    let metric = async |outcome: &str| {
        scene.control_plane.metric(&format!("chancery_validations_total{{outcome=\"{outcome}\"}}")).await
    };
    // Three secrets, the layer, and the fleets of the last change; nothing is asked of a secret that only extensions use.
    assert_eq!((metric("taken").await?, metric("failed").await?, metric("undecided").await?), (6.0, 0.0, 0.0));
    Ok(())
}

/// A control plane without proxies that asks this script, with `$file` the question, and two fleets.
async fn scripted(folder: &Path, script: &str) -> Result<(ControlPlane, Api)> {
    let authority = Authority::create(folder, "authority")?;
    let mut control_plane = ControlPlane::start_alone(folder, &authority).await?;
    let program = folder.join("envoy");
    let version = r#"[ "$1" = --version ] && { echo "envoy version: x/1.40.0/Clean/RELEASE/BoringSSL"; exit 0; }"#;
    fs::write(&program, format!("#!/bin/sh\nPATH=/usr/bin:/bin\n{version}\nfor file; do :; done\n{script}\n"))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    control_plane.start_again_with(&["--envoy-validate", &program.display().to_string()]).await?;
    let api = control_plane.caller();
    api.apply(&[fleet("edge"), fleet("inner"), listener("web", "edge", 80), listener("side", "inner", 81)]).await?;
    Ok((control_plane, api))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_envoy_that_hangs_is_in_nobodys_way() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let script = r#"grep -q slow "$file" && { touch "$0.hangs"; exec sleep 1000; }; exit 0"#;
    let (_control_plane, api) = scripted(folder.path(), script).await?;
    let slow = tokio::spawn({
        let api = api.clone();
        async move { apply(&api, "", &[listener("slow", "edge", 82)]).await }
    });
    until("Envoy hangs", PATIENCE, async || {
        ensure!(folder.path().join("envoy.hangs").exists());
        Ok(())
    })
    .await?;
    // Of another fleet, of the same, and what no Envoy sees.
    api.put(&listener("more", "inner", 83)).await?;
    api.put(&listener("other", "edge", 84)).await?;
    api.put(&resource("Service", "unused", json!({ "endpoints": [{ "address": "10.0.0.1", "port": 80 }] }))).await?;
    assert!(!slow.is_finished(), "the slow one was waited for");
    let before = api.everything().await?;
    let answer = tokio::time::timeout(Duration::from_secs(60), slow).await???;
    assert_eq!(answer.status, 503, "{}", answer.text());
    let problem = answer.json()?;
    assert_eq!(problem["type"], "https://chancery.dev/problems/no-verdict", "{problem}");
    assert!(!answer.header("retry-after").is_empty(), "{:?}", answer.headers);
    assert_eq!(api.everything().await?, before);
    Ok(())
}

/// What was judged is what is committed: a change that others made different meanwhile is judged once more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_changed_meanwhile_is_judged_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    // Waits at the first question about `mine`, and refuses it where the host of the other is beside.
    let script = r#"grep -q mine "$file" || exit 0
[ -e "$0.first" ] || { touch "$0.first"; until [ -e "$0.go" ]; do sleep 0.05; done; exit 0; }
grep -q theirs "$file" || exit 0
echo "error initializing configuration '$file': they do not go together" >&2; exit 1"#;
    let (_control_plane, api) = scripted(folder.path(), script).await?;
    let host = |name: &str| {
        let mut host = raw::host(&format!("web/{name}.example.com"), &raw::saying(name));
        host["domains"] = json!([format!("{name}.example.com")]);
        patch(name, json!({ "resource": raw::typed("config.route.v3.VirtualHost", host) }))
    };
    let mine = tokio::spawn({
        let (api, mine) = (api.clone(), host("mine"));
        async move { apply(&api, "", &[mine]).await }
    });
    until("the first is asked about", PATIENCE, async || {
        ensure!(folder.path().join("envoy.first").exists());
        Ok(())
    })
    .await?;
    api.put(&host("theirs")).await?;
    let before = api.everything().await?;
    fs::write(folder.path().join("envoy.go"), "")?;
    let found = problems(&mine.await??)?;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0][0], "EnvoyPatch/mine");
    assert!(found[0][2].contains("they do not go together"), "{found:?}");
    assert_eq!(api.everything().await?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_is_at_fault_stops_no_change() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (control_plane, api) = scripted(folder.path(), "echo no such library >&2; exit 127").await?;
    api.put(&route_saying("news", HOST, "news")).await?;
    assert!(control_plane.metric(r#"chancery_validations_total{outcome="failed"}"#).await? >= 1.0);
    assert!(control_plane.log().contains("no such library"), "{}", control_plane.log());
    Ok(())
}
