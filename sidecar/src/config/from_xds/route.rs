//! `RouteConfiguration`.

use std::{sync::Arc, time::Duration};

use chancery_proto::envoy::{
    core::{HeaderValueOption, data_source::Specifier, header_value_option::HeaderAppendAction},
    matcher::RegexMatchAndSubstitute,
    route::{
        DirectResponseAction, RedirectAction, RetryPolicy, Route, RouteAction, RouteConfiguration, VirtualHost,
        redirect_action::{PathRewriteSpecifier, SchemeRewriteSpecifier},
        route::Action as RouteActionKind,
        route_action::{ClusterSpecifier, HostRewriteSpecifier},
        route_match::PathSpecifier,
    },
};
use http::{HeaderName, HeaderValue, StatusCode};

use super::{Problem, Problems, matching, value};
use crate::{
    config::routes::{self, Action, DuplicateDomain, Forward, HeaderEdit, Redirect, RedirectPath, Rewrite, RouteTable},
    policy::{
        backoff::FullJitter,
        deadline::RouteTimeout,
        retry::{self, Conditions},
    },
};

/// What a request may take if the route does not say it (Envoy's default).
const TIMEOUT: Duration = Duration::from_secs(15);

/// Reads the routes of a listener.
///
/// # Errors
/// Everything that is wrong.
pub fn routes(configuration: &RouteConfiguration) -> Result<RouteTable, Vec<Problem>> {
    let mut problems = Problems::default();
    if configuration.vhds.is_some() {
        problems.add("vhds", "hosts one by one are for those who say that they take them");
    }
    let request = edits(
        &mut problems,
        "request_headers",
        &configuration.request_headers_to_add,
        &configuration.request_headers_to_remove,
    );
    let response = edits(
        &mut problems,
        "response_headers",
        &configuration.response_headers_to_add,
        &configuration.response_headers_to_remove,
    );
    let hosts: Vec<_> = configuration
        .virtual_hosts
        .iter()
        .enumerate()
        .map(|(h, host)| {
            let read = virtual_host(&mut problems, &format!("virtual_hosts[{h}]"), host, &request, &response);
            (host.domains.clone(), read)
        })
        .collect();
    match RouteTable::new(hosts) {
        Ok(table) => problems.none_or(table),
        Err(duplicates) => {
            for DuplicateDomain(domain) in duplicates {
                problems.add("virtual_hosts", format!("domain {domain:?} is there more than once"));
            }
            Err(problems.0)
        }
    }
}

fn virtual_host(
    problems: &mut Problems,
    path: &str,
    host: &VirtualHost,
    request: &[HeaderEdit],
    response: &[HeaderEdit],
) -> routes::VirtualHost {
    if host.matcher.is_some() {
        problems.add(format!("{path}.matcher"), "is not known here");
    }
    let of_host = |problems: &mut Problems, what: &str, add: &[HeaderValueOption], remove: &[String]| {
        edits(problems, &format!("{path}.{what}"), add, remove)
    };
    let on_request =
        of_host(problems, "request_headers", &host.request_headers_to_add, &host.request_headers_to_remove);
    let on_response =
        of_host(problems, "response_headers", &host.response_headers_to_add, &host.response_headers_to_remove);
    // Envoy: the route's changes first, then those of what is around it.
    let outer_request = [&on_request, request].concat();
    let outer_response = [&on_response, response].concat();
    let routes = host.routes.iter().enumerate().filter_map(|(r, one)| {
        let path = format!("{path}.routes[{r}]");
        let mut route = route(problems, &path, one, host.retry_policy.as_ref())?;
        route.request_headers.extend(outer_request.iter().cloned());
        route.response_headers.extend(outer_response.iter().cloned());
        Some(Arc::new(route))
    });
    routes::VirtualHost { name: host.name.as_str().into(), routes: routes.collect() }
}

fn route(problems: &mut Problems, path: &str, route: &Route, retry: Option<&RetryPolicy>) -> Option<routes::Route> {
    let matches = route.r#match.as_ref();
    // Nobody asks a sidecar for a tunnel, so for nobody's requests it makes a difference.
    if matches.is_some_and(|matches| matches!(matches.path_specifier, Some(PathSpecifier::ConnectMatcher(_)))) {
        return None;
    }
    let matches = matches.and_then(|matches| matching::read(problems, &format!("{path}.match"), matches));
    let request_headers = edits(
        problems,
        &format!("{path}.request_headers"),
        &route.request_headers_to_add,
        &route.request_headers_to_remove,
    );
    let response_headers = edits(
        problems,
        &format!("{path}.response_headers"),
        &route.response_headers_to_add,
        &route.response_headers_to_remove,
    );
    let action = match &route.action {
        Some(RouteActionKind::Route(action)) => {
            forward(problems, &format!("{path}.route"), action, retry).map(|forward| Action::Forward(forward.into()))
        }
        Some(RouteActionKind::DirectResponse(response)) => {
            respond(problems, &format!("{path}.direct_response"), response)
        }
        Some(RouteActionKind::Redirect(action)) => {
            redirect(problems, &format!("{path}.redirect"), action).map(|read| Action::Redirect(read.into()))
        }
        _ => {
            problems.add(path, "has an action that is not known here");
            None
        }
    };
    let name = route.name.as_str().into();
    Some(routes::Route { name, matches: matches?, action: action?, request_headers, response_headers })
}

