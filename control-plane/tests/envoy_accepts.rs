//! A real Envoy loads what we translate and generate: `envoy --mode validate` over everything at once.
//!
//! Translated messages go into a static bootstrap in binary form (`.pb`), so that nothing of them is lost
//! on the way; routes are put inline, where Envoy would otherwise ask for them.
//!
//! Without an Envoy (`CHANCERY_ENVOY`, `.dev/envoy/bin/envoy` or `PATH`) the tests say so and pass; in CI they fail.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use chancery_control_plane::{
    bootstrap::{Bootstrap, DEFAULT_MAX_CONNECTIONS, Protocol},
    model::{
        Name,
        fleet::Fleet,
        listener::{Listener, ListenerProtocol, TlsFiles},
        route::{
            Action, Backoff, Forward, HeaderChanges, HostPattern, ListenerRef, Match, NamedMatch, PathMatch, Redirect,
            Respond, Retry, RetryCondition, Route, Rule, Target, ValueMatch,
        },
        service::{Address, Breaker, Endpoint, HealthCheck, LoadBalancing, OutlierDetection, Service, ServiceProtocol},
    },
    translate,
};
use chancery_proto::{
    Message, any,
    envoy::{
        bootstrap as envoy,
        cluster::cluster::{ClusterDiscoveryType, DiscoveryType},
        core::{ApiConfigSource, ApiVersion, GrpcService, Node, api_config_source::ApiType, grpc_service},
        hcm::{HttpConnectionManager, http_connection_manager::RouteSpecifier},
        listener::{Listener as EnvoyListener, filter::ConfigType},
        route::{RouteConfiguration, VirtualHost},
    },
};

#[test]
fn everything_that_is_translated() {
    let Some(envoy) = Envoy::find() else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let tls = certificate(directory.path());
    let fleet = Fleet { name: name("edge"), default_timeout: Duration::from_secs(15), trusted_hops: 1 };
    let route = Route { rules: every_rule(), ..route("everything") };
    let also = Route { rules: vec![rule(PathMatch::Prefix("/api".into()), respond("also"))], ..route_named("also") };

    let mut listeners = Vec::new();
    for (port, protocol) in [(10000, ListenerProtocol::Http), (10443, ListenerProtocol::Https(tls))] {
        for (letter, address) in [("v4", IpAddr::V4(Ipv4Addr::UNSPECIFIED)), ("v6", IpAddr::V6(Ipv6Addr::LOCALHOST))] {
            let listener_name = name(&format!("web-{letter}-{port}"));
            let listener = Listener {
                name: listener_name.clone(),
                fleet: fleet.name.clone(),
                address,
                port,
                protocol: protocol.clone(),
            };
            let hosts = route.hosts.iter().map(|host| {
                translate::route::virtual_host(&listener_name, host, [&route, &also], &fleet).encode_to_vec()
            });
            let hosts: Vec<_> = hosts.collect();
            let configuration = translate::route::route_configuration(&listener_name, hosts.iter().map(Vec::as_slice));
            let configuration = RouteConfiguration::decode(configuration).expect("a route configuration");
            listeners.push(with_inline_routes(translate::listener::listener(&listener, &fleet), configuration));
        }
    }
    let mut clusters: Vec<_> = every_service().iter().map(translate::cluster::cluster).collect();
    for service in every_service().iter().filter(|service| translate::endpoint::is_discovered(service)) {
        // As a static cluster, so that the endpoints are read too.
        let mut cluster = translate::cluster::cluster(service);
        cluster.name = format!("{}-inline", service.name);
        cluster.eds_cluster_config = None;
        cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into()));
        cluster.load_assignment = Some(translate::endpoint::load_assignment(service));
        clusters.push(cluster);
    }
    envoy.validate_binary(directory.path(), &bootstrap(listeners, clusters));
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
    let forward = Forward { rewrite_prefix: Some("/".into()), ..forward("checkout") };
    let rules = vec![rule(PathMatch::Prefix(long.trim_end_matches('/').into()), Action::Forward(forward))];
    envoy.validate_binary(directory.path(), &inline(&Route { rules, ..route("long") }));
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
                admin: Some("127.0.0.1:9901".parse().expect("an address")),
                protocol,
                max_connections: DEFAULT_MAX_CONNECTIONS,
                max_heap_bytes: Some(1 << 30),
            };
            let file = directory.path().join("bootstrap.json");
            std::fs::write(&file, bootstrap.to_json().to_string()).expect("a written bootstrap");
            envoy.validate(&file).unwrap_or_else(|said| panic!("{protocol:?} over {host}: {said}"));
        }
    }
}

