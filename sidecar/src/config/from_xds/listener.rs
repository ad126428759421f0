//! `Listener`: what is served, not where, since the sidecar has its own ports. Only one that carries TCP as it is says where, too: nothing
//! else could tell its connections from those of others.

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

use super::{Problem, Problems, routes, tcp};
use crate::config::{routes::RouteTable, tcp::TcpProxy};

/// What a listener serves.
#[derive(Clone, Debug)]
pub enum Served {
    /// Requests.
    Http(Routes),
    /// Connections, byte for byte.
    Tcp(Arc<TcpProxy>),
}

/// Where routes are.
#[derive(Clone, Debug)]
pub enum Routes {
    /// In the route configuration of this name.
    Rds(Arc<str>),
    /// Here.
    Inline(Arc<RouteTable>),
}

/// Reads a listener. Of several filter chains, which differ in who connects, the first counts: the application connects. For TCP there
/// has to be one for everybody.
///
/// # Errors
/// Everything that is wrong.
pub fn listener(listener: &Listener) -> Result<Served, Vec<Problem>> {
    let mut problems = Problems::default();
    let chain = match (listener.filter_chains.first(), &listener.default_filter_chain) {
        (Some(first), _) => Some(("filter_chains[0]", first)),
        (None, Some(default)) => Some(("default_filter_chain", default)),
        (None, None) => None,
    };
    let Some((chain_path, chain)) = chain else {
        problems.add("filter_chains", "there is none");
        return Err(problems.0);
    };
    // What comes before the last filter sees connections, and the last one serves them.
    let Some((f, filter)) = chain.filters.iter().enumerate().next_back() else {
        problems.add(format!("{chain_path}.filters"), "there is none");
        return Err(problems.0);
    };
    let path = format!("{chain_path}.filters[{f}].typed_config");
    let Some(ConfigType::TypedConfig(config)) = &filter.config_type else {
        problems.add(path, "there is none");
        return Err(problems.0);
    };
    let read = match message_name(&config.type_url) {
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager" => {
            http(&mut problems, &path, config).map(Served::Http)
        }
        tcp::PROXY => {
            tcp::alone(&mut problems, listener, chain_path, chain);
            tcp::proxy(&mut problems, &path, listener, config).map(|proxy| Served::Tcp(proxy.into()))
        }
        other => {
            problems.add(path, format!("{other} is not known here: HTTP is served, and TCP is carried"));
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
