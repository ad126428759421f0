//! Events, followed as they come.
//!
//! When the control plane goes away, it is asked again until it is back, and told what was heard last: what was missed is said.

use std::time::Duration;

use chancery_control_plane::model::Name;
use clap::Args;
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::Value;

use crate::{
    client::{Call, Client},
    connection::ConnectionArgs,
    failure::Failure,
    output::{self, Format, OutputArgs},
};

/// Longer than the control plane is ever silent.
const SILENCE: Duration = Duration::from_secs(45);

/// How long to wait before asking again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// More than any event.
const LONGEST_LINE: usize = 1 << 20;

/// Events that are listened to at once.
const MOST_HEARD: usize = 1000;

/// `chancery events`
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Of proxies, only those of this fleet
    #[arg(long)]
    fleet: Option<Name>,
    /// Of proxies, only those called so
    #[arg(long)]
    proxy: Option<Name>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Follows events until it is ended.
pub(crate) async fn run(args: EventsArgs) -> Result<(), Failure> {
    let client = args.connection.client()?;
    let mut last = None;
    follow(&client, &args, &mut last).await?;
    loop {
        eprintln!("The control plane has ended; asking again.");
        tokio::time::sleep(AGAIN_AFTER).await;
        while let Err(failure) = follow(&client, &args, &mut last).await {
            if !matches!(failure, Failure::Unreachable { .. }) {
                return Err(failure);
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }
}

/// What is heard within a time, at most a thousand events.
pub(crate) async fn heard_within(client: &Client, time: Duration) -> Result<Vec<Value>, Failure> {
    let mut body = client.open(Call::new(Method::GET, "/api/v1/events")).await?;
    let (mut reader, mut heard) = (Reader::default(), Vec::new());
    let listening = async {
        while let Some(Ok(frame)) = body.frame().await {
            let messages = reader.read(frame.data_ref().map(AsRef::as_ref).unwrap_or_default());
            heard.extend(messages.into_iter().map(|message| message.data));
            if heard.len() >= MOST_HEARD {
                return;
            }
        }
    };
    // That the time is over is how it ends.
    let _ = tokio::time::timeout(time, listening).await;
    heard.truncate(MOST_HEARD);
    Ok(heard)
}

/// Prints what comes, until no more does. An error if nothing came at all.
async fn follow(client: &Client, args: &EventsArgs, last: &mut Option<String>) -> Result<(), Failure> {
    let call = Call::new(Method::GET, "/api/v1/events");
    let mut call = call.query_if("fleet", args.fleet.as_ref()).query_if("proxy", args.proxy.as_ref());
    if let Some(last) = &last {
        call = call.after(last);
    }
    let mut body = client.open(call).await?;
    let mut reader = Reader::default();
    // The end, an error and silence are one: the control plane is asked again.
    while let Ok(Some(Ok(frame))) = tokio::time::timeout(SILENCE, body.frame()).await {
        for Message { id, data } in reader.read(frame.data_ref().map(AsRef::as_ref).unwrap_or_default()) {
            output::print(&shown(args.output.format(), &data))?;
            *last = id.or(last.take());
        }
    }
    Ok(())
}

/// An event as it came.
#[derive(Debug, PartialEq)]
struct Message {
    id: Option<String>,
    data: Value,
}

/// Takes server-sent events apart, as far as the control plane makes use of their form.
#[derive(Debug, Default)]
struct Reader {
    line: Vec<u8>,
    id: Option<String>,
    data: String,
}

impl Reader {
    /// The events that `bytes` complete.
    fn read(&mut self, bytes: &[u8]) -> Vec<Message> {
        let mut messages = Vec::new();
        for byte in bytes {
            match byte {
                b'\n' => messages.extend(self.end_line()),
                _ if self.line.len() < LONGEST_LINE => self.line.push(*byte),
                _ => {}
            }
        }
        messages
    }

    fn end_line(&mut self) -> Option<Message> {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        if line.is_empty() {
            let (id, data) = (self.id.take(), std::mem::take(&mut self.data));
            return Some(Message { id, data: serde_json::from_str(&data).ok()? });
        }
        match line.split_once(':') {
            Some(("id", id)) => self.id = Some(id.trim_start().to_owned()),
            Some(("data", data)) => self.data += data.trim_start(),
            // Comments; and the name, which stands in the data as well.
            _ => {}
        }
        None
    }
}

fn shown(format: Format, event: &Value) -> String {
    match format {
        Format::Table => line(event) + "\n",
        Format::Json => event.to_string() + "\n",
        Format::Yaml => format!("---\n{}", output::yaml(event)),
    }
}

/// An event as a line for people.
fn line(event: &Value) -> String {
    let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    let number = |name: &str| event[name].as_u64().unwrap_or_default();
    let lag = event["lagMs"].as_f64().unwrap_or_default();
    let who = match event["fleet"].as_str() {
        None | Some("") => text("proxy"),
        Some(fleet) => format!("{fleet}/{}", text("proxy")),
    };
    let at = text("at");
    let time = at.split_once('T').map_or(at.as_str(), |(_, time)| time);
    let time = time.get(..12).unwrap_or(time);
    let what = match text("event").as_str() {
        "connected" => format!("{who} connected from {} (Envoy {})", text("address"), text("envoyVersion")),
        "disconnected" => format!("{who} disconnected"),
        "acknowledged" => format!("{who} applied {} of revision {} in {lag:.0} ms", text("type"), number("revision")),
        "rejected" => {
            let resources = event["resources"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let resources = resources.collect::<Vec<_>>().join(", ");
            let (of, revision) = (text("type"), number("revision"));
            format!("{who} REFUSED {of} of revision {revision}: {resources}: {}", text("message"))
        }
        "settled" => format!("{who} is at revision {}", number("revision")),
        "revision" => {
            let why = text("message");
            let colon = if why.is_empty() { "" } else { ": " };
            format!("revision {} by {}{colon}{why}", number("revision"), text("author"))
        }
        "lagged" => match event["missed"].as_u64() {
            Some(missed) => format!("… {missed} events were missed"),
            None => "… events may have been missed".to_owned(),
        },
        other => format!("{other} {event}"),
    };
    output::printable(format!("{time:12}  {what}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_are_taken_apart_wherever_they_are_cut() {
        let stream = b": listening\n\nid: run-1\nevent: settled\ndata: {\"a\":1}\n\n: still here\n\nevent: lagged\ndata: {\"b\":\ndata: 2}\n\nid: cut";
        let expected = [
            Message { id: Some("run-1".to_owned()), data: json!({ "a": 1 }) },
            Message { id: None, data: json!({ "b": 2 }) },
        ];
        for cut in 0..stream.len() {
            let mut reader = Reader::default();
            let mut messages = reader.read(&stream[..cut]);
            messages.extend(reader.read(&stream[cut..]));
            assert_eq!(messages, expected, "cut at {cut}");
        }
    }

    #[test]
    fn an_event_is_a_line() {
        let at = "2026-11-21T03:00:00.123456789Z";
        let events = [
            json!({ "at": at, "event": "connected", "proxy": "edge-1", "fleet": "edge", "address": "10.0.0.7:1", "envoyVersion": "1.40.0" }),
            json!({ "at": at, "event": "revision", "revision": 12, "author": "admin", "message": "new\u{1b}[31m shop" }),
            json!({ "at": at, "event": "acknowledged", "proxy": "edge-1", "fleet": "edge", "type": "cluster", "version": "12", "revision": 12, "lagMs": 3.7 }),
            json!({ "at": at, "event": "rejected", "proxy": "edge-1", "fleet": "edge", "type": "route", "version": "12", "revision": 12, "lagMs": 3.7, "message": "bad regex", "resources": ["web"] }),
            json!({ "at": at, "event": "settled", "proxy": "edge-1", "fleet": "edge", "revision": 12 }),
            json!({ "at": at, "event": "disconnected", "proxy": "limiter-1", "fleet": "" }),
            json!({ "event": "lagged", "missed": 7 }),
            json!({ "event": "lagged", "missed": null }),
        ];
        insta::assert_snapshot!(events.iter().map(|event| shown(Format::Table, event)).collect::<String>());
    }
}
