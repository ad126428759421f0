//! Routes as Envoy sees them: per listener one `RouteConfiguration`, in it one `VirtualHost` per host.
//!
//! Envoy chooses a virtual host by the host of the request and then takes the first of its routes that matches.
//! Several routes of several teams may claim one host, so [`virtual_host`] has to put their rules
//! into one order ([`order`]), which does not depend on when each was created.
//!
//! A virtual host is the unit in which changes travel: it is a resource of its own (VHDS) for
//! proxies that speak delta xDS, and a fragment of bytes in the whole `RouteConfiguration` for the others.

mod action;
mod configuration;
mod encode;
mod headers;
mod matching;
mod references;
mod retry;
mod rewrite;

use std::{collections::BTreeMap, sync::Arc};

use chancery_proto::envoy::route::{Route as EnvoyRoute, VirtualHost, route::Action as EnvoyAction};

pub use configuration::{placeholder, route_configuration, route_configuration_by_host, route_configuration_name};
pub use encode::encode_virtual_host;
pub(super) use matching::header;
pub use references::References;

use super::{authorizer, tracing};
use crate::model::{
    Name,
    fleet::Fleet,
    route::{
        Action, Forward, HostPattern, PathMatch, Route, Rule,
        order::{self, Claim},
    },
};

/// Whether two states of a route say the same of a host. One that was not changed is the same allocation; of one that was, only
/// name and rules stand in a virtual host.
pub(super) fn same_rules(a: &Arc<Route>, b: &Arc<Route>) -> bool {
    Arc::ptr_eq(a, b) || (a.name == b.name && a.rules == b.rules)
}

/// The name of the virtual host of `host` on `listener`, as a resource and in the message alike.
///
/// Envoy finds the route configuration of a virtual host by what stands before the slash, and looks for
/// the one to remove by the *resource* name among the names *in the messages*: the two must agree.
pub fn virtual_host_name(listener: &Name, host: &HostPattern) -> String {
    format!("{listener}/{host}")
}

/// Everything that the routes `claims` do with the requests for `host` on a listener of `fleet`. What they name is among
/// `references`.
pub fn virtual_host<'a>(
    listener: &Name,
    host: &HostPattern,
    claims: impl IntoIterator<Item = &'a Route>,
    references: &References<'_>,
    fleet: &Fleet,
) -> VirtualHost {
    VirtualHost {
        name: virtual_host_name(listener, host),
        domains: vec![host.to_string()],
        routes: order::merge(claims).flat_map(|claim| envoy_routes(claim, references, fleet)).collect(),
        ..VirtualHost::default()
    }
}

/// One rule; Envoy logs it as `<route>/<index>`.
fn envoy_routes<'a>(
    claim: Claim<'a>,
    references: &References<'_>,
    fleet: &Fleet,
) -> impl Iterator<Item = EnvoyRoute> + use<'a> {
    let Claim { route, index, rule: Rule { matches, action, authorization, request_headers, response_headers } } =
        claim;
    let (done, mut per_filter) = match action {
        Action::Forward(forward) => (
            EnvoyAction::Route(action::forward(forward, &matches.path, references, fleet)),
            action::per_filter(forward, &matches.path, references),
        ),
        Action::Redirect(redirect) => {
            (EnvoyAction::Redirect(action::redirect(redirect, &matches.path)), BTreeMap::default())
        }
        Action::Respond(respond) => (EnvoyAction::DirectResponse(action::respond(respond)), BTreeMap::default()),
    };
    per_filter.extend(authorizer::per_route(authorization.as_ref(), matches.path == PathMatch::Connect));
    let traced = match action {
        Action::Forward(forward) => forward.tracing.map(tracing::of_rule),
        Action::Redirect(_) | Action::Respond(_) => None,
    };
    let has_preflights = matches!(action, Action::Forward(Forward { cors: Some(_), .. }));
    let preflights = has_preflights.then(|| matching::preflights(matches)).into_iter().flatten();
    preflights.chain(matching::route_matches(matches)).map(move |route_match| EnvoyRoute {
        name: format!("{}/{index}", route.name),
        r#match: Some(route_match),
        action: Some(done.clone()),
        request_headers_to_add: headers::to_add(request_headers),
        request_headers_to_remove: request_headers.remove.clone(),
        response_headers_to_add: headers::to_add(response_headers),
        response_headers_to_remove: response_headers.remove.clone(),
        tracing: traced.clone(),
        typed_per_filter_config: per_filter.clone().into_iter().collect(),
        ..EnvoyRoute::default()
    })
}

#[cfg(test)]
mod tests;
