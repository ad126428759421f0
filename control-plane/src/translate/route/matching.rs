//! The conditions of a rule as Envoy's `RouteMatch`.
//!
//! Regular expressions are RE2 and match the whole value, in Envoy as in the language of the users,
//! so they are passed on as they are.

use chancery_proto::{
    any,
    envoy::{
        core::TypedExtensionConfig,
        matcher::string_matcher::MatchPattern,
        path_template_match::UriTemplateMatchConfig,
        route::{
            CookieMatcher, HeaderMatcher, QueryParameterMatcher, RouteMatch,
            header_matcher::HeaderMatchSpecifier,
            query_parameter_matcher::QueryParameterMatchSpecifier,
            route_match::{ConnectMatcher, GrpcRouteMatchOptions, PathSpecifier},
        },
    },
};

use crate::{
    model::route::{Match, NamedMatch, PathMatch, ValueMatch},
    translate::value::{regex, string_matcher},
};

/// Envoy refuses a pattern whose compiled program is too large (100 instructions unless its runtime says otherwise).
/// Alternatives of so many characters stay far below.
const METHODS_IN_A_PATTERN: usize = 60;

/// Envoy has no condition on the method; to it the method is a header.
const METHOD: &str = ":method";

/// The method of the request that a browser asks about.
const REQUESTED_METHOD: &str = "access-control-request-method";

/// The conditions of one rule: several if it is for more methods than fit into a pattern.
pub(super) fn route_matches(matches: &Match) -> impl Iterator<Item = RouteMatch> {
    let Match { path, methods, headers, query, cookies, grpc } = matches;
    method_conditions(METHOD, methods).into_iter().map(move |method| RouteMatch {
        path_specifier: Some(path_specifier(path)),
        headers: method.into_iter().chain(headers.iter().map(header)).collect(),
        query_parameters: query.iter().map(query_parameter).collect(),
        cookies: cookies.iter().map(cookie).collect(),
        grpc: grpc.then_some(GrpcRouteMatchOptions {}),
        ..RouteMatch::default()
    })
}

/// What browsers ask before they send requests of one rule from a page of another origin. They say which method it will be, and
/// send none of its headers.
pub(super) fn preflights(matches: &Match) -> impl Iterator<Item = RouteMatch> {
    let Match { path, methods, headers: _, query, cookies: _, grpc: _ } = matches;
    method_conditions(REQUESTED_METHOD, methods).into_iter().map(move |requested| {
        let asked = NamedMatch { name: REQUESTED_METHOD.to_owned(), value: ValueMatch::Present, invert: false };
        let options = method_condition(METHOD, &["OPTIONS".to_owned()]);
        RouteMatch {
            path_specifier: Some(path_specifier(path)),
            headers: vec![options, requested.unwrap_or_else(|| header(&asked))],
            query_parameters: query.iter().map(query_parameter).collect(),
            ..RouteMatch::default()
        }
    })
}

fn path_specifier(path: &PathMatch) -> PathSpecifier {
    match path {
        PathMatch::Connect => PathSpecifier::ConnectMatcher(ConnectMatcher {}),
        PathMatch::Exact(path) => PathSpecifier::Path(path.clone()),
        PathMatch::Regex(pattern) => PathSpecifier::SafeRegex(regex(pattern.clone())),
        PathMatch::Template(template) => PathSpecifier::PathMatchPolicy(TypedExtensionConfig {
            name: "envoy.path.match.uri_template.uri_template_matcher".to_owned(),
            typed_config: Some(any::pack_typed(&UriTemplateMatchConfig { path_template: template.clone() })),
        }),
        PathMatch::Prefix(prefix) => PathSpecifier::Prefix(prefix.clone()),
        PathMatch::Below(path) => PathSpecifier::PathSeparatedPrefix(path.clone()),
    }
}

/// Conditions one of which must hold; a single one that is always met if every method will do.
fn method_conditions(name: &str, methods: &[String]) -> Vec<Option<HeaderMatcher>> {
    if methods.is_empty() {
        return vec![None];
    }
    let mut conditions = Vec::new();
    let mut rest = methods;
    while !rest.is_empty() {
        let mut length = 0;
        let fitting = rest.iter().take_while(|method| {
            length += method.len();
            length <= METHODS_IN_A_PATTERN
        });
        let (now, later) = rest.split_at(fitting.count().max(1));
        conditions.push(Some(method_condition(name, now)));
        rest = later;
    }
    conditions
}

/// That a header is one of these methods.
fn method_condition(name: &str, methods: &[String]) -> HeaderMatcher {
    let pattern = if let [one] = methods {
        MatchPattern::Exact(one.clone())
    } else {
        let alternatives: Vec<_> = methods.iter().map(|method| regex_syntax::escape(method)).collect();
        MatchPattern::SafeRegex(regex(alternatives.join("|")))
    };
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(string_matcher(pattern))),
        ..HeaderMatcher::default()
    }
}

pub(in crate::translate) fn header(condition: &NamedMatch) -> HeaderMatcher {
    let NamedMatch { name, value, invert } = condition;
    let specifier = match value_pattern(value) {
        Some(pattern) => HeaderMatchSpecifier::StringMatch(string_matcher(pattern)),
        None => HeaderMatchSpecifier::PresentMatch(true),
    };
    HeaderMatcher {
        name: name.clone(),
        invert_match: *invert,
        // To Envoy a condition on a missing header fails even when it is inverted; to whoever writes "not
        // x-beta: 1", a request without x-beta is meant.
        treat_missing_header_as_empty: *invert && *value != ValueMatch::Present,
        header_match_specifier: Some(specifier),
    }
}

fn query_parameter(condition: &NamedMatch) -> QueryParameterMatcher {
    let NamedMatch { name, value, invert: _ } = condition;
    let specifier = match value_pattern(value) {
        Some(pattern) => QueryParameterMatchSpecifier::StringMatch(string_matcher(pattern)),
        None => QueryParameterMatchSpecifier::PresentMatch(true),
    };
    QueryParameterMatcher { name: name.clone(), query_parameter_match_specifier: Some(specifier) }
}

/// Unlike a header, to Envoy a missing cookie is one for which an inverted condition holds.
fn cookie(condition: &NamedMatch) -> CookieMatcher {
    let NamedMatch { name, value, invert } = condition;
    // Envoy has no condition for a cookie that is merely there.
    let pattern = value_pattern(value).unwrap_or_else(|| MatchPattern::SafeRegex(regex(".*".to_owned())));
    CookieMatcher { name: name.clone(), string_match: Some(string_matcher(pattern)), invert_match: *invert }
}

/// The pattern of a condition on a value, none if any value will do.
fn value_pattern(value: &ValueMatch) -> Option<MatchPattern> {
    match value {
        ValueMatch::Present => None,
        ValueMatch::Exact(text) => Some(MatchPattern::Exact(text.clone())),
        ValueMatch::Prefix(text) => Some(MatchPattern::Prefix(text.clone())),
        ValueMatch::Suffix(text) => Some(MatchPattern::Suffix(text.clone())),
        ValueMatch::Contains(text) => Some(MatchPattern::Contains(text.clone())),
        ValueMatch::Regex(pattern) => Some(MatchPattern::SafeRegex(regex(pattern.clone()))),
    }
}
