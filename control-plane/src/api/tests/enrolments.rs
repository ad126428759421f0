//! Machines that become proxies, over the API.

use axum::http::Method;
use serde_json::{Value, json};

use super::fixture::Fixture;
use crate::identity::{
    request::{OwnKey, key_hash},
    spiffe::Identity,
};

/// An API with the fleet `edge`.
async fn start() -> Fixture {
    let api = Fixture::start().await;
    assert_eq!(api.json(Method::PUT, "/api/v1/fleets/edge", json!({ "spec": {} })).await.status, 201);
    api
}

async fn made(api: &Fixture, request: Value) -> (String, String) {
    let made = api.json(Method::POST, "/api/v1/enrolments", request).await;
    assert_eq!(made.status, 201, "{made:?}");
    let field = |name: &str| made.body[name].as_str().unwrap().to_owned();
    (field("id"), field("token"))
}

/// Enrols without any token of the API.
async fn enrol(api: &Fixture, request: Value) -> super::fixture::Answer {
    api.bare(Method::POST, "/api/v1/enrol", &[("content-type", "application/json")], request.to_string()).await
}

fn key() -> (OwnKey, String) {
    let key = OwnKey::generate().unwrap();
    let request = key.request().unwrap();
    (key, request)
}

#[tokio::test]
async fn a_token_makes_one_machine_a_proxy() {
    let api = start().await;
    let (id, token) = made(&api, json!({ "fleet": "edge", "expiresIn": "10m", "certificateLife": "1h" })).await;
    let listed = api.ask(Method::GET, "/api/v1/enrolments", &[]).await;
    assert!(!listed.text.contains(&token));
    let [one] = listed.body["items"].as_array().unwrap().as_slice() else { panic!("{listed:?}") };
    let seen = (&one["id"], &one["fleet"], &one["state"], &one["certificateLife"], &one["createdBy"]);
    assert_eq!(seen, (&json!(id), &json!("edge"), &json!("pending"), &json!("1h"), &json!("admin")));

    let (_, csr) = key();
    let unnamed = enrol(&api, json!({ "token": token, "csr": csr })).await;
    unnamed.problem(422, "invalid");
    let answer = enrol(&api, json!({ "token": token, "csr": csr, "proxy": "edge-1" })).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.body["identity"], "spiffe://test.example/fleet/edge/proxy/edge-1");
    let pem = answer.body["certificate"].as_str().unwrap();
    let der = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap().1.contents;
    assert_eq!(Identity::from_certificate(&der).unwrap().to_string(), answer.body["identity"].as_str().unwrap());
    assert!(key_hash(&der).is_some() && answer.body["ca"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE"));

    let (_, other) = key();
    let twice = enrol(&api, json!({ "token": token, "csr": other, "proxy": "edge-1" })).await;
    twice.problem(403, "forbidden");
    assert!(twice.text.contains("used already"), "{}", twice.text);
    let revoked = api.ask(Method::DELETE, &format!("/api/v1/enrolments/{id}"), &[]).await;
    assert_eq!((revoked.status.as_u16(), &revoked.body["state"]), (200, &json!("revoked")));
    assert_eq!(revoked.body["usedBy"], "edge-1");
    api.ask(Method::DELETE, &format!("/api/v1/enrolments/{id}"), &[]).await.problem(404, "not-found");
}

#[tokio::test]
async fn every_problem_of_an_enrolment_is_told() {
    let api = start().await;
    let request = json!({ "fleet": "nowhere", "expiresIn": "8d", "certificateLife": "1s" });
    let answer = api.json(Method::POST, "/api/v1/enrolments", request).await;
    let problems = &answer.problem(422, "invalid")["problems"];
    let paths: Vec<_> = problems.as_array().unwrap().iter().map(|one| one["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["fleet", "expiresIn", "certificateLife"]);
    let unknown = api.json(Method::POST, "/api/v1/enrolments", json!({ "fleet": "edge", "uses": 3 })).await;
    unknown.problem(422, "invalid");
    let bad = enrol(&api, json!({ "token": "chye_secret", "csr": "none" })).await;
    assert_eq!(bad.problem(422, "invalid")["problems"][0]["path"], "csr");
    assert!(!bad.text.contains("chye_secret"));
}

#[tokio::test]
async fn who_guesses_is_not_looked_at_and_written_down() {
    let api = start().await;
    let (_, csr) = key();
    let guess = json!({ "token": "chye_guess", "csr": csr, "proxy": "edge-1" });
    for _ in 0..21 {
        enrol(&api, guess.clone()).await.problem(401, "unauthorized");
    }
    enrol(&api, guess).await.problem(429, "too-many-requests");
}

#[tokio::test]
async fn an_address_enrols_so_often_and_no_more() {
    let api = start().await;
    for _ in 0..60 {
        enrol(&api, json!({})).await.problem(422, "invalid");
    }
    let refused = enrol(&api, json!({})).await;
    refused.problem(429, "too-many-requests");
    assert!(refused.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn operators_make_enrolments_and_owners_do_not() {
    let api = start().await;
    api.json(Method::PUT, "/api/v1/teams/shop", json!({ "spec": { "hosts": ["shop.example.com"] } })).await;
    for (name, role, teams, status) in [("op", "operator", json!([]), 201), ("ci", "owner", json!(["shop"]), 403)] {
        let token = json!({ "name": name, "role": role, "teams": teams });
        let token = api.json(Method::POST, "/api/v1/tokens", token).await.body["token"].as_str().unwrap().to_owned();
        let who = api.with(&token);
        let answer = who.json(Method::POST, "/api/v1/enrolments", json!({ "fleet": "edge" })).await;
        assert_eq!(answer.status.as_u16(), status, "{answer:?}");
        let listed = who.ask(Method::GET, "/api/v1/enrolments", &[]).await;
        assert_eq!(listed.status.as_u16(), if status == 201 { 200 } else { 403 });
    }
}
