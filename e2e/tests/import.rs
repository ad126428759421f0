//! What people already have becomes what proxies do: imported, applied, and seen in where requests go.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    bootstrap::Protocol,
    client::{Response, fetch, request},
    command::User,
    control_plane::{ADMIN_TOKEN, ControlPlane},
    port::free_port,
    story::tell,
    upstream::{Echo, Upstream},
    wait::{PATIENCE, until},
};
use http::Method;
use serde_json::Value;

/// Routes of two owners for one host, on a Gateway of its own. `PORT_…` are ports.
const GATEWAY: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: imported }
spec:
  listeners: [{ name: web, port: PORT_WEB, protocol: HTTP }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: shop }
spec:
  parentRefs: [{ name: imported }]
  hostnames: [shop.example.com]
  rules:
    - backendRefs: [{ name: blue, port: PORT_BLUE }]
    - matches: [{ path: { value: /cart } }]
      backendRefs: [{ name: green, port: PORT_GREEN }]
    - matches: [{ path: { value: /cart }, headers: [{ name: x-beta, value: "1" }] }]
      filters:
        - { type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: x-rule, value: header }] } }
      backendRefs: [{ name: blue, port: PORT_BLUE }]
    - matches: [{ path: { value: /api/v1 } }]
      filters:
        - { type: URLRewrite, urlRewrite: { path: { type: ReplacePrefixMatch, replacePrefixMatch: / } } }
      backendRefs: [{ name: green, port: PORT_GREEN }]
    - matches: [{ path: { value: /old } }]
      filters:
        - type: RequestRedirect
          requestRedirect: { hostname: new.example.com, path: { type: ReplacePrefixMatch, replacePrefixMatch: /new } }
    - matches: [{ path: { value: /account } }]
      filters: [{ type: ExtensionRef, extensionRef: { group: example.com, kind: Login, name: staff } }]
      backendRefs: [{ name: blue, port: PORT_BLUE }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: campaign }
spec:
  parentRefs: [{ name: imported, sectionName: web }]
  hostnames: [shop.example.com, "*.campaign.example.com"]
  rules:
    - matches: [{ path: { value: /cart/spring } }]
      backendRefs: [{ name: red, port: PORT_RED }]
    - matches: [{ path: { type: Exact, value: /cart/spring/rules } }, { path: { value: /cart }, method: PUT }]
      filters:
        - { type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: x-rule, value: exact or method }] } }
      backendRefs: [{ name: red, port: PORT_RED }]
    - matches: [{ path: { value: / }, queryParams: [{ name: campaign, value: spring }] }]
      backendRefs: [{ name: red, port: PORT_RED }]
---
apiVersion: v1
kind: Service
metadata: { name: blue }
spec: { type: ExternalName, externalName: localhost, ports: [{ port: PORT_BLUE }] }
---
apiVersion: v1
kind: Service
metadata: { name: green }
spec: { type: ExternalName, externalName: localhost, ports: [{ port: PORT_GREEN }] }
---
apiVersion: v1
kind: Service
metadata: { name: red }
spec: { type: ExternalName, externalName: localhost, ports: [{ port: PORT_RED }] }
"#;

