//! The API as it is meant to be used.

use axum::http::Method;
use serde_json::{Value, json};

use super::fixture::Fixture;

fn fleet() -> Value {
    json!({ "kind": "Fleet", "name": "edge", "spec": {} })
}

fn listener() -> Value {
    json!({ "kind": "Listener", "name": "web", "spec": { "fleet": "edge", "port": 10000, "protocol": "http" } })
}

fn service(name: &str) -> Value {
    json!({ "kind": "Service", "name": name, "team": "payments", "labels": { "tier": "web" },
        "spec": { "endpoints": [{ "address": "10.0.0.7", "port": 8080 }] } })
}

fn route(name: &str, service: &str) -> Value {
    json!({ "kind": "Route", "name": name, "spec": {
        "listeners": ["edge/web"], "hosts": [format!("{name}.example.com")], "rules": [{ "to": [{ "service": service }] }],
    } })
}

async fn with_services(names: &[&str]) -> Fixture {
    let api = Fixture::start().await;
    let resources: Vec<_> = names.iter().map(|name| service(name)).collect();
    let answer = api.json(Method::POST, "/api/v1/apply", json!({ "resources": resources })).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    api
}

#[tokio::test]
async fn a_resource_is_created_read_replaced_patched_and_deleted() {
    let api = Fixture::start().await;
    let path = "/api/v1/services/checkout";

    let created = api.json(Method::POST, "/api/v1/services", service("checkout")).await;
    let changed = json!([{ "kind": "Service", "name": "checkout", "action": "created" }]);
    assert_eq!(created.seen(), (201, &json!({ "revision": 1, "changed": changed })));
    assert_eq!((created.header("location"), created.header("etag")), (path, "\"1\""));
    api.json(Method::POST, "/api/v1/services", service("checkout")).await.problem(409, "exists");

    let read = api.ask(Method::GET, path, &[]).await;
    assert_eq!((read.status.as_u16(), read.header("etag")), (200, "\"1\""));
    assert_eq!(read.body["spec"]["endpoints"][0]["port"], 8080);
    assert_eq!((&read.body["revision"], &read.body["updatedBy"]), (&json!(1), &json!("admin")));
    assert!(read.body["updatedAt"].as_str().unwrap().ends_with('Z'));
    assert_eq!(api.ask(Method::GET, path, &[("if-none-match", "\"1\"")]).await.seen(), (304, &Value::Null));

    // What was read can be written back, and changes nothing.
    let same = api.json(Method::PUT, path, read.body).await;
    assert_eq!(same.seen(), (200, &json!({ "revision": 1, "changed": [] })));
    assert_eq!(same.header("etag"), "\"1\"");

    let patch = json!({ "team": null, "spec": { "connectTimeout": "250ms" } });
    let patched =
        api.send(Method::PATCH, path, &[("content-type", "application/merge-patch+json")], patch.to_string()).await;
    let changed = json!([{ "kind": "Service", "name": "checkout", "action": "updated" }]);
    assert_eq!(patched.seen(), (200, &json!({ "revision": 2, "changed": changed })));
    let read = api.ask(Method::GET, path, &[]).await;
    assert_eq!(read.body["spec"]["connectTimeout"], "250ms");
    assert_eq!(read.body["spec"]["endpoints"][0]["port"], 8080);
    assert!(read.body.get("team").is_none());

    let deleted = api.ask(Method::DELETE, path, &[]).await;
    let changed = json!([{ "kind": "Service", "name": "checkout", "action": "deleted" }]);
    assert_eq!(deleted.seen(), (200, &json!({ "revision": 3, "changed": changed })));
    api.ask(Method::GET, path, &[]).await.problem(404, "not-found");
    api.ask(Method::DELETE, path, &[]).await.problem(404, "not-found");
    api.json(Method::PATCH, path, json!({})).await.problem(404, "not-found");
}

#[tokio::test]
async fn a_put_needs_neither_kind_nor_name() {
    let api = Fixture::start().await;
    let mut body = service("checkout");
    body.as_object_mut().unwrap().retain(|field, _| field == "spec");
    assert_eq!(api.json(Method::PUT, "/api/v1/services/checkout", body.clone()).await.status, 201);
    body["name"] = json!("other");
    let answer = api.json(Method::PUT, "/api/v1/services/checkout", body).await;
    answer.problem(422, "invalid");
    assert_eq!(answer.problems(), ["Service/checkout#name: is \"other\", but the path says checkout"]);
    let yaml = [("content-type", "text/yaml")];
    let text = "spec:\n  endpoints: [{ address: 10.0.0.8, port: 80 }]\n";
    assert_eq!(api.send(Method::PUT, "/api/v1/services/checkout", &yaml, text).await.status, 200);
}

