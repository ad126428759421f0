//! What becomes of the requests of a rule: backends, filters, timeouts, retries.
//!
//! A filter that cannot be done must not be left out: it may be what keeps strangers away. The Gateway API has such requests answered
//! with 500, and so has this.

use serde_json::{Map, Value, json};

use super::{
    backend::{Backends, Making, Referrer},
    gateway::{Door, Protocol},
    time,
};
use crate::import::{
    draft,
    fields::{Fields, Node, Place},
};

/// What to do about a filter that is not known.
const BY_HAND: &str = "write the rule by hand; until then its requests are answered with 500";

/// The longest timeout, for "never".
const NEVER: &str = "24h";

/// The longest timeout, in milliseconds.
const DAY: u64 = 24 * 3600 * 1000;

/// How often a request may be tried again.
const MAX_ATTEMPTS: u64 = 10;

/// The answer to requests that cannot be forwarded.
pub(super) fn refusal() -> Value {
    json!({ "respond": { "status": 500 } })
}

/// What filters come to.
#[derive(Debug, Default)]
struct Filters {
    headers: Map<String, Value>,
    redirect: Option<Value>,
    rewrite: Map<String, Value>,
    mirror: Option<Value>,
    cors: Option<Value>,
    /// One of them cannot be done.
    impossible: bool,
}

/// A rule of ours without its match; `doors` are those of its route.
pub(super) fn action(
    rule: &mut Fields<'_>,
    doors: &[&Door],
    referrer: Referrer<'_>,
    backends: &mut Backends,
    making: &mut Making<'_>,
) -> Value {
    let place = rule.place.clone();
    rule.pass_over(&["name"]);
    rule.lacks(
        "sessionPersistence",
        "is not done: requests of one session go to any endpoint",
        "let the service keep sessions where each endpoint finds them",
    );
    let mut filters = Filters::default();
    for node in rule.items("filters") {
        filter(node, &mut filters, doors, referrer, backends, making);
    }
    let targets = targets(rule, referrer, backends, making);
    let (timeout, per_try) = timeouts(rule);
    let retry = rule.object("retry").and_then(|retry| self::retry(retry, per_try));
    // Without retries, the time for one try is the time for all of them.
    let timeout = if retry.is_some() { timeout } else { [timeout, per_try].into_iter().flatten().min() };
    if filters.impossible {
        return refusal();
    }
    let headers = draft::given(Value::Object(filters.headers));
    if let Some(redirect) = filters.redirect {
        return draft::dense(json!({ "redirect": redirect, "headers": headers }));
    }
    if targets.is_empty() {
        place.lacks(
            "has no backend to send to",
            "name one, or leave the rule out; until then its requests are answered with 500",
        );
        return refusal();
    }
    draft::dense(json!({
        "to": targets,
        "rewrite": draft::given(Value::Object(filters.rewrite)),
        "mirror": filters.mirror,
        "cors": filters.cors,
        "timeout": timeout.map(time::text),
        "retry": retry,
        "headers": headers,
    }))
}

/// Where the connections of a rule that is about no requests are carried; `None` if nowhere.
pub(super) fn carried(
    rule: &mut Fields<'_>,
    referrer: Referrer<'_>,
    backends: &mut Backends,
    making: &mut Making<'_>,
) -> Option<Value> {
    rule.pass_over(&["name"]);
    let to = targets(rule, referrer, backends, making);
    if to.is_empty() {
        rule.place.lacks("has no backend to carry connections to", "name one; until then they are closed");
        return None;
    }
    Some(json!({ "to": to }))
}

/// Backends with their weights; each once. Empty if nothing can be sent to any.
fn targets(
    rule: &mut Fields<'_>,
    referrer: Referrer<'_>,
    backends: &mut Backends,
    making: &mut Making<'_>,
) -> Vec<Value> {
    let mut weights: Vec<(String, u64)> = Vec::new();
    for node in rule.items("backendRefs") {
        let Some(mut reference) = node.object() else { continue };
        reference.lacks(
            "filters",
            "is for one backend alone",
            "move the filters to a rule of their own; they are not done",
        );
        let weight = reference.number("weight", 1_000_000).unwrap_or(1);
        let Some(service) = backends.target(&mut reference, referrer, making) else { continue };
        match weights.iter_mut().find(|(known, _)| *known == service) {
            Some((_, known)) => *known += weight,
            None => weights.push((service, weight)),
        }
    }
    if weights.iter().all(|(_, weight)| *weight == 0) {
        return Vec::new();
    }
    let alone = weights.len() == 1;
    let target = |(service, weight)| match alone {
        true => json!({ "service": service }),
        false => json!({ "service": service, "weight": weight }),
    };
    weights.into_iter().map(target).collect()
}

