//! One trace of an edit: from the request to the API of one replica through the database, to what every proxy on every replica says of it.

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    bootstrap::{Protocol, Proxy},
    certificates::Authority,
    client::{fetch, request},
    collector::{Collector, Span},
    command::User,
    control_plane::{ADMIN_TOKEN, ControlPlane},
    document::{fleet, listener, route_saying},
    envoy::Envoy,
    port::free_port,
    postgres::Postgres,
    required,
    wait::{PATIENCE, until},
};
use http::{Method, header};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
const REPLICAS: [&str; 2] = ["left", "right"];

/// A route on both fleets that answers with `body`.
fn on_both(name: &str, body: &str) -> Value {
    let mut route = route_saying(name, &format!("{name}.example.com"), body);
    route["spec"]["listeners"] = json!(["left/left", "right/right"]);
    route
}

/// Spans of `trace`, once they are as `wanted`.
async fn spans(collector: &Collector, trace: &str, wanted: impl Fn(&[Span]) -> Result<()>) -> Result<Vec<Span>> {
    until(&format!("trace {trace} is whole"), PATIENCE, async || {
        let spans: Vec<_> = collector.spans().into_iter().filter(|span| span.trace == trace).collect();
        wanted(&spans).with_context(|| format!("{spans:#?}"))?;
        Ok(spans)
    })
    .await
}

