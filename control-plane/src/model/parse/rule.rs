//! What one rule of a route means.

use std::time::Duration;

use super::{
    access, authorizer, host,
    jwt::{self, Providers},
    path,
    service::subset,
    text,
};
use crate::model::{
    Name,
    problem::Problems,
    route::{
        Action, Forward, HeaderChanges, Mirror, PathMatch, Redirect, Respond, Rewrite, Rule, Target, Tunnel, Upgrade,
    },
    wire::{
        DurationText, HeaderChangesSpec, HeaderSpec, MirrorSpec, NameText, RedirectSchemeSpec, RedirectSpec,
        RespondSpec, RuleSpec, TargetSpec, UpgradeSpec,
    },
};

mod connect;
mod cors;
mod fault;
mod local_rate_limit;
pub(super) mod matches;
mod retry;
mod rewrite;

use rewrite::{replacement, rewrite};

/// The longest body of a fixed answer: Envoy's limit.
const MAX_BODY: usize = 4096;

/// What a redirect may answer with.
const REDIRECT_STATUS: [u16; 5] = [301, 302, 303, 307, 308];

const DEFAULT_REDIRECT_STATUS: u16 = 301;
const DEFAULT_WEIGHT: u32 = 1;

/// Every request, as a percentage.
const ALL: u32 = 100;

