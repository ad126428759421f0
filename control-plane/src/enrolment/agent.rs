//! The machine's side: comes by a certificate with the token of an enrolment, and keeps it good.
//!
//! What it has lies in a folder ([`issue`]): the certificate, its key, the authorities. It makes the keys; they never leave the machine.
//! The key that it enrols with is kept until there is a certificate for it, since the token is good for that key alone, whatever becomes of
//! the first answer.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use chancery_proto::chancery::{RENEW, RenewRequest, RenewResponse};
use chancery_runtime::{
    SecretString,
    fetch::{FetchError, Fetcher},
    file,
    telemetry::chain,
    tls::{self, ClientTlsFiles, TlsError},
};
use chancery_xds::client::Backoff;
use http::{Request, StatusCode, header, uri::Authority};
use serde::Deserialize;
use serde_json::json;
use time::OffsetDateTime;
use tonic::{Code, Status, client::Grpc, transport::Endpoint};
use tonic_prost::ProstCodec;

use crate::{
    identity::{
        issue::{self, Held, IdentityFiles, IssueError},
        request::{OwnKey, RequestedKey, key_hash},
    },
    model::Name,
};

/// The key that an enrolment is under way for.
const PENDING_KEY: &str = "enrolment.key";

/// How long an answer may take, and how large it may be.
const ANSWER: (Duration, usize) = (Duration::from_secs(30), 256 << 10);

/// When to try again after a failure.
const AGAIN: Backoff = Backoff { first: Duration::from_secs(2), longest: Duration::from_secs(60) };

/// How long to sleep at once: clocks are set, and machines sleep.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Where a machine enrols, and with what.
#[derive(Clone, Debug)]
pub struct Enrolling {
    /// The URL of the API.
    pub server: String,
    /// The authority of its certificate, PEM; none: those that the system trusts.
    pub server_ca: Option<PathBuf>,
    /// The token of the enrolment.
    pub token: SecretString,
    /// How the proxy wants to be called, if the enrolment does not say.
    pub proxy: Option<Name>,
}

