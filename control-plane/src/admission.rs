//! Which stream is served, and from which cache: the certificate decides.
//!
//! The identity in the client certificate names fleet and proxy, or a rate limiter. What the node claims must agree with
//! it; a proxy cannot ask for another fleet's configuration, nor speak for another proxy. A limiter is given the limits of
//! all fleets and nothing else, a proxy none of them, an operator nothing. Every refusal is one log line that says who, from
//! where and why; the client is told no more than that its claim is wrong.

mod pace;

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc, time::SystemTime};

use chancery_proto::{
    envoy::core::{Node, node::UserAgentVersionType},
    google::protobuf::{Value, value::Kind},
};
use chancery_runtime::{telemetry, tls::PeerInfo};
use chancery_xds::{Admission, Admit, Hello, Protocol, StreamStatus};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use self::pace::{Pace, TooSoon};
use crate::{
    identity::{
        request::key_hash,
        spiffe::{Identity, LimiterIdentity, ProxyIdentity},
    },
    model::Name,
    proxies::{Answers, Connection, Judged, Observer, Proxies, ProxyId},
    publish::{Publisher, RouteForm, Served, Who},
};

/// Admits the proxies of known fleets, and rate limiters, by certificate.
pub struct FleetAdmission {
    publisher: Arc<Publisher>,
    proxies: Arc<Proxies>,
    trust_domain: String,
    pace: Pace,
}

/// How many labels of a proxy are kept for as long as its stream is open, and of how many bytes each name and value: what a resource
/// may have, whatever it is written in.
const MOST_LABELS: usize = 64;
const LONGEST_LABEL: usize = 4 * 255;

/// Why a stream is refused.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("there is no client certificate")]
    NoCertificate,
    #[error("the client certificate names neither a proxy nor a rate limiter nor an operator")]
    Identity(#[source] crate::identity::spiffe::InvalidIdentity),
    #[error("the certificate is of trust domain {0:?}")]
    TrustDomain(String),
    #[error("the certificate is of cluster {certified:?}, the node claims {claimed:?}")]
    OtherCluster { certified: String, claimed: String },
    #[error("the certificate is of {certified:?}, the node claims to be {claimed:?}")]
    OtherId { certified: String, claimed: String },
    #[error("there is no fleet {0:?}")]
    UnknownFleet(String),
    #[error("an operator is served no configuration")]
    Operator,
    #[error("only proxies report what they do")]
    NoProxy,
    #[error("only certificates of proxies are renewed")]
    NotRenewed,
    #[error("too many streams are opened at once; try again")]
    TooMany,
    #[error("this client opens too many streams; try again")]
    TooOften,
}

impl From<TooSoon> for Refused {
    fn from(too_soon: TooSoon) -> Self {
        match too_soon {
            TooSoon::All => Self::TooMany,
            TooSoon::Client => Self::TooOften,
        }
    }
}

impl FleetAdmission {
    /// Admits proxies and limiters of `trust_domain` to the caches of `publisher`, at most `per_second` of them, and registers
    /// them in `proxies`.
    pub fn new(publisher: Arc<Publisher>, proxies: Arc<Proxies>, trust_domain: String, per_second: NonZeroU32) -> Self {
        Self { publisher, proxies, trust_domain, pace: Pace::new(per_second) }
    }

    /// Who calls, by the certificate; the node, if there is one, must agree with it.
    fn identify(&self, peer: Option<&PeerInfo>, node: Option<&Node>) -> Result<Identity, Refused> {
        let certificate = peer.and_then(|peer| peer.certificates.first()).ok_or(Refused::NoCertificate)?;
        let identity = Identity::from_certificate(certificate).map_err(Refused::Identity)?;
        if identity.trust_domain() != self.trust_domain {
            return Err(Refused::TrustDomain(identity.trust_domain().to_owned()));
        }
        let Some(node) = node else { return Ok(identity) };
        // A limiter that is envoyproxy/ratelimit cannot name a cluster, and so claims none.
        let claims_none = matches!(identity, Identity::Limiter(_)) && node.cluster.is_empty();
        if identity.cluster() != node.cluster && !claims_none {
            let certified = identity.cluster().to_owned();
            return Err(Refused::OtherCluster { certified, claimed: node.cluster.clone() });
        }
        if identity.id().as_str() != node.id {
            return Err(Refused::OtherId { certified: identity.id().to_string(), claimed: node.id.clone() });
        }
        Ok(identity)
    }

