//! A real Envoy loads what we translate and generate: `envoy --mode validate` over everything at once.
//!
//! Translated messages go into a static bootstrap in binary form (`.pb`), so that nothing of them is lost
//! on the way; routes are put inline, where Envoy would otherwise ask for them.
//!
//! Without an Envoy (`CHANCERY_ENVOY`, `.dev/envoy/bin/envoy` or `PATH`) the tests say so and pass; in CI they fail.

mod carrier;
mod catalog;
mod constraints;
mod envoy;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    time::Duration,
};

use chancery_control_plane::{
    bootstrap::{Bootstrap, CA_SECRET, DEFAULT_MAX_CONNECTIONS, IDENTITY_SECRET, Protocol},
    model::{
        access_log::{AccessLog, Filter, Format, Sink},
        access_log_operators,
        fleet::Fleet,
        listener::{Clients, Listener, ListenerProtocol, RouteDelivery, Timeouts, TlsFiles},
        re2,
        route::{Action, Forward, PathMatch, PathRewrite, Rewrite, Route},
        service::tls::Authorities,
        service::{Service, ServiceProtocol},
    },
    translate::{self, rate_limit, route::References},
};
use chancery_proto::{
    Message, any,
    envoy::{
        bootstrap as messages,
        cluster::{
            Cluster,
            cluster::{ClusterDiscoveryType, DiscoveryType},
        },
        core::{
            ApiConfigSource, ApiVersion, DataSource, GrpcService, Node, api_config_source::ApiType, data_source,
            grpc_service,
        },
        hcm::{HttpConnectionManager, http_connection_manager::RouteSpecifier},
        listener::{Listener as EnvoyListener, filter::ConfigType},
        route::{RouteConfiguration, VirtualHost},
        tls::{CertificateValidationContext, Secret, TlsCertificate, secret},
    },
};
use proptest::{collection, prelude::*, sample, strategy::ValueTree, test_runner::TestRunner};

use crate::{
    catalog::{
        every_access, every_access_log, every_affinity, every_authorizer, every_compression, every_limit,
        every_limiter, every_rule, every_service, every_tls, every_tracing, forward, name, respond, route, route_named,
        rule, service,
    },
    envoy::Envoy,
};

#[test]
fn everything_that_is_translated() {
    let Some(envoy) = Envoy::find() else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let tls = certificate(directory.path());
    for limiter in every_limiter() {
        let fleet = Fleet { rate_limiter: Some(limiter), trusted_hops: 1, ..fleet() };
        envoy.validate_binary(directory.path(), &everything(&fleet, &tls));
    }
}

