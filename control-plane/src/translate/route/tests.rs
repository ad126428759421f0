//! Virtual hosts of representative rules, as Envoy gets them.

use std::{collections::BTreeMap, time::Duration};

use chancery_proto::{
    any,
    describe::{json, types::Type},
    envoy::{
        path_template_match::UriTemplateMatchConfig, path_template_rewrite::UriTemplateRewriteConfig,
        route::route_match::PathSpecifier,
    },
    type_url,
};
use serde_json::{Value, json};

use super::*;
use crate::{
    model::{
        access::Access,
        access_log::Share,
        cors::{Cors, Origin},
        fault::{Abort, Fault},
        jwt::Jwt,
        local_rate_limit::LocalRateLimit,
        retry::{Backoff, Retry, RetryCondition},
        route::{
            HeaderChanges, Match, Mirror, NamedMatch, PathMatch, PathRewrite, Redirect, Respond, Rewrite, Target,
            Upgrade, ValueMatch,
        },
        service::SessionAffinity,
        tracing::Sampling,
    },
    translate::testing::{exact, fleet, matches, name, prefix, rate_limit, respond, route, rule, snapshot, to},
};

fn shop() -> HostPattern {
    HostPattern::Exact("shop.example.com".into())
}

fn translated(rules: Vec<Rule>) -> VirtualHost {
    virtual_host(&name("web"), &shop(), [&route("shop", rules)], &References::default(), &fleet("edge"))
}

#[test]
fn a_plain_rule_takes_the_timeout_of_the_fleet() {
    let host = translated(vec![rule(prefix("/"), Action::Forward(to("shop")))]);
    insta::assert_snapshot!(snapshot(&host));
}

#[test]
fn conditions_on_everything() {
    let condition = |name: &str, value, invert| NamedMatch { name: name.into(), value, invert };
    let matches = Match {
        path: PathMatch::Regex("/v[0-9]+/ping".into()),
        methods: vec!["GET".into(), "M-SEARCH".into()],
        headers: vec![
            condition("x-any", ValueMatch::Present, false),
            condition("x-beta", ValueMatch::Exact("1".into()), true),
            condition("x-none", ValueMatch::Present, true),
            condition("x-pattern", ValueMatch::Regex("a+".into()), false),
        ],
        query: vec![
            condition("page", ValueMatch::Present, false),
            condition("sort", ValueMatch::Prefix("name".into()), false),
        ],
        cookies: vec![
            condition("consent", ValueMatch::Present, true),
            condition("tier", ValueMatch::Exact("gold".into()), false),
        ],
        grpc: true,
    };
    insta::assert_snapshot!(snapshot(&translated(vec![rule(matches, respond(204))])));
}

#[test]
fn forwarding_with_everything() {
    let forward = Forward {
        rate_limits: Vec::new(),
        to: vec![Target { weight: 10, ..target("checkout-v2") }, Target { weight: 90, ..target("checkout") }],
        rewrite: Rewrite { path: Some(PathRewrite::Prefix("/".into())), host: Some("checkout.internal".into()) },
        mirror: Some(Mirror { service: name("checkout-next"), percent: 5 }),
        cors: None,
        access: None,
        jwt: None,
        fault: None,
        max_request_body: None,
        tracing: Some(Sampling { random: Share::ONE_PERCENT, client: Share::NONE, overall: Share::ALL }),
        compress: true,
        local_rate_limit: None,
        timeout: Some(Duration::from_secs(600)),
        idle_timeout: None,
        max_stream_duration: Some(Duration::from_secs(3600)),
        retry: Some(Retry {
            on: vec![RetryCondition::ServerError, RetryCondition::Reset, RetryCondition::GrpcUnavailable],
            statuses: vec![409, 429],
            headers: vec![NamedMatch { name: "x-again".into(), value: ValueMatch::Present, invert: false }],
            attempts: 2,
            per_try_timeout: Some(Duration::from_millis(500)),
            per_try_idle_timeout: Some(Duration::from_millis(100)),
            another_host: true,
            backoff: Some(Backoff { base: Duration::from_millis(25), max: Duration::from_millis(250) }),
        }),
        upgrades: vec![Upgrade::Websocket],
    };
    let changes = HeaderChanges {
        set: vec![("x-share".into(), "100%".into()), ("x-empty".into(), String::new())],
        add: vec![("x-via".into(), "edge".into())],
        remove: vec!["x-debug".into()],
    };
    let everything = Rule {
        request_headers: changes.clone(),
        response_headers: changes,
        ..rule(prefix("/api"), Action::Forward(forward))
    };
    insta::assert_snapshot!(snapshot(&translated(vec![everything])));
}

#[test]
fn what_a_rule_says_of_silence_holds() {
    let forward = |timeout, idle_timeout| {
        let seconds = |seconds: Option<u64>| seconds.map(Duration::from_secs);
        let forward = Forward { timeout: seconds(timeout), idle_timeout: seconds(idle_timeout), ..to("shop") };
        let action = action::forward(&forward, &PathMatch::Prefix("/".into()), &References::default(), &fleet("edge"));
        action.idle_timeout.map(|idle| idle.seconds)
    };
    assert_eq!(forward(None, None), None, "the listener's");
    assert_eq!((forward(Some(301), None), forward(Some(300), None)), (Some(301), None));
    assert_eq!((forward(Some(600), Some(7)), forward(None, Some(7))), (Some(7), Some(7)));
}

