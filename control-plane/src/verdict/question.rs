//! What Envoy is asked about an edit: a bootstrap of what the edit puts anew for a fleet, and of nothing else but what that needs
//! to be understood. Pure.
//!
//! Each resource becomes a part that stands for itself, so that the question can be asked again about some of them, when Envoy does
//! not say which one it means:
//! - a listener or a cluster is taken as it is; routes and endpoints that it asks for by name stay asked for;
//! - a route configuration, and the virtual hosts of a listener together, become a listener of their own that has them inline;
//! - endpoints become a cluster of their own that has them inline, a secret comes with somebody who uses it;
//! - a layer of runtime values is taken as it is.
//!
//! No two hosts of a listener may claim the same domain. Each that is translated claims its own, so others of the listener are put
//! beside those that changed only where patches change hosts.
//!
//! Whether a cluster exists is not asked: clusters come and go by themselves, and proxies have own ones in their bootstrap. What is
//! named stands there without endpoints.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use chancery_proto::{
    Message, any,
    envoy::{
        bootstrap::{RuntimeLayer, bootstrap::DynamicResources, runtime_layer::LayerSpecifier},
        cluster::Cluster,
        core::{
            ApiConfigSource, ApiVersion, DataSource, GrpcService, Node, TransportSocket, api_config_source::ApiType,
            data_source, grpc_service, transport_socket,
        },
        hcm::HttpConnectionManager,
        listener::{Filter, FilterChain, Listener, filter},
        tls::{
            CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, Secret,
            TlsCertificate, UpstreamTlsContext, common_tls_context::ValidationContextType, downstream_tls_context,
            secret,
        },
    },
    google::protobuf::{Any, Struct, Value, value::Kind as ValueKind},
    type_url,
};
use sha2::{Digest as _, Sha256};

use super::harmless::{CERTIFICATE_FILE, Harmless, KEY_FILE};
use crate::{
    bootstrap::{CA_SECRET, IDENTITY_SECRET, REGEX_PROGRAM_SIZE, XDS_CLUSTER},
    model::{
        Catalog, Key, Kind, Name,
        envoy_patch::{EnvoyPatch, EnvoyResource, PatchChange},
        route::HostPattern,
    },
    translate::{
        constraints,
        listener::router,
        route::route_configuration,
        snapshot::{self, ResourceId},
        value::socket_address,
    },
};

/// `validate_clusters { value: false }` of a RouteConfiguration, which routes inline are not unless they say so. It comes last, so
/// it counts.
const CLUSTERS_UNCHECKED: [u8; 4] = [0x3a, 2, 8, 0];

/// What identifies a question: what Envoy says to the same bytes is the same.
pub(super) type Fingerprint = [u8; 32];

/// What an edit puts anew for one fleet, to be judged together.
#[derive(Clone, Debug, Default)]
pub struct Question {
    parts: Vec<Part>,
    /// Unchanged hosts that stand beside the changed ones of a listener.
    beside: BTreeMap<Name, Vec<Bytes>>,
}

/// One resource of it.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// The resource that can be mended, and where in it.
    pub(super) resource: Key,
    pub(super) path: &'static str,
    /// Type and name of what Envoy is sent.
    pub(super) type_url: &'static str,
    pub(super) name: String,
    pieces: Pieces,
    /// A virtual host, which is judged with others of its listener.
    host: Option<(Name, Bytes)>,
    /// The clusters that are named.
    clusters: BTreeSet<String>,
}

/// Encoded parts of a bootstrap.
#[derive(Clone, Debug, Default)]
struct Pieces {
    listeners: Vec<Bytes>,
    clusters: Vec<Bytes>,
    secrets: Vec<Bytes>,
    layers: Vec<Bytes>,
}

impl Question {
    /// What Envoy is to be asked about `put`, which `fleet` gets when the resources `changed` are as in `catalog`. What cannot be judged on
    /// this machine is left out.
    pub fn about(catalog: &Catalog, fleet: &Name, put: &BTreeMap<ResourceId, Bytes>, changed: &[Key]) -> Self {
        let parts: Vec<Part> =
            put.iter().filter_map(|(id, bytes)| Part::of(id, bytes, maker(catalog, fleet, id, changed))).collect();
        let listeners: BTreeSet<&Name> = parts.iter().filter_map(|part| Some(&part.host.as_ref()?.0)).collect();
        let beside = listeners.into_iter().map(|listener| (listener.clone(), beside(catalog, fleet, listener, put)));
        let beside = beside.collect();
        Self { parts, beside }
    }

    /// Whether there is nothing to judge.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// All of it.
    pub(super) fn whole(&self) -> Vec<u8> {
        self.bootstrap(0..self.parts.len())
    }

