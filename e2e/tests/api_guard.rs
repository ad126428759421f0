//! What callers of the API cannot do, whatever they send and how often: hold it up, guess, or have something done twice.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    api::{Api, check_refusal},
    certificates::Authority,
    client::{Response, fetch, get, request},
    command::User,
    control_plane::{ADMIN_TOKEN, ControlPlane},
    document::{fleet, service},
    postgres::Postgres,
    wait::{PATIENCE, until},
};
use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// Longer than the API waits for any request.
const GIVES_UP_WITHIN: Duration = Duration::from_secs(60);

async fn start(arguments: &[&str]) -> Result<(ControlPlane, TempDir)> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::create(folder.path(), "authority")?;
    let mut control_plane = ControlPlane::start_alone(folder.path(), &authority).await?;
    if !arguments.is_empty() {
        control_plane.start_again_with(arguments).await?;
    }
    Ok((control_plane, folder))
}

/// What a stranger hears who sends `bytes` and then nothing, until the connection is closed.
async fn stalled(address: SocketAddr, bytes: &[u8]) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(bytes).await?;
    let mut heard = Vec::new();
    // A connection that is cut off may be reset.
    let _ = timeout(GIVES_UP_WITHIN, stream.read_to_end(&mut heard)).await.context("it is held for ever")?;
    Ok(String::from_utf8_lossy(&heard).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sends_slowly_is_cut_off_and_holds_nobody_up() -> Result<()> {
    let (control_plane, _folder) = start(&[]).await?;
    let address = control_plane.api;
    let body = format!(
        "POST /api/v1/apply HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\
         Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
    );
    let held = tokio::spawn(async move {
        tokio::try_join!(
            stalled(address, b""),
            stalled(address, b"GET /api/v1/whoami HTTP/1.1\r\nHost: a\r\nX-Slow: "),
            stalled(address, b"PRI * HTTP/2.0\r\n"),
            stalled(address, body.as_bytes()),
        )
    });
    ensure!(control_plane.caller().read("/api/v1/whoami").await?["name"] == "admin");
    let (nothing, head, preface, body) = held.await??;
    for silent in [nothing, head, preface] {
        ensure!(!silent.contains("200 OK"), "{silent}");
    }
    ensure!(body.starts_with("HTTP/1.1 408 ") && body.contains("problems/slow-body"), "{body}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_is_refused_with_a_reason() -> Result<()> {
    let (control_plane, _folder) = start(&[]).await?;
    let api = control_plane.caller();
    let json = ("content-type", "application/json");
    let long = format!("/api/v1/services?label={}", "x".repeat(20_000));
    let large = "x".repeat(40_000);
    for (status, path, headers, body) in [
        (413, "/api/v1/apply", vec![json], " ".repeat(9 << 20)),
        (414, long.as_str(), vec![json], String::new()),
        (431, "/api/v1/apply", vec![json, ("x-large", large.as_str())], "{}".to_owned()),
        (415, "/api/v1/apply", vec![("content-type", "text/html")], "{}".to_owned()),
    ] {
        let answer = api.send(Method::POST, path, &headers, body).await?;
        let problem = check_refusal(&format!("{status}"), &answer)?;
        ensure!(problem["status"] == status, "{problem}");
        ensure!(!answer.header("x-request-id").is_empty());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_found_in_the_log_by_its_id() -> Result<()> {
    let (control_plane, _folder) = start(&[]).await?;
    let headers = [("content-type", "application/json"), ("x-request-id", "who-did-this-1")];
    let body = json!({ "resources": [fleet("edge")] }).to_string();
    let answer = control_plane.caller().send(Method::POST, "/api/v1/apply", &headers, body).await?;
    ensure!(answer.status == 200 && answer.header("x-request-id") == "who-did-this-1", "{}", answer.text());
    until("the commit is in the log", PATIENCE, async || {
        let log = control_plane.log();
        let line = log.lines().find(|line| line.contains("committed")).with_context(|| log.clone())?;
        ensure!(line.contains("who-did-this-1"), "{line}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_too_often_waits_and_the_command_does_so_by_itself() -> Result<()> {
    let (control_plane, folder) = start(&["--api-token-rate", "1"]).await?;
    let api = control_plane.caller();
    let answer = until("the token has asked too often", PATIENCE, async || {
        let answer = api.send(Method::GET, "/api/v1/whoami", &[], "").await?;
        ensure!(answer.status == 429, "{}", answer.status);
        Ok(answer)
    })
    .await?;
    check_refusal("429", &answer)?;
    ensure!(answer.header("retry-after") == "1" && answer.header("ratelimit").contains("r=0"), "{:?}", answer.headers);
    let user = User::in_folder(folder.path()).of(&format!("http://{}", control_plane.api), ADMIN_TOKEN);
    let file = serde_json::to_string(&fleet("edge"))?;
    user.does("apply -f -", &file).await?;
    ensure!(user.asks("get fleet edge -o json").await?["name"] == "edge");
    ensure!(fetch(control_plane.admin, get("admin", "/livez")).await?.status == 200, "health is asked elsewhere");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_guesses_tokens_is_not_looked_at_and_others_are() -> Result<()> {
    let (control_plane, _folder) = start(&["--trusted-proxies", "127.0.0.0/8"]).await?;
    let ask = async |from: &str, token: &str| -> Result<Response> {
        let token = format!("Bearer {token}");
        let headers = [("x-forwarded-for", from), ("authorization", token.as_str())];
        fetch(control_plane.api, request(Method::GET, "api", "/api/v1/whoami", &headers)).await
    };
    let mut refused = 0;
    for _ in 0..30 {
        let answer = ask("192.0.2.1", "chy_a-guess").await?;
        ensure!([401, 429].contains(&answer.status), "{}", answer.status);
        refused += u32::from(answer.status == 429);
    }
    ensure!(refused >= 5, "30 guesses, and only {refused} were not looked at");
    ensure!(ask("192.0.2.1", ADMIN_TOKEN).await?.status == 429, "a right guess does not show");
    ensure!(ask("192.0.2.2", ADMIN_TOKEN).await?.status == 200);
    Ok(())
}

/// Sends a write under a key.
async fn once(api: &Api, key: &str, resource: &Value) -> Result<Response> {
    let headers = [("content-type", "application/json"), ("idempotency-key", key)];
    api.send(Method::POST, "/api/v1/apply", &headers, json!({ "resources": [resource] }).to_string()).await
}

async fn head(api: &Api) -> Result<u64> {
    let newest = api.read("/api/v1/revisions?limit=1").await?;
    Ok(newest["items"][0]["number"].as_u64().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_make_a_write_once() -> Result<()> {
    let Some(postgres) = Postgres::start().await? else { return Ok(()) };
    let database = postgres.create_database().await?;
    let folder = tempfile::tempdir()?;
    let authority = Authority::create(folder.path(), "authority")?;
    let left = ControlPlane::start(folder.path(), "left", &database, &authority).await?;
    let right = ControlPlane::start(folder.path(), "right", &database, &authority).await?;
    let apis = [left.caller(), right.caller()];
    for round in 1..=10u16 {
        let (key, resource) = (format!("round-{round}"), service("shop", &[([10, 0, 0, 1], round).into()]));
        let asked = [0, 1, 0, 1, 0, 1].map(|side| {
            let (api, key, resource) = (apis[side].clone(), key.clone(), resource.clone());
            tokio::spawn(async move { once(&api, &key, &resource).await })
        });
        let mut replayed = 0;
        for one in asked {
            let answer = one.await??;
            ensure!(answer.status == 200 && answer.json()?["revision"] == round, "{} {}", answer.status, answer.text());
            replayed += u32::from(answer.header("idempotent-replayed") == "true");
        }
        ensure!(replayed == 5, "one was made, not {}", 6 - replayed);
        ensure!(head(&apis[0]).await? == u64::from(round));
    }
    let other = once(&apis[1], "round-1", &fleet("edge")).await?;
    ensure!(check_refusal("another", &other)?["type"].as_str().is_some_and(|kind| kind.ends_with("key-reused")));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_does_not_make_a_write_twice() -> Result<()> {
    let (mut control_plane, _folder) = start(&[]).await?;
    for round in 0..6u16 {
        let before = head(&control_plane.caller()).await?;
        let (key, resource) = (format!("round-{round}"), service("shop", &[([10, 0, 0, 1], 1000 + round).into()]));
        let sending = {
            let (api, key, resource) = (control_plane.caller(), key.clone(), resource.clone());
            tokio::spawn(async move { once(&api, &key, &resource).await })
        };
        // Before it is read, while it is written, or after it was answered.
        tokio::time::sleep(Duration::from_millis(u64::from(round) * 4)).await;
        control_plane.kill();
        let _ = sending.await?;
        control_plane.start_again().await?;
        let api = control_plane.caller();
        let answer = once(&api, &key, &resource).await?;
        ensure!(answer.status == 200 && answer.json()?["revision"] == before + 1, "round {round}: {}", answer.text());
        ensure!(answer.json()?["changed"].as_array().is_some_and(|changed| changed.len() == 1), "{}", answer.text());
        ensure!(head(&api).await? == before + 1, "round {round} was made twice");
    }
    Ok(())
}

/// An open stream of events, as it comes over the wire.
struct Events {
    stream: TcpStream,
    read: String,
}

impl Events {
    async fn open(address: SocketAddr, last: &str) -> Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        let head = format!(
            "GET /api/v1/events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\nLast-Event-ID: {last}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await?;
        let mut events = Self { stream, read: String::new() };
        events.until("retry: 2000").await?;
        Ok(events)
    }

    /// All that was read once it holds `text`.
    async fn until(&mut self, text: &str) -> Result<&str> {
        let reading = async {
            while !self.read.contains(text) {
                let mut some = [0; 4096];
                let count = self.stream.read(&mut some).await?;
                ensure!(count > 0, "it ended");
                self.read += &String::from_utf8_lossy(&some[..count]);
            }
            Ok(())
        };
        timeout(PATIENCE, reading).await.with_context(|| format!("{text} does not come"))??;
        Ok(&self.read)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_hears_the_events_in_between() -> Result<()> {
    let (control_plane, _folder) = start(&[]).await?;
    let api = control_plane.caller();
    let mut events = Events::open(control_plane.api, "").await?;
    api.put(&fleet("a")).await?;
    let heard = events.until("\"revision\":1,").await?;
    let id = heard.lines().find_map(|line| line.strip_prefix("id: ")).context("an event has an id")?.to_owned();
    drop(events);
    api.put(&fleet("b")).await?;
    api.put(&fleet("c")).await?;
    let mut events = Events::open(control_plane.api, &id).await?;
    let heard = events.until("\"revision\":3,").await?;
    ensure!(heard.contains("\"revision\":2,") && !heard.contains("lagged"), "{heard}");
    ensure!(!heard.contains("\"revision\":1,"), "that it has heard: {heard}");
    Events::open(control_plane.api, "another-1").await?.until("\"missed\":null").await?;
    Ok(())
}
