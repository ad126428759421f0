//! Asks the issuer for its keys, keeps the last good ones, and judges tokens by them.
//!
//! Keys are fetched when the control plane starts, every `REFRESH` after that, and when a token names a key that is not known: the
//! issuer may just have begun to use it. For such tokens it is asked once in `ASK_AGAIN` at most, whatever they are, and all who
//! wait are served by one answer. While the issuer is away the last keys are used on, without a bound: what they have
//! signed ends by itself, and who can sign in nowhere else would otherwise be shut out of what is to be repaired.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use chancery_runtime::{
    fetch::{FetchError, Fetcher},
    telemetry::chain,
    tls::TlsError,
};
use http::{Request, StatusCode, header};
use time::OffsetDateTime;
use tokio::{sync::Mutex, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    InvalidOidc, OidcSettings,
    issuer::{Discovery, InvalidDiscovery, IssuerUrl, MOST_BYTES},
    keys::{InvalidKeys, Keys},
    rules::{Person, Refused, Rules},
};
use crate::metrics::{OIDC_ISSUER_AVAILABLE, OIDC_KEYS};

/// How often the keys are fetched, whatever happens.
const REFRESH: Duration = Duration::from_secs(10 * 60);

/// How often while the issuer does not give them.
const RETRY: Duration = Duration::from_secs(30);

/// How often at most because of keys that are not known.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// How long one answer of the issuer may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// Why people cannot be let in at all.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// The settings are wrong.
    #[error(transparent)]
    Settings(#[from] InvalidOidc),
    /// The authorities of `oidc.ca_file` cannot be used.
    #[error("oidc.ca_file cannot be used")]
    Authorities(#[source] TlsError),
}

/// Why the issuer's keys were not fetched.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// It does not answer.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// It answers something else.
    #[error("{url} answers {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// The answer.
        status: StatusCode,
    },
    /// A URL of its own cannot be used.
    #[error("{0:?}, which the issuer names, is no URL")]
    Url(String),
    /// It says nothing of itself that is of use.
    #[error(transparent)]
    Discovery(#[from] InvalidDiscovery),
    /// Its keys are of no use.
    #[error(transparent)]
    Keys(#[from] InvalidKeys),
}

/// What `chancery login` has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The issuer.
    pub issuer: IssuerUrl,
    /// Who asks it.
    pub client_id: String,
    /// What for.
    pub scopes: Vec<String>,
}

/// The sign-in of people.
pub struct SignIn {
    rules: Rules,
    offer: Offer,
    fetcher: Fetcher,
    keys: ArcSwapOption<Keys>,
    /// One at a time; when a token was the reason last.
    asking: Mutex<Option<Instant>>,
}

impl SignIn {
    /// As `settings` have it; none if nobody is to sign in. The issuer is not asked yet.
    ///
    /// # Errors
    /// The settings are wrong, and all that is.
    pub fn new(settings: &OidcSettings) -> Result<Option<Self>, SignInError> {
        let Some(rules) = settings.rules()? else { return Ok(None) };
        let ca = Some(settings.ca_file.as_path()).filter(|path| !path.as_os_str().is_empty());
        let fetcher = Fetcher::trusting(ca).map_err(SignInError::Authorities)?;
        let client_id = rules.audience.first().cloned().unwrap_or_default();
        let offer = Offer { issuer: rules.issuer.clone(), client_id, scopes: settings.scopes.clone() };
        Ok(Some(Self { rules, offer, fetcher, keys: ArcSwapOption::empty(), asking: Mutex::default() }))
    }

    /// One that knows these keys, of which its issuer never hears.
    #[cfg(test)]
    pub(crate) fn knowing(settings: &OidcSettings, keys: &serde_json::Value) -> Self {
        let sign_in = Self::new(settings).ok().flatten().expect("there is an issuer");
        sign_in.keys.store(Keys::read(keys.to_string().as_bytes()).ok().map(Arc::new));
        sign_in
    }

    /// What is needed to sign in.
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// Who has brought `token`.
    ///
    /// # Errors
    /// It is not taken, and why.
    pub async fn identify(self: &Arc<Self>, token: &str, now: OffsetDateTime) -> Result<Person, Refused> {
        match self.judge(token, now) {
            Err(Refused::UnknownKey(_) | Refused::NoKeys) => {
                self.ask_because_of_a_token().await;
                self.judge(token, now)
            }
            judged => judged,
        }
    }

    fn judge(&self, token: &str, now: OffsetDateTime) -> Result<Person, Refused> {
        self.rules.judge(token, self.keys.load().as_deref(), now)
    }

    async fn ask_because_of_a_token(self: &Arc<Self>) {
        let mut asked = self.asking.lock().await;
        if asked.is_none_or(|asked| asked.elapsed() >= ASK_AGAIN) {
            // Before the answer: an issuer that gives none is not asked by each of those who wait.
            *asked = Some(Instant::now());
            // To its end, though who has brought the token may go: or else they would keep others from being known.
            let me = Arc::clone(self);
            let _ = tokio::spawn(async move { me.fetch().await }).await;
        }
    }

    /// Keeps the keys current until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let fetch_and_wait = async {
                let there = {
                    let _asking = self.asking.lock().await;
                    self.fetch().await
                };
                tokio::time::sleep(if there { REFRESH } else { RETRY }).await;
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = fetch_and_wait => {}
            }
        }
    }

    /// Says whether the issuer has given its keys.
    async fn fetch(&self) -> bool {
        let there = match self.fetched().await {
            Ok(keys) => {
                if self.keys.load().as_deref() != Some(&keys) {
                    tracing::info!(issuer = %self.rules.issuer, count = keys.len(), "the issuer has given its keys");
                }
                metrics::gauge!(OIDC_KEYS).set(keys.len() as f64);
                self.keys.store(Some(Arc::new(keys)));
                true
            }
            Err(error) => {
                let known = self.keys.load().as_ref().map_or(0, |keys| keys.len());
                let (issuer, error) = (&self.rules.issuer, chain(&error));
                tracing::warn!(%issuer, error, count = known, "the issuer does not give its keys; those that are known are used on");
                false
            }
        };
        metrics::gauge!(OIDC_ISSUER_AVAILABLE).set(f64::from(u8::from(there)));
        there
    }

    async fn fetched(&self) -> Result<Keys, KeysError> {
        let issuer = &self.rules.issuer;
        let discovery = Discovery::read(&self.get(&issuer.discovery_url()).await?, issuer)?;
        Ok(Keys::read(&self.get(&discovery.jwks_uri).await?)?)
    }

    async fn get(&self, url: &str) -> Result<Bytes, KeysError> {
        let request = Request::get(url).header(header::ACCEPT, "application/json").body(Bytes::new());
        let request = request.map_err(|_| KeysError::Url(url.to_owned()))?;
        let answer = self.fetcher.send(request, DEADLINE, MOST_BYTES).await?;
        match answer.status() {
            StatusCode::OK => Ok(answer.into_body()),
            status => Err(KeysError::Status { url: url.to_owned(), status }),
        }
    }
}

#[cfg(test)]
mod tests;
