//! Requests of an access log, replayed against a plan: which of them would go elsewhere.
//!
//! A log is read line by line up to a bound, equal requests are counted and sent once, in batches. Two forms are read: JSON
//! objects, and what Envoy writes if it is not told otherwise. Lines of other forms are counted, and said.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufRead, BufReader, Read as _},
    path::{Path, PathBuf},
};

use chancery_control_plane::{
    explain::{Destination, Source},
    model::Name,
};
use clap::Args;
use http::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    client::{Call, Client},
    failure::Failure,
    output,
};

/// How much of a log is read, in lines.
const MOST_LINES: usize = 100_000;

/// The longest line, in bytes; what is beyond is a line of another form.
const LONGEST_LINE: u64 = 128 << 10;

/// How many requests are asked about at once; the API takes no more.
const BATCH: usize = 5000;

/// About how many bytes of requests are sent at once.
const BATCH_BYTES: usize = 2 << 20;

/// How many moved requests are shown as a table.
const SHOWN: usize = 50;

/// Which log.
#[derive(Clone, Debug, Args)]
pub(crate) struct TrafficArgs {
    /// Access log (JSON lines, or Envoy's own format): say which of its requests would go elsewhere
    #[arg(long, value_name = "FILE", group = "requests")]
    traffic: Option<PathBuf>,
    /// Say which of the requests would go elsewhere that the fleet has told the control plane of
    #[arg(long, group = "requests", requires = "fleet")]
    seen: bool,
    /// The fleet that logged it [default: all that have the hosts]
    #[arg(long, requires = "requests")]
    fleet: Option<Name>,
}

impl TrafficArgs {
    /// What the log says of `change`, the body of a plan, if there is a log.
    pub(crate) async fn replay(&self, client: &Client, change: &Value) -> Result<Option<Value>, Failure> {
        if self.seen {
            return self.replay_seen(client, change).await.map(Some);
        }
        let Some(file) = &self.traffic else { return Ok(None) };
        let log = Log::read(file)?;
        let mut total = Map::new();
        let mut moved = Vec::new();
        for requests in log.batches() {
            let mut question = change.clone();
            question["fleet"] = json!(self.fleet);
            question["requests"] = json!(requests);
            let answer: Value = client.send(Call::new(Method::POST, "/api/v1/plan/traffic").body(question)).await?;
            for field in ["requests", "movedRequests", "unreadable"] {
                let sum = total.get(field).and_then(Value::as_u64).unwrap_or(0) + answer[field].as_u64().unwrap_or(0);
                total.insert(field.to_owned(), sum.into());
            }
            total.insert("revision".to_owned(), answer["revision"].clone());
            moved.extend(answer["moved"].as_array().into_iter().flatten().cloned());
        }
        moved.sort_by_key(|moved| std::cmp::Reverse(moved["request"]["count"].as_u64()));
        let unreadable = total.get("unreadable").and_then(Value::as_u64).unwrap_or(0) + log.unreadable;
        total.insert("unreadable".to_owned(), unreadable.into());
        total.insert("truncated".to_owned(), log.truncated.into());
        total.insert("moved".to_owned(), moved.into());
        Ok(Some(total.into()))
    }

    /// The same of what the control plane was told.
    async fn replay_seen(&self, client: &Client, change: &Value) -> Result<Value, Failure> {
        let mut question = change.clone();
        question["seen"] = json!({ "fleet": self.fleet });
        let mut answer: Value = client.send(Call::new(Method::POST, "/api/v1/plan/traffic").body(question)).await?;
        answer["truncated"] = false.into();
        Ok(answer)
    }
}

/// A request of a log: all that tells it from others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Logged {
    method: String,
    authority: String,
    path: String,
    headers: Vec<(String, String)>,
}

/// What a log holds.
#[derive(Debug, Default)]
struct Log {
    /// Each once, in the order in which they came first, with how often they came.
    requests: Vec<(Logged, u64)>,
    /// Lines of no form that is known.
    unreadable: u64,
    /// Whether there is more than was read.
    truncated: bool,
}

impl Log {
    fn read(file: &Path) -> Result<Self, Failure> {
        let unusable = |source| Failure::Io { what: file.display().to_string(), source };
        Self::of(BufReader::new(File::open(file).map_err(unusable)?)).map_err(unusable)
    }

