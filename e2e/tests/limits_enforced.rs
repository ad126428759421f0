//! Limits end to end: written to the control plane, decided by a real limiter, enforced by a real Envoy.
//!
//! Periods are hours, so that what was used stays used for as long as a test takes.

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    client::{fetch, request},
    document::{fleet_asking, limit_per_key, limited_route, resource},
    limited::{HOST, Limited, as_client, call, calls, in_force, newcomer},
    limiter::{Client, Limiter},
    over_both_protocols,
    redis::Redis,
    scene::Scene,
    wait::{PATIENCE, until},
};
use http::Method;
use serde_json::{Value, json};
use tonic::Code;

over_both_protocols!(
    beyond_the_limit_is_429,
    an_edited_limit_goes_on_from_what_was_used,
    a_limit_that_is_taken_away_limits_no_more,
    shadow_refuses_nobody,
    several_limits_are_all_or_nothing,
);

// Nothing here goes through Envoy's configuration in another way.
over_both_protocols!(
    Delta in over_delta:
    a_domain_is_for_its_own_fleet,
    two_limiters_on_one_redis_count_together
);

fn per_client(requests: u32, more: Value) -> Value {
    limit_per_key("per-client", requests, "1h", more)
}

async fn beyond_the_limit_is_429(scene: &Scene) -> Result<()> {
    let limit = per_client(3, json!({ "denied": { "body": "{\"error\":\"slow down\"}" } }));
    let shop = Limited::start(scene, &[limit], &[]).await?;
    in_force(scene, 3).await?;
    let reached = shop.upstream.requests();

    for remaining in ["2", "1", "0"] {
        let admitted = call(scene, "ann").await?;
        assert_eq!(admitted.status, 200, "{admitted:?}");
        assert_eq!(admitted.header("x-ratelimit-remaining"), remaining);
        assert!(admitted.header("x-ratelimit-limit").starts_with("3, 3;w=3600"), "{admitted:?}");
        assert_eq!(admitted.header("retry-after"), "");
    }
    let refused = call(scene, "ann").await?;
    assert_eq!((refused.status, &*refused.text()), (429, "{\"error\":\"slow down\"}"));
    assert!(refused.header("x-ratelimit-limit").starts_with("3, 3;w=3600"), "{refused:?}");
    assert_eq!(refused.header("x-ratelimit-remaining"), "0");
    assert_eq!(refused.header("x-envoy-ratelimited"), "true");
    // One request comes back every twenty minutes.
    for header in ["retry-after", "x-ratelimit-reset"] {
        let seconds: u32 = refused.header(header).parse().with_context(|| format!("{header} of {refused:?}"))?;
        assert!((1_000..=1_200).contains(&seconds), "{header}: {seconds}");
    }
    assert_eq!(shop.upstream.requests(), reached + 3, "a refused request went on to the service");
    assert_eq!(calls(scene, "bob", 4).await?, [200, 200, 200, 429], "another key has a limit of its own");
    Ok(())
}

async fn an_edited_limit_goes_on_from_what_was_used(scene: &Scene) -> Result<()> {
    let _shop = Limited::start(scene, &[per_client(3, json!({}))], &[]).await?;
    in_force(scene, 3).await?;
    assert_eq!(calls(scene, "ann", 4).await?, [200, 200, 200, 429]);
    let listeners = "^listener_manager\\.(listener_(added|modified|removed)|total_listeners_draining)$";
    let before = scene.envoy.stats(listeners).await?;

    scene.api.put_and_wait(&per_client(3, json!({ "limit": { "burst": 5 } }))).await?;
    in_force(scene, 5).await?;
    assert_eq!(calls(scene, "ann", 3).await?, [200, 200, 429], "three of five were used");
    scene.api.put_and_wait(&per_client(3, json!({ "limit": { "burst": 1 } }))).await?;
    in_force(scene, 1).await?;
    assert_eq!(calls(scene, "ann", 1).await?, [429]);
    assert_eq!(scene.envoy.stats(listeners).await?, before, "an edited limit touched listeners");
    Ok(())
}

async fn a_limit_that_is_taken_away_limits_no_more(scene: &Scene) -> Result<()> {
    let shop = Limited::start(scene, &[per_client(1, json!({}))], &[]).await?;
    in_force(scene, 1).await?;
    assert_eq!(calls(scene, "ann", 2).await?, [200, 429]);
    scene.api.put_and_wait(&limited_route("shop", HOST, "shop", &[])).await?;
    scene.api.delete_and_wait("RateLimit", "per-client").await?;
    let free = scene.fetch_until("requests pass", as_client("ann"), |response| response.status == 200).await?;
    assert_eq!(free.header("x-ratelimit-limit"), "");
    // The limiter has forgotten it too: it is not only that nobody asks.
    let identity = scene.authority.proxy("edge", "asker")?;
    let mut asker = Client::connect_as(shop.limiter.grpc, &scene.authority, &identity).await?;
    until("the limiter knows no limit", PATIENCE, async || {
        let client = newcomer();
        let entries = [("chancery.limit", "per-client"), ("x-api-key", &*client)];
        let passed = (asker.passes("edge", &entries).await?, asker.passes("edge", &entries).await?);
        ensure!(passed == (true, true), "{passed:?}");
        Ok(())
    })
    .await
}

