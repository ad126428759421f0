use std::{net::IpAddr, time::Duration};

use chancery_proto::envoy::cluster::Cluster;
use serde_json::{Value, json};

use super::*;
use crate::model::{
    Name, Problem,
    access_log::{Field, Filter, Format, Share, Sink},
    envoy_patch::{EnvoyResource, PatchChange},
    fleet::OnFailure,
    listener::ListenerProtocol,
    rate_limit::{Absent, Algorithm, Hits, KeyPart, Limit, Mode, WhenRedisIsDown},
    route::{Action, HostPattern, PathMatch, ValueMatch},
    service::{
        AdaptiveConcurrency, Address, ConcurrencyAlgorithm, Hedging, RetryBudget, ServiceTls,
        tls::{Authorities, ClientCertificate, Peer, ProxyId, TlsVersion, Verification},
    },
    tracing::Sampling,
};

fn yaml(text: &str) -> Value {
    serde_norway::from_str(text).unwrap()
}

fn problems_of(value: &Value) -> Vec<Problem> {
    let mut problems = Problems::default();
    if let Some(document) = parse_document(value, "resources[0]", &mut problems) {
        let parsed = parse(&document, &mut problems);
        assert_eq!(parsed.is_some(), problems.is_empty(), "{value}");
    }
    problems.into_vec()
}

fn good(text: &str) -> Resource {
    let value = yaml(text);
    let mut problems = Problems::default();
    let resource = parse_document(&value, "", &mut problems).and_then(|document| parse(&document, &mut problems));
    resource.unwrap_or_else(|| panic!("{:#?}", problems.into_vec()))
}

/// Every refusal, as data: a document, and what is said of it.
#[test]
fn refusals() {
    let cases = yaml(include_str!("refusals.yaml"));
    let mut wrong = String::new();
    for case in cases.as_array().unwrap() {
        let expected: Vec<&str> = case["problems"].as_array().unwrap().iter().map(|p| p.as_str().unwrap()).collect();
        let found: Vec<String> = problems_of(&case["document"]).iter().map(Problem::to_string).collect();
        assert!(!found.is_empty(), "accepted: {}", case["document"]);
        if found != expected {
            wrong += &format!("{}\n", case["document"]);
            wrong += &found.iter().map(|line| format!("    - {line:?}\n")).collect::<String>();
        }
    }
    assert!(wrong.is_empty(), "found other problems than expected:\n{wrong}");
}

#[test]
fn limits_are_refused_with_their_bound() {
    let rule = json!({ "respond": { "status": 200 } });
    let route = |listeners: usize, hosts: usize, rules: usize| {
        let listeners: Vec<_> = (0..listeners).map(|i| format!("edge/web-{i}")).collect();
        let hosts: Vec<_> = (0..hosts).map(|i| format!("host-{i}.example.com")).collect();
        let rules: Vec<_> = (0..rules)
            .map(|i| json!({ "match": { "path": { "exact": format!("/{i}") } }, "respond": { "status": 200 } }))
            .collect();
        json!({ "kind": "Route", "name": "r",
                "spec": { "listeners": listeners, "hosts": hosts, "rules": rules } })
    };
    let first = |value: &Value| problems_of(value).first().map(Problem::to_string).unwrap_or_default();
    assert_eq!(first(&route(1, 1, 500)), "");
    assert_eq!(first(&route(1, 100, 200)), "");
    assert_eq!(first(&route(1, 1, 501)), "Route/r: spec.rules: must have at most 500 entries, not 501");
    assert_eq!(first(&route(1, 101, 1)), "Route/r: spec.hosts: must have at most 100 entries, not 101");
    assert_eq!(first(&route(0, 1, 1)), "Route/r: spec.listeners: must not be empty");
    assert_eq!(
        first(&route(2, 100, 101)),
        "Route/r: spec: listeners × hosts × rules must be at most 20000, not 20200; split the route"
    );

    let mut long = route(1, 1, 1);
    long["spec"]["rules"][0] = json!({ "respond": { "status": 200, "body": "é".repeat(2049) } });
    assert_eq!(first(&long), "Route/r: spec.rules[0].respond.body: must have at most 4096 bytes, not 4098");
    long["spec"]["rules"][0] =
        json!({ "match": { "path": { "prefix": "/".repeat(1025) } }, "respond": rule["respond"] });
    assert!(first(&long).ends_with("it must have at most 1024 characters"), "{}", first(&long));

    let labels: Value = (0..65).map(|i| (format!("k{i}"), json!(""))).collect::<serde_json::Map<_, _>>().into();
    let labelled = json!({ "kind": "Fleet", "name": "f", "labels": labels, "spec": {} });
    assert_eq!(first(&labelled), "Fleet/f: labels: must have at most 64 entries, not 65");
}

