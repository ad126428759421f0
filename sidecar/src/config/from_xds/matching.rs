//! `RouteMatch`: which requests a route is for.

use chancery_proto::envoy::route::{
    HeaderMatcher, QueryParameterMatcher, RouteMatch, header_matcher::HeaderMatchSpecifier,
    query_parameter_matcher::QueryParameterMatchSpecifier, route_match::PathSpecifier,
};
use http::HeaderName;

use super::{Problems, value};
use crate::config::routes::{self, HeaderMatch, PathMatch, QueryMatch};

/// Reads what a route matches; nothing if the path is not clear.
pub(super) fn read(problems: &mut Problems, path: &str, matches: &RouteMatch) -> Option<routes::RouteMatch> {
    let unknown = [
        ("case_sensitive", matches.case_sensitive.as_ref().is_some_and(|flag| !flag.value)),
        ("runtime_fraction", matches.runtime_fraction.is_some()),
        ("cookies", !matches.cookies.is_empty()),
        ("tls_context", matches.tls_context.is_some()),
        ("dynamic_metadata", !matches.dynamic_metadata.is_empty()),
        ("filter_state", !matches.filter_state.is_empty()),
    ];
    for (name, _) in unknown.iter().filter(|(_, said)| *said) {
        problems.add(format!("{path}.{name}"), "cannot be matched here");
    }
    let headers = matches.headers.iter().enumerate();
    let headers = headers.filter_map(|(h, one)| header(problems, &format!("{path}.headers[{h}]"), one)).collect();
    let query = matches.query_parameters.iter().enumerate();
    let query =
        query.filter_map(|(q, one)| parameter(problems, &format!("{path}.query_parameters[{q}]"), one)).collect();
    let wanted = match &matches.path_specifier {
        Some(PathSpecifier::Prefix(prefix)) => PathMatch::Prefix(prefix.as_str().into()),
        Some(PathSpecifier::Path(exact)) => PathMatch::Exact(exact.as_str().into()),
        Some(PathSpecifier::PathSeparatedPrefix(prefix)) => PathMatch::Segments(prefix.as_str().into()),
        Some(PathSpecifier::SafeRegex(matcher)) => {
            PathMatch::Regex(value::regex(problems, &format!("{path}.safe_regex"), matcher, true)?)
        }
        Some(PathSpecifier::PathMatchPolicy(_)) => {
            problems.add(format!("{path}.path_match_policy"), "templates of paths are not known here");
            return None;
        }
        _ => {
            problems.add(path, "is not about a path, or in a way that is not known here");
            return None;
        }
    };
    Some(routes::RouteMatch { path: wanted, headers, query, grpc: matches.grpc.is_some() })
}

fn header(problems: &mut Problems, path: &str, matcher: &HeaderMatcher) -> Option<HeaderMatch> {
    let name = match matcher.name.as_str() {
        ":method" => None,
        name => match name.parse::<HeaderName>() {
            Ok(name) => Some(name),
            Err(_) => {
                problems.add(format!("{path}.name"), format!("{name:?} cannot be matched here"));
                return None;
            }
        },
    };
    let mut invert = matcher.invert_match;
    let value = match &matcher.header_match_specifier {
        None | Some(HeaderMatchSpecifier::PresentMatch(true)) => None,
        Some(HeaderMatchSpecifier::PresentMatch(false)) => {
            invert = !invert;
            None
        }
        Some(HeaderMatchSpecifier::StringMatch(matcher)) => {
            Some(value::text_match(problems, &format!("{path}.string_match"), matcher)?)
        }
        Some(_) => {
            problems.add(path, "matches in a way that Envoy has given up for string_match, or by a range");
            return None;
        }
    };
    // What is looked at is whether the header is there, and an empty one would be.
    let missing_is_empty = matcher.treat_missing_header_as_empty && value.is_some();
    Some(HeaderMatch { name, value, invert, missing_is_empty })
}

fn parameter(problems: &mut Problems, path: &str, matcher: &QueryParameterMatcher) -> Option<QueryMatch> {
    let value = match &matcher.query_parameter_match_specifier {
        None | Some(QueryParameterMatchSpecifier::PresentMatch(true)) => None,
        Some(QueryParameterMatchSpecifier::PresentMatch(false)) => {
            problems.add(format!("{path}.present_match"), "cannot be false");
            return None;
        }
        Some(QueryParameterMatchSpecifier::StringMatch(matcher)) => {
            Some(value::text_match(problems, &format!("{path}.string_match"), matcher)?)
        }
    };
    Some(QueryMatch { name: matcher.name.as_str().into(), value })
}
