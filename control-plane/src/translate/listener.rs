//! A listener as an Envoy `Listener` with an HTTP connection manager.
//!
//! Envoy drains the connections of a listener whose message changed, so it depends on nothing but the listener
//! and its fleet: routes are asked for by name (RDS), over the same stream.
//!
//! Settings that the language of the users does not have follow Envoy's guide for edge proxies
//! ("Configuring Envoy as an edge proxy"): its defaults suit a mesh, where clients are friends.

use std::{iter, time::Duration};

use chancery_proto::{
    any,
    envoy::{
        core::{Http2ProtocolOptions, HttpProtocolOptions, http_protocol_options::HeadersWithUnderscoresAction},
        hcm::{
            HttpConnectionManager, HttpFilter, Rds,
            http_connection_manager::{
                CodecType, InternalAddressConfig, PathWithEscapedSlashesAction, RouteSpecifier,
                ServerHeaderTransformation,
            },
            http_filter,
        },
        listener::{Filter, FilterChain, Listener as EnvoyListener, ListenerFilter, filter, listener_filter},
        proxy_protocol_filter::ProxyProtocol,
        router::Router,
        tls::{CommonTlsContext, DownstreamTlsContext},
    },
};

use super::{
    cors, fault, rate_limit, route, session,
    tls::{certificate, since, socket},
    value::{ads, duration, flag, number, socket_address},
};
use crate::model::{
    Name,
    fleet::Fleet,
    listener::{Listener, ListenerProtocol, TlsFiles},
    service::tls::TlsVersion,
};

/// What Envoy buffers for a connection before it stops reading.
const CONNECTION_BUFFER: u32 = 32 * 1024;

/// After so long without a byte in either direction a request is given up; a rule with a longer
/// timeout extends it for its requests.
pub(super) const STREAM_IDLE: Duration = Duration::from_secs(5 * 60);

/// How long a connection without requests is kept.
const CONNECTION_IDLE: Duration = Duration::from_secs(60 * 60);

/// How long a client may take to send the headers of a request, and for the TLS handshake: whoever needs
/// longer wants to tie up connections.
const HEADERS: Duration = Duration::from_secs(10);
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The listener of `fleet`, the fleet that `listener` names.
pub fn listener(listener: &Listener, fleet: &Fleet) -> EnvoyListener {
    let Listener { name, fleet: _, address, port, proxy_protocol, protocol, route_delivery } = listener;
    let routes = route::route_configuration_name(name, *route_delivery);
    let (transport_socket, handshake) = match protocol {
        ListenerProtocol::Http => (None, None),
        ListenerProtocol::Https(files) => {
            (Some(socket(any::pack_typed(&tls_context(files)))), Some(duration(HANDSHAKE)))
        }
    };
    let connection_manager = Filter {
        name: "envoy.filters.network.http_connection_manager".to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(any::pack_typed(&connection_manager(name, routes, fleet)))),
    };
    EnvoyListener {
        name: name.to_string(),
        address: Some(socket_address(address.to_string(), *port)),
        // Statistics go by name, not by address: the same on every proxy.
        stat_prefix: name.to_string(),
        per_connection_buffer_limit_bytes: Some(number(CONNECTION_BUFFER)),
        listener_filters: proxy_protocol.then(proxy_protocol_filter).into_iter().collect(),
        filter_chains: vec![FilterChain {
            name: name.to_string(),
            filters: vec![connection_manager],
            transport_socket,
            transport_socket_connect_timeout: handshake,
            ..FilterChain::default()
        }],
        ..EnvoyListener::default()
    }
}

/// Takes from the front of each connection who the client is; what stands there beside addresses is for nobody.
fn proxy_protocol_filter() -> ListenerFilter {
    ListenerFilter {
        name: "envoy.filters.listener.proxy_protocol".to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(any::pack_typed(&ProxyProtocol::default()))),
        ..ListenerFilter::default()
    }
}

