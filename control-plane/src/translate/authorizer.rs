//! Who is asked whether requests may pass, as Envoy's filter for external authorization takes it.
//!
//! It stands on listeners that ask somebody, for all routes; a rule switches it off, or adds what is told of the rule. It comes after
//! what the proxy decides by itself, so that nobody is asked about a request that is turned away in any case.

use std::collections::BTreeMap;

use chancery_proto::{
    Message, any,
    envoy::{
        authorization_filter::{
            AuthorizationResponse, BufferSettings, CheckSettings, ExtAuthz, ExtAuthzPerRoute, HttpService,
            ext_authz::Services,
        },
        core::{
            ApiVersion, GrpcService, HttpUri,
            grpc_service::{EnvoyGrpc, TargetSpecifier},
            http_uri::HttpUpstreamType,
        },
        hcm::HttpFilter,
        matcher::{ListStringMatcher, string_matcher::MatchPattern},
        types::HttpStatus,
    },
    google::protobuf::Any,
};
use prost::{Name, encoding};

use super::{
    filter::{always, never, on},
    value::{duration, string_matcher},
};
use crate::model::{
    authorizer::{Authorizer, AuthorizerProtocol, RuleAuthorization, ToldBody},
    fleet::OnFailure,
};

/// The filter, by the name that routes use.
const FILTER: &str = "chancery.authorizer";

/// `envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute.check_settings`.
const CHECK_SETTINGS: u32 = 2;

/// `envoy.extensions.filters.http.ext_authz.v3.CheckSettings.context_extensions`.
const CONTEXT: u32 = 1;

/// The filter on a listener that asks; `clients` show certificates there, or not.
pub(super) fn filter(authorizer: &Authorizer, clients: bool) -> HttpFilter {
    always(FILTER, any::pack_typed(&settings(authorizer, clients)))
}

/// What a rule tells the filter, by its name, if it tells it anything; `bodiless` are requests whose body nobody may wait for.
pub(super) fn per_route(authorization: Option<&RuleAuthorization>, bodiless: bool) -> Option<(String, Any)> {
    match authorization {
        Some(RuleAuthorization::Off) => Some(never(FILTER)),
        Some(RuleAuthorization::Context(context)) => Some(on(FILTER, told(context, bodiless))),
        None => bodiless.then(|| on(FILTER, told(&BTreeMap::new(), bodiless))),
    }
}

/// [`ExtAuthzPerRoute`] in one order, for it holds a map.
fn told(context: &BTreeMap<String, String>, bodiless: bool) -> Any {
    let mut settings =
        CheckSettings { disable_request_body_buffering: bodiless, ..CheckSettings::default() }.encode_to_vec();
    encoding::btree_map::encode(
        encoding::string::encode,
        encoding::string::encoded_len,
        encoding::string::encode,
        encoding::string::encoded_len,
        CONTEXT,
        context,
        &mut settings,
    );
    let mut value = Vec::new();
    encoding::bytes::encode(CHECK_SETTINGS, &settings, &mut value);
    Any { type_url: ExtAuthzPerRoute::type_url(), value }
}

