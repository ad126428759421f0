//! What becomes of a request before it is sent, for people: what was passed over and why, what decides, and where it is written.

use std::fmt::Write as _;

use chancery_control_plane::{
    explain::{
        AtListener, Destination, Explanation, LimitPolicy, PassedOver, Policies, SessionPolicy, Share, Source, Unmet,
    },
    model::Name,
};
use clap::Args;
use http::Method;
use serde_json::{Value, json};

use crate::{
    client::Call,
    connection::ConnectionArgs,
    failure::Failure,
    output::{self, OutputArgs},
};

/// `chancery explain`
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// GET, POST, …
    method: String,
    /// Where it would be sent; a port chooses the listener
    url: String,
    /// A header, as NAME: VALUE; may be repeated. host stands in the place of the host of the URL
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// The fleet that it comes to
    #[arg(long)]
    fleet: Name,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("must be of the form NAME: VALUE")?;
    Ok((name.to_owned(), value.trim().to_owned()))
}

/// Explains a request. It is a failure if no rule matches.
pub(crate) async fn explain(args: ExplainArgs) -> Result<(), Failure> {
    let client = args.connection.client()?;
    let headers: Vec<Value> =
        args.headers.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
    let question = json!({ "fleet": args.fleet, "method": args.method, "url": args.url, "headers": headers });
    let value: Value = client.send(Call::new(Method::POST, "/api/v1/explain").body(question)).await?;
    let explanation: Explanation = serde_json::from_value(value.clone())
        .map_err(|error| Failure::Usage(format!("the answer is not one of a control plane: {error}")))?;
    args.output.print(&value, |_| told(&args.method, &args.url, &explanation))?;
    if explanation.is_matched() { Ok(()) } else { Err(Failure::Failed(anyhow::anyhow!(nearest_miss(&explanation)))) }
}

/// Why nothing matches, in one line.
fn nearest_miss(explanation: &Explanation) -> String {
    let refused = explanation.listeners.iter().find_map(|at| match &at.destination {
        Destination::Refused { because, .. } => Some(format!("no rule is tried: {because}")),
        _ => None,
    });
    let nearest = explanation.listeners.iter().find_map(|at| {
        let nearest = at.nearest.as_ref()?;
        let PassedOver { unmet, .. } = at.passed_over.iter().find(|passed| passed.rule == *nearest)?;
        let unmet: Vec<String> = unmet.iter().map(wants).collect();
        Some(format!("no rule matches; the nearest is {} {}: {}", nearest.resource, nearest.path, unmet.join("; ")))
    });
    refused.or(nearest).unwrap_or_else(|| "no rule matches: no route claims the host".to_owned())
}

/// The explanation in words.
fn told(method: &str, url: &str, explanation: &Explanation) -> String {
    let mut text = format!("{method} {url} on {}, at revision {}\n", source(&explanation.fleet), explanation.revision);
    for listener in &explanation.listeners {
        text += &at_listener(listener);
    }
    for note in &explanation.notes {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\nNote: {note}.");
    }
    let lines = text.lines().map(|line| output::printable(line.to_owned()) + "\n");
    lines.collect()
}

fn at_listener(at: &AtListener) -> String {
    let mut lines = Lines::default();
    if let Some(seen) = &at.request {
        let query = seen.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        lines.add("seen as", format!("{} {}://{}{}{query}", seen.method, seen.scheme, seen.host, seen.path));
    }
    match &at.virtual_host {
        Some(host) => {
            let routes: Vec<String> = host.routes.iter().map(source).collect();
            lines.add("host", format!("{} ({}); claimed by {}", host.host, host.because, routes.join(", ")));
        }
        None if at.request.is_some() => lines.add("host", "claimed by no route".to_owned()),
        None => {}
    }
    for PassedOver { rule, unmet } in &at.passed_over {
        let mark = if at.nearest.as_ref() == Some(rule) { " (the nearest)" } else { "" };
        let unmet: Vec<String> = unmet.iter().map(wants).collect();
        lines.add("passed over", format!("{}{mark}: {}", source(rule), unmet.join("; ")));
    }
    if at.passed_over_omitted > 0 {
        lines.add("passed over", format!("{} more, which are further away", at.passed_over_omitted));
    }
    if let Some(rule) = &at.rule {
        lines.add("rule", source(rule));
    }
    for guard in &at.guards {
        lines.add("passes", format!("{}, {}", guard.what, source(&guard.from)));
    }
    destination(&at.destination, &mut lines);
    if let Some(policies) = &at.policies {
        policy(policies, &mut lines);
    }
    for patch in &at.patches {
        lines.add("patch", format!("{} may change this", source(patch)));
    }
    if let Some(edits) = &at.response_headers {
        lines.add("headers", format!("of the response: {}, {}", edits.edits.join(", "), edits.from.path));
    }
    for note in &at.notes {
        lines.add("note", note.clone());
    }
    format!("\n{}, {} on port {}\n{}", source(&at.listener), at.protocol, at.port, lines.0)
}