    /// The proxy that reports load or requests, as its certificate says, and what ends that: its fleet is gone.
    pub(crate) fn reporter(
        &self,
        extensions: &http::Extensions,
        node: &Node,
    ) -> Result<(ProxyIdentity, CancellationToken), Status> {
        let peer = extensions.get::<PeerInfo>();
        let admitted = self.identify(peer, Some(node)).and_then(|identity| match identity {
            Identity::Proxy(proxy) => match self.publisher.ended(&proxy.fleet) {
                Some(ended) => Ok((proxy, ended)),
                None => Err(Refused::UnknownFleet(proxy.fleet.to_string())),
            },
            Identity::Limiter(_) | Identity::Operator(_) => Err(Refused::NoProxy),
        });
        admitted.map_err(|refused| refuse(&refused, peer, Some(node), "reports"))
    }

    /// The proxy that asks for its next certificate, and the hash of the key that it holds, as the certificate it has says.
    pub(crate) fn holder(&self, extensions: &http::Extensions) -> Result<(ProxyIdentity, [u8; 32]), Status> {
        let peer = extensions.get::<PeerInfo>();
        let held = peer.and_then(|peer| peer.certificates.first()).and_then(|certificate| key_hash(certificate));
        let held = held.ok_or(Refused::NoCertificate);
        let admitted = self.identify(peer, None).and_then(|identity| match identity {
            Identity::Proxy(proxy) if self.publisher.has(&proxy.fleet) => Ok((proxy, held?)),
            Identity::Proxy(proxy) => Err(Refused::UnknownFleet(proxy.fleet.to_string())),
            Identity::Limiter(_) | Identity::Operator(_) => Err(Refused::NotRenewed),
        });
        admitted.map_err(|refused| refuse(&refused, peer, None, "renewal"))
    }

    /// Who asks for the status of clients, as the certificate says.
    pub(crate) fn onlooker(&self, extensions: &http::Extensions) -> Result<Identity, Status> {
        let peer = extensions.get::<PeerInfo>();
        self.identify(peer, None).map_err(|refused| refuse(&refused, peer, None, "status"))
    }

    /// Fleet and id of a client of resources, and what it is served from. Who is refused anyway takes no place, and who is
    /// early does not have a cache filled.
    fn served(
        &self,
        identity: Identity,
        hello: &Hello<'_>,
        labels: &BTreeMap<String, String>,
    ) -> Result<(Option<Name>, Name, Served), Refused> {
        match identity {
            Identity::Proxy(ProxyIdentity { fleet, id, .. }) => {
                let unknown = || Refused::UnknownFleet(fleet.to_string());
                self.publisher.has(&fleet).then_some(()).ok_or_else(unknown)?;
                self.pace.take_place(&(Some(fleet.clone()), id.clone()))?;
                let who = Who { id: &id, labels };
                let form = route_form(hello.protocol, hello.node);
                let served = self.publisher.serve(&fleet, form, &who).ok_or_else(unknown)?;
                Ok((Some(fleet), id, served))
            }
            Identity::Limiter(LimiterIdentity { id, .. }) => {
                self.pace.take_place(&(None, id.clone()))?;
                let is_ours = !hello.node.cluster.is_empty();
                Ok((None, id, if is_ours { self.publisher.serve_limiter() } else { self.publisher.serve_peer() }))
            }
            Identity::Operator(_) => Err(Refused::Operator),
        }
    }
}

