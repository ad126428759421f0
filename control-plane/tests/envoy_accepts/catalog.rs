//! Services and routes that together use every setting, each at its limits.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use chancery_control_plane::model::{
    Name,
    access::{Access, Caller, Network},
    access_log::{AccessLog, Field, Filter, Format, LogService, Share, Sink},
    authorizer::{Authorizer, AuthorizerProtocol, RuleAuthorization, ToldBody},
    compression::{Compression, CompressionAlgorithm},
    cors::{Cors, Origin},
    fault::{Abort, Delay, Fault},
    fleet::{OnFailure, RateLimiter},
    jwt::{Jwt, JwtProvider, Keys},
    listener::TlsFiles,
    local_rate_limit::LocalRateLimit,
    rate_limit::{Absent, Algorithm, Enforcement, Hits, KeyPart, Limit, Mode, RateLimit, WhenRedisIsDown},
    re2,
    retry::{Backoff, Retry, RetryCondition},
    route::{
        Action, Forward, HeaderChanges, HostPattern, ListenerRef, Match, Mirror, NamedMatch, PathMatch, PathRewrite,
        Redirect, Respond, Rewrite, Route, Rule, Target, Tunnel, Upgrade, ValueMatch,
    },
    service::{
        AdaptiveConcurrency, Address, Breaker, ConcurrencyAlgorithm, Endpoint, HashKey, HashOf, Hashing, HealthCheck,
        Hedging, Labels, LoadBalancing, MadeCookie, OutlierDetection, Policy, Probe, ProxyProtocol, RetryBudget,
        Service, ServiceProtocol, ServiceTls, SessionAffinity, SlowStart, SubsetFallback, Subsets, Zone,
        tls::{Authorities, ClientCertificate, Peer, ProxyId, TlsVersion, Verification},
    },
    tracing::{Sampling, Tag, TagValue, Tracing},
};

pub(crate) fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

pub(crate) fn service(text: &str) -> Service {
    Service {
        name: name(text),
        endpoints: vec![Endpoint {
            address: Address::Ip(Ipv4Addr::LOCALHOST.into()),
            port: 8080,
            priority: 0,
            weight: 1,
            labels: Labels::new(),
            zone: None,
        }],
        registered: false,
        protocol: ServiceProtocol::Http1,
        tls: None,
        proxy_protocol: None,
        connect_timeout: Duration::from_secs(1),
        load_balancing: LoadBalancing::default(),
        subsets: Subsets::default(),
        session_affinity: None,
        health_check: None,
        breaker: Breaker::default(),
        retry_budget: None,
        hedging: None,
        adaptive_concurrency: None,
        outlier_detection: None,
    }
}

