//! A listener as an Envoy `Listener` with an HTTP connection manager.
//!
//! Envoy drains the connections of a listener whose message changed, so it depends on nothing but the listener
//! and its fleet: routes are asked for by name (RDS), over the same stream.
//!
//! Settings that the language of the users does not have follow Envoy's guide for edge proxies
//! ("Configuring Envoy as an edge proxy"): its defaults suit a mesh, where clients are friends.

use std::{net::Ipv4Addr, time::Duration};

use chancery_proto::{
    any,
    envoy::{
        core::{
            CidrRange, Http2ProtocolOptions, HttpProtocolOptions, http_protocol_options::HeadersWithUnderscoresAction,
        },
        hcm::{
            HttpConnectionManager, HttpFilter, Rds,
            http_connection_manager::{
                CodecType, InternalAddressConfig, PathWithEscapedSlashesAction, RouteSpecifier,
                ServerHeaderTransformation,
            },
        },
        listener::{Filter, FilterChain, Listener as EnvoyListener, ListenerFilter, filter, listener_filter},
        proxy_protocol_filter::ProxyProtocol,
        router::Router,
        tls::{CommonTlsContext, DownstreamTlsContext},
    },
};

use super::{
    access, access_log, authorizer, buffer, compression, cors, fault,
    filter::always,
    http3, jwt, local_rate_limit, rate_limit, route, session, tcp,
    tls::{certificate, since, socket, validation},
    tracing,
    value::{ads, duration, flag, number, socket_address},
};
use crate::model::{
    fleet::Fleet,
    listener::{Clients, Listener, ListenerProtocol, Timeouts, TlsFiles},
    service::tls::TlsVersion,
};

/// What Envoy buffers for a connection before it stops reading.
pub(super) const CONNECTION_BUFFER: u32 = 32 * 1024;

/// How long a client may take for the TLS handshake: whoever needs longer wants to tie up connections.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The listener of `fleet`, the fleet that `listener` names. One that carries connections as they are is made by [`tcp`], and here without
/// anybody to carry them to.
pub fn listener(listener: &Listener, fleet: &Fleet) -> EnvoyListener {
    let Listener {
        name,
        fleet: _,
        address,
        port,
        proxy_protocol,
        protocol,
        http3: _,
        route_delivery: _,
        timeouts: _,
        compression: _,
        clients,
        access: _,
        authorizer: _,
        access_logs: _,
        tracing: _,
    } = listener;
    let (transport_socket, handshake) = match protocol {
        ListenerProtocol::Tcp | ListenerProtocol::TlsPassthrough => return tcp::listener(listener, &[]),
        ListenerProtocol::Http => (None, None),
        ListenerProtocol::Https(files) => {
            (Some(socket(any::pack_typed(&tls_context(files, clients.as_ref())))), Some(duration(HANDSHAKE)))
        }
    };
    let connection_manager = Filter {
        name: "envoy.filters.network.http_connection_manager".to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(any::pack_typed(&connection_manager(listener, fleet)))),
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
pub(super) fn proxy_protocol_filter() -> ListenerFilter {
    ListenerFilter {
        name: "envoy.filters.listener.proxy_protocol".to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(any::pack_typed(&ProxyProtocol::default()))),
        ..ListenerFilter::default()
    }
}

