//! Sessions: a client that says which endpoint it had is sent there again, by a filter of Envoy's.
//!
//! What the client says is the address of the endpoint, encoded, not signed: whoever can read may learn it, and whoever can write may
//! choose among the healthy endpoints of a service that he is sent to anyway. Nothing else is believed of it.
//!
//! The service says it, and the rules that send there carry it, for the filter stands before anybody knows where a request goes.

use chancery_proto::{
    any,
    envoy::{
        cookie_session::CookieBasedSessionState,
        core::TypedExtensionConfig,
        hcm::HttpFilter,
        header_session::HeaderBasedSessionState,
        http_types::Cookie,
        stateful_session_filter::{StatefulSession, StatefulSessionPerRoute, stateful_session_per_route::Override},
    },
    google::protobuf::Any,
};

use super::{
    filter::{off, on},
    value::duration,
};
use crate::model::service::SessionAffinity;

/// The filter, by the name that routes use.
const FILTER: &str = "envoy.filters.http.stateful_session";

/// The filter on every listener.
pub(super) fn filter() -> HttpFilter {
    off(FILTER, any::pack_typed(&StatefulSession::default()))
}

/// What a rule that sends to a service with `affinity` tells the filter, by its name.
pub(super) fn per_route(affinity: &SessionAffinity) -> (String, Any) {
    let (name, state) = match affinity {
        SessionAffinity::Cookie { name, ttl, path } => {
            let cookie = Cookie { name: name.clone(), ttl: ttl.map(duration), path: path.clone(), ..Cookie::default() };
            ("cookie", any::pack_typed(&CookieBasedSessionState { cookie: Some(cookie) }))
        }
        SessionAffinity::Header(name) => ("header", any::pack_typed(&HeaderBasedSessionState { name: name.clone() })),
    };
    let state = TypedExtensionConfig { name: format!("envoy.http.stateful_session.{name}"), typed_config: Some(state) };
    let session = StatefulSession { session_state: Some(state), ..StatefulSession::default() };
    on(FILTER, any::pack_typed(&StatefulSessionPerRoute { r#override: Some(Override::StatefulSession(session)) }))
}