/// What is done with the bytes of every connection, and with every request whatever its route.
pub(super) fn connection_manager(listener: &Name, routes: String, fleet: &Fleet) -> HttpConnectionManager {
    let limits = fleet.rate_limiter.iter().flat_map(|limiter| rate_limit::filters(&fleet.name, limiter));
    HttpConnectionManager {
        codec_type: CodecType::Auto.into(),
        stat_prefix: listener.to_string(),
        route_specifier: Some(RouteSpecifier::Rds(Rds { config_source: Some(ads()), route_config_name: routes })),
        http_filters: iter::once(cors::filter())
            .chain(limits)
            .chain([fault::filter(), session::filter(), router()])
            .collect(),
        common_http_protocol_options: Some(HttpProtocolOptions {
            idle_timeout: Some(duration(CONNECTION_IDLE)),
            // To many servers `x_user` and `x-user` are the same header: a way around rules about headers.
            headers_with_underscores_action: HeadersWithUnderscoresAction::RejectRequest.into(),
            ..HttpProtocolOptions::default()
        }),
        http2_protocol_options: Some(Http2ProtocolOptions {
            max_concurrent_streams: Some(number(100)),
            initial_stream_window_size: Some(number(64 * 1024)),
            initial_connection_window_size: Some(number(1024 * 1024)),
            ..Http2ProtocolOptions::default()
        }),
        stream_idle_timeout: Some(duration(STREAM_IDLE)),
        request_headers_timeout: Some(duration(HEADERS)),
        // The client is whoever connects, or the address that the trusted proxies in front report.
        use_remote_address: Some(flag(true)),
        xff_num_trusted_hops: fleet.trusted_hops,
        // A private address is no credential: nobody's `x-envoy-*` headers are believed for it.
        internal_address_config: Some(InternalAddressConfig::default()),
        // Rules about paths must see the path that the service will see.
        normalize_path: Some(flag(true)),
        merge_slashes: true,
        path_with_escaped_slashes_action: PathWithEscapedSlashesAction::UnescapeAndRedirect.into(),
        // `example.com.` is `example.com`.
        strip_trailing_host_dot: true,
        // The services' own `server` header, or none: the proxy does not name itself.
        server_header_transformation: ServerHeaderTransformation::PassThrough.into(),
        ..HttpConnectionManager::default()
    }
}

/// The last filter of every chain: it does what the routes say.
pub(crate) fn router() -> HttpFilter {
    HttpFilter {
        name: "envoy.filters.http.router".to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(any::pack_typed(&Router::default()))),
        ..HttpFilter::default()
    }
}

/// TLS from files on the proxy. Envoy reads them when the listener arrives, and not again.
pub(super) fn tls_context(files: &TlsFiles) -> DownstreamTlsContext {
    DownstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_params: Some(since(TlsVersion::V1_2)),
            tls_certificates: vec![certificate(files)],
            alpn_protocols: vec!["h2".to_owned(), "http/1.1".to_owned()],
            ..CommonTlsContext::default()
        }),
        ..DownstreamTlsContext::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::listener::RouteDelivery;
    use crate::translate::testing::{fleet, http_listener, name, snapshot};

    fn web(protocol: ListenerProtocol) -> Listener {
        Listener { protocol, ..http_listener("web", "edge") }
    }

    fn files() -> TlsFiles {
        TlsFiles { certificate_file: "/etc/tls/tls.crt".into(), private_key_file: "/etc/tls/tls.key".into() }
    }

    #[test]
    fn http_in_the_clear() {
        insta::assert_snapshot!(snapshot(&listener(&web(ListenerProtocol::Http), &fleet("edge"))));
    }

    #[test]
    fn https() {
        insta::assert_snapshot!(snapshot(&listener(&web(ListenerProtocol::Https(files())), &fleet("edge"))));
        insta::assert_snapshot!(snapshot(&tls_context(&files())));
    }

    #[test]
    fn the_connection_manager_trusts_nobody_it_was_not_told_to() {
        let behind_two = Fleet { trusted_hops: 2, ..fleet("edge") };
        insta::assert_snapshot!(snapshot(&connection_manager(&name("web"), "web".into(), &behind_two)));
    }

    #[test]
    fn routes_that_come_whole_have_a_name_of_their_own() {
        let per_host = web(ListenerProtocol::Http);
        let whole = Listener { route_delivery: RouteDelivery::Whole, ..per_host.clone() };
        let manager = |listener: &Listener| {
            let translated = super::listener(listener, &fleet("edge"));
            let Some(filter::ConfigType::TypedConfig(any)) = &translated.filter_chains[0].filters[0].config_type else {
                panic!("a connection manager");
            };
            any::unpack::<HttpConnectionManager>(any).unwrap()
        };
        let rds = |routes: &str| {
            let rds = Rds { config_source: Some(ads()), route_config_name: routes.into() };
            Some(RouteSpecifier::Rds(rds))
        };
        let (per_host, whole) = (manager(&per_host), manager(&whole));
        assert_eq!((&per_host.route_specifier, &whole.route_specifier), (&rds("web"), &rds("chancery.whole.web")));
        assert_eq!(
            HttpConnectionManager { route_specifier: rds("web"), ..whole },
            per_host,
            "and nothing else differs"
        );
    }

    #[test]
    fn the_default_timeout_of_the_fleet_does_not_drain_connections() {
        let slow = Fleet { default_timeout: Duration::from_secs(99), ..fleet("edge") };
        let web = web(ListenerProtocol::Http);
        assert_eq!(listener(&web, &slow), listener(&web, &fleet("edge")));
    }
}
