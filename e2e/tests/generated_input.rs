//! Whatever is thrown at the API: a property, on generated resources, with a real Envoy as the judge.

use anyhow::{Result, ensure};
use chancery_e2e::{
    api::check_refusal,
    bootstrap::Protocol,
    client::get,
    document::{resource, service},
    scene::Scene,
};
use http::Method;
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Value, json};

/// How many generated sets of resources are thrown at the API.
const THROWS: usize = 150;

/// The API either takes all of it, says back what it took and Envoy takes it too, or refuses all
/// of it in form and nothing has changed. It never fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generated_resources_are_taken_whole_or_refused_whole() -> Result<()> {
    let Some(scene) = Scene::start(Protocol::Delta).await? else { return Ok(()) };
    // What the generated routes refer to is there; that references must hold is told elsewhere.
    let services = ["a", "b", "c"].map(|name| service(name, &[([127, 0, 0, 1], 9).into()]));
    scene.api.apply(&services).await?;
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let (mut taken, mut refused) = (0, 0);
    for throw in 0..THROWS {
        let resources = set_of_resources().new_tree(&mut runner).map_err(anyhow::Error::msg)?.current();
        let before = scene.api.everything().await?;
        let body = json!({ "resources": resources });
        let answer = scene.api.json(Method::POST, "/api/v1/apply?wait=applied&timeout=5s", Some(&body)).await?;
        if answer.status == 200 {
            taken += 1;
            let report = answer.json()?;
            ensure!(
                report["applied"]["refused"].as_array().is_none_or(Vec::is_empty),
                "throw {throw}: Envoy refuses {body}: {report}"
            );
            let again = scene.api.json(Method::POST, "/api/v1/plan", Some(&body)).await?.json()?;
            ensure!(again["changed"].as_array().is_some_and(Vec::is_empty), "throw {throw}: {body} changed: {again}");
        } else {
            refused += 1;
            check_refusal(&format!("throw {throw}: {body}"), &answer)?;
            assert_eq!(scene.api.everything().await?, before, "throw {throw}: {body}");
        }
    }
    assert!(taken > THROWS / 10 && refused > THROWS / 10, "too one-sided: {taken} taken, {refused} refused");
    let proxy = scene.api.proxy("envoy").await?;
    assert!(proxy["lastRejection"].is_null(), "{proxy}");
    assert_eq!(scene.fetch(get("nobody.test", "/")).await?.status, 404, "Envoy serves still");
    Ok(())
}

fn set_of_resources() -> impl Strategy<Value = Vec<Value>> {
    prop::collection::vec(prop_oneof![3 => a_service(), 4 => a_route()], 1..4)
}

fn a_name() -> impl Strategy<Value = String> {
    prop_oneof![30 => "[abc]", 1 => "[A-Za-z0-9-]{1,70}", 1 => ".{0,5}"]
}

fn a_duration() -> impl Strategy<Value = Value> {
    prop_oneof![20 => "[1-9][0-9]{0,2}(ms|s)".prop_map(Value::from), 1 => "[0-9]{0,25}(ms|s|m|h|d)?".prop_map(Value::from), 1 => any::<i64>().prop_map(Value::from)]
}

fn a_service() -> impl Strategy<Value = Value> {
    let address = prop_oneof![20 => "127\\.0\\.0\\.[1-9]", 1 => "[0-9]{1,3}(\\.[0-9]{1,3}){3}", 1 => ".{0,8}"];
    let endpoint = (address, prop_oneof![30 => 1..60000_i64, 1 => any::<i64>()])
        .prop_map(|(address, port)| json!({ "address": address, "port": port }));
    let extra = prop_oneof![
        4 => Just(json!({})),
        1 => a_duration().prop_map(|time| json!({ "connectTimeout": time })),
        1 => a_duration().prop_map(|time| json!({ "healthCheck": { "path": "/healthz", "interval": time } })),
        1 => any::<u32>().prop_map(|limit| json!({ "breaker": { "maxRequests": limit, "maxPending": limit } })),
        2 => (any::<u32>(), 0..120_u32, a_duration()).prop_map(|(number, percent, time)| json!({
            "breaker": { "consecutiveFailures": number, "minSuccessPercent": percent, "probeTimeout": time, "openForMost": time },
            "retryBudget": { "percent": percent, "ttl": time, "minPerSecond": number },
            "hedging": { "percentile": percent, "minDelay": time },
            "adaptiveConcurrency": { "min": percent, "max": 100 },
        })),
        1 => any::<u32>().prop_map(|count| json!({ "outlierDetection": { "consecutive5xx": count } })),
        1 => prop_oneof![Just("http1"), Just("http2"), Just("http3")].prop_map(|name| json!({ "protocol": name })),
    ];
    (a_name(), prop::collection::vec(endpoint, 0..4), extra).prop_map(|(name, endpoints, mut spec)| {
        spec["endpoints"] = endpoints.into();
        resource("Service", &name, spec)
    })
}

fn a_route() -> impl Strategy<Value = Value> {
    let host = prop_oneof![20 => "[a-z]{1,2}\\.example\\.com", 3 => "\\*\\.[a-z]{1,2}\\.example\\.com", 1 => ".{0,10}"];
    (a_name(), prop::collection::vec(host, 1..3), prop::collection::vec(a_rule(), 1..4)).prop_map(
        |(name, hosts, rules)| {
            resource("Route", &name, json!({ "listeners": ["edge/web"], "hosts": hosts, "rules": rules }))
        },
    )
}

fn a_rule() -> impl Strategy<Value = Value> {
    let path = prop_oneof![
        8 => "/[a-z]{0,3}".prop_map(|path| json!({ "prefix": path })),
        8 => "/[a-z]{0,3}".prop_map(|path| json!({ "exact": path })),
        6 => "/[a-c.*+?|]{0,4}".prop_map(|path| json!({ "regex": path })),
        2 => "/[a-c(|)*+?\\[\\]\\\\{},^$.]{0,6}".prop_map(|path| json!({ "regex": path })),
        1 => ".{0,10}".prop_map(|path| json!({ "prefix": path })),
    ];
    let header = (prop_oneof![9 => "x-[a-z]{1,5}", 1 => ".{0,3}"], prop_oneof![9 => "[ -~]{0,9}", 1 => ".{0,6}"])
        .prop_map(|(name, value)| json!({ "name": name, "value": value }));
    let action = prop_oneof![
        4 => (200..600_u32, prop_oneof![9 => "[ -~]{0,20}", 1 => ".{0,20}"]).prop_map(|(status, body)| json!({ "respond": { "status": status, "body": body } })),
        3 => (a_name(), any::<u16>()).prop_map(|(service, weight)| json!({ "to": [{ "service": service, "weight": weight }] })),
        2 => ("/[ -~]{0,6}", prop_oneof![9 => prop::sample::select(vec![301_u32, 302, 303, 307, 308]), 1 => 300..310_u32]).prop_map(|(path, status)| json!({ "redirect": { "path": path, "status": status } })),
    ];
    (path, action, prop::option::weighted(0.2, a_duration()), prop::option::weighted(0.2, header)).prop_map(
        |(path, mut rule, timeout, header)| {
            rule["match"] = json!({ "path": path });
            if let Some(timeout) = timeout {
                rule["timeout"] = timeout;
            }
            if let Some(header) = header {
                rule["headers"] = json!({ "response": { "set": [header] } });
            }
            rule
        },
    )
}
