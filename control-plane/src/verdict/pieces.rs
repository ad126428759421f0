//! Pieces of a bootstrap, encoded, and the bootstrap that they make: each resource, or somebody who has it inline or uses it. Pure.
//!
//! A message in a field is its bytes behind a tag and a length, so what was encoded once for the proxies is put together here as it is.
//! Names that begin with `chancery` are given to no resource, so whoever is made here is in nobody's way.

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
};

use super::harmless::{CERTIFICATE_FILE, KEY_FILE};
use crate::{
    bootstrap::{CA_SECRET, IDENTITY_SECRET, REGEX_PROGRAM_SIZE, XDS_CLUSTER},
    translate::{listener::router, value::socket_address},
};

/// `validate_clusters { value: false }` of a RouteConfiguration, which routes inline are not unless they say so. It comes last, so
/// it counts.
const CLUSTERS_UNCHECKED: [u8; 4] = [0x3a, 2, 8, 0];

/// Encoded parts of a bootstrap.
#[derive(Clone, Debug, Default)]
pub(super) struct Pieces {
    pub(super) listeners: Vec<Bytes>,
    pub(super) clusters: Vec<Bytes>,
    pub(super) secrets: Vec<Bytes>,
    pub(super) layers: Vec<Bytes>,
}

impl Pieces {
    pub(super) fn add(&mut self, other: &Self) {
        let Self { listeners, clusters, secrets, layers } = other;
        self.listeners.extend_from_slice(listeners);
        self.clusters.extend_from_slice(clusters);
        self.secrets.extend_from_slice(secrets);
        self.layers.extend_from_slice(layers);
    }

    /// A secret, and who uses it: alone it is only kept. None if nobody but an extension could.
    pub(super) fn secret(&mut self, name: &str, message: Bytes) -> Option<()> {
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

    /// A cluster without endpoints, for one that is only named.
    pub(super) fn stand_in(&mut self, name: &str) {
        self.clusters.push(encode(&stand_in(name)));
    }

    /// The bootstrap of nobody, with all of that.
    pub(super) fn into_bootstrap(mut self) -> Vec<u8> {
        self.secrets.extend(identity().iter().map(encode));
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
        let Self { listeners, clusters, secrets, layers } = self;
        let grpc =
            grpc_service::EnvoyGrpc { cluster_name: XDS_CLUSTER.to_owned(), ..grpc_service::EnvoyGrpc::default() };
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
}

/// A listener that has the route configuration `routes` inline.
pub(super) fn with_routes(name: &str, routes: &[u8]) -> Bytes {
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
pub(super) fn with_endpoints(name: &str, endpoints: &[u8]) -> Bytes {
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

/// The runtime values of each proxy's bootstrap.
fn own_layer() -> RuntimeLayer {
    let size = Value { kind: Some(ValueKind::NumberValue(REGEX_PROGRAM_SIZE.into())) };
    let fields = [("re2.max_program_size.error_level".to_owned(), size)].into();
    RuntimeLayer { name: "chancery".to_owned(), layer_specifier: Some(LayerSpecifier::StaticLayer(Struct { fields })) }
}

fn encode(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}
