//! Which cluster a request goes to, by the configuration of the moment, which it keeps until it is done.

use std::sync::Arc;

use http::{
    Request,
    uri::{Authority, PathAndQuery},
};

use super::{
    failure::Failure,
    world::{Upstream, World},
};
use crate::config::routes::{Action, Asked, Forward, Rewrite, Route};

/// What was decided about a request.
pub struct Way {
    /// Its route.
    pub route: Arc<Route>,
    /// Its cluster; `None`: the route answers itself.
    pub upstream: Option<Arc<Upstream>>,
    /// Whom it names to the cluster.
    pub authority: Authority,
    /// What it asks for there.
    pub path: PathAndQuery,
}

impl Way {
    /// How the route forwards, if it does.
    pub fn forward(&self) -> Option<&Forward> {
        match &self.route.action {
            Action::Forward(forward) => Some(forward),
            Action::Respond { .. } | Action::Redirect(_) => None,
        }
    }
}

/// Decides, for a request to `authority`. `listener`: only by the routes of this one. `chance` is a random number from 0 to 1.
///
/// # Errors
/// There is no route, or its cluster is not there.
pub fn choose<B>(
    world: &World,
    listener: Option<&str>,
    request: &Request<B>,
    authority: Authority,
    chance: f64,
) -> Result<Way, Failure> {
    let listeners = world.snapshot.listeners.iter().filter(|(name, _)| listener.is_none_or(|only| ***name == *only));
    let host = listeners
        .filter_map(|(_, routes)| routes.as_ref())
        .find_map(|routes| routes.host(authority.as_str()))
        .ok_or(Failure::NoRoute)?;
    let (path, query) = (request.uri().path(), request.uri().query());
    let asked = Asked { method: request.method(), path, query, headers: request.headers() };
    let route = host.route(asked).ok_or(Failure::NoRoute)?.clone();
    let Action::Forward(forward) = &route.action else {
        let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        return Ok(Way { route, upstream: None, authority, path });
    };
    let name = forward.cluster(chance);
    let upstream = world.upstreams.get(name).ok_or_else(|| Failure::NoCluster(name.clone()))?.clone();
    let path = match (&forward.rewrite, request.uri().path_and_query()) {
        (Rewrite::None, Some(as_it_came)) => as_it_came.clone(),
        (rewrite, _) => {
            let rewritten = route.rewritten(rewrite, path);
            let path = match query {
                Some(query) => PathAndQuery::try_from(format!("{rewritten}?{query}")),
                None => PathAndQuery::try_from(&*rewritten),
            };
            path.map_err(|_| Failure::BadRequest("the rewritten path is none"))?
        }
    };
    let named = forward.host.as_ref().and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let authority = named.unwrap_or(authority);
    Ok(Way { upstream: Some(upstream), authority, path, route })
}
