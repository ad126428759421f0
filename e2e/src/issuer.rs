//! An OpenID Connect issuer over TLS: its keys, the device authorization grant, refresh tokens that are good once.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::SystemTime,
};

use anyhow::Result;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData, SigningKey};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Mutex, task::JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::certificates::Authority;

/// The client that it knows.
pub const CLIENT_ID: &str = "chancery-cli";

/// What a person enters in their browser.
pub const USER_CODE: &str = "WDJB-MJHT";

const DEVICE_CODE: &str = "the-device-code";

/// An issuer on a port of its own. Dropping it closes every connection.
#[derive(Debug)]
pub struct Issuer {
    /// Its URL.
    pub url: String,
    state: Arc<Mutex<State>>,
    // Aborts the acceptor, which owns the connections.
    _acceptor: JoinSet<()>,
}

#[derive(Debug)]
struct State {
    url: String,
    key: KeyPair,
    /// How many keys it has had; its key is called by that.
    keys: u64,
    decision: Decision,
    /// How long its tokens are good, in seconds.
    lasts: u64,
    /// The claims of the person who has signed in, and how often they have got tokens: the refresh token is called by that.
    person: Value,
    given: u64,
    polls: u64,
    refreshes: u64,
}

/// What the person does in their browser.
#[derive(Clone, Debug, PartialEq)]
enum Decision {
    Pending,
    Denied,
    SignedIn,
}

impl Issuer {
    /// Starts one with a certificate of `authority`.
    pub async fn start(authority: &Authority) -> Result<Self> {
        let identity = authority.server_called("issuer", &["127.0.0.1"])?;
        let tls = TlsAcceptor::from(Arc::new(identity.server_config()?));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address: SocketAddr = listener.local_addr()?;
        let url = format!("https://{address}");
        let state = Arc::new(Mutex::new(State {
            url: url.clone(),
            key: KeyPair::generate_for(&PKCS_ED25519)?,
            keys: 1,
            decision: Decision::Pending,
            lasts: 3600,
            person: Value::Null,
            given: 0,
            polls: 0,
            refreshes: 0,
        }));
        let mut acceptor = JoinSet::new();
        acceptor.spawn(accept(listener, tls, state.clone()));
        Ok(Self { url, state, _acceptor: acceptor })
    }

    /// The person with these claims confirms the sign-in.
    pub async fn confirm(&self, person: Value) {
        let mut state = self.state.lock().await;
        state.person = person;
        state.decision = Decision::SignedIn;
    }

    /// The person refuses the sign-in.
    pub async fn deny(&self) {
        self.state.lock().await.decision = Decision::Denied;
    }

    /// Nobody is signed in any more.
    pub async fn forget(&self) {
        let mut state = self.state.lock().await;
        (state.decision, state.polls) = (Decision::Pending, 0);
    }

    /// Tokens that it gives from now on are good for so many seconds.
    pub async fn give_for(&self, seconds: u64) {
        self.state.lock().await.lasts = seconds;
    }

    /// Signs with another key from now on, and does not list the one before.
    pub async fn rotate(&self) -> Result<()> {
        let mut state = self.state.lock().await;
        state.key = KeyPair::generate_for(&PKCS_ED25519)?;
        state.keys += 1;
        Ok(())
    }

    /// How often it was asked whether the person has confirmed.
    pub async fn polls(&self) -> u64 {
        self.state.lock().await.polls
    }

    /// How often it has given tokens for a refresh token.
    pub async fn refreshes(&self) -> u64 {
        self.state.lock().await.refreshes
    }
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    loop {
        // A client that is gone before it was accepted is no reason to stop.
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (state, tls) = (state.clone(), tls.clone());
        connections.spawn(async move {
            // Whoever does not get through the handshake gets no further.
            let Ok(stream) = tls.accept(stream).await else { return };
            let service = service_fn(move |request| answer(request, state.clone()));
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(request: Request<Incoming>, state: Arc<Mutex<State>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let form = Form(String::from_utf8_lossy(&body).into_owned());
    let mut state = state.lock().await;
    let (status, answer) = match (parts.method.as_str(), parts.uri.path()) {
        ("GET", "/.well-known/openid-configuration") => (200, state.discovery()),
        ("GET", "/keys") => (200, state.listed_keys()),
        ("POST", _) if form.value("client_id") != CLIENT_ID => (401, json!({ "error": "invalid_client" })),
        ("POST", "/device") => (200, state.begun()),
        ("POST", "/token") => state.token(&form),
        _ => (404, Value::Null),
    };
    let mut response = Response::new(Full::new(answer.to_string().into()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    Ok(response)
}

/// A form as it was sent.
struct Form(String);

impl Form {
    /// A field; empty if it is not there.
    fn value(&self, name: &str) -> String {
        let fields = self.0.split('&').filter_map(|field| field.split_once('='));
        let found = fields.filter(|(key, _)| *key == name).map(|(_, value)| decoded(value)).next();
        found.unwrap_or_default()
    }
}

fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut decoded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        decoded.extend(u8::from_str_radix(code, 16).ok().map(char::from));
        decoded += rest;
    }
    decoded
}

impl State {
    fn discovery(&self) -> Value {
        let at = |path: &str| format!("{}/{path}", self.url);
        json!({
            "issuer": self.url, "jwks_uri": at("keys"), "token_endpoint": at("token"),
            "device_authorization_endpoint": at("device"),
        })
    }

    fn listed_keys(&self) -> Value {
        let public = URL_SAFE_NO_PAD.encode(self.key.der_bytes());
        json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": self.keys.to_string(), "use": "sig", "x": public }] })
    }

    fn begun(&self) -> Value {
        json!({
            "device_code": DEVICE_CODE, "user_code": USER_CODE, "verification_uri": format!("{}/activate", self.url),
            "expires_in": 300, "interval": 1,
        })
    }

    fn token(&mut self, form: &Form) -> (u16, Value) {
        let refused = |error: &str| (400, json!({ "error": error }));
        match form.value("grant_type").as_str() {
            "urn:ietf:params:oauth:grant-type:device_code" if form.value("device_code") == DEVICE_CODE => {
                self.polls += 1;
                match self.decision {
                    Decision::Pending => refused("authorization_pending"),
                    Decision::Denied => refused("access_denied"),
                    Decision::SignedIn => (200, self.tokens()),
                }
            }
            "refresh_token" if form.value("refresh_token") == self.refresh_token() => {
                self.refreshes += 1;
                (200, self.tokens())
            }
            _ => refused("invalid_grant"),
        }
    }

    fn refresh_token(&self) -> String {
        format!("refresh-{}", self.given)
    }

    fn tokens(&mut self) -> Value {
        self.given += 1;
        let refresh_token = self.refresh_token();
        json!({ "token_type": "Bearer", "access_token": "opaque", "refresh_token": refresh_token, "id_token": self.id_token() })
    }

    fn id_token(&self) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut claims = json!({ "iss": self.url, "aud": CLIENT_ID, "sub": "42", "iat": now, "exp": now + self.lasts });
        for (claim, value) in self.person.as_object().into_iter().flatten() {
            claims[claim] = value.clone();
        }
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = json!({ "alg": "EdDSA", "typ": "JWT", "kid": self.keys.to_string() });
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = self.key.sign(signed.as_bytes()).unwrap_or_default();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}
