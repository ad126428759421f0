//! Which endpoint a real Envoy sends a request to, as a `Service` says.

use std::{collections::BTreeSet, net::SocketAddr};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    client::{Response, request},
    document::{listener, resource, route, service_with},
    over_both_protocols,
    scene::Scene,
    upstream::{HEALTH_PATH, Upstream},
    wait::{PATIENCE, until},
};
use http::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// A host of the routes here.
const HOST: &str = "shop.example.com";

/// Requests after which chance has been everywhere it can come to.
const MANY: usize = 60;

over_both_protocols!(Delta in delta: what_requests_have_in_common_brings_them_to_one_endpoint, too_few_healthy_endpoints_are_no_reason_to_panic, clients_come_back_to_their_endpoint, others_wait_until_they_are_needed, who_is_well_is_found_in_every_way, both_sides_are_told_who_the_client_is);

async fn start<const N: usize>(names: [&str; N]) -> Result<Vec<Upstream>> {
    let mut upstreams = Vec::new();
    for name in names {
        upstreams.push(Upstream::start(name).await?);
    }
    Ok(upstreams)
}

fn addresses(upstreams: &[Upstream]) -> Vec<SocketAddr> {
    upstreams.iter().map(|upstream| upstream.address).collect()
}

async fn fetch(scene: &Scene, path: &str, headers: &[(&str, &str)]) -> Result<Response> {
    let response = scene.fetch(request(Method::GET, HOST, path, headers)).await?;
    ensure!(response.status == 200, "{} {}", response.status, response.text());
    Ok(response)
}

/// Who has answered so many requests.
async fn answering(scene: &Scene, requests: usize, path: &str, headers: &[(&str, &str)]) -> Result<BTreeSet<String>> {
    let mut seen = BTreeSet::new();
    for _ in 0..requests {
        seen.insert(fetch(scene, path, headers).await?.header("x-upstream").to_owned());
    }
    Ok(seen)
}

/// Has `shop` balance so over the upstreams, and sends everything there.
async fn balance(scene: &Scene, upstreams: &[Upstream], mut more: Value, load_balancing: Value) -> Result<()> {
    more["loadBalancing"] = load_balancing;
    let rules = json!([{ "to": [{ "service": "shop" }] }]);
    let resources = [service_with("shop", &addresses(upstreams), more), route("shop", HOST, &rules)];
    scene.api.apply_and_wait(&resources).await.map(drop)
}

async fn what_requests_have_in_common_brings_them_to_one_endpoint(scene: &Scene) -> Result<()> {
    let shop = start(["a", "b", "c", "d"]).await?;
    let users: Vec<String> = (0..MANY).map(|user| format!("user-{user}")).collect();
    for policy in ["maglev", "ring-hash"] {
        let hash = json!([
            { "header": "x-user", "terminal": true },
            { "query": "account", "terminal": true },
            { "cookie": { "name": "sid", "ttl": "1h", "path": "/" } },
        ]);
        balance(scene, &shop, json!({}), json!({ "policy": policy, "hash": hash })).await?;
        let mut by_user = BTreeSet::new();
        for user in &users {
            let one = answering(scene, 3, "/", &[("x-user", user)]).await?;
            assert_eq!(one.len(), 1, "{policy}: {user} is sent to {one:?}");
            // What comes after is not looked at.
            assert_eq!(answering(scene, 1, &format!("/?account={user}x"), &[("x-user", user)]).await?, one);
            by_user.extend(one);
        }
        assert_eq!(by_user.len(), shop.len(), "{policy}: all are used");
        for user in &users[..5] {
            assert_eq!(answering(scene, 3, &format!("/?account={user}"), &[]).await?.len(), 1, "{policy}");
        }
        // Nobody is known, so the proxy makes a cookie, and knows it again.
        let first = fetch(scene, "/", &[]).await?;
        let made = first.header("set-cookie");
        let cookie =
            made.split(';').next().filter(|cookie| cookie.starts_with("sid=")).context("there is no cookie")?;
        assert!(made.contains("Max-Age=3600") && made.contains("Path=/") && made.contains("HttpOnly"), "{made}");
        let again = answering(scene, 10, "/", &[("cookie", cookie)]).await?;
        assert_eq!(again.into_iter().collect::<Vec<_>>(), [first.header("x-upstream")]);
        assert_eq!(fetch(scene, "/", &[("cookie", cookie)]).await?.header("set-cookie"), "", "{policy}");
    }
    let by_address = json!({ "policy": "maglev", "hash": [{ "remoteAddress": true }] });
    balance(scene, &shop, json!({}), by_address).await?;
    assert_eq!(answering(scene, MANY, "/", &[]).await?.len(), 1);
    for policy in [json!("random"), json!("round-robin"), json!({ "policy": "least-request" })] {
        balance(scene, &shop, json!({}), policy.clone()).await?;
        assert_eq!(answering(scene, 3 * MANY, "/", &[("x-user", "one")]).await?.len(), shop.len(), "{policy}");
    }

    // Of two services, each hashes what it says itself.
    let by = |header: &str| json!({ "loadBalancing": { "policy": "maglev", "hash": [{ "header": header }] } });
    let rules = json!([{ "to": [{ "service": "one", "weight": 50 }, { "service": "two", "weight": 50 }] }]);
    let (one, two) = shop.split_at(2);
    let services =
        [service_with("one", &addresses(one), by("x-one")), service_with("two", &addresses(two), by("x-two"))];
    scene.api.apply_and_wait(&[services.as_slice(), &[route("shop", HOST, &rules)]].concat()).await?;
    let both = answering(scene, MANY, "/", &[("x-one", "7"), ("x-two", "7")]).await?;
    assert_eq!(both.len(), 2, "one of each: {both:?}");
    let three = answering(scene, 2 * MANY, "/", &[("x-one", "7")]).await?;
    assert_eq!(three.len(), 3, "one of the first, both of the second: {three:?}");
    Ok(())
}