fn settings(authorizer: &Authorizer, clients: bool) -> ExtAuthz {
    let Authorizer { service, protocol, timeout, on_failure, status_on_error, body, headers } = authorizer;
    let services = match protocol {
        AuthorizerProtocol::Grpc => Services::GrpcService(GrpcService {
            target_specifier: Some(TargetSpecifier::EnvoyGrpc(EnvoyGrpc {
                cluster_name: service.to_string(),
                ..EnvoyGrpc::default()
            })),
            timeout: Some(duration(*timeout)),
            ..GrpcService::default()
        }),
        AuthorizerProtocol::Http { path_prefix, to_service, to_client } => Services::HttpService(HttpService {
            server_uri: Some(HttpUri {
                // The cluster says where it is and whether over TLS, the request which host is asked for.
                uri: format!("http://{service}"),
                timeout: Some(duration(*timeout)),
                http_upstream_type: Some(HttpUpstreamType::Cluster(service.to_string())),
            }),
            path_prefix: path_prefix.clone(),
            authorization_response: Some(AuthorizationResponse {
                allowed_upstream_headers: named(to_service),
                allowed_client_headers: to_client.as_deref().and_then(named),
                allowed_client_headers_on_success: to_client.as_deref().and_then(named),
                ..AuthorizationResponse::default()
            }),
            ..HttpService::default()
        }),
    };
    ExtAuthz {
        services: Some(services),
        transport_api_version: ApiVersion::V3.into(),
        failure_mode_allow: *on_failure == OnFailure::Allow,
        status_on_error: Some(HttpStatus { code: (*status_on_error).into() }),
        with_request_body: body.map(|ToldBody { max_size, partial }| BufferSettings {
            max_request_bytes: max_size,
            allow_partial_message: partial,
            // Bodies need not be text.
            pack_as_bytes: *protocol == AuthorizerProtocol::Grpc,
        }),
        allowed_headers: headers.as_deref().and_then(named),
        include_peer_certificate: clients && *protocol == AuthorizerProtocol::Grpc,
        validate_mutations: true,
        ..ExtAuthz::default()
    }
}

/// Headers of these names, if there are any.
fn named(names: &[String]) -> Option<ListStringMatcher> {
    let exact = |name: &String| string_matcher(MatchPattern::Exact(name.clone()));
    (!names.is_empty()).then(|| ListStringMatcher { patterns: names.iter().map(exact).collect() })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chancery_proto::envoy::{authorization_filter::ext_authz_per_route::Override, route::FilterConfig};

    use super::*;
    use crate::translate::{
        filter,
        testing::{name, snapshot},
    };

    #[test]
    fn everything_that_can_be_said_has_its_place() {
        let grpc = Authorizer {
            service: name("auth"),
            protocol: AuthorizerProtocol::Grpc,
            timeout: Duration::from_millis(250),
            on_failure: OnFailure::Allow,
            status_on_error: 503,
            body: Some(ToldBody { max_size: 1024, partial: true }),
            headers: Some(vec!["authorization".into(), "x-user".into()]),
        };
        insta::assert_snapshot!(snapshot(&settings(&grpc, true)));
        let http = AuthorizerProtocol::Http {
            path_prefix: "/check".into(),
            to_service: vec!["x-user".into()],
            to_client: Some(vec!["x-why".into()]),
        };
        let http = Authorizer { protocol: http, on_failure: OnFailure::Deny, headers: None, ..grpc };
        insta::assert_snapshot!(snapshot(&settings(&http, true)));
    }

    #[test]
    fn a_rule_is_exempt_or_says_something_of_itself() {
        let (_, off) = per_route(Some(&RuleAuthorization::Off), false).unwrap();
        assert!(any::unpack::<FilterConfig>(&off).unwrap().disabled);
        let context: BTreeMap<_, _> = (0..20).map(|number| (format!("key-{number}"), number.to_string())).collect();
        let said = || per_route(Some(&RuleAuthorization::Context(context.clone())), true).unwrap().1;
        assert!((0..20).all(|_| said() == said()));
        let Some(Override::CheckSettings(settings)) = filter::told::<ExtAuthzPerRoute>(&said()).r#override else {
            panic!("settings of a check")
        };
        assert!(settings.disable_request_body_buffering);
        assert_eq!(settings.context_extensions.into_iter().collect::<BTreeMap<_, _>>(), context);
    }

    #[test]
    fn nobody_waits_for_the_body_of_a_tunnel() {
        assert_eq!(per_route(None, false), None);
        let (_, told) = per_route(None, true).unwrap();
        let Some(Override::CheckSettings(settings)) = filter::told::<ExtAuthzPerRoute>(&told).r#override else {
            panic!("settings of a check")
        };
        assert_eq!(settings, CheckSettings { disable_request_body_buffering: true, ..CheckSettings::default() });
        assert!(any::unpack::<FilterConfig>(&told).unwrap().is_optional, "where nobody is asked, it says nothing");
    }
}