/// A bootstrap with all that can be translated, for a fleet that has a limiter.
fn everything(fleet: &Fleet, tls: &TlsFiles) -> messages::Bootstrap {
    let limits = every_limit();
    let limits = limits.iter().map(|limit| (&limit.name, limit)).collect();
    let affinities = every_affinity();
    let affinities = affinities.iter().map(|(service, affinity)| (service, affinity)).collect();
    let references = References { limits, affinities };
    let route = Route { rules: every_rule(), ..route("everything") };
    let also = Route { rules: vec![rule(PathMatch::Prefix("/api".into()), respond("also"))], ..route_named("also") };

    let mut listeners = Vec::new();
    for (port, protocol) in [(10000, ListenerProtocol::Http), (10443, ListenerProtocol::Https(tls.clone()))] {
        for (letter, address) in [("v4", IpAddr::V4(Ipv4Addr::UNSPECIFIED)), ("v6", IpAddr::V6(Ipv6Addr::LOCALHOST))] {
            let listener_name = name(&format!("web-{letter}-{port}"));
            let listener = Listener {
                name: listener_name.clone(),
                fleet: fleet.name.clone(),
                address,
                port,
                protocol: protocol.clone(),
                http3: false,
                proxy_protocol: address.is_ipv6(),
                route_delivery: RouteDelivery::PerHost,
                timeouts: Timeouts {
                    request: Some(Duration::from_millis(1)),
                    max_connection: Some(Duration::from_secs(24 * 3600)),
                    ..Timeouts::default()
                },
                compression: Some(every_compression()),
                clients: matches!(protocol, ListenerProtocol::Https(_))
                    .then(|| Clients { authorities: Authorities::File(tls.certificate_file.clone()), required: false }),
                access: Some(every_access()),
                authorizer: Some(every_authorizer()[usize::from(address.is_ipv6())].clone()),
                access_logs: every_access_log(),
                tracing: Some(every_tracing()),
            };
            if let (ListenerProtocol::Https(files), true) = (&protocol, address.is_ipv4()) {
                let also = Listener { http3: true, clients: None, name: name("quic"), ..listener.clone() };
                listeners.push(translate::http3::listener(&also, files, fleet));
            }
            let hosts = route.hosts.iter().map(|host| {
                translate::route::virtual_host(&listener_name, host, [&route, &also], &references, fleet)
                    .encode_to_vec()
            });
            let hosts: Vec<_> = hosts.collect();
            let hosts = hosts.iter().map(Vec::as_slice);
            let configuration = translate::route::route_configuration(listener_name.as_str(), hosts);
            let configuration = RouteConfiguration::decode(configuration).expect("a route configuration");
            listeners.push(with_inline_routes(translate::listener::listener(&listener, fleet), configuration));
        }
    }
    listeners.extend(carrier::every_carrier(&fleet.name));
    let pem = std::fs::read_to_string(&tls.certificate_file).expect("a certificate");
    let services = [every_service(), every_tls(tls, &pem)].concat();
    let mut clusters: Vec<_> = services.iter().map(translate::cluster::cluster).collect();
    for service in services.iter().filter(|service| translate::endpoint::is_discovered(service)) {
        // As a static cluster, so that the endpoints are read too.
        let mut cluster = translate::cluster::cluster(service);
        cluster.name = format!("{}-inline", service.name);
        cluster.eds_cluster_config = None;
        cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into()));
        cluster.load_assignment = Some(translate::endpoint::load_assignment(service));
        clusters.push(cluster);
    }
    clusters.extend(fleet.rate_limiter.as_ref().map(rate_limit::cluster));
    let mut bootstrap = bootstrap(listeners, clusters);
    if let Some(resources) = &mut bootstrap.static_resources {
        resources.secrets = secrets(tls);
    }
    bootstrap
}