#[tokio::test]
async fn a_write_may_be_conditional() {
    let api = with_services(&["a"]).await;
    let path = "/api/v1/services/a";
    let changed = |port: u16| json!({ "spec": { "endpoints": [{ "address": "10.0.0.7", "port": port }] } });
    let put = async |condition: (&str, &str), port: u16| {
        let headers = [("content-type", "application/json"), condition];
        api.send(Method::PUT, path, &headers, changed(port).to_string()).await
    };
    assert_eq!(put(("if-match", "\"1\""), 1).await.status, 200);
    let conflict = put(("if-match", "\"1\""), 2).await;
    let problem = conflict.problem(409, "conflict");
    assert_eq!((&problem["expectedRevision"], &problem["currentRevision"]), (&json!(1), &json!(2)));
    assert_eq!(problem["current"]["spec"]["endpoints"][0]["port"], 1);
    put(("if-none-match", "*"), 2).await.problem(409, "exists");
    put(("if-match", "2"), 2).await.problem(400, "malformed-request");
    assert_eq!(put(("if-match", "*"), 2).await.status, 200);
    api.ask(Method::DELETE, path, &[("if-match", "\"1\"")]).await.problem(409, "conflict");
    assert_eq!(api.ask(Method::DELETE, path, &[("if-match", "\"3\"")]).await.status, 200);
    put(("if-match", "*"), 2).await.problem(404, "not-found");
}

#[tokio::test]
async fn a_dry_run_writes_nothing() {
    let api = with_services(&["a"]).await;
    let path = "/api/v1/services/a?dryRun=true";
    let answer = api.json(Method::PATCH, path, json!({ "spec": { "connectTimeout": "1s" } })).await;
    let fields = json!([{ "path": "spec.connectTimeout", "after": "1s" }]);
    let changed = json!([{ "kind": "Service", "name": "a", "action": "updated", "fields": fields }]);
    assert_eq!(answer.seen(), (200, &json!({ "revision": 1, "changed": changed, "dryRun": true })));
    assert_eq!(api.json(Method::POST, "/api/v1/services?dryRun=true", service("b")).await.status, 200);
    assert_eq!(api.ask(Method::DELETE, path, &[]).await.status, 200);
    let list = api.ask(Method::GET, "/api/v1/services", &[]).await;
    assert_eq!((list.body["items"].as_array().unwrap().len(), list.header("etag")), (1, "\"1\""));
}

#[tokio::test]
async fn a_list_comes_in_pages_and_may_be_selected_from() {
    let api = with_services(&["a", "b", "c"]).await;
    let names = async |query: &str| {
        let answer = api.ask(Method::GET, &format!("/api/v1/services{query}"), &[]).await;
        let items = answer.body["items"].as_array().cloned().unwrap_or_default();
        let names: Vec<_> = items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect();
        (names.join(""), answer.body["nextCursor"].as_str().map(str::to_owned))
    };
    assert_eq!(names("").await, ("abc".to_owned(), None));
    assert_eq!(names("?limit=2").await, ("ab".to_owned(), Some("b".to_owned())));
    assert_eq!(names("?limit=2&cursor=b").await, ("c".to_owned(), None));
    assert_eq!(names("?limit=3").await, ("abc".to_owned(), None));
    api.json(Method::PATCH, "/api/v1/services/b", json!({ "team": "other", "labels": { "stage": "prod" } })).await;
    assert_eq!(names("?team=payments").await.0, "ac");
    assert_eq!(names("?label=tier%3Dweb,stage%3Dprod").await.0, "b");
    let revision = api.ask(Method::GET, "/api/v1/services", &[("if-none-match", "\"2\"")]).await;
    assert_eq!(revision.status, 304);
}

