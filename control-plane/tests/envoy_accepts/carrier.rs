//! Listeners that carry connections as they are, in every way.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use chancery_control_plane::{
    model::{
        Name,
        access::{Access, Caller, Network},
        listener::{Listener, ListenerProtocol, RouteDelivery, Timeouts},
        route::{HostPattern, Route, Target},
        tcp::Tcp,
    },
    translate,
};
use chancery_proto::envoy::listener::Listener as EnvoyListener;

use crate::catalog::{name, route_named};

pub(crate) fn every_carrier(fleet: &Name) -> Vec<EnvoyListener> {
    let names = [
        HostPattern::Any,
        HostPattern::Suffix("com".into()),
        HostPattern::Suffix("example.com".into()),
        HostPattern::Exact("a_b.example.com".into()),
    ];
    let route = Arc::new(Route { tcp: Some(every_tcp()), ..route_named("carried") });
    let plain = Arc::new(Route {
        tcp: Some(Tcp {
            to: vec![Target { service: name("checkout"), subset: Default::default(), weight: 1 }],
            access: None,
            ..every_tcp()
        }),
        ..route_named("plain")
    });
    let mut listeners = Vec::new();
    for (port, protocol, hosts) in
        [(10432, ListenerProtocol::Tcp, &names[..1]), (10433, ListenerProtocol::TlsPassthrough, &names[..])]
    {
        for (letter, address) in [("v4", IpAddr::V4(Ipv4Addr::UNSPECIFIED)), ("v6", IpAddr::V6(Ipv6Addr::LOCALHOST))] {
            let listener = Listener {
                name: name(&format!("carrier-{letter}-{port}")),
                fleet: fleet.clone(),
                address,
                port,
                protocol: protocol.clone(),
                http3: false,
                proxy_protocol: address.is_ipv6(),
                route_delivery: RouteDelivery::PerHost,
                timeouts: Timeouts { max_connection: Some(Duration::from_millis(1)), ..Timeouts::default() },
                compression: None,
                clients: None,
                access: None,
                authorizer: None,
                access_logs: Vec::new(),
                tracing: None,
            };
            let of = if address.is_ipv4() { &route } else { &plain };
            let carried: Vec<_> = hosts.iter().map(|host| (host, of)).collect();
            listeners.push(translate::tcp::listener(&listener, &carried));
        }
    }
    listeners
}

/// Shared, for some, denied to some of these, within their times.
fn every_tcp() -> Tcp {
    let from = |address: IpAddr, length| Caller {
        clients: vec![],
        networks: vec![Network::around(address, length)],
        headers: vec![],
    };
    let allow = vec![from(Ipv4Addr::UNSPECIFIED.into(), 0), from(Ipv6Addr::LOCALHOST.into(), 128)];
    Tcp {
        to: vec![
            Target { service: name("checkout"), subset: Default::default(), weight: 1_000_000 },
            Target { service: name("none"), subset: Default::default(), weight: 0 },
            Target { service: name("full"), subset: Default::default(), weight: 1 },
        ],
        access: Some(Access { allow: Some(allow), deny: vec![from(Ipv4Addr::LOCALHOST.into(), 8)] }),
        idle_timeout: Some(Duration::from_millis(1)),
        connect_attempts: 10,
    }
}
