//! Gateways: each is a fleet, its ports are listeners, and the listeners of the Gateway API are doors in them.
//!
//! In the Gateway API a listener is a port with a host; here a listener is a port, and hosts are claimed by routes. So several of
//! its listeners become one of ours, and each remains a [`Door`], which says who may come in by which hosts.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    backend::{FILES, Making, is_gateway},
    hosts,
    objects::{Object, ObjectName},
};
use crate::{
    import::{
        draft,
        fields::{Fields, Node, Place},
    },
    model::{Kind, Name},
};

/// How many listeners all Gateways may have; each is compared with each.
const MAX_DOORS: usize = 1000;

/// The label that Kubernetes gives to each namespace.
const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";

/// A listener of a Gateway, and the port of ours that it is a part of.
#[derive(Debug)]
pub(super) struct Door {
    gateway: ObjectName,
    section: String,
    hostname: Option<String>,
    /// Its port.
    pub(super) port: u16,
    /// What is spoken on it.
    pub(super) protocol: Protocol,
    from: From,
    kinds: Vec<String>,
    /// `fleet/listener`
    pub(super) listener: String,
}

/// What is spoken on a listener that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http,
    Https,
    /// TLS that the service ends.
    Passthrough,
    Tcp,
}

impl Protocol {
    fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Passthrough => "tls-passthrough",
            Self::Tcp => "tcp",
        }
    }

    /// Whether routes of this kind are about what is spoken.
    fn is_for(self, kind: &str) -> bool {
        match self {
            Self::Http | Self::Https => matches!(kind, "HTTPRoute" | "GRPCRoute"),
            Self::Passthrough => kind == "TLSRoute",
            Self::Tcp => kind == "TCPRoute",
        }
    }
}

/// Whose routes may come in.
#[derive(Debug)]
enum From {
    Same,
    All,
    None,
    /// Those of namespaces with these labels.
    Selector(Vec<(String, String)>),
}

/// Labels of namespaces.
pub(super) type Namespaces = BTreeMap<String, Vec<(String, String)>>;

/// All doors, and the documents of fleets and listeners.
#[derive(Debug, Default)]
pub(super) struct Gateways {
    doors: Vec<Door>,
    known: Vec<ObjectName>,
    ports: BTreeMap<(String, u16), Port>,
    /// The documents.
    pub(super) documents: Vec<Value>,
}

/// A listener of ours.
#[derive(Debug)]
struct Port {
    name: String,
    protocol: Protocol,
    secret: Option<String>,
}

impl Gateways {
    /// Takes a Gateway in; `fleet` is the one that is to serve all of them, if they are not to have one each.
    pub(super) fn add(&mut self, object: Object<'_>, fleet: Option<&Name>, making: &mut Making<'_>) {
        let Object { name, mut fields, .. } = object;
        let Some(mut spec) = fields.object("spec") else { return };
        spec.pass_over(&["gatewayClassName"]);
        spec.lacks(
            "addresses",
            "asks for addresses of a load balancer",
            "listeners bind all addresses of their machines; set address of the Listener otherwise",
        );
        let fleet = if let Some(fleet) = fleet {
            fleet.to_string()
        } else {
            let fleet = making.names.free(Kind::Fleet, &name.wanted());
            self.documents.push(draft::document(Kind::Fleet, &fleet, making.team, json!({})));
            fleet
        };
        if let Some(node) = spec.take("tls") {
            node.place.lacks(
                "asks clients or services for certificates for the whole Gateway: none of its listeners is imported",
                "write the listeners by hand, with an EnvoyPatch that demands the certificates",
            );
            spec.rest();
        }
        for node in spec.items("listeners") {
            if self.doors.len() == MAX_DOORS {
                node.place.lacks("is one of too many listeners", "import fewer Gateways at once");
                break;
            }
            if let Some(door) = node.object().and_then(|fields| self.door(fields, &name, &fleet, making)) {
                self.doors.push(door);
            }
        }
        self.known.push(name);
    }