/// The Envoy that judges.
struct Envoy(PathBuf);

impl Envoy {
    fn find() -> Option<Self> {
        let named = std::env::var_os("CHANCERY_ENVOY").map(PathBuf::from);
        let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.dev/envoy/bin/envoy");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let installed = std::env::split_paths(&path).map(|directory| directory.join("envoy"));
        let found = named.into_iter().chain([fetched]).chain(installed).find(|candidate| candidate.is_file());
        if found.is_none() {
            assert!(std::env::var_os("CI").is_none(), "no Envoy in CI");
            eprintln!("SKIPPED: no Envoy found; set CHANCERY_ENVOY to run this test");
        }
        found.map(Self)
    }

    /// What Envoy says against the bootstrap in `file`.
    fn validate(&self, file: &Path) -> Result<(), String> {
        let output = Command::new(&self.0)
            .args(["--mode", "validate", "--log-level", "warning", "-c"])
            .arg(file)
            .output()
            .expect("Envoy runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // What is deprecated today is refused by a later Envoy.
        if output.status.success() && !said.contains("eprecated") { Ok(()) } else { Err(said) }
    }

    fn validate_binary(&self, directory: &Path, bootstrap: &envoy::Bootstrap) {
        let file = directory.join("bootstrap.pb");
        std::fs::write(&file, bootstrap.encode_to_vec()).expect("a written bootstrap");
        self.validate(&file).unwrap_or_else(|said| panic!("{said}"));
    }

    fn refusal(&self, directory: &Path, bootstrap: &envoy::Bootstrap) -> String {
        let file = directory.join("bootstrap.pb");
        std::fs::write(&file, bootstrap.encode_to_vec()).expect("a written bootstrap");
        self.validate(&file).expect_err("Envoy refuses it")
    }
}

/// A static bootstrap; it names an ADS stream, because clusters refer to one.
fn bootstrap(
    listeners: Vec<EnvoyListener>,
    mut clusters: Vec<chancery_proto::envoy::cluster::Cluster>,
) -> envoy::Bootstrap {
    let control_plane = Service { protocol: ServiceProtocol::Http2, ..service("control-plane") };
    let mut control_plane = translate::cluster::cluster(&control_plane);
    control_plane.eds_cluster_config = None;
    control_plane.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into()));
    control_plane.load_assignment = Some(translate::endpoint::load_assignment(&service("control-plane")));
    clusters.push(control_plane);
    let to_control_plane =
        grpc_service::EnvoyGrpc { cluster_name: "control-plane".into(), ..grpc_service::EnvoyGrpc::default() };
    envoy::Bootstrap {
        node: Some(Node { id: "edge-1".into(), cluster: "edge".into(), ..Node::default() }),
        dynamic_resources: Some(envoy::bootstrap::DynamicResources {
            ads_config: Some(ApiConfigSource {
                api_type: ApiType::DeltaGrpc.into(),
                transport_api_version: ApiVersion::V3.into(),
                grpc_services: vec![GrpcService {
                    target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(to_control_plane)),
                    ..GrpcService::default()
                }],
                ..ApiConfigSource::default()
            }),
            ..envoy::bootstrap::DynamicResources::default()
        }),
        static_resources: Some(envoy::bootstrap::StaticResources { listeners, clusters, secrets: Vec::new() }),
        ..envoy::Bootstrap::default()
    }
}

