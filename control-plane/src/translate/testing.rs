//! Small model values, and messages as readable text, for the tests of the translations.

use std::{fmt::Debug, sync::Arc, time::Duration};

use time::OffsetDateTime;

use crate::model::{
    Document, Entry, Name, Resource,
    fleet::Fleet,
    listener::{Listener, ListenerProtocol, RouteDelivery, Timeouts},
    rate_limit::{Algorithm, Enforcement, Hits, Limit, Mode, RateLimit, WhenRedisIsDown},
    route::{Action, Forward, HeaderChanges, HostPattern, ListenerRef, Match, PathMatch, Respond, Route, Rule, Target},
    service::{
        AdaptiveConcurrency, Address, Breaker, ConcurrencyAlgorithm, Endpoint, Hedging, Labels, LoadBalancing,
        RetryBudget, Service, ServiceProtocol, Subsets,
    },
};

/// A message as text, without the fields that are not set.
///
/// The packed bytes of an `Any` are left out: what is packed has a snapshot of its own.
pub(crate) fn snapshot(message: &impl Debug) -> String {
    let mut text = String::new();
    let mut skip_to: Option<String> = None;
    for line in format!("{message:#?}").lines() {
        if let Some(end) = &skip_to {
            if line == end {
                skip_to = None;
            }
            continue;
        }
        let trimmed = line.trim_start();
        let indent = &line[..line.len() - trimmed.len()];
        if trimmed == "value: [" {
            skip_to = Some(format!("{indent}],"));
            continue;
        }
        let unset = [": None,", ": [],", ": {},", ": false,", ": 0,", ": \"\",", ": Unspecified,"];
        if !unset.iter().any(|end| trimmed.ends_with(end)) {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().expect("a valid name")
}

/// As the store has it.
pub(crate) fn entry(document: Document, resource: Resource) -> Entry {
    Entry {
        document: Arc::new(document),
        resource,
        revision: 1,
        updated_at: OffsetDateTime::UNIX_EPOCH,
        updated_by: "test".into(),
    }
}

pub(crate) fn fleet(text: &str) -> Fleet {
    Fleet {
        name: name(text),
        default_timeout: Duration::from_secs(15),
        trusted_hops: 0,
        rate_limiter: None,
        rollout: None,
    }
}

/// A limit of one request per second for everyone together.
pub(crate) fn rate_limit(text: &str) -> RateLimit {
    RateLimit {
        name: name(text),
        key: Vec::new(),
        limit: Limit { requests: 1, per: Duration::from_secs(1), burst: None, algorithm: Algorithm::TokenBucket },
        when_redis_is_down: WhenRedisIsDown::Local,
        mode: Mode::default(),
        hits: Hits::default(),
        denied_body: String::new(),
        enforcement: Enforcement::Service,
    }
}

pub(crate) fn http_listener(text: &str, fleet: &str) -> Listener {
    let address = "0.0.0.0".parse().expect("an address");
    Listener {
        name: name(text),
        fleet: name(fleet),
        address,
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

pub(crate) fn ip(address: &str, port: u16) -> Endpoint {
    Endpoint {
        address: Address::Ip(address.parse().expect("an address")),
        port,
        priority: 0,
        weight: 1,
        labels: Labels::new(),
        zone: None,
    }
}

pub(crate) fn service(text: &str) -> Service {
    Service {
        name: name(text),
        endpoints: vec![ip("10.0.0.1", 8080)],
        registered: false,
        protocol: ServiceProtocol::Http1,
        tls: None,
        proxy_protocol: None,
        connect_timeout: Duration::from_secs(5),
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

/// One that says everything that is for sidecars alone, or not for Envoy alone.
pub(crate) fn with_every_policy(text: &str) -> Service {
    Service {
        breaker: Breaker {
            consecutive_failures: Some(3),
            min_success_percent: Some(50),
            open_for: Some(Duration::from_millis(250)),
            open_for_most: Some(Duration::from_secs(90)),
            probe_timeout: Some(Duration::from_millis(1500)),
            max_out_percent: Some(40),
            ..Breaker::default()
        },
        retry_budget: Some(RetryBudget {
            percent: Some(30),
            ttl: Some(Duration::from_secs(5)),
            min_per_second: Some(4),
        }),
        hedging: Some(Hedging {
            percentile: Some(90),
            min_samples: Some(50),
            min_delay: Some(Duration::from_millis(2)),
        }),
        adaptive_concurrency: Some(AdaptiveConcurrency {
            algorithm: ConcurrencyAlgorithm::Aimd,
            min: Some(5),
            max: Some(50),
        }),
        ..service(text)
    }
}

pub(crate) fn matches(path: PathMatch) -> Match {
    Match { path, methods: vec![], headers: vec![], query: vec![], cookies: vec![], grpc: false }
}

pub(crate) fn prefix(path: &str) -> Match {
    matches(PathMatch::Prefix(path.into()))
}

pub(crate) fn exact(path: &str) -> Match {
    matches(PathMatch::Exact(path.into()))
}

pub(crate) fn rule(matches: Match, action: Action) -> Rule {
    Rule {
        matches,
        action,
        authorization: None,
        request_headers: HeaderChanges::default(),
        response_headers: HeaderChanges::default(),
    }
}

pub(crate) fn to(service: &str) -> Forward {
    Forward::to(vec![Target { service: name(service), subset: Labels::new(), weight: 1 }])
}

pub(crate) fn respond(status: u16) -> Action {
    Action::Respond(Respond { status, body: String::new() })
}

/// A route on `edge/web` for `shop.example.com`.
pub(crate) fn route(text: &str, rules: Vec<Rule>) -> Route {
    Route {
        name: name(text),
        listeners: vec![ListenerRef { fleet: name("edge"), listener: name("web") }],
        hosts: vec![HostPattern::Exact("shop.example.com".into())],
        jwt_providers: Vec::new(),
        rules,
        tcp: None,
    }
}
