//! The REST API over HTTP: one request, one deadline, one answer or a [`Failure`]; sent again a few times where that does no harm.

use std::{error::Error, path::Path, time::Duration};

use chancery_control_plane::api::ProblemDetails;
use chancery_runtime::{fetch, telemetry::chain};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Collected, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_util::{client::legacy::Client as Http, rt::TokioExecutor};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    again::{self, Outcome, TRIES},
    failure::Failure,
    sign_in::session::Credentials,
};

/// How long an answer may take, beside what the server was asked to wait.
const DEADLINE: Duration = Duration::from_secs(35);

/// More than any refusal says.
const MOST_OF_A_REFUSAL: usize = 1 << 20;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// A control plane.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: Http<fetch::Connector, Full<Bytes>>,
    server: String,
    credentials: Credentials,
    /// The trace that is asked for.
    traceparent: Option<HeaderValue>,
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    headers: HeaderMap,
    body: Option<Value>,
    /// How long the server was asked to wait.
    patience: Duration,
}

impl Call {
    /// A request for `path`, which starts with `/api`.
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        let (query, headers) = (Vec::new(), HeaderMap::new());
        Self { method, path: path.into(), query, headers, body: None, patience: Duration::ZERO }
    }

    pub(crate) fn query(mut self, name: &'static str, value: &impl ToString) -> Self {
        self.query.push((name, value.to_string()));
        self
    }

    /// As [`Call::query`], if there is a value.
    pub(crate) fn query_if(self, name: &'static str, value: Option<&impl ToString>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    /// From the event after the one called `id`.
    pub(crate) fn after(mut self, id: &str) -> Self {
        self.headers.extend(HeaderValue::try_from(id).map(|id| (HeaderName::from_static("last-event-id"), id)));
        self
    }

    /// Only if the `ETag` is `revision`.
    pub(crate) fn if_revision(mut self, revision: u64) -> Self {
        let tag = HeaderValue::try_from(format!("\"{revision}\""));
        self.headers.extend(tag.map(|tag| (header::IF_MATCH, tag)));
        self
    }

    /// Made once, however often it is sent.
    pub(crate) fn once(mut self) -> Self {
        let key = HeaderValue::try_from(again::new_key());
        self.headers.extend(key.map(|key| (IDEMPOTENCY_KEY, key)));
        self
    }

    /// Whether it does the same if it is made twice.
    fn is_harmless(&self) -> bool {
        self.method == Method::GET || self.headers.contains_key(IDEMPOTENCY_KEY)
    }

    pub(crate) fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    /// Asks the server to wait until the change is applied.
    pub(crate) fn wait_applied(mut self, timeout: Duration) -> Self {
        self.patience = timeout;
        self.query("wait", &"applied").query("timeout", &format_args!("{}ms", timeout.as_millis()))
    }
}

impl Client {
    /// A client of `server`, the URL of an API or of what ends TLS before it; the authorities in the PEM file `ca` are trusted, or else
    /// those that this system trusts.
    pub(crate) fn new(server: &str, ca: Option<&Path>, credentials: Credentials) -> Result<Self, Failure> {
        let server = server.trim_end_matches('/').to_owned();
        let uri: Uri = server.parse().map_err(|error| Failure::Usage(format!("--server {server:?}: {error}")))?;
        let tls = match (uri.scheme_str(), uri.query()) {
            (Some("http"), None) => fetch::trust_nobody(),
            (Some("https"), None) => {
                fetch::trust(ca).map_err(|error| Failure::Usage(format!("--server-ca: {}", chain(&error))))?
            }
            _ => {
                return Err(Failure::Usage(format!(
                    "--server {server:?} must be a URL as https://chancery.example.com"
                )));
            }
        };
        let http = Http::builder(TokioExecutor::new()).build(fetch::connector(tls, CONNECT_DEADLINE));
        Ok(Self { http, server, credentials, traceparent: None })
    }

    /// The same, whose requests are to be recorded in `trace`, 32 hexadecimal digits.
    pub(crate) fn traced(self, trace: &str) -> Self {
        // There is no span here that would be told of: any id stands for the command.
        let command = trace.get(..16).unwrap_or_default();
        let traceparent = HeaderValue::try_from(format!("00-{trace}-{command}-01")).ok();
        Self { traceparent, ..self }
    }

    /// The URL of the control plane, without a slash at its end.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// What must not be shown to others of what it sends.
    pub(crate) fn secrets(&self) -> Vec<String> {
        self.credentials.secrets()
    }

