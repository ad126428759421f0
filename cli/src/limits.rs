//! Limits: how they read in a table, who uses which, and what a limiter says of a request.
//!
//! `show` asks the control plane, whose catalog says what is in force. `check` asks a limiter itself: what it counted is
//! known nowhere else, and it must answer also when no control plane does.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use chancery_control_plane::{
    api::ResourceView,
    model::{Kind, Name},
    translate::rate_limit::LIMIT_KEY,
};
use clap::{Args, Subcommand};
use http::{Method, Request, header};
use http_body_util::Full;
use hyper::body::Bytes;
use serde_json::{Value, json};

use crate::{
    ask::{Answer, exchange},
    connection::{self, ConnectionArgs},
    dev::DEFAULT_DATA_DIR,
    failure::Failure,
    output::{self, OutputArgs},
    resources::{all, changed, named, some, text},
};

/// How long a limiter may take to answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// More than any answer of a limiter.
const MOST_BYTES: usize = 1 << 20;

/// `chancery limits`
#[derive(Debug, Args)]
pub(crate) struct LimitsArgs {
    #[command(subcommand)]
    command: LimitsCommand,
}

#[derive(Debug, Subcommand)]
enum LimitsCommand {
    /// Show limits and which routes and fleets use them
    Show(ShowArgs),
    /// Ask a limiter whether it would admit a request, and why; counts nothing
    Check(CheckArgs),
}

/// `chancery limits show`
#[derive(Debug, Args)]
struct ShowArgs {
    /// Only this one
    name: Option<Name>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// `chancery limits check`
#[derive(Debug, Args)]
struct CheckArgs {
    /// Which limit
    name: Name,
    /// What the request is counted by, in the order of the limit's key: x-api-key=k1 remote_address=10.0.0.1
    #[arg(value_name = "KEY=VALUE", value_parser = pair)]
    entries: Vec<(String, String)>,
    /// The fleet that the request comes to
    #[arg(long)]
    fleet: Name,
    /// What the request counts
    #[arg(long, value_name = "N", default_value_t = 1)]
    hits: u32,
    /// HTTP address of a limiter [default: that of the `chancery dev` in the data folder, or http://127.0.0.1:6070]
    #[arg(long, value_name = "URL", env = "CHANCERY_LIMITER")]
    limiter: Option<String>,
    /// Data folder of a `chancery dev`
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DATA_DIR, env = "CHANCERY_DATA_DIR")]
    data_dir: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs `chancery limits …`.
pub(crate) async fn run(args: LimitsArgs) -> Result<(), Failure> {
    match args.command {
        LimitsCommand::Show(args) => show(args).await,
        LimitsCommand::Check(args) => check(args).await,
    }
}

async fn show(args: ShowArgs) -> Result<(), Failure> {
    let client = args.connection.client()?;
    let limits = match &args.name {
        Some(name) => vec![client.get(format!("/api/v1/{}/{name}", Kind::RateLimit.collection())).await?],
        None => all(&client, Kind::RateLimit, None, None).await?,
    };
    let routes = all(&client, Kind::Route, None, None).await?;
    let shown: Vec<Value> = limits.iter().map(|limit| in_use(limit, &routes)).collect();
    args.output.print(&json!({ "items": shown }), |_| used(&limits, &shown))
}

async fn check(args: CheckArgs) -> Result<(), Failure> {
    let name = (LIMIT_KEY.to_owned(), args.name.to_string());
    let entries = std::iter::once(&name).chain(&args.entries);
    let entries: Vec<Value> = entries.map(|(key, value)| json!({ "key": key, "value": value })).collect();
    let question = json!({ "domain": args.fleet, "descriptors": [{ "entries": entries }], "hitsAddend": args.hits });
    let limiter = args.limiter.unwrap_or_else(|| connection::limiter(&args.data_dir));
    let answer = ask(&limiter, &question).await?;
    args.output.print(&answer, told)
}

/// Limits with their keys and amounts.
pub(crate) fn rows(limits: &[ResourceView]) -> String {
    output::table(
        ["NAME", "TEAM", "KEY", "LIMIT", "ALGORITHM", "REVISION", "UPDATED", "BY"],
        limits.iter().map(|limit| {
            let [name, team] = named(limit);
            let [revision, updated, by] = changed(limit);
            [name, team, key(&limit.spec), amount(&limit.spec), algorithm(&limit.spec), revision, updated, by]
        }),
    )
}

/// Limits with who uses them.
fn used(limits: &[ResourceView], shown: &[Value]) -> String {
    let list = |value: &Value| {
        let names: Vec<String> = value.as_array().into_iter().flatten().map(text).collect();
        if names.is_empty() { "none".to_owned() } else { some(&names) }
    };
    output::table(
        ["NAME", "TEAM", "KEY", "LIMIT", "ALGORITHM", "FLEETS", "ROUTES"],
        limits.iter().zip(shown).map(|(limit, shown)| {
            let [name, team] = named(limit);
            let (fleets, routes) = (list(&shown["fleets"]), list(&shown["routes"]));
            [name, team, key(&limit.spec), amount(&limit.spec), algorithm(&limit.spec), fleets, routes]
        }),
    )
}

/// A limit, and which of `routes` use it on which fleets.
fn in_use(limit: &ResourceView, routes: &[ResourceView]) -> Value {
    let limited = |rule: &Value| {
        let mut limits = rule["rateLimits"].as_array().into_iter().flatten();
        limits.any(|name| name.as_str() == Some(limit.name.as_str()))
    };
    let users = routes.iter().filter(|route| route.spec["rules"].as_array().into_iter().flatten().any(limited));
    let (mut names, mut fleets) = (Vec::new(), BTreeSet::new());
    for route in users {
        names.push(route.name.to_string());
        let places = route.spec["listeners"].as_array().into_iter().flatten().filter_map(Value::as_str);
        fleets.extend(places.filter_map(|place| place.split_once('/')).map(|(fleet, _)| fleet.to_owned()));
    }
    json!({ "name": limit.name, "team": limit.team, "spec": limit.spec, "fleets": fleets, "routes": names })
}

