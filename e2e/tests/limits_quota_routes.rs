//! `enforcement: quota`, from the resource to the refusal: Envoy decides by itself, within what the limiter assigns.
//!
//! Periods are hours, so that what was used stays used. A client's first requests come before its proxy has been
//! assigned a share, which takes milliseconds; so a client may be admitted some requests more, and no count here is exact.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use chancery_e2e::{
    client::{Response, fetch, request},
    document::{fleet_asking, limit_per_key, limited_route, resource},
    limited::{HOST, Limited, as_client, call, newcomer},
    load::Load,
    over_both_protocols,
    scene::Scene,
    wait::{PATIENCE, until},
};
use http::{HeaderValue, Method};
use serde_json::{Value, json};

over_both_protocols!(
    a_proxy_refuses_by_itself,
    a_quota_stands_beside_a_limit_that_is_asked_for,
    leaving_out_the_key_is_no_way_around,
);

over_both_protocols!(
    Delta in over_delta:
    strangers_cannot_count_as_others,
    keys_that_clients_make_up_end_no_quota,
    without_the_limiter_the_fleet_says_what_happens
);

/// More than a client with a burst of three is admitted: these, and the ones before the share arrived.
const CLEARLY_BEYOND: usize = 40;

/// More keys than a proxy has shares of.
const MADE_UP: u64 = 10_500;

/// How long so many may take, and Envoy to report after that.
const REPORTED: Duration = Duration::from_secs(60);

fn quota(name: &str) -> Value {
    limit_per_key(name, 3, "1h", json!({ "enforcement": "quota" }))
}

/// Has the proxies admit what they have no share for yet.
async fn admit_at_first(scene: &Scene, shop: &Limited) -> Result<()> {
    let fleet = fleet_asking("edge", &[shop.limiter.grpc], json!({ "onFailure": "allow" }));
    scene.api.put_and_wait(&fleet).await?;
    Ok(())
}

/// Calls as ever new clients until one is refused soon. A proxy that could not reach the limiter at once tries again
/// only with its next report, five seconds later.
async fn in_force(scene: &Scene) -> Result<()> {
    until("shares are assigned", PATIENCE, async || {
        let client = newcomer();
        for _ in 0..CLEARLY_BEYOND {
            if call(scene, &client).await?.status == 429 {
                return Ok(());
            }
        }
        bail!("{client} is not limited")
    })
    .await
}

/// Sends requests until one is refused; the refusal, and how many were admitted before.
async fn refused(what: &str, mut send: impl AsyncFnMut() -> Result<Response>) -> Result<(Response, usize)> {
    let mut admitted = 0;
    let refusal = until(what, PATIENCE, async || {
        let response = send().await?;
        admitted += usize::from(response.status == 200);
        ensure!(response.status == 429, "{} after {admitted} admitted", response.status);
        Ok(response)
    })
    .await?;
    ensure!(admitted <= CLEARLY_BEYOND, "{admitted} were admitted");
    Ok((refusal, admitted))
}

async fn a_proxy_refuses_by_itself(scene: &Scene) -> Result<()> {
    let listeners = "^listener_manager\\.(listener_(added|modified|removed)|total_listeners_draining)$";
    let shop = Limited::start(scene, &[], &[]).await?;
    admit_at_first(scene, &shop).await?;
    let before = scene.envoy.stats(listeners).await?;
    shop.limit(scene, &[quota("per-client")]).await?;
    assert_eq!(scene.envoy.stats(listeners).await?, before, "the first quota touched listeners");
    in_force(scene).await?;

    assert_eq!(call(scene, "ann").await?.status, 200, "what has no share yet is admitted");
    let (refusal, admitted) = refused("ann is refused", async || call(scene, "ann").await).await?;
    ensure!(admitted >= 2, "{admitted} of three were admitted");
    assert_eq!((refusal.header("x-ratelimit-limit"), &*refusal.text()), ("", ""));
    let reached = shop.upstream.requests();
    assert_eq!(call(scene, "ann").await?.status, 429);
    assert_eq!(shop.upstream.requests(), reached, "a refused request went on to the service");
    assert_eq!(call(scene, "bob").await?.status, 200, "another key has a share of its own");
    let metrics = shop.limiter.metrics().await?;
    ensure!(metrics.contains("chancery_rate_limiter_requests_total{result=\"ok\"} 0"), "was asked: {metrics}");

    // What is refused is refused to gRPC clients in their own way.
    let grpc = || request(Method::POST, HOST, "/", &[("x-api-key", "ann"), ("content-type", "application/grpc")]);
    assert_eq!(fetch(scene.web, grpc()).await?.header("grpc-status"), "8");

    // The proxy reports what it admitted and refused, which counts as decisions.
    until("reports are counted", PATIENCE, async || {
        let metrics = shop.limiter.metrics().await?;
        let counted = |outcome: &str| {
            let series = format!("outcome=\"{outcome}\"}} ");
            let decisions = metrics.lines().filter(|line| line.starts_with("chancery_rate_limiter_decisions_total"));
            decisions.filter_map(|line| line.split_once(&series)?.1.parse::<u64>().ok()).sum::<u64>()
        };
        ensure!(counted("ok") >= 3 && counted("over_limit") >= 1, "{metrics}");
        Ok(())
    })
    .await?;

    shop.limit(scene, &[]).await?;
    assert_eq!(call(scene, "ann").await?.status, 200, "a limit that was taken away limits no more");
    Ok(())
}