/// The secrets of the product's bootstrap, to which the limiter's cluster refers.
fn secrets(tls: &TlsFiles) -> Vec<Secret> {
    let file = |path: &String| {
        Some(DataSource { specifier: Some(data_source::Specifier::Filename(path.clone())), ..DataSource::default() })
    };
    let identity = TlsCertificate {
        certificate_chain: file(&tls.certificate_file),
        private_key: file(&tls.private_key_file),
        ..TlsCertificate::default()
    };
    let trusted = CertificateValidationContext {
        trusted_ca: file(&tls.certificate_file),
        ..CertificateValidationContext::default()
    };
    vec![
        Secret { name: IDENTITY_SECRET.into(), r#type: Some(secret::Type::TlsCertificate(identity)) },
        Secret { name: CA_SECRET.into(), r#type: Some(secret::Type::ValidationContext(trusted)) },
    ]
}

fn fleet() -> Fleet {
    Fleet {
        name: name("edge"),
        default_timeout: Duration::from_secs(15),
        trusted_hops: 0,
        rate_limiter: None,
        rollout: None,
    }
}

#[test]
fn every_operator_of_logs() {
    let Some(envoy) = Envoy::find() else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let format = |text: String| AccessLog { to: Sink::Stdout(Format::Text(text)), filter: Filter::default() };
    let access_logs = access_log_operators().map(format).collect();
    let listener = Listener { access_logs, ..plain_listener() };
    envoy.validate_binary(directory.path(), &inline_on(&listener, &route("shop")));
    let listener = Listener { access_logs: vec![format("%NONSENSE%".into())], ..plain_listener() };
    let said = envoy.refusal(directory.path(), &inline_on(&listener, &route("shop")));
    assert!(said.contains("NONSENSE"), "{said}");
}

#[test]
fn what_envoy_refuses_is_noticed() {
    let Some(envoy) = Envoy::find() else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let unbalanced = rule(PathMatch::Regex("/a(((b".into()), respond("never"));
    let route = Route { rules: vec![unbalanced], ..route("broken") };
    let said = envoy.refusal(directory.path(), &inline(&route));
    assert!(said.contains("/a(((b"), "{said}");
}

#[test]
fn a_long_prefix_is_rewritten_in_a_small_program() {
    let Some(envoy) = Envoy::find() else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let long = format!("/{}", "segment.with(odd)characters/".repeat(70));
    let forward =
        Forward { rewrite: Rewrite { path: Some(PathRewrite::Prefix("/".into())), host: None }, ..forward("checkout") };
    let rules = vec![rule(PathMatch::Prefix(long.trim_end_matches('/').into()), Action::Forward(forward))];
    envoy.validate_binary(directory.path(), &inline(&Route { rules, ..route("long") }));
}

#[test]
fn every_pattern_that_the_model_lets_through() {
    let Some(envoy) = Envoy::find() else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut runner = TestRunner::deterministic();
    let strategy = any_pattern();
    let drawn = std::iter::repeat_with(|| strategy.new_tree(&mut runner).expect("a pattern").current()).take(4000);
    let accepted: BTreeSet<String> = drawn.filter(|pattern| re2::check(pattern).is_ok()).collect();
    assert!(accepted.len() > 500, "too few to say anything: {}", accepted.len());
    let rules = accepted.into_iter().map(|pattern| rule(PathMatch::Regex(pattern), respond("matched"))).collect();
    envoy.validate_binary(directory.path(), &inline(&Route { rules, ..route("patterns") }));
}

#[test]
fn every_bootstrap() {
    let Some(envoy) = Envoy::find() else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let TlsFiles { certificate_file, private_key_file } = certificate(directory.path());
    for protocol in [Protocol::Delta, Protocol::StateOfTheWorld] {
        for host in ["127.0.0.1", "::1", "chancery.example.com"] {
            let bootstrap = Bootstrap {
                fleet: name("edge"),
                id: name("edge-1"),
                xds_host: host.into(),
                xds_port: 18000,
                server_name: None,
                ca_file: certificate_file.clone(),
                certificate_file: certificate_file.clone(),
                private_key_file: private_key_file.clone(),
                labels: [("track".to_owned(), "canary".to_owned())].into(),
                zone: None,
                admin: Some("127.0.0.1:9901".parse().expect("an address")),
                protocol,
                max_connections: DEFAULT_MAX_CONNECTIONS,
                secrets_dir: None,
                max_heap_bytes: Some(1 << 30),
            };
            let file = directory.path().join("bootstrap.json");
            std::fs::write(&file, bootstrap.to_json().to_string()).expect("a written bootstrap");
            envoy.validate(&file).unwrap_or_else(|said| panic!("{protocol:?} over {host}: {said}"));
        }
    }
}

/// A static bootstrap; it names an ADS stream, because clusters refer to one.
fn bootstrap(listeners: Vec<EnvoyListener>, mut clusters: Vec<Cluster>) -> messages::Bootstrap {
    let control_plane = Service { protocol: ServiceProtocol::Http2, ..service("control-plane") };
    let mut control_plane = translate::cluster::cluster(&control_plane);
    control_plane.eds_cluster_config = None;
    control_plane.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into()));
    control_plane.load_assignment = Some(translate::endpoint::load_assignment(&service("control-plane")));
    clusters.push(control_plane);
    let to_control_plane =
        grpc_service::EnvoyGrpc { cluster_name: "control-plane".into(), ..grpc_service::EnvoyGrpc::default() };
    messages::Bootstrap {
        node: Some(Node { id: "edge-1".into(), cluster: "edge".into(), ..Node::default() }),
        dynamic_resources: Some(messages::bootstrap::DynamicResources {
            ads_config: Some(ApiConfigSource {
                api_type: ApiType::DeltaGrpc.into(),
                transport_api_version: ApiVersion::V3.into(),
                grpc_services: vec![GrpcService {
                    target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(to_control_plane)),
                    ..GrpcService::default()
                }],
                ..ApiConfigSource::default()
            }),
            ..messages::bootstrap::DynamicResources::default()
        }),
        static_resources: Some(messages::bootstrap::StaticResources { listeners, clusters, secrets: Vec::new() }),
        ..messages::Bootstrap::default()
    }
}

