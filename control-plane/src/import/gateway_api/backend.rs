//! What routes send to: each port of a Service that is named becomes one of ours, by its name in the cluster's DNS.
//!
//! Pods come and go, so their addresses (EndpointSlices) are no configuration. A proxy outside of the cluster has to be able to resolve
//! and reach the names; whoever runs it there says by `--cluster-domain` what they end in.
//!
//! A reference into another namespace counts only if a ReferenceGrant there allows it, as in the cluster.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::objects::{GATEWAY, Object, ObjectName};
use crate::{
    import::{
        draft::{self, Names},
        fields::{Fields, Place},
    },
    model::{Kind, Name},
};

/// Where the proxies are to find files that a cluster keeps in its own objects.
pub(super) const FILES: &str = "/etc/envoy/tls";

/// Services that were found, and those that were made of them.
#[derive(Debug, Default)]
pub(super) struct Backends {
    services: BTreeMap<ObjectName, Service>,
    grants: Vec<Grant>,
    /// TLS towards a Service, or one of its ports by name.
    tls: BTreeMap<(ObjectName, Option<String>), Value>,
    authorities: BTreeMap<ObjectName, String>,
    /// What was made, by service, port and whether it is spoken to in HTTP/2.
    made: BTreeMap<(ObjectName, u64, bool), String>,
    /// The documents.
    pub(super) documents: Vec<Value>,
}

#[derive(Debug)]
struct Service {
    external: Option<String>,
    headless: bool,
    ports: Vec<Port>,
}

#[derive(Debug)]
struct Port {
    port: u64,
    name: Option<String>,
    protocol: Option<String>,
    target: Option<u64>,
}

#[derive(Debug)]
struct Grant {
    namespace: String,
    /// Kind and namespace of who may refer.
    from: Vec<(String, String)>,
    /// Kind and name of what may be referred to; all of that kind without a name.
    to: Vec<(String, Option<String>)>,
}

/// Who refers to a backend.
#[derive(Clone, Copy, Debug)]
pub(super) struct Referrer<'a> {
    /// `HTTPRoute` or `GRPCRoute`.
    pub(super) kind: &'a str,
    /// Its namespace.
    pub(super) namespace: &'a str,
}