#[test]
fn a_flood_of_problems_is_cut() {
    let fields: serde_json::Map<_, _> = (0..10_000).map(|i| (format!("field-{i}"), Value::Null)).collect();
    let found = problems_of(&json!({ "kind": "Fleet", "name": "f", "spec": fields }));
    assert_eq!(found.len(), Problems::LIMIT + 1);
}

#[test]
fn a_fleet_with_nothing_set() {
    let Resource::Fleet(fleet) = good("{kind: Fleet, name: edge, spec: {}}") else { panic!() };
    assert_eq!((fleet.default_timeout, fleet.trusted_hops), (Duration::from_secs(15), 0));
}

#[test]
fn a_fleet_with_everything_set() {
    let text =
        "{kind: Fleet, name: edge, team: ops, labels: {env: prod}, spec: {defaults: {timeout: 3s}, trustedHops: 2}}";
    let Resource::Fleet(fleet) = good(text) else { panic!() };
    assert_eq!((fleet.default_timeout, fleet.trusted_hops), (Duration::from_secs(3), 2));
}

#[test]
fn listeners() {
    let Resource::Listener(web) = good("{kind: Listener, name: web, spec: {fleet: edge, port: 10000, protocol: http}}")
    else {
        panic!()
    };
    assert_eq!(web.address, "0.0.0.0".parse::<IpAddr>().unwrap());
    assert_eq!((web.fleet.as_str(), web.port, &web.protocol), ("edge", 10000, &ListenerProtocol::Http));

    let Resource::Listener(tls) = good(
        "{kind: Listener, name: tls, spec: {fleet: edge, address: '::', port: 443, protocol: https,
          tls: {certificateFile: /tls/a.crt, privateKeyFile: /tls/a.key}}}",
    ) else {
        panic!()
    };
    assert!(matches!(&tls.protocol, ListenerProtocol::Https(files) if files.certificate_file == "/tls/a.crt"));
}

#[test]
fn tracing_has_defaults() {
    let Resource::Listener(web) = good(
        "{kind: Listener, name: web, spec: {fleet: edge, port: 10000, protocol: http, tracing: {service: spans, sampling: {random: 0.5}}}}",
    ) else {
        panic!()
    };
    let tracing = web.tracing.as_ref().unwrap();
    let Sampling { random, client, overall } = tracing.sampling;
    assert_eq!([random, client, overall].map(Share::hundredths), [50, 0, 10_000]);
    assert_eq!((tracing.service_name.as_str(), tracing.tags.len()), ("edge", 0));
    let named: Vec<_> = web.calls().map(|call| (call.path, call.service.as_str())).collect();
    assert_eq!(named, [("tracing.service".to_owned(), "spans")]);
}

#[test]
fn logs() {
    let Resource::Listener(web) = good(
        "{kind: Listener, name: web, spec: {fleet: edge, port: 10000, protocol: http, accessLogs: [
          {to: {stdout: true}},
          {to: {file: /var/log/a.log}, json: {time: '%START_TIME%', a: {b: {c: '%DURATION%'}}}, filter: {minDuration: 1s, percent: 0.29}},
          {to: {service: {name: logs}}, filter: {percent: 100}},
          {to: {controlPlane: true}, filter: {percent: 1}}]}}",
    ) else {
        panic!()
    };
    let [lines, file, service, ours] = &web.access_logs[..] else { panic!("{:?}", web.access_logs) };
    assert_eq!(lines.to, Sink::Stdout(Format::Text(Format::DEFAULT.to_owned())));
    let Sink::File { path, format: Format::Json(fields) } = &file.to else { panic!("{file:?}") };
    assert_eq!((path.as_str(), fields.len()), ("/var/log/a.log", 2));
    let Some(Field::Object(inner)) = fields.get("a") else { panic!("{fields:?}") };
    assert!(matches!(inner.get("b"), Some(Field::Object(inner)) if inner.contains_key("c")));
    assert_eq!(file.filter.share.map(Share::hundredths), Some(29));
    assert!(matches!(&service.to, Sink::Service(service) if service.log_name == "web"));
    assert_eq!((&service.filter, &ours.to), (&Filter::default(), &Sink::ControlPlane));
    let named: Vec<_> = web.calls().map(|call| (call.path, call.service.as_str())).collect();
    assert_eq!(named, [("accessLogs[2].to.service.name".to_owned(), "logs")]);
}