    fn of(mut lines: impl BufRead) -> io::Result<Self> {
        let mut log = Self::default();
        let mut known: HashMap<Logged, usize> = HashMap::new();
        let mut line = Vec::new();
        for _ in 0..MOST_LINES {
            line.clear();
            if lines.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)? == 0 {
                return Ok(log);
            }
            let whole = line.ends_with(b"\n") || (line.len() as u64) < LONGEST_LINE;
            if !whole {
                lines.skip_until(b'\n')?;
            }
            let text = std::str::from_utf8(&line).unwrap_or_default().trim();
            match logged(text).filter(|_| whole) {
                Some(request) => match known.get(&request) {
                    Some(index) => log.requests[*index].1 += 1,
                    None => {
                        known.insert(request.clone(), log.requests.len());
                        log.requests.push((request, 1));
                    }
                },
                None if text.is_empty() && whole => {}
                None => log.unreadable += 1,
            }
        }
        log.truncated = !lines.fill_buf()?.is_empty();
        Ok(log)
    }

    /// The requests as the API takes them, in parts that it takes. There is one part at least, so that the change is checked.
    fn batches(&self) -> Vec<Vec<Value>> {
        let mut batches = vec![Vec::new()];
        let mut bytes = 0;
        for (Logged { method, authority, path, headers }, count) in &self.requests {
            let headers: Vec<Value> =
                headers.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
            let request =
                json!({ "method": method, "authority": authority, "path": path, "headers": headers, "count": count });
            let size = request.to_string().len();
            let is_full =
                batches.last().is_some_and(|batch: &Vec<Value>| batch.len() == BATCH || bytes + size > BATCH_BYTES);
            if is_full && bytes > 0 {
                batches.push(Vec::new());
                bytes = 0;
            }
            bytes += size;
            if let Some(batch) = batches.last_mut() {
                batch.push(request);
            }
        }
        batches
    }
}

/// The request of a line.
fn logged(line: &str) -> Option<Logged> {
    let logged = if line.starts_with('{') { of_json(line) } else { of_text(line) }?;
    let is_there = |text: &str| !text.is_empty() && text != "-";
    let is_whole = [&logged.method, &logged.authority, &logged.path].into_iter().all(|text| is_there(text));
    is_whole.then_some(logged)
}

/// `{"method": "GET", "path": "/a", "authority": "a.example.com", "headers": {"x-beta": "1"}}`; more fields may be there.
fn of_json(line: &str) -> Option<Logged> {
    let line: Map<String, Value> = serde_json::from_str(line).ok()?;
    let first = |names: &[&str]| {
        let values = names.iter().filter_map(|name| line.get(*name)?.as_str());
        values.into_iter().find(|value| !value.is_empty() && *value != "-").map(str::to_owned)
    };
    let mut headers = Vec::new();
    for (name, value) in line.get("headers").and_then(Value::as_object).into_iter().flatten() {
        let values = value.as_array().map_or_else(|| std::slice::from_ref(value), Vec::as_slice);
        let values = values.iter().filter_map(Value::as_str).filter(|value| *value != "-");
        headers.extend(values.map(|value| (name.to_ascii_lowercase(), value.to_owned())));
    }
    Some(Logged {
        method: first(&["method", ":method"])?,
        authority: first(&["authority", ":authority", "host"])?,
        path: first(&["path", "x-envoy-original-path", ":path"])?,
        headers,
    })
}

/// `[time] "GET /a HTTP/1.1" 200 - 0 5 1 1 "-" "curl/8.0" "id" "a.example.com" "10.0.0.1:80"`. What clients choose may hold quotes, so
/// the host is counted from the end.
fn of_text(line: &str) -> Option<Logged> {
    let (_, request) = line.split_once('"')?;
    let (method, rest) = request.split_once(' ')?;
    let (path, rest) = rest.split_once(' ')?;
    if !rest.starts_with("HTTP/") {
        return None;
    }
    let authority = line.strip_suffix('"')?.rsplit('"').nth(2)?;
    Some(Logged {
        method: method.to_owned(),
        authority: authority.to_owned(),
        path: path.to_owned(),
        headers: Vec::new(),
    })
}

/// What the API says, as far as it is shown.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Replayed {
    #[serde(default)]
    requests: u64,
    #[serde(default)]
    moved_requests: u64,
    unreadable: u64,
    truncated: bool,
    moved: Vec<MovedRequest>,
}

#[derive(Debug, Deserialize)]
struct MovedRequest {
    request: Shown,
    listener: String,
    before: Option<Goal>,
    after: Option<Goal>,
}

#[derive(Debug, Deserialize)]
struct Shown {
    method: String,
    authority: String,
    path: String,
    count: u64,
}

#[derive(Debug, Deserialize)]
struct Goal {
    rule: Option<Source>,
    destination: Destination,
}

/// The answer in words.
pub(crate) fn told(value: &Value) -> String {
    let Ok(replayed) = Replayed::deserialize(value) else { return output::json(value) };
    let Replayed { requests, moved_requests, unreadable, truncated, moved } = replayed;
    let mut text = format!("\n{moved_requests} of {requests} logged requests would go elsewhere.\n");
    if !moved.is_empty() {
        text += &output::table(
            ["COUNT", "REQUEST", "LISTENER", "NOW", "THEN"],
            moved.iter().take(SHOWN).map(|MovedRequest { request, listener, before, after }| {
                let Shown { method, authority, path, count } = request;
                let listener = listener.strip_prefix("Listener/").unwrap_or(listener).to_owned();
                [
                    count.to_string(),
                    format!("{method} {authority}{path}"),
                    listener,
                    goal(before.as_ref()),
                    goal(after.as_ref()),
                ]
            }),
        );
    }
    if moved.len() > SHOWN {
        text += &format!("… and {} more; -o json shows all\n", moved.len() - SHOWN);
    }
    if unreadable > 0 {
        text += &format!("{unreadable} lines hold no request that can be read.\n");
    }
    if truncated {
        text += &format!("Only the first {MOST_LINES} lines were read.\n");
    }
    text
}

