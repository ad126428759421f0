//! What is changed about path and host of a request before it is forwarded.

use super::super::{host, path, template};
use crate::model::{
    problem::Problems,
    re2,
    route::{PathMatch, PathRewrite, Rewrite},
    wire::{MatchSpec, RegexRewriteSpec, RewriteSpec},
};

/// `path` is what was read of the path condition in `matches`.
pub(super) fn rewrite(
    spec: &RewriteSpec,
    matches: Option<&MatchSpec>,
    path: Option<&PathMatch>,
    problems: &mut Problems,
) -> Rewrite {
    let RewriteSpec { prefix, template, regex, host } = spec;
    let ways = [prefix.is_some(), template.is_some(), regex.is_some()].into_iter().filter(|given| *given).count();
    match (ways, host) {
        (0, None) => problems.report("needs prefix, template, regex or host"),
        (0 | 1, _) => {}
        _ => problems.report("can have only one of prefix, template and regex"),
    }
    let prefix = prefix.as_ref().and_then(|text| replacement(text, path, &mut problems.at("prefix")));
    let template = template.as_ref().and_then(|text| of_template(text, matches, &mut problems.at("template")));
    let regex = regex.as_ref().and_then(|spec| of_regex(spec, &mut problems.at("regex")));
    let host = host.as_ref().and_then(|host| problems.at("host").ok(host::exact(host)));
    Rewrite { path: prefix.map(PathRewrite::Prefix).or(template).or(regex), host }
}

/// What stands in the place of the matched part of a path; otherwise no part is marked off.
pub(super) fn replacement(prefix: &str, path: Option<&PathMatch>, problems: &mut Problems) -> Option<String> {
    let other = match path {
        Some(PathMatch::Regex(_)) => Some("regex"),
        Some(PathMatch::Template(_)) => Some("template"),
        // Whatever is said of one without a path is told elsewhere.
        Some(PathMatch::Exact(_) | PathMatch::Prefix(_) | PathMatch::Below(_) | PathMatch::Connect) | None => None,
    };
    if let Some(other) = other {
        problems.report(format!("replaces a matched prefix or exact path; it does not go with match.path.{other}"));
    }
    problems.ok(path::plain(prefix))
}

/// A path made of the variables in that of the condition.
fn of_template(text: &str, matches: Option<&MatchSpec>, problems: &mut Problems) -> Option<PathRewrite> {
    let matched = matches.and_then(|matches| matches.path.as_ref()?.template.as_ref());
    let Some(matched) = matched else {
        problems.report("is made of variables; it goes with match.path.template only");
        return None;
    };
    // What is wrong with the condition is told there.
    let matched = template::parse(matched).ok()?;
    problems.ok(matched.rewrite(text)).map(PathRewrite::Template)
}

fn of_regex(spec: &RegexRewriteSpec, problems: &mut Problems) -> Option<PathRewrite> {
    let RegexRewriteSpec { pattern, substitution } = spec;
    let groups = problems.at("pattern").ok(re2::check(pattern).map(|()| re2::groups(pattern)));
    // Without a known pattern, nothing is said about its groups.
    let substitution = problems.at("substitution").ok(self::substitution(substitution, groups.unwrap_or(9)));
    groups?;
    Some(PathRewrite::Regex { pattern: pattern.clone(), substitution: substitution? })
}

/// A part of a path, in which `\1` to `\9` stand for what groups have matched, `\0` for all, and `\\` for a backslash.
fn substitution(text: &str, groups: usize) -> Result<String, String> {
    // A part of a path may begin anywhere.
    path::plain(&format!("/{text}"))
        .map_err(|_| "has something that no path has, such as ?, # or a space".to_owned())?;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            continue;
        }
        match characters.next() {
            Some('\\') => {}
            Some(digit) if digit.to_digit(10).is_some_and(|group| group as usize <= groups) => {}
            Some(digit) if digit.is_ascii_digit() => {
                return Err(format!("names group {digit}, but the pattern has {groups}"));
            }
            _ => return Err(r"has a backslash that is not part of \0 to \9 or \\".to_owned()),
        }
    }
    Ok(text.to_owned())
}
