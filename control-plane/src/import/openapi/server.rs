//! Servers: where a service is, by which host it is called, and what its paths begin with.
//!
//! A description has servers for several surroundings (production, test), so one is taken and the others are listed.

use super::Options;
use crate::import::fields::{Fields, Place};

/// One server.
#[derive(Debug, PartialEq)]
pub(super) struct Server {
    /// The host that clients call.
    pub(super) host: String,
    /// Where the service is.
    pub(super) address: String,
    pub(super) port: u16,
    /// Whether it is spoken to over TLS.
    pub(super) tls: bool,
    /// What all paths begin with, without a slash at its end.
    pub(super) base: String,
}

/// The server that is meant; `None` if there is none, which then stands in the report.
pub(super) fn server(fields: &mut Fields<'_>, options: &Options) -> Option<Server> {
    let place = fields.place.at("servers");
    let mut chosen = None;
    for (index, node) in fields.items("servers").into_iter().enumerate() {
        let Some(mut server) = node.object() else { continue };
        server.pass_over(&["description", "name"]);
        let url = url(&mut server);
        if index == options.server {
            chosen = Some((url, server.place.clone()));
        } else {
            server.place.lacks("is another server", format!("import it by itself with --server {index}"));
        }
    }
    let (url, place) = chosen.unwrap_or_else(|| ("/".to_owned(), place));
    parts(&url, options, &place)
}

/// A URL with the defaults of its variables.
fn url(server: &mut Fields<'_>) -> String {
    let mut url = server.text("url").unwrap_or("/").to_owned();
    for (name, node) in server.object("variables").map(|mut variables| variables.rest()).unwrap_or_default() {
        let Some(mut variable) = node.object() else { continue };
        variable.pass_over(&["description", "enum"]);
        if let Some(default) = variable.text("default") {
            url = url.replace(&format!("{{{name}}}"), default);
        }
    }
    url
}

fn parts(url: &str, options: &Options, place: &Place<'_>) -> Option<Server> {
    let (tls, rest) = match url.split_once("://") {
        Some(("https", rest)) => (true, Some(rest)),
        Some(("http", rest)) => (false, Some(rest)),
        Some(_) => {
            place.lacks("is not called over HTTP", "choose another one with --server");
            return None;
        }
        None => (false, None),
    };
    let (authority, path) = match rest {
        Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        None => ("", url),
    };
    let usual = if tls { 443 } else { 80 };
    let (named, at) = authority_of(authority, usual);
    let (address, port) = match &options.endpoint {
        Some(endpoint) => authority_of(endpoint, usual),
        None => (named.clone(), at),
    };
    let host = options.host.clone().unwrap_or(named);
    let (Some(port), false, false) = (port, host.is_empty(), address.is_empty()) else {
        place.lacks("does not say which host is called and where the service is", "say it by --host and --endpoint");
        return None;
    };
    if options.endpoint.is_none() {
        place.lacks(
            format!("is both the host that the route claims and where the service is: {address}:{port}"),
            "say by --endpoint where the service is, if clients reach the proxies by that host",
        );
    }
    let base = path.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/').to_owned();
    let address = address.trim_start_matches('[').trim_end_matches(']').to_owned();
    // Over TLS by the server's word, or to an endpoint on the port of TLS.
    let tls = if options.endpoint.is_some() { port == 443 } else { tls };
    Some(Server { host, address, port, tls, base })
}

/// Host and port of `host:port`; the port is `None` if it is none.
fn authority_of(text: &str, usual: u16) -> (String, Option<u16>) {
    let text = text.rsplit('@').next().unwrap_or_default();
    match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host.to_owned(), port.parse().ok().filter(|port| *port > 0)),
        _ => (text.to_owned(), Some(usual)),
    }
}
