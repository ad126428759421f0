//! Replacing the matched part of a path without doubling or losing a slash.
//!
//! Envoy swaps the matched prefix for the new one and nothing else, so that `/api` → `/` makes `//orders` of
//! `/api/orders`, and `/` → `/v2` makes `/v2orders` of `/orders`. Nobody wants either: here exactly one
//! slash stands between the new prefix and what remains of the path.

use chancery_proto::envoy::matcher::RegexMatchAndSubstitute;

use crate::{model::route::PathMatch, translate::value::regex};

/// How Envoy is to change the path.
#[derive(Debug, PartialEq)]
pub(super) enum Replacement {
    /// What was matched becomes this.
    Prefix(String),
    /// What matches the pattern becomes this.
    Regex(RegexMatchAndSubstitute),
}

/// Replaces what `matched` matched by `with`.
pub(super) fn replace_matched(matched: &PathMatch, with: &str) -> Replacement {
    let (PathMatch::Prefix(prefix) | PathMatch::Below(prefix)) = matched else {
        return Replacement::Prefix(with.to_owned());
    };
    match (prefix.ends_with('/'), with.ends_with('/')) {
        (true, true) | (false, false) => Replacement::Prefix(with.to_owned()),
        (true, false) => Replacement::Prefix(format!("{with}/")),
        // The slash after the prefix is there or not, depending on the request: only a pattern can take it along.
        (false, true) => Replacement::Regex(RegexMatchAndSubstitute {
            pattern: Some(regex(format!("^{}/*", regex_syntax::escape(prefix)))),
            substitution: with.replace('\\', r"\\"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of `path`, by the rules of Envoy's router.
    fn rewritten(prefix: &str, with: &str, path: &str) -> String {
        match replace_matched(&PathMatch::Prefix(prefix.into()), with) {
            Replacement::Prefix(with) => format!("{with}{}", path.strip_prefix(prefix).expect("a match")),
            Replacement::Regex(rewrite) => {
                let pattern = rewrite.pattern.expect("a pattern").regex;
                assert_eq!(pattern, format!("^{}/*", regex_syntax::escape(prefix)));
                let rest = path.strip_prefix(prefix).expect("a match").trim_start_matches('/');
                format!("{}{rest}", rewrite.substitution)
            }
        }
    }

    #[test]
    fn exactly_one_slash_remains() {
        for (prefix, with, path, expected) in [
            ("/api", "/", "/api/orders", "/orders"),
            ("/api", "/", "/api", "/"),
            ("/api", "/v2/", "/api/orders", "/v2/orders"),
            ("/api", "/v2", "/api/orders", "/v2/orders"),
            ("/api", "/v2", "/api", "/v2"),
            ("/api/", "/v2/", "/api/orders", "/v2/orders"),
            ("/api/", "/v2", "/api/orders", "/v2/orders"),
            ("/", "/v2", "/orders", "/v2/orders"),
            ("/", "/", "/orders", "/orders"),
            ("/a.b", "/", "/a.b/c", "/c"),
        ] {
            assert_eq!(rewritten(prefix, with, path), expected, "{prefix} -> {with} on {path}");
        }
    }

    #[test]
    fn a_matched_path_is_replaced_whole() {
        let whole = Replacement::Prefix("/new".into());
        assert_eq!(replace_matched(&PathMatch::Exact("/old".into()), "/new"), whole);
    }
}
