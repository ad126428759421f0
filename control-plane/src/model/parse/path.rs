//! Paths of requests.

use crate::model::problem::Quoted;

/// The longest path, in bytes.
pub(super) const MAX_LENGTH: usize = 1024;

/// A path or the start of one, without a query.
pub(super) fn plain(text: &str) -> Result<String, String> {
    if text.contains('?') {
        return Err(format!("{} is not a path: leave out the query", Quoted(text)));
    }
    with_query(text)
}

/// A path to which more segments may be added.
pub(super) fn without_end(text: &str) -> Result<String, String> {
    if text.ends_with('/') {
        return Err(format!("{} has a slash at its end: leave it out, or write a prefix", Quoted(text)));
    }
    plain(text)
}

/// A path, with or without a query.
pub(super) fn with_query(text: &str) -> Result<String, String> {
    let is_not = |why: &str| Err(format!("{} is not a path: {why}", Quoted(text)));
    if !text.starts_with('/') {
        return is_not("it must start with '/'");
    }
    if text.len() > MAX_LENGTH {
        return is_not(&format!("it must have at most {MAX_LENGTH} characters"));
    }
    if text.contains('#') {
        return is_not("leave out the fragment");
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return is_not(
            "spaces, control characters and other than ASCII characters arrive percent-encoded; write them so",
        );
    }
    Ok(text.to_owned())
}