async fn shadow_refuses_nobody(scene: &Scene) -> Result<()> {
    let shop = Limited::start(scene, &[per_client(1, json!({ "shadow": true }))], &[]).await?;
    in_force(scene, 1).await?;
    let count = async || -> Result<u64> {
        let metrics = shop.limiter.metrics().await?;
        let line = metrics.lines().find(|line| {
            line.starts_with("chancery_rate_limiter_decisions_total") && line.contains(r#"outcome="shadow""#)
        });
        Ok(line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0))
    };
    let before = count().await?;
    assert_eq!(calls(scene, "ann", 5).await?, [200; 5]);
    assert_eq!(count().await?, before + 4, "requests that would have been refused");
    Ok(())
}

async fn several_limits_are_all_or_nothing(scene: &Scene) -> Result<()> {
    let per_tenant = json!({ "key": [{ "header": "x-tenant" }], "limit": { "requests": 6, "per": "1h" } });
    let limits = [per_client(2, json!({})), resource("RateLimit", "per-tenant", per_tenant)];
    let _shop = Limited::start(scene, &limits, &[]).await?;
    // Both limits come in one message, so where one is in force the other is.
    in_force(scene, 2).await?;
    let calls = async |client: &str, count: usize| -> Result<Vec<u16>> {
        let mut statuses = Vec::new();
        for _ in 0..count {
            let headers = [("x-api-key", client), ("x-tenant", "acme")];
            statuses.push(fetch(scene.web, request(Method::GET, HOST, "/", &headers)).await?.status);
        }
        Ok(statuses)
    };
    assert_eq!(calls("ann", 6).await?, [200, 200, 429, 429, 429, 429]);
    // Ann's refusals have cost the tenant nothing: four are left.
    assert_eq!(calls("bob", 2).await?, [200, 200]);
    assert_eq!(calls("cid", 2).await?, [200, 200]);
    // The tenant's have cost Dan nothing.
    assert_eq!(calls("dan", 3).await?, [429, 429, 429]);
    assert_eq!(chancery_e2e::limited::calls(scene, "dan", 3).await?, [200, 200, 429]);
    Ok(())
}

async fn a_domain_is_for_its_own_fleet(scene: &Scene) -> Result<()> {
    let shop = Limited::start(scene, &[per_client(3, json!({}))], &[]).await?;
    in_force(scene, 3).await?;
    let entries = [("chancery.limit", "per-client"), ("x-api-key", "ann")];
    let others = [
        ("a proxy of another fleet", scene.authority.proxy("lab", "stranger")?),
        ("another limiter", scene.authority.rate_limiter("two")?),
        ("a server", scene.authority.client("person", "spiffe://chancery.local/person/ann")?),
        ("a proxy of elsewhere", scene.authority.client("afar", "spiffe://afar/fleet/edge/proxy/a")?),
    ];
    for (who, identity) in others {
        let mut stranger = Client::connect_as(shop.limiter.grpc, &scene.authority, &identity).await?;
        let refused = stranger.passes("edge", &entries).await.expect_err(who);
        assert_eq!(refused.code(), Code::PermissionDenied, "{who}: {refused}");
    }
    let own = scene.authority.proxy("edge", "another")?;
    let mut own = Client::connect_as(shop.limiter.grpc, &scene.authority, &own).await?;
    for expected in [true, true, true, false] {
        assert_eq!(own.passes("edge", &entries).await?, expected, "what strangers asked was counted");
    }
    let nobody = Client::connect(shop.limiter.grpc).await;
    let plaintext = match nobody {
        Ok(mut nobody) => nobody.passes("edge", &entries).await.is_ok(),
        Err(_) => false,
    };
    assert!(!plaintext, "the limiter answered somebody who did not say who they are");
    Ok(())
}

async fn two_limiters_on_one_redis_count_together(scene: &Scene) -> Result<()> {
    let Some(redis) = Redis::start(scene.folder()).await? else { return Ok(()) };
    let url = redis.url();
    // A decision of Redis may take as long as it does on a busy machine.
    let arguments = ["--store", &url, "--redis-timeout", "5000"];
    let shop = Limited::start(scene, &[per_client(20, json!({ "strict": true }))], &arguments).await?;
    let xds = scene.control_plane.xds.to_string();
    let mut more = vec!["--xds", &*xds];
    more.extend(arguments);
    let second = Limiter::start_secure(scene.folder(), "two", &scene.authority, &more).await?;
    second.ready().await?;
    scene.api.put_and_wait(&fleet_asking("edge", &[shop.limiter.grpc, second.grpc], json!({}))).await?;
    in_force(scene, 20).await?;
    let asked = async |limiter: &Limiter| -> Result<bool> {
        let metrics = limiter.metrics().await?;
        Ok(metrics.lines().any(|line| {
            line.starts_with("chancery_rate_limiter_requests_total")
                && line.contains(r#"="ok""#)
                && !line.ends_with(" 0")
        }))
    };
    until("both are asked", PATIENCE, async || {
        call(scene, &newcomer()).await?;
        ensure!(asked(&shop.limiter).await? && asked(&second).await?, "one is not");
        Ok(())
    })
    .await?;
    let statuses = calls(scene, "ann", 30).await?;
    assert_eq!(statuses.iter().filter(|&&status| status == 200).count(), 20, "{statuses:?}");
    assert!(statuses[20..].iter().all(|&status| status == 429), "{statuses:?}");
    Ok(())
}
