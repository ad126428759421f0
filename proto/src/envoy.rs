//! Envoy's messages under short names, one module per API package that we use.
//!
//! Only `v3` exists in Envoy today, so the version is left out; a `v4` would be a new set of names.

pub use envoy_types::pb::envoy::{
    admin::v3 as admin,
    config::{
        accesslog::v3 as accesslog, bootstrap::v3 as bootstrap, cluster::v3 as cluster,
        common::mutation_rules::v3 as header_changes, core::v3 as core, endpoint::v3 as endpoint,
        listener::v3 as listener, ratelimit::v3 as rate_limit_service, rbac::v3 as rbac, route::v3 as route,
        trace::v3 as trace,
    },
    extensions::{
        access_loggers::{file::v3 as file_access_log, grpc::v3 as grpc_access_log, stream::v3 as stream_access_log},
        clusters::{common::dns::v3 as dns_lookup, dns::v3 as dns_cluster},
        common::ratelimit::v3 as rate_limit_common,
        compression::{brotli::compressor::v3 as brotli, gzip::compressor::v3 as gzip},
        filters::{
            common::{fault::v3 as fault, set_filter_state::v3 as filter_state},
            http::{
                buffer::v3 as buffer_filter, composite::v3 as composite_filter, compressor::v3 as compressor_filter,
                cors::v3 as cors, ext_authz::v3 as authorization_filter, fault::v3 as fault_filter,
                header_mutation::v3 as header_filter, jwt_authn::v3 as jwt_filter,
                local_ratelimit::v3 as local_rate_limit_filter, rate_limit_quota::v3 as rate_limit_quota_filter,
                ratelimit::v3 as rate_limit_filter, rbac::v3 as rbac_filter, router::v3 as router,
                set_filter_state::v3 as set_filter_state_filter, stateful_session::v3 as stateful_session_filter,
            },
            listener::{proxy_protocol::v3 as proxy_protocol_filter, tls_inspector::v3 as tls_inspector},
            network::{http_connection_manager::v3 as hcm, tcp_proxy::v3 as tcp_proxy},
        },
        http::stateful_session::{cookie::v3 as cookie_session, header::v3 as header_session},
        load_balancing_policies::{
            common::v3 as lb_common, least_request::v3 as lb_least_request, maglev::v3 as lb_maglev,
            random::v3 as lb_random, ring_hash::v3 as lb_ring_hash, round_robin::v3 as lb_round_robin,
            subset::v3 as lb_subset,
        },
        matching::common_inputs::network::v3 as matching_inputs,
        path::{r#match::uri_template::v3 as path_template_match, rewrite::uri_template::v3 as path_template_rewrite},
        rbac::principals::mtls_authenticated::v3 as mtls_authenticated,
        retry::host::previous_hosts::v3 as previous_hosts,
        transport_sockets::{
            proxy_protocol::v3 as proxy_protocol_socket, quic::v3 as quic, raw_buffer::v3 as raw_buffer, tls::v3 as tls,
        },
        upstreams::http::v3 as http_options,
    },
    r#type::{http::v3 as http_types, matcher::v3 as matcher, tracing::v3 as tracing, v3 as types},
};

/// What xDS shares with other systems than Envoy.
pub use envoy_types::pb::xds::{core::v3 as xds_core, r#type::matcher::v3 as xds_matcher};

/// The services of xDS: clients and servers, requests and responses.
pub use envoy_types::pb::envoy::service::{
    cluster::v3 as cds, discovery::v3 as discovery, endpoint::v3 as eds, extension::v3 as ecds, listener::v3 as lds,
    load_stats::v3 as load_stats, route::v3 as rds, runtime::v3 as runtime, secret::v3 as sds, status::v3 as status,
};

/// The service that is asked whether requests may pass.
pub use envoy_types::pb::envoy::service::auth::v3 as authorization;
/// The service that takes access logs, and what it takes.
pub use envoy_types::pb::envoy::{
    data::accesslog::v3 as access_log_data, service::accesslog::v3 as access_log_service,
};

/// The services of rate limiting: Envoy asks for each request, or reports its usage and is given quotas.
pub use envoy_types::pb::envoy::service::{rate_limit_quota::v3 as rlqs, ratelimit::v3 as rls};

/// The configuration of limiters as envoyproxy/ratelimit takes it over xDS.
pub use envoy_types::pb::ratelimit::config::ratelimit::v3 as rate_limit_config;
