//! What is said of connections that are carried as they are: by a route, and by the listener that they come to.

use super::{access, rule::targets, text};
use crate::model::{
    access::Access,
    problem::Problems,
    tcp::Tcp,
    wire::{AccessSpec, ListenerSpec, ListenerTimeoutsSpec, TcpSpec},
};

const DEFAULT_CONNECT_ATTEMPTS: u32 = 1;

/// How many networks tell connections apart: each is told from all others whenever something of the listener changes.
const MOST_NETWORKS: usize = 1000;

pub(super) fn tcp(spec: &TcpSpec, problems: &mut Problems) -> Option<Tcp> {
    let TcpSpec { to, access, idle_timeout, connect_attempts } = spec;
    for (index, _) in to.iter().enumerate().filter(|(_, target)| target.subset.is_some()) {
        problems
            .at("to")
            .index(index)
            .at("subset")
            .report("is for rules about requests; carried connections go to any endpoint");
    }
    let to = targets(to, &mut problems.at("to"));
    let access = access.as_ref().and_then(|spec| connections(spec, &mut problems.at("access")));
    let idle_timeout = text::optional_duration(idle_timeout.as_ref(), text::DAY, &mut problems.at("idleTimeout"));
    Some(Tcp { to: to?, access, idle_timeout, connect_attempts: connect_attempts.unwrap_or(DEFAULT_CONNECT_ATTEMPTS) })
}

/// What only makes sense where requests are read.
pub(super) fn useless(spec: &ListenerSpec, problems: &mut Problems) {
    const WHY: &str = "goes with protocols http and https only";
    let ListenerTimeoutsSpec { request_headers, request, stream_idle, connection_idle: _, max_connection: _ } =
        spec.timeouts.clone().unwrap_or_default();
    let of_spec = [
        ("routeDelivery", spec.route_delivery.is_some()),
        ("compression", spec.compression.is_some()),
        ("externalAuthorization", spec.external_authorization.is_some()),
        ("accessLogs", spec.access_logs.is_some()),
        ("tracing", spec.tracing.is_some()),
    ];
    let of_timeouts = [
        ("requestHeaders", request_headers.is_some()),
        ("request", request.is_some()),
        ("streamIdle", stream_idle.is_some()),
    ];
    for (field, _) in of_spec.iter().filter(|(_, given)| *given) {
        problems.at(field).report(WHY);
    }
    let mut problems = problems.at("timeouts");
    for (field, _) in of_timeouts.iter().filter(|(_, given)| *given) {
        problems.at(field).report(WHY);
    }
}

/// Whose connections may come, of which no more is known than the address.
pub(super) fn connections(spec: &AccessSpec, problems: &mut Problems) -> Option<Access> {
    let access = access::access(spec, problems)?;
    if access.names_clients() {
        problems.report(
            "tells clients apart by certificates, which nobody looks at where connections are carried as they are",
        );
    }
    if access.names_headers() {
        problems.report("looks at headers, which connections that are carried as they are may not have");
    }
    let networks: usize = access.callers().map(|caller| caller.networks.len()).sum();
    if networks > MOST_NETWORKS {
        problems
            .report(format!("names {networks} networks, and for connections at most {MOST_NETWORKS} are told apart"));
    }
    Some(access)
}
