use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use axum::{Json, Router, extract::State, routing::get};
use parking_lot::Mutex as Lock;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

use super::*;
use crate::oidc::testing::{Signer, settings};

/// An issuer that counts how often it is asked for its keys.
#[derive(Clone)]
struct Issuer {
    address: SocketAddr,
    keys: Arc<Lock<Value>>,
    asked: Arc<AtomicUsize>,
}

impl Issuer {
    async fn start(keys: Value) -> (Self, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let issuer = Self { address, keys: Arc::new(Lock::new(keys)), asked: Arc::default() };
        let discovery = async |State(issuer): State<Self>| {
            Json(json!({ "issuer": issuer.url(), "jwks_uri": format!("{}/keys", issuer.url()) }))
        };
        let keys = async |State(issuer): State<Self>| {
            issuer.asked.fetch_add(1, Ordering::SeqCst);
            Json(issuer.keys.lock().clone())
        };
        let router = Router::new().route("/.well-known/openid-configuration", get(discovery)).route("/keys", get(keys));
        let router = router.with_state(issuer.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (issuer, serving)
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn sign_in(&self) -> Arc<SignIn> {
        Arc::new(SignIn::new(&settings(&self.url())).unwrap().unwrap())
    }

    fn token(&self, signer: &Signer) -> String {
        signer.token(OffsetDateTime::now_utc().unix_timestamp(), json!({ "iss": self.url() }))
    }
}

async fn name(sign_in: &Arc<SignIn>, token: &str) -> Result<String, Refused> {
    sign_in.identify(token, OffsetDateTime::now_utc()).await.map(|person| person.principal.name)
}

#[tokio::test]
async fn keys_that_are_not_known_are_asked_for_but_not_for_every_token() {
    let old = Signer::new("ES256", "old");
    let (issuer, _serving) = Issuer::start(old.keys()).await;
    let sign_in = issuer.sign_in();
    let ada = Ok("oidc:ada@example.com".to_owned());
    assert_eq!(name(&sign_in, &issuer.token(&old)).await, ada);
    assert_eq!(issuer.asked(), 1, "because of the first token");
    // A flood of tokens that name keys which there are not.
    let hostile = Signer::new("ES256", "hostile");
    let token = issuer.token(&hostile);
    let flood = (0..50).map(|_| name(&sign_in, &token));
    for refused in futures_util::future::join_all(flood).await {
        assert!(matches!(refused, Err(Refused::UnknownKey(_))), "{refused:?}");
    }
    assert_eq!(issuer.asked(), 1);
    // Another key: after a while the first token that names it is taken.
    let new = Signer::new("RS256", "new");
    *issuer.keys.lock() = new.keys();
    *sign_in.asking.lock().await = None;
    assert_eq!(name(&sign_in, &issuer.token(&new)).await, ada);
    assert_eq!(issuer.asked(), 2);
    let gone = name(&sign_in, &issuer.token(&old)).await;
    assert!(matches!(gone, Err(Refused::UnknownKey(_))), "{gone:?}");
}

#[tokio::test]
async fn the_last_keys_are_used_while_the_issuer_is_away_or_talks_nonsense() {
    let signer = Signer::new("ES256", "one");
    let (issuer, serving) = Issuer::start(signer.keys()).await;
    let sign_in = issuer.sign_in();
    assert!(sign_in.fetch().await);
    *issuer.keys.lock() = json!({ "keys": [] });
    assert!(!sign_in.fetch().await);
    assert!(name(&sign_in, &issuer.token(&signer)).await.is_ok());
    serving.abort();
    let _ = serving.await;
    assert!(!sign_in.fetch().await);
    assert!(name(&sign_in, &issuer.token(&signer)).await.is_ok());
}

#[tokio::test]
async fn without_keys_nobody_is_let_in_and_nobody_is_taken_for_a_guesser() {
    let (issuer, serving) = Issuer::start(json!({ "keys": [] })).await;
    let refused = name(&issuer.sign_in(), &issuer.token(&Signer::new("ES256", "one"))).await.unwrap_err();
    assert_eq!((refused.is_a_guess(), &refused), (false, &Refused::NoKeys));
    serving.abort();
    // What names another issuer is no reason to ask this one.
    let elsewhere = Signer::new("ES256", "one").token(OffsetDateTime::now_utc().unix_timestamp(), json!({}));
    let asked = issuer.asked();
    assert!(matches!(name(&issuer.sign_in(), &elsewhere).await, Err(Refused::Issuer { .. })));
    assert_eq!(issuer.asked(), asked);
}

#[tokio::test]
async fn what_is_set_is_offered() {
    let offer = SignIn::new(&settings("https://login.example.com")).unwrap().unwrap().offer().clone();
    assert_eq!((offer.issuer.as_str(), offer.client_id.as_str()), ("https://login.example.com", "chancery"));
    assert!(SignIn::new(&OidcSettings::default()).unwrap().is_none());
    let wrong = OidcSettings { ca_file: "/none".into(), ..settings("https://login.example.com") };
    assert!(matches!(SignIn::new(&wrong), Err(SignInError::Authorities(_))));
}