#[test]
fn an_endpoint_that_failed_is_tried_again_only_where_that_is_said() {
    let retry = |another_host| Retry {
        on: vec![RetryCondition::Reset],
        statuses: vec![],
        headers: vec![],
        attempts: 1,
        per_try_timeout: None,
        per_try_idle_timeout: None,
        another_host,
        backoff: None,
    };
    let [usual, same] = [true, false].map(|another| super::retry::retry_policy(&retry(another)));
    assert_eq!((usual.retry_host_predicate.len(), same.retry_host_predicate.len()), (1, 0));
    assert_eq!((usual.retry_on.as_str(), same.host_selection_retry_max_attempts), ("reset", 0));
}

#[test]
fn paths_made_anew() {
    let rewritten = |path| Forward { rewrite: Rewrite { path: Some(path), host: None }, ..to("shop") };
    let template = rewritten(PathRewrite::Template("/accounts/{v2}/of/{v1}".into()));
    let regex = PathRewrite::Regex { pattern: "^/v[0-9]+/(.*)".into(), substitution: r"/\1".into() };
    let host = translated(vec![
        rule(matches(PathMatch::Template("/users/{v1}/{v2=**}".into())), Action::Forward(template)),
        rule(prefix("/"), Action::Forward(rewritten(regex))),
    ]);
    insta::assert_snapshot!(snapshot(&host));
    let Some(EnvoyAction::Route(action)) = &host.routes[0].action else { panic!("{host:?}") };
    let packed = action.path_rewrite_policy.as_ref().and_then(|policy| policy.typed_config.as_ref()).expect("a policy");
    let rewrite: UriTemplateRewriteConfig = any::unpack(packed).expect("a template");
    assert_eq!(rewrite.path_template_rewrite, "/accounts/{v2}/of/{v1}");
    let Some(PathSpecifier::PathMatchPolicy(policy)) = host.routes[0].r#match.clone().and_then(|m| m.path_specifier)
    else {
        panic!("{host:?}")
    };
    let matched: UriTemplateMatchConfig = any::unpack(&policy.typed_config.expect("a template")).expect("a template");
    assert_eq!(matched.path_template, "/users/{v1}/{v2=**}");
}

#[test]
fn redirects_and_fixed_answers() {
    let unchanged =
        Redirect { scheme: None, host: None, port: None, path: None, prefix: None, status: 301, strip_query: false };
    let elsewhere = Redirect {
        scheme: Some("https".into()),
        host: Some("www.example.com".into()),
        port: Some(8443),
        path: Some("/new".into()),
        status: 308,
        strip_query: true,
        ..unchanged.clone()
    };
    let moved = Redirect { prefix: Some("/new".into()), status: 302, ..unchanged };
    let pong = Respond { status: 200, body: "pong".into() };
    insta::assert_snapshot!(snapshot(&translated(vec![
        rule(exact("/old"), Action::Redirect(elsewhere)),
        rule(prefix("/old"), Action::Redirect(moved)),
        rule(matches(PathMatch::Exact("/ping".into())), Action::Respond(pong)),
    ])));
}

fn target(service: &str) -> Target {
    Target { service: name(service), subset: Default::default(), weight: 1 }
}

#[test]
fn each_service_keeps_its_own_sessions() {
    let split = Forward { to: vec![target("shop"), target("next"), target("plain")], ..to("shop") };
    let rules = vec![rule(prefix("/split"), Action::Forward(split)), rule(prefix("/"), Action::Forward(to("shop")))];
    let cookie = SessionAffinity::Cookie { name: "sid".into(), ttl: Some(Duration::from_secs(60)), path: "/".into() };
    let header = SessionAffinity::Header("x-session".into());
    let (shop_name, next_name) = (name("shop"), name("next"));
    let affinities = [(&shop_name, &cookie), (&next_name, &header)].into();
    let references = References { affinities, ..References::default() };
    let host = virtual_host(&name("web"), &shop(), [&route("shop", rules)], &references, &fleet("edge"));
    let shown = json::decode(Type::of_url(type_url::VIRTUAL_HOST).unwrap(), &encode_virtual_host(host)).unwrap();
    let of = |filters: &Value| {
        filters["envoy.filters.http.stateful_session"]["config"]["stateful_session"]["session_state"].clone()
    };
    let clusters = &shown["routes"][0]["route"]["weighted_clusters"]["clusters"];
    let wanted = of(&clusters[0]["typed_per_filter_config"]);
    assert_eq!(wanted["typed_config"]["cookie"], json!({ "name": "sid", "ttl": "60s", "path": "/" }));
    assert_eq!(of(&clusters[1]["typed_per_filter_config"])["typed_config"]["name"], "x-session");
    assert_eq!(clusters[2]["typed_per_filter_config"], Value::Null);
    assert_eq!(shown["routes"][0]["typed_per_filter_config"], Value::Null);
    assert_eq!(of(&shown["routes"][1]["typed_per_filter_config"]), wanted);
}