impl Backends {
    /// Takes an object in that says something of backends.
    pub(super) fn add(&mut self, object: Object<'_>) {
        let Object { kind, name, mut fields, .. } = object;
        match kind {
            "Service" => {
                let service = fields.object("spec").map(service);
                self.services.extend(service.map(|service| (name, service)));
            }
            "ConfigMap" => {
                let authority = fields.object("data").and_then(|mut data| {
                    let authority = data.text("ca.crt");
                    data.rest();
                    authority
                });
                fields.rest();
                self.authorities.extend(authority.map(|text| (name, text.to_owned())));
            }
            "ReferenceGrant" => {
                let Some(mut spec) = fields.object("spec") else { return };
                let referrer = |mut from: Fields<'_>| {
                    from.pass_over(&["group"]);
                    Some((from.text("kind")?.to_owned(), from.text("namespace")?.to_owned()))
                };
                let from = spec.items("from").into_iter().filter_map(|node| referrer(node.object()?)).collect();
                let referred = |mut to: Fields<'_>| {
                    to.pass_over(&["group"]);
                    Some((to.text("kind")?.to_owned(), to.text("name").map(str::to_owned)))
                };
                let to = spec.items("to").into_iter().filter_map(|node| referred(node.object()?)).collect();
                self.grants.push(Grant { namespace: name.namespace, from, to });
            }
            "EndpointSlice" => {
                let place = fields.place.clone();
                fields.rest();
                place.lacks(
                    "holds addresses that come and go",
                    "nothing has to be done where proxies resolve the names of the cluster; elsewhere let endpoints register themselves",
                );
            }
            _ => {}
        }
    }

    /// Takes a BackendTLSPolicy in, when all ConfigMaps are known.
    pub(super) fn add_policy(&mut self, object: Object<'_>) {
        let Object { name, mut fields, .. } = object;
        let Some(mut spec) = fields.object("spec") else { return };
        let tls = spec.object("validation").map(|validation| self.validation(validation, &name.namespace));
        for node in spec.items("targetRefs") {
            let Some(mut target) = node.object() else { continue };
            target.pass_over(&["group"]);
            let kind = target.text("kind").unwrap_or("Service");
            let service = target.text("name").unwrap_or_default().to_owned();
            let section = target.text("sectionName").map(str::to_owned);
            if kind != "Service" {
                target.place.lacks(format!("is a {kind}"), "name a Service");
                continue;
            }
            let service = ObjectName { namespace: name.namespace.clone(), name: service };
            self.tls.extend(tls.clone().map(|tls| ((service, section), tls)));
        }
    }

    fn validation(&self, mut fields: Fields<'_>, namespace: &str) -> Value {
        let hostname = fields.text("hostname");
        fields.pass_over(&["wellKnownCACertificates"]);
        let mut trusted = None;
        for (index, node) in fields.items("caCertificateRefs").into_iter().enumerate() {
            let place = node.place.clone();
            let Some(mut reference) = node.object() else { continue };
            reference.pass_over(&["group", "kind"]);
            let name = reference.text("name").unwrap_or_default().to_owned();
            if index > 0 {
                place.lacks("is a further authority", "put all certificates into the first one");
                continue;
            }
            let object = ObjectName { namespace: namespace.to_owned(), name };
            trusted = Some(if let Some(pem) = self.authorities.get(&object) {
                json!({ "pem": pem })
            } else {
                let file = format!("{FILES}/{}/ca.crt", draft::label(&object.wanted()));
                place.lacks(
                    "is not among the documents",
                    format!("put its ca.crt on the machines of the proxies as {file}"),
                );
                json!({ "file": file })
            });
        }
        let names: Vec<Value> = fields
            .items("subjectAltNames")
            .into_iter()
            .filter_map(|node| {
                let mut name = node.object()?;
                match name.text("type")? {
                    "URI" => Some(json!({ "uri": name.text("uri") })),
                    _ => Some(json!({ "dns": name.text("hostname") })),
                }
            })
            .collect();
        let names = (!names.is_empty()).then_some(names);
        draft::dense(json!({ "sni": hostname, "trustedCa": trusted, "subjectAltNames": names }))
    }

    /// The name of the resource for a reference to a backend; `None` if the reference now stands in the report.
    pub(super) fn target(
        &mut self,
        reference: &mut Fields<'_>,
        referrer: Referrer<'_>,
        made_by: &mut Making<'_>,
    ) -> Option<String> {
        let place = reference.place.clone();
        let group = reference.text("group").unwrap_or_default();
        let kind = reference.text("kind").unwrap_or("Service");
        let name = reference.text("name")?.to_owned();
        let namespace = reference.text("namespace").unwrap_or(referrer.namespace).to_owned();
        let port = reference.number("port", 65535);
        if kind != "Service" || !group.is_empty() {
            place.lacks(
                format!("refers to a {kind}, not to a Service"),
                "write a Service resource and name it in the rule",
            );
            return None;
        }
        let Some(port) = port.filter(|port| *port > 0) else {
            place.lacks("has no port", "say which port of the Service is meant");
            return None;
        };
        let object = ObjectName { namespace, name };
        if object.namespace != referrer.namespace && !self.is_granted(referrer, &object) {
            place.lacks(
                format!("refers to {object}, and no ReferenceGrant among the documents allows it"),
                "import the ReferenceGrant as well",
            );
            return None;
        }
        self.service(object, port, referrer.kind == "GRPCRoute", &place, made_by)
    }

    fn is_granted(&self, referrer: Referrer<'_>, object: &ObjectName) -> bool {
        let may_refer = |grant: &&Grant| {
            grant.namespace == object.namespace
                && grant.from.iter().any(|(kind, namespace)| kind == referrer.kind && namespace == referrer.namespace)
        };
        let to_it = |(kind, name): &(String, Option<String>)| {
            kind == "Service" && name.as_ref().is_none_or(|name| *name == object.name)
        };
        self.grants.iter().filter(may_refer).any(|grant| grant.to.iter().any(to_it))
    }

    fn service(
        &mut self,
        object: ObjectName,
        port: u64,
        grpc: bool,
        place: &Place<'_>,
        made_by: &mut Making<'_>,
    ) -> Option<String> {
        let Making { names, domain, team } = made_by;
        let known = self.services.get(&object);
        let known_port = known.and_then(|service| service.ports.iter().find(|known| known.port == port));
        if known.is_some() && known_port.is_none() {
            place.lacks(format!("names port {port}, which Service {object} does not have"), "name one that it has");
            return None;
        }
        let protocol = known_port.and_then(|port| port.protocol.as_deref());
        let http2 = grpc || matches!(protocol, Some("kubernetes.io/h2c" | "h2c" | "grpc" | "http2"));
        let key = (object, port, http2);
        if let Some(made) = self.made.get(&key) {
            return Some(made.clone());
        }
        let object = &key.0;
        let address = match known.and_then(|service| service.external.clone()) {
            Some(external) => external,
            None => format!("{}.{}.svc.{domain}", object.name, object.namespace),
        };
        // Nobody maps the ports of a Service without an address of its own.
        let headless = known.is_some_and(|service| service.headless);
        let at = known_port.and_then(|port| port.target).filter(|_| headless).unwrap_or(port);
        let of_port = known_port.and_then(|port| port.name.clone());
        let tls = [of_port, None].into_iter().find_map(|section| self.tls.get(&(object.clone(), section)).cloned());
        let wanted = format!("{}-{port}", object.wanted());
        let spec = json!({
            "endpoints": [{ "address": address, "port": at, "dns": true }],
            "protocol": http2.then_some("http2"),
            "tls": tls,
        });
        let refusals = draft::refusals(&draft::document(Kind::Service, "a", None, spec.clone()));
        if let Some(refusal) = refusals.first() {
            let reason = format!("makes a Service that is refused: {}: {}", refusal.path, refusal.reason);
            place.lacks(reason, "write the Service resource by hand");
            return None;
        }
        let name = names.free(Kind::Service, &wanted);
        self.documents.push(draft::document(Kind::Service, &name, *team, spec));
        self.made.insert(key, name.clone());
        Some(name)
    }
}