fn operator(folder: &Path, control_plane: &ControlPlane) -> User {
    User::in_folder(folder).of(&format!("http://{}", control_plane.api), ADMIN_TOKEN)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_go_where_the_gateway_api_says() -> Result<()> {
    tell(Protocol::Delta, async |scene| {
        let user = operator(scene.folder(), &scene.control_plane);
        let [blue, green, red] =
            [Upstream::start("blue").await?, Upstream::start("green").await?, Upstream::start("red").await?];
        let web = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
        let ports = [("WEB", web), ("BLUE", blue.address), ("GREEN", green.address), ("RED", red.address)];
        let text = ports.iter().fold(GATEWAY.to_owned(), |text, (name, address)| {
            text.replace(&format!("PORT_{name}"), &address.port().to_string())
        });
        std::fs::write(scene.folder().join("gateway.yaml"), text)?;

        let imported = user.runs("import gateway-api gateway.yaml --fleet edge", "").await?;
        ensure!(imported.code == 0, "{}", imported.errors);
        let listed =
            "HTTPRoute default/shop: spec.rules[5].filters[0]: ExtensionRef is a filter that is not known here";
        ensure!(imported.errors.contains(listed), "{}", imported.errors);
        ensure!(imported.errors.lines().count() == 2, "{}", imported.errors);
        let strict = user.runs("import gateway-api gateway.yaml --fleet edge --strict", "").await?;
        assert_eq!((strict.code, &strict.output), (1, &imported.output));

        user.does("plan -f -", &imported.output).await?;
        user.does("apply -f - --wait -m imported", &imported.output).await?;
        let again: Value = serde_json::from_str(&user.does("plan -f - -o json", &imported.output).await?)?;
        assert_eq!(again["changed"], serde_json::json!([]), "an import that was applied changes nothing");

        let ask = async |method: &Method, host: &str, path: &str, headers: &[(&str, &str)]| -> Result<Response> {
            fetch(web, request(method.clone(), host, path, headers)).await
        };
        until("the listener is there", PATIENCE, async || {
            let answer = ask(&Method::GET, "shop.example.com", "/", &[]).await?;
            ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
            Ok(())
        })
        .await?;
        let beta = [("x-beta", "1")];
        for (method, path, headers, upstream, rule, arrived) in [
            (Method::GET, "/", &[] as &[_], "blue", "", "/"),
            (Method::GET, "/cart", &[], "green", "", "/cart"),
            (Method::GET, "/cart/", &[], "green", "", "/cart/"),
            (Method::GET, "/cart/7", &[], "green", "", "/cart/7"),
            // A prefix ends where a segment does.
            (Method::GET, "/cartoon", &[], "blue", "", "/cartoon"),
            (Method::GET, "/cart/7", &beta, "blue", "header", "/cart/7"),
            // The method goes before headers.
            (Method::PUT, "/cart/7", &beta, "red", "exact or method", "/cart/7"),
            // The longer prefix goes before conditions, also of another route.
            (Method::PUT, "/cart/spring/7", &beta, "red", "", "/cart/spring/7"),
            (Method::GET, "/cart/spring/rules", &beta, "red", "exact or method", "/cart/spring/rules"),
            // Query parameters go before none.
            (Method::GET, "/?campaign=spring", &[], "red", "", "/"),
            (Method::GET, "/cart?campaign=spring", &[], "green", "", "/cart"),
            (Method::GET, "/api/v1", &[], "green", "", "/"),
            (Method::GET, "/api/v1/items/7", &[], "green", "", "/items/7"),
            (Method::GET, "/api/v10/items", &[], "blue", "", "/api/v10/items"),
        ] {
            let label = format!("{method} {path} {headers:?}");
            let answer = ask(&method, "shop.example.com", path, headers).await?;
            ensure!(answer.status == 200, "{label}: {}", answer.status);
            let seen: Echo = serde_json::from_slice(&answer.body).with_context(|| label.clone())?;
            let seen_rule = seen.headers.get("x-rule").map_or("", String::as_str);
            assert_eq!((seen.upstream.as_str(), seen_rule, seen.path.as_str()), (upstream, rule, arrived), "{label}");
        }
        for (host, path, status, location) in [
            ("shop.example.com", "/old/page?x=1", 302, format!("http://new.example.com:{}/new/page?x=1", web.port())),
            ("shop.example.com", "/account", 500, String::new()),
            ("shop.example.com", "/account/7", 500, String::new()),
            ("a.campaign.example.com", "/cart/spring", 200, String::new()),
            ("a.campaign.example.com", "/", 404, String::new()),
            ("other.example.com", "/", 404, String::new()),
        ] {
            let answer = ask(&Method::GET, host, path, &[]).await?;
            assert_eq!((answer.status, answer.header("location")), (status, location.as_str()), "{host}{path}");
        }
        Ok(())
    })
    .await
}