/// What is done with the bytes of every connection, and with every request whatever its route.
pub(super) fn connection_manager(listener: &Listener, fleet: &Fleet) -> HttpConnectionManager {
    let Listener { name, route_delivery, timeouts, .. } = listener;
    let routes = route::route_configuration_name(name, *route_delivery);
    let Timeouts { request_headers, request, stream_idle, connection_idle, max_connection } = timeouts;
    HttpConnectionManager {
        codec_type: CodecType::Auto.into(),
        stat_prefix: name.to_string(),
        route_specifier: Some(RouteSpecifier::Rds(Rds { config_source: Some(ads()), route_config_name: routes })),
        http_filters: filters(listener, fleet),
        access_log: access_log::access_logs(&listener.access_logs),
        tracing: listener.tracing.as_ref().map(tracing::of_listener),
        common_http_protocol_options: Some(HttpProtocolOptions {
            idle_timeout: Some(duration(*connection_idle)),
            max_connection_duration: max_connection.map(duration),
            // To many servers `x_user` and `x-user` are the same header: a way around rules about headers.
            headers_with_underscores_action: HeadersWithUnderscoresAction::RejectRequest.into(),
            ..HttpProtocolOptions::default()
        }),
        http2_protocol_options: Some(Http2ProtocolOptions {
            max_concurrent_streams: Some(number(100)),
            initial_stream_window_size: Some(number(64 * 1024)),
            initial_connection_window_size: Some(number(1024 * 1024)),
            // WebSockets over HTTP/2 (RFC 8441). What a request may become, its rule says.
            allow_connect: true,
            ..Http2ProtocolOptions::default()
        }),
        stream_idle_timeout: Some(duration(*stream_idle)),
        request_headers_timeout: Some(duration(*request_headers)),
        request_timeout: request.map(duration),
        // The client is whoever connects, or the address that the trusted proxies in front report.
        use_remote_address: Some(flag(true)),
        xff_num_trusted_hops: fleet.trusted_hops,
        // A private address is no credential: nobody's `x-envoy-*` headers are believed for it. To Envoy, no range at all
        // means all private ones, so there is one that no client is in.
        internal_address_config: Some(InternalAddressConfig {
            cidr_ranges: vec![nobody()],
            ..InternalAddressConfig::default()
        }),
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

/// The broadcast address: nobody connects from there.
fn nobody() -> CidrRange {
    CidrRange { address_prefix: Ipv4Addr::BROADCAST.to_string(), prefix_len: Some(number(Ipv4Addr::BITS)) }
}

/// What every request passes, in order: what may refuse it comes first, and what costs a question after what does not.
fn filters(listener: &Listener, fleet: &Fleet) -> Vec<HttpFilter> {
    let limits = fleet.rate_limiter.iter().flat_map(|limiter| rate_limit::filters(&fleet.name, limiter));
    let compression = listener.compression.iter().flat_map(compression::filters);
    let access = listener.access.iter().map(access::of_listener).chain([access::filter()]);
    let authorizer = listener.authorizer.iter().map(|one| authorizer::filter(one, listener.clients.is_some()));
    http3::advertised(listener)
        .into_iter()
        .chain([cors::filter(), jwt::filter()])
        .chain(access)
        .chain(authorizer)
        .chain([local_rate_limit::filter()])
        .chain(limits)
        .chain([fault::filter(), buffer::filter()])
        .chain(compression)
        .chain([session::filter(), router()])
        .collect()
}

/// The last filter of every chain: it does what the routes say.
pub(crate) fn router() -> HttpFilter {
    always("envoy.filters.http.router", any::pack_typed(&Router::default()))
}

/// TLS from files on the proxy. Envoy reads them when the listener arrives, and not again.
pub(super) fn tls_context(files: &TlsFiles, clients: Option<&Clients>) -> DownstreamTlsContext {
    DownstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_params: Some(since(TlsVersion::V1_2)),
            tls_certificates: vec![certificate(files)],
            alpn_protocols: vec!["h2".to_owned(), "http/1.1".to_owned()],
            validation_context_type: clients.map(|clients| validation(&clients.authorities, Vec::new())),
            ..CommonTlsContext::default()
        }),
        require_client_certificate: clients.map(|clients| flag(clients.required)),
        ..DownstreamTlsContext::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{listener::RouteDelivery, service::tls::Authorities};
    use crate::translate::testing::{fleet, http_listener, snapshot};

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
        insta::assert_snapshot!(snapshot(&tls_context(&files(), None)));
    }

    #[test]
    fn clients_prove_who_they_are_where_a_listener_asks() {
        let clients = Clients { authorities: Authorities::File("/etc/tls/ca.crt".into()), required: true };
        insta::assert_snapshot!(snapshot(&tls_context(&files(), Some(&clients))));
        let may = Clients { authorities: Authorities::Mesh, required: false };
        let context = tls_context(&files(), Some(&may));
        assert_eq!(context.require_client_certificate, Some(flag(false)));
    }

    #[test]
    fn the_connection_manager_trusts_nobody_it_was_not_told_to() {
        let behind_two = Fleet { trusted_hops: 2, ..fleet("edge") };
        insta::assert_snapshot!(snapshot(&connection_manager(&http_listener("web", "edge"), &behind_two)));
    }

    #[test]
    fn clients_may_take_as_long_as_the_listener_says() {
        let seconds = |seconds| Some(duration(Duration::from_secs(seconds)));
        let patient = Listener {
            timeouts: Timeouts {
                request_headers: Duration::from_secs(1),
                request: Some(Duration::from_secs(2)),
                stream_idle: Duration::from_secs(3),
                connection_idle: Duration::from_secs(4),
                max_connection: Some(Duration::from_secs(5)),
            },
            ..http_listener("web", "edge")
        };
        let manager = connection_manager(&patient, &fleet("edge"));
        let common = manager.common_http_protocol_options.unwrap_or_default();
        assert_eq!(
            [
                manager.request_headers_timeout,
                manager.request_timeout,
                manager.stream_idle_timeout,
                common.idle_timeout,
                common.max_connection_duration,
            ],
            [1, 2, 3, 4, 5].map(seconds)
        );
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