/// Keeps the certificate in a folder good.
#[derive(Clone, Debug)]
pub struct Agent {
    /// The folder.
    pub dir: PathBuf,
    /// How to enrol, if that is known.
    pub enrolling: Option<Enrolling>,
    /// Where the control plane serves xDS.
    pub xds: Authority,
    /// The name in its certificate, if it is not the host.
    pub server_name: Option<String>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// It would have to enrol, and cannot.
    #[error("there is no certificate in {} that is good, and no enrolment token", dir.display())]
    NoToken {
        /// The folder.
        dir: PathBuf,
    },
    /// The control plane said no.
    #[error("the control plane at {server} refuses: {reason}")]
    Refused {
        /// Which one.
        server: String,
        /// In its words.
        reason: String,
    },
    /// It did not answer, or not now.
    #[error("the control plane at {server} does not answer: {reason}")]
    Away {
        /// Which one.
        server: String,
        /// Why.
        reason: String,
    },
    /// It answered with something else than a certificate for our key.
    #[error("what the control plane at {server} gives is no certificate for the key that was asked for")]
    Answer {
        /// Which one.
        server: String,
    },
    /// The URL, or the authority of its certificate, is no good.
    #[error("cannot ask {server}")]
    Server {
        /// The URL.
        server: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no key.
    #[error("cannot make a key")]
    Key(#[from] rcgen::Error),
    /// A file cannot be used.
    #[error("cannot use {}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The files of the identity cannot be written.
    #[error(transparent)]
    Write(#[from] IssueError),
}

impl AgentError {
    /// Whether the same may succeed later.
    fn passes(&self) -> bool {
        matches!(self, Self::Away { .. })
    }
}

/// What the API answers.
#[derive(Deserialize)]
struct Enrolled {
    certificate: String,
    ca: String,
}

/// Why the API refuses.
#[derive(Deserialize)]
struct Details {
    detail: String,
}

impl Agent {
    /// Keeps the certificate good until that cannot be: the control plane refuses, or a file cannot be used. While the control plane
    /// is away it tries on. `told` hears of each certificate that is there. May be dropped at any time.
    pub async fn run(&self, mut told: impl FnMut(&Held)) -> AgentError {
        let (mut last, mut failures) = (None, 0);
        loop {
            let pause = match self.step(OffsetDateTime::now_utc()).await {
                Ok(held) => {
                    let left = held.renew_after - OffsetDateTime::now_utc();
                    if last.as_ref() != Some(&held) {
                        told(&held);
                    }
                    (last, failures) = (Some(held), 0);
                    Duration::try_from(left).unwrap_or_default().min(LOOK_AGAIN)
                }
                Err(error) if error.passes() => {
                    let pause = AGAIN.wait(failures, rand::random());
                    tracing::warn!(error = chain(&error), retry_in = ?pause, "no certificate yet");
                    failures = failures.saturating_add(1);
                    pause
                }
                Err(error) => return error,
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// The certificate that is good now and not due for renewal: the one that is there, or the next one.
    ///
    /// # Errors
    /// There is none to be had.
    pub async fn step(&self, now: OffsetDateTime) -> Result<Held, AgentError> {
        match issue::held(&self.dir).filter(|held| now < held.not_after) {
            Some(held) if now < held.renew_after => Ok(held),
            Some(_) => match self.renew().await {
                // Somebody else is the proxy by now, or nobody: a token settles that, if it is a new one.
                Err(refused @ AgentError::Refused { .. }) if self.enrolling.is_some() => match self.enrol().await {
                    Err(AgentError::Refused { .. }) => Err(refused),
                    enrolled => enrolled,
                },
                renewed => renewed,
            },
            None => self.enrol().await,
        }
    }

    async fn enrol(&self) -> Result<Held, AgentError> {
        let no_token = || AgentError::NoToken { dir: self.dir.clone() };
        let Enrolling { server, server_ca, token, proxy } = self.enrolling.as_ref().ok_or_else(no_token)?;
        let pending = self.dir.join(PENDING_KEY);
        let key = self.pending_key(&pending)?;
        let unusable = |source: Box<dyn std::error::Error + Send + Sync>| {
            let server = server.clone();
            AgentError::Server { server, source }
        };
        let fetcher = Fetcher::trusting(server_ca.as_deref()).map_err(|error: TlsError| unusable(error.into()))?;
        let body = json!({ "token": token.expose(), "csr": key.request()?, "proxy": proxy }).to_string();
        let request = Request::post(format!("{}/api/v1/enrol", server.trim_end_matches('/')))
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.into());
        let request = request.map_err(|error| unusable(error.into()))?;
        let answer = fetcher.send(request, ANSWER.0, ANSWER.1).await.map_err(|error| match error {
            FetchError::Url(_) | FetchError::Insecure(_) => unusable(error.into()),
            error => AgentError::Away { server: server.clone(), reason: chain(&error) },
        })?;
        let status = answer.status();
        if status != StatusCode::OK {
            let details: Option<Details> = serde_json::from_slice(answer.body()).ok();
            let reason = details.map_or_else(|| format!("it answers {status}"), |details| details.detail);
            let passes = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
            let server = server.clone();
            return Err(if passes {
                AgentError::Away { server, reason }
            } else {
                AgentError::Refused { server, reason }
            });
        }
        let enrolled = serde_json::from_slice(answer.body());
        let Enrolled { certificate, ca } = enrolled.map_err(|_| AgentError::Answer { server: server.clone() })?;
        let held = self.keep(&key, server, &certificate, &ca)?;
        fs::remove_file(&pending).map_err(|source| AgentError::File { path: pending, source })?;
        Ok(held)
    }

    /// The key to enrol with: the one that was used before, if no answer came.
    fn pending_key(&self, path: &Path) -> Result<OwnKey, AgentError> {
        let failed = |source| AgentError::File { path: path.to_owned(), source };
        fs::create_dir_all(&self.dir).map_err(failed)?;
        match fs::read_to_string(path) {
            Ok(pem) => Ok(OwnKey::from_pem(&pem)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = OwnKey::generate()?;
                file::replace(path, key.pem().expose().as_bytes(), file::PRIVATE).map_err(failed)?;
                Ok(key)
            }
            Err(error) => Err(failed(error)),
        }
    }

    async fn renew(&self) -> Result<Held, AgentError> {
        let server = self.xds.to_string();
        let away = |reason: String| AgentError::Away { server: server.clone(), reason };
        let key = OwnKey::generate()?;
        let IdentityFiles { certificate, private_key, ca } = IdentityFiles::within(&self.dir);
        let files = ClientTlsFiles { ca, identity: Some((certificate, private_key)) };
        let request = RenewRequest { csr: key.request()? };
        let endpoint = Endpoint::from_shared(format!("http://{server}"));
        let endpoint =
            endpoint.map_err(|source| AgentError::Server { server: server.clone(), source: source.into() })?;
        let asked = async {
            let channel = tls::connect(endpoint, &self.xds, self.server_name.as_deref(), &files).await;
            let channel = channel.map_err(|error| away(chain(error.as_ref())))?;
            let mut client = Grpc::new(channel).max_decoding_message_size(ANSWER.1);
            client.ready().await.map_err(|error| away(chain(&error)))?;
            let path = http::uri::PathAndQuery::from_static(RENEW);
            let codec = ProstCodec::<RenewRequest, RenewResponse>::default();
            let answered = client.unary(tonic::Request::new(request), path, codec).await;
            answered.map(tonic::Response::into_inner).map_err(|status| refusal(&server, &status))
        };
        let answer = tokio::time::timeout(ANSWER.0, asked).await;
        let RenewResponse { certificate, ca, .. } =
            answer.map_err(|_| away(format!("no answer within {} s", ANSWER.0.as_secs())))??;
        self.keep(&key, &server, &certificate, &ca)
    }

    /// Writes down what was given, if it is for our key.
    fn keep(&self, key: &OwnKey, server: &str, certificate: &str, ca: &str) -> Result<Held, AgentError> {
        let ours = RequestedKey::of(&key.request()?).ok().map(|requested| *requested.hash());
        let theirs = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).ok();
        if ours.is_none() || theirs.and_then(|(_, pem)| key_hash(&pem.contents)) != ours {
            return Err(AgentError::Answer { server: server.to_owned() });
        }
        issue::write_pem(&self.dir, certificate, &key.pem(), ca)?;
        issue::held(&self.dir).ok_or_else(|| AgentError::Answer { server: server.to_owned() })
    }
}

fn refusal(server: &str, status: &Status) -> AgentError {
    let (server, reason) = (server.to_owned(), status.message().to_owned());
    match status.code() {
        Code::PermissionDenied | Code::FailedPrecondition | Code::Unauthenticated | Code::InvalidArgument => {
            AgentError::Refused { server, reason }
        }
        _ => AgentError::Away { server, reason },
    }
}
