//! What is secret stays out of the logs of every program, also where everything is logged that there is, libraries included.
//!
//! Each secret is planted where it belongs or where it gets by mistake, with a word in it that nothing else has.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    api::Api,
    certificates::Authority,
    client::{fetch, request},
    control_plane::{ADMIN_TOKEN, ControlPlane},
    document::{fleet, listener, route_saying, route_to, service},
    limiter::Limiter,
    port::free_port,
    postgres::Postgres,
    process::own_program,
    redis::Redis,
    sidecar::Sidecar,
    upstream::Upstream,
    wait::{PATIENCE, until},
};
use http::Method;
use serde_json::json;

/// In everything that is planted.
const WORD: &str = "hush";
const HOST: &str = "shop.example.com";
const RULES: &str = "
domain: web
descriptors:
  - key: api_key
    rate_limit: { unit: hour, requests_per_unit: 1000 }
";

/// Nothing secret is in the log, which is as long as it can be.
fn check(program: &str, log: &str, secrets: &[String]) -> Result<()> {
    ensure!(log.contains(r#""level":"TRACE""#), "{program} does not log everything");
    for secret in secrets {
        let found = log.lines().find(|line| line.contains(secret.as_str()));
        ensure!(found.is_none(), "{program} logs {secret}: {}", found.unwrap_or_default());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_secret_is_logged_at_the_most_verbose_level() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let Some(postgres) = Postgres::start().await? else { return Ok(()) };
    let Some(redis) = Redis::start(folder.path()).await? else { return Ok(()) };
    let authority = Authority::create(folder.path(), "authority")?;
    let database = postgres.create_database().await?.replace("postgres@", "postgres:hush-of-the-database@");
    let mut plane = ControlPlane::start(folder.path(), "plane", &database, &authority).await?;
    plane.start_again_with(&["--log", "trace"]).await?;
    let admin = plane.caller();
    let (application, behind) = (Upstream::start("application").await?, Upstream::start("shop").await?);
    let resources = [
        fleet("edge"),
        listener("web", "edge", free_port()),
        service("shop", &[behind.address]),
        route_to("shop", HOST, "shop"),
        route_saying("said", "said.example.com", "hush-in-a-resource"),
    ];
    admin.apply(&resources).await?;

    // Tokens: made, used, wrong; and what else comes with a request.
    let wanted = json!({ "name": "ci", "role": "viewer", "scopes": ["*:read"] });
    let made = admin.json(Method::POST, "/api/v1/tokens", Some(&wanted)).await?;
    let token = made.json()?["token"].as_str().context("a token is made")?.to_owned();
    ensure!(Api::new(plane.api, &token).json(Method::GET, "/api/v1/whoami", None).await?.status == 200);
    let headers = |authorization| {
        [("authorization", authorization), ("cookie", "session=hush-cookie"), ("x-api-key", "hush-key")]
    };
    let wrong = request(Method::GET, "api", "/api/v1/routes?cursor=hush-query", &headers("Bearer hush-wrong"));
    ensure!(fetch(plane.api, wrong).await?.status == 401);
    let bad = json!({ "kind": "Route", "name": "bad", "spec": { "nonsense": "hush-in-a-body" } });
    ensure!(admin.json(Method::PUT, "/api/v1/routes/bad", Some(&bad)).await?.status == 422);

    // A sidecar, and a request in and out through it.
    let app = application.address.to_string();
    let flags = ["--insecure", "--app-addr", &app, "--log", "trace"];
    let sidecar = Sidecar::start(folder.path(), "side", &authority, plane.xds, &flags).await?;
    sidecar.ready().await?;
    let jwt = "Bearer eyJhbGciOiJSUzI1NiJ9.hush-jwt.c2lnbmF0dXJl";
    for port in [sidecar.inbound, sidecar.outbound] {
        let path = "/items?access_token=hush-query";
        until("the request is answered", PATIENCE, async || {
            let mut asked = request(Method::POST, HOST, path, &headers(jwt));
            *asked.body_mut() = "password=hush-form".into();
            ensure!(fetch(port, asked).await?.status == 200);
            Ok(())
        })
        .await?;
    }

    // A limiter that has to know a password, and is asked about keys of users.
    ensure!(redis.cli(&["config", "set", "requirepass", "hush-of-redis"])?.contains("OK"));
    let rules = folder.path().join("rules.yaml");
    fs::write(&rules, RULES)?;
    let store = format!("redis://:hush-of-redis@{}", redis.address);
    let arguments = ["--store", &store, "--config", rules.to_str().context("path")?, "--log", "trace"];
    let limiter = Limiter::start(folder.path(), "limiter", &arguments).await?;
    let mut client = limiter.client().await?;
    ensure!(client.passes("web", &[("api_key", "hush-key")]).await?);
    let body = json!({ "domain": "web", "descriptors": [{ "entries": [{ "key": "api_key", "value": "hush-key" }] }] });
    let mut asked = request(Method::POST, "limiter", "/json", &headers(jwt));
    *asked.body_mut() = body.to_string().into();
    ensure!(fetch(limiter.http, asked).await?.status == 200);
    until("Redis is asked with its password", PATIENCE, async || {
        ensure!(limiter.log().contains("connected to Redis"), "{}", limiter.log().lines().last().unwrap_or_default());
        Ok(())
    })
    .await?;

    let mut secrets = vec![WORD.to_owned(), ADMIN_TOKEN.to_owned(), token];
    for entry in fs::read_dir(folder.path())? {
        let path = entry?.path();
        let text = fs::read_to_string(&path).unwrap_or_default();
        if text.contains("PRIVATE KEY") {
            secrets.push(text.lines().nth(1).context("a key has lines")?.to_owned());
        }
    }
    ensure!(secrets.len() > 5, "only {} secrets: no key is found", secrets.len());
    check("the control plane", &plane.log(), &secrets)?;
    check("the sidecar", &sidecar.log(), &secrets)?;
    check("the rate limiter", &limiter.log(), &secrets)?;
    Ok(())
}

#[test]
fn a_url_that_cannot_be_used_is_not_repeated() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::create(folder.path(), "authority")?;
    let server = authority.server()?;
    let [certificate, key, ca, data] = [server.certificate, server.key, authority.file(), folder.path().join("data")]
        .map(|path| path.display().to_string());
    let anywhere = "127.0.0.1:0";
    let plane = ["--tls-cert", &certificate, "--tls-key", &key, "--client-ca", &ca, "--data-dir", &data]
        .into_iter()
        .chain(["--api-addr", "--xds-addr", "--admin-addr"].into_iter().flat_map(|flag| [flag, anywhere]));
    let plane: Vec<&str> = plane.collect();
    let limiter = ["--insecure", "--grpc-addr", anywhere, "--http-addr", anywhere];
    for (program, more, flags) in [
        ("chancery-control-plane", plane.as_slice(), ["--database", "postgres://me:hush@127.0.0.1:notaport/x"]),
        ("chancery-control-plane", &plane, ["--database", "mysql://me:hush@127.0.0.1/x"]),
        ("chancery-rate-limiter", &limiter, ["--store", "redis://me:hush@127.0.0.1:notaport"]),
        ("chancery-rate-limiter", &limiter, ["--store", "http://me:hush@127.0.0.1"]),
    ] {
        let ended = Command::new(own_program(program)?).args(flags).args(more).args(["--log", "trace"]).output()?;
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        ensure!(!ended.status.success() && said.contains("error:"), "{program} {flags:?}: {said}");
        ensure!(!said.contains(WORD), "{program} {flags:?}: {said}");
    }
    Ok(())
}