fn destination(destination: &Destination, lines: &mut Lines) {
    match destination {
        Destination::Forward { to, host, path } => {
            for Share { service, subset, weight, of, session } in to {
                let share = if to.len() > 1 { format!("{weight} of {of} to ") } else { String::new() };
                let labels = subset.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
                let subset = if labels.is_empty() { String::new() } else { format!(" with {}", labels.join(", ")) };
                lines.add("sends", format!("{share}{}{subset}", source(service)));
                if let Some(SessionPolicy { from, by }) = session {
                    lines.add("sessions", format!("by {by}, {}", source(from)));
                }
            }
            lines.add("as", format!("{host}{path}"));
        }
        Destination::Redirect { status, location } => lines.add("redirects", format!("{status} to {location}")),
        Destination::Respond { status, location, body } => {
            let location = location.as_ref().map(|location| format!(", location {location}")).unwrap_or_default();
            let body =
                if body.is_empty() { ", without a body".to_owned() } else { format!(" {}", body.replace('\n', " ")) };
            lines.add("answers", format!("{status}{location}{body}"));
        }
        Destination::Preflight { status, allowed } => {
            let allowed = if *allowed { "the origin may" } else { "the origin may not" };
            lines.add("answers", format!("{status} to the question of a browser: {allowed}"));
        }
        Destination::Refused { status, location, because } => {
            let location = location.as_ref().map(|location| format!(" to {location}")).unwrap_or_default();
            lines.add("refuses", format!("{status}{location}: {because}"));
        }
        Destination::NoRoute { status } => lines.add("answers", format!("{status}: no rule matches")),
    }
}

fn policy(policies: &Policies, lines: &mut Lines) {
    lines.add("timeout", format!("{}, {}", policies.timeout, source(&policies.timeout_from)));
    for (word, time) in [("idle", &policies.idle_timeout), ("at most", &policies.max_stream_duration)] {
        if let Some(time) = time {
            lines.add(word, time.clone());
        }
    }
    if let Some(retry) = &policies.retry {
        let per_try = retry.per_try_timeout.as_ref().map(|time| format!(", {time} each"));
        let backoff = retry.backoff.as_ref().map(|[base, max]| format!(", waiting {base} to {max}"));
        let another = retry.another_host.then(|| ", at another endpoint".to_owned());
        let more = [per_try, backoff, another].map(Option::unwrap_or_default).concat();
        let on = [retry.on.as_slice(), &retry.on_answers].concat().join(", ");
        lines.add("retries", format!("{} on {on}{more}, {}", retry.attempts, source(&retry.from)));
    }
    for LimitPolicy { limit, from, amount, applies, key } in &policies.limits {
        let key = key.iter().map(|part| match &part.value {
            Some(value) => format!("{}={value}", part.key),
            None => format!("{}=?", part.key),
        });
        let key: Vec<String> = key.collect();
        let by = if key.is_empty() { String::new() } else { format!(" by {}", key.join(" ")) };
        let applies = if *applies { "" } else { ", which does not apply" };
        lines.add("limit", format!("{} {amount}{by}{applies}, {}", source(limit), from.path));
    }
    if let Some(mirror) = &policies.mirror {
        lines.add("copies", format!("{} % to {}, {}", mirror.percent, source(&mirror.service), mirror.from.path));
    }
    if let Some(fault) = &policies.fault {
        lines.add("fault", format!("{}, until {}, {}", fault.what.join(", "), fault.expires, fault.from.path));
    }
    if let Some(cors) = &policies.cors {
        let origin = match cors.origin_allowed {
            Some(true) => "the origin of this request may",
            Some(false) => "the origin of this request may not",
            None => "the request names no origin",
        };
        lines.add("origins", format!("{origin}, {}", cors.from.path));
    }
    for (name, edits) in [("request", &policies.request_headers), ("response", &policies.response_headers)] {
        if let Some(edits) = edits {
            lines.add("headers", format!("of the {name}: {}, {}", edits.edits.join(", "), edits.from.path));
        }
    }
}