fn filter(
    node: Node<'_>,
    filters: &mut Filters,
    doors: &[&Door],
    referrer: Referrer<'_>,
    backends: &mut Backends,
    making: &mut Making<'_>,
) {
    let Some(mut fields) = node.object() else { return };
    let place = fields.place.clone();
    match fields.text("type").unwrap_or_default() {
        "RequestHeaderModifier" => {
            let changes = fields.object("requestHeaderModifier").and_then(|fields| {
                let (changes, host) = headers(fields);
                filters.rewrite.extend(host.map(|host| ("host".to_owned(), host.into())));
                changes
            });
            filters.headers.extend(changes.map(|changes| ("request".to_owned(), changes)));
        }
        "ResponseHeaderModifier" => {
            let changes = fields.object("responseHeaderModifier").and_then(|fields| headers(fields).0);
            filters.headers.extend(changes.map(|changes| ("response".to_owned(), changes)));
        }
        "RequestRedirect" => filters.redirect = fields.object("requestRedirect").map(|fields| redirect(fields, doors)),
        "URLRewrite" => {
            let Some(mut rewrite) = fields.object("urlRewrite") else { return };
            filters.rewrite.extend(rewrite.text("hostname").map(|host| ("host".to_owned(), host.into())));
            match rewrite.object("path").map(path_change) {
                Some(Some(PathChange::Full(path))) => {
                    let regex = json!({ "pattern": "^/.*", "substitution": path.replace('\\', r"\\") });
                    filters.rewrite.insert("regex".to_owned(), regex);
                }
                Some(Some(PathChange::Prefix(prefix))) => {
                    filters.rewrite.insert("prefix".to_owned(), prefix.into());
                }
                Some(None) => filters.impossible = true,
                None => {}
            }
        }
        "RequestMirror" => {
            let mirror = fields.object("requestMirror").and_then(|fields| mirror(fields, referrer, backends, making));
            if filters.mirror.is_some() {
                place.lacks("is a second copy of requests", "mirror to one service; no more copies are made");
                return;
            }
            filters.mirror = mirror;
        }
        "CORS" => filters.cors = fields.object("cors").map(cors),
        other => {
            fields.rest();
            place.lacks(format!("{other} is a filter that is not known here"), BY_HAND);
            filters.impossible = true;
        }
    }
}

/// Changes to headers, and the host if that is among them.
fn headers(mut fields: Fields<'_>) -> (Option<Value>, Option<String>) {
    let mut host = None;
    let mut pairs = |nodes: Vec<Node<'_>>| {
        let pair = |node: Node<'_>| {
            let mut fields = node.object()?;
            let (name, value) = (fields.text("name")?, fields.text("value")?);
            if name.eq_ignore_ascii_case("host") {
                host = Some(value.to_owned());
                return None;
            }
            Some(json!({ "name": name, "value": value }))
        };
        let pairs: Vec<Value> = nodes.into_iter().filter_map(pair).collect();
        (!pairs.is_empty()).then_some(pairs)
    };
    let set = pairs(fields.items("set"));
    let add = pairs(fields.items("add"));
    let remove = fields.texts("remove");
    let remove = (!remove.is_empty()).then_some(remove);
    (draft::given(json!({ "set": set, "add": add, "remove": remove })), host)
}

enum PathChange {
    Full(String),
    Prefix(String),
}

fn path_change(mut fields: Fields<'_>) -> Option<PathChange> {
    match fields.text("type")? {
        "ReplaceFullPath" => fields.text("replaceFullPath").map(|path| PathChange::Full(path.to_owned())),
        "ReplacePrefixMatch" => {
            let prefix = fields.text("replacePrefixMatch")?;
            Some(PathChange::Prefix(if prefix.is_empty() { "/".to_owned() } else { prefix.to_owned() }))
        }
        _ => {
            fields.place.lacks("is a change of the path that is not known here", BY_HAND);
            None
        }
    }
}

/// Envoy keeps the port that the client has asked for; the Gateway API wants that of the scheme, or of the listener.
fn redirect(mut fields: Fields<'_>, doors: &[&Door]) -> Value {
    let scheme = fields.text("scheme").map(str::to_ascii_lowercase);
    let host = fields.text("hostname");
    let port = fields.number("port", 65535);
    let status = fields.number("statusCode", 599).unwrap_or(302);
    let path = fields.object("path").and_then(path_change);
    let usual = |https: bool| if https { 443 } else { 80 };
    let unusual = doors.iter().find(|door| door.port != usual(door.protocol == Protocol::Https));
    let port = port.or_else(|| match (&scheme, host, unusual) {
        (Some(scheme), _, Some(_)) => Some(u64::from(usual(scheme == "https"))),
        (None, Some(_), Some(door)) => Some(u64::from(door.port)),
        _ => None,
    });
    let (full, prefix) = match path {
        Some(PathChange::Full(path)) => (Some(path), None),
        Some(PathChange::Prefix(prefix)) => (None, Some(prefix)),
        None => (None, None),
    };
    json!({ "scheme": scheme, "host": host, "port": port, "path": full, "prefix": prefix, "status": status })
}