#[test]
fn the_service_of_the_design() {
    let Resource::Service(service) = good(
        "
kind: Service
name: checkout
team: payments
spec:
  endpoints: [{ address: 10.0.0.7, port: 8080 }, { address: Checkout.internal, port: 8080, dns: true, weight: 3 }]
  protocol: http2
  connectTimeout: 250ms
  healthCheck: { path: /healthz, interval: 5s, unhealthyAfter: 3 }
  breaker: { maxRequests: 1000, maxPending: 200 }
  outlierDetection: { consecutive5xx: 5, ejectFor: 30s }
",
    ) else {
        panic!()
    };
    assert_eq!(service.endpoints[1].address, Address::Dns("checkout.internal".to_owned()));
    assert_eq!((service.endpoints[0].weight, service.endpoints[1].weight), (1, 3));
    let check = service.health_check.as_ref().unwrap();
    assert_eq!((check.timeout, check.healthy_after), (Duration::from_secs(2), 2));
    assert_eq!((service.breaker.max_requests, service.breaker.max_retries), (Some(1000), None));
    assert_eq!(service.outlier_detection.as_ref().unwrap().consecutive_5xx, Some(5));

    let Resource::Service(zero) = good("{kind: Service, name: zero, spec: {endpoints: []}}") else { panic!() };
    assert_eq!((zero.endpoints.len(), zero.connect_timeout), (0, Duration::from_secs(5)));
}

#[test]
fn a_service_says_what_it_wants_of_both_planes_once() {
    let Resource::Service(service) = good(
        "
kind: Service
name: checkout
spec:
  endpoints: []
  breaker: { consecutiveFailures: 0, minSuccessPercent: 90, openFor: 60s, probeTimeout: 2s, maxOutPercent: 50 }
  retryBudget: { percent: 10, ttl: 5s, minPerSecond: 3 }
  hedging: {}
  adaptiveConcurrency: { algorithm: aimd, max: 20 }
",
    ) else {
        panic!()
    };
    let breaker = &service.breaker;
    assert_eq!((breaker.consecutive_failures, breaker.min_success_percent), (Some(0), Some(90)));
    assert_eq!((breaker.open_for, breaker.open_for_most), (Some(Duration::from_secs(60)), None));
    assert_eq!((breaker.probe_timeout, breaker.max_out_percent), (Some(Duration::from_secs(2)), Some(50)));
    let budget = RetryBudget { percent: Some(10), ttl: Some(Duration::from_secs(5)), min_per_second: Some(3) };
    assert_eq!(service.retry_budget, Some(budget));
    assert_eq!(service.hedging, Some(Hedging::default()));
    let adaptive = AdaptiveConcurrency { algorithm: ConcurrencyAlgorithm::Aimd, min: None, max: Some(20) };
    assert_eq!(service.adaptive_concurrency, Some(adaptive));
}

/// What a service with these endpoints says of TLS.
fn tls(endpoints: &str, tls: &str) -> ServiceTls {
    let text = format!("{{kind: Service, name: api, spec: {{endpoints: [{endpoints}], tls: {tls}}}}}");
    let Resource::Service(service) = good(&text) else { panic!() };
    service.tls.clone().unwrap()
}

#[test]
fn tls_without_more_is_as_on_the_web() {
    let web = tls("{address: api.example.com, port: 443, dns: true}", "{}");
    let verification = Verification::Required { authorities: Authorities::System, peers: vec![] };
    assert_eq!(web, ServiceTls { sni: None, verification, client_certificate: None, min_version: TlsVersion::V1_2 });
    let named = tls("{address: 10.0.0.1, port: 443}", "{sni: API.example.com, minVersion: tls1.3}");
    assert_eq!((named.sni.as_deref(), named.min_version), (Some("api.example.com"), TlsVersion::V1_3));
}

