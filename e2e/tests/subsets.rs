//! Parts of a service by the labels of its endpoints, as a real Envoy sends there.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use chancery_e2e::{
    client::{Response, request},
    document::{resource, route},
    over_both_protocols,
    scene::Scene,
    upstream::Upstream,
    wait::{PATIENCE, until},
};
use http::Method;
use serde_json::{Value, json};

/// A host of the routes here.
const HOST: &str = "shop.example.com";

over_both_protocols!(Delta in delta: labels_choose_endpoints, an_endpoint_that_registers_has_labels_too);

fn endpoint(upstream: &Upstream, version: &str) -> Value {
    let address = upstream.address;
    json!({ "address": address.ip(), "port": address.port(), "labels": { "version": version, "stage": "prod" } })
}

fn to(subset: &Value, weight: u32) -> Value {
    json!({ "service": "shop", "subset": subset, "weight": weight })
}

async fn fetch(scene: &Scene, path: &str, headers: &[(&str, &str)]) -> Result<Response> {
    scene.fetch(request(Method::GET, HOST, path, headers)).await
}

/// How many of so many requests each endpoint has answered.
async fn shares(scene: &Scene, requests: usize, path: &str) -> Result<BTreeMap<String, usize>> {
    let mut seen = BTreeMap::new();
    for _ in 0..requests {
        let response = fetch(scene, path, &[]).await?;
        ensure!(response.status == 200, "{} {}", response.status, response.text());
        *seen.entry(response.header("x-upstream").to_owned()).or_default() += 1;
    }
    Ok(seen)
}

async fn labels_choose_endpoints(scene: &Scene) -> Result<()> {
    let [one, two] = [Upstream::start("one").await?, Upstream::start("two").await?];
    let shop = |more: &Value| {
        let mut spec = json!({ "endpoints": [endpoint(&one, "v1"), endpoint(&two, "v2")] });
        for (field, value) in more.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        resource("Service", "shop", spec)
    };
    let by_version = |fallback: &str| json!({ "by": ["version"], "fallback": fallback });
    let (v1, v2) = (json!({ "version": "v1" }), json!({ "version": "v2" }));
    let beta = json!({ "headers": [{ "name": "x-beta", "present": true }] });
    let at = |path: &str| json!({ "path": { "exact": path } });
    let rules = json!([
        { "match": beta, "to": [to(&v2, 1)] },
        { "match": at("/canary"), "to": [to(&v1, 80), to(&v2, 20)] },
        { "match": at("/all"), "to": [{ "service": "shop" }] },
        { "match": at("/none"), "to": [to(&json!({ "version": "v3" }), 1)] },
        { "match": at("/both"), "to": [to(&json!({ "version": "v2", "stage": "prod" }), 1)] },
        { "to": [to(&v1, 1)] },
    ]);
    let subsets = json!({ "subsets": [by_version("none"), { "by": ["version", "stage"] }] });
    scene.api.apply_and_wait(&[shop(&subsets), route("shop", HOST, &rules)]).await?;
    for (path, headers, wanted) in
        [("/", &[] as &[_], "one"), ("/", &[("x-beta", "1")], "two"), ("/both", &[], "two"), ("/", &[], "one")]
    {
        for _ in 0..5 {
            let response = fetch(scene, path, headers).await?;
            assert_eq!((response.status, response.header("x-upstream")), (200, wanted), "{path} {headers:?}");
        }
    }
    assert_eq!(fetch(scene, "/none", &[]).await?.status, 503, "nobody has the label");
    assert_eq!(shares(scene, 20, "/all").await?.len(), 2, "a rule without a subset has them all");
    let canary = shares(scene, 300, "/canary").await?;
    // Four standard deviations around 60.
    assert!((30..=90).contains(canary.get("two").unwrap_or(&0)), "{canary:?}");

    let anybody = json!({ "subsets": [by_version("any"), { "by": ["version", "stage"] }] });
    scene.api.put_and_wait(&shop(&anybody)).await?;
    until("anybody answers for nobody", PATIENCE, async || {
        ensure!(shares(scene, 20, "/none").await?.len() == 2);
        Ok(())
    })
    .await?;
    let default = json!({ "subsets": [by_version("default"), { "by": ["version", "stage"] }], "defaultSubset": { "version": "v1" } });
    scene.api.put_and_wait(&shop(&default)).await?;
    until("the default answers for nobody", PATIENCE, async || {
        let seen = shares(scene, 20, "/none").await?;
        ensure!(seen.keys().eq(["one"]), "{seen:?}");
        Ok(())
    })
    .await
}

async fn an_endpoint_that_registers_has_labels_too(scene: &Scene) -> Result<()> {
    let [one, two] = [Upstream::start("one").await?, Upstream::start("two").await?];
    let shop = resource("Service", "shop", json!({ "registered": true, "subsets": [{ "by": ["version"] }] }));
    let rules = json!([{ "to": [to(&json!({ "version": "v1" }), 1)] }]);
    scene.api.apply_and_wait(&[shop, route("shop", HOST, &rules)]).await?;
    let register = async |id: &str, endpoint: Value| {
        let path = format!("/api/v1/services/shop/endpoints/{id}");
        let answer = scene.api.json(Method::PUT, &path, Some(&endpoint)).await?;
        ensure!(answer.status == 200, "registering {id}: {} {}", answer.status, answer.text());
        Ok(())
    };
    let answering = async |wanted: &str| {
        until(&format!("{wanted} answers alone"), PATIENCE, async || {
            let seen = shares(scene, 10, "/").await?;
            ensure!(seen.keys().eq([wanted]), "{seen:?}");
            Ok(())
        })
        .await
    };
    register("two", endpoint(&two, "v2")).await?;
    register("one", endpoint(&one, "v1")).await?;
    answering("one").await?;
    register("one", endpoint(&one, "v0")).await?;
    register("two", endpoint(&two, "v1")).await?;
    answering("two").await?;
    let listed = scene.api.read("/api/v1/services/shop/endpoints").await?;
    assert_eq!(listed["items"][1]["labels"], json!({ "version": "v1", "stage": "prod" }), "{listed}");
    Ok(())
}