    /// The bootstrap, encoded, that has these parts; the same parts give the same bytes.
    pub(super) fn bootstrap(&self, parts: impl IntoIterator<Item = usize>) -> Vec<u8> {
        let mut pieces = Pieces::default();
        let mut hosts: BTreeMap<&Name, Vec<&[u8]>> = BTreeMap::new();
        let mut missing = BTreeSet::from([XDS_CLUSTER]);
        let mut there = BTreeSet::new();
        for part in parts.into_iter().filter_map(|index| self.parts.get(index)) {
            pieces.add(&part.pieces);
            missing.extend(part.clusters.iter().map(String::as_str));
            if part.type_url == type_url::CLUSTER {
                there.insert(part.name.as_str());
            }
            if let Some((listener, host)) = &part.host {
                hosts.entry(listener).or_default().push(host);
            }
        }
        for (listener, mut hosts) in hosts {
            hosts.extend(self.beside.get(listener).into_iter().flatten().map(AsRef::as_ref));
            let routes = route_configuration(listener.as_str(), hosts);
            pieces.listeners.push(with_routes(listener.as_str(), &routes));
        }
        pieces.clusters.extend(missing.difference(&there).map(|name| encode(&stand_in(name))));
        pieces.secrets.extend(identity().iter().map(encode));
        bootstrap(pieces)
    }
}

impl Part {
    /// None for what says nothing by itself, or cannot be judged here.
    fn of(id: &ResourceId, bytes: &Bytes, (resource, path): (Key, &'static str)) -> Option<Self> {
        let (type_url, name) = (id.type_url(), id.name());
        if matches!(id, ResourceId::RouteConfiguration(_) | ResourceId::WholeRoutes(_)) {
            return None;
        }
        let Harmless { message, clusters } = Harmless::of(type_url, bytes)?;
        let mut pieces = Pieces::default();
        let mut host = None;
        match type_url {
            type_url::LISTENER => pieces.listeners.push(message),
            type_url::CLUSTER => pieces.clusters.push(message),
            type_url::ENDPOINT => pieces.clusters.push(with_endpoints(&name, &message)),
            type_url::ROUTE => pieces.listeners.push(with_routes(&name, &message)),
            type_url::VIRTUAL_HOST => host = Some((id.routes_of()?.clone(), message)),
            type_url::SECRET => pieces.secret(&name, message)?,
            type_url::RUNTIME => pieces.layers.push(message),
            _ => return None,
        }
        // Routes and endpoints may name what comes later; a cluster names itself.
        let clusters = if type_url == type_url::LISTENER { clusters } else { BTreeSet::new() };
        Some(Self { resource, path, type_url, name, pieces, host, clusters })
    }
}

impl Pieces {
    fn add(&mut self, other: &Self) {
        let Self { listeners, clusters, secrets, layers } = other;
        self.listeners.extend_from_slice(listeners);
        self.clusters.extend_from_slice(clusters);
        self.secrets.extend_from_slice(secrets);
        self.layers.extend_from_slice(layers);
    }

    /// A secret, and who uses it: alone it is only kept. None if nobody but an extension could.
    fn secret(&mut self, name: &str, message: Bytes) -> Option<()> {
        let by_name = || SdsSecretConfig { name: name.to_owned(), ..SdsSecretConfig::default() };
        let carrier = format!("chancery.secret.{name}");
        let own = || vec![identity_certificate()];
        match Secret::decode(&*message).ok()?.r#type? {
            secret::Type::TlsCertificate(_) => {
                let common = CommonTlsContext {
                    tls_certificate_sds_secret_configs: vec![by_name()],
                    ..CommonTlsContext::default()
                };
                let context =
                    DownstreamTlsContext { common_tls_context: Some(common), ..DownstreamTlsContext::default() };
                self.listeners.push(encode(&with_tls(&carrier, &context)));
            }
            secret::Type::SessionTicketKeys(_) => {
                let keys = downstream_tls_context::SessionTicketKeysType::SessionTicketKeysSdsSecretConfig(by_name());
                let common = CommonTlsContext { tls_certificates: own(), ..CommonTlsContext::default() };
                let context = DownstreamTlsContext {
                    common_tls_context: Some(common),
                    session_ticket_keys_type: Some(keys),
                    ..DownstreamTlsContext::default()
                };
                self.listeners.push(encode(&with_tls(&carrier, &context)));
            }
            secret::Type::ValidationContext(_) => {
                let common = CommonTlsContext {
                    validation_context_type: Some(ValidationContextType::ValidationContextSdsSecretConfig(by_name())),
                    ..CommonTlsContext::default()
                };
                let context = UpstreamTlsContext { common_tls_context: Some(common), ..UpstreamTlsContext::default() };
                let socket = Some(transport_socket(any::pack_typed(&context)));
                self.clusters.push(encode(&Cluster { transport_socket: socket, ..stand_in(&carrier) }));
            }
            secret::Type::GenericSecret(_) => return None,
        }
        self.secrets.push(message);
        Some(())
    }
}

