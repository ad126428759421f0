//! People who sign in with an issuer, as a caller sees it.

use std::sync::Arc;

use axum::http::Method;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::fixture::{Fixture, api};
use crate::{
    api::{Api, router},
    oidc::{
        OidcSettings, SignIn,
        testing::{ISSUER, Signer, settings},
    },
    store,
};

/// An API that trusts an issuer, the one who signs for it, and an admin.
async fn start() -> (Api, Signer, Fixture) {
    let signer = Signer::new("ES256", "one");
    let grants = json!(["owner/payments=payments", "owner/checkout=checkout", "viewer=everybody", "admin=root"]);
    let settings = OidcSettings { grants: serde_json::from_value(grants).unwrap(), ..settings(ISSUER) };
    let sign_in = Some(Arc::new(SignIn::knowing(&settings, &signer.keys())));
    let api = Api { sign_in, ..api(store::open("sqlite::memory:").await.unwrap()).await };
    let admin = Fixture::of(router(api.clone()));
    (api, signer, admin)
}

fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

fn route(name: &str, team: &str) -> Value {
    let rules = json!([{ "respond": { "status": 200, "body": name } }]);
    let spec = json!({ "listeners": ["edge/web"], "hosts": [format!("{name}.{team}.example.com")], "rules": rules });
    json!({ "kind": "Route", "name": name, "team": team, "spec": spec })
}

