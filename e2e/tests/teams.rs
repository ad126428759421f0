//! Who may do what: teams that share a control plane, their tokens, and what becomes of one that is revoked, on real processes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    api::{Api, check_refusal},
    certificates::Authority,
    command::User,
    control_plane::{ADMIN_TOKEN, ControlPlane},
    document::{fleet, listener, resource},
    postgres::{Postgres, Stop},
    wait::{PATIENCE, until},
};
use http::Method;
use serde_json::{Value, json};

/// What a team is.
fn team(name: &str) -> Value {
    resource("Team", name, json!({ "hosts": [format!("*.{name}.example.com")], "quotas": { "routes": 2 } }))
}

/// A route of a team that answers everything with its own name.
fn route_of(team: &str, name: &str, host: &str) -> Value {
    let rules = json!([{ "respond": { "status": 200, "body": name } }]);
    let mut route = resource("Route", name, json!({ "listeners": ["edge/web"], "hosts": [host], "rules": rules }));
    route["team"] = team.into();
    route
}

/// Makes a token as an admin does, and says its id and secret.
async fn token(admin: &Api, request: &Value) -> Result<(String, String)> {
    let answer = admin.json(Method::POST, "/api/v1/tokens", Some(request)).await?;
    ensure!(answer.status == 201, "{} {}", answer.status, answer.text());
    let made = answer.json()?;
    let text = |field: &str| made[field].as_str().map(str::to_owned).with_context(|| format!("no {field}: {made}"));
    Ok((text("id")?, text("token")?))
}

fn owner(team: &str) -> Value {
    json!({ "name": format!("{team}-ci"), "role": "owner", "teams": [team], "scopes": ["routes:write", "*:read"] })
}