async fn too_few_healthy_endpoints_are_no_reason_to_panic(scene: &Scene) -> Result<()> {
    let shop = start(["well", "ill", "worse"]).await?;
    shop[1].answer_health_checks_with(500);
    shop[2].answer_health_checks_with(500);
    let check = json!({ "healthCheck": { "path": HEALTH_PATH, "interval": "100ms", "unhealthyAfter": 1 } });
    let start = json!({ "window": "1s", "minWeightPercent": 50 });
    balance(scene, &shop, check.clone(), json!({ "panicThreshold": 0, "slowStart": start })).await?;
    scene.envoy.wait_for_stat("cluster.shop.membership_healthy", |healthy| healthy == 1).await?;
    assert_eq!(answering(scene, MANY, "/", &[]).await?.into_iter().collect::<Vec<_>>(), ["well"]);
    // A third is below Envoy's own half, so all are asked.
    balance(scene, &shop, check, json!("round-robin")).await?;
    scene.envoy.wait_for_stat("cluster.shop.membership_healthy", |healthy| healthy == 1).await?;
    assert_eq!(answering(scene, MANY, "/", &[]).await?.len(), 3);
    Ok(())
}

async fn clients_come_back_to_their_endpoint(scene: &Scene) -> Result<()> {
    let shop = start(["a", "b", "c", "d"]).await?;
    let by_cookie = json!({ "sessionAffinity": { "cookie": { "name": "sid", "ttl": "1h" } } });
    balance(scene, &shop[..2], by_cookie.clone(), json!("round-robin")).await?;
    let first = fetch(scene, "/", &[]).await?;
    let made = first.header("set-cookie");
    let cookie = made.split(';').next().filter(|cookie| cookie.starts_with("sid=")).context("there is no cookie")?;
    assert!(made.contains("Max-Age=3600") && made.contains("Path=/"), "{made}");
    let mine = first.header("x-upstream");
    let other = if mine == "a" { "b" } else { "a" };
    let to_mine = [("cookie", cookie)];
    assert_eq!(answering(scene, MANY, "/", &to_mine).await?.into_iter().collect::<Vec<_>>(), [mine]);
    assert_eq!(answering(scene, MANY, "/", &[]).await?.len(), 2, "others go where they are sent");
    // Twice as many endpoints: a hash would move.
    balance(scene, &shop, by_cookie.clone(), json!("round-robin")).await?;
    assert_eq!(answering(scene, MANY, "/", &to_mine).await?.into_iter().collect::<Vec<_>>(), [mine]);
    // It is gone, and the client gets another one and keeps that.
    let left: Vec<_> = shop.iter().enumerate().filter(|(index, _)| ["a", "b", "c", "d"][*index] != mine).collect();
    let left: Vec<SocketAddr> = left.into_iter().map(|(_, upstream)| upstream.address).collect();
    scene.api.apply_and_wait(&[service_with("shop", &left, by_cookie)]).await?;
    let again = fetch(scene, "/", &to_mine).await?;
    assert_ne!(again.header("x-upstream"), mine);
    let cookie = again.header("set-cookie").split(';').next().unwrap_or_default().to_owned();
    let seen = answering(scene, MANY, "/", &[("cookie", &cookie)]).await?;
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [again.header("x-upstream")], "{other} is still there");

    // Of two services, each keeps its own.
    let by = |header: &str| json!({ "sessionAffinity": { "header": header } });
    let rules = json!([{ "to": [{ "service": "one", "weight": 50 }, { "service": "two", "weight": 50 }] }]);
    let (one, two) = shop.split_at(2);
    let services =
        [service_with("one", &addresses(one), by("x-one")), service_with("two", &addresses(two), by("x-two"))];
    scene.api.apply_and_wait(&[services.as_slice(), &[route("shop", HOST, &rules)]].concat()).await?;
    let mut sessions = std::collections::BTreeMap::new();
    for _ in 0..MANY {
        let response = fetch(scene, "/", &[]).await?;
        for name in ["x-one", "x-two"].into_iter().filter(|name| !response.header(name).is_empty()) {
            sessions.insert(name, (response.header(name).to_owned(), response.header("x-upstream").to_owned()));
        }
    }
    let headers: Vec<(&str, &str)> = sessions.iter().map(|(name, (value, _))| (*name, value.as_str())).collect();
    let wanted: BTreeSet<String> = sessions.values().map(|(_, upstream)| upstream.clone()).collect();
    assert_eq!((headers.len(), wanted.len()), (2, 2), "{sessions:?}");
    assert_eq!(answering(scene, MANY, "/", &headers).await?, wanted);

    // Nothing but the service says that this ends.
    let services = [service_with("one", &addresses(one), json!({})), service_with("two", &addresses(two), json!({}))];
    scene.api.apply_and_wait(&services).await?;
    assert_eq!(answering(scene, 3 * MANY, "/", &headers).await?.len(), 4);
    Ok(())
}