async fn with_teams(admin: &Fixture) {
    let team =
        |name: &str| json!({ "kind": "Team", "name": name, "spec": { "hosts": [format!("*.{name}.example.com")] } });
    let fleet = json!({ "kind": "Fleet", "name": "edge", "spec": {} });
    let web = json!({ "fleet": "edge", "address": "127.0.0.1", "port": 10000, "protocol": "http" });
    let listener = json!({ "kind": "Listener", "name": "web", "spec": web });
    let resources = json!([fleet, listener, team("payments"), team("shop"), route("shop", "shop")]);
    let answer = admin.json(Method::POST, "/api/v1/apply", json!({ "resources": resources })).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

#[tokio::test]
async fn groups_say_what_somebody_may_do() {
    let (_, signer, admin) = start().await;
    with_teams(&admin).await;
    let with = |groups: Value| admin.with(&signer.token(now(), json!({ "groups": groups })));
    let ada = with(json!(["payments", "everybody", "unheard-of"]));
    let me = ada.ask(Method::GET, "/api/v1/whoami", &[]).await.body;
    assert_eq!((&me["name"], &me["role"]), (&json!("oidc:ada@example.com"), &json!("owner")));
    assert_eq!(me["grants"][1], json!({ "role": "viewer", "teams": [], "scopes": [] }));
    let ends = OffsetDateTime::parse(me["expiresAt"].as_str().unwrap(), &time::format_description::well_known::Rfc3339);
    assert!((now() + 1..=now() + 600).contains(&ends.unwrap().unix_timestamp()), "{me}");
    // As a viewer she sees what is of another team; as an owner she writes what is of her own.
    assert_eq!(ada.ask(Method::GET, "/api/v1/routes/shop", &[]).await.status, 200);
    let made = ada.json(Method::PUT, "/api/v1/routes/pay", route("pay", "payments")).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let pay = ada.ask(Method::GET, "/api/v1/routes/pay", &[]).await.body;
    assert_eq!(pay["updatedBy"], "oidc:ada@example.com");
    let foreign = ada.json(Method::PUT, "/api/v1/routes/new", route("new", "shop")).await;
    assert_eq!(foreign.problem(403, "forbidden")["missing"], json!(["team shop"]));
    ada.json(Method::PATCH, "/api/v1/routes/shop", json!({ "team": "payments" })).await.problem(404, "not-found");
    let fleet = ada.json(Method::PUT, "/api/v1/fleets/edge", json!({ "spec": {} })).await;
    assert_eq!(fleet.problem(403, "forbidden")["missing"], json!(["role operator"]));
    assert_eq!(with(json!(["root"])).ask(Method::GET, "/api/v1/tokens", &[]).await.status, 200);
    // Owner of a team alone: what is of another is not there.
    with(json!(["payments"])).ask(Method::GET, "/api/v1/routes/shop", &[]).await.problem(404, "not-found");
}

#[tokio::test]
async fn how_to_sign_in_is_told_to_everybody() {
    let (_, _, trusting) = start().await;
    let told = trusting.bare(Method::GET, "/api/v1/sign-in", &[], "").await;
    let scopes = json!(["openid", "profile", "email", "offline_access"]);
    assert_eq!(told.seen(), (200, &json!({ "issuer": ISSUER, "clientId": "chancery", "scopes": scopes })));
    let without = Fixture::start().await;
    without.bare(Method::GET, "/api/v1/sign-in", &[], "").await.problem(404, "no-sign-in");
    let token = Signer::new("ES256", "one").token(now(), json!({}));
    let refused = without.with(&token).ask(Method::GET, "/api/v1/whoami", &[]).await;
    assert_eq!(refused.problem(401, "unauthorized")["detail"], "the bearer token is not valid");
}

#[tokio::test]
async fn a_refusal_says_why_and_the_audit_log_hears_of_it() {
    let (api, signer, admin) = start().await;
    let ask = async |more: Value| admin.with(&signer.token(now(), more)).ask(Method::GET, "/api/v1/whoami", &[]).await;
    let expired = ask(json!({ "exp": now() - 120 })).await;
    let detail = &expired.problem(401, "unauthorized")["detail"];
    assert_eq!(detail, "the token has expired 2 min ago; sign in again: chancery login");
    assert!(expired.header("www-authenticate").contains("invalid_token"), "{:?}", expired.headers);
    let nothing = ask(json!({ "groups": ["strangers"] })).await;
    assert_eq!(nothing.problem(403, "forbidden")["missing"], json!(["a group that is granted something"]));
    assert!(nothing.body["detail"].as_str().unwrap().ends_with("granted anything here: \"strangers\""));
    assert_eq!(ask(json!({})).await.status, 200);
    let stop = CancellationToken::new();
    stop.cancel();
    api.audit.clone().run(None, stop).await;
    let log = admin.ask(Method::GET, "/api/v1/audit?action=sign-in&actor=oidc:ada@example.com", &[]).await.body;
    let items = log["items"].as_array().unwrap();
    let mut outcomes: Vec<_> = items.iter().map(|item| item["outcome"].as_str().unwrap()).collect();
    outcomes.sort_unstable();
    assert_eq!(outcomes, ["done", "refused", "refused"], "{log}");
    let done = items.iter().find(|item| item["outcome"] == "done").unwrap();
    let known = json!({ "subject": "42", "grants": [{ "role": "owner", "teams": ["payments"], "scopes": [] }] });
    assert_eq!(serde_json::from_str::<Value>(done["after"].as_str().unwrap()).unwrap(), known, "{done}");
}

#[tokio::test]
async fn who_makes_up_tokens_is_shut_out_and_who_comes_late_is_not() {
    let (_, signer, admin) = start().await;
    let late = admin.with(&signer.token(now(), json!({ "exp": now() - 120 })));
    for _ in 0..30 {
        late.ask(Method::GET, "/api/v1/whoami", &[]).await.problem(401, "unauthorized");
    }
    let forger = admin.with(&Signer::new("ES256", "one").token(now(), json!({})));
    let mut refused = forger.ask(Method::GET, "/api/v1/whoami", &[]).await;
    for _ in 0..40 {
        if refused.status == 429 {
            break;
        }
        assert_eq!(refused.problem(401, "unauthorized")["detail"], "the signature of the token is wrong");
        refused = forger.ask(Method::GET, "/api/v1/whoami", &[]).await;
    }
    refused.problem(429, "too-many-requests");
}