fn respond(problems: &mut Problems, path: &str, response: &DirectResponseAction) -> Option<Action> {
    let status = u16::try_from(response.status).ok().and_then(|status| StatusCode::from_u16(status).ok());
    if status.is_none() {
        problems.add(format!("{path}.status"), "is no status");
    }
    let body = match response.body.as_ref().and_then(|body| body.specifier.as_ref()) {
        None => String::new(),
        Some(Specifier::InlineString(text)) => text.clone(),
        Some(_) => {
            problems.add(format!("{path}.body"), "has to be an inline string");
            return None;
        }
    };
    Some(Action::Respond { status: status?, body: body.into() })
}

fn redirect(problems: &mut Problems, path: &str, action: &RedirectAction) -> Option<Redirect> {
    let status = match action.response_code {
        0 => StatusCode::MOVED_PERMANENTLY,
        1 => StatusCode::FOUND,
        2 => StatusCode::SEE_OTHER,
        3 => StatusCode::TEMPORARY_REDIRECT,
        4 => StatusCode::PERMANENT_REDIRECT,
        _ => {
            problems.add(format!("{path}.response_code"), "is not known here");
            return None;
        }
    };
    let scheme = match &action.scheme_rewrite_specifier {
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https".into()),
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => Some(scheme.as_str().into()),
        Some(SchemeRewriteSpecifier::HttpsRedirect(false)) | None => None,
    };
    let rewrite = match &action.path_rewrite_specifier {
        None => None,
        Some(PathRewriteSpecifier::PathRedirect(path)) => Some(RedirectPath::Whole(path.as_str().into())),
        Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => {
            Some(RedirectPath::Part(Rewrite::Prefix(prefix.as_str().into())))
        }
        Some(PathRewriteSpecifier::RegexRewrite(rewrite)) => {
            let path = format!("{path}.regex_rewrite");
            Some(RedirectPath::Part(regex_rewrite(problems, &path, rewrite)))
        }
        Some(PathRewriteSpecifier::PathRewrite(_)) => {
            problems.add(format!("{path}.path_rewrite"), "is not known here");
            None
        }
    };
    let port = u16::try_from(action.port_redirect).ok();
    if port.is_none() {
        problems.add(format!("{path}.port_redirect"), "is no port");
    }
    let text = |text: &str| (!text.is_empty()).then(|| text.into());
    Some(Redirect {
        status,
        scheme,
        host: text(&action.host_redirect),
        port: port.filter(|port| *port > 0),
        path: rewrite,
        strip_query: action.strip_query,
    })
}

fn forward(problems: &mut Problems, path: &str, action: &RouteAction, retry: Option<&RetryPolicy>) -> Option<Forward> {
    let clusters = match &action.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => vec![(Arc::from(name.as_str()), 1)],
        Some(ClusterSpecifier::WeightedClusters(weighted)) => weighted
            .clusters
            .iter()
            .map(|one| (Arc::from(one.name.as_str()), one.weight.as_ref().map_or(0, |weight| weight.value)))
            .collect(),
        _ => {
            problems.add(path, "has to name clusters");
            return None;
        }
    };
    if clusters.iter().all(|(_, weight)| *weight == 0) {
        problems.add(format!("{path}.weighted_clusters"), "gives every cluster a weight of zero");
    }
    let timeout = match &action.timeout {
        None => Some(TIMEOUT),
        said => value::duration_at(problems, &format!("{path}.timeout"), said.as_ref()).filter(|t| !t.is_zero()),
    };
    let host = match &action.host_rewrite_specifier {
        None => None,
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => {
            let value = HeaderValue::try_from(host).ok().filter(|_| host.parse::<http::uri::Authority>().is_ok());
            if value.is_none() {
                problems.add(format!("{path}.host_rewrite_literal"), "is no host");
            }
            value
        }
        Some(_) => {
            problems.add(path, "rewrites the host in a way that is not known here");
            None
        }
    };
    let own = action.retry_policy.as_ref();
    let retry = own.or(retry).and_then(|policy| retry_policy(problems, &format!("{path}.retry_policy"), policy));
    let rewrite = rewrite(problems, path, action);
    let timeout = timeout.map(RouteTimeout::new);
    Some(Forward { clusters, timeout, retry: retry.map(Arc::new), rewrite, host })
}