#[tokio::test]
async fn an_apply_is_one_revision_or_none() {
    let api = Fixture::start().await;
    let resources = json!([route("checkout", "checkout"), listener(), service("checkout"), fleet()]);
    let answer = api.json(Method::POST, "/api/v1/apply", json!({ "message": "first", "resources": resources })).await;
    assert_eq!(answer.body["revision"], 1, "{}", answer.text);
    assert_eq!(answer.body["changed"].as_array().unwrap().len(), 4);

    let again = api.json(Method::POST, "/api/v1/apply", json!({ "resources": resources })).await;
    assert_eq!(again.seen(), (200, &json!({ "revision": 1, "changed": [] })));

    let yaml = [("content-type", "application/yaml; charset=utf-8")];
    let text = "kind: Fleet\nname: other\nspec: {}\n---\nkind: Service\nname: checkout\nspec:\n  endpoints: []\n";
    let planned = api.send(Method::POST, "/api/v1/plan", &yaml, text).await;
    assert_eq!((&planned.body["revision"], &planned.body["dryRun"]), (&json!(1), &json!(true)));
    let paths: Vec<_> = planned.body["changed"][1]["fields"].as_array().unwrap().iter().map(|f| &f["path"]).collect();
    assert_eq!(paths, ["labels", "spec.endpoints[0]", "team"]);
    let applied = api.send(Method::POST, "/api/v1/apply?message=second", &yaml, text).await;
    assert_eq!(applied.body["revision"], 2, "{}", applied.text);

    let stale = [("content-type", "application/yaml"), ("if-match", "\"1\"")];
    let conflict = api.send(Method::POST, "/api/v1/apply", &stale, text).await;
    let problem = conflict.problem(409, "conflict");
    assert_eq!((&problem["expectedRevision"], &problem["currentRevision"]), (&json!(1), &json!(2)));
}

#[tokio::test]
async fn every_problem_of_an_apply_is_told_at_once() {
    let api = Fixture::start().await;
    let mut broken = route("b", "a");
    broken["spec"].as_object_mut().unwrap().remove("listeners");
    let resources = json!([service("a"), broken, service("a"), { "kind": "Rout", "name": "c", "spec": {} }, 7]);
    let answer =
        api.json(Method::POST, "/api/v1/apply", json!({ "resources": resources, "prune": true, "mesage": "" })).await;
    answer.problem(422, "invalid");
    insta::assert_json_snapshot!(answer.problems());
    assert_eq!(api.ask(Method::GET, "/api/v1/services", &[]).await.body, json!({ "items": [] }));
    let empty = api.json(Method::POST, "/api/v1/apply", json!({ "resources": [] })).await;
    assert_eq!(empty.problems(), ["#resources: must not be empty"]);
}

#[tokio::test]
async fn waiting_for_proxies_says_how_many() {
    let api = Fixture::start().await;
    let answer = api.json(Method::POST, "/api/v1/services?wait=applied&timeout=100ms", service("a")).await;
    assert_eq!(answer.status, 201);
    let applied = &answer.body["applied"];
    assert_eq!((&applied["proxies"], &applied["applied"], &applied["timedOut"]), (&json!(0), &json!(0), &json!(false)));
}

#[tokio::test]
async fn the_history_is_read_and_undone() {
    let api = with_services(&["a"]).await;
    api.json(Method::PATCH, "/api/v1/services/a?message=slower", json!({ "spec": { "connectTimeout": "9s" } })).await;
    api.json(Method::POST, "/api/v1/services", service("b")).await;

    let list = api.ask(Method::GET, "/api/v1/revisions?limit=2", &[]).await;
    let numbers: Vec<_> = list.body["items"].as_array().unwrap().iter().map(|item| &item["number"]).collect();
    assert_eq!((numbers, &list.body["nextCursor"]), (vec![&json!(3), &json!(2)], &json!("2")));
    let rest = api.ask(Method::GET, "/api/v1/revisions?limit=2&cursor=2", &[]).await;
    assert_eq!(rest.body["items"][0]["number"], 1);
    assert!(rest.body.get("nextCursor").is_none());
    let of_b = api.ask(Method::GET, "/api/v1/revisions?kind=Service&name=b", &[]).await;
    assert_eq!(of_b.body["items"].as_array().unwrap().len(), 1);

    let second = api.ask(Method::GET, "/api/v1/revisions/2", &[]).await;
    assert_eq!((&second.body["message"], &second.body["author"]), (&json!("slower"), &json!("admin")));
    let change = &second.body["changes"][0];
    assert_eq!(change["before"]["spec"].get("connectTimeout"), None);
    assert_eq!(change["after"]["spec"]["connectTimeout"], "9s");

    let reverted = api.ask(Method::POST, "/api/v1/revisions/2/revert", &[]).await;
    assert_eq!(reverted.body["revision"], 4, "{}", reverted.text);
    assert_eq!(api.ask(Method::GET, "/api/v1/revisions/4", &[]).await.body["message"], "Revert revision 2");
    assert!(api.ask(Method::GET, "/api/v1/services/a", &[]).await.body["spec"].get("connectTimeout").is_none());
    api.ask(Method::POST, "/api/v1/revisions/2/revert", &[]).await.problem(409, "superseded");
    let created = api.ask(Method::POST, "/api/v1/revisions/3/revert", &[]).await;
    assert_eq!(created.body["changed"][0]["action"], "deleted");
    api.ask(Method::POST, "/api/v1/revisions/99/revert", &[]).await.problem(404, "not-found");
    api.ask(Method::POST, "/api/v1/revisions/1/revert", &[("if-match", "\"3\"")]).await.problem(409, "conflict");
}

