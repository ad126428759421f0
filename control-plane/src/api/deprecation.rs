//! Operations that will go away: how callers are told, in every answer and in the description.
//!
//! An operation that is to go is listed here, nowhere else, at least six months before it does. Until then its answers carry
//! `Deprecation` (RFC 9745: since when), `Sunset` (RFC 8594: when it goes) and a `Link` to what to use instead. Nothing is
//! deprecated now; a test holds the policy with a list of its own.

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, header},
    middleware::Next,
    response::Response,
};
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

/// What is deprecated.
pub(super) const DEPRECATED: &[Deprecated] = &[];

/// As HTTP writes dates (RFC 9110, section 5.6.7).
const HTTP_DATE: &[BorrowedFormatItem<'static>] =
    format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");

/// An operation that will go away.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deprecated {
    /// Its method, in capitals.
    pub(super) method: &'static str,
    /// Its path, as the description has it.
    pub(super) path: &'static str,
    /// Since when nobody should begin to use it.
    pub(super) since: OffsetDateTime,
    /// When it goes, six months later at the earliest.
    pub(super) sunset: OffsetDateTime,
    /// What says what to use instead.
    pub(super) instead: &'static str,
}

/// The row of an operation, if it has one.
pub(super) fn find<'t>(table: &'t [Deprecated], method: &str, path: &str) -> Option<&'t Deprecated> {
    // What answers GET answers HEAD.
    let method = if method == "HEAD" { "GET" } else { method };
    table.iter().find(|row| (row.method, row.path) == (method, path))
}

/// Says in the answer that its operation will go away, if the table has it.
pub(super) async fn announce(State(table): State<&'static [Deprecated]>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>();
    let row = path.and_then(|path| find(table, request.method().as_str(), path.as_str()));
    let mut response = next.run(request).await;
    if let Some(Deprecated { since, sunset, instead, .. }) = row {
        let headers = response.headers_mut();
        let mut tell = |name: &'static str, value: String| {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.append(name, value);
            }
        };
        tell("deprecation", format!("@{}", since.unix_timestamp()));
        tell("sunset", sunset.to_utc().format(HTTP_DATE).unwrap_or_default());
        tell(header::LINK.as_str(), format!("<{instead}>; rel=\"deprecation\"; type=\"text/html\""));
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, middleware::from_fn_with_state, routing::get};
    use time::{Duration, macros::datetime};
    use tower::ServiceExt as _;

    use super::*;
    use crate::api::openapi;

    /// The least time between the word and the deed.
    const NOTICE: Duration = Duration::days(180);

    const TABLE: &[Deprecated] = &[Deprecated {
        method: "GET",
        path: "/api/v1/whoami",
        since: datetime!(2026-01-01 0:00 UTC),
        sunset: datetime!(2026-12-31 23:59:59 UTC),
        instead: "https://chancery.dev/changes#whoami",
    }];

    async fn ask(method: &str, path: &str) -> Response {
        let handler = get(async || "a").post(async || "b");
        let router = Router::new().route("/api/v1/whoami", handler.clone()).route("/api/v1/{other}", handler);
        let router = router.layer(from_fn_with_state(TABLE, announce));
        let request = axum::http::Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        router.oneshot(request).await.unwrap()
    }

    #[tokio::test]
    async fn every_answer_of_it_says_so_and_no_other() {
        for method in ["GET", "HEAD"] {
            let answer = ask(method, "/api/v1/whoami").await;
            let header = |name: &str| answer.headers()[name].to_str().unwrap();
            assert_eq!(header("deprecation"), "@1767225600");
            assert_eq!(header("sunset"), "Thu, 31 Dec 2026 23:59:59 GMT");
            let link = "<https://chancery.dev/changes#whoami>; rel=\"deprecation\"; type=\"text/html\"";
            assert_eq!(header("link"), link);
        }
        for (method, path) in [("POST", "/api/v1/whoami"), ("GET", "/api/v1/other"), ("GET", "/nothing")] {
            let answer = ask(method, path).await;
            assert!(!answer.headers().contains_key("deprecation"), "{method} {path}");
        }
    }

    #[test]
    fn the_description_says_so() {
        let described = |table| serde_json::to_value(openapi::described(table)).unwrap()["paths"].clone();
        let plain = described(&[]);
        assert!(!plain.to_string().contains("\"deprecated\":true"));
        let marked = described(TABLE);
        assert_eq!(marked["/api/v1/whoami"]["get"]["deprecated"], true);
        assert_eq!(marked.to_string().matches("\"deprecated\":true").count(), 1);
    }

    /// What is listed exists, and was announced in time.
    #[test]
    fn the_policy_is_kept() {
        let description = serde_json::to_value(crate::api::openapi()).unwrap();
        for row in DEPRECATED.iter().chain(TABLE) {
            let operation = &description["paths"][row.path][row.method.to_lowercase()];
            assert!(operation.is_object(), "{row:?} is not there");
            assert!(row.sunset - row.since >= NOTICE, "{row:?} goes too soon");
        }
    }
}
