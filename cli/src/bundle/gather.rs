//! What goes into a bundle, and whom it is asked of.

use std::{pin::Pin, time::Duration};

use chancery_runtime::settings;
use futures_util::future::join_all;
use http::{Method, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    archive::Entry,
    redact::{Redactor, credentials},
};
use crate::{
    ask::{ask, reason},
    client::{Call, Client},
    doctor::{self, Program, Site, VERSION, version},
    events, output,
};

/// How long one thing may take to come.
const WITHIN: Duration = Duration::from_secs(15);

/// How large one thing may be.
const MOST_BYTES: usize = 16 << 20;

/// How long events are listened to.
const LISTEN: Duration = Duration::from_secs(2);

/// So many revisions go in, the newest.
const NEWEST: u32 = 100;

type Contents<'a> = Pin<Box<dyn Future<Output = Result<Found, String>> + 'a>>;

/// What came, before secrets are taken out.
enum Found {
    Json(Value),
    Text(String),
}

/// Something to ask for.
struct Wanted<'a> {
    path: String,
    about: &'static str,
    contents: Contents<'a>,
}

/// Everything that there is to see of `site`, without secrets.
pub(super) async fn all(site: &Site, envoy_admin: Option<&str>) -> Vec<Entry> {
    let redactor = Redactor::knowing(secrets(site));
    let mut wanted = vec![
        want("doctor.json", "what `chancery doctor` finds", async { json_of(&doctor::examine(site).await) }),
        want("versions.json", "the versions of all parts", versions(site)),
    ];
    wanted.extend(settings_of(site));
    wanted.extend(from_ports(site));
    wanted.extend(from_api(site));
    let dev = site.envoy_admin.map(|address| format!("http://{address}"));
    match envoy_admin.map(str::to_owned).or(dev) {
        Some(envoy) => wanted.extend(from_envoy(&envoy)),
        None => wanted.push(want("envoy/config_dump.json", "what an Envoy has in force", async {
            Err("no Envoy was named (--envoy-admin)".to_owned())
        })),
    }
    join_all(wanted.into_iter().map(|one| entry(one, &redactor))).await
}

fn want<'a>(
    path: impl Into<String>,
    about: &'static str,
    contents: impl Future<Output = Result<Found, String>> + 'a,
) -> Wanted<'a> {
    Wanted { path: path.into(), about, contents: Box::pin(contents) }
}

/// The only way into an archive: past the redactor.
async fn entry(wanted: Wanted<'_>, redactor: &Redactor) -> Entry {
    let Wanted { path, about, contents } = wanted;
    let came = tokio::time::timeout(WITHIN, contents).await;
    let came = came.unwrap_or_else(|_| Err(format!("no answer within {} s", WITHIN.as_secs())));
    let contents = match came {
        Ok(Found::Json(value)) => Ok(output::json(&redactor.value(value)).into_bytes()),
        Ok(Found::Text(text)) => Ok(redactor.text(&text).into_bytes()),
        Err(reason) => Err(redactor.text(&reason)),
    };
    Entry { path, about, contents }
}

/// Secrets that this host knows, so that they are found wherever they stand.
fn secrets(site: &Site) -> Vec<String> {
    let mut secrets = Vec::new();
    if let Some(settings) = site.control_plane.as_ref().and_then(Program::ok) {
        secrets.extend(settings.database.iter().flat_map(|url| credentials(url.expose())));
        secrets.extend(std::fs::read_to_string(settings.admin_token_path()).ok().map(|token| token.trim().to_owned()));
    }
    if let Some(settings) = site.rate_limiter.as_ref().and_then(Program::ok) {
        secrets.extend(settings.store.iter().flat_map(|url| credentials(url.expose())));
    }
    secrets.extend(site.api.iter().flat_map(Client::secrets));
    secrets
}

fn settings_of(site: &Site) -> Vec<Wanted<'_>> {
    fn one<'a, S: Serialize>(program: Option<&'a Program<S>>, name: &str) -> Wanted<'a> {
        want(format!("settings/{name}.toml"), "settings in force, secrets hidden", async move {
            let program = program.ok_or("none here")?;
            let settings = program.settings.as_ref().map_err(Clone::clone)?;
            let printed = settings::print(settings).map_err(|error| error.to_string())?;
            Ok(Found::Text(format!("# {}\n{printed}", program.source)))
        })
    }
    vec![
        one(site.control_plane.as_ref(), "control-plane"),
        one(site.rate_limiter.as_ref(), "rate-limiter"),
        one(site.sidecar.as_ref(), "sidecar"),
    ]
}

fn from_ports(site: &Site) -> Vec<Wanted<'static>> {
    let mut wanted = Vec::new();
    for (name, port) in site.admin_ports() {
        let folder = name.replace(' ', "-");
        let mut page = |path: &str, file: &str, about| {
            let url = format!("http://{port}{path}");
            wanted.push(want(format!("{folder}/{file}"), about, fetched(url)));
        };
        page("/metrics", "metrics.txt", "its metrics");
        page("/readyz", "readyz.json", "what it waits for, if it is not ready");
        match name {
            "rate limiter" => page("/limits", "limits.json", "the limits in force"),
            "sidecar" => {
                page("/config_dump", "config_dump.json", "the configuration in force");
                page("/clusters", "clusters.json", "its endpoints, and who of them is out");
                page("/listeners", "listeners.json", "its ports of TCP");
            }
            _ => {}
        }
    }
    wanted
}

