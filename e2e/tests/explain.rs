//! What the control plane says becomes of a request, and what does: the same, judged by a real Envoy on generated routes and
//! requests; and what a log of requests says of a change, before it is made and after.
//!
//! `EXPLAIN_SEED=7` generates others.

use std::{collections::BTreeMap, env, fs};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    bootstrap::Protocol,
    client::{Connection, Response, get, request},
    command::User,
    control_plane::ADMIN_TOKEN,
    document::{listener, resource, route, service},
    raw::patch,
    scene::Scene,
    upstream::{Echo, Upstream},
    wait::{PATIENCE, until},
};
use http::Method;
use rand::{SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

#[path = "explain/generated.rs"]
mod generated;

/// Tried; those that contradict others are refused.
const ROUTES: usize = 40;

const REQUESTS: usize = 1000;

/// What became of a request, as far as both can tell.
#[derive(Debug, PartialEq)]
struct Verdict {
    /// The rule, empty if there is none.
    rule: String,
    /// What it sets in `x-rule` of the response.
    edited: String,
    /// The status; not of calls of gRPC, which are told it otherwise.
    status: Option<u16>,
    location: String,
    /// Host, path and query that the service saw.
    seen: Option<[String; 3]>,
    /// Whether the page that asks may have the answer.
    shared: bool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_explained_is_what_happens() -> Result<()> {
    let Some(scene) = Scene::start(Protocol::Delta).await? else { return Ok(()) };
    let mut random = StdRng::seed_from_u64(seed()?);
    let mut upstreams = Vec::new();
    for name in generated::SERVICES {
        let mut endpoints = Vec::new();
        for version in generated::VERSIONS {
            let upstream = Upstream::start(&format!("{name}-{version}")).await?;
            let (address, port) = (upstream.address.ip(), upstream.address.port());
            endpoints.push(json!({ "address": address, "port": port, "labels": { "version": version } }));
            upstreams.push(upstream);
        }
        let spec = json!({ "endpoints": endpoints, "subsets": [{ "by": ["version"] }] });
        scene.api.put(&resource("Service", name, spec)).await?;
    }
    let authorizer = Upstream::start("authorizer").await?;
    let mut web = listener("web", "edge", scene.web.port());
    web["spec"]["externalAuthorization"] = json!({ "service": "authorizer", "protocol": "http", "timeout": "30s" });
    scene.api.apply(&[service("authorizer", &[authorizer.address]), web]).await?;
    let mut routes = Vec::new();
    for number in 0..ROUTES {
        let route = generated::route(number, &mut random);
        let path = format!("/api/v1/routes/{}", route.name);
        let answer = scene.api.json(Method::PUT, &path, Some(&route.document)).await?;
        match answer.status {
            200 | 201 => routes.push(route),
            422 if answer.text().contains("is the same as that of") => {}
            _ => anyhow::bail!("{}: {}", route.document, answer.text()),
        }
    }
    ensure!(routes.len() > ROUTES / 2, "only {} routes are left", routes.len());
    // What is waited for comes after all the others.
    let last = route("last", "last.example.com", &json!([{ "respond": { "status": 200 } }]));
    scene.api.put_and_wait(&last).await?;

    // The listener that asks takes the place of the other one in its own time.
    until("somebody is asked", PATIENCE, async || {
        scene.fetch(get("last.example.com", "/")).await?;
        ensure!(authorizer.requests() > 0, "nobody is");
        Ok(())
    })
    .await?;
    let mut connection = Connection::open(scene.web).await?;
    let (mut mismatches, mut kinds) = (Vec::new(), BTreeMap::<String, usize>::new());
    for _ in 0..REQUESTS {
        let asked = generated::request(&routes, &mut random);
        let headers: Vec<(&str, &str)> =
            asked.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let method = Method::from_bytes(asked.method.as_bytes())?;
        // A condition on the host, met: the last one counts in an explanation, and Envoy takes no two.
        let mut hosts = headers.iter().filter(|(name, _)| *name == "host").map(|(_, value)| *value);
        let host = hosts.next_back().unwrap_or(&asked.host).to_owned();
        let headers: Vec<_> = headers.into_iter().filter(|(name, _)| *name != "host").collect();
        if host.contains(' ') {
            continue;
        }
        let before = authorizer.requests();
        let response = connection.send(request(method, &host, &asked.target(), &headers)).await?;
        let explained = explain(&scene, &asked, &host, &headers).await?;
        *kinds.entry(explained["destination"]["action"].to_string()).or_default() += 1;
        let (real, services) = (real(&response, &headers)?, services(&explained));
        let told = told(&explained, &headers);
        let served = served_by(&response);
        // What is refused, or answered to a browser, meets nobody else.
        let is_let_through = !matches!(explained["destination"]["action"].as_str(), Some("refused" | "preflight"));
        let is_asked = authorizer.requests() > before;
        *kinds.entry(format!("asked: {is_asked}")).or_default() += 1;
        if real != told
            || served.as_ref().is_some_and(|served| !services.contains(served))
            || (is_let_through && is_asked != says_that_somebody_is_asked(&explained))
        {
            mismatches.push(format!(
                "{asked:?} to {host}\n  Envoy: {real:?} by {served:?}, asked: {is_asked}\n  told:  {told:?} by {services:?}\n  {explained}"
            ));
        }
    }
    eprintln!("{} routes, {kinds:?}", routes.len());
    assert!(mismatches.is_empty(), "{} mismatches:\n{}", mismatches.len(), mismatches.join("\n"));
    for (kind, least) in [
        ("\"forward\"", 200),
        ("\"redirect\"", 50),
        ("\"respond\"", 50),
        ("\"noRoute\"", 50),
        ("\"refused\"", 10),
        ("\"preflight\"", 5),
        ("asked: true", 300),
        ("asked: false", 100),
    ] {
        let found = kinds.get(kind).copied().unwrap_or(0);
        assert!(found >= least, "too few of {kind}: {kinds:?}");
    }
    Ok(())
}

fn seed() -> Result<u64> {
    match env::var("EXPLAIN_SEED") {
        Ok(seed) => Ok(seed.parse()?),
        Err(_) => Ok(1),
    }
}

async fn explain(scene: &Scene, asked: &generated::Request, host: &str, headers: &[(&str, &str)]) -> Result<Value> {
    let headers: Vec<Value> =
        [("host", host)].iter().chain(headers).map(|(name, value)| json!({ "name": name, "value": value })).collect();
    let url = format!("http://{}{}", scene.web, asked.target());
    let question = json!({ "fleet": "edge", "method": asked.method, "url": url, "headers": headers });
    let answer = scene.api.json(Method::POST, "/api/v1/explain", Some(&question)).await?;
    ensure!(answer.status == 200, "{question}: {}", answer.text());
    let explained = answer.json()?;
    ensure!(explained["listeners"].as_array().map(Vec::len) == Some(1), "{explained}");
    Ok(explained["listeners"][0].clone())
}

fn is_grpc(headers: &[(&str, &str)]) -> bool {
    headers.iter().any(|(name, value)| *name == "content-type" && value.starts_with("application/grpc"))
}

fn real(response: &Response, headers: &[(&str, &str)]) -> Result<Verdict> {
    let seen = match response.header("x-upstream") {
        "" => None,
        _ => {
            let Echo { host, path, query, .. } = serde_json::from_slice(&response.body)?;
            Some([host, path, query])
        }
    };
    Ok(Verdict {
        rule: response.header("x-rule").to_owned(),
        edited: response.header("x-rule").to_owned(),
        status: (!is_grpc(headers)).then_some(response.status),
        location: response.header("location").to_owned(),
        seen,
        shared: !response.header("access-control-allow-origin").is_empty(),
    })
}

fn told(explained: &Value, headers: &[(&str, &str)]) -> Verdict {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let destination = &explained["destination"];
    let forwarded = destination["action"] == "forward";
    let rule = &explained["rule"];
    let index: String = text(&rule["path"]).chars().filter(char::is_ascii_digit).collect();
    let preflight = destination["action"] == "preflight";
    // The proxy answers a browser before the rule has a say.
    let rule = if rule.is_null() || preflight {
        String::new()
    } else {
        format!("{}/{index}", text(&rule["resource"]).trim_start_matches("Route/"))
    };
    let edits = if forwarded { &explained["policies"]["responseHeaders"] } else { &explained["responseHeaders"] };
    let edits = edits["edits"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let edited = edits.filter_map(|edit| edit.strip_prefix("x-rule: ")).next().unwrap_or_default().to_owned();
    let seen = forwarded.then(|| {
        let target = text(&destination["path"]);
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        [text(&destination["host"]), path.to_owned(), query.to_owned()]
    });
    let status = if forwarded {
        Some(200)
    } else {
        destination["status"].as_u64().and_then(|status| u16::try_from(status).ok())
    };
    let shared = if preflight { &destination["allowed"] } else { &explained["policies"]["cors"]["originAllowed"] };
    Verdict {
        rule,
        edited,
        status: status.filter(|_| !is_grpc(headers)),
        location: text(&destination["location"]),
        seen,
        shared: *shared == true,
    }
}

fn served_by(response: &Response) -> Option<String> {
    let name = response.header("x-upstream");
    (!name.is_empty()).then(|| name.to_owned())
}

/// The upstreams that may serve a request.
fn services(explained: &Value) -> Vec<String> {
    let to = explained["destination"]["to"].as_array().into_iter().flatten();
    let upstreams = to.flat_map(|share| {
        let service = share["service"]["resource"].as_str().unwrap_or_default().trim_start_matches("Service/");
        let wanted = share["subset"]["version"].as_str();
        let versions =
            generated::VERSIONS.into_iter().filter(move |version| wanted.is_none_or(|wanted| wanted == *version));
        versions.map(move |version| format!("{service}-{version}"))
    });
    upstreams.collect()
}

fn says_that_somebody_is_asked(explained: &Value) -> bool {
    let guards = explained["guards"].as_array().into_iter().flatten();
    guards.into_iter().any(|guard| guard["from"]["path"] == "spec.externalAuthorization")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_says_which_requests_a_change_moves() -> Result<()> {
    let Some(scene) = Scene::start(Protocol::Delta).await? else { return Ok(()) };
    let [shop, next] = [Upstream::start("shop").await?, Upstream::start("next").await?];
    let rule =
        |path: &str, service: &str| json!({ "match": { "path": { "prefix": path } }, "to": [{ "service": service }] });
    let shop_route = |rules: &Value| route("shop", "shop.example.com", rules);
    let log = scene.folder().join("access.log");
    let file = json!({ "name": "file", "typed_config": { "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": log } });
    let logging = patch(
        "logging",
        json!({ "target": { "kind": "Listener", "name": "web" },
        "path": "filter_chains[0].filters[0].typed_config", "merge": { "access_log": [file] } }),
    );
    let services = [service("shop", &[shop.address]), service("next", &[next.address])];
    scene
        .api
        .apply_and_wait(&[services.as_slice(), &[shop_route(&json!([rule("/", "shop")])), logging]].concat())
        .await?;

    let served_by = async |path: &str| -> Result<String> {
        Ok(scene.fetch(get("shop.example.com", path)).await?.header("x-upstream").to_owned())
    };
    // The listener with the log takes the place of the other one in its own time.
    until("a log that is written", PATIENCE, async || {
        served_by("/first").await?;
        ensure!(fs::read_to_string(&log)?.contains("/first"), "nothing yet");
        Ok(())
    })
    .await?;
    for _ in 0..3 {
        assert_eq!(served_by("/cart?id=7").await?, "shop");
        assert_eq!(served_by("/other").await?, "shop");
    }
    until("three requests in the log", PATIENCE, async || {
        let logged = fs::read_to_string(&log)?.matches("GET /other").count();
        ensure!(logged == 3, "{logged} are there");
        Ok(())
    })
    .await?;

    let user = User::in_folder(scene.folder()).of(&format!("http://{}", scene.control_plane.api), ADMIN_TOKEN);
    let change = shop_route(&json!([rule("/cart", "next"), rule("/", "shop")]));
    fs::write(scene.folder().join("change.json"), change.to_string())?;
    let plan = user.asks("plan -f change.json --traffic access.log --fleet edge -o json").await?;
    let traffic = &plan["traffic"];
    assert_eq!((&traffic["movedRequests"], &traffic["unreadable"]), (&json!(3), &json!(0)), "{plan}");
    let moved = traffic["moved"].as_array().context("a list")?;
    assert_eq!(
        (moved.len(), &moved[0]["request"]["path"], &moved[0]["request"]["count"]),
        (1, &json!("/cart?id=7"), &json!(3))
    );
    let goal = |when: &str| moved[0][when]["destination"]["to"][0]["service"]["resource"].clone();
    assert_eq!([goal("before"), goal("after")], ["Service/shop", "Service/next"]);
    assert_eq!(plan["changed"][0]["name"], "shop");
    let table = user.does("plan -f change.json --traffic access.log -o table", "").await?;
    assert!(table.contains("3 of ") && table.contains("GET shop.example.com/cart?id=7"), "{table}");

    assert_eq!(served_by("/cart?id=7").await?, "shop", "a plan changes nothing");
    scene.api.put_and_wait(&change).await?;
    assert_eq!((served_by("/cart?id=7").await?, served_by("/other").await?), ("next".to_owned(), "shop".to_owned()));
    let plan = user.asks("plan -f change.json --traffic access.log -o json").await?;
    assert_eq!(plan["traffic"]["moved"], json!([]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_are_told_what_decides_and_what_came_nearest() -> Result<()> {
    let Some(scene) = Scene::start(Protocol::Delta).await? else { return Ok(()) };
    let beta = json!([{ "name": "x-beta", "exact": "1" }]);
    let rules = json!([{ "match": { "path": { "prefix": "/api" }, "headers": beta }, "to": [{ "service": "shop" }] }]);
    let shop = service("shop", &[([127, 0, 0, 1], 9).into()]);
    scene.api.apply(&[shop, route("shop", "shop.example.com", &rules)]).await?;
    let user = User::in_folder(scene.folder()).of(&format!("http://{}", scene.control_plane.api), ADMIN_TOKEN);
    let ask = "explain GET http://shop.example.com/api/x --fleet edge";
    let hit = user.runs(&format!("{ask} -H x-beta:1 -o table"), "").await?;
    assert_eq!(hit.code, 0, "{hit:?}");
    for said in
        ["Listener/web (revision 1)", "Route/shop spec.rules[0] (revision 2)", "Service/shop (revision 2)", "15s"]
    {
        assert!(hit.output.contains(said), "{said}: {}", hit.output);
    }
    let miss = user.runs(&format!("{ask} -o json"), "").await?;
    assert_eq!(miss.code, 1, "{miss:?}");
    assert!(
        miss.errors.contains("the nearest is Route/shop spec.rules[0]: wants header x-beta equal to \"1\", not none"),
        "{miss:?}"
    );
    let told: Value = serde_json::from_str(&miss.output)?;
    assert_eq!(told["listeners"][0]["destination"], json!({ "action": "noRoute", "status": 404 }));
    let yaml = user.does(&format!("{ask} -H x-beta:1 -o yaml"), "").await?;
    assert!(yaml.contains("resource: Route/shop"), "{yaml}");
    assert_eq!(user.runs("explain GET shop.example.com --fleet edge", "").await?.code, 1);
    Ok(())
}
