//! What is asked of the history, and everything as text.

use std::collections::BTreeMap;

use axum::http::Method;
use chancery_xds::Resource;
use serde_json::{Value, json};

use super::fixture::{Answer, Fixture, api};
use crate::{
    api::{Api, router},
    store,
    translate::{rate_limit, snapshot},
};

fn service(name: &str, port: u16) -> Value {
    json!({ "kind": "Service", "name": name, "spec": { "endpoints": [{ "address": "10.0.0.7", "port": port }] } })
}

async fn put(api: &Fixture, message: &str, resource: Value) {
    let body = json!({ "message": message, "resources": [resource] });
    let answer = api.json(Method::POST, "/api/v1/apply", body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

/// Kind, name and action of each item.
fn actions(answer: &Answer) -> Vec<String> {
    let items = answer.body["items"].as_array().unwrap_or_else(|| panic!("{}", answer.text));
    let text = |item: &Value, field: &str| item[field].as_str().unwrap().to_owned();
    items.iter().map(|item| [text(item, "kind"), text(item, "name"), text(item, "action")].join(" ")).collect()
}

#[tokio::test]
async fn revisions_are_compared_either_way() {
    let api = Fixture::start().await;
    put(&api, "a", service("a", 1)).await;
    put(&api, "b", service("b", 1)).await;
    put(&api, "a once more", service("a", 2)).await;
    api.ask(Method::DELETE, "/api/v1/services/b", &[]).await;

    let since = api.ask(Method::GET, "/api/v1/revisions/2/diff", &[]).await;
    assert_eq!((&since.body["from"], &since.body["to"]), (&json!(2), &json!(4)));
    assert_eq!(actions(&since), ["Service a updated", "Service b deleted"]);
    let port = json!([{ "path": "spec.endpoints[0].port", "before": 1, "after": 2 }]);
    assert_eq!(since.body["items"][0]["fields"], port);
    let gone = json!([{ "path": "spec.endpoints", "before": [{ "address": "10.0.0.7", "port": 1 }] }]);
    assert_eq!(since.body["items"][1]["fields"], gone);
    assert_eq!(since.body["items"][0]["after"], service("a", 2));

    let back = api.ask(Method::GET, "/api/v1/revisions/4/diff?to=2", &[]).await;
    assert_eq!(actions(&back), ["Service a updated", "Service b created"]);
    assert_eq!(back.body["items"][0]["fields"][0]["after"], 1);
    let all = api.ask(Method::GET, "/api/v1/revisions/0/diff", &[]).await;
    assert_eq!(actions(&all), ["Service a created"], "b came and went");
    let page = api.ask(Method::GET, "/api/v1/revisions/0/diff?limit=1", &[]).await;
    assert_eq!((actions(&page).len(), &page.body["nextCursor"]), (1, &json!("Service/a")));
    let rest = api.ask(Method::GET, "/api/v1/revisions/0/diff?limit=1&cursor=Service/a", &[]).await;
    assert_eq!((actions(&rest).len(), rest.body.get("nextCursor")), (0, None));

    api.ask(Method::GET, "/api/v1/revisions/5/diff", &[]).await.problem(404, "not-found");
    api.ask(Method::GET, "/api/v1/revisions/1/diff?to=5", &[]).await.problem(404, "not-found");
    api.ask(Method::GET, "/api/v1/revisions/x/diff", &[]).await.problem(400, "malformed-request");
    api.ask(Method::GET, "/api/v1/revisions/1/diff?cursor=a", &[]).await.problem(400, "malformed-request");
}

#[tokio::test]
async fn every_field_has_an_author() {
    let api = Fixture::start().await;
    put(&api, "first", service("a", 1)).await;
    let mut slower = service("a", 1);
    slower["spec"]["connectTimeout"] = json!("9s");
    put(&api, "slower", slower).await;
    put(&api, "elsewhere", service("b", 1)).await;
    let answer = api.ask(Method::GET, "/api/v1/services/a/blame", &[]).await;
    let told = answer.body["fields"].as_array().unwrap().iter().map(|field| {
        assert!(field["at"].is_string() && field["author"] == "admin", "{field}");
        json!([field["path"], field["value"], field["revision"], field["message"]])
    });
    let told = Value::from(told.collect::<Vec<_>>());
    let expected = json!([
        ["spec.connectTimeout", "9s", 2, "slower"],
        ["spec.endpoints[0].address", "10.0.0.7", 1, "first"],
        ["spec.endpoints[0].port", 1, 1, "first"],
    ]);
    assert_eq!((told, &answer.body["omitted"]), (expected, &json!(0)));
    api.ask(Method::GET, "/api/v1/services/c/blame", &[]).await.problem(404, "not-found");
    api.ask(Method::DELETE, "/api/v1/services/a", &[]).await;
    api.ask(Method::GET, "/api/v1/services/a/blame", &[]).await.problem(404, "not-found");
}

/// What proxies and limiters get: type, name, version, bytes.
fn served(api: &Api) -> BTreeMap<String, (String, Vec<u8>)> {
    let catalog = &api.replica.current().catalog;
    let fleets = snapshot::full(catalog).into_iter().flat_map(|(fleet, changes)| {
        changes.put.into_iter().map(move |(id, bytes)| {
            let resource = Resource::new(id.type_url(), id.name(), &bytes);
            (format!("{fleet} {id:?}"), (resource.version().to_string(), bytes.to_vec()))
        })
    });
    let domains = rate_limit::all(catalog).into_iter();
    fleets.chain(domains.map(|(name, bytes)| (format!("domain {name}"), (String::new(), bytes.to_vec())))).collect()
}

#[tokio::test]
async fn what_is_exported_gives_the_same_resources_of_envoy() {
    let engine = || async { api(store::open("sqlite::memory:").await.unwrap()).await };
    let (old, new) = (engine().await, engine().await);
    let [from, to] = [&old, &new].map(|engine| Fixture::of(router(Api::clone(engine))));
    let body = "no\n\n  indented \u{2028} \u{85}: #\t'\"\n";
    let cluster = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    let resources = json!([
        { "kind": "Route", "name": "checkout", "team": "payments", "labels": { "no": "yes", "1": "0x1F" }, "spec": {
            "listeners": ["edge/web"], "hosts": ["checkout.example.com", "*.example.com"], "rules": [
                { "match": { "path": { "regex": "/v[0-9]+/ping" } }, "respond": { "status": 200, "body": body } },
                { "to": [{ "service": "z", "weight": 3 }, { "service": "a", "weight": 1 }], "rateLimits": ["per-client"] },
            ] } },
        { "kind": "RateLimit", "name": "per-client", "spec": { "key": [{ "header": "x-key" }],
            "limit": { "requests": 100, "per": "1s" } } },
        { "kind": "EnvoyPatch", "name": "raw", "spec": { "fleet": "edge",
            "resource": { "@type": cluster, "name": "raw", "connect_timeout": "1s" } } },
        service("z", 1), service("a", 65535),
        { "kind": "Listener", "name": "web", "spec": { "fleet": "edge", "port": 10000, "protocol": "http" } },
        { "kind": "Fleet", "name": "edge", "spec": { "rateLimiter": { "addresses": ["10.0.0.1:8081"] } } },
    ]);
    let first = from.json(Method::POST, "/api/v1/apply", json!({ "resources": resources })).await;
    assert_eq!(first.status, 200, "{}", first.text);

    let export = from.ask(Method::GET, "/api/v1/export", &[]).await;
    assert_eq!((export.header("content-type"), export.header("etag")), ("application/yaml", "\"1\""));
    let yaml = [("content-type", "application/yaml")];
    let applied = to.send(Method::POST, "/api/v1/apply", &yaml, export.text.clone()).await;
    assert_eq!(applied.status, 200, "{}\n{}", applied.text, export.text);
    assert_eq!(to.ask(Method::GET, "/api/v1/export", &[]).await.text, export.text);
    assert_eq!(served(&old).len(), 11, "{:?}", served(&old).keys());
    assert_eq!(served(&new), served(&old));

    // Each document can be applied by itself, in the order in which they come.
    let third = engine().await;
    let one_by_one = Fixture::of(router(third.clone()));
    for document in export.text.split("---\n") {
        let applied = one_by_one.send(Method::POST, "/api/v1/apply", &yaml, document.to_owned()).await;
        assert_eq!(applied.body["changed"].as_array().map(Vec::len), Some(1), "{}\n{document}", applied.text);
    }
    assert_eq!(served(&third), served(&old));
    let nothing = Fixture::of(router(engine().await)).ask(Method::GET, "/api/v1/export", &[]).await;
    assert_eq!((nothing.status.as_u16(), nothing.text.as_str()), (200, ""));
}