    fn door(
        &mut self,
        mut fields: Fields<'_>,
        gateway: &ObjectName,
        fleet: &str,
        making: &mut Making<'_>,
    ) -> Option<Door> {
        let place = fields.place.clone();
        let section = fields.text("name").unwrap_or_default().to_owned();
        let hostname = fields.text("hostname").filter(|host| !host.is_empty()).map(str::to_ascii_lowercase);
        let port = fields.number("port", 65535).and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
        let (from, kinds) = allowed(&mut fields);
        let tls = fields.object("tls").map(|tls| tls_of(tls, gateway));
        let passes_on = matches!(tls, Some(Tls::Passthrough));
        let secret = tls.map(Tls::secret);
        let protocol = match fields.text("protocol") {
            Some("HTTP") => Protocol::Http,
            Some("HTTPS") => Protocol::Https,
            Some("TLS") if passes_on => Protocol::Passthrough,
            Some("TCP") => Protocol::Tcp,
            _ => {
                place.lacks(
                    "does not speak HTTP or HTTPS, pass TLS on or carry TCP",
                    "carry it by an EnvoyPatch with a whole Listener",
                );
                return None;
            }
        };
        let Some(port) = port else {
            place.lacks("has no port of 1 to 65535", "give it one");
            return None;
        };
        let secret = match (protocol, secret) {
            (Protocol::Https, Some(Some(secret))) => Some(secret),
            (Protocol::Http | Protocol::Passthrough | Protocol::Tcp, _) => None,
            (Protocol::Https, _) => {
                place.lacks(
                    "does not end TLS here with one certificate and nothing asked of clients, so it is not imported",
                    "write the Listener by hand, with an EnvoyPatch for what is special about its TLS",
                );
                return None;
            }
        };
        let listener = self.port(fleet, port, protocol, secret, &section, gateway, &place, making)?;
        let listener = format!("{fleet}/{listener}");
        Some(Door { gateway: gateway.clone(), section, hostname, port, protocol, from, kinds, listener })
    }

    /// The listener of ours for a port.
    #[expect(clippy::too_many_arguments, reason = "they are what a listener is made of")]
    fn port(
        &mut self,
        fleet: &str,
        port: u16,
        protocol: Protocol,
        secret: Option<String>,
        section: &str,
        gateway: &ObjectName,
        place: &Place<'_>,
        making: &mut Making<'_>,
    ) -> Option<String> {
        if let Some(known) = self.ports.get(&(fleet.to_owned(), port)) {
            if known.protocol != protocol {
                place.lacks("shares its port with one that speaks another protocol", "give it a port of its own");
                return None;
            }
            if known.secret != secret {
                place.lacks(
                    "has another certificate than the listener that shares its port, which is shown for its hosts too",
                    "use one certificate for all hosts of the port",
                );
            }
            return Some(known.name.clone());
        }
        let name = making.names.free(Kind::Listener, &format!("{}-{section}", gateway.wanted()));
        let tls = secret.as_ref().map(|secret| {
            let folder = format!("{FILES}/{secret}");
            place.at("tls").at("certificateRefs").lacks(
                "is a Secret, which is not read",
                format!("put its tls.crt and tls.key on the machines of the proxies, into {folder}"),
            );
            json!({ "certificateFile": format!("{folder}/tls.crt"), "privateKeyFile": format!("{folder}/tls.key") })
        });
        let spec = json!({ "fleet": fleet, "port": port, "protocol": protocol.as_str(), "tls": tls });
        self.documents.push(draft::document(Kind::Listener, &name, making.team, spec));
        self.ports.insert((fleet.to_owned(), port), Port { name: name.clone(), protocol, secret });
        Some(name)
    }

    /// The doors that a parent of a route of this kind means and that let it in, each with the hosts that it gets there.
    pub(super) fn enter(
        &self,
        node: Node<'_>,
        kind: &str,
        route: &ObjectName,
        hostnames: &[String],
        namespaces: &Namespaces,
    ) -> Vec<(&Door, Vec<String>)> {
        let Some(mut reference) = node.object() else { return Vec::new() };
        let place = reference.place.clone();
        if !is_gateway(&mut reference) {
            place.lacks("is not a Gateway", "routes of a mesh go to sidecars: name the listener of a Fleet by hand");
            return Vec::new();
        }
        let gateway = ObjectName {
            namespace: reference.text("namespace").unwrap_or(&route.namespace).to_owned(),
            name: reference.text("name").unwrap_or_default().to_owned(),
        };
        let section = reference.text("sectionName");
        let port = reference.number("port", 65535);
        if !self.known.contains(&gateway) {
            place.lacks(format!("names Gateway {gateway}, which is not among the documents"), "import it as well");
            return Vec::new();
        }
        let meant = |door: &&Door| {
            door.gateway == gateway
                && section.is_none_or(|section| section == door.section)
                && port.is_none_or(|port| port == u64::from(door.port))
        };
        let entered: Vec<_> = self
            .doors
            .iter()
            .filter(meant)
            .filter(|door| door.lets_in(kind, route, namespaces))
            .map(|door| (door, self.hosts_at(door, hostnames)))
            .filter(|(_, hosts)| !hosts.is_empty())
            .collect();
        if entered.is_empty() {
            place.lacks(
                format!(
                    "is no way in: no listener of Gateway {gateway} that was imported takes the route and its hosts"
                ),
                "look at sectionName, port, hostnames and allowedRoutes",
            );
        }
        entered
    }

