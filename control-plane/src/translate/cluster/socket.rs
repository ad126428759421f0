//! What a connection to an endpoint begins with: who the client is, then TLS, then the protocol; each if the service says so.

use chancery_proto::{
    any,
    envoy::{
        core::{ProxyProtocolConfig, TransportSocket, proxy_protocol_config::Version, transport_socket::ConfigType},
        proxy_protocol_socket::ProxyProtocolUpstreamTransport,
        raw_buffer::RawBuffer,
    },
    google::protobuf::Any,
};

use super::tls;
use crate::{
    model::service::{ProxyProtocol, Service},
    translate::tls::socket as tls_socket,
};

/// The socket of `service`; none where plain bytes are spoken from the start.
pub(super) fn transport_socket(service: &Service) -> Option<TransportSocket> {
    let tls = service.tls.as_ref().map(|tls| tls_socket(any::pack_typed(&tls::context(tls, service))));
    let Some(version) = service.proxy_protocol else { return tls };
    let version = match version {
        ProxyProtocol::V1 => Version::V1,
        ProxyProtocol::V2 => Version::V2,
    };
    let plain = || named("envoy.transport_sockets.raw_buffer", any::pack_typed(&RawBuffer {}));
    let socket = ProxyProtocolUpstreamTransport {
        config: Some(ProxyProtocolConfig { version: version.into(), ..ProxyProtocolConfig::default() }),
        transport_socket: Some(tls.unwrap_or_else(plain)),
        ..ProxyProtocolUpstreamTransport::default()
    };
    Some(named("envoy.transport_sockets.upstream_proxy_protocol", any::pack_typed(&socket)))
}

fn named(name: &str, config: Any) -> TransportSocket {
    TransportSocket { name: name.to_owned(), config_type: Some(ConfigType::TypedConfig(config)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::service::tls::{ServiceTls, TlsVersion, Verification},
        translate::testing::service,
    };

    fn inner(service: &Service) -> (ProxyProtocolUpstreamTransport, String) {
        let Some(ConfigType::TypedConfig(packed)) = transport_socket(service).unwrap().config_type else {
            panic!("no configuration")
        };
        let socket: ProxyProtocolUpstreamTransport = any::unpack(&packed).unwrap();
        let inner = socket.transport_socket.clone().unwrap().name;
        (socket, inner)
    }

    #[test]
    fn who_the_client_is_comes_before_tls() {
        assert_eq!(transport_socket(&service("checkout")), None);
        let plain = Service { proxy_protocol: Some(ProxyProtocol::V1), ..service("checkout") };
        let (socket, within) = inner(&plain);
        assert_eq!(
            (socket.config.unwrap().version(), within.as_str()),
            (Version::V1, "envoy.transport_sockets.raw_buffer")
        );
        let tls = ServiceTls {
            sni: None,
            verification: Verification::Skipped,
            client_certificate: None,
            min_version: TlsVersion::V1_2,
        };
        let (socket, within) = inner(&Service { tls: Some(tls), proxy_protocol: Some(ProxyProtocol::V2), ..plain });
        assert_eq!((socket.config.unwrap().version(), within.as_str()), (Version::V2, "envoy.transport_sockets.tls"));
    }
}