    /// `GET`, read as `T`.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: impl Into<String>) -> Result<T, Failure> {
        self.send(Call::new(Method::GET, path)).await
    }

    /// `GET` of a list, read as `T` with the items of all its pages.
    pub(crate) async fn list<T: DeserializeOwned>(&self, call: Call) -> Result<T, Failure> {
        let mut whole: Value = self.send(call.clone()).await?;
        while let Some(cursor) = whole["nextCursor"].as_str().map(str::to_owned) {
            let mut page: Value = self.send(call.clone().query("cursor", &cursor)).await?;
            let before = std::mem::take(&mut whole["items"]);
            if let (Value::Array(mut items), Some(more)) = (before, page["items"].as_array_mut()) {
                items.append(more);
                page["items"] = items.into();
            }
            whole = page;
        }
        serde_json::from_value(whole).map_err(|error| self.failed(format!("gives a list that cannot be read: {error}")))
    }

    /// Sends `call` and reads the answer as `T`.
    pub(crate) async fn send<T: DeserializeOwned>(&self, call: Call) -> Result<T, Failure> {
        let (status, _, body) = self.answer(call).await?;
        if !status.is_success() {
            return Err(self.refusal(status, &body));
        }
        serde_json::from_slice(&body)
            .map_err(|error| self.failed(format!("gives an answer that cannot be read: {error}")))
    }

    /// The headers of the answer to `GET`, whatever its status is.
    pub(crate) async fn headers(&self, path: impl Into<String>) -> Result<HeaderMap, Failure> {
        self.answer(Call::new(Method::GET, path)).await.map(|(_, headers, _)| headers)
    }

    /// The answer to `call`, which is sent again where that does no harm.
    async fn answer(&self, call: Call) -> Result<(StatusCode, HeaderMap, Bytes), Failure> {
        let (deadline, harmless) = (DEADLINE + call.patience, call.is_harmless());
        let mut tries = TRIES;
        loop {
            tries -= 1;
            let request = self.request(call.clone()).await?;
            let Ok(answered) = tokio::time::timeout(deadline, self.exchange(request)).await else {
                return Err(self.unreachable(format!("no answer within {} s", deadline.as_secs())));
            };
            let outcome = match &answered {
                Ok((status, headers, _)) => Outcome::Answered(*status, headers),
                Err(Lost { sent: true, .. }) => Outcome::Lost,
                Err(Lost { sent: false, .. }) => Outcome::NotSent,
            };
            match again::pause(outcome, harmless).filter(|_| tries > 0) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return answered.map_err(|Lost { reason, .. }| self.unreachable(reason)),
            }
        }
    }

    /// Sends `call` and returns the body as it comes, once the answer has begun.
    pub(crate) async fn open(&self, call: Call) -> Result<Incoming, Failure> {
        let request = self.request(call).await?;
        let response = match tokio::time::timeout(DEADLINE, self.http.request(request)).await {
            Ok(response) => response.map_err(|error| self.unreachable(innermost(&error)))?,
            Err(_) => return Err(self.unreachable(format!("no answer within {} s", DEADLINE.as_secs()))),
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response.into_body());
        }
        let body = Limited::new(response.into_body(), MOST_OF_A_REFUSAL).collect().await;
        Err(self.refusal(status, &body.map(Collected::to_bytes).unwrap_or_default()))
    }

    async fn request(&self, call: Call) -> Result<Request<Full<Bytes>>, Failure> {
        let mut uri = format!("{}{}", self.server, call.path);
        for (index, (name, value)) in call.query.iter().enumerate() {
            uri += if index == 0 { "?" } else { "&" };
            uri += &format!("{name}={}", encoded(value));
        }
        let mut request = Request::builder()
            .method(call.method)
            .uri(uri)
            .header(header::USER_AGENT, concat!("chancery/", env!("CARGO_PKG_VERSION")));
        let authorization = self.credentials.authorization().await?;
        if let Some(headers) = request.headers_mut() {
            headers.extend(authorization.map(|authorization| (header::AUTHORIZATION, authorization)));
            headers.extend(call.headers);
            headers.extend(self.traceparent.clone().map(|context| (TRACEPARENT, context)));
        }
        let body = match call.body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        request.body(Full::new(body)).map_err(|error| Failure::Usage(format!("cannot ask {}: {error}", call.path)))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, HeaderMap, Bytes), Lost> {
        let response = self.http.request(request).await;
        let response = response.map_err(|error| Lost { sent: !error.is_connect(), reason: innermost(&error) })?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| Lost { sent: true, reason: innermost(&error) })?;
        Ok((parts.status, parts.headers, body.to_bytes()))
    }

    fn refusal(&self, status: StatusCode, body: &[u8]) -> Failure {
        let details: Option<ProblemDetails> = serde_json::from_slice(body).ok();
        match (status, details) {
            (StatusCode::UNAUTHORIZED, Some(details)) => {
                self.failed(format!("does not accept the token: {}", details.detail))
            }
            (StatusCode::UNAUTHORIZED, None) => self.failed("does not accept the token".to_owned()),
            (status, Some(details)) if status.is_client_error() => Failure::Refused(Box::new(details)),
            (_, Some(details)) => self.failed(format!("fails: {}", details.detail)),
            (status, None) => self.failed(format!("answers {status}; is it a control plane?")),
        }
    }

    fn unreachable(&self, reason: String) -> Failure {
        Failure::Unreachable { server: self.server.clone(), reason }
    }

    fn failed(&self, reason: String) -> Failure {
        Failure::Server { server: self.server.clone(), reason }
    }
}

/// A request without an answer.
struct Lost {
    /// Whether somebody may have got it.
    sent: bool,
    reason: String,
}

/// What is at the bottom: hyper's own words say only that something failed.
fn innermost(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}

/// `text` in a query (RFC 3986, section 2.3).
pub(crate) fn encoded(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_encoded() {
        assert_eq!(encoded("a b&c=é~"), "a%20b%26c%3D%C3%A9~");
    }

    #[test]
    fn a_server_is_a_url_over_http_or_https() {
        let new = |server: &str| Client::new(server, None, Credentials::None).is_ok();
        assert!(new("http://127.0.0.1:8080") && new("http://[::1]:8080/behind/a/proxy/") && new("https://a"));
        assert!(!new("127.0.0.1:8080") && !new("ftp://a") && !new("https://a?b") && !new(""));
        let ca = Client::new("https://a", Some(Path::new("/no/such/file")), Credentials::None).err().unwrap();
        assert!(ca.to_string().contains("/no/such/file"), "{ca}");
    }
}
