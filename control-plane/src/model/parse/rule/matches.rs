//! Which requests a rule is for.
//!
//! Conditions come out sorted, so that two rules for the same requests have equal matches however they were written.

use super::{
    super::{path, template, text},
    connect,
};
use crate::model::{
    problem::Problems,
    re2,
    route::{Match, NamedMatch, PathMatch, ValueMatch},
    wire::{CookieMatchSpec, GrpcMatchSpec, HeaderMatchSpec, MatchSpec, PathMatchSpec, QueryMatchSpec},
};

pub(super) fn matches(spec: Option<&MatchSpec>, problems: &mut Problems) -> Option<Match> {
    let MatchSpec { path, methods, headers, query, cookies, grpc, connect } = spec.cloned().unwrap_or_default();
    if let Some(connect) = connect {
        text::only_true(connect, &mut problems.at("connect"))?;
        let given = [
            ("path", path.is_some()),
            ("grpc", grpc.is_some()),
            ("methods", methods.is_some()),
            ("query", query.is_some()),
        ];
        connect::nothing_else(&given, problems);
    }
    let is_grpc = grpc.is_some();
    let path = match (path, grpc) {
        _ if connect.is_some() => Some(PathMatch::Connect),
        (None, None) => Some(PathMatch::Prefix("/".to_owned())),
        (Some(spec), None) => path_match(spec, &mut problems.at("path")),
        (None, Some(spec)) => grpc_match(&spec, &mut problems.at("grpc")),
        (Some(_), Some(_)) => {
            problems.report("can have only one of path and grpc");
            None
        }
    };
    let methods = sorted(methods, &mut problems.at("methods"), |method, problems| problems.ok(text::method(&method)));
    let headers = sorted(headers, &mut problems.at("headers"), header_match);
    let query = sorted(query, &mut problems.at("query"), query_match);
    let cookies = sorted(cookies, &mut problems.at("cookies"), cookie_match);
    Some(Match { path: path?, methods: methods?, headers: headers?, query: query?, cookies: cookies?, grpc: is_grpc })
}

/// Parses every entry, none of which may mean the same as another, and sorts them.
fn sorted<S, T: Ord + Clone>(
    specs: Option<Vec<S>>,
    problems: &mut Problems,
    mut parse: impl FnMut(S, &mut Problems) -> Option<T>,
) -> Option<Vec<T>> {
    let mut seen: Vec<T> = Vec::new();
    let mut parsed = problems.each(specs.unwrap_or_default(), |spec, problems| {
        let parsed = parse(spec, problems)?;
        if seen.contains(&parsed) {
            problems.report("is given twice");
        }
        seen.push(parsed.clone());
        Some(parsed)
    })?;
    parsed.sort_unstable();
    Some(parsed)
}

fn path_match(spec: PathMatchSpec, problems: &mut Problems) -> Option<PathMatch> {
    let PathMatchSpec { exact, prefix, path_prefix, regex, template } = spec;
    let mut given: Vec<Option<PathMatch>> = Vec::new();
    if let Some(text) = exact {
        given.push(problems.at("exact").ok(path::plain(&text)).map(PathMatch::Exact));
    }
    if let Some(text) = prefix {
        given.push(problems.at("prefix").ok(path::plain(&text)).map(PathMatch::Prefix));
    }
    if let Some(text) = path_prefix {
        given.push(problems.at("pathPrefix").ok(path::without_end(&text)).map(PathMatch::Below));
    }
    if let Some(text) = regex {
        given.push(problems.at("regex").ok(re2::check(&text)).map(|()| PathMatch::Regex(text)));
    }
    if let Some(text) = template {
        let template = problems.at("template").ok(template::parse(&text));
        given.push(template.map(|template| PathMatch::Template(template.pattern)));
    }
    problems.only_one(given, "exact, prefix, pathPrefix, regex and template")
}

pub(in crate::model::parse) fn header_match(spec: HeaderMatchSpec, problems: &mut Problems) -> Option<NamedMatch> {
    let HeaderMatchSpec { name, exact, prefix, suffix, contains, regex, present, invert } = spec;
    let name = problems.at("name").ok(text::header_name(&name));
    let value = value_match([exact, prefix, suffix, contains, regex], present, problems);
    Some(NamedMatch { name: name?, value: value?, invert: invert.unwrap_or(false) })
}

fn query_match(spec: QueryMatchSpec, problems: &mut Problems) -> Option<NamedMatch> {
    let QueryMatchSpec { name, exact, prefix, suffix, contains, regex, present } = spec;
    let name = problems.at("name").ok(text::parameter_name(&name));
    let value = value_match([exact, prefix, suffix, contains, regex], present, problems);
    Some(NamedMatch { name: name?, value: value?, invert: false })
}

fn cookie_match(spec: CookieMatchSpec, problems: &mut Problems) -> Option<NamedMatch> {
    let CookieMatchSpec { name, exact, prefix, suffix, contains, regex, present, invert } = spec;
    let name = problems.at("name").ok(text::cookie_name(&name));
    let value = value_match([exact, prefix, suffix, contains, regex], present, problems);
    Some(NamedMatch { name: name?, value: value?, invert: invert.unwrap_or(false) })
}

/// The path of a call is `/package.Service/Method`.
fn grpc_match(spec: &GrpcMatchSpec, problems: &mut Problems) -> Option<PathMatch> {
    let GrpcMatchSpec { service, method } = spec;
    let service = service.as_ref().map(|service| problems.at("service").ok(text::grpc_service(service)));
    let method = method.as_ref().map(|method| problems.at("method").ok(text::grpc_method(method)));
    Some(match (service, method) {
        (None, None) => PathMatch::Prefix("/".to_owned()),
        (Some(service), None) => PathMatch::Prefix(format!("/{}/", service?)),
        (Some(service), Some(method)) => PathMatch::Exact(format!("/{}/{}", service?, method?)),
        (None, Some(_)) => {
            problems.at("method").report("goes with service only");
            return None;
        }
    })
}

/// Exactly one condition on a value; the texts in the order of [`VALUE_FIELDS`].
fn value_match(texts: [Option<String>; 5], present: Option<bool>, problems: &mut Problems) -> Option<ValueMatch> {
    let mut given: Vec<Option<ValueMatch>> = Vec::new();
    for ((field, kind), text) in VALUE_FIELDS.into_iter().zip(texts) {
        let Some(text) = text else { continue };
        let mut problems = problems.at(field);
        given.push(match field {
            "regex" => problems.ok(re2::check(&text)).map(|()| kind(text)),
            "exact" => problems.ok(text::header_value(&text)).map(kind),
            _ if text.is_empty() => {
                problems.report("must not be empty");
                None
            }
            _ => problems.ok(text::header_value(&text)).map(kind),
        });
    }
    if let Some(present) = present {
        given.push(text::only_true(present, &mut problems.at("present")).map(|()| ValueMatch::Present));
    }
    problems.only_one(given, "exact, prefix, suffix, contains, regex and present")
}

/// A field, and the condition it stands for.
type ValueField = (&'static str, fn(String) -> ValueMatch);

const VALUE_FIELDS: [ValueField; 5] = [
    ("exact", ValueMatch::Exact),
    ("prefix", ValueMatch::Prefix),
    ("suffix", ValueMatch::Suffix),
    ("contains", ValueMatch::Contains),
    ("regex", ValueMatch::Regex),
];
