//! HTTP/3 of a listener: a second one for Envoy, at the same port of UDP and with the same routes, of which answers over TCP tell clients.
//!
//! Clients that have heard of it come over QUIC, and over TCP again where that does not get through. The routes are those of the
//! first, by their name: an edit of routes changes neither.

use chancery_proto::{
    any,
    envoy::{
        core::{
            Address, HeaderValue, HeaderValueOption, Http3ProtocolOptions, SocketAddress, TransportSocket, address,
            header_value_option::HeaderAppendAction, socket_address, transport_socket,
        },
        hcm::{HttpConnectionManager, HttpFilter, http_connection_manager::CodecType},
        header_changes::{HeaderMutation as Mutation, header_mutation::Action},
        header_filter::{HeaderMutation, Mutations},
        listener::{Filter, FilterChain, Listener as EnvoyListener, QuicProtocolOptions, UdpListenerConfig, filter},
        quic::QuicDownstreamTransport,
    },
};

use super::{
    filter::always,
    listener::{connection_manager, tls_context},
    value::{duration, flag},
};
use crate::model::{
    Name,
    fleet::Fleet,
    listener::{Listener, ListenerProtocol, TlsFiles},
};

/// How long a client may remember where HTTP/3 is spoken, in seconds: a day.
const REMEMBERED: u32 = 24 * 60 * 60;

/// How the second listener is called. Names with a prefix are of no listener of the users, nor of a patch.
pub fn name(listener: &Name) -> String {
    format!("chancery.http3.{listener}")
}

/// The certificate that `listener` presents over QUIC, if it speaks HTTP/3.
pub fn certificate(listener: &Listener) -> Option<&TlsFiles> {
    match &listener.protocol {
        ListenerProtocol::Https(files) if listener.http3 => Some(files),
        _ => None,
    }
}

/// The listener over QUIC beside `listener`, which presents the certificate in `files`.
pub fn listener(listener: &Listener, files: &TlsFiles, fleet: &Fleet) -> EnvoyListener {
    let name = name(&listener.name);
    let mut context = tls_context(files, None);
    if let Some(common) = &mut context.common_tls_context {
        common.alpn_protocols = vec!["h3".to_owned()];
        // QUIC has no older TLS than 1.3, and says so itself.
        common.tls_params = None;
    }
    let transport = QuicDownstreamTransport {
        downstream_tls_context: Some(context),
        // What came early could be sent again by whoever is on the way.
        enable_early_data: Some(flag(false)),
        ..QuicDownstreamTransport::default()
    };
    let manager = HttpConnectionManager {
        codec_type: CodecType::Http3.into(),
        http3_protocol_options: Some(Http3ProtocolOptions::default()),
        ..connection_manager(listener, fleet)
    };
    let manager = Filter {
        name: "envoy.filters.network.http_connection_manager".to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(any::pack_typed(&manager))),
    };
    EnvoyListener {
        address: Some(udp(listener)),
        stat_prefix: name.clone(),
        udp_listener_config: Some(UdpListenerConfig {
            quic_options: Some(QuicProtocolOptions {
                idle_timeout: Some(duration(listener.timeouts.connection_idle)),
                ..QuicProtocolOptions::default()
            }),
            ..UdpListenerConfig::default()
        }),
        filter_chains: vec![FilterChain {
            name: name.clone(),
            filters: vec![manager],
            transport_socket: Some(TransportSocket {
                name: "envoy.transport_sockets.quic".to_owned(),
                config_type: Some(transport_socket::ConfigType::TypedConfig(any::pack_typed(&transport))),
            }),
            ..FilterChain::default()
        }],
        name,
        ..EnvoyListener::default()
    }
}

fn udp(listener: &Listener) -> Address {
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            protocol: socket_address::Protocol::Udp.into(),
            address: listener.address.to_string(),
            port_specifier: Some(socket_address::PortSpecifier::PortValue(listener.port.into())),
            ..SocketAddress::default()
        })),
    }
}

/// Has every answer of `listener` tell where HTTP/3 is spoken, unless it says so itself.
pub(super) fn advertised(listener: &Listener) -> Option<HttpFilter> {
    let value = format!("h3=\":{}\"; ma={REMEMBERED}", listener.port);
    let header = HeaderValueOption {
        header: Some(HeaderValue { key: "alt-svc".to_owned(), value, ..HeaderValue::default() }),
        append_action: HeaderAppendAction::AddIfAbsent.into(),
        ..HeaderValueOption::default()
    };
    let mutations = Mutations {
        response_mutations: vec![Mutation { action: Some(Action::Append(header)) }],
        ..Mutations::default()
    };
    let filter = HeaderMutation { mutations: Some(mutations), ..HeaderMutation::default() };
    listener.http3.then(|| always("envoy.filters.http.header_mutation", any::pack_typed(&filter)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translate::testing::{fleet, http_listener, snapshot};

    fn files() -> TlsFiles {
        TlsFiles { certificate_file: "/etc/tls/tls.crt".into(), private_key_file: "/etc/tls/tls.key".into() }
    }

    fn web() -> Listener {
        Listener { protocol: ListenerProtocol::Https(files()), http3: true, ..http_listener("web", "edge") }
    }

    #[test]
    fn quic_beside_tcp() {
        let quic = listener(&web(), &files(), &fleet("edge"));
        insta::assert_snapshot!(snapshot(&quic));
        let Some(filter::ConfigType::TypedConfig(any)) = &quic.filter_chains[0].filters[0].config_type else {
            panic!("a connection manager")
        };
        let manager: HttpConnectionManager = any::unpack(any).unwrap();
        let of_tcp = connection_manager(&web(), &fleet("edge"));
        assert_eq!(manager.route_specifier, of_tcp.route_specifier);
        assert_eq!(manager.http_filters, of_tcp.http_filters);
    }

    #[test]
    fn answers_say_where_it_is_spoken() {
        assert_eq!(advertised(&http_listener("web", "edge")), None);
        let Some(filter) = advertised(&web()) else { panic!("a filter") };
        let Some(chancery_proto::envoy::hcm::http_filter::ConfigType::TypedConfig(any)) = &filter.config_type else {
            panic!("settings")
        };
        insta::assert_snapshot!(snapshot(&any::unpack::<HeaderMutation>(any).unwrap()));
    }
}
