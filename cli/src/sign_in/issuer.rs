//! What is asked of an issuer of tokens, and in which form (RFC 6749, RFC 8628).

use std::{path::Path, time::Duration};

use bytes::Bytes;
use chancery_control_plane::oidc::{Discovery, IssuerUrl, issuer::MOST_BYTES};
use chancery_runtime::{fetch::Fetcher, telemetry::chain};
use http::{Request, Response, header};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{client::encoded, failure::Failure};

/// How long one answer may take.
const DEADLINE: Duration = Duration::from_secs(15);

/// An issuer, and who we are to it.
pub(crate) struct Issuer {
    fetcher: Fetcher,
    url: IssuerUrl,
    client_id: String,
    discovery: Discovery,
}

/// What the issuer gives to whom it knows.
#[derive(Clone, Deserialize)]
pub(crate) struct Tokens {
    /// Absent if the scope `openid` was not asked for.
    pub(crate) id_token: Option<String>,
    pub(crate) refresh_token: Option<String>,
}

/// What it says instead.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) error: String,
    pub(crate) error_description: Option<String>,
}

/// An answer where tokens are given out.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Answer {
    Refused(Refusal),
    Given(Tokens),
}

impl Refusal {
    /// In the issuer's own words.
    pub(crate) fn words(&self) -> String {
        match &self.error_description {
            Some(description) => format!("{description} ({})", self.error),
            None => self.error.clone(),
        }
    }
}

impl Issuer {
    /// Asks the issuer at `url` where it is asked for what.
    pub(crate) async fn discover(url: &IssuerUrl, client_id: &str, ca: Option<&Path>) -> Result<Self, Failure> {
        let fetcher = Fetcher::trusting(ca);
        let fetcher = fetcher.map_err(|error| Failure::Usage(format!("--issuer-ca: {}", chain(&error))))?;
        let request = Request::get(url.discovery_url()).header(header::ACCEPT, "application/json");
        let answer = send(&fetcher, url, request.body(Bytes::new())).await?;
        if !answer.status().is_success() {
            return Err(failed(url, format!("answers {} at {}", answer.status(), url.discovery_url())));
        }
        let discovery = Discovery::read(answer.body(), url).map_err(|error| failed(url, chain(&error)))?;
        Ok(Self { fetcher, url: url.clone(), client_id: client_id.to_owned(), discovery })
    }

    /// Asks for the start of a sign-in on a device.
    pub(crate) async fn begin<T: DeserializeOwned>(&self, scopes: &[String]) -> Result<T, Failure> {
        let Some(endpoint) = &self.discovery.device_authorization_endpoint else {
            let reason = "has no device authorization (RFC 8628); allow it for this client, or use a token";
            return Err(self.failed(reason.to_owned()));
        };
        let answer = self.post(endpoint, &[("scope", &scopes.join(" "))]).await?;
        if answer.status().is_success() {
            return self.read(answer.body());
        }
        let refusal: Refusal = self.read(answer.body())?;
        Err(self.failed(format!("does not begin a sign-in: {}", refusal.words())))
    }

    /// Asks for tokens, by a grant of this type.
    pub(crate) async fn tokens(&self, grant_type: &str, proof: (&str, &str)) -> Result<Answer, Failure> {
        let Some(endpoint) = &self.discovery.token_endpoint else {
            return Err(self.failed("gives out no tokens".to_owned()));
        };
        let answer = self.post(endpoint, &[("grant_type", grant_type), proof]).await?;
        if answer.status().is_server_error() {
            let reason = format!("answers {}", answer.status());
            return Err(Failure::Issuer { issuer: self.url.to_string(), reason, away: true });
        }
        self.read(answer.body())
    }

    async fn post(&self, endpoint: &str, fields: &[(&str, &str)]) -> Result<Response<Bytes>, Failure> {
        let fields = fields.iter().copied().chain([("client_id", self.client_id.as_str())]);
        let form: Vec<_> = fields.map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let request = Request::post(endpoint)
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        send(&self.fetcher, &self.url, request.body(form.join("&").into())).await
    }

    fn read<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, Failure> {
        serde_json::from_slice(body).map_err(|_| self.failed("gives an answer that cannot be read".to_owned()))
    }

    pub(crate) fn failed(&self, reason: String) -> Failure {
        failed(&self.url, reason)
    }
}

async fn send(
    fetcher: &Fetcher,
    url: &IssuerUrl,
    request: http::Result<Request<Bytes>>,
) -> Result<Response<Bytes>, Failure> {
    let request = request.map_err(|error| failed(url, format!("names a URL that is none: {error}")))?;
    let answer = fetcher.send(request, DEADLINE, MOST_BYTES).await;
    answer.map_err(|error| Failure::Issuer { issuer: url.to_string(), reason: chain(&error), away: true })
}

fn failed(url: &IssuerUrl, reason: String) -> Failure {
    Failure::Issuer { issuer: url.to_string(), reason, away: false }
}