async fn others_wait_until_they_are_needed(scene: &Scene) -> Result<()> {
    let shop = start(["first", "second", "last"]).await?;
    let at = |upstream: &Upstream, priority: u32| json!({ "address": upstream.address.ip(), "port": upstream.address.port(), "priority": priority });
    let spec = json!({
        "registered": true,
        "endpoints": [at(&shop[2], 7), at(&shop[0], 0)],
        "healthCheck": { "path": HEALTH_PATH, "interval": "100ms", "unhealthyAfter": 1, "healthyAfter": 1 },
        "loadBalancing": { "overprovisioningFactor": 100 },
    });
    let rules = json!([{ "to": [{ "service": "shop" }] }]);
    scene.api.apply_and_wait(&[resource("Service", "shop", spec), route("shop", HOST, &rules)]).await?;
    let only = async |wanted: &str| {
        until(&format!("all goes to {wanted}"), PATIENCE, async || {
            let seen = answering(scene, 20, "/", &[]).await?;
            ensure!(seen.iter().eq([wanted]), "it goes to {seen:?}");
            Ok(())
        })
        .await
    };
    only("first").await?;
    shop[0].answer_health_checks_with(500);
    only("last").await?;
    // One that registers itself is nearer.
    let mut second = at(&shop[1], 3);
    second["ttl"] = "10m".into();
    let answer = scene.api.json(Method::PUT, "/api/v1/services/shop/endpoints/second", Some(&second)).await?;
    ensure!(answer.status < 300, "{} {}", answer.status, answer.text());
    only("second").await?;
    shop[0].answer_health_checks_with(200);
    only("first").await
}

