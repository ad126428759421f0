//! OpenAPI 3.0 and 3.1: a server is a service and a host, paths are the rules of a route.
//!
//! What a description says of parameters, bodies and answers is between clients and the service; no proxy looks at it. What it says of
//! security is never made into conditions of a rule: a request without a key is not a request for another rule, it is one to be refused,
//! and whoever refuses it has to be named. So every scheme is listed.

mod paths;
mod server;

use serde_json::{Value, json};

use self::server::Server;
use super::{
    Import,
    draft::{self, Names},
    fields::{Fields, Node, Place, Report},
};
use crate::model::{Kind, Name};

/// How many rules a route may have.
const MAX_RULES: usize = 500;

/// How often a reference may lead to another one.
const MAX_REFERENCES: usize = 16;

/// How an import is to be done.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the routes are served, `fleet/listener`.
    pub listener: String,
    /// The name of services and routes; otherwise the title of the description.
    pub service: Option<Name>,
    /// Who owns what is made.
    pub team: Option<Name>,
    /// Which of the servers, from 0.
    pub server: usize,
    /// The host to claim, in the place of that of the server.
    pub host: Option<String>,
    /// Where the service is, `host:port`, in the place of that of the server.
    pub endpoint: Option<String>,
}

/// Resources for the descriptions in `documents`.
pub fn import(documents: &[Value], options: &Options) -> Import {
    let report = Report::default();
    let mut names = Names::default();
    let mut resources = Vec::new();
    for (index, value) in documents.iter().enumerate() {
        let root = Node { value, place: Place::root(&report, index) };
        resources.extend(
            root.object().and_then(|fields| description(value, fields, options, &mut names)).unwrap_or_default(),
        );
    }
    Import { resources, unmatched: report.into_vec() }
}

fn description(root: &Value, mut fields: Fields<'_>, options: &Options, names: &mut Names) -> Option<Vec<Value>> {
    let version = fields.text("openapi").unwrap_or_default();
    if !["3.0", "3.1"].iter().any(|known| version == *known || version.starts_with(&format!("{known}."))) {
        let place = fields.place.clone();
        fields.rest();
        place.lacks("is not a description in OpenAPI 3.0 or 3.1", "convert it first, if it is one in another version");
        return None;
    }
    let mut info = fields.object("info");
    let title = info.as_mut().and_then(|info| info.text("title")).unwrap_or("api");
    if let Some(info) = &mut info {
        info.pass_over(&["version", "summary", "description", "termsOfService", "contact", "license"]);
    }
    fields.pass_over(&["tags", "externalDocs", "security", "jsonSchemaDialect"]);
    fields.lacks("webhooks", "is about requests that the service makes", "route them where they arrive");
    schemes(root, fields.object("components"));
    let server = server::server(&mut fields, options);
    let rules = paths::rules(root, fields.object("paths"), server.as_ref().map_or("", |server| &server.base));
    let Server { host, address, port, tls, base: _ } = server?;
    let dns = address.parse::<std::net::IpAddr>().is_err();
    let endpoint = json!({ "address": address, "port": port, "dns": dns.then_some(true) });
    let spec = json!({ "endpoints": [endpoint], "tls": tls.then(|| json!({})) });
    let wanted = options.service.as_ref().map_or(title, Name::as_str);
    let place = fields.place.at("servers");
    let service = draft::document(Kind::Service, &names.free(Kind::Service, wanted), options.team.as_ref(), spec);
    if let Some(refusal) = draft::refusals(&service).first() {
        let reason = format!("makes a Service that is refused: {}: {}", refusal.path, refusal.reason);
        place.lacks(reason, "say by --endpoint where the service is");
        return None;
    }
    let name = service["name"].clone();
    let mut resources = vec![service];
    for rules in rules.chunks(MAX_RULES) {
        let rules: Vec<Value> =
            rules.iter().map(|matches| json!({ "match": matches, "to": [{ "service": name }] })).collect();
        let spec = json!({ "listeners": [options.listener], "hosts": [host], "rules": rules });
        let route = draft::document(Kind::Route, &names.free(Kind::Route, wanted), options.team.as_ref(), spec);
        match draft::refusals(&route).first() {
            None => resources.push(route),
            Some(refusal) => {
                let reason = format!("makes a Route that is refused: {}: {}", refusal.path, refusal.reason);
                place.lacks(reason, "say by --host and --listener which host is claimed where");
            }
        }
    }
    Some(resources)
}

/// Says of every security scheme that nobody checks it.
fn schemes(root: &Value, components: Option<Fields<'_>>) {
    let Some(mut components) = components else { return };
    let schemes = components.object("securitySchemes").map(|mut schemes| schemes.rest()).unwrap_or_default();
    for (_, node) in schemes {
        let place = node.place.clone();
        let Some(mut scheme) = resolved(root, node) else { continue };
        let of = scheme.text("type").unwrap_or_default();
        let how = scheme.text("scheme").unwrap_or_default().to_ascii_lowercase();
        let header = scheme.text("name").unwrap_or_default();
        let (reason, instead) = match (of, how.as_str()) {
            ("http", "bearer") | ("oauth2" | "openIdConnect", _) => (
                "is a token that no proxy checks",
                "let the service check it, or add Envoy's JWT filter by an EnvoyPatch of the listener".to_owned(),
            ),
            ("apiKey", _) if scheme.text("in") == Some("header") => (
                "is a key that no proxy checks",
                format!("let the service check it; a RateLimit can count by the header {header}"),
            ),
            ("mutualTLS", _) => (
                "is a certificate that the listener does not ask for",
                "demand it by an EnvoyPatch of the listener".to_owned(),
            ),
            _ => ("is a proof of who calls that no proxy checks", "let the service check it".to_owned()),
        };
        scheme.rest();
        place.lacks(reason, instead);
    }
    // Schemas and the like are what others in the document refer to.
    for (_, node) in components.rest().into_iter().filter(|(name, _)| name.starts_with("x-")) {
        node.place.lacks("has no counterpart", "see what reads it");
    }
}

/// The object at `node`, or the one in the same document that it refers to. `None` if that now stands in the report.
fn resolved<'a>(root: &'a Value, node: Node<'a>) -> Option<Fields<'a>> {
    let place = node.place.clone();
    let mut node = node;
    for _ in 0..MAX_REFERENCES {
        let reference = node.value.get("$ref").and_then(Value::as_str);
        let Some(reference) = reference else { return node.object() };
        let Some(pointer) = reference.strip_prefix('#') else {
            place.lacks("refers to another document", "put all into one document first");
            return None;
        };
        let Some(value) = root.pointer(&decoded(pointer)) else {
            place.lacks("refers to nothing", "look at the reference");
            return None;
        };
        node = Node { value, place: place.clone() };
    }
    place.lacks("refers to itself, or over too many others", "write it where it belongs");
    None
}

/// A fragment of a URL without its percent-encoding.
fn decoded(fragment: &str) -> String {
    let mut bytes = Vec::with_capacity(fragment.len());
    let mut rest = fragment.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.filter(|_| *first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests;
