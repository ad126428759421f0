//! Which of the hosts that routes claim on a listener a request is for.

use super::request::split_port;
use crate::model::{Catalog, Name, route::HostPattern};

/// The claimed host that a request for `authority` comes to: the host itself, else the longest wildcard for it, else `*`. Neither
/// port nor case count.
pub(super) fn choose(catalog: &Catalog, listener: &Name, authority: &str) -> Option<HostPattern> {
    let host = split_port(authority).0.to_ascii_lowercase();
    // A wildcard stands for something: `*.example.com` is not for `.example.com`.
    let domains = host.match_indices('.').filter(|(at, _)| *at > 0).map(|(at, _)| host[at + 1..].to_owned());
    let exact = Some(HostPattern::Exact(host.clone()));
    let candidates = exact.into_iter().chain(domains.map(HostPattern::Suffix)).chain([HostPattern::Any]);
    candidates.into_iter().find(|host| catalog.routes_claiming(listener, host).next().is_some())
}
