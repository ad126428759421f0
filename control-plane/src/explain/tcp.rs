//! What is said of a request where connections are carried as they are: whom its connection comes to, and no more.

use super::{host, request::Request};
use crate::model::{
    Catalog,
    listener::{Listener, ListenerProtocol},
    route::HostPattern,
};

/// Whom a connection for `request` comes to; `None` if it is not for such a listener.
///
/// By names that are asked for in the handshake as by hosts of requests: the name itself, else the longest wildcard, else `*`.
pub(super) fn carries(catalog: &Catalog, listener: &Listener, request: &Request) -> Option<String> {
    let (name, authority) = (&listener.name, request.authority());
    let chosen = match listener.protocol {
        ListenerProtocol::Http | ListenerProtocol::Https(_) => return None,
        // By nothing but the port would a request be for it.
        ListenerProtocol::Tcp if request.port().is_none() => return None,
        ListenerProtocol::Tcp => HostPattern::Any,
        ListenerProtocol::TlsPassthrough if request.scheme() == Some("http") => return None,
        ListenerProtocol::TlsPassthrough => host::choose(catalog, name, authority)?,
    };
    if request.port().is_some_and(|port| port != listener.port) {
        return None;
    }
    let route = catalog.routes_claiming(name, &chosen).find_map(|route| catalog.route(route))?;
    let tcp = route.tcp.as_ref()?;
    let weights: u32 = tcp.to.iter().map(|target| target.weight).sum();
    let share = |weight: u32| if weight == weights { String::new() } else { format!(" ({weight} of {weights})") };
    let to = tcp.to.iter().map(|target| format!("Service/{}{}", target.service, share(target.weight)));
    let to = to.collect::<Vec<_>>().join(", ");
    Some(format!(
        "Listener/{name} carries connections as they are: by Route/{}, which claims {chosen}, to {to}; what is asked on them it does not see",
        route.name
    ))
}
