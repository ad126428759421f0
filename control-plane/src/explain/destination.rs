//! Where the rule that matches sends a request.

use super::{
    arrival::Arrived,
    explanation::{Destination, Share},
    pattern::Patterns,
    request::split_port,
    rewrite::{replace_matched, rewritten},
};
use crate::model::{
    cors::{Cors, Origin},
    route::{Action, Forward, PathMatch, Redirect, Respond, Rule, Target, Tunnel, Upgrade},
};

/// Where `rule`, which matches, sends the request; `share` says what a target gets of the sum of all weights.
pub(super) fn of(
    rule: &Rule,
    arrived: &Arrived,
    patterns: &Patterns,
    share: impl Fn(&Target, u64) -> Share,
) -> Destination {
    match &rule.action {
        Action::Forward(Forward { cors: Some(cors), .. }) if arrived.is_preflight() => {
            Destination::Preflight { status: 200, allowed: allows(cors, &arrived.text("origin"), patterns) }
        }
        Action::Forward(forward) => {
            let of = forward.to.iter().map(|target| u64::from(target.weight)).sum();
            let path = match &forward.rewrite.path {
                Some(rewrite) => rewritten(rewrite, &rule.matches.path, &arrived.path, patterns),
                None => arrived.path.clone(),
            };
            Destination::Forward {
                to: forward.to.iter().map(|target| share(target, of)).collect(),
                host: forward.rewrite.host.clone().unwrap_or_else(|| arrived.host.clone()),
                path: arrived.with_query(&path),
            }
        }
        Action::Redirect(redirect) => {
            Destination::Redirect { status: redirect.status, location: location(redirect, &rule.matches.path, arrived) }
        }
        Action::Respond(Respond { status, body }) => {
            let itself = || format!("{}://{}{}", arrived.scheme, arrived.host, arrived.target());
            let location = matches!(status, 201 | 300..=399).then(itself);
            Destination::Respond { status: *status, location, body: body.clone() }
        }
    }
}

/// What is to be known of a tunnel that `rule` carries.
pub(super) fn of_tunnel(rule: &Rule) -> Option<&'static str> {
    let Action::Forward(forward) = &rule.action else { return None };
    forward.upgrades.iter().find_map(|upgrade| match upgrade {
        Upgrade::Connect(Tunnel::Terminate) => {
            Some("the tunnel ends at the proxy: the service gets what comes out of it, over TCP, whatever host was asked for")
        }
        Upgrade::Connect(Tunnel::Forward) => Some("the service gets the CONNECT, and connects to whom it likes"),
        Upgrade::Websocket => None,
    })
}

/// Whether pages of `origin` may use what `cors` is said of.
pub(super) fn allows(cors: &Cors, origin: &str, patterns: &Patterns) -> bool {
    cors.origins.iter().any(|allowed| match allowed {
        Origin::Any => true,
        Origin::Exact(allowed) => allowed == origin,
        Origin::Pattern(pattern) => patterns.is_match(pattern, origin),
    })
}

fn location(redirect: &Redirect, matched: &PathMatch, arrived: &Arrived) -> String {
    let Redirect { scheme, host, port, path, prefix, status: _, strip_query } = redirect;
    let new_scheme = scheme.as_ref().unwrap_or(&arrived.scheme);
    let host = match host {
        Some(host) => host.as_str(),
        None => kept_host(arrived, new_scheme, port.is_some()),
    };
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let path = match (path, prefix) {
        (Some(path), _) => path.clone(),
        (None, Some(with)) => replace_matched(matched, with, &arrived.path),
        (None, None) => arrived.path.clone(),
    };
    let path = if *strip_query { path } else { arrived.with_query(&path) };
    format!("{new_scheme}://{host}{port}{path}")
}

/// The host of the request, without the port if there is a new one, or if it is the default of a scheme that is changed.
fn kept_host<'a>(arrived: &'a Arrived, new_scheme: &str, has_new_port: bool) -> &'a str {
    let default_port = if arrived.scheme == "https" { "443" } else { "80" };
    match split_port(&arrived.host) {
        (host, Some(port)) if has_new_port || (new_scheme != arrived.scheme && port == default_port) => host,
        _ => &arrived.host,
    }
}