fn mirror(
    mut fields: Fields<'_>,
    referrer: Referrer<'_>,
    backends: &mut Backends,
    making: &mut Making<'_>,
) -> Option<Value> {
    let percent = fields.number("percent", 100);
    let fraction = fields.object("fraction").and_then(|mut fraction| {
        let share = fraction.number("numerator", u64::from(u32::MAX))?;
        let of = fraction.number("denominator", u64::from(u32::MAX)).unwrap_or(100).max(1);
        let percent = (share * 100).div_ceil(of).min(100);
        if percent * of != share * 100 {
            fraction.place.lacks(format!("is no whole percentage; {percent} is taken"), "choose a share in percent");
        }
        Some(percent)
    });
    let service = backends.target(&mut fields.object("backendRef")?, referrer, making)?;
    let percent = percent.or(fraction);
    (percent != Some(0)).then(|| draft::dense(json!({ "service": service, "percent": percent })))
}

fn cors(mut fields: Fields<'_>) -> Value {
    let any = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let some = |names: Vec<String>| (!names.is_empty() && names != ["*"]).then_some(names);
    let origins = any(fields.texts("allowOrigins"));
    let (methods, headers) = (some(any(fields.texts("allowMethods"))), some(any(fields.texts("allowHeaders"))));
    let expose = some(any(fields.texts("exposeHeaders")));
    let credentials = fields.take("allowCredentials").and_then(|node| node.value.as_bool());
    let age = fields.number("maxAge", 24 * 3600).filter(|seconds| *seconds > 0).map(|seconds| format!("{seconds}s"));
    json!({
        "origins": origins, "methods": methods, "headers": headers, "exposeHeaders": expose, "credentials": credentials,
        "maxAge": age,
    })
}

/// The time for everything and for one try, in milliseconds.
fn timeouts(rule: &mut Fields<'_>) -> (Option<u64>, Option<u64>) {
    let Some(mut timeouts) = rule.object("timeouts") else { return (None, None) };
    let mut read = |name: &str| {
        let node = timeouts.take(name)?;
        let text = node.text()?;
        match time::milliseconds(text) {
            Some(0) => {
                node.place.lacks(format!("is none at all; {NEVER} is taken"), "choose a timeout");
                Some(DAY)
            }
            Some(most @ ..=DAY) => Some(most),
            _ => {
                node.place.lacks("is not a duration of at most 24h", "choose one");
                None
            }
        }
    };
    (read("request"), read("backendRequest"))
}

fn retry(mut fields: Fields<'_>, per_try: Option<u64>) -> Option<Value> {
    let place = fields.place.clone();
    let attempts = fields.number("attempts", u64::from(u32::MAX));
    let base = fields.text("backoff").and_then(time::milliseconds).filter(|base| *base > 0);
    let codes: Vec<u64> = fields.items("codes").iter().filter_map(|node| node.number(599)).collect();
    // Broken connections are always tried again.
    let mut on = vec!["connect-failure", "refused-stream", "reset"];
    match codes.as_slice() {
        [] => {}
        codes if codes.iter().all(|code| (502..=504).contains(code)) => on.push("gateway-error"),
        _ => on.push("5xx"),
    }
    let exact = [vec![], vec![502, 503, 504], (500..600).collect()];
    if !exact
        .iter()
        .any(|exact| exact.iter().all(|code| codes.contains(code)) && codes.iter().all(|code| exact.contains(code)))
    {
        let taken = on.last().copied().unwrap_or_default();
        place.at("codes").lacks(format!("is not one of the sets that there are; {taken} is taken"), "see retry.on");
    }
    if attempts == Some(0) {
        return None;
    }
    if attempts.is_some_and(|attempts| attempts > MAX_ATTEMPTS) {
        place.at("attempts").lacks(format!("is more than {MAX_ATTEMPTS}, which is taken"), "try less often");
    }
    let attempts = attempts.map(|attempts| attempts.min(MAX_ATTEMPTS));
    let backoff = base.map(|base| json!({ "base": time::text(base) }));
    Some(draft::dense(
        json!({ "on": on, "attempts": attempts, "perTryTimeout": per_try.map(time::text), "backoff": backoff }),
    ))
}

/// Says what the model has against a rule; what remains then is to refuse its requests.
pub(super) fn refused(place: &Place<'_>, path: &str, reason: &str) {
    place.lacks(format!("makes a rule that is refused: {path}: {reason}"), BY_HAND);
}