fn wants(unmet: &Unmet) -> String {
    let place = unmet.path.split_once(".match.").map_or(unmet.path.as_str(), |(_, place)| place);
    format!("wants {}, not {} ({place})", unmet.wanted, unmet.found)
}

/// `Route/shop spec.rules[2] (revision 12)`.
fn source(source: &Source) -> String {
    let path = if source.path.is_empty() { String::new() } else { format!(" {}", source.path) };
    format!("{}{path} (revision {})", source.resource, source.revision)
}

/// Lines of a word and a text.
#[derive(Default)]
struct Lines(String);

impl Lines {
    #[expect(clippy::needless_pass_by_value, reason = "callers write format!(…) in place")]
    fn add(&mut self, word: &str, text: String) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "  {word:<12}{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explanation(listener: &Value) -> Explanation {
        let mut at = json!({ "listener": { "resource": "Listener/web", "revision": 2 }, "protocol": "http", "port": 10000,
            "request": { "method": "GET", "scheme": "http", "host": "a", "path": "/api/x", "query": "q=1" },
            "virtualHost": { "host": "a", "because": "it is this host", "routes": [{ "resource": "Route/shop", "revision": 7 }] },
            "passedOver": [{ "rule": rule(0), "unmet": [
                { "path": "spec.rules[0].match.methods", "wanted": "method PUT", "found": "GET" },
                { "path": "spec.rules[0].match.headers[1]", "wanted": "header x-beta", "found": "none" }] }] });
        for (field, value) in listener.as_object().unwrap() {
            at[field] = value.clone();
        }
        let fleet = json!({ "resource": "Fleet/edge", "revision": 1 });
        serde_json::from_value(json!({ "revision": 12, "fleet": fleet, "listeners": [at], "notes": ["be\u{1b}ware"] }))
            .unwrap()
    }

    fn rule(index: usize) -> Value {
        json!({ "resource": "Route/shop", "path": format!("spec.rules[{index}]"), "revision": 7 })
    }

    #[test]
    fn an_explanation_in_words() {
        let service = |name: &str| json!({ "resource": format!("Service/{name}"), "revision": 3 });
        let from = json!({ "resource": "Route/shop", "path": "spec.rules[1].x", "revision": 7 });
        let explained = explanation(&json!({
            "passedOverOmitted": 3,
            "rule": rule(1),
            "destination": { "action": "forward", "host": "shop.internal", "path": "/x?q=1",
                "to": [{ "service": service("a"), "weight": 1, "of": 10 }, { "service": service("b"), "weight": 9, "of": 10 }] },
            "policies": {
                "timeout": "2s", "timeoutFrom": from,
                "retry": { "from": from, "on": ["5xx", "reset"], "attempts": 2, "perTryTimeout": "500ms", "backoff": ["25ms", "250ms"] },
                "limits": [{ "limit": { "resource": "RateLimit/c", "revision": 4 }, "from": from, "amount": "100 per 1s", "applies": true,
                    "key": [{ "key": "x-api-key", "value": "k1" }, { "key": "remote_address" }] }],
                "mirror": { "from": from, "service": service("c"), "percent": 5 },
                "fault": { "from": from, "what": ["5 % answered with 503"], "expires": "2026-12-01T12:00:00Z" },
                "cors": { "from": from, "originAllowed": false },
                "requestHeaders": { "from": from, "edits": ["-x-debug", "x-from: edge"] },
            },
            "patches": [{ "resource": "EnvoyPatch/p", "revision": 9 }],
            "notes": ["a note"],
        }));
        insta::assert_snapshot!(told("GET", "http://a/api/x?q=1", &explained));
    }

    #[test]
    fn a_miss_in_words() {
        let nowhere = json!({ "nearest": rule(0), "destination": { "action": "noRoute", "status": 404 } });
        let explained = explanation(&nowhere);
        insta::assert_snapshot!(format!("{}{}", told("GET", "http://a/api/x", &explained), nearest_miss(&explained)));
        let refused =
            json!({ "destination": { "action": "refused", "status": 400, "because": "the path has a fragment" } });
        assert_eq!(nearest_miss(&explanation(&refused)), "no rule is tried: the path has a fragment");
        let unclaimed =
            json!({ "passedOver": [], "virtualHost": null, "destination": { "action": "noRoute", "status": 404 } });
        assert_eq!(nearest_miss(&explanation(&unclaimed)), "no rule matches: no route claims the host");
    }

    #[test]
    fn a_header_is_a_name_and_a_value() {
        assert_eq!(header("x-a: b:c "), Ok(("x-a".to_owned(), "b:c".to_owned())));
        assert!(header("x-a").is_err());
    }
}
