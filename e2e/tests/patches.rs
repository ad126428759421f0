//! Raw patches reach a real Envoy, and what it would refuse is not stored.

use anyhow::{Result, ensure};
use chancery_e2e::{
    api::check_refusal,
    client::{fetch, get},
    document::route_saying,
    over_both_protocols,
    port::free_port,
    raw::{self, patch},
    scene::Scene,
    wait::{PATIENCE, until},
};
use http::Method;
use serde_json::{Value, json};

const HOST: &str = "news.example.com";

over_both_protocols!(
    a_patch_adds_a_listener_with_all_that_it_serves,
    a_patch_changes_what_is_translated,
    what_envoy_would_refuse_is_not_stored
);

fn listener(name: &str, port: u16) -> Value {
    raw::listener(name, port, "raw-routes", "raw")
}

fn routes(body: &str) -> Value {
    raw::routes("raw-routes", &[raw::host("all", &raw::saying(body))])
}

async fn a_patch_adds_a_listener_with_all_that_it_serves(scene: &Scene) -> Result<()> {
    let port = free_port();
    let address = ([127, 0, 0, 1], port).into();
    let both = [
        patch("raw-listener", json!({ "resource": listener("raw", port) })),
        patch("raw-routes", json!({ "resource": routes("as it is") })),
    ];
    scene.api.apply_and_wait(&both).await?;
    until("the listener answers", PATIENCE, async || {
        let response = fetch(address, get(HOST, "/")).await?;
        ensure!(response.status == 200 && response.text() == "as it is", "{}", response.text());
        ensure!(response.header("server") == "raw", "{:?}", response.headers);
        Ok(())
    })
    .await?;

    scene.api.put_and_wait(&patch("raw-routes", json!({ "resource": routes("changed") }))).await?;
    assert_eq!(fetch(address, get(HOST, "/")).await?.text(), "changed");
    scene.api.delete_and_wait("EnvoyPatch", "raw-listener").await?;
    scene.api.delete_and_wait("EnvoyPatch", "raw-routes").await?;
    until("the listener is closed", PATIENCE, async || {
        ensure!(fetch(address, get(HOST, "/")).await.is_err(), "it still answers");
        Ok(())
    })
    .await
    .map(drop)
}

async fn a_patch_changes_what_is_translated(scene: &Scene) -> Result<()> {
    let header = json!({ "header": { "key": "x-protocol", "value": "%PROTOCOL%" }, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD" });
    let host = patch(
        "header",
        json!({
            "target": { "kind": "VirtualHost", "name": format!("web/{HOST}") },
            "merge": { "response_headers_to_add": [header] },
        }),
    );
    let server = patch(
        "server",
        json!({
            "target": { "kind": "Listener", "name": "web" },
            "path": "filter_chains[0].filters[0].typed_config",
            "merge": { "serverName": "patched", "server_header_transformation": "OVERWRITE" },
        }),
    );
    scene.api.apply_and_wait(&[route_saying("news", HOST, "hello"), host]).await?;
    let response = scene.fetch(get(HOST, "/")).await?;
    assert_eq!((response.text().as_ref(), response.header("x-protocol")), ("hello", "HTTP/1.1"));
    // The patch goes on when its target is translated anew.
    scene.api.put_and_wait(&route_saying("news", HOST, "again")).await?;
    let response = scene.fetch(get(HOST, "/")).await?;
    assert_eq!((response.text().as_ref(), response.header("x-protocol")), ("again", "HTTP/1.1"));

    scene.api.put_and_wait(&server).await?;
    until("the listener is the patched one", PATIENCE, async || {
        let response = scene.fetch(get(HOST, "/")).await?;
        ensure!(response.header("server") == "patched", "{:?}", response.headers);
        Ok(())
    })
    .await?;
    scene.api.delete_and_wait("EnvoyPatch", "header").await?;
    assert_eq!(scene.fetch(get(HOST, "/")).await?.header("x-protocol"), "");
    Ok(())
}

async fn what_envoy_would_refuse_is_not_stored(scene: &Scene) -> Result<()> {
    let before = scene.api.everything().await?;
    let mut wrong = listener("raw", 1);
    wrong["address"]["socket_address"]["port_value"] = 70_000.into();
    let merged =
        json!({ "target": { "kind": "Listener", "name": "web" }, "merge": { "connection_balance_config": {} } });
    for (wrong, path, reason) in [
        (
            patch("a", json!({ "resource": wrong })),
            "spec.resource.address.socket_address.port_value",
            "value must be less than or equal to 65535",
        ),
        (patch("b", merged), "spec.merge.connection_balance_config.balance_type", "is required"),
    ] {
        let answer = scene.api.json(Method::POST, "/api/v1/envoy-patches", Some(&wrong)).await?;
        let problem = &check_refusal(path, &answer)?["problems"][0];
        assert_eq!(problem["path"], path, "{problem}");
        assert!(problem["reason"].as_str().is_some_and(|said| said.contains(reason)), "{problem}");
    }
    assert_eq!(scene.api.everything().await?, before);
    Ok(())
}