fn patch(name: &str, mut spec: Value) -> Value {
    spec["fleet"] = "edge".into();
    json!({ "kind": "EnvoyPatch", "name": name, "spec": spec })
}

#[tokio::test]
async fn what_envoy_would_refuse_is_not_stored() {
    let api = with_services(&["checkout"]).await;
    let resources = json!({ "resources": [fleet(), listener(), route("checkout", "checkout")] });
    assert_eq!(api.json(Method::POST, "/api/v1/apply", resources).await.status, 200);
    let cluster = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    let extra = patch("extra", json!({ "resource": { "@type": cluster, "name": "raw", "lb_policy": 99 } }));
    let manager = "filter_chains[0].filters[0].typed_config";
    let merged = |merge: Value| {
        patch("web", json!({ "target": { "kind": "Listener", "name": "web" }, "path": manager, "merge": merge }))
    };

    let refused = json!({ "resources": [extra, merged(json!({ "stat_prefix": "" }))] });
    for path in ["/api/v1/plan", "/api/v1/apply", "/api/v1/apply?dryRun=true"] {
        let answer = api.json(Method::POST, path, refused.clone()).await;
        answer.problem(422, "invalid");
        assert_eq!(answer.body["problems"][0]["path"], "spec.resource.lb_policy", "{path}: {}", answer.text);
    }
    // Only the translation shows what a merge leads to.
    for path in ["/api/v1/envoy-patches?dryRun=true", "/api/v1/envoy-patches"] {
        let answer = api.json(Method::POST, path, merged(json!({ "stat_prefix": "" }))).await;
        answer.problem(422, "invalid");
        let problem = &answer.body["problems"][0];
        assert_eq!(
            (&problem["resource"], &problem["path"]),
            (&json!("EnvoyPatch/web"), &json!("spec.merge.stat_prefix"))
        );
        let reason = problem["reason"].as_str().unwrap();
        assert!(reason.contains("value length must be at least 1 characters"), "{reason}");
    }
    assert_eq!(api.ask(Method::GET, "/api/v1/envoy-patches", &[]).await.body["items"], json!([]));
    let good = merged(json!({ "server_name": "edge" }));
    assert_eq!(api.json(Method::POST, "/api/v1/envoy-patches", good).await.status, 201);

    // A resource that a patch no longer fits is refused with the patch that has to follow.
    let gone = json!({ "resources": [patch("web", json!({ "target": { "kind": "Listener", "name": "web" },
        "path": "filter_chains[1]", "merge": {} }))] });
    let answer = api.json(Method::POST, "/api/v1/apply", gone).await;
    answer.problem(422, "invalid");
    assert!(answer.text.contains("does not fit: filter_chains[1]: does not exist"), "{}", answer.text);
}