async fn a_quota_stands_beside_a_limit_that_is_asked_for(scene: &Scene) -> Result<()> {
    let both = [quota("by-proxy"), limit_per_key("by-limiter", 1_000, "1h", json!({}))];
    let shop = Limited::start(scene, &both, &[]).await?;
    admit_at_first(scene, &shop).await?;
    in_force(scene).await?;
    let admitted = call(scene, "ann").await?;
    assert_eq!((admitted.status, admitted.header("x-ratelimit-remaining")), (200, "999"));
    let (_, admitted) = refused("the proxy refuses", async || call(scene, "ann").await).await?;
    let next = call(scene, "bob").await?;
    assert_eq!(next.header("x-ratelimit-remaining"), "999", "bob's first: {next:?}");
    ensure!(admitted < 10, "{admitted}");

    let third = [quota("another")];
    let twice = limited_route("shop", HOST, "shop", &["by-proxy", "another"]);
    let refusal = scene.api.apply(&[third[0].clone(), twice]).await.expect_err("a rule with two quotas was accepted");
    let expected = "rules[0].rateLimits[1]";
    ensure!(format!("{refusal:#}").contains(expected), "{refusal:#} does not say {expected}");
    Ok(())
}

async fn leaving_out_the_key_is_no_way_around(scene: &Scene) -> Result<()> {
    let shop = Limited::start(scene, &[quota("per-client")], &[]).await?;
    admit_at_first(scene, &shop).await?;
    in_force(scene).await?;
    let anonymous = || request(Method::GET, HOST, "/", &[]);
    refused("nobody is somebody", async || fetch(scene.web, anonymous()).await).await?;
    // The same cell, under another name in the proxy.
    refused("an empty key is as good as none", async || call(scene, "").await).await?;

    let mut optional = quota("optional");
    optional["spec"]["key"] = json!([{ "header": "x-api-key", "absent": "skip" }]);
    shop.limit(scene, &[optional]).await?;
    in_force(scene).await?;
    for _ in 0..CLEARLY_BEYOND {
        assert_eq!(fetch(scene.web, anonymous()).await?.status, 200);
    }
    refused("ann has a key", async || call(scene, "ann").await).await?;
    Ok(())
}

async fn strangers_cannot_count_as_others(scene: &Scene) -> Result<()> {
    let spec = json!({
        "key": [{ "header": "x-api-key" }, { "query": "account" }, { "path": true }, { "method": true },
            { "remoteAddress": true }, { "constant": { "key": "tier", "value": "gold" } }],
        "limit": { "requests": 3, "per": "1h" },
        "enforcement": "quota",
    });
    let shop = Limited::start(scene, &[resource("RateLimit", "by-all", spec)], &[]).await?;
    admit_at_first(scene, &shop).await?;
    in_force(scene).await?;
    let send = async |path: &str, key: &[u8]| {
        let mut request = request(Method::GET, HOST, path, &[]);
        request.headers_mut().insert("x-api-key", HeaderValue::from_bytes(key)?);
        fetch(scene.web, request).await
    };
    // Keys that would break out of a text, and bytes that are none.
    for key in [b"ann".as_slice(), br#"ann"],["path","/"#, b"\xff\xfe", &[b'x'; 20_000]] {
        refused("every key is limited", async || send("/one?account=1", key).await).await?;
        assert_eq!(send("/one?account=1", key).await?.status, 429);
        assert_eq!(send("/one?account=2", key).await?.status, 200, "another account");
        assert_eq!(send("/two?account=1", key).await?.status, 200, "another path");
    }
    let checked = shop.limiter.json("/limits").await?;
    ensure!(checked.to_string().contains("by-all"), "{checked}");
    Ok(())
}

/// Envoy reports all its buckets in one message.
async fn keys_that_clients_make_up_end_no_quota(scene: &Scene) -> Result<()> {
    let shop = Limited::start(scene, &[quota("per-client")], &[]).await?;
    admit_at_first(scene, &shop).await?;
    in_force(scene).await?;
    refused("ann is refused", async || call(scene, "ann").await).await?;
    let strangers = Load::start(scene.web, 8, || as_client(&newcomer()));
    until("there are more than a proxy may have", REPORTED, async || {
        let so_far = strangers.so_far().requests();
        ensure!(so_far > MADE_UP, "{so_far}");
        Ok(())
    })
    .await?;
    strangers.stop().await?;
    let counted = async || -> Result<u64> {
        let metrics = shop.limiter.metrics().await?;
        let refused = metrics.lines().filter_map(|line| line.split_once("outcome=\"over_limit\"} "));
        Ok(refused.filter_map(|(_, count)| count.parse::<u64>().ok()).sum())
    };
    for report in ["the next report is taken", "another is taken on the same stream"] {
        let before = counted().await?;
        assert_eq!(call(scene, "ann").await?.status, 429);
        until(report, REPORTED, async || {
            ensure!(counted().await? > before, "nothing more than {before} was counted");
            Ok(())
        })
        .await?;
    }
    assert_eq!(call(scene, "ann").await?.status, 429);
    Ok(())
}

async fn without_the_limiter_the_fleet_says_what_happens(scene: &Scene) -> Result<()> {
    let mut shop = Limited::start(scene, &[quota("per-client")], &[]).await?;
    let ann = newcomer();
    scene.fetch_until("the share arrives", as_client(&ann), |response| response.status == 200).await?;
    shop.limiter.kill();
    for _ in 0..3 {
        assert_eq!(call(scene, &newcomer()).await?.status, 429, "onFailure: deny");
    }
    admit_at_first(scene, &shop).await?;
    scene.fetch_until("nobody decides", as_client(&newcomer()), |response| response.status == 200).await?;
    let bob = newcomer();
    for _ in 0..CLEARLY_BEYOND {
        assert_eq!(call(scene, &bob).await?.status, 200, "onFailure: allow");
    }
    shop.limiter.start_again().await?;
    // Proxies report, and so connect, every five seconds.
    scene.fetch_until("the limit holds again", as_client("ann"), |response| response.status == 429).await?;
    Ok(())
}
