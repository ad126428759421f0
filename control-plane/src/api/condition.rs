//! `ETag`, `If-Match`, `If-None-Match`: a revision as a validator (RFC 9110, section 13).
//!
//! An `ETag` is the revision in quotes. `W/` before one is passed over: what weakens it on the way is a
//! compressing proxy, and the revision still names the one version.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::error::ApiError;
use crate::commit::Expect;

/// The `ETag` of `revision`.
pub(super) fn etag(revision: u64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{revision}\"")).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// What must be there for a write; `otherwise` without a condition.
pub(super) fn expect(headers: &HeaderMap, otherwise: Expect) -> Result<Expect, ApiError> {
    match (one(headers, &header::IF_MATCH)?, one(headers, &header::IF_NONE_MATCH)?) {
        (None, None) => Ok(otherwise),
        (Some("*"), None) => Ok(Expect::Exists),
        (Some(tag), None) => revision(tag).map(Expect::Revision).ok_or_else(|| unreadable("If-Match", tag)),
        (None, Some("*")) => Ok(Expect::Absent),
        (None, Some(tag)) => Err(ApiError::Malformed(format!("If-None-Match of a write must be *, not {tag}"))),
        (Some(_), Some(_)) => Err(ApiError::Malformed("If-Match and If-None-Match exclude each other".to_owned())),
    }
}

/// The revision that the catalog must be at.
pub(super) fn catalog_revision(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    match one(headers, &header::IF_MATCH)? {
        None => Ok(None),
        Some(tag) => revision(tag).map(Some).ok_or_else(|| unreadable("If-Match", tag)),
    }
}

/// Whether the reader has `current` already.
pub(super) fn has(headers: &HeaderMap, current: u64) -> bool {
    names(headers, |tag| revision(tag) == Some(current))
}

/// Whether `If-None-Match` names what the reader would get: one of its tags `is` that, or it is `*`.
pub(super) fn names(headers: &HeaderMap, is: impl Fn(&str) -> bool) -> bool {
    let tags = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    tags.flat_map(|value| value.split(',')).map(str::trim).any(|tag| tag == "*" || is(tag))
}

fn one<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, ApiError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => match value.to_str() {
            Ok(value) => Ok(Some(value.trim())),
            Err(_) => Err(ApiError::Malformed(format!("{name} is not a text"))),
        },
        _ => Err(ApiError::Malformed(format!("{name} is given twice"))),
    }
}

fn revision(tag: &str) -> Option<u64> {
    let tag = tag.trim();
    let digits = tag.strip_prefix("W/").unwrap_or(tag).strip_prefix('"')?.strip_suffix('"')?;
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn unreadable(header: &str, tag: &str) -> ApiError {
    ApiError::Malformed(format!("{header} must be one revision in quotes, as \"7\", not {tag}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn conditions_of_a_write() {
        let expected = |name, value| expect(&headers(name, value), Expect::Any).ok();
        assert_eq!(expect(&HeaderMap::new(), Expect::Exists).ok(), Some(Expect::Exists));
        assert_eq!(expected(header::IF_MATCH, "\"7\""), Some(Expect::Revision(7)));
        assert_eq!(expected(header::IF_MATCH, "W/\"7\""), Some(Expect::Revision(7)));
        assert_eq!(expected(header::IF_MATCH, "*"), Some(Expect::Exists));
        assert_eq!(expected(header::IF_NONE_MATCH, "*"), Some(Expect::Absent));
        for unreadable in ["7", "\"7", "\"\"", "\"-1\"", "\"+1\"", "\"99999999999999999999\"", "\"1\", \"2\"", ""] {
            assert_eq!(expected(header::IF_MATCH, unreadable), None, "{unreadable}");
        }
        assert_eq!(expected(header::IF_NONE_MATCH, "\"7\""), None);
    }

    #[test]
    fn a_reader_may_name_many() {
        assert!(has(&headers(header::IF_NONE_MATCH, "\"1\", W/\"7\""), 7));
        assert!(has(&headers(header::IF_NONE_MATCH, "*"), 7));
        assert!(!has(&headers(header::IF_NONE_MATCH, "\"1\""), 7));
        assert!(!has(&HeaderMap::new(), 7));
    }
}