async fn who_is_well_is_found_in_every_way(scene: &Scene) -> Result<()> {
    let shop = start(["a", "b"]).await?;
    let healthy =
        async |wanted: u64| scene.envoy.wait_for_stat("cluster.shop.membership_healthy", |n| n == wanted).await;
    let often = |mut check: Value| {
        check["interval"] = "100ms".into();
        check["unhealthyAfter"] = 1.into();
        check["healthyAfter"] = 1.into();
        json!({ "healthCheck": check })
    };
    shop[1].answer_health_checks_with(204);
    balance(scene, &shop, often(json!({ "path": HEALTH_PATH })), json!("round-robin")).await?;
    healthy(1).await?;
    balance(scene, &shop, often(json!({ "path": HEALTH_PATH, "statuses": [204, 200] })), json!("round-robin")).await?;
    healthy(2).await?;
    // Nobody here knows gRPC's health service, and both take connections.
    let mut grpc = often(json!({ "grpc": { "service": "shop.v1.Checkout" } }));
    grpc["protocol"] = "http2".into();
    balance(scene, &shop, grpc, json!("round-robin")).await?;
    healthy(0).await?;
    balance(scene, &shop, often(json!({ "tcp": true })), json!("round-robin")).await?;
    healthy(2).await?;

    // Every answer of one is a failure, but never so many in a row.
    shop[0].answer_with(500);
    let outliers = json!({
        "consecutive5xx": 100_000, "failurePercent": 50, "minEndpoints": 2, "minRequests": 5,
        "interval": "200ms", "ejectFor": "1h", "maxEjectedPercent": 50,
    });
    balance(scene, &shop, json!({ "outlierDetection": outliers }), json!("round-robin")).await?;
    until("the failing one is out", PATIENCE, async || {
        for _ in 0..20 {
            let answer = scene.fetch(request(Method::GET, HOST, "/", &[])).await?;
            ensure!(answer.status == 200, "{}", answer.status);
        }
        Ok(())
    })
    .await?;
    assert_eq!(scene.envoy.stat("cluster.shop.outlier_detection.ejections_enforced_failure_percentage").await?, 1);
    Ok(())
}

/// Answers each connection with what it began with, up to the end of a request's head.
async fn repeat(listener: TcpListener) -> Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        let mut head = Vec::new();
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            let mut some = [0; 1024];
            match timeout(PATIENCE, stream.read(&mut some)).await?? {
                0 => break,
                read => head.extend_from_slice(&some[..read]),
            }
        }
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", head.len());
        stream.write_all(answer.as_bytes()).await?;
        stream.write_all(&head).await?;
    }
}

/// Sends this, and returns all that comes back.
async fn exchange(to: SocketAddr, text: &str) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(to).await?;
    stream.write_all(text.as_bytes()).await?;
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.context("it does not end")??;
    Ok(answer)
}

async fn both_sides_are_told_who_the_client_is(scene: &Scene) -> Result<()> {
    let upstream = TcpListener::bind("127.0.0.1:0").await?;
    let at = upstream.local_addr()?;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(repeat(upstream));
    let mut web = listener("web", "edge", scene.web.port());
    web["spec"]["proxyProtocol"] = true.into();
    let rules = json!([{ "to": [{ "service": "shop" }] }]);
    let shop = |version: &str| service_with("shop", &[at], json!({ "proxyProtocol": version }));
    scene.api.apply_and_wait(&[web, shop("v1"), route("shop", HOST, &rules)]).await?;

    let request = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\r\n");
    let from = |address: &str| format!("PROXY TCP4 {address} 198.51.100.1 4711 443\r\n{request}");
    // The old listener may still take connections for a moment.
    let answer = until("the listener believes who is in front", PATIENCE, async || {
        let answer = String::from_utf8(exchange(scene.web, &from("203.0.113.7")).await?)?;
        ensure!(answer.contains("x-forwarded-for: 203.0.113.7\r\n"), "{answer}");
        Ok(answer)
    })
    .await?;
    assert!(answer.contains("PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\nGET / HTTP/1.1\r\n"), "{answer}");
    // No connection is used on behalf of another client.
    let answer = String::from_utf8(exchange(scene.web, &from("203.0.113.8")).await?)?;
    assert!(answer.contains("PROXY TCP4 203.0.113.8 "), "{answer}");
    assert_eq!(exchange(scene.web, &request).await.unwrap_or_default(), b"", "who says nothing is not served");

    scene.api.apply_and_wait(&[shop("v2")]).await?;
    let answer = exchange(scene.web, &from("203.0.113.9")).await?;
    let begins = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11".as_slice(), &[0, 12, 203, 0, 113, 9, 198, 51, 100, 1]].concat();
    assert!(answer.windows(begins.len()).any(|part| part == begins), "{}", String::from_utf8_lossy(&answer));
    Ok(())
}
