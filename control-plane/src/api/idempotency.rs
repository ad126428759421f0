//! Writes that are made once, however often they are sent: `Idempotency-Key`.
//!
//! What makes a revision is remembered with it, in its transaction, for a day: the same request under the same key is then
//! answered as the first was, by every replica. Two that come at once take turns as all writes do, so the second is answered with what the first
//! did; it need not be told to come again. Nothing is remembered of a refusal: the request is judged anew.
//!
//! What shows a secret is not kept, so those operations, and others that are no revision and not the same when they are done
//! twice, refuse the header rather than ignore it. What writes nothing, and leases, which may be renewed as often as one likes, need
//! no key and take any.

use axum::{
    body::Body,
    extract::{MatchedPath, Query, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use super::{Api, author::Author, body, error::ApiError, params::WriteParams, resources, write};
use crate::{
    commit::Committed,
    model::Kind,
    store::{IDEMPOTENCY_KEPT_FOR, IdempotencyKey, IdempotencyRecord},
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The longest key.
const LONGEST_KEY: usize = 128;

/// What a key does to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// It makes a revision once.
    Once,
    /// Nothing: the operation may be repeated as it is.
    Needless,
    /// It cannot be honoured.
    Refused,
}

impl Effect {
    /// That on an operation, by the path that the router has.
    fn on(method: &str, path: &str) -> Self {
        let rest = path.strip_prefix("/api/v1/").unwrap_or_default();
        let (collection, place) = rest.split_once('/').unwrap_or((rest, ""));
        let of_a_kind = Kind::ALL.into_iter().any(|kind| kind.collection() == collection);
        match (method, rest) {
            ("GET" | "HEAD" | "OPTIONS", _) => Self::Needless,
            ("POST", "apply" | "revisions/{number}/revert") => Self::Once,
            ("POST", "plan" | "plan/traffic" | "explain") => Self::Needless,
            _ if of_a_kind && (place.is_empty() || place == "{name}") => Self::Once,
            _ if rest.starts_with("services/{name}/endpoints") => Self::Needless,
            _ => Self::Refused,
        }
    }

    /// Whether the answer is that of one resource.
    fn is_of_a_resource(method: &Method, path: &str) -> bool {
        method != Method::DELETE && !path.ends_with("/apply") && !path.ends_with("/revert")
    }
}

/// Whether an operation is made once under a key.
pub(super) fn honoured(method: &str, path: &str) -> bool {
    Effect::on(method, path) == Effect::Once
}

/// Answers a request that was made before as it was answered then.
pub(super) async fn once(State(api): State<Api>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let given = request.headers().contains_key(IDEMPOTENCY_KEY);
    let effect = path.filter(|_| given).map_or(Effect::Needless, |path| Effect::on(request.method().as_str(), path));
    match effect {
        Effect::Needless => next.run(request).await,
        Effect::Once => make_once(&api, request, next).await.unwrap_or_else(IntoResponse::into_response),
        Effect::Refused => ApiError::Malformed(
            "idempotency-key: is not honoured here; it is where a revision is made (docs: Idempotency)".to_owned(),
        )
        .into_response(),
    }
}

async fn make_once(api: &Api, request: Request, next: Next) -> Result<Response, ApiError> {
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let one = Effect::is_of_a_resource(request.method(), path);
    let author = request.extensions().get::<Author>().cloned().ok_or(ApiError::NoToken)?;
    let key = given(request.headers())?;
    let (mut parts, bytes) = body::whole(request).await?;
    let fingerprint = fingerprint(&parts.method, &parts.uri, &parts.headers, &bytes);
    let key = IdempotencyKey { owner: author.who.name.clone(), key, fingerprint };
    if let Some(record) = find(api, &key).await? {
        return again(api, &record, &parts.uri, one).await;
    }
    let uri = parts.uri.clone();
    parts.extensions.insert(author.under(key.clone()));
    let response = next.run(Request::from_parts(parts, Body::from(bytes))).await;
    // It may have been done meanwhile, which refuses whatever comes after.
    if response.status().is_client_error()
        && let Some(record) = find(api, &key).await?
    {
        return again(api, &record, &uri, one).await;
    }
    Ok(response)
}

/// The key that a request carries: as it is, or in the quotes that the header's draft standard wants.
fn given(headers: &HeaderMap) -> Result<String, ApiError> {
    let mut given = headers.get_all(IDEMPOTENCY_KEY).iter();
    let key = given.next().filter(|_| given.next().is_none()).and_then(|key| key.to_str().ok()).unwrap_or_default();
    let key = key.strip_prefix('"').and_then(|key| key.strip_suffix('"')).unwrap_or(key);
    let plain = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
    if (1..=LONGEST_KEY).contains(&key.len()) && key.bytes().all(plain) {
        Ok(key.to_owned())
    } else {
        let reason =
            format!("idempotency-key: must be one text of 1 to {LONGEST_KEY} letters, digits and signs, as a UUID");
        Err(ApiError::Malformed(reason))
    }
}

/// Tells a request from every other that would do something else.
fn fingerprint(method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Vec<u8> {
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    };
    add(method.as_str().as_bytes());
    add(uri.path().as_bytes());
    add(uri.query().unwrap_or_default().as_bytes());
    for name in [header::CONTENT_TYPE, header::IF_MATCH, header::IF_NONE_MATCH] {
        add(headers.get(name).map_or(&[], HeaderValue::as_bytes));
    }
    add(body);
    hash.finalize().to_vec()
}

/// What was done under the key.
async fn find(api: &Api, key: &IdempotencyKey) -> Result<Option<IdempotencyRecord>, ApiError> {
    let since = OffsetDateTime::now_utc() - IDEMPOTENCY_KEPT_FOR;
    let found = api.replica.store().idempotency(key, since).await?;
    if found.as_ref().is_some_and(|record| record.key != *key) {
        return Err(ApiError::OtherRequest(key.key.clone()));
    }
    Ok(found)
}

/// The answer to what was done before; `one` says that it is that of one resource.
async fn again(api: &Api, record: &IdempotencyRecord, uri: &Uri, one: bool) -> Result<Response, ApiError> {
    let unreadable = |error: serde_json::Error| ApiError::Internal("reading what was done before", error.into());
    let committed = Committed::again(record).map_err(unreadable)?;
    // It could be read the first time.
    let Query(params) = Query::<WriteParams>::try_from_uri(uri).unwrap_or_default();
    let revision = (!committed.changed.is_empty()).then_some(committed.revision);
    let written = write::arrived(api, params.wait()?, committed, false).await;
    let mut response = if one { resources::answer(written, revision) } else { axum::Json(written).into_response() };
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_honoured_needless_or_refused() {
        for (method, path, effect) in [
            (Method::POST, "/api/v1/apply", Effect::Once),
            (Method::POST, "/api/v1/routes", Effect::Once),
            (Method::PATCH, "/api/v1/envoy-patches/{name}", Effect::Once),
            (Method::DELETE, "/api/v1/services/{name}", Effect::Once),
            (Method::POST, "/api/v1/revisions/{number}/revert", Effect::Once),
            (Method::GET, "/api/v1/routes", Effect::Needless),
            (Method::POST, "/api/v1/plan", Effect::Needless),
            (Method::PUT, "/api/v1/services/{name}/endpoints/{id}", Effect::Needless),
            (Method::POST, "/api/v1/tokens", Effect::Refused),
            (Method::POST, "/api/v1/tokens/{id}/rotate", Effect::Refused),
            (Method::POST, "/api/v1/enrolments", Effect::Refused),
            (Method::POST, "/api/v1/rollouts/{name}/promote", Effect::Refused),
            (Method::POST, "/api/v1/something/new", Effect::Refused),
        ] {
            assert_eq!(Effect::on(method.as_str(), path), effect, "{method} {path}");
        }
    }

    #[test]
    fn a_key_is_one_plain_text() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(IDEMPOTENCY_KEY, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            given(&headers).ok()
        };
        assert_eq!(read(&["8e03978e-40d5"]).as_deref(), Some("8e03978e-40d5"));
        assert_eq!(read(&["\"8e03978e-40d5\""]).as_deref(), Some("8e03978e-40d5"));
        let long = "x".repeat(129);
        for bad in
            [vec![""], vec!["\"\""], vec!["a b"], vec!["a", "a"], vec!["é"], vec!["a\\b"], vec![&long], vec!["\"a"]]
        {
            assert_eq!(read(&bad), None, "{bad:?}");
        }
    }

    #[test]
    fn requests_that_differ_have_other_fingerprints() {
        let of = |method: Method, uri: &'static str, tag: &'static str, body: &[u8]| {
            let headers = HeaderMap::from_iter([(header::IF_MATCH, HeaderValue::from_static(tag))]);
            fingerprint(&method, &Uri::from_static(uri), &headers, body)
        };
        let all = [
            of(Method::PUT, "/a", "1", b"x"),
            of(Method::POST, "/a", "1", b"x"),
            of(Method::PUT, "/b", "1", b"x"),
            of(Method::PUT, "/a?", "1x", b""),
            of(Method::PUT, "/a?y", "1", b"x"),
            of(Method::PUT, "/a", "2", b"x"),
            of(Method::PUT, "/a", "1", b"y"),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[..index].contains(one), "{index}");
        }
        assert_eq!(all[0], of(Method::PUT, "/a", "1", b"x"));
    }
}
