//! What becomes of a request: forwarded, redirected or answered.

use std::{collections::BTreeMap, time::Duration};

use chancery_proto::{
    any,
    envoy::{
        core::{DataSource, RuntimeFractionalPercent, TypedExtensionConfig, data_source},
        matcher::RegexMatchAndSubstitute,
        path_template_rewrite::UriTemplateRewriteConfig,
        route::{
            DirectResponseAction, RedirectAction, RouteAction, WeightedCluster,
            redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier},
            route_action::{
                ClusterSpecifier, HostRewriteSpecifier, MaxStreamDuration, RequestMirrorPolicy, UpgradeConfig,
                upgrade_config::ConnectConfig,
            },
            weighted_cluster::ClusterWeight,
        },
    },
    google::protobuf::Any,
};

use super::{
    References,
    retry::retry_policy,
    rewrite::{Replacement, replace_matched},
};
use crate::{
    model::{
        fleet::Fleet,
        listener::Timeouts,
        route::{Forward, Mirror, PathMatch, PathRewrite, Redirect, Respond, Target, Tunnel, Upgrade},
    },
    translate::{
        access, buffer, compression, cors, fault, jwt, local_rate_limit, metadata, rate_limit, session,
        value::{duration, flag, number, percent, regex},
    },
};

/// Forwarding to services.
pub(super) fn forward(forward: &Forward, path: &PathMatch, references: &References<'_>, fleet: &Fleet) -> RouteAction {
    let Forward {
        to,
        rewrite,
        mirror,
        cors: _,
        access: _,
        jwt: _,
        fault: _,
        max_request_body: _,
        tracing: _,
        compress: _,
        local_rate_limit: _,
        timeout,
        idle_timeout,
        max_stream_duration,
        retry,
        upgrades,
        rate_limits: _,
    } = forward;
    let timeout = timeout.unwrap_or(fleet.default_timeout);
    let mut action = RouteAction {
        cluster_specifier: Some(cluster_specifier(to, references)),
        // Of several, each has its own beside its weight.
        metadata_match: if let [only] = &to[..] { metadata::of_labels(&only.subset) } else { None },
        host_rewrite_specifier: rewrite.host.clone().map(HostRewriteSpecifier::HostRewriteLiteral),
        request_mirror_policies: mirror.iter().map(mirror_policy).collect(),
        timeout: Some(duration(timeout)),
        idle_timeout: idle_timeout.or(patience(timeout)).map(duration),
        max_stream_duration: max_stream_duration.map(|most| MaxStreamDuration {
            max_stream_duration: Some(duration(most)),
            ..MaxStreamDuration::default()
        }),
        upgrade_configs: upgrades.iter().copied().map(upgrade_config).collect(),
        retry_policy: retry.as_ref().map(retry_policy),
        ..RouteAction::default()
    };
    match &rewrite.path {
        Some(PathRewrite::Prefix(with)) => match replace_matched(path, with) {
            Replacement::Prefix(with) => action.prefix_rewrite = with,
            Replacement::Regex(rewrite) => action.regex_rewrite = Some(rewrite),
        },
        Some(PathRewrite::Template(template)) => action.path_rewrite_policy = Some(template_rewrite(template)),
        Some(PathRewrite::Regex { pattern, substitution }) => {
            let pattern = Some(regex(pattern.clone()));
            action.regex_rewrite = Some(RegexMatchAndSubstitute { pattern, substitution: substitution.clone() });
        }
        None => {}
    }
    action
}

fn template_rewrite(template: &str) -> TypedExtensionConfig {
    TypedExtensionConfig {
        name: "envoy.path.rewrite.uri_template.uri_template_rewriter".to_owned(),
        typed_config: Some(any::pack_typed(&UriTemplateRewriteConfig { path_template_rewrite: template.to_owned() })),
    }
}