#[test]
fn mesh_says_all_that_there_is_to_say() {
    let peers = |mesh: &str| {
        let tls = tls("", &format!("{{mesh: {mesh}}}"));
        assert_eq!((&tls.sni, &tls.client_certificate), (&None, &Some(ClientCertificate::Mesh)));
        assert_eq!(tls.fleet().map(Name::as_str), Some("shop"));
        let Verification::Required { authorities: Authorities::Mesh, peers } = tls.verification else { panic!() };
        peers
    };
    let proxy = |id| Peer::Proxy { fleet: "shop".parse().unwrap(), id };
    assert_eq!(peers("{fleet: shop}"), [proxy(ProxyId::Any)]);
    let (one, many) = (ProxyId::Exact("a-1".parse().unwrap()), ProxyId::Prefix("b-".to_owned()));
    assert_eq!(peers("{fleet: shop, proxies: [a-1, b-*]}"), [proxy(one), proxy(many)]);
}

#[test]
fn an_endpoint_is_held_to_what_is_said_or_in_words_to_nothing() {
    let all = tls(
        "{address: 10.0.0.1, port: 443}",
        "{trustedCa: {file: /ca.crt}, clientCertificate: {certificateFile: /a.crt, privateKeyFile: /a.key}, \
          subjectAltNames: [{uri: 'spiffe://a/b'}, {uriPrefix: 'spiffe://a/'}, {dns: A.example.com}, {ip: '::1'}]}",
    );
    let Verification::Required { authorities, peers } = &all.verification else { panic!() };
    assert_eq!(*authorities, Authorities::File("/ca.crt".to_owned()));
    let (uri, beginning) = (Peer::Uri("spiffe://a/b".to_owned()), Peer::UriPrefix("spiffe://a/".to_owned()));
    let (dns, ip) = (Peer::Dns("a.example.com".to_owned()), Peer::Ip("::1".parse().unwrap()));
    assert_eq!(*peers, [uri, beginning, dns, ip]);
    let files = |files: &ClientCertificate| matches!(files, ClientCertificate::Files(files) if files.private_key_file == "/a.key");
    assert!(all.client_certificate.as_ref().is_some_and(files) && all.fleet().is_none());

    let skipped = tls("{address: 10.0.0.1, port: 443}", "{sni: a.example.com, insecureSkipVerify: true}");
    assert_eq!((skipped.verification, skipped.sni.as_deref()), (Verification::Skipped, Some("a.example.com")));
    let held = tls("", "{sni: a.example.com, insecureSkipVerify: false}");
    assert_ne!(held.verification, Verification::Skipped);
}

#[test]
fn authorities_in_a_document_are_certificates_and_never_a_key() {
    let signed = rcgen::generate_simple_self_signed(vec!["ca".to_owned()]).unwrap();
    let (pem, key) = (signed.cert.pem(), signed.signing_key.serialize_pem());
    let refused = |pem: &str| {
        let tls = json!({ "sni": "a.example.com", "trustedCa": { "pem": pem } });
        let document = json!({ "kind": "Service", "name": "api", "spec": { "endpoints": [], "tls": tls } });
        problems_of(&document).iter().map(|problem| format!("{}: {}", problem.path, problem.reason)).collect::<Vec<_>>()
    };
    assert!(refused(&pem).is_empty() && refused(&format!("# ours\n{pem}\n{pem}")).is_empty());
    let found = refused(&format!("{pem}{key}"));
    assert!(found[0].starts_with("spec.tls.trustedCa.pem: holds a private key"), "{found:?}");
    assert!(!found[0].contains(&key[40..60]), "{found:?}");
    let request = pem.replace("CERTIFICATE", "CERTIFICATE REQUEST");
    assert_eq!(refused(&request), ["spec.tls.trustedCa.pem: block 0 is a \"CERTIFICATE REQUEST\", not a CERTIFICATE"]);
    let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert_eq!(refused(&format!("{pem}{damaged}")), ["spec.tls.trustedCa.pem: block 1 is not a certificate"]);
    let cut = pem.replace("-----END CERTIFICATE-----", "");
    assert_eq!(refused(&cut), ["spec.tls.trustedCa.pem: block 0 is not PEM"]);
    let long = refused(&pem.repeat(200));
    assert!(long[0].ends_with("; put it into a file"), "{long:?}");
}