/// A refusal for want of a right, and what it says is missing.
async fn refused(api: &Api, method: Method, path: &str, body: &Value) -> Result<Value> {
    let answer = api.json(method, path, Some(body)).await?;
    ensure!(answer.status == 403, "{path}: {} {}", answer.status, answer.text());
    Ok(check_refusal(path, &answer)?["missing"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_teams_share_a_control_plane_and_keep_apart() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::create(folder.path(), "authority")?;
    let mut control_plane = ControlPlane::start_alone(folder.path(), &authority).await?;
    let admin = control_plane.caller();
    admin.apply(&[fleet("edge"), listener("web", "edge", 10000), team("pay"), team("shop")]).await?;
    let (pay_id, pay_secret) = token(&admin, &owner("pay")).await?;
    let (_, shop_secret) = token(&admin, &owner("shop")).await?;
    let [pay, shop] = [&pay_secret, &shop_secret].map(|secret| Api::new(control_plane.api, secret));

    pay.put(&route_of("pay", "cards", "cards.pay.example.com")).await?;
    shop.put(&route_of("shop", "cart", "cart.shop.example.com")).await?;
    assert_eq!(admin.read("/api/v1/routes/cards").await?["updatedBy"], "pay-ci");

    // What is another team's is not there.
    let listed = shop.read("/api/v1/routes").await?;
    assert_eq!((&listed["items"][0]["name"], listed["items"].as_array().map(Vec::len)), (&json!("cart"), Some(1)));
    for method in [Method::GET, Method::DELETE] {
        let hidden = shop.json(method.clone(), "/api/v1/routes/cards", None).await?;
        assert_eq!(hidden.status, 404, "{method}: {}", hidden.text());
    }
    // A change is refused whole, with all that is missing.
    let body = json!({ "resources": [route_of("shop", "fine", "fine.shop.example.com"),
        route_of("pay", "stolen", "a.pay.example.com"), resource("Service", "s", json!({ "endpoints": [] })), fleet("mine")] });
    let missing = refused(&shop, Method::POST, "/api/v1/apply", &body).await?;
    assert_eq!(missing, json!(["role operator", "scope services:write", "team pay"]));
    assert_eq!(shop.json(Method::GET, "/api/v1/routes/fine", None).await?.status, 404);
    assert_eq!(refused(&shop, Method::GET, "/api/v1/tokens", &Value::Null).await?, json!(["role admin"]));
    // Hosts and quotas bind everybody.
    let squatter = route_of("shop", "squatter", "cards.pay.example.com");
    let problem = check_refusal("a host", &shop.json(Method::PUT, "/api/v1/routes/squatter", Some(&squatter)).await?)?;
    assert_eq!(problem["problems"][0]["path"], "spec.hosts[0]", "{problem}");
    admin.put(&route_of("shop", "two", "two.shop.example.com")).await?;
    let three = route_of("shop", "three", "three.shop.example.com");
    let problem = check_refusal("a quota", &admin.json(Method::PUT, "/api/v1/routes/three", Some(&three)).await?)?;
    assert_eq!(problem["problems"][0]["path"], "team", "{problem}");

    // All of it outlives the process.
    control_plane.terminate().await?;
    control_plane.start_again().await?;
    assert_eq!(pay.read("/api/v1/whoami").await?["teams"], json!(["pay"]));
    admin.json(Method::DELETE, &format!("/api/v1/tokens/{pay_id}"), None).await?;
    assert_eq!(pay.json(Method::GET, "/api/v1/whoami", None).await?.status, 401);
    assert_eq!(shop.json(Method::GET, "/api/v1/whoami", None).await?.status, 200);
    assert!(!control_plane.log().contains("chy_"), "a secret stands in the log");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_token_is_refused_by_every_replica_and_a_new_one_is_taken() -> Result<()> {
    let Some(mut postgres) = Postgres::start().await? else { return Ok(()) };
    let database = postgres.create_database().await?;
    let folder = tempfile::tempdir()?;
    let authority = Authority::create(folder.path(), "authority")?;
    let left = ControlPlane::start(folder.path(), "left", &database, &authority).await?;
    let right = ControlPlane::start(folder.path(), "right", &database, &authority).await?;
    let admin = left.caller();
    let viewer = json!({ "name": "ci", "role": "viewer" });
    let mut slowest = Duration::ZERO;
    for round in 0..20 {
        let (id, secret) = token(&admin, &viewer).await?;
        let there = Api::new(right.api, &secret);
        // At once, whether the other replica has heard of it or not; only many that are wrong at once could be in the way.
        until("the other replica takes it", PATIENCE, async || there.read("/api/v1/fleets").await).await?;
        let path = format!("/api/v1/tokens/{id}");
        let revoked = admin.json(Method::DELETE, &path, None).await?;
        ensure!(revoked.status == 200, "{}", revoked.text());
        let begun = Instant::now();
        assert_eq!(Api::new(left.api, &secret).json(Method::GET, "/api/v1/fleets", None).await?.status, 401);
        until("the other replica refuses it", PATIENCE, async || {
            let answer = there.json(Method::GET, "/api/v1/fleets", None).await?;
            ensure!(answer.status == 401, "round {round}: {}", answer.status);
            Ok(())
        })
        .await?;
        slowest = slowest.max(begun.elapsed());
    }
    println!("20 tokens revoked; the slowest was refused elsewhere {slowest:?} after the answer");

    // Notifications that are lost cost a second.
    let (id, secret) = token(&admin, &viewer).await?;
    let there = Api::new(right.api, &secret);
    until("it is taken", PATIENCE, async || there.read("/api/v1/fleets").await).await?;
    postgres.terminate_sessions("LISTEN").await?;
    admin.json(Method::DELETE, &format!("/api/v1/tokens/{id}"), None).await?;
    until("it is refused", PATIENCE, async || {
        let answer = there.json(Method::GET, "/api/v1/fleets", None).await?;
        ensure!(answer.status == 401, "{}", answer.status);
        Ok(())
    })
    .await?;

    // Without the database, what was good goes on, and nothing new is known.
    let (_, secret) = token(&admin, &viewer).await?;
    let there = Api::new(right.api, &secret);
    until("it is taken", PATIENCE, async || there.read("/api/v1/fleets").await).await?;
    postgres.stop(Stop::Immediate).await?;
    there.read("/api/v1/fleets").await?;
    let denied = admin.json(Method::POST, "/api/v1/tokens", Some(&json!({ "name": "new", "role": "viewer" }))).await?;
    assert_eq!(denied.status, 503, "{}", denied.text());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_makes_lists_rotates_and_revokes_tokens() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::create(folder.path(), "authority")?;
    let control_plane = ControlPlane::start_alone(folder.path(), &authority).await?;
    control_plane.caller().put(&team("pay")).await?;
    let server = format!("http://{}", control_plane.api);
    let user = User::in_folder(folder.path());
    let admin = user.of(&server, ADMIN_TOKEN);
    let secret = async |arguments: &str| -> Result<String> {
        let made = admin.asks(arguments).await?;
        Ok(made["token"].as_str().context("a token")?.to_owned())
    };
    let first = secret("token create ci --role owner --team pay --scope routes:write --expires-in 30d").await?;
    let second = secret("token rotate ci --grace 10m").await?;
    assert!(first != second && second.starts_with("chy_"));
    let table = admin.does("token list -o table", "").await?;
    assert!(table.contains("routes:write") && table.contains("active") && !table.contains("chy_"), "{table}");

    for secret in [&first, &second] {
        let ci = user.of(&server, secret);
        let refused = ci.runs("get services", "").await?;
        assert_eq!((refused.code, refused.errors.contains("needs scope services:read")), (1, true), "{refused:?}");
    }
    admin.does("token revoke ci", "").await?;
    let over = user.of(&server, &second).runs("get routes", "").await?;
    assert_eq!((over.code, over.errors.contains("does not accept the token")), (3, true), "{over:?}");
    assert!(admin.does("token list -o table", "").await?.contains("revoked"));
    let unknown = admin.runs("token revoke ci", "").await?;
    assert_eq!((unknown.code, unknown.errors.contains("there is no token")), (2, true), "{unknown:?}");
    Ok(())
}