/// The one span with this name that a replica has made, of those that say `what`.
fn one<'s>(spans: &'s [Span], replica: &str, name: &str, what: &[(&str, &str)]) -> Result<&'s Span> {
    let is = |span: &&Span| {
        span.name == name
            && span.says("service.instance.id") == replica
            && what.iter().all(|(key, value)| span.says(key) == *value)
    };
    let found: Vec<_> = spans.iter().filter(is).collect();
    ensure!(found.len() == 1, "{} spans {name} of {replica} with {what:?}", found.len());
    Ok(found[0])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_is_one_trace_over_all_replicas_to_every_proxy() -> Result<()> {
    let (Some(program), Some(postgres)) = (required::envoy(), Postgres::start().await?) else { return Ok(()) };
    let (database, collector) = (postgres.create_database().await?, Collector::start().await?);
    let folder = tempfile::tempdir()?;
    let authority = Authority::create(folder.path(), "authority")?;
    let (mut planes, mut envoys) = (Vec::new(), Vec::new());
    for name in REPLICAS {
        let mut plane = ControlPlane::start(folder.path(), name, &database, &authority).await?;
        let answer = fetch(plane.api, request(Method::GET, "api", "/api/v1/whoami", &[])).await?;
        ensure!(answer.header("x-trace-id").is_empty(), "traces are off unless they are asked for");
        plane.start_again_with(&["--otlp-endpoint", &collector.url(), "--replica-name", name]).await?;
        plane.caller().apply(&[fleet(name), listener(name, name, free_port())]).await?;
        let proxy =
            Proxy { fleet: name, id: "envoy", protocol: Protocol::Delta, xds: plane.xds, authority: &authority };
        envoys.push(Envoy::of(&program, folder.path(), &proxy).await?);
        planes.push(plane);
    }
    // What begins with a stream is over when both have taken something.
    planes[0].caller().apply_and_wait(&[on_both("before", "before")]).await?;
    planes[1].caller().apply_and_wait(&[on_both("before", "and again")]).await?;

    // One edit: a route for both, and for one a listener that only its Envoy can know to be impossible.
    let taken = TcpListener::bind("0.0.0.0:0").await?;
    let resources = [on_both("shop", "a-secret-body"), listener("taken", "right", taken.local_addr()?.port())];
    let (token, context) = (format!("Bearer {ADMIN_TOKEN}"), format!("00-{TRACE}-{CALLER}-01"));
    let headers = [
        (header::AUTHORIZATION.as_str(), token.as_str()),
        ("content-type", "application/json"),
        ("traceparent", &context),
        ("x-request-id", "edit-1"),
    ];
    let body = json!({ "resources": resources }).to_string();
    let edit = request(Method::POST, "api", "/api/v1/apply?message=a-secret-query", &headers);
    let answer = fetch(planes[0].api, edit.map(|_| body.into())).await?;
    ensure!(answer.status == 200 && answer.header("x-trace-id") == TRACE, "{} {}", answer.status, answer.text());
    let revision = answer.json()?["revision"].to_string();

    let host = [("chancery.type", "virtualHost")];
    let refused = [("chancery.type", "listener")];
    let whole = |spans: &[Span]| -> Result<()> {
        let request = one(spans, "left", "POST /api/v1/apply", &[("chancery.request_id", "edit-1")])?;
        ensure!((request.parent.as_str(), request.kind.as_str()) == (CALLER, "Server"), "{request:#?}");
        ensure!(request.says("http.response.status_code") == "200", "{request:#?}");
        let below = |replica: &str, name: &str, parent: &Span| {
            let made = |span: &&Span| span.says("service.instance.id") == replica && span.name == name;
            let found: Vec<_> = spans.iter().filter(made).filter(|span| span.parent == parent.id).collect();
            ensure!(
                found.len() == 1 && !found[0].failed,
                "{} spans {name} of {replica} below {parent:#?}",
                found.len()
            );
            Ok(found[0])
        };
        below("left", "authorize", request)?;
        let commit = below("left", "commit", request)?;
        ensure!(commit.says("chancery.revision") == revision, "{commit:#?}");
        let transaction = below("left", "transaction", commit)?;
        for step in ["lock", "check", "translate", "write"] {
            below("left", step, transaction)?;
        }
        let follow = below("right", "follow", commit)?;
        below("right", "translate", follow)?;
        // A poll may be faster than the writer: then it follows itself.
        let published = one(spans, "left", "follow", &[]).unwrap_or(commit);
        ensure!(published.id == commit.id || published.parent == commit.id, "{published:#?}");
        for (replica, above) in [("left", published), ("right", follow)] {
            for fleet in REPLICAS {
                let publish = one(spans, replica, "publish", &[("chancery.fleet", fleet)])?;
                ensure!(publish.parent == above.id, "{publish:#?}");
            }
            let publish = one(spans, replica, "publish", &[("chancery.fleet", replica)])?;
            let answer = one(spans, replica, "acknowledge", &host)?;
            ensure!(
                (&answer.parent, answer.kind.as_str(), answer.failed) == (&publish.id, "Client", false),
                "{answer:#?}"
            );
            ensure!(
                (answer.says("chancery.proxy"), answer.says("chancery.fleet")) == ("envoy", replica),
                "{answer:#?}"
            );
            ensure!(answer.says("chancery.revision") == revision && !answer.says("chancery.version").is_empty());
        }
        let rejection = one(spans, "right", "acknowledge", &refused)?;
        ensure!(rejection.failed && rejection.words.contains("in use"), "{rejection:#?}");
        ensure!(one(spans, "left", "acknowledge", &refused).is_err(), "nothing of it concerns the other fleet");
        Ok(())
    };
    let all = spans(&collector, TRACE, whole).await?;
    ensure!(all.iter().all(|span| span.ended && span.says("service.name") == "chancery-control-plane"), "{all:#?}");

    // The command asks for a trace, and says which.
    let user = User::in_folder(folder.path()).of(&format!("http://{}", planes[1].api), ADMIN_TOKEN);
    let outcome = user.runs("delete route before --trace", "").await?;
    let trace = outcome.errors.lines().find_map(|line| line.strip_prefix("trace ")).context("no trace is said")?;
    let deleted = |spans: &[Span]| {
        one(spans, "left", "acknowledge", &host).and_then(|_| one(spans, "right", "acknowledge", &host)).map(drop)
    };
    spans(&collector, trace, deleted).await?;

    let everything = format!("{:?}", collector.spans());
    for secret in ["a-secret", ADMIN_TOKEN, &database] {
        ensure!(!everything.contains(secret), "{secret} is told of");
    }
    for plane in &planes {
        ensure!(plane.metric("chancery_traces_spans_dropped_total").await? == 0.0);
    }
    // What was told of a request in its trace is found in the log by the same id, and by that of the request.
    let committed = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["message"] == "committed" && line["traceId"] == TRACE && line["requestId"] == "edit-1").then_some(())
    };
    ensure!(planes[0].log().lines().find_map(committed).is_some(), "{}", planes[0].log());
    Ok(())
}