#[test]
fn the_route_of_the_design() {
    let Resource::Route(route) = good(
        r#"
kind: Route
name: checkout
team: payments
spec:
  listeners: [edge/web]
  hosts: [Checkout.example.com, "*.shop.example.com", "[::1]"]
  rules:
    - match: { path: { prefix: /api }, methods: [POST, GET], headers: [{ name: X-Beta, exact: "1" }] }
      to: [{ service: checkout-v2, weight: 10 }, { service: checkout, weight: 90 }]
      rewrite: { prefix: / }
      timeout: 2s
      retry: { on: [5xx, reset, connect-failure], attempts: 2, perTryTimeout: 500ms, backoff: { base: 25ms, max: 250ms } }
    - match: { path: { exact: /old } }
      redirect: { path: /api, status: 308 }
    - match: { path: { regex: "/v[0-9]+/ping" } }
      respond: { status: 200, body: pong }
    - match: { grpc: { service: shop.v1.Checkout, method: Place }, cookies: [{ name: Tier, exact: gold, invert: true }] }
      to: [{ service: checkout }]
    - match: { grpc: { service: shop.v1.Checkout } }
      to: [{ service: checkout }]
    - match: { grpc: {} }
      to: [{ service: checkout }]
    - to: [{ service: checkout }]
      headers:
        request: { set: [{ name: X-From, value: "100% edge" }], remove: [x-debug] }
        response: { add: [{ name: vary, value: accept }] }
"#,
    ) else {
        panic!()
    };
    assert_eq!(route.hosts[0], HostPattern::Exact("checkout.example.com".to_owned()));
    assert_eq!(route.hosts[1], HostPattern::Suffix("shop.example.com".to_owned()));
    assert_eq!(route.listeners[0].to_string(), "edge/web");
    let first = &route.rules[0];
    assert_eq!(first.matches.methods, ["GET", "POST"]);
    assert_eq!(first.matches.headers[0].name, "x-beta");
    assert_eq!(first.matches.headers[0].value, ValueMatch::Exact("1".to_owned()));
    let Action::Forward(forward) = &first.action else { panic!() };
    assert_eq!((forward.to[0].weight, forward.timeout), (10, Some(Duration::from_secs(2))));
    let retry = forward.retry.as_ref().unwrap();
    assert_eq!(retry.on.iter().map(|on| on.as_str()).collect::<Vec<_>>(), ["5xx", "reset", "connect-failure"]);
    assert!(matches!(&route.rules[1].action, Action::Redirect(redirect) if redirect.status == 308));
    assert!(matches!(&route.rules[2].action, Action::Respond(respond) if respond.body == "pong"));
    let [placed, checkout, called] = [3, 4, 5].map(|index| &route.rules[index].matches);
    assert_eq!(placed.path, PathMatch::Exact("/shop.v1.Checkout/Place".to_owned()));
    assert_eq!((placed.cookies[0].name.as_str(), placed.cookies[0].invert), ("Tier", true));
    assert_eq!(checkout.path, PathMatch::Prefix("/shop.v1.Checkout/".to_owned()));
    assert_eq!(called.path, PathMatch::Prefix("/".to_owned()));
    assert_eq!([placed, checkout, called].map(|matches| matches.grpc), [true; 3]);
    assert_eq!(route.rules[6].matches.path, PathMatch::Prefix("/".to_owned()));
    assert!(!route.rules[6].matches.grpc);
    assert_eq!(route.rules[6].request_headers.set[0].0, "x-from");
}

#[test]
fn the_limit_of_the_design() {
    let Resource::RateLimit(limit) = good(
        "
kind: RateLimit
name: per-client
team: payments
spec:
  key: [{ header: X-Api-Key }, { remoteAddress: true }]
  limit: { requests: 100, per: 1s, burst: 200 }
  algorithm: token-bucket
  whenRedisIsDown: local
  shadow: false
",
    ) else {
        panic!()
    };
    let key = KeyPart::Header { name: "x-api-key".to_owned(), absent: Absent::Together };
    assert_eq!(limit.key, [key, KeyPart::RemoteAddress]);
    let per = Duration::from_secs(1);
    assert_eq!(limit.limit, Limit { requests: 100, per, burst: Some(200), algorithm: Algorithm::TokenBucket });
    assert_eq!((limit.mode, &limit.hits, &*limit.denied_body), (Mode::default(), &Hits::Number(1), ""));
}