/// What making resources takes.
#[derive(Debug)]
pub(super) struct Making<'a> {
    /// The names that are given out.
    pub(super) names: &'a mut Names,
    /// What names in the cluster's DNS end in.
    pub(super) domain: &'a str,
    /// Who owns what is made.
    pub(super) team: Option<&'a Name>,
}

fn service(mut spec: Fields<'_>) -> Service {
    let external = spec.text("externalName").map(str::to_owned);
    let headless = spec.text("clusterIP").is_some_and(|address| address == "None");
    let ports = spec.items("ports").into_iter().filter_map(|node| {
        let mut fields = node.object()?;
        let port = Port {
            port: fields.number("port", 65535)?,
            name: fields.text("name").map(str::to_owned),
            protocol: fields.text("appProtocol").map(str::to_owned),
            target: fields.take("targetPort").and_then(|node| node.value.as_u64()),
        };
        fields.pass_over(&["protocol", "nodePort"]);
        Some(port)
    });
    let service = Service { external, headless, ports: ports.collect() };
    // How the cluster brings connections to pods is its own business.
    spec.rest();
    service
}

/// Whether a reference means a Gateway.
pub(super) fn is_gateway(reference: &mut Fields<'_>) -> bool {
    let group = reference.text("group").unwrap_or(GATEWAY);
    let kind = reference.text("kind").unwrap_or("Gateway");
    group == GATEWAY && kind == "Gateway"
}