#[test]
fn a_rule_with_limits_tells_the_filter() {
    let forward = Forward { rate_limits: vec![name("all")], ..to("shop") };
    let shop_route = route("shop", vec![rule(prefix("/"), Action::Forward(forward))]);
    let limit = rate_limit("all");
    let references = References { limits: [(&limit.name, &limit)].into(), ..References::default() };
    let host = virtual_host(&name("web"), &shop(), [&shop_route], &references, &fleet("edge"));
    let told: BTreeMap<_, _> = host.routes[0].typed_per_filter_config.clone().into_iter().collect();
    assert_eq!(told, crate::translate::rate_limit::per_route(&[&limit]));
    assert_eq!(told.into_keys().collect::<Vec<_>>(), ["envoy.filters.http.ratelimit"]);
}

#[test]
fn a_fault_is_told_beside_limits() {
    let fault = Fault {
        delay: None,
        abort: Some(Abort { status: 503, percent: 1 }),
        expires: time::macros::datetime!(2026-12-01 12:00 UTC),
    };
    let forward = Forward { rate_limits: vec![name("all")], fault: Some(fault.clone()), ..to("shop") };
    let limit = rate_limit("all");
    let references = References { limits: [(&limit.name, &limit)].into(), ..References::default() };
    let told = action::per_filter(&forward, &prefix("/").path, &references);
    assert_eq!(told.keys().collect::<Vec<_>>(), ["chancery.fault", "envoy.filters.http.ratelimit"]);
    assert_eq!(
        told.get_key_value("chancery.fault").map(|(k, v)| (k.clone(), v.clone())),
        Some(crate::translate::fault::per_route(&fault))
    );
}

#[test]
fn filters_are_told_what_a_rule_says_and_nothing_else() {
    let path = prefix("/").path;
    let told =
        |forward: &Forward| action::per_filter(forward, &path, &References::default()).into_keys().collect::<Vec<_>>();
    assert_eq!(told(&to("shop")), Vec::<String>::new());
    let limit = LocalRateLimit { requests: 1, per: Duration::from_secs(1), burst: 1 };
    let all = Forward {
        access: Some(Access { allow: Some(vec![]), deny: vec![] }.into()),
        jwt: Some(Jwt { providers: vec![], all: false, allow_missing: true }.into()),
        max_request_body: Some(1),
        compress: false,
        local_rate_limit: Some(limit),
        ..to("shop")
    };
    let expected = [
        "chancery.access.rule",
        "chancery.compression.brotli",
        "chancery.compression.gzip",
        "chancery.jwt",
        "envoy.filters.http.buffer",
        "envoy.filters.http.local_ratelimit",
    ];
    assert_eq!(told(&all), expected);
}

#[test]
fn a_browser_may_ask_before_it_sends_what_a_rule_is_for() {
    let cors = Cors {
        origins: vec![Origin::Any],
        methods: vec!["PUT".into()],
        headers: Vec::new(),
        expose_headers: Vec::new(),
        max_age: None,
        credentials: false,
    };
    let beta = NamedMatch { name: "x-beta".into(), value: ValueMatch::Present, invert: false };
    let matches = Match { methods: vec!["PUT".into()], headers: vec![beta], ..prefix("/api") };
    let host = translated(vec![rule(matches, Action::Forward(Forward { cors: Some(cors.into()), ..to("shop") }))]);
    insta::assert_snapshot!(snapshot(&host.routes[0].r#match));
    let names = |route: &EnvoyRoute| {
        let headers = &route.r#match.as_ref().expect("conditions").headers;
        headers.iter().map(|header| header.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&host.routes[1]), [":method", "x-beta"]);
    assert!(host.routes.iter().all(|route| route.typed_per_filter_config.contains_key("envoy.filters.http.cors")));
}

#[test]
fn every_redirect_status_is_kept() {
    let code = |status| {
        let redirect = Redirect {
            scheme: Some("https".into()),
            host: None,
            port: None,
            path: None,
            prefix: None,
            status,
            strip_query: false,
        };
        action::redirect(&redirect, &PathMatch::Prefix("/".into())).response_code
    };
    assert_eq!([301, 302, 303, 307, 308].map(code), [0, 1, 2, 3, 4]);
}

#[test]
fn names_tell_listener_host_route_and_rule() {
    let host = translated(vec![rule(prefix("/a"), respond(200)), rule(prefix("/b"), respond(200))]);
    assert_eq!(host.name, "web/shop.example.com");
    assert_eq!(host.routes.iter().map(|route| route.name.as_str()).collect::<Vec<_>>(), ["shop/0", "shop/1"]);
}

#[test]
fn methods_that_fit_no_pattern_make_several_entries() {
    let many = (0..20).map(|number| format!("{number:A>20}")).collect();
    let host = translated(vec![rule(Match { methods: many, ..prefix("/") }, respond(200))]);
    assert_eq!(host.routes.len(), 7);
    assert!(host.routes.iter().all(|route| route.name == "shop/0"));
}