#[test]
fn a_limit_with_everything_set() {
    let Resource::RateLimit(limit) = good(
        "
kind: RateLimit
name: tokens
spec:
  key: [{ query: account, absent: skip }, { network: { ipv4: 24 } }, { constant: { key: plan, value: gold } }]
  limit: { requests: 0, per: 8784h }
  algorithm: fixed-window
  whenRedisIsDown: deny
  shadow: true
  strict: true
  debt: true
  hits: { responseHeader: X-Tokens-Used }
  denied: { body: slow down }
",
    ) else {
        panic!()
    };
    assert_eq!(
        limit.key,
        [
            KeyPart::Query { name: "account".to_owned(), absent: Absent::Skip },
            KeyPart::Network { ipv4: 24, ipv6: 64 },
            KeyPart::Constant { key: "plan".to_owned(), value: "gold".to_owned() },
        ]
    );
    assert_eq!(limit.mode, Mode { shadow: true, strict: true, debt: true });
    assert_eq!(limit.hits, Hits::ResponseHeader("x-tokens-used".to_owned()));
    assert_eq!((&*limit.denied_body, limit.when_redis_is_down), ("slow down", WhenRedisIsDown::Deny));
    good("{kind: RateLimit, name: most, spec: {limit: {requests: 1, per: 8784h, burst: 10}, enforcement: quota}}");
}

#[test]
fn a_fleet_with_a_limiter() {
    let text =
        "{kind: Fleet, name: edge, spec: {rateLimiter: {addresses: ['10.0.0.1:1', '[::1]:2', 'Limiter:65535']}}}";
    let Resource::Fleet(fleet) = good(text) else { panic!() };
    let limiter = fleet.rate_limiter.as_ref().unwrap();
    let address = |text: &str| Address::Ip(text.parse().unwrap());
    let named = Address::Dns("limiter".to_owned());
    assert_eq!(limiter.addresses, [(address("10.0.0.1"), 1), (address("::1"), 2), (named, 65535)]);
    let waits = (limiter.timeout, limiter.on_failure, limiter.insecure);
    assert_eq!(waits, (Duration::from_millis(20), OnFailure::Allow, false));
}

#[test]
fn what_the_server_adds_is_dropped() {
    let value =
        yaml("{kind: Fleet, name: edge, spec: {}, revision: 7, updatedAt: '2026-01-01T00:00:00Z', updatedBy: someone}");
    let mut problems = Problems::default();
    let document = parse_document(&value, "", &mut problems).unwrap();
    assert_eq!(serde_json::to_value(document).unwrap(), json!({ "kind": "Fleet", "name": "edge", "spec": {} }));
}

#[test]
fn null_is_as_good_as_absent_where_a_field_is_optional() {
    good("{kind: Fleet, name: edge, team: null, labels: null, spec: {defaults: null, trustedHops: null}}");
}

#[test]
fn a_patch_adds_what_it_says_and_nothing_less() {
    let added = |more: &str| {
        good(&format!(
            "{{ kind: EnvoyPatch, name: p, spec: {{ fleet: edge, resource: {{ \
             '@type': type.googleapis.com/envoy.config.cluster.v3.Cluster, name: 'a|80', {more} }} }} }}"
        ))
    };
    let Resource::EnvoyPatch(patch) = added("connect_timeout: 2s, lbPolicy: RANDOM") else { panic!("another kind") };
    let PatchChange::Add { resource, message } = &patch.change else { panic!("{patch:?}") };
    assert_eq!(*resource, EnvoyResource::Cluster("a|80".to_owned()));
    let cluster: Cluster = chancery_proto::Message::decode(message.as_slice()).unwrap();
    assert_eq!((cluster.name.as_str(), cluster.lb_policy), ("a|80", 3));
    assert_eq!(cluster.connect_timeout.map(|timeout| timeout.seconds), Some(2));
    assert_eq!(added("lbPolicy: RANDOM, connect_timeout: 2s"), Resource::EnvoyPatch(patch), "the order has no meaning");
}

#[test]
fn a_patch_knows_what_it_merges_into() {
    let Resource::EnvoyPatch(patch) = good(
        "{ kind: EnvoyPatch, name: p, spec: { fleet: edge, target: { kind: VirtualHost, name: 'web/*.Example.com' }, \
         path: 'routes[0]', merge: { a: 1 } } }",
    ) else {
        panic!("another kind")
    };
    let PatchChange::Merge { target, path, patch } = &patch.change else { panic!("{patch:?}") };
    assert_eq!(target.to_string(), "virtual host web/*.example.com");
    assert_eq!((path.to_string().as_str(), patch), ("routes[0]", &json!({ "a": 1 })));
}