impl Admit for FleetAdmission {
    fn admit(&self, hello: Hello<'_>) -> Result<Admission, Status> {
        let peer = hello.extensions.get::<PeerInfo>();
        let address = peer.map(|peer| peer.address);
        let labels = Arc::new(labels(hello.node));
        let admitted =
            self.identify(peer, Some(hello.node)).and_then(|identity| self.served(identity, &hello, &labels));
        let (fleet, id, served) = admitted.map_err(|refused| {
            if matches!(refused, Refused::TooMany | Refused::TooOften) {
                // It tries again, and thousands may.
                let (proxy, fleet, error) = (&hello.node.id, &hello.node.cluster, telemetry::chain(&refused));
                tracing::debug!(peer = ?address, proxy, fleet, error, "stream put off");
                return Status::resource_exhausted(refused.to_string());
            }
            refuse(&refused, peer, Some(hello.node), "resources")
        })?;
        let proxy = Arc::new(ProxyId { fleet, id });
        let canary = served.rejections.is_some();
        let (changed, rejections) = (self.publisher.quarantine_changed(), served.rejections);
        let judged = served.shelf.map(|shelf| Judged::new(shelf, changed, rejections));
        let answers = Answers::told(self.publisher.trails(), served.cache.head());
        let observer = Observer::new(proxy.clone(), self.proxies.clone(), judged).telling(answers);
        let status = Arc::new(StreamStatus::observed(Box::new(observer)));
        let guard = self.proxies.connect(Connection {
            proxy,
            address,
            version: version(hello.node),
            protocol: hello.protocol,
            since: SystemTime::now(),
            cache: served.cache.clone(),
            canary,
            labels,
            ended: served.ended.clone(),
            status: status.clone(),
        });
        Ok(Admission { cache: served.cache, status, ended: served.ended, guard: Box::new(guard) })
    }
}

/// Logs a refusal with who, from where and why, and makes of it what the client is told.
fn refuse(refused: &Refused, peer: Option<&PeerInfo>, node: Option<&Node>, call: &'static str) -> Status {
    let (peer, error) = (peer.map(|peer| peer.address), telemetry::chain(refused));
    let (proxy, fleet) = node.map_or(("", ""), |node| (&node.id, &node.cluster));
    tracing::warn!(?peer, proxy, fleet, call, error, "stream refused");
    Status::permission_denied(refused.to_string())
}

/// The first Envoy that takes virtual hosts over ADS is 1.37 (envoyproxy/envoy#41996); other
/// clients do not know them at all.
fn route_form(protocol: Protocol, node: &Node) -> RouteForm {
    let by_host = match &node.user_agent_version_type {
        Some(UserAgentVersionType::UserAgentBuildVersion(build)) if node.user_agent_name == "envoy" => {
            build.version.as_ref().is_some_and(|version| (version.major_number, version.minor_number) >= (1, 37))
        }
        _ => false,
    };
    if by_host && protocol == Protocol::Delta { RouteForm::ByHost } else { RouteForm::Whole }
}

/// What an operator has written under `labels` into the metadata of the node, as far as a rollout can ask for it: what is no text,
/// or longer than labels are, is left out.
fn labels(node: &Node) -> BTreeMap<String, String> {
    let labels = node.metadata.as_ref().and_then(|metadata| metadata.fields.get("labels"));
    let Some(Value { kind: Some(Kind::StructValue(labels)) }) = labels else { return BTreeMap::new() };
    let text = |(name, value): (&String, &Value)| match &value.kind {
        Some(Kind::StringValue(text)) if name.len().max(text.len()) <= LONGEST_LABEL => {
            Some((name.clone(), text.clone()))
        }
        _ => None,
    };
    labels.fields.iter().filter_map(text).take(MOST_LABELS).collect()
}

fn version(node: &Node) -> Option<String> {
    match node.user_agent_version_type.as_ref()? {
        UserAgentVersionType::UserAgentVersion(version) => Some(version.clone()),
        UserAgentVersionType::UserAgentBuildVersion(build) => {
            let version = build.version.as_ref()?;
            Some(format!("{}.{}.{}", version.major_number, version.minor_number, version.patch))
        }
    }
}

#[cfg(test)]
mod tests;