#[tokio::test]
async fn a_plan_says_what_proxies_would_see_and_writes_nothing() {
    let api = Fixture::start().await;
    let all = json!({ "resources": [fleet(), listener(), service("checkout"), route("checkout", "checkout")] });
    let first = api.json(Method::POST, "/api/v1/plan", all.clone()).await;
    assert_eq!(first.status, 200, "{}", first.text);
    assert_eq!((&first.body["revision"], &first.body["complete"]), (&json!(0), &json!(true)));
    let names: Vec<_> = first.body["changed"].as_array().unwrap().iter().map(|changed| &changed["action"]).collect();
    assert_eq!(names, ["created"; 4]);
    let hosts = json!({ "path": "spec.hosts", "after": ["checkout.example.com"] });
    assert!(first.body["changed"][3]["fields"].as_array().unwrap().contains(&hosts), "{}", first.text);
    assert_eq!(api.json(Method::POST, "/api/v1/apply", all).await.body["revision"], 1);

    let mut moved = listener();
    moved["spec"]["port"] = json!(10001);
    let mut other = route("checkout", "checkout");
    other["spec"]["hosts"] = json!(["new.example.com"]);
    let planned = api.json(Method::POST, "/api/v1/plan", json!({ "resources": [moved, other] })).await;
    let edge = &planned.body["fleets"][0];
    let resources = json!([
        { "type": "listener", "name": "web", "change": "changed" },
        { "type": "virtualHost", "name": "web/checkout.example.com", "change": "removed" },
        { "type": "virtualHost", "name": "web/new.example.com", "change": "added" },
    ]);
    assert_eq!((&edge["resources"], &edge["omitted"], &edge["connected"]), (&resources, &json!(0), &json!(0)));
    assert_eq!(edge["drains"], json!([{ "listener": "web", "reason": "moved" }]));
    let list = api.ask(Method::GET, "/api/v1/revisions", &[]).await;
    assert_eq!(list.body["items"].as_array().unwrap().len(), 1);
    let nothing = api.json(Method::POST, "/api/v1/plan", json!({ "resources": [fleet()] })).await;
    assert_eq!((&nothing.body["changed"], &nothing.body["fleets"]), (&json!([]), &json!([])));
}

#[tokio::test]
async fn what_is_not_named_any_more_is_pruned_if_it_was_asked_for() {
    let api = with_services(&["a", "b"]).await;
    let mut unlabelled = service("c");
    unlabelled.as_object_mut().unwrap().remove("labels");
    let apply = async |body: Value| api.json(Method::POST, "/api/v1/apply", body).await;
    assert_eq!(apply(json!({ "resources": [unlabelled, fleet(), listener(), route("to-b", "b")] })).await.status, 200);
    let prune = json!({ "labels": { "tier": "web" } });

    // It is used, so it stays, and so does all else.
    let refused = apply(json!({ "resources": [service("a")], "prune": prune })).await;
    refused.problem(422, "invalid");
    assert_eq!(refused.problems(), ["Service/b#: is deleted, but used by Route/to-b"]);
    let both = json!({ "resources": [service("a"), route("to-b", "a")], "prune": prune });
    let planned = api.json(Method::POST, "/api/v1/plan", both.clone()).await;
    assert_eq!(planned.body["changed"][0]["action"], "deleted", "{}", planned.text);
    let applied = apply(both).await;
    assert_eq!((applied.status.as_u16(), &applied.body["revision"]), (200, &json!(3)), "{}", applied.text);
    let gone = &applied.body["changed"][0];
    assert_eq!((&gone["name"], &gone["action"]), (&json!("b"), &json!("deleted")));
    let left = api.ask(Method::GET, "/api/v1/services", &[]).await;
    let left: Vec<_> = left.body["items"].as_array().unwrap().iter().map(|item| &item["name"]).collect();
    assert_eq!(left, ["a", "c"], "what has no label is nobody's to prune");

    for (prune, problem) in [
        (json!(true), "#prune: must say what may be deleted, as {\"labels\": {\"app\": \"shop\"}}, not true"),
        (json!({}), "#prune: needs a team or a label: it is not for everything there is"),
        (json!({ "team": "A" }), "#prune.team: must consist of a-z, 0-9 and '-', and neither start nor end with '-'"),
        (json!({ "labels": { "a": 1 } }), "#prune.labels.a: must be a text, not 1"),
        (json!({ "label": "a" }), "#prune.label: is not a field of it; there are team, labels"),
    ] {
        let answer = apply(json!({ "resources": [service("a")], "prune": prune })).await;
        assert_eq!(answer.problems(), [problem], "{prune}");
    }
    let stays = apply(json!({ "resources": [service("a")], "prune": { "team": "nobody" } })).await;
    assert_eq!(stays.body["changed"], json!([]));
}