/// A static bootstrap with one listener that serves `route`.
fn inline(route: &Route) -> envoy::Bootstrap {
    let fleet = Fleet { name: name("edge"), default_timeout: Duration::from_secs(15), trusted_hops: 0 };
    let listener = Listener {
        name: name("web"),
        fleet: fleet.name.clone(),
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port: 10000,
        protocol: ListenerProtocol::Http,
    };
    let hosts: Vec<VirtualHost> =
        route.hosts.iter().map(|host| translate::route::virtual_host(&listener.name, host, [route], &fleet)).collect();
    let configuration = RouteConfiguration { virtual_hosts: hosts, ..RouteConfiguration::default() };
    let clusters = vec![translate::cluster::cluster(&service("checkout"))];
    bootstrap(vec![with_inline_routes(translate::listener::listener(&listener, &fleet), configuration)], clusters)
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

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn service(text: &str) -> Service {
    Service {
        name: name(text),
        endpoints: vec![Endpoint { address: Address::Ip(Ipv4Addr::LOCALHOST.into()), port: 8080, weight: 1 }],
        protocol: ServiceProtocol::Http1,
        connect_timeout: Duration::from_secs(1),
        load_balancing: LoadBalancing::RoundRobin,
        health_check: None,
        breaker: Breaker::default(),
        outlier_detection: None,
    }
}

/// Services that together use every setting.
fn every_service() -> Vec<Service> {
    let resolved = |name: &str| Endpoint { address: Address::Dns(name.into()), port: 80, weight: 128 };
    let full = Service {
        endpoints: vec![
            Endpoint { address: Address::Ip(Ipv6Addr::LOCALHOST.into()), port: 65535, weight: 128 },
            Endpoint { address: Address::Ip(Ipv4Addr::LOCALHOST.into()), port: 1, weight: 1 },
        ],
        protocol: ServiceProtocol::Http2,
        connect_timeout: Duration::from_millis(1),
        load_balancing: LoadBalancing::LeastRequest,
        health_check: Some(HealthCheck {
            path: "/healthz?deep=1".into(),
            host: Some("internal.example.com".into()),
            interval: Duration::from_millis(1),
            timeout: Duration::from_millis(1),
            unhealthy_after: 1,
            healthy_after: 1,
        }),
        breaker: Breaker {
            max_connections: Some(0),
            max_requests: Some(u32::MAX),
            max_pending: Some(1),
            max_retries: Some(1),
        },
        outlier_detection: Some(OutlierDetection {
            consecutive_5xx: Some(1),
            consecutive_gateway_failures: Some(1),
            interval: Some(Duration::from_millis(1)),
            eject_for: Some(Duration::from_secs(3600)),
            max_ejected_percent: Some(100),
        }),
        ..service("full")
    };
    let mixed = Service { endpoints: vec![resolved("a.example.com"), full.endpoints[0].clone()], ..full.clone() };
    vec![
        service("checkout"),
        Service { endpoints: vec![], ..service("empty") },
        Service { name: name("mixed"), ..mixed },
        Service { endpoints: vec![resolved("localhost")], ..service("resolved") },
        Service { outlier_detection: Some(OutlierDetection::default()), ..service("passive") },
        full,
    ]
}

fn route_named(text: &str) -> Route {
    Route {
        name: name(text),
        listeners: vec![ListenerRef { fleet: name("edge"), listener: name("web") }],
        hosts: vec![],
        rules: vec![],
    }
}

fn route(text: &str) -> Route {
    let hosts = vec![
        HostPattern::Any,
        HostPattern::Suffix("example.com".into()),
        HostPattern::Exact("shop.example.com".into()),
        HostPattern::Exact("10.0.0.1".into()),
        HostPattern::Exact("[::1]".into()),
    ];
    Route { hosts, ..route_named(text) }
}

fn rule(path: PathMatch, action: Action) -> Rule {
    Rule {
        matches: Match { path, methods: vec![], headers: vec![], query: vec![] },
        action,
        request_headers: HeaderChanges::default(),
        response_headers: HeaderChanges::default(),
    }
}

fn respond(body: &str) -> Action {
    Action::Respond(Respond { status: 200, body: body.into() })
}

fn forward(service: &str) -> Forward {
    Forward {
        to: vec![Target { service: name(service), weight: 1 }],
        rewrite_prefix: None,
        rewrite_host: None,
        timeout: None,
        retry: None,
    }
}

/// Rules that together use every setting, each at its limits.
fn every_rule() -> Vec<Rule> {
    let prefix = |path: &str| PathMatch::Prefix(path.into());
    let mut rules = vec![
        rule(PathMatch::Exact("/ping".into()), respond("pong")),
        rule(PathMatch::Exact("/full".into()), respond(&"x".repeat(4096))),
        rule(PathMatch::Exact("/empty".into()), Action::Respond(Respond { status: 599, body: String::new() })),
    ];
    rules.extend(PATTERNS.iter().map(|pattern| rule(PathMatch::Regex((*pattern).into()), respond("matched"))));
    rules.extend(every_condition());
    rules.extend(every_redirect());
    for (from, with) in [("/api", "/"), ("/api/", "/v2"), ("/", "/v2"), ("/a.b+c", "/\\1/"), ("/%41", "/")] {
        let forward = Forward {
            rewrite_prefix: Some(with.into()),
            rewrite_host: Some("internal.example.com".into()),
            ..forward("checkout")
        };
        rules.push(rule(prefix(from), Action::Forward(forward)));
    }
    let retry = |on: Vec<RetryCondition>, backoff| Retry {
        on,
        attempts: 10,
        per_try_timeout: Some(Duration::from_millis(1)),
        backoff,
    };
    let steep = Backoff { base: Duration::from_millis(1), max: Duration::from_secs(60) };
    let flat = Backoff { base: Duration::from_secs(1), max: Duration::from_secs(1) };
    for (on, backoff) in [
        (RetryCondition::ALL.to_vec(), Some(steep)),
        (vec![RetryCondition::Reset], Some(flat)),
        (vec![RetryCondition::GrpcCancelled], None),
    ] {
        let forward = Forward {
            to: vec![
                Target { service: name("checkout"), weight: 0 },
                Target { service: name("full"), weight: 1_000_000 },
            ],
            timeout: Some(Duration::from_secs(24 * 3600)),
            retry: Some(retry(on, backoff)),
            ..forward("checkout")
        };
        rules.push(rule(prefix("/"), Action::Forward(forward)));
    }
    let changes = HeaderChanges {
        set: vec![
            ("x-literal".into(), "100% %START_TIME% %%".into()),
            ("x-empty".into(), String::new()),
            ("x-quote".into(), "\"a\\b\" ü".into()),
        ],
        add: vec![("set-cookie".into(), "a=b; Path=/".into()), ("x!#$%&'*+-.^_`|~".into(), "token".into())],
        remove: vec!["server".into(), "user-agent".into()],
    };
    for action in [Action::Forward(forward("checkout")), respond("changed"), every_redirect()[0].action.clone()] {
        let (request_headers, response_headers) = (changes.clone(), changes.clone());
        rules.push(Rule { request_headers, response_headers, ..rule(prefix("/"), action) });
    }
    rules
}

/// One rule for every kind of condition, and one with many of them.
fn every_condition() -> Vec<Rule> {
    let values = [
        ValueMatch::Present,
        ValueMatch::Exact("1".into()),
        ValueMatch::Prefix("v".into()),
        ValueMatch::Suffix(".example".into()),
        ValueMatch::Contains("beta".into()),
        ValueMatch::Regex("[a-z]+(,[a-z]+)*".into()),
    ];
    let conditions = |inverts: &[bool]| -> Vec<NamedMatch> {
        let both = inverts.iter().flat_map(|invert| values.iter().map(|value| (*invert, value.clone())));
        both.map(|(invert, value)| NamedMatch { name: "x-condition".into(), value, invert }).collect()
    };
    let methods: Vec<Vec<String>> = vec![
        vec!["GET".into()],
        ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"].map(String::from).into(),
        (0..20).map(|number| format!("{:*>30}{number:02}", "A!#$%&'*+-.^_`|~")).collect(),
    ];
    methods
        .into_iter()
        .map(|methods| {
            let mut rule = rule(PathMatch::Prefix("/conditions".into()), respond("held"));
            rule.matches.methods = methods;
            rule.matches.headers = conditions(&[false, true]);
            rule.matches.query = conditions(&[false]);
            rule
        })
        .collect()
}

fn every_redirect() -> Vec<Rule> {
    let here =
        Redirect { scheme: None, host: None, port: None, path: None, prefix: None, status: 301, strip_query: false };
    let elsewhere = Redirect {
        scheme: Some("https".into()),
        host: Some("www.example.com".into()),
        port: Some(8443),
        strip_query: true,
        ..here.clone()
    };
    let mut redirects = vec![
        elsewhere.clone(),
        Redirect { path: Some("/new?a=b".into()), ..elsewhere.clone() },
        Redirect { prefix: Some("/new".into()), ..elsewhere.clone() },
        Redirect { prefix: Some("/".into()), ..elsewhere },
    ];
    redirects.extend([301, 302, 303, 307, 308].map(|status| Redirect {
        status,
        path: Some("/n".into()),
        ..here.clone()
    }));
    redirects.into_iter().map(|redirect| rule(PathMatch::Prefix("/old".into()), Action::Redirect(redirect))).collect()
}

/// Patterns that a user may write, up to the size of program that Envoy takes by default.
const PATTERNS: [&str; 16] = [
    "/v[0-9]+/ping",
    "/[^/]+/orders(/[0-9]{1,9})?",
    "/(a|b|c)/.*",
    "/users/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    r"/files/.*\.(png|jpe?g|gif|svg)",
    "(?i)/CaseLess/.*",
    r"/\w+/\d+/\s?",
    "/[[:alpha:]]+/[[:digit:]]*",
    "^/anchored$",
    "/lazy.*?/end",
    r"/escaped\.\*\+\?\(\)\[\]\{\}\|\^\$\\",
    "/(?P<name>[a-z]+)/(?:group)",
    r"/\x41/\Qliteral.*\E",
    "/.{0,30}",
    "/a{3,}",
    "//",
];