/// The resource of which what `fleet` gets as `id` is made, and where in it; one that was changed rather than another.
fn maker(catalog: &Catalog, fleet: &Name, id: &ResourceId, changed: &[Key]) -> (Key, &'static str) {
    let is_changed = |kind, name: &Name| changed.iter().any(|key| key.kind == kind && key.name == *name);
    let patches = catalog.patches_of_resource(fleet, &id.resource()).filter_map(|name| catalog.envoy_patch(name));
    let patches: Vec<&EnvoyPatch> = patches.map(AsRef::as_ref).collect();
    let of_patch = |patch: &EnvoyPatch| {
        let path = if matches!(patch.change, PatchChange::Add { .. }) { "spec.resource" } else { "spec.merge" };
        (Key::new(Kind::EnvoyPatch, patch.name.clone()), path)
    };
    if let Some(patch) = patches.iter().find(|patch| is_changed(Kind::EnvoyPatch, &patch.name)) {
        return of_patch(patch);
    }
    if let ResourceId::VirtualHost(listener, host) = id {
        let mut routes = catalog.routes_claiming(listener, host);
        if let Some(route) = routes.find(|route| is_changed(Kind::Route, route)) {
            return (Key::new(Kind::Route, route.clone()), "spec");
        }
    }
    let (origin, path) = constraints::origin(fleet, id);
    match patches.last() {
        Some(patch) if !changed.contains(&origin) => of_patch(patch),
        _ => (origin, path),
    }
}

/// The hosts of `listener` that are not among `put`, if any of its hosts is patched.
fn beside(catalog: &Catalog, fleet: &Name, listener: &Name, put: &BTreeMap<ResourceId, Bytes>) -> Vec<Bytes> {
    let patches = catalog.patches_of(fleet).filter_map(|name| catalog.envoy_patch(name));
    let patched = patches.filter_map(|patch| match patch.resource() {
        EnvoyResource::VirtualHost(of, host) if of == listener => Some(host),
        _ => None,
    });
    let mut hosts: BTreeSet<&HostPattern> = patched.collect();
    if hosts.is_empty() {
        return Vec::new();
    }
    hosts.extend(catalog.hosts_on(listener));
    let ids = hosts.into_iter().map(|host| ResourceId::VirtualHost(listener.clone(), host.clone()));
    let others = ids.filter(|id| !put.contains_key(id)).filter_map(|id| snapshot::one(catalog, fleet, &id));
    others.filter_map(|bytes| Some(Harmless::of(type_url::VIRTUAL_HOST, &bytes)?.message)).collect()
}

/// A listener that has the route configuration `routes` inline.
fn with_routes(name: &str, routes: &[u8]) -> Bytes {
    /// `HttpConnectionManager`, of which only the routes are set, encoded.
    #[derive(Clone, PartialEq, Message)]
    struct Inline {
        #[prost(bytes = "vec", tag = "4")]
        route_config: Vec<u8>,
    }
    let manager = HttpConnectionManager {
        stat_prefix: "chancery".to_owned(),
        http_filters: vec![router()],
        ..HttpConnectionManager::default()
    };
    let mut packed = any::pack_typed(&manager);
    packed.value.extend(Inline { route_config: [routes, &CLUSTERS_UNCHECKED].concat() }.encode_to_vec());
    let filter = Filter { name: "http".to_owned(), config_type: Some(filter::ConfigType::TypedConfig(packed)) };
    let chain = FilterChain { filters: vec![filter], ..FilterChain::default() };
    encode(&listener(format!("chancery.routes.{name}"), chain))
}

/// A listener that takes TLS so.
fn with_tls(name: &str, context: &DownstreamTlsContext) -> Listener {
    let socket = Some(transport_socket(any::pack_typed(context)));
    listener(name.to_owned(), FilterChain { transport_socket: socket, ..FilterChain::default() })
}

/// Nothing is bound, and port 0 is nobody's.
fn listener(name: String, chain: FilterChain) -> Listener {
    let address = Some(socket_address("127.0.0.1".to_owned(), 0));
    Listener { name, address, filter_chains: vec![chain], ..Listener::default() }
}