fn from_envoy(admin: &str) -> Vec<Wanted<'static>> {
    let admin = admin.trim_end_matches('/');
    let page = |path: &str, file: &str, about| want(format!("envoy/{file}"), about, fetched(format!("{admin}{path}")));
    vec![
        page("/config_dump", "config_dump.json", "what it has in force"),
        page("/server_info", "server_info.json", "its version, state and options"),
        page("/clusters?format=json", "clusters.json", "its endpoints"),
        page("/stats/prometheus", "metrics.txt", "its metrics"),
    ]
}

/// A page of a program that runs, whatever its status: one that is not ready says why.
async fn fetched(url: String) -> Result<Found, String> {
    let answer =
        ask(Method::GET, &url, WITHIN, MOST_BYTES).await.map_err(|error| format!("{url}: {}", reason(&error)))?;
    if answer.status == StatusCode::NOT_FOUND {
        return Err(format!("{url}: it has no such page"));
    }
    Ok(found(&answer.body))
}

/// What is JSON is looked through by names of fields as well.
fn found(bytes: &[u8]) -> Found {
    serde_json::from_slice(bytes).map_or_else(|_| Found::Text(String::from_utf8_lossy(bytes).into_owned()), Found::Json)
}

fn from_api(site: &Site) -> Vec<Wanted<'_>> {
    let read = |call: Call, file: &str, about| {
        want(format!("api/{file}"), about, async move {
            let client = site.api.as_ref().map_err(Clone::clone)?;
            client.send::<Value>(call).await.map(Found::Json).map_err(|failure| failure.lines().join("; "))
        })
    };
    let get = |path: &str| Call::new(Method::GET, path);
    let proxies = want("api/proxies.json", "proxies and limiters, and what they have applied", async move {
        let client = site.api.as_ref().map_err(Clone::clone)?;
        let listed = client.list::<Value>(get("/api/v1/proxies")).await;
        listed.map(Found::Json).map_err(|failure| failure.lines().join("; "))
    });
    let events = want("api/events.json", "what happened while this was made", async move {
        let client = site.api.as_ref().map_err(Clone::clone)?;
        let heard = events::heard_within(client, LISTEN).await;
        heard.map(|events| Found::Json(events.into())).map_err(|failure| failure.lines().join("; "))
    });
    vec![
        proxies,
        read(
            get("/api/v1/revisions").query("limit", &NEWEST),
            "revisions.json",
            "the newest revisions: who, when, why; not what",
        ),
        read(get("/api/v1/rollouts"), "rollouts.json", "how far revisions have come"),
        read(get("/api/v1/quarantine"), "quarantine.json", "what is kept back, and why"),
        read(get("/api/v1/audit/verify"), "audit-verification.json", "whether the audit log is whole"),
        events,
    ]
}

async fn versions(site: &Site) -> Result<Found, String> {
    let mut parts = json!({ "chancery": VERSION });
    for (name, port) in site.admin_ports() {
        let metrics = ask(Method::GET, &format!("http://{port}/metrics"), WITHIN, MOST_BYTES).await;
        let said = metrics.ok().and_then(|answer| version(&String::from_utf8_lossy(&answer.body)).map(str::to_owned));
        parts[name] = said.into();
    }
    Ok(Found::Json(parts))
}

fn json_of(value: &impl Serialize) -> Result<Found, String> {
    serde_json::to_value(value).map(Found::Json).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_gets_in_past_the_redactor_not_even_a_reason() {
        let redactor = Redactor::knowing(["hunter22".to_owned()]);
        let contents = |found| async { entry(want("a", "b", async { found }), &redactor).await.contents };
        let text = String::from_utf8(contents(Ok(Found::Text("x hunter22".to_owned()))).await.unwrap()).unwrap();
        let json = contents(Ok(found(br#"{"a":["hunter22"],"password":"x"}"#))).await.unwrap();
        let reason = contents(Err("cannot use hunter22".to_owned())).await.unwrap_err();
        assert!(!text.contains("hunter22") && !reason.contains("hunter22"));
        let json: Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json, json!({ "a": ["[hidden]"], "password": "[hidden]" }));
    }

    #[tokio::test]
    async fn a_host_with_nothing_makes_a_bundle_that_says_so() {
        let entries = all(&Site::nothing(), None).await;
        let missing: Vec<_> =
            entries.iter().filter(|entry| entry.contents.is_err()).map(|entry| entry.path.as_str()).collect();
        for path in ["settings/sidecar.toml", "api/proxies.json", "api/events.json", "envoy/config_dump.json"] {
            assert!(missing.contains(&path), "{path} is not in {missing:?}");
        }
        assert!(entries.iter().any(|entry| entry.path == "doctor.json" && entry.contents.is_ok()));
    }
}
