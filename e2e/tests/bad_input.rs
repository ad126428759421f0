//! What is wrong is refused whole, with the place of every problem, and changes nothing.

use anyhow::Result;
use chancery_e2e::{
    api::{Api, check_refusal},
    certificates::Authority,
    control_plane::ControlPlane,
    document::{fleet, listener, resource, route, route_to, service, service_with},
    port::free_port,
};
use http::Method;
use serde_json::{Value, json};

const JSON: (&str, &str) = ("content-type", "application/json");
const YAML: (&str, &str) = ("content-type", "application/yaml");

/// A control plane with a little in it.
struct Target {
    api: Api,
    _control_plane: ControlPlane,
    _folder: tempfile::TempDir,
}

impl Target {
    async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let authority = Authority::create(folder.path(), "authority")?;
        let control_plane = ControlPlane::start_alone(folder.path(), &authority).await?;
        let api = control_plane.caller();
        let shop = service("shop", &[([127, 0, 0, 1], 8080).into()]);
        api.apply(&[
            fleet("edge"),
            listener("web", "edge", free_port()),
            shop,
            route_to("shop", "shop.example.com", "shop"),
        ])
        .await?;
        Ok(Self { api, _control_plane: control_plane, _folder: folder })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_that_cannot_be_read_is_refused() -> Result<()> {
    let Target { api, .. } = &Target::start().await?;
    let before = api.everything().await?;
    let deep = "[".repeat(100_000);
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
                d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n\
                g: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nh: [*g,*g,*g,*g,*g,*g,*g,*g,*g]\n";
    let bodies: [(&str, (&str, &str), Vec<u8>); 12] = [
        ("nothing", JSON, Vec::new()),
        ("half an object", JSON, b"{\"resources\": [".to_vec()),
        ("not JSON", JSON, b"kind: Fleet".to_vec()),
        ("a number", JSON, b"7".to_vec()),
        ("no UTF-8", JSON, vec![b'"', 0xff, 0xfe, b'"']),
        ("nested deeply", JSON, deep.into_bytes()),
        ("a key twice", JSON, br#"{"resources": [], "resources": []}"#.to_vec()),
        ("a tab in YAML", YAML, b"kind:\tFleet\n\tname: x".to_vec()),
        ("an open quote in YAML", YAML, b"kind: \"Fleet".to_vec()),
        ("a YAML bomb", YAML, bomb.as_bytes().to_vec()),
        ("another media type", ("content-type", "text/csv"), b"kind,name".to_vec()),
        ("NUL in YAML", YAML, b"kind: \0Fleet".to_vec()),
    ];
    for (label, content_type, body) in bodies {
        for path in ["/api/v1/apply", "/api/v1/plan"] {
            let answer = api.send(Method::POST, path, &[content_type], body.clone()).await?;
            check_refusal(&format!("{label} at {path}"), &answer)?;
        }
        let answer = api.send(Method::PUT, "/api/v1/routes/shop", &[content_type], body).await?;
        check_refusal(&format!("{label} at a route"), &answer)?;
    }
    assert_eq!(api.everything().await?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_ten_megabytes_is_refused() -> Result<()> {
    let Target { api, .. } = &Target::start().await?;
    let before = api.everything().await?;
    let mut big = fleet("big");
    big["labels"] = json!({ "note": "x".repeat(10 << 20) });
    let answer = api.json(Method::PUT, "/api/v1/fleets/big", Some(&big)).await?;
    check_refusal("10 MB", &answer)?;
    assert_eq!(answer.status, 413);
    assert_eq!(api.everything().await?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_problem_is_reported_with_its_place() -> Result<()> {
    let Target { api, .. } = &Target::start().await?;
    let before = api.everything().await?;
    let rule = |rule: Value| route("bad", "bad.example.com", &json!([rule]));
    let to_shop = |extra: Value| {
        let mut one = json!({ "to": [{ "service": "shop" }] });
        one.as_object_mut().into_iter().for_each(|one| one.extend(extra.as_object().cloned().unwrap_or_default()));
        rule(one)
    };
    let endpoint = [([127, 0, 0, 1], 80).into()];
    let bad_service = |extra: Value| service_with("bad", &endpoint, extra);
    let cases: Vec<(&str, Value, &str)> = vec![
        ("an unknown field", to_shop(json!({ "timeuot": "1s" })), "spec.rules[0].timeuot"),
        ("a wrong type", to_shop(json!({ "timeout": 5 })), "spec.rules[0].timeout"),
        (
            "a broken regex",
            to_shop(json!({ "match": { "path": { "regex": "/a(((b" } } })),
            "spec.rules[0].match.path.regex",
        ),
        (
            "a look-ahead",
            to_shop(json!({ "match": { "path": { "regex": "/a(?=b)" } } })),
            "spec.rules[0].match.path.regex",
        ),
        (
            "a path without slash",
            to_shop(json!({ "match": { "path": { "prefix": "api" } } })),
            "spec.rules[0].match.path.prefix",
        ),
        (
            "two conditions on a path",
            to_shop(json!({ "match": { "path": { "exact": "/a", "prefix": "/" } } })),
            "spec.rules[0].match.path",
        ),
        ("a duration without unit", to_shop(json!({ "timeout": "5" })), "spec.rules[0].timeout"),
        ("a duration of ages", to_shop(json!({ "timeout": "99999999999999999999h" })), "spec.rules[0].timeout"),
        ("a negative duration", to_shop(json!({ "timeout": "-1s" })), "spec.rules[0].timeout"),
        ("no retry condition", to_shop(json!({ "retry": { "on": [] } })), "spec.rules[0].retry.on"),
        ("an unknown retry condition", to_shop(json!({ "retry": { "on": ["moon"] } })), "spec.rules[0].retry.on[0]"),
        ("two actions", to_shop(json!({ "respond": { "status": 200 } })), "spec.rules[0]"),
        ("no action", rule(json!({})), "spec.rules[0]"),
        ("a status out of range", rule(json!({ "respond": { "status": 99 } })), "spec.rules[0].respond.status"),
        ("an unknown service", rule(json!({ "to": [{ "service": "ghost" }] })), "spec.rules[0].to[0].service"),
        (
            "a bad header name",
            to_shop(json!({ "match": { "headers": [{ "name": "a b", "exact": "1" }] } })),
            "spec.rules[0].match.headers[0].name",
        ),
        (
            "a header value of two lines",
            to_shop(json!({ "headers": { "request": { "set": [{ "name": "x-a", "value": "1\r\nx-b: 2" }] } } })),
            "spec.rules[0].headers.request.set[0].value",
        ),
        (
            "a bad host",
            resource(
                "Route",
                "bad",
                json!({ "listeners": ["edge/web"], "hosts": ["a..b"], "rules": [{ "to": [{ "service": "shop" }] }] }),
            ),
            "spec.hosts[0]",
        ),
        (
            "an unknown listener",
            resource(
                "Route",
                "bad",
                json!({ "listeners": ["edge/ghost"], "hosts": ["x.test"], "rules": [{ "to": [{ "service": "shop" }] }] }),
            ),
            "spec.listeners[0]",
        ),
        ("a claimed host", route_to("bad", "shop.example.com", "shop"), "spec.rules[0].match"),
        ("port zero", service("bad", &[([127, 0, 0, 1], 0).into()]), "spec.endpoints[0].port"),
        (
            "a port too large",
            resource("Service", "bad", json!({ "endpoints": [{ "address": "10.0.0.1", "port": 70000 }] })),
            "spec.endpoints[0].port",
        ),
        (
            "an address that is none",
            resource("Service", "bad", json!({ "endpoints": [{ "address": "10.0.0", "port": 80 }] })),
            "spec.endpoints[0].address",
        ),
        ("an unknown protocol", bad_service(json!({ "protocol": "http9" })), "spec.protocol"),
        (
            "a percentage above 100",
            bad_service(json!({ "outlierDetection": { "maxEjectedPercent": 101 } })),
            "spec.outlierDetection.maxEjectedPercent",
        ),
        ("a check without path", bad_service(json!({ "healthCheck": { "interval": "5s" } })), "spec.healthCheck"),
        ("an unknown fleet", listener("bad", "ghost", 10000), "spec.fleet"),
        (
            "https without certificate",
            resource("Listener", "bad", json!({ "fleet": "edge", "port": 10443, "protocol": "https" })),
            "spec.tls",
        ),
        ("a name with traversal", fleet("../../etc/passwd"), "name"),
        ("a name in capitals", fleet("Edge"), "name"),
        ("a name too long", fleet(&"a".repeat(64)), "name"),
        ("an unknown kind", resource("Router", "bad", json!({})), "kind"),
        ("a spec that is a list", resource("Fleet", "bad", json!([])), "spec"),
    ];
    let mut wrong = Vec::new();
    for (label, document, wanted) in &cases {
        let answer = api.json(Method::POST, "/api/v1/apply", Some(&json!({ "resources": [document] }))).await?;
        let problem = check_refusal(label, &answer)?;
        let places: Vec<_> =
            problem["problems"].as_array().into_iter().flatten().filter_map(|p| p["path"].as_str()).collect();
        if !places.iter().any(|place| place.starts_with(wanted)) {
            wrong.push(format!("{label}: not at {wanted} but {}", problem["problems"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // All at once: as many problems as resources, each with the resource it is about.
    let all: Vec<Value> = cases
        .iter()
        .filter(|(_, document, _)| document["name"] == "bad")
        .enumerate()
        .map(|(number, (_, document, _))| {
            let mut document = document.clone();
            document["name"] = json!(format!("bad-{number}"));
            document
        })
        .collect();
    let answer = api.json(Method::POST, "/api/v1/apply", Some(&json!({ "resources": all }))).await?;
    let problem = check_refusal("all at once", &answer)?;
    let about: std::collections::BTreeSet<_> =
        problem["problems"].as_array().into_iter().flatten().filter_map(|p| p["resource"].as_str()).collect();
    // What refers to something is checked only once every resource can be read.
    assert!(about.len() > all.len() / 2, "problems of {} of {} resources: {problem}", about.len(), all.len());
    assert_eq!(api.everything().await?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_resource_refuses_the_good_ones_beside_it() -> Result<()> {
    let Target { api, .. } = &Target::start().await?;
    let before = api.everything().await?;
    let good = service("good", &[([127, 0, 0, 1], 80).into()]);
    let body = json!({ "resources": [good, route_to("bad", "bad.example.com", "ghost")] });
    check_refusal("one bad", &api.json(Method::POST, "/api/v1/apply", Some(&body)).await?)?;
    // A deletion that would leave a reference without its end, too.
    check_refusal("in use", &api.json(Method::DELETE, "/api/v1/services/shop", None).await?)?;
    check_refusal("in use", &api.json(Method::DELETE, "/api/v1/listeners/web", None).await?)?;
    check_refusal("in use", &api.json(Method::DELETE, "/api/v1/fleets/edge", None).await?)?;
    assert_eq!(api.everything().await?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_requests_are_refused_in_form() -> Result<()> {
    let Target { api, .. } = &Target::start().await?;
    let before = api.everything().await?;
    let shop = api.read("/api/v1/routes/shop").await?;
    type Headers<'a> = Vec<(&'a str, &'a str)>;
    let cases: Vec<(Method, String, Headers<'_>, Option<&Value>)> = vec![
        (Method::GET, "/api/v1/routes/ghost".into(), vec![], None),
        (Method::GET, "/api/v1/moons".into(), vec![], None),
        (Method::GET, "/api/v1/routes/..%2F..%2Fetc%2Fpasswd".into(), vec![], None),
        (Method::GET, "/api/v1/routes/%00".into(), vec![], None),
        (Method::GET, format!("/api/v1/routes/{}", "a".repeat(4000)), vec![], None),
        (Method::GET, "/api/v1/routes?limit=-1".into(), vec![], None),
        (Method::GET, "/api/v1/routes?limit=99999999999999999999".into(), vec![], None),
        (Method::GET, "/api/v1/routes?cursor=%FF".into(), vec![], None),
        (Method::GET, "/api/v1/revisions/0".into(), vec![], None),
        (Method::GET, "/api/v1/revisions/18446744073709551615".into(), vec![], None),
        (Method::GET, "/api/v1/revisions/one".into(), vec![], None),
        (Method::DELETE, "/api/v1/routes/ghost".into(), vec![], None),
        (Method::PUT, "/api/v1/routes/other".into(), vec![JSON], Some(&shop)),
        (Method::PUT, "/api/v1/services/shop".into(), vec![JSON], Some(&shop)),
        (Method::PUT, "/api/v1/routes/shop?wait=forever".into(), vec![JSON], Some(&shop)),
        (Method::PUT, "/api/v1/routes/shop?timeout=soon&wait=applied".into(), vec![JSON], Some(&shop)),
        (Method::PUT, "/api/v1/routes/shop?dryRun=perhaps".into(), vec![JSON], Some(&shop)),
        (Method::PUT, "/api/v1/routes/shop".into(), vec![JSON, ("if-match", "\"999\"")], Some(&shop)),
        (Method::PUT, "/api/v1/routes/shop".into(), vec![JSON, ("if-match", "moon")], Some(&shop)),
        (Method::PUT, "/api/v1/routes/shop".into(), vec![JSON, ("if-none-match", "*")], Some(&shop)),
    ];
    for (method, path, headers, body) in cases {
        let label = format!("{method} {path} {headers:?}");
        let body = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        check_refusal(&label, &api.send(method, &path, &headers, body).await?)?;
    }
    assert_eq!(api.everything().await?, before);
    Ok(())
}