/// A cluster that has these endpoints inline.
fn with_endpoints(name: &str, endpoints: &[u8]) -> Bytes {
    /// `Cluster`, of which only the endpoints are set, encoded.
    #[derive(Clone, PartialEq, Message)]
    struct Inline {
        #[prost(bytes = "vec", tag = "33")]
        load_assignment: Vec<u8>,
    }
    let cluster = stand_in(&format!("chancery.endpoints.{name}")).encode_to_vec();
    [cluster, Inline { load_assignment: endpoints.to_vec() }.encode_to_vec()].concat().into()
}

/// A cluster without endpoints.
fn stand_in(name: &str) -> Cluster {
    Cluster { name: name.to_owned(), ..Cluster::default() }
}

fn transport_socket(context: Any) -> TransportSocket {
    TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(context)),
    }
}

fn file(name: &str) -> Option<DataSource> {
    Some(DataSource { specifier: Some(data_source::Specifier::Filename(name.to_owned())), ..DataSource::default() })
}

fn identity_certificate() -> TlsCertificate {
    TlsCertificate {
        certificate_chain: file(CERTIFICATE_FILE),
        private_key: file(KEY_FILE),
        ..TlsCertificate::default()
    }
}

/// What each proxy has in its bootstrap to prove itself with, as stand-ins.
fn identity() -> [Secret; 2] {
    let trusted =
        CertificateValidationContext { trusted_ca: file(CERTIFICATE_FILE), ..CertificateValidationContext::default() };
    [
        Secret { name: IDENTITY_SECRET.to_owned(), r#type: Some(secret::Type::TlsCertificate(identity_certificate())) },
        Secret { name: CA_SECRET.to_owned(), r#type: Some(secret::Type::ValidationContext(trusted)) },
    ]
}

/// The bootstrap of nobody, with all of that.
fn bootstrap(pieces: Pieces) -> Vec<u8> {
    /// `StaticResources`, of encoded resources: a message in a field is its bytes behind a tag and a length.
    #[derive(Clone, PartialEq, Message)]
    struct StaticResources {
        #[prost(bytes = "bytes", repeated, tag = "1")]
        listeners: Vec<Bytes>,
        #[prost(bytes = "bytes", repeated, tag = "2")]
        clusters: Vec<Bytes>,
        #[prost(bytes = "bytes", repeated, tag = "3")]
        secrets: Vec<Bytes>,
    }
    /// Of encoded layers. A resource of runtime values has the fields of a layer.
    #[derive(Clone, PartialEq, Message)]
    struct LayeredRuntime {
        #[prost(bytes = "bytes", repeated, tag = "1")]
        layers: Vec<Bytes>,
    }
    #[derive(Clone, PartialEq, Message)]
    struct Bootstrap {
        #[prost(message, optional, tag = "1")]
        node: Option<Node>,
        #[prost(message, optional, tag = "2")]
        static_resources: Option<StaticResources>,
        #[prost(message, optional, tag = "3")]
        dynamic_resources: Option<DynamicResources>,
        #[prost(message, optional, tag = "17")]
        layered_runtime: Option<LayeredRuntime>,
    }
    let Pieces { listeners, clusters, secrets, layers } = pieces;
    let grpc = grpc_service::EnvoyGrpc { cluster_name: XDS_CLUSTER.to_owned(), ..grpc_service::EnvoyGrpc::default() };
    let ads = ApiConfigSource {
        api_type: ApiType::DeltaGrpc.into(),
        transport_api_version: ApiVersion::V3.into(),
        grpc_services: vec![GrpcService {
            target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(grpc)),
            ..GrpcService::default()
        }],
        ..ApiConfigSource::default()
    };
    let whoever = "chancery-validate".to_owned();
    let layers = [encode(&own_layer())].into_iter().chain(layers).collect();
    let bootstrap = Bootstrap {
        node: Some(Node { id: whoever.clone(), cluster: whoever, ..Node::default() }),
        static_resources: Some(StaticResources { listeners, clusters, secrets }),
        dynamic_resources: Some(DynamicResources { ads_config: Some(ads), ..DynamicResources::default() }),
        layered_runtime: Some(LayeredRuntime { layers }),
    };
    bootstrap.encode_to_vec()
}

/// The runtime values of each proxy's bootstrap.
fn own_layer() -> RuntimeLayer {
    let size = Value { kind: Some(ValueKind::NumberValue(REGEX_PROGRAM_SIZE.into())) };
    let fields = [("re2.max_program_size.error_level".to_owned(), size)].into();
    RuntimeLayer { name: "chancery".to_owned(), layer_specifier: Some(LayerSpecifier::StaticLayer(Struct { fields })) }
}

fn encode(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

/// What identifies a bootstrap.
pub(super) fn fingerprint(bootstrap: &[u8]) -> Fingerprint {
    Sha256::digest(bootstrap).into()
}

#[cfg(test)]
mod tests;