/// What the filters, by their names, are to know about a rule.
pub(super) fn per_filter(forward: &Forward, path: &PathMatch, references: &References<'_>) -> BTreeMap<String, Any> {
    let limits = forward.rate_limits.iter().filter_map(|limit| references.limits.get(limit).copied());
    let limits: Vec<_> = limits.collect();
    let mut filters = rate_limit::per_route(&limits);
    filters.extend(forward.cors.as_deref().map(cors::per_route));
    filters.extend(forward.access.as_deref().map(access::per_route));
    filters.extend(forward.jwt.as_deref().map(|jwt| jwt::per_route(jwt, path)));
    filters.extend(forward.fault.as_ref().map(fault::per_route));
    filters.extend(forward.max_request_body.map(buffer::per_route));
    filters.extend(forward.local_rate_limit.as_ref().map(local_rate_limit::per_route));
    if !forward.compress {
        filters.extend(compression::none());
    }
    // Of several services, each has its own beside its weight.
    if let [only] = &forward.to[..] {
        filters.extend(session_of(only, references));
    }
    filters
}

/// A rule that grants a service more time than a silent stream has means it.
fn patience(timeout: Duration) -> Option<Duration> {
    (timeout > Timeouts::STREAM_IDLE).then_some(timeout)
}

fn upgrade_config(upgrade: Upgrade) -> UpgradeConfig {
    let (upgrade_type, connect_config) = match upgrade {
        Upgrade::Websocket => ("websocket", None),
        Upgrade::Connect(Tunnel::Terminate) => ("CONNECT", Some(ConnectConfig::default())),
        Upgrade::Connect(Tunnel::Forward) => ("CONNECT", None),
    };
    UpgradeConfig { upgrade_type: upgrade_type.to_owned(), enabled: Some(flag(true)), connect_config }
}

fn session_of(target: &Target, references: &References<'_>) -> Option<(String, Any)> {
    references.affinities.get(&target.service).map(|affinity| session::per_route(affinity))
}

fn cluster_specifier(to: &[Target], references: &References<'_>) -> ClusterSpecifier {
    if let [Target { service, subset: _, weight: _ }] = to {
        return ClusterSpecifier::Cluster(service.to_string());
    }
    let weighted = |target: &Target| ClusterWeight {
        name: target.service.to_string(),
        weight: Some(number(target.weight)),
        metadata_match: metadata::of_labels(&target.subset),
        typed_per_filter_config: session_of(target, references).into_iter().collect(),
        ..ClusterWeight::default()
    };
    ClusterSpecifier::WeightedClusters(WeightedCluster {
        clusters: to.iter().map(weighted).collect(),
        ..WeightedCluster::default()
    })
}

fn mirror_policy(mirror: &Mirror) -> RequestMirrorPolicy {
    let Mirror { service, percent: share } = mirror;
    RequestMirrorPolicy {
        cluster: service.to_string(),
        runtime_fraction: Some(RuntimeFractionalPercent {
            default_value: Some(percent(*share)),
            runtime_key: String::new(),
        }),
        ..RequestMirrorPolicy::default()
    }
}

/// Sending the client elsewhere.
pub(super) fn redirect(redirect: &Redirect, matched: &PathMatch) -> RedirectAction {
    let Redirect { scheme, host, port, path, prefix, status, strip_query } = redirect;
    let path = path.clone().map(PathRewriteSpecifier::PathRedirect);
    let prefix = prefix.as_ref().map(|with| match replace_matched(matched, with) {
        Replacement::Prefix(with) => PathRewriteSpecifier::PrefixRewrite(with),
        Replacement::Regex(rewrite) => PathRewriteSpecifier::RegexRewrite(rewrite),
    });
    RedirectAction {
        scheme_rewrite_specifier: scheme.clone().map(SchemeRewriteSpecifier::SchemeRedirect),
        host_redirect: host.clone().unwrap_or_default(),
        port_redirect: port.map_or(0, u32::from),
        path_rewrite_specifier: path.or(prefix),
        response_code: redirect_code(*status).into(),
        strip_query: *strip_query,
    }
}

/// Envoy knows these five; the model holds no other.
fn redirect_code(status: u16) -> RedirectResponseCode {
    match status {
        302 => RedirectResponseCode::Found,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::MovedPermanently,
    }
}

/// Answering from the proxy.
pub(super) fn respond(respond: &Respond) -> DirectResponseAction {
    let Respond { status, body } = respond;
    let inline = |body: &String| DataSource {
        specifier: Some(data_source::Specifier::InlineString(body.clone())),
        ..DataSource::default()
    };
    DirectResponseAction {
        status: u32::from(*status),
        body: (!body.is_empty()).then(|| inline(body)),
        ..DirectResponseAction::default()
    }
}