pub(super) fn rule(spec: &RuleSpec, providers: &Providers<'_>, problems: &mut Problems) -> Option<Rule> {
    let headers = spec.headers.clone().unwrap_or_default();
    let matches = matches::matches(spec.r#match.as_ref(), &mut problems.at("match"));
    // Without a known path condition, nothing is said about what goes with it.
    let path = matches.as_ref().map(|matches| &matches.path);
    let action = action(spec, path, providers, problems);
    let authorization = spec
        .external_authorization
        .as_ref()
        .and_then(|spec| authorizer::of_rule(spec, &mut problems.at("externalAuthorization")));
    let mut place = problems.at("headers");
    let request_headers = header_changes(headers.request, &mut place.at("request"));
    let response_headers = header_changes(headers.response, &mut place.at("response"));
    drop(place);
    Some(Rule {
        matches: matches?,
        action: action?,
        authorization,
        request_headers: request_headers?,
        response_headers: response_headers?,
    })
}

/// Exactly one of the three, each parsed if it is given.
fn action(
    spec: &RuleSpec,
    path: Option<&PathMatch>,
    providers: &Providers<'_>,
    problems: &mut Problems,
) -> Option<Action> {
    let RuleSpec {
        r#match: _,
        to,
        redirect: other,
        respond: answer,
        rewrite,
        mirror,
        cors,
        access,
        jwt,
        fault,
        max_request_body,
        tracing,
        compress,
        timeout,
        idle_timeout,
        max_stream_duration,
        upgrades,
        connect: _,
        retry,
        local_rate_limit,
        rate_limits,
        external_authorization: _,
        headers: _,
    } = spec;
    let before = problems.count();
    let tunnel = connect::tunnel(spec, problems);
    let forward = to.as_ref().map(|to| forward(to, spec, path, tunnel, providers, problems).map(Action::Forward));
    let redirect = other.as_ref().map(|spec| redirect(spec, path, &mut problems.at("redirect")).map(Action::Redirect));
    let respond = answer.as_ref().map(|spec| respond(spec, &mut problems.at("respond")).map(Action::Respond));
    if forward.is_none() {
        let useless = [
            ("rewrite", rewrite.is_some()),
            ("mirror", mirror.is_some()),
            ("cors", cors.is_some()),
            ("access", access.is_some()),
            ("jwt", jwt.is_some()),
            ("fault", fault.is_some()),
            ("maxRequestBody", max_request_body.is_some()),
            ("tracing", tracing.is_some()),
            ("compress", compress.is_some()),
            ("timeout", timeout.is_some()),
            ("idleTimeout", idle_timeout.is_some()),
            ("maxStreamDuration", max_stream_duration.is_some()),
            ("upgrades", upgrades.is_some()),
            ("retry", retry.is_some()),
            ("localRateLimit", local_rate_limit.is_some()),
            ("rateLimits", rate_limits.is_some()),
        ];
        for (field, _) in useless.iter().filter(|(_, given)| *given) {
            problems.at(field).report("goes with to only");
        }
    }
    let mut actions = [forward, redirect, respond].into_iter().flatten();
    match (actions.next(), actions.next()) {
        (Some(action), None) => action.filter(|_| problems.count() == before),
        (None, _) => {
            problems.report("needs one of to, redirect and respond");
            None
        }
        (Some(_), Some(_)) => {
            problems.report("can have only one of to, redirect and respond");
            None
        }
    }
}

fn forward(
    to: &[TargetSpec],
    spec: &RuleSpec,
    path: Option<&PathMatch>,
    tunnel: Option<Tunnel>,
    providers: &Providers<'_>,
    problems: &mut Problems,
) -> Option<Forward> {
    let targets = targets(to, &mut problems.at("to"));
    let rewrite = match &spec.rewrite {
        None => Rewrite::default(),
        Some(changes) => rewrite(changes, spec.r#match.as_ref(), path, &mut problems.at("rewrite")),
    };
    let mirror = spec.mirror.as_ref().and_then(|spec| mirror(spec, &mut problems.at("mirror")));
    let cors = spec.cors.as_ref().and_then(|cors| cors::cors(cors, spec.r#match.as_ref(), &mut problems.at("cors")));
    let access = spec.access.as_ref().and_then(|spec| access::access(spec, &mut problems.at("access")));
    let jwt = spec.jwt.as_ref().and_then(|spec| jwt::jwt(spec, providers, &mut problems.at("jwt")));
    let fault = spec.fault.as_ref().and_then(|spec| fault::fault(spec, &mut problems.at("fault")));
    let max_request_body = spec.max_request_body.as_ref().and_then(|size| {
        let mut problems = problems.at("maxRequestBody");
        if spec.upgrades.is_some() {
            problems.report("would wait for the end of a WebSocket; it does not go with upgrades");
        }
        problems.ok(text::size(size, "1B", "64MiB"))
    });
    let tracing = spec.tracing.as_ref();
    let tracing = tracing.and_then(|spec| super::tracing::sampling(spec, &mut problems.at("tracing")));
    let local_rate_limit = spec.local_rate_limit.as_ref();
    let local_rate_limit =
        local_rate_limit.and_then(|spec| local_rate_limit::local_rate_limit(spec, &mut problems.at("localRateLimit")));
    let mut time = |field: &str, time: &Option<DurationText>| {
        text::optional_duration(time.as_ref(), text::DAY, &mut problems.at(field))
    };
    let timeout = time("timeout", &spec.timeout);
    let idle_timeout = time("idleTimeout", &spec.idle_timeout);
    let max_stream_duration = time("maxStreamDuration", &spec.max_stream_duration);
    let retry = spec.retry.as_ref().and_then(|spec| retry::retry(spec, timeout, &mut problems.at("retry")));
    let upgrades = spec.upgrades.iter().flatten().map(|UpgradeSpec::Websocket| Upgrade::Websocket);
    let upgrades = upgrades.chain(tunnel.map(Upgrade::Connect)).collect();
    let rate_limits = limits(spec.rate_limits.as_deref().unwrap_or_default(), &mut problems.at("rateLimits"));
    Some(Forward {
        to: targets?,
        rewrite,
        mirror,
        cors: cors.map(Box::new),
        access: access.map(Box::new),
        jwt: jwt.map(Box::new),
        fault,
        max_request_body,
        tracing,
        compress: spec.compress.unwrap_or(tunnel.is_none()),
        local_rate_limit,
        // No answer ends, so there is none to wait for.
        timeout: timeout.or(tunnel.map(|_| Duration::ZERO)),
        idle_timeout,
        max_stream_duration,
        retry,
        upgrades,
        rate_limits: rate_limits?,
    })
}

/// Names of limits, none of which would count a request twice.
fn limits(names: &[NameText], problems: &mut Problems) -> Option<Vec<Name>> {
    let limits = problems.each(names, |name, problems| problems.ok(text::name(name)))?;
    problems.each_once(&limits);
    Some(limits)
}

/// Services, each once, of which one at least gets something.
pub(super) fn targets(to: &[TargetSpec], problems: &mut Problems) -> Option<Vec<Target>> {
    let targets: Vec<Target> = problems.each(to, |spec, problems| {
        let TargetSpec { service, subset, weight } = spec;
        let service = problems.at("service").ok(text::name(service));
        let subset = subset.as_ref().map(|spec| subset::labels(spec, &mut problems.at("subset"))).unwrap_or_default();
        Some(Target { service: service?, subset, weight: weight.unwrap_or(DEFAULT_WEIGHT) })
    })?;
    for (index, target) in targets.iter().enumerate() {
        let is_same = |earlier: &Target| (&earlier.service, &earlier.subset) == (&target.service, &target.subset);
        if let Some(earlier) = targets[..index].iter().position(is_same) {
            problems.index(index).at("service").report(format!("is the same as that of [{earlier}]"));
        }
    }
    // The number of targets and each weight are bounded by the shape, so the sum is far below Envoy's limit.
    if targets.iter().all(|target| target.weight == 0) {
        problems.report("needs a weight above 0");
    }
    Some(targets)
}

fn mirror(spec: &MirrorSpec, problems: &mut Problems) -> Option<Mirror> {
    let MirrorSpec { service, percent } = spec;
    let service = problems.at("service").ok(text::name(service))?;
    Some(Mirror { service, percent: percent.unwrap_or(ALL) })
}

fn redirect(spec: &RedirectSpec, matched: Option<&PathMatch>, problems: &mut Problems) -> Option<Redirect> {
    let RedirectSpec { scheme, host, port, path, prefix, status, strip_query } = spec;
    if scheme.is_none() && host.is_none() && port.is_none() && path.is_none() && prefix.is_none() {
        problems.report("needs at least one of scheme, host, port, path and prefix, or it leads back to itself");
    }
    if path.is_some() && prefix.is_some() {
        problems.report("can have only one of path and prefix");
    }
    let status = status.unwrap_or(DEFAULT_REDIRECT_STATUS);
    if !REDIRECT_STATUS.contains(&status) {
        let known = REDIRECT_STATUS.map(|status| status.to_string()).join(", ");
        problems.at("status").report(format!("must be one of {known}, not {status}"));
    }
    Some(Redirect {
        scheme: scheme.map(|scheme| {
            match scheme {
                RedirectSchemeSpec::Http => "http",
                RedirectSchemeSpec::Https => "https",
            }
            .to_owned()
        }),
        host: host.as_ref().and_then(|host| problems.at("host").ok(host::exact(host))),
        port: *port,
        path: path.as_ref().and_then(|path| problems.at("path").ok(path::plain(path))),
        prefix: prefix.as_ref().and_then(|prefix| replacement(prefix, matched, &mut problems.at("prefix"))),
        status,
        strip_query: strip_query.unwrap_or(false),
    })
}

fn respond(spec: &RespondSpec, problems: &mut Problems) -> Option<Respond> {
    let RespondSpec { status, body } = spec;
    let body = answer_body(body.clone(), &mut problems.at("body"));
    Some(Respond { status: *status, body: body? })
}

/// The body of an answer that the proxy gives by itself.
pub(super) fn answer_body(body: Option<String>, problems: &mut Problems) -> Option<String> {
    let body = body.unwrap_or_default();
    if body.len() > MAX_BODY {
        problems.report(format!("must have at most {MAX_BODY} bytes, not {}", body.len()));
        return None;
    }
    Some(body)
}

fn header_changes(spec: Option<HeaderChangesSpec>, problems: &mut Problems) -> Option<HeaderChanges> {
    let HeaderChangesSpec { set, add, remove } = spec.unwrap_or_default();
    let header = |spec: &HeaderSpec, problems: &mut Problems| {
        let HeaderSpec { name, value } = spec;
        let name = problems.at("name").ok(text::changeable_header_name(name));
        let value = problems.at("value").ok(text::header_value(value));
        Some((name?, value?))
    };
    let set = problems.at("set").each(&set.unwrap_or_default(), header);
    let add = problems.at("add").each(&add.unwrap_or_default(), header);
    let remove = problems
        .at("remove")
        .each(&remove.unwrap_or_default(), |name, problems| problems.ok(text::changeable_header_name(name)));
    let changes = HeaderChanges { set: set?, add: add?, remove: remove? };
    for (index, (name, _)) in changes.set.iter().enumerate() {
        if changes.set[..index].iter().any(|(earlier, _)| earlier == name) {
            problems.at("set").index(index).at("name").report("is set twice");
        }
    }
    Some(changes)
}