    /// What a door has in common with a route, without what a narrower door of the same port keeps to itself.
    fn hosts_at(&self, door: &Door, hostnames: &[String]) -> Vec<String> {
        let width = |door: &Door| door.hostname.clone().unwrap_or_else(|| "*".to_owned());
        let taken = |host: &String| {
            let narrower = self.doors.iter().filter(|other| {
                other.listener == door.listener
                    && other.hostname != door.hostname
                    && hosts::covers(&width(door), &width(other))
            });
            narrower.into_iter().any(|other| hosts::covers(&width(other), host))
        };
        let mut hosts = hosts::common(door.hostname.as_deref(), hostnames);
        hosts.retain(|host| !taken(host));
        hosts
    }
}

impl Door {
    fn lets_in(&self, kind: &str, route: &ObjectName, namespaces: &Namespaces) -> bool {
        let by_namespace = match &self.from {
            From::Same => route.namespace == self.gateway.namespace,
            From::All => true,
            From::None => false,
            From::Selector(wanted) => wanted.iter().all(|(key, value)| {
                let labels = namespaces.get(&route.namespace);
                (key == NAMESPACE_LABEL && *value == route.namespace)
                    || labels.is_some_and(|labels| labels.iter().any(|label| (&label.0, &label.1) == (key, value)))
            }),
        };
        let by_kind = self.kinds.is_empty() || self.kinds.iter().any(|known| known == kind);
        by_namespace && by_kind && self.protocol.is_for(kind)
    }
}

/// Whose routes, and which kinds of them, a listener lets in.
fn allowed(fields: &mut Fields<'_>) -> (From, Vec<String>) {
    let Some(mut allowed) = fields.object("allowedRoutes") else { return (From::Same, Vec::new()) };
    let mut kind = |node: Node<'_>| {
        let mut fields = node.object()?;
        fields.pass_over(&["group"]);
        fields.text("kind").map(str::to_owned)
    };
    let kinds = allowed.items("kinds").into_iter().filter_map(&mut kind).collect();
    let Some(mut namespaces) = allowed.object("namespaces") else { return (From::Same, kinds) };
    let selector = namespaces.object("selector").map(|mut selector| {
        let labels = selector.object("matchLabels").map(|mut labels| labels.rest()).unwrap_or_default();
        let labels = labels.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.text()?.to_owned())));
        let labels = labels.collect::<Vec<_>>();
        let expressions = selector.take("matchExpressions");
        if let Some(node) = &expressions {
            node.place
                .lacks("is not worked out, so no route comes in by this listener", "use matchLabels, or from: All");
        }
        if expressions.is_some() { From::None } else { From::Selector(labels) }
    });
    let from = match namespaces.text("from") {
        Some("All") => From::All,
        Some("Selector") => selector.unwrap_or(From::None),
        Some("None") => From::None,
        _ => From::Same,
    };
    (from, kinds)
}

/// What becomes of TLS.
enum Tls {
    /// It ends here, by the Secret that is a folder of this name; `None` if more is wanted than that.
    Ends(Option<String>),
    /// The service ends it.
    Passthrough,
}

impl Tls {
    fn secret(self) -> Option<String> {
        match self {
            Self::Ends(secret) => secret,
            Self::Passthrough => None,
        }
    }
}

fn tls_of(mut tls: Fields<'_>, gateway: &ObjectName) -> Tls {
    if tls.text("mode") == Some("Passthrough") {
        return Tls::Passthrough;
    }
    Tls::Ends(secret(tls, gateway))
}

/// The Secret by which TLS ends here, as the name of a folder; `None` if more is wanted than that.
fn secret(mut tls: Fields<'_>, gateway: &ObjectName) -> Option<String> {
    let ends_here = tls.text("mode").is_none_or(|mode| mode == "Terminate");
    let asks_clients = tls.take("frontendValidation").is_some();
    let mut secrets = Vec::new();
    for node in tls.items("certificateRefs") {
        let mut reference = node.object()?;
        reference.pass_over(&["group", "kind"]);
        let namespace = reference.text("namespace").unwrap_or(&gateway.namespace).to_owned();
        let name = ObjectName { namespace, name: reference.text("name")?.to_owned() };
        secrets.push((name, reference.place.clone()));
    }
    for (_, place) in secrets.iter().skip(1) {
        place.lacks("is a further certificate", "use one certificate for all hosts of the port");
    }
    let (first, _) = secrets.into_iter().next()?;
    (ends_here && !asks_clients).then(|| draft::label(&first.wanted()))
}