/// `x-api-key, remoteAddress`; a query parameter is marked as in an address.
fn key(spec: &Value) -> String {
    let part = |part: &Value| {
        let mut fields = part.as_object().into_iter().flatten().filter(|(field, _)| *field != "absent");
        match fields.next() {
            Some((field, value)) if field == "header" => text(value),
            Some((field, value)) if field == "query" => format!("?{}", text(value)),
            Some((field, value)) if field == "constant" => format!("{}={}", text(&value["key"]), text(&value["value"])),
            Some((field, _)) => field.clone(),
            None => String::new(),
        }
    };
    let parts: Vec<String> = spec["key"].as_array().into_iter().flatten().map(part).collect();
    if parts.is_empty() { "all together".to_owned() } else { parts.join(", ") }
}

/// `100 per 1s, burst 200, shadow`.
fn amount(spec: &Value) -> String {
    let limit = &spec["limit"];
    let burst = limit["burst"].as_u64().map(|burst| format!("burst {burst}"));
    let marks = ["shadow", "strict", "debt"].into_iter().filter(|mark| spec[mark] == true).map(str::to_owned);
    let quota = (spec["enforcement"] == "quota").then(|| "quota".to_owned());
    let amount = format!("{} per {}", text(&limit["requests"]), text(&limit["per"]));
    std::iter::once(amount).chain(burst).chain(marks).chain(quota).collect::<Vec<_>>().join(", ")
}

fn algorithm(spec: &Value) -> String {
    spec["algorithm"].as_str().unwrap_or("token-bucket").to_owned()
}

/// What the limiter answered, for people: one line, and the numbers behind it.
fn told(answer: &Value) -> String {
    let verdict = if answer["admitted"] == true { "admitted" } else { "refused" };
    let found = answer["descriptors"].as_array().into_iter().flatten().map(|found| {
        let limit = &found["limit"];
        let limit = if limit.is_object() {
            format!("{} per {}, burst {}", text(&limit["requests"]), text(&limit["per"]), text(&limit["burst"]))
        } else {
            String::new()
        };
        [
            text(&found["rule"]["path"]),
            text(&found["finding"]).replace('_', " "),
            limit,
            text(&found["remaining"]),
            text(&found["retryAfter"]),
            text(&found["cell"]),
        ]
    });
    let table = output::table(["RULE", "FINDING", "LIMIT", "REMAINING", "RETRY AFTER", "CELL"], found);
    format!("{verdict}\n{table}")
}

async fn ask(limiter: &str, question: &Value) -> anyhow::Result<Value> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("{}/limits/check", limiter.trim_end_matches('/')))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(question.to_string())))
        .with_context(|| format!("--limiter {limiter:?} must be a URL as http://127.0.0.1:6070"))?;
    let answered = exchange(request, DEADLINE, MOST_BYTES).await;
    let Answer { status, body, .. } = answered.with_context(|| format!("cannot ask the rate limiter at {limiter}"))?;
    if !status.is_success() {
        bail!("the rate limiter at {limiter} answers {status}: {}", String::from_utf8_lossy(&body));
    }
    serde_json::from_slice(&body).with_context(|| format!("the rate limiter at {limiter} cannot be understood"))
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be of the form KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(kind: &str, name: &str, spec: &Value) -> ResourceView {
        serde_json::from_value(json!({ "kind": kind, "name": name, "team": "payments", "spec": spec, "revision": 12,
            "updatedAt": "2026-11-21T03:00:00.123456Z", "updatedBy": "admin" }))
        .unwrap()
    }

    #[test]
    fn tables_of_limits() {
        let limits = [
            resource(
                "RateLimit",
                "per-client",
                &json!({
                    "key": [{ "header": "x-api-key", "absent": "skip" }, { "query": "account" }, { "path": true },
                        { "constant": { "key": "tier", "value": "gold" } }],
                    "limit": { "requests": 100, "per": "1s", "burst": 200 },
                    "shadow": true,
                }),
            ),
            resource(
                "RateLimit",
                "all",
                &json!({ "limit": { "requests": 5, "per": "1h" }, "algorithm": "fixed-window" }),
            ),
        ];
        let rules = json!([{ "to": [{ "service": "a" }], "rateLimits": ["per-client"] }]);
        let route =
            |name: &str, places: &Value| resource("Route", name, &json!({ "listeners": places, "rules": rules }));
        let routes = [route("a", &json!(["edge/web", "edge/tls"])), route("b", &json!(["lab/web"]))];
        let shown: Vec<_> = limits.iter().map(|limit| in_use(limit, &routes)).collect();
        insta::assert_snapshot!([rows(&limits), used(&limits, &shown)].join("\n"));
    }

    #[test]
    fn a_verdict_for_people() {
        let answer = json!({ "admitted": false, "descriptors": [{
            "finding": "over_limit",
            "rule": { "path": "edge.chancery.limit_per-client.x-api-key" },
            "cell": "00c0ffee",
            "limit": { "requests": 2, "per": "60s", "burst": 2, "algorithm": "token-bucket" },
            "remaining": 0,
            "retryAfter": "30s",
        }, { "finding": "no_rule" }] });
        insta::assert_snapshot!(told(&answer));
    }
}
