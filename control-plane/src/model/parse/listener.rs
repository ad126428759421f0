//! What a listener's spec means.

use std::net::{IpAddr, Ipv4Addr};

use super::{access, access_log, authorizer, compression, service::tls::authorities, tcp, text};
use crate::model::{
    Name,
    listener::{Clients, Listener, ListenerProtocol, RouteDelivery, Timeouts, TlsFiles},
    problem::{Problems, Quoted},
    wire::{
        ClientsSpec, DurationText, ListenerProtocolSpec, ListenerSpec, ListenerTimeoutsSpec, ListenerTlsSpec,
        RouteDeliverySpec,
    },
};

pub(super) fn listener(name: Name, spec: &ListenerSpec, problems: &mut Problems) -> Option<Listener> {
    let ListenerSpec {
        fleet,
        address,
        port,
        protocol,
        proxy_protocol,
        http3,
        tls,
        route_delivery,
        timeouts,
        compression,
        access,
        external_authorization,
        access_logs,
        tracing,
    } = spec;
    let fleet = problems.at("fleet").ok(text::name(fleet));
    let address = match address {
        None => Some(Ipv4Addr::UNSPECIFIED.into()),
        Some(address) => problems.at("address").ok(bind_address(address)),
    };
    let files = tls.as_ref().map(|tls| tls_files(tls, &mut problems.at("tls")));
    let protocol = match (protocol, files) {
        (ListenerProtocolSpec::Http, None) => Some(ListenerProtocol::Http),
        (ListenerProtocolSpec::Https, Some(files)) => files.map(ListenerProtocol::Https),
        (ListenerProtocolSpec::Tcp, None) => Some(ListenerProtocol::Tcp),
        (ListenerProtocolSpec::TlsPassthrough, None) => Some(ListenerProtocol::TlsPassthrough),
        (ListenerProtocolSpec::Http | ListenerProtocolSpec::Tcp | ListenerProtocolSpec::TlsPassthrough, Some(_)) => {
            problems.at("tls").report("goes with protocol https only");
            None
        }
        (ListenerProtocolSpec::Https, None) => {
            problems.at("tls").report("is required with protocol https");
            None
        }
    };
    let carries = protocol.as_ref().is_some_and(|protocol| !protocol.is_http());
    if carries {
        tcp::useless(spec, problems);
    }
    let http3 = http3.unwrap_or(false);
    if http3 {
        self::http3(spec, &mut problems.at("http3"));
    }
    let route_delivery = match route_delivery {
        Some(RouteDeliverySpec::Whole) => RouteDelivery::Whole,
        Some(RouteDeliverySpec::PerHost) | None => RouteDelivery::PerHost,
    };
    let timeouts = match timeouts {
        None => Timeouts::default(),
        Some(spec) => self::timeouts(spec, &mut problems.at("timeouts")),
    };
    let compression =
        compression.as_ref().and_then(|spec| compression::compression(spec, &mut problems.at("compression")));
    let clients = tls.as_ref().and_then(|tls| tls.clients.as_ref());
    let access = access.as_ref().and_then(|spec| {
        let mut problems = problems.at("access");
        if carries {
            return tcp::connections(spec, &mut problems);
        }
        let access = access::access(spec, &mut problems)?;
        if access.names_clients() && clients.is_none() {
            problems.report("tells clients apart by certificates, which needs tls.clients");
        }
        Some(access)
    });
    let authorizer = external_authorization
        .as_ref()
        .and_then(|spec| authorizer::authorizer(spec, &mut problems.at("externalAuthorization")));
    let clients = clients.and_then(|spec| self::clients(spec, &mut problems.at("tls").at("clients")));
    let access_logs = access_logs.as_deref().unwrap_or_default();
    let access_logs = access_log::access_logs(&name, access_logs, &mut problems.at("accessLogs"));
    let tracing =
        tracing.as_ref().and_then(|spec| super::tracing::tracing(fleet.as_ref(), spec, &mut problems.at("tracing")));
    Some(Listener {
        name,
        fleet: fleet?,
        address: address?,
        port: *port,
        proxy_protocol: proxy_protocol.unwrap_or(false),
        protocol: protocol?,
        http3,
        route_delivery,
        timeouts,
        compression,
        clients,
        access,
        authorizer,
        access_logs: access_logs?,
        tracing,
    })
}

/// What HTTP/3 goes with: QUIC is always over TLS, Envoy asks nobody for certificates there, and load balancers say nothing in front of it.
fn http3(spec: &ListenerSpec, problems: &mut Problems) {
    if spec.protocol != ListenerProtocolSpec::Https {
        problems.report("goes with protocol https only");
    }
    if spec.tls.as_ref().is_some_and(|tls| tls.clients.is_some()) {
        problems.report("lets clients in without a certificate; it does not go with tls.clients");
    }
    if spec.proxy_protocol == Some(true) {
        problems.report("does not go with proxyProtocol, which is said over TCP only");
    }
}

fn timeouts(spec: &ListenerTimeoutsSpec, problems: &mut Problems) -> Timeouts {
    let ListenerTimeoutsSpec { request_headers, request, stream_idle, connection_idle, max_connection } = spec;
    let usual = Timeouts::default();
    let mut time = |field: &str, time: &Option<DurationText>| {
        text::optional_duration(time.as_ref(), text::DAY, &mut problems.at(field))
    };
    Timeouts {
        request_headers: time("requestHeaders", request_headers).unwrap_or(usual.request_headers),
        request: time("request", request),
        stream_idle: time("streamIdle", stream_idle).unwrap_or(usual.stream_idle),
        connection_idle: time("connectionIdle", connection_idle).unwrap_or(usual.connection_idle),
        max_connection: time("maxConnection", max_connection),
    }
}

fn bind_address(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| format!("{} is not an IP address", Quoted(text)))?;
    if address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(format!("{address} is not the address of one machine"));
    }
    Ok(address)
}

fn tls_files(spec: &ListenerTlsSpec, problems: &mut Problems) -> Option<TlsFiles> {
    let ListenerTlsSpec { certificate_file, private_key_file, clients: _ } = spec;
    let certificate_file = problems.at("certificateFile").ok(text::file_path(certificate_file));
    let private_key_file = problems.at("privateKeyFile").ok(text::file_path(private_key_file));
    Some(TlsFiles { certificate_file: certificate_file?, private_key_file: private_key_file? })
}

fn clients(spec: &ClientsSpec, problems: &mut Problems) -> Option<Clients> {
    let ClientsSpec { trusted_ca, required } = spec;
    let authorities = authorities(trusted_ca, &mut problems.at("trustedCa"))?;
    Some(Clients { authorities, required: required.unwrap_or(true) })
}