/// A listener with nothing but defaults.
fn plain_listener() -> Listener {
    Listener {
        name: name("web"),
        fleet: fleet().name,
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port: 10000,
        protocol: ListenerProtocol::Http,
        http3: false,
        proxy_protocol: false,
        route_delivery: RouteDelivery::PerHost,
        timeouts: Timeouts::default(),
        compression: None,
        clients: None,
        access: None,
        authorizer: None,
        access_logs: Vec::new(),
        tracing: None,
    }
}

/// A static bootstrap with one listener that serves `route`.
fn inline(route: &Route) -> messages::Bootstrap {
    inline_on(&plain_listener(), route)
}

/// A static bootstrap in which `listener` serves `route`.
fn inline_on(listener: &Listener, route: &Route) -> messages::Bootstrap {
    let fleet = fleet();
    let hosts: Vec<VirtualHost> = route
        .hosts
        .iter()
        .map(|host| translate::route::virtual_host(&listener.name, host, [route], &References::default(), &fleet))
        .collect();
    let configuration = RouteConfiguration { virtual_hosts: hosts, ..RouteConfiguration::default() };
    let clusters = vec![translate::cluster::cluster(&service("checkout"))];
    bootstrap(vec![with_inline_routes(translate::listener::listener(listener, &fleet), configuration)], clusters)
}

/// `listener` with `routes` in place of a reference to them.
fn with_inline_routes(mut listener: EnvoyListener, routes: RouteConfiguration) -> EnvoyListener {
    let filter = &mut listener.filter_chains[0].filters[0];
    let Some(ConfigType::TypedConfig(packed)) = &filter.config_type else { panic!("no connection manager") };
    let mut connection_manager: HttpConnectionManager = any::unpack(packed).expect("a connection manager");
    connection_manager.route_specifier = Some(RouteSpecifier::RouteConfig(routes));
    filter.config_type = Some(ConfigType::TypedConfig(any::pack_typed(&connection_manager)));
    listener
}

/// A self-signed certificate in `directory`.
fn certificate(directory: &Path) -> TlsFiles {
    let signed = rcgen::generate_simple_self_signed(vec!["shop.example.com".into()]).expect("a certificate");
    let file = |name: &str, text: String| {
        let path = directory.join(name);
        std::fs::write(&path, text).expect("a written file");
        path.display().to_string()
    };
    TlsFiles {
        certificate_file: file("tls.crt", signed.cert.pem()),
        private_key_file: file("tls.key", signed.signing_key.serialize_pem()),
    }
}

/// Patterns of every construct, nested at random, most of them near the largest program that is accepted.
fn any_pattern() -> impl Strategy<Value = String> {
    let atoms = [
        "a",
        "/",
        ".",
        "[a-z]",
        "[^/]",
        r"\d",
        r"\W",
        "[[:alpha:]_]",
        r"\x41",
        r"\.",
        "^",
        "$",
        r"\b",
        "(?i)a",
        "()",
        "[\\-a]",
    ];
    let atom = sample::select(atoms.to_vec()).prop_map(str::to_owned);
    atom.prop_recursive(6, 60, 8, |inner| {
        let repetition = sample::select(vec!["*", "+", "?", "*?", "{2}", "{0,3}", "{1,}", "{7}", "{2,9}?"]);
        prop_oneof![
            4 => collection::vec(inner.clone(), 1..8).prop_map(|parts| parts.concat()),
            2 => collection::vec(inner.clone(), 2..5).prop_map(|parts| format!("({})", parts.join("|"))),
            3 => (inner.clone(), repetition).prop_map(|(inner, repetition)| format!("(?:{inner}){repetition}")),
            1 => inner.prop_map(|inner| format!("(?i:{inner})")),
        ]
    })
}
