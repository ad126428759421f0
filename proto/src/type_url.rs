//! The type URLs of the resources that travel over xDS, and how we call these types among people.
//!
//! The short names stand in logs, metrics and the API's answers; they are part of its contract.

/// A cluster (CDS).
pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
/// The endpoints of a cluster (EDS).
pub const ENDPOINT: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
/// A listener (LDS).
pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
/// The routes of a listener (RDS).
pub const ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
/// The routes of one host of a listener (VHDS, delta only).
pub const VIRTUAL_HOST: &str = "type.googleapis.com/envoy.config.route.v3.VirtualHost";
/// Routes chosen by the scope of a request (SRDS).
pub const SCOPED_ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration";
/// A certificate, a validation context or a ticket key (SDS).
pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
/// A layer of runtime values (RTDS).
pub const RUNTIME: &str = "type.googleapis.com/envoy.service.runtime.v3.Runtime";
/// The configuration of an extension (ECDS).
pub const EXTENSION_CONFIG: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";

/// The limits of one domain, for a rate limiter; Chancery's own.
pub const RATE_LIMIT_DOMAIN: &str = "type.googleapis.com/chancery.config.v1.RateLimitDomain";
/// The limits of one domain, for a rate limiter, as envoyproxy/ratelimit takes them.
pub const RATE_LIMIT_CONFIG: &str = "type.googleapis.com/ratelimit.config.ratelimit.v3.RateLimitConfig";

/// Every resource type with its short name: Envoy's in the order in which it wants them (what is referred to comes
/// before what refers to it), then those of rate limiters.
pub const ALL: [(&str, &str); 11] = [
    (CLUSTER, "cluster"),
    (ENDPOINT, "endpoint"),
    (LISTENER, "listener"),
    (ROUTE, "route"),
    (VIRTUAL_HOST, "virtualHost"),
    (SCOPED_ROUTE, "scopedRoute"),
    (SECRET, "secret"),
    (RUNTIME, "runtime"),
    (EXTENSION_CONFIG, "extensionConfig"),
    (RATE_LIMIT_DOMAIN, "rateLimitDomain"),
    (RATE_LIMIT_CONFIG, "rateLimitConfig"),
];

/// How a type is called in logs, metrics and answers: `cluster`, `endpoint`, `virtualHost` …
///
/// A type that is not listed here goes by its full message name, without the `type.googleapis.com/`.
pub fn short_name(type_url: &str) -> &str {
    let known = ALL.iter().find(|(url, _)| *url == type_url);
    known.map_or_else(|| message_name(type_url), |(_, name)| name)
}

/// The type URL of a type by its short name.
pub fn from_short_name(name: &str) -> Option<&'static str> {
    ALL.iter().find(|(_, short)| *short == name).map(|(url, _)| *url)
}

/// The full message name in a type URL: what follows the last slash.
pub fn message_name(type_url: &str) -> &str {
    type_url.rsplit_once('/').map_or(type_url, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use prost::Name;

    use super::*;
    use crate::{
        chancery::RateLimitDomain,
        envoy::{cluster, core, endpoint, listener, rate_limit_config, route, runtime, tls},
    };

    #[test]
    fn constants_are_the_urls_of_the_messages() {
        assert_eq!(CLUSTER, cluster::Cluster::type_url());
        assert_eq!(ENDPOINT, endpoint::ClusterLoadAssignment::type_url());
        assert_eq!(LISTENER, listener::Listener::type_url());
        assert_eq!(ROUTE, route::RouteConfiguration::type_url());
        assert_eq!(VIRTUAL_HOST, route::VirtualHost::type_url());
        assert_eq!(SCOPED_ROUTE, route::ScopedRouteConfiguration::type_url());
        assert_eq!(SECRET, tls::Secret::type_url());
        assert_eq!(RUNTIME, runtime::Runtime::type_url());
        assert_eq!(EXTENSION_CONFIG, core::TypedExtensionConfig::type_url());
        assert_eq!(RATE_LIMIT_DOMAIN, RateLimitDomain::type_url());
        assert_eq!(RATE_LIMIT_CONFIG, rate_limit_config::RateLimitConfig::type_url());
    }

    #[test]
    fn short_names_lead_back_to_their_type() {
        for (url, name) in ALL {
            assert_eq!(short_name(url), name);
            assert_eq!(from_short_name(name), Some(url));
        }
        assert_eq!(from_short_name("Cluster"), None);
    }

    #[test]
    fn a_type_without_short_name_goes_by_its_message_name() {
        assert_eq!(
            short_name("type.googleapis.com/ratelimit.config.RateLimitConfig"),
            "ratelimit.config.RateLimitConfig"
        );
        assert_eq!(short_name("no-slash"), "no-slash");
    }
}