/// Labels of endpoints, and of subsets.
fn labels() -> Labels {
    [("version", "v2"), ("stage", "prod")].map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// A zone of endpoints.
fn zone() -> Option<Zone> {
    Some(Zone { region: "eu-1".into(), zone: "a".into() })
}

/// Subsets with every fallback.
fn every_subset() -> Subsets {
    let selector = |names: &[&str], fallback| (names.iter().map(|name| (*name).to_owned()).collect(), fallback);
    let selectors = [
        selector(&["version"], SubsetFallback::None),
        selector(&["stage"], SubsetFallback::Any),
        selector(&["stage", "version"], SubsetFallback::Default),
    ];
    Subsets { selectors: selectors.into(), default: labels() }
}

/// How services of [`every_rule`] keep sessions, by their names.
pub(crate) fn every_affinity() -> Vec<(Name, SessionAffinity)> {
    let cookie = |ttl| SessionAffinity::Cookie { name: "sid".into(), ttl, path: "/".into() };
    vec![
        (name("checkout"), cookie(Some(Duration::from_secs(365 * 24 * 3600)))),
        (name("full"), cookie(None)),
        (name("resolved"), SessionAffinity::Header("x-session".into())),
    ]
}

fn checked(text: &str, probe: Probe) -> Service {
    let second = Duration::from_secs(1);
    let check = HealthCheck { probe, interval: second, timeout: second, unhealthy_after: 1000, healthy_after: 1000 };
    Service { health_check: Some(check), ..service(text) }
}

fn balanced(policy: Policy) -> LoadBalancing {
    LoadBalancing { policy, zone_aware: None, panic_threshold: Some(0), overprovisioning_factor: Some(1000) }
}

/// All that can be hashed.
fn every_hash() -> Hashing {
    let cookie = |made| HashOf::Cookie { name: "sid".into(), made };
    let made = MadeCookie { ttl: Duration::from_secs(365 * 24 * 3600), path: "/".into() };
    let of = [
        HashOf::Header("x-user".into()),
        HashOf::Query("account".into()),
        cookie(Some(made)),
        cookie(None),
        HashOf::RemoteAddress,
    ];
    let keys = of.into_iter().map(|of| HashKey { of, terminal: true }).collect();
    Hashing { keys, balance_factor: Some(100) }
}

/// Services that together use every setting.
pub(crate) fn every_service() -> Vec<Service> {
    let resolved = |name: &str| Endpoint {
        address: Address::Dns(name.into()),
        port: 80,
        priority: 0,
        weight: 128,
        labels: Labels::new(),
        zone: None,
    };
    let full = Service {
        endpoints: vec![
            Endpoint {
                address: Address::Ip(Ipv6Addr::LOCALHOST.into()),
                port: 65535,
                priority: 0,
                weight: 128,
                labels: labels(),
                zone: zone(),
            },
            Endpoint {
                address: Address::Ip(Ipv4Addr::LOCALHOST.into()),
                port: 1,
                priority: 15,
                weight: 1,
                labels: labels(),
                zone: zone(),
            },
        ],
        protocol: ServiceProtocol::Http2,
        connect_timeout: Duration::from_millis(1),
        load_balancing: balanced(Policy::LeastRequest(Some(SlowStart {
            window: Duration::from_millis(1),
            min_weight_percent: Some(1),
        }))),
        health_check: Some(HealthCheck {
            probe: Probe::Http {
                path: "/healthz?deep=1".into(),
                host: Some("internal.example.com".into()),
                statuses: vec![100, 200, 599],
            },
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
            consecutive_failures: Some(100_000),
            min_success_percent: Some(100),
            open_for: Some(Duration::from_millis(1)),
            open_for_most: Some(Duration::from_secs(3600)),
            probe_timeout: Some(Duration::from_millis(1)),
            max_out_percent: Some(0),
        },
        retry_budget: Some(RetryBudget {
            percent: Some(100),
            ttl: Some(Duration::from_secs(3600)),
            min_per_second: Some(0),
        }),
        hedging: Some(Hedging {
            percentile: Some(99),
            min_samples: Some(1000),
            min_delay: Some(Duration::from_secs(60)),
        }),
        adaptive_concurrency: Some(AdaptiveConcurrency {
            algorithm: ConcurrencyAlgorithm::Gradient,
            min: Some(1),
            max: Some(1_000_000),
        }),
        outlier_detection: Some(OutlierDetection {
            consecutive_5xx: Some(1),
            consecutive_gateway_failures: Some(1),
            interval: Some(Duration::from_millis(1)),
            eject_for: Some(Duration::from_secs(3600)),
            max_ejected_percent: Some(100),
            failure_percent: Some(1),
            min_endpoints: Some(1),
            min_requests: Some(1),
        }),
        ..service("full")
    };
    let mixed = Service { endpoints: vec![resolved("a.example.com"), full.endpoints[0].clone()], ..full.clone() };
    vec![
        service("checkout"),
        Service { endpoints: vec![], ..service("empty") },
        Service { name: name("mixed"), ..mixed },
        Service { endpoints: vec![resolved("localhost")], ..service("resolved") },
        Service { load_balancing: balanced(Policy::RoundRobin(None)), ..service("in-turn") },
        Service { load_balancing: balanced(Policy::Random), ..service("random") },
        Service { proxy_protocol: Some(ProxyProtocol::V1), ..checked("tcp", Probe::Tcp) },
        Service {
            protocol: ServiceProtocol::Http2,
            ..checked("grpc", Probe::Grpc { service: Some("shop.v1.Checkout".into()) })
        },
        Service { protocol: ServiceProtocol::Http2, ..checked("grpc-whole", Probe::Grpc { service: None }) },
        Service { load_balancing: balanced(Policy::RingHash(every_hash())), ..service("ring") },
        Service { load_balancing: balanced(Policy::Maglev(every_hash())), ..service("table") },
        Service { subsets: every_subset(), ..service("parts") },
        Service {
            load_balancing: LoadBalancing { zone_aware: Some(5000), ..balanced(Policy::Random) },
            ..service("near")
        },
        Service {
            load_balancing: balanced(Policy::RingHash(every_hash())),
            subsets: every_subset(),
            ..service("parts-of-ring")
        },
        Service { outlier_detection: Some(OutlierDetection::default()), ..service("passive") },
        Service {
            retry_budget: Some(RetryBudget {
                percent: Some(0),
                ttl: Some(Duration::from_millis(1)),
                ..RetryBudget::default()
            }),
            hedging: Some(Hedging::default()),
            ..service("sparse")
        },
        full,
    ]
}

/// Services that together use every setting of TLS; `files` and `pem` have to be there.
pub(crate) fn every_tls(files: &TlsFiles, pem: &str) -> Vec<Service> {
    let resolved = |name: &str| Endpoint {
        address: Address::Dns(name.into()),
        port: 443,
        priority: 0,
        weight: 1,
        labels: Labels::new(),
        zone: None,
    };
    let held = |authorities, peers| Verification::Required { authorities, peers };
    let tls =
        |verification| ServiceTls { sni: None, verification, client_certificate: None, min_version: TlsVersion::V1_2 };
    let proxy = |id| Peer::Proxy { fleet: name("shop"), id };
    let proxies = vec![proxy(ProxyId::Any), proxy(ProxyId::Exact(name("a"))), proxy(ProxyId::Prefix("a-".into()))];
    let peers = vec![
        Peer::Uri("spiffe://example.com/billing".into()),
        Peer::UriPrefix("spiffe://example.com/".into()),
        Peer::Dns("api.example.com".into()),
        Peer::Ip(Ipv6Addr::LOCALHOST.into()),
    ];
    let authorities = || Authorities::File(files.certificate_file.clone());
    let over = |text: &str, tls| Service { tls: Some(tls), ..service(text) };
    let names = vec![resolved("localhost"), resolved("a.example.com")];
    vec![
        Service { endpoints: names.clone(), ..over("web", tls(held(authorities(), vec![]))) },
        Service { endpoints: names, ..over("skipped", tls(Verification::Skipped)) },
        over(
            "meshed",
            ServiceTls { client_certificate: Some(ClientCertificate::Mesh), ..tls(held(Authorities::Mesh, proxies)) },
        ),
        Service {
            protocol: ServiceProtocol::Http2,
            proxy_protocol: Some(ProxyProtocol::V2),
            health_check: every_service().into_iter().find_map(|service| service.health_check),
            ..over(
                "everything",
                ServiceTls {
                    sni: Some("api.example.com".into()),
                    client_certificate: Some(ClientCertificate::Files(files.clone())),
                    min_version: TlsVersion::V1_3,
                    ..tls(held(authorities(), peers))
                },
            )
        },
        over("inline", ServiceTls { sni: Some("a".into()), ..tls(held(Authorities::Pem(pem.into()), vec![])) }),
    ]
}

pub(crate) fn route_named(text: &str) -> Route {
    Route {
        name: name(text),
        listeners: vec![ListenerRef { fleet: name("edge"), listener: name("web") }],
        hosts: vec![],
        jwt_providers: vec![],
        rules: vec![],
        tcp: None,
    }
}

pub(crate) fn route(text: &str) -> Route {
    let hosts = vec![
        HostPattern::Any,
        HostPattern::Suffix("example.com".into()),
        HostPattern::Exact("shop.example.com".into()),
        HostPattern::Exact("10.0.0.1".into()),
        HostPattern::Exact("[::1]".into()),
    ];
    Route { hosts, ..route_named(text) }
}

pub(crate) fn rule(path: PathMatch, action: Action) -> Rule {
    Rule {
        matches: Match { path, methods: vec![], headers: vec![], query: vec![], cookies: vec![], grpc: false },
        action,
        authorization: None,
        request_headers: HeaderChanges::default(),
        response_headers: HeaderChanges::default(),
    }
}

pub(crate) fn respond(body: &str) -> Action {
    Action::Respond(Respond { status: 200, body: body.into() })
}

pub(crate) fn forward(service: &str) -> Forward {
    Forward::to(vec![Target { service: name(service), subset: Labels::new(), weight: 1 }])
}

/// Callers of every kind, allowed and denied.
pub(crate) fn every_access() -> Access {
    let caller = |clients, networks, headers| Caller { clients, networks, headers };
    let clients = vec![
        Peer::Uri("spiffe://example.com/billing".into()),
        Peer::UriPrefix("spiffe://example.com/".into()),
        Peer::Dns("api.example.com".into()),
        Peer::Ip(Ipv6Addr::LOCALHOST.into()),
    ];
    let network = |address: IpAddr, length| Network { address, length };
    let networks = vec![
        network(Ipv4Addr::UNSPECIFIED.into(), 0),
        network(Ipv4Addr::LOCALHOST.into(), 32),
        network(Ipv6Addr::LOCALHOST.into(), 128),
    ];
    let headers = || every_condition()[0].matches.headers.clone();
    let all = caller(clients, networks.clone(), headers());
    Access {
        allow: Some(vec![all.clone(), caller(vec![], networks, vec![])]),
        deny: vec![all, caller(vec![], vec![], headers())],
    }
}

/// Authorizers of both protocols with every setting; both are the service `checkout`.
pub(crate) fn every_authorizer() -> [Authorizer; 2] {
    let grpc = Authorizer {
        service: name("checkout"),
        protocol: AuthorizerProtocol::Grpc,
        timeout: Duration::from_millis(1),
        on_failure: OnFailure::Allow,
        status_on_error: 403,
        body: Some(ToldBody { max_size: 1, partial: true }),
        headers: Some(vec!["x-user".into()]),
    };
    let http = AuthorizerProtocol::Http {
        path_prefix: "/check".into(),
        to_service: vec!["x-user".into()],
        to_client: Some(vec!["x-why".into()]),
    };
    let body = Some(ToldBody { max_size: 1024 * 1024, partial: false });
    let http = Authorizer {
        protocol: http,
        timeout: Duration::from_secs(60),
        on_failure: OnFailure::Deny,
        status_on_error: 511,
        body,
        ..grpc.clone()
    };
    [grpc, http]
}

/// Tokens of issuers with every kind of keys; asks the service `checkout`.
pub(crate) fn every_jwt() -> Vec<Jwt> {
    let provider = |text: &str, keys, more: bool| {
        Arc::new(JwtProvider {
            name: name(text),
            issuer: "https://auth.example.com/".into(),
            audiences: if more { vec!["shop".into(), "api".into()] } else { vec![] },
            keys,
            header: more.then(|| "x-token".into()),
            forward: more,
            claims: if more { vec![("realm.role".into(), "x-role".into())] } else { vec![] },
        })
    };
    let set = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    let remote = Keys::Remote {
        service: name("checkout"),
        host: "[::1]".into(),
        path: "/jwks.json?a=b".into(),
        cache: Duration::from_secs(1),
    };
    let providers = vec![provider("inline", Keys::Inline(set.into()), false), provider("remote", remote, true)];
    [(true, false), (false, true), (false, false)]
        .map(|(all, allow_missing)| Jwt { providers: providers.clone(), all, allow_missing })
        .into()
}

/// Logs that use every setting.
pub(crate) fn every_access_log() -> Vec<AccessLog> {
    let filter = Filter {
        min_status: Some(100),
        min_duration: Some(Duration::from_secs(24 * 3600)),
        only_errors: true,
        share: Share::of_hundredths(1),
    };
    let service = LogService {
        service: name("checkout"),
        log_name: "checkout".into(),
        request_headers: vec!["x-tenant".into()],
        response_headers: vec!["x-cache".into()],
        flush_interval: Duration::from_millis(1),
        buffer: 1,
    };
    let field = |text: &str| Field::Text(text.to_owned());
    let inner = [("status".to_owned(), field("%RESPONSE_CODE%")), ("fixed".to_owned(), field("100%%"))];
    let deep = (0..4).fold(Field::Object(inner.into()), |inner, _| Field::Object([("inner".to_owned(), inner)].into()));
    let json = [("a.b".to_owned(), field("%START_TIME(%Y-%m)% %REQ(:PATH?X-A):5%")), ("deep".to_owned(), deep)].into();
    let text = Format::Text(Format::DEFAULT.to_owned());
    let sinks = [
        Sink::Stdout(Format::Json(json)),
        Sink::Stderr(text.clone()),
        Sink::File { path: "/dev/null".into(), format: text },
        Sink::Service(service),
        Sink::ControlPlane,
    ];
    sinks.map(|to| AccessLog { to, filter: filter.clone() }).into()
}

/// Tracing that uses every setting.
pub(crate) fn every_tracing() -> Tracing {
    let header = TagValue::Header { name: "x-tenant".into(), default: "-".into() };
    let tags = [TagValue::Literal("prod".into()), header].map(|value| Tag { name: "a.b".into(), value });
    Tracing { service: name("checkout"), service_name: "edge".into(), sampling: SAMPLING, tags: tags.into() }
}

const SAMPLING: Sampling = Sampling { random: Share::ONE_PERCENT, client: Share::NONE, overall: Share::ALL };

/// Compression that uses every setting.
pub(crate) fn every_compression() -> Compression {
    let content_types = vec!["application/problem+json".into(), "a!#$&^_.+-/b".into()];
    Compression { algorithms: CompressionAlgorithm::ALL.to_vec(), content_types, min_length: 30 }
}

/// Rules that together use every setting, each at its limits.
pub(crate) fn every_rule() -> Vec<Rule> {
    let prefix = |path: &str| PathMatch::Prefix(path.into());
    let mut rules = vec![
        rule(PathMatch::Exact("/ping".into()), respond("pong")),
        rule(PathMatch::Exact("/full".into()), respond(&"x".repeat(4096))),
        rule(PathMatch::Exact("/empty".into()), Action::Respond(Respond { status: 599, body: String::new() })),
    ];
    rules.extend(PATTERNS.map(|pattern| {
        assert_eq!(re2::check(pattern), Ok(()), "{pattern}");
        rule(PathMatch::Regex(pattern.into()), respond("matched"))
    }));
    let limited =
        Forward { rate_limits: every_limit().into_iter().map(|limit| limit.name).collect(), ..forward("full") };
    rules.push(rule(prefix("/limited"), Action::Forward(limited)));
    rules.extend(every_condition());
    rules.extend(every_redirect());
    for (from, with) in [("/api", "/"), ("/api/", "/v2"), ("/", "/v2"), ("/a.b+c", "/\\1/"), ("/%41", "/")] {
        let forward = Forward {
            rewrite: Rewrite {
                path: Some(PathRewrite::Prefix(with.into())),
                host: Some("internal.example.com".into()),
            },
            ..forward("checkout")
        };
        rules.push(rule(prefix(from), Action::Forward(forward)));
    }
    rules.extend(every_template());
    let cors = Cors {
        origins: vec![
            Origin::Any,
            Origin::Exact("https://[::1]:8443".into()),
            Origin::Pattern(r"https://[^/:]+\.a\.b".into()),
        ],
        methods: vec!["GET".into(), "M-SEARCH".into()],
        headers: vec!["x-a".into()],
        expose_headers: vec!["*".into()],
        max_age: Some(Duration::from_secs(24 * 3600)),
        credentials: false,
    };
    rules.push(rule(prefix("/cors"), Action::Forward(Forward { cors: Some(cors.into()), ..forward("checkout") })));
    rules.extend(
        every_jwt()
            .into_iter()
            .map(|jwt| rule(prefix("/jwt"), Action::Forward(Forward { jwt: Some(jwt.into()), ..forward("checkout") }))),
    );
    for authorization in [RuleAuthorization::Off, RuleAuthorization::Context([("a".into(), "b".into())].into())] {
        let authorization = Some(authorization);
        rules.push(Rule { authorization, ..rule(prefix("/authorized"), Action::Forward(forward("checkout"))) });
    }
    let delay = Delay { time: Duration::from_secs(60), percent: 100 };
    let abort = Abort { status: 599, percent: 1 };
    for (delay, abort) in [(Some(delay), None), (None, Some(abort)), (Some(delay), Some(abort))] {
        let expires = time::macros::datetime!(9999-12-31 23:59:59.999999999 UTC);
        let fault = Some(Fault { delay, abort, expires });
        rules.push(rule(prefix("/fault"), Action::Forward(Forward { fault, ..forward("checkout") })));
    }
    let conditions = every_condition()[0].matches.headers.clone();
    let retry = |on: Vec<RetryCondition>, backoff| Retry {
        on,
        statuses: vec![400, 599],
        headers: conditions.clone(),
        attempts: 10,
        per_try_timeout: Some(Duration::from_millis(1)),
        per_try_idle_timeout: Some(Duration::from_millis(1)),
        another_host: true,
        backoff,
    };
    let steep = Backoff { base: Duration::from_millis(1), max: Duration::from_secs(60) };
    let flat = Backoff { base: Duration::from_secs(1), max: Duration::from_secs(1) };
    for (on, backoff) in
        [(RetryCondition::ALL.to_vec(), Some(steep)), (vec![RetryCondition::Reset], Some(flat)), (Vec::new(), None)]
    {
        let forward = Forward {
            to: vec![
                Target { service: name("checkout"), subset: labels(), weight: 0 },
                Target { service: name("full"), subset: Labels::new(), weight: 1_000_000 },
            ],
            mirror: Some(Mirror { service: name("full"), percent: 1 }),
            timeout: Some(Duration::from_secs(24 * 3600)),
            access: Some(every_access().into()),
            max_request_body: Some(64 * 1024 * 1024),
            tracing: Some(SAMPLING),
            compress: false,
            local_rate_limit: Some(LocalRateLimit {
                requests: 1_000_000_000,
                per: Duration::from_secs(1),
                burst: 1_000_000_000,
            }),
            idle_timeout: Some(Duration::from_millis(1)),
            max_stream_duration: Some(Duration::from_secs(24 * 3600)),
            upgrades: vec![Upgrade::Websocket],
            retry: Some(retry(on, backoff)),
            ..forward("checkout")
        };
        rules.push(rule(prefix("/"), Action::Forward(forward)));
    }
    for (with, path) in [("/", "/below"), ("/new", "/below/a.b"), ("/new/", "/b")] {
        let rewrite = Rewrite { path: Some(PathRewrite::Prefix(with.into())), host: None };
        let forward = Forward { rewrite, ..forward("checkout") };
        rules.push(rule(PathMatch::Below(path.into()), Action::Forward(forward)));
    }
    for (tunnel, jwt) in [Tunnel::Terminate, Tunnel::Forward].into_iter().zip(every_jwt()) {
        let forward = Forward {
            jwt: Some(jwt.into()),
            access: Some(every_access().into()),
            timeout: Some(Duration::ZERO),
            compress: false,
            upgrades: vec![Upgrade::Connect(tunnel)],
            ..forward("checkout")
        };
        rules.push(rule(PathMatch::Connect, Action::Forward(forward)));
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

/// Paths with variables, and all that can be made of a path.
fn every_template() -> Vec<Rule> {
    let rewritten = |path: PathMatch, with: PathRewrite| {
        let rewrite = Rewrite { path: Some(with), host: None };
        rule(path, Action::Forward(Forward { rewrite, ..forward("checkout") }))
    };
    let regex = |pattern: &str, substitution: &str| {
        assert_eq!(re2::check(pattern), Ok(()), "{pattern}");
        PathRewrite::Regex { pattern: pattern.into(), substitution: substitution.into() }
    };
    let template = |text: &str| PathMatch::Template(text.into());
    let all = "/{v1}/-._~%20!$&'()+,;:@/{v2}/{v3}/{v4}/{v5=**}";
    vec![
        rewritten(template(all), PathRewrite::Template("/{v5}/-._~%20!$&'()+,;:@/{v4}{v4}-{v1}".into())),
        rewritten(template("/a/{v1}/"), PathRewrite::Template("/".into())),
        rewritten(template("/b/{v1=**}"), PathRewrite::Template("/{v1}/".into())),
        rewritten(template("/c/{v1}"), regex("^/c", "/d")),
        rewritten(PathMatch::Regex("/e/.*".into()), regex("(a)(b)?(c+)|(d)", r"\0\1\2\3\4\\")),
        rule(template("/f/{v1}"), respond("matched")),
    ]
}

/// Limiters that together use every setting.
pub(crate) fn every_limiter() -> Vec<RateLimiter> {
    let replica = |address| (address, 8081);
    let here = replica(Address::Ip(Ipv4Addr::LOCALHOST.into()));
    let named = replica(Address::Dns("limiter.internal".into()));
    let there = replica(Address::Ip(Ipv6Addr::LOCALHOST.into()));
    let limiter = RateLimiter {
        addresses: vec![here.clone()],
        timeout: Duration::from_millis(1),
        on_failure: OnFailure::Allow,
        insecure: true,
    };
    let deny = RateLimiter { on_failure: OnFailure::Deny, timeout: Duration::from_secs(10), ..limiter.clone() };
    vec![
        limiter,
        RateLimiter { addresses: vec![here.clone(), there], insecure: false, ..deny.clone() },
        RateLimiter { addresses: vec![here, named], insecure: false, ..deny },
    ]
}

/// Limits that together use every setting.
pub(crate) fn every_limit() -> Vec<RateLimit> {
    let limit = |name: &str, key: Vec<KeyPart>, hits, debt| RateLimit {
        name: self::name(name),
        key,
        limit: Limit {
            requests: u32::MAX,
            per: Duration::from_millis(1),
            burst: None,
            algorithm: Algorithm::TokenBucket,
        },
        when_redis_is_down: WhenRedisIsDown::Local,
        mode: Mode { debt, ..Mode::default() },
        hits,
        denied_body: String::new(),
        enforcement: Enforcement::Service,
    };
    let optional = |absent| {
        vec![
            KeyPart::Header { name: "x!#$&'*+-.^_`|~".into(), absent },
            KeyPart::Query { name: "a-._~Z".into(), absent },
        ]
    };
    let others = vec![
        KeyPart::RemoteAddress,
        KeyPart::Network { ipv4: 0, ipv6: 128 },
        KeyPart::Path,
        KeyPart::Method,
        KeyPart::Constant { key: "!k\"{}".into(), value: "~".into() },
    ];
    let own = others.iter().filter(|part| !matches!(part, KeyPart::Network { .. })).cloned();
    let own = own.chain(optional(Absent::Skip)).collect();
    vec![
        RateLimit { enforcement: Enforcement::Quota, ..limit("own", own, Hits::default(), false) },
        limit("everything", vec![], Hits::default(), false),
        limit("together", optional(Absent::Together), Hits::Number(1_000_000_000), false),
        limit("skip", optional(Absent::Skip), Hits::Number(1), false),
        limit("others", others, Hits::default(), false),
        limit("received", vec![], Hits::BytesReceived, true),
        limit("sent", vec![], Hits::BytesSent, true),
        limit("told", vec![], Hits::ResponseHeader("x!#$&'*+-.^_`|~".into()), true),
    ]
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
            rule.matches.cookies = conditions(&[false, true]);
            rule.matches.grpc = true;
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

/// Patterns that a user may write.
const PATTERNS: [&str; 15] = [
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
    r"/\x41/\x{42}",
    "/.{0,30}",
    "//",
];
