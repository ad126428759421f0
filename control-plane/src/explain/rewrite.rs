//! The path that a service or a redirected client gets to see.

use super::pattern::Patterns;
use crate::model::route::{PathMatch, PathRewrite};

/// `path`, which `matched` has matched, with the matched part replaced by `with`, one slash between that and the rest.
pub(super) fn replace_matched(matched: &PathMatch, with: &str, path: &str) -> String {
    let (PathMatch::Prefix(prefix) | PathMatch::Below(prefix)) = matched else { return with.to_owned() };
    let rest = path.strip_prefix(prefix.as_str()).unwrap_or_default();
    match (prefix.ends_with('/'), with.ends_with('/')) {
        (true, true) | (false, false) => format!("{with}{rest}"),
        (true, false) => format!("{with}/{rest}"),
        (false, true) => format!("{with}{}", rest.trim_start_matches('/')),
    }
}

/// `path`, which `matched` has matched, after `rewrite`.
pub(super) fn rewritten(rewrite: &PathRewrite, matched: &PathMatch, path: &str, patterns: &Patterns) -> String {
    match (rewrite, matched) {
        (PathRewrite::Prefix(with), _) => replace_matched(matched, with, path),
        (PathRewrite::Template(made_of), PathMatch::Template(template)) => {
            patterns.of_variables(template, path, made_of).unwrap_or_else(|| path.to_owned())
        }
        // The model has them with a template only.
        (PathRewrite::Template(_), _) => path.to_owned(),
        (PathRewrite::Regex { pattern, substitution }, _) => patterns.replace(pattern, substitution, path),
    }
}
