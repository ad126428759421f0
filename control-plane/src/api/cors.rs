//! Pages of other origins that may ask the API from a browser: none, unless they are listed.
//!
//! Every origin is named: a page is let in by its token, and `*` would have anybody's page try the tokens that it comes by. Cookies
//! and the like are never asked for.

use std::{str::FromStr, time::Duration};

use axum::http::{HeaderName, HeaderValue, Method, Uri, header};
use serde::{Deserialize, Serialize};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// How long a browser need not ask again whether it may.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);

/// A list of origins, as `https://console.example.com, http://localhost:3000`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Origins(Vec<String>);

/// A text that is no list of origins.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an origin; write scheme, host and port if it is not the scheme's own, as https://console.example.com"
)]
pub struct InvalidOrigin(String);

impl FromStr for Origins {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(origin).collect::<Result<_, _>>().map(Self)
    }
}

/// `text`, if a browser would write it so.
fn origin(text: &str) -> Result<String, InvalidOrigin> {
    let same = |uri: Uri| {
        let scheme = uri.scheme_str().filter(|scheme| ["http", "https"].contains(scheme))?;
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
        (format!("{scheme}://{authority}").to_ascii_lowercase() == text).then(|| text.to_owned())
    };
    text.parse().ok().and_then(same).ok_or_else(|| InvalidOrigin(text.to_owned()))
}

impl TryFrom<String> for Origins {
    type Error = InvalidOrigin;

    fn try_from(text: String) -> Result<Self, InvalidOrigin> {
        text.parse()
    }
}

impl From<Origins> for String {
    fn from(Origins(origins): Origins) -> Self {
        origins.join(",")
    }
}

impl Origins {
    /// What lets pages of these origins ask; nothing if there are none.
    pub(super) fn layer(&self) -> Option<CorsLayer> {
        let origins: Vec<HeaderValue> = self.0.iter().filter_map(|origin| HeaderValue::try_from(origin).ok()).collect();
        if origins.is_empty() {
            return None;
        }
        let named = |names: &[&'static str]| names.iter().copied().map(HeaderName::from_static).collect::<Vec<_>>();
        let standard = [header::AUTHORIZATION, header::CONTENT_TYPE, header::IF_MATCH, header::IF_NONE_MATCH];
        let sent = named(&["idempotency-key", "last-event-id", "traceparent", "tracestate", "x-request-id"]);
        let read = named(&[
            "deprecation",
            "etag",
            "idempotent-replayed",
            "link",
            "location",
            "ratelimit",
            "ratelimit-policy",
            "retry-after",
            "sunset",
            "x-request-id",
            "x-trace-id",
        ]);
        let layer = CorsLayer::new()
            .allow_origin(AllowOrigin::list(origins))
            .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
            .allow_headers(standard.into_iter().chain(sent).collect::<Vec<_>>())
            .expose_headers(read)
            .max_age(REMEMBERED_FOR);
        Some(layer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let origins: Origins = "https://console.example.com, http://localhost:3000".parse().unwrap();
        assert_eq!(String::from(origins), "https://console.example.com,http://localhost:3000");
        assert!("".parse::<Origins>().unwrap().layer().is_none());
        for text in ["*", "null", "https://a/", "https://a/b", "a", "ftp://a", "https://A", "https://u@a", "https://"] {
            assert!(text.parse::<Origins>().is_err(), "{text}");
        }
    }
}
