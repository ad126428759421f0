//! `Listener`: what is served, not where. The sidecar has its own ports.

use std::sync::Arc;

use chancery_proto::{
    any,
    envoy::{
        hcm::{HttpConnectionManager, http_connection_manager::RouteSpecifier},
        listener::{Listener, filter::ConfigType},
    },
    google::protobuf::Any,
    type_url::message_name,
};

use super::{Problem, Problems, routes};
use crate::config::routes::RouteTable;

/// Where routes are.
#[derive(Clone, Debug)]
pub enum Routes {
    /// In the route configuration of this name.
    Rds(Arc<str>),
    /// Here.
    Inline(Arc<RouteTable>),
}

/// Reads a listener. Of several filter chains, which differ in who connects, the first counts: the application connects.
///
/// # Errors
/// Everything that is wrong.
pub fn listener(listener: &Listener) -> Result<Routes, Vec<Problem>> {
    let mut problems = Problems::default();
    let chain = match (listener.filter_chains.first(), &listener.default_filter_chain) {
        (Some(first), _) => Some(("filter_chains[0]", first)),
        (None, Some(default)) => Some(("default_filter_chain", default)),
        (None, None) => None,
    };
    let Some((path, chain)) = chain else {
        problems.add("filter_chains", "there is none");
        return Err(problems.0);
    };
    // What comes before the last filter sees connections, and the last one serves them.
    let Some((f, filter)) = chain.filters.iter().enumerate().next_back() else {
        problems.add(format!("{path}.filters"), "there is none");
        return Err(problems.0);
    };
    let path = format!("{path}.filters[{f}].typed_config");
    let Some(ConfigType::TypedConfig(config)) = &filter.config_type else {
        problems.add(path, "there is none");
        return Err(problems.0);
    };
    let read = match message_name(&config.type_url) {
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager" => {
            http(&mut problems, &path, config)
        }
        other => {
            problems.add(path, format!("{other} is not known here: only HTTP is served"));
            None
        }
    };
    match read {
        Some(read) => problems.none_or(read),
        None => Err(problems.0),
    }
}

fn http(problems: &mut Problems, path: &str, config: &Any) -> Option<Routes> {
    let manager: HttpConnectionManager =
        any::unpack(config).map_err(|error| problems.add(path, error.to_string())).ok()?;
    match manager.route_specifier {
        Some(RouteSpecifier::Rds(rds)) => Some(Routes::Rds(rds.route_config_name.into())),
        Some(RouteSpecifier::RouteConfig(configuration)) => match routes(&configuration) {
            Ok(table) => Some(Routes::Inline(table.into())),
            Err(found) => {
                let inner = found.into_iter().map(|p| Problem { path: format!("{path}.route_config.{}", p.path), ..p });
                problems.0.extend(inner);
                None
            }
        },
        Some(RouteSpecifier::ScopedRoutes(_)) => {
            problems.add(format!("{path}.scoped_routes"), "routes by scope are not known here");
            None
        }
        None => {
            problems.add(path, "has no routes");
            None
        }
    }
}