fn rewrite(problems: &mut Problems, path: &str, action: &RouteAction) -> Rewrite {
    if action.path_rewrite_policy.is_some() {
        problems.add(format!("{path}.path_rewrite_policy"), "is not known here");
    }
    if !action.path_rewrite.is_empty() {
        problems.add(format!("{path}.path_rewrite"), "is not known here");
    }
    match &action.regex_rewrite {
        None if action.prefix_rewrite.is_empty() => Rewrite::None,
        None => Rewrite::Prefix(action.prefix_rewrite.as_str().into()),
        Some(rewrite) => regex_rewrite(problems, &format!("{path}.regex_rewrite"), rewrite),
    }
}

fn regex_rewrite(problems: &mut Problems, path: &str, rewrite: &RegexMatchAndSubstitute) -> Rewrite {
    let Some(pattern) = &rewrite.pattern else {
        problems.add(path, "has no pattern");
        return Rewrite::None;
    };
    let pattern = value::regex(problems, &format!("{path}.pattern"), pattern, false);
    let substitution = substitution(&rewrite.substitution);
    pattern.map_or(Rewrite::None, |pattern| Rewrite::Regex(pattern, substitution.into()))
}

/// RE2's `\1` in the words of the regex crate.
fn substitution(re2: &str) -> String {
    let mut characters = re2.chars();
    let mut text = String::new();
    while let Some(character) = characters.next() {
        match character {
            '$' => text.push_str("$$"),
            '\\' => match characters.next() {
                Some(digit) if digit.is_ascii_digit() => text.push_str(&format!("${{{digit}}}")),
                Some(other) => text.push(other),
                None => {}
            },
            other => text.push(other),
        }
    }
    text
}

fn retry_policy(problems: &mut Problems, path: &str, policy: &RetryPolicy) -> Option<retry::RetryPolicy> {
    let (on, unknown) = Conditions::parse(&policy.retry_on);
    for name in unknown {
        problems.add(format!("{path}.retry_on"), format!("{name:?} is not known here"));
    }
    if !policy.retriable_headers.is_empty() {
        problems.add(format!("{path}.retriable_headers"), "responses are not told apart by headers here");
    }
    if !policy.retriable_request_headers.is_empty() {
        problems.add(format!("{path}.retriable_request_headers"), "requests are not told apart by headers here");
    }
    let mut backoff = FullJitter::default();
    if let Some(said) = &policy.retry_back_off {
        let path = format!("{path}.retry_back_off");
        let base = value::duration_at(problems, &format!("{path}.base_interval"), said.base_interval.as_ref());
        let most = value::duration_at(problems, &format!("{path}.max_interval"), said.max_interval.as_ref());
        backoff.base = base.unwrap_or(backoff.base);
        backoff.most = most.unwrap_or(backoff.base.saturating_mul(10));
    }
    let per_try = value::duration_at(problems, &format!("{path}.per_try_timeout"), policy.per_try_timeout.as_ref());
    let codes = policy.retriable_status_codes.iter().filter_map(|code| u16::try_from(*code).ok());
    Some(retry::RetryPolicy {
        on,
        retries: policy.num_retries.as_ref().map_or(1, |retries| retries.value),
        status_codes: codes.collect(),
        backoff,
        per_try: per_try.filter(|per_try| !per_try.is_zero()),
        repeatable: false,
    })
}

/// The changes to headers, removals last as in Envoy.
fn edits(problems: &mut Problems, path: &str, add: &[HeaderValueOption], remove: &[String]) -> Vec<HeaderEdit> {
    let added = add.iter().enumerate().filter_map(|(n, option)| {
        let path = format!("{path}_to_add[{n}].header");
        let header = option.header.as_ref()?;
        if header.value.is_empty() && !option.keep_empty_value {
            return None;
        }
        let Ok(name) = header.key.parse::<HeaderName>() else {
            problems.add(format!("{path}.key"), "is no header");
            return None;
        };
        let Some(value) = literal(&header.value) else {
            problems.add(format!("{path}.value"), "has to be text, without commands in percent signs");
            return None;
        };
        match option.append_action() {
            HeaderAppendAction::AppendIfExistsOrAdd => Some(HeaderEdit::Append(name, value)),
            HeaderAppendAction::AddIfAbsent => Some(HeaderEdit::Default(name, value)),
            HeaderAppendAction::OverwriteIfExistsOrAdd => Some(HeaderEdit::Set(name, value)),
            HeaderAppendAction::OverwriteIfExists => Some(HeaderEdit::Replace(name, value)),
        }
    });
    let mut edits: Vec<_> = added.collect();
    for (n, name) in remove.iter().enumerate() {
        match name.parse::<HeaderName>() {
            Ok(name) => edits.push(HeaderEdit::Remove(name)),
            Err(_) => problems.add(format!("{path}_to_remove[{n}]"), "is no header"),
        }
    }
    edits
}

/// A value in which `%%` stands for a percent sign, and nothing else with one is there.
fn literal(value: &str) -> Option<HeaderValue> {
    let without = value.replace("%%", "");
    if without.contains('%') {
        return None;
    }
    HeaderValue::try_from(value.replace("%%", "%")).ok()
}