fn goal(goal: Option<&Goal>) -> String {
    let Some(Goal { rule, destination }) = goal else { return "no listener".to_owned() };
    let to = match destination {
        Destination::Forward { to, host: _, path } => {
            let name = |service: &Source| service.resource.trim_start_matches("Service/").to_owned();
            let shares = to.iter().map(|share| match to.len() {
                1 => name(&share.service),
                _ => format!("{} {}", name(&share.service), share.weight),
            });
            format!("{} {path}", shares.collect::<Vec<_>>().join(", "))
        }
        Destination::Redirect { status, location } => format!("{status} {location}"),
        Destination::Respond { status, .. }
        | Destination::Preflight { status, .. }
        | Destination::Refused { status, .. } => status.to_string(),
        Destination::NoRoute { status } => format!("{status}, no rule"),
    };
    let rule = rule.as_ref().map(|rule| format!(" by {} {}", rule.resource, rule.path)).unwrap_or_default();
    format!("{to}{rule}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, authority: &str, path: &str, headers: &[(&str, &str)]) -> Logged {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Logged { method: method.into(), authority: authority.into(), path: path.into(), headers }
    }

    #[test]
    fn both_forms_are_read_and_equal_requests_counted() {
        let text = concat!(
            r#"[2026-11-28T14:00:00.000Z] "GET /a?b=c HTTP/1.1" 200 - 0 5 1 1 "-" "a "quoted" agent" "id" "a.example.com" "10.0.0.1:80""#,
            "\n",
            r#"[2026-11-28T14:00:00.000Z] "GET /a?b=c HTTP/2" 503 UF 0 5 1 - "-" "-" "id" "a.example.com" "-""#,
            "\n",
            r#"{"method": "GET", "path": "/a?b=c", "authority": "a.example.com", "status": 200}"#,
            "\n\n",
            r#"{":method": "PUT", ":path": "/b", "x-envoy-original-path": "/a", ":authority": "-", "host": "b", "headers": {"X-A": ["1", "2"], "x-b": "-"}}"#,
            "\n",
            "[2026-11-28T14:00:00.000Z] \"- - HTTP/1.1\" 400 DPE 0 11 0 - \"-\" \"-\" \"-\" \"-\" \"-\"\n",
            "not a log\n{\"method\": \"GET\"}\n{\n",
        );
        let log = Log::of(text.as_bytes()).unwrap();
        let put = request("PUT", "b", "/a", &[("x-a", "1"), ("x-a", "2")]);
        assert_eq!(log.requests, [(request("GET", "a.example.com", "/a?b=c", &[]), 3), (put, 1)]);
        assert_eq!((log.unreadable, log.truncated), (4, false));
    }

    #[test]
    fn a_log_is_read_up_to_a_bound_and_sent_in_parts() {
        let lines: String = (0..MOST_LINES + 5)
            .map(|n| format!("{{\"method\":\"GET\",\"authority\":\"a\",\"path\":\"/{n}\"}}\n"))
            .collect();
        let log = Log::of(lines.as_bytes()).unwrap();
        assert_eq!((log.requests.len(), log.truncated), (MOST_LINES, true));
        let batches = log.batches();
        assert!(batches.iter().all(|batch| (1..=BATCH).contains(&batch.len())));
        assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), MOST_LINES);

        let long = format!("{{\"method\":\"GET\",\"authority\":\"a\",\"path\":\"/{}\"}}\n", "x".repeat(200 << 10));
        let log =
            Log::of(format!("{long}{{\"method\":\"GET\",\"authority\":\"a\",\"path\":\"/\"}}\n").as_bytes()).unwrap();
        assert_eq!((log.requests.len(), log.unreadable), (1, 1));
        assert_eq!(Log::of("".as_bytes()).unwrap().batches(), [Vec::<Value>::new()]);
    }

    #[test]
    fn moved_requests_in_words() {
        let service = |name: &str, weight: u32| json!({ "service": { "resource": format!("Service/{name}"), "revision": 3 }, "weight": weight, "of": 10 });
        let rule = json!({ "resource": "Route/shop", "path": "spec.rules[1]", "revision": 7 });
        let request = json!({ "method": "GET", "authority": "a.example.com", "path": "/cart", "count": 40 });
        let forward = |to: Value| json!({ "action": "forward", "to": to, "host": "a.example.com", "path": "/cart" });
        let moved = json!([
            { "request": request, "listener": "Listener/web",
              "before": { "rule": rule, "destination": forward(json!([service("shop", 1)])) },
              "after": { "rule": rule, "destination": forward(json!([service("shop", 9), service("next", 1)])) } },
            { "request": request, "listener": "Listener/web", "after": { "destination": { "action": "noRoute", "status": 404 } } },
        ]);
        let value = json!({ "revision": 7, "requests": 100, "movedRequests": 80, "unreadable": 2, "truncated": true, "moved": moved });
        insta::assert_snapshot!(told(&value));
    }
}
