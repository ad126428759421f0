//! Tokens of clients, as Envoy's filter for them takes it.
//!
//! That filter has its providers from the listener, and a route only names what it wants of them. Here a route brings all of it
//! ([`composite`]), so providers are changed with the routes that use them, and drain no connections.

use std::{collections::BTreeMap, time::Duration};

use chancery_proto::{
    Message,
    envoy::{
        core::{DataSource, HttpUri, data_source::Specifier, http_uri::HttpUpstreamType},
        hcm::HttpFilter,
        jwt_filter::{
            JwtAuthentication, JwtClaimToHeader, JwtHeader, JwtProvider as EnvoyProvider, JwtRequirement,
            JwtRequirementAndList, JwtRequirementOrList, RemoteJwks, RequirementRule,
            jwt_provider::JwksSourceSpecifier, jwt_requirement::RequiresType, requirement_rule::RequirementType,
        },
        route::{
            RouteMatch,
            route_match::{ConnectMatcher, PathSpecifier},
        },
    },
    google::protobuf::{Any, Empty},
};
use prost::Name;

use super::{
    composite,
    value::{duration, encode_map},
};
use crate::model::{
    jwt::{Jwt, JwtProvider, Keys},
    route::PathMatch,
};

/// The filter, by the name that routes use.
const FILTER: &str = "chancery.jwt";

/// `envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication.providers`.
const PROVIDERS: u32 = 1;

/// How long keys may take to come.
const FETCH: Duration = Duration::from_secs(5);

/// The filter on every listener.
pub(super) fn filter() -> HttpFilter {
    composite::filter(FILTER)
}

/// What a rule tells the filter, by its name.
pub(super) fn per_route(jwt: &Jwt, path: &PathMatch) -> (String, Any) {
    composite::per_route(FILTER, composite::always("envoy.filters.http.jwt_authn", settings(jwt, path)))
}

/// All but the providers, which stand in a map, in no order.
fn settings(jwt: &Jwt, path: &PathMatch) -> Any {
    // A request for which the filter has no requirement passes: one without a path begins with no prefix.
    let every = match path {
        PathMatch::Connect => PathSpecifier::ConnectMatcher(ConnectMatcher {}),
        _ => PathSpecifier::Prefix("/".to_owned()),
    };
    let rest = JwtAuthentication {
        rules: vec![RequirementRule {
            r#match: Some(RouteMatch { path_specifier: Some(every), ..RouteMatch::default() }),
            requirement_type: Some(RequirementType::Requires(requirement(jwt))),
        }],
        ..JwtAuthentication::default()
    };
    let providers: BTreeMap<_, _> = jwt.providers.iter().map(|of| (of.name.to_string(), provider(of))).collect();
    let mut value = rest.encode_to_vec();
    encode_map(PROVIDERS, &providers, &mut value);
    Any { type_url: JwtAuthentication::type_url(), value }
}

fn requirement(jwt: &Jwt) -> JwtRequirement {
    let Jwt { providers, all, allow_missing } = jwt;
    let of = |requires| JwtRequirement { requires_type: Some(requires) };
    let missing = allow_missing.then(|| RequiresType::AllowMissing(Empty {}));
    let named = providers.iter().map(|provider| RequiresType::ProviderName(provider.name.to_string()));
    let mut requirements: Vec<_> = named.chain(missing).map(of).collect();
    if requirements.len() == 1 {
        return requirements.remove(0);
    }
    of(match all {
        true => RequiresType::RequiresAll(JwtRequirementAndList { requirements }),
        false => RequiresType::RequiresAny(JwtRequirementOrList { requirements }),
    })
}

fn provider(provider: &JwtProvider) -> EnvoyProvider {
    let JwtProvider { name: _, issuer, audiences, keys, header, forward, claims } = provider;
    // Envoy would also look into the query, which ends up in logs.
    let place = match header {
        Some(name) => JwtHeader { name: name.clone(), value_prefix: String::new() },
        None => JwtHeader { name: "authorization".to_owned(), value_prefix: "Bearer ".to_owned() },
    };
    let claim = |(claim, header): &(String, String)| JwtClaimToHeader {
        header_name: header.clone(),
        claim_name: claim.clone(),
        ..JwtClaimToHeader::default()
    };
    EnvoyProvider {
        issuer: issuer.clone(),
        audiences: audiences.clone(),
        from_headers: vec![place],
        forward: *forward,
        claim_to_headers: claims.iter().map(claim).collect(),
        // A token that is good for ever cannot be taken back.
        require_expiration: true,
        jwks_source_specifier: Some(source(keys)),
        ..EnvoyProvider::default()
    }
}

fn source(keys: &Keys) -> JwksSourceSpecifier {
    match keys {
        Keys::Inline(set) => JwksSourceSpecifier::LocalJwks(DataSource {
            specifier: Some(Specifier::InlineString(set.clone())),
            ..DataSource::default()
        }),
        Keys::Remote { service, host, path, cache } => JwksSourceSpecifier::RemoteJwks(RemoteJwks {
            http_uri: Some(HttpUri {
                // The service says whether it is spoken to over TLS.
                uri: format!("http://{host}{path}"),
                timeout: Some(duration(FETCH)),
                http_upstream_type: Some(HttpUpstreamType::Cluster(service.to_string())),
            }),
            cache_duration: Some(duration(*cache)),
            ..RemoteJwks::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chancery_proto::any;

    use super::*;
    use crate::translate::testing::{name, snapshot};

    fn issuer(text: &str, keys: Keys) -> Arc<JwtProvider> {
        Arc::new(JwtProvider {
            name: name(text),
            issuer: format!("https://{text}.example.com"),
            audiences: vec!["shop".into()],
            keys,
            header: (text == "two").then(|| "x-token".into()),
            forward: text == "two",
            claims: vec![("sub".into(), "x-user".into())],
        })
    }

    fn every() -> PathMatch {
        PathMatch::Prefix("/".into())
    }

    fn both() -> Jwt {
        let remote = Keys::Remote {
            service: name("idp"),
            host: "idp".into(),
            path: "/keys".into(),
            cache: Duration::from_secs(60),
        };
        let providers = vec![issuer("two", remote), issuer("one", Keys::Inline("{}".into()))];
        Jwt { providers, all: true, allow_missing: false }
    }

    #[test]
    fn a_route_brings_its_providers() {
        let told: JwtAuthentication = any::unpack(&settings(&both(), &every())).expect("settings");
        let mut providers: Vec<_> = told.providers.iter().collect();
        providers.sort_by_key(|(name, _)| *name);
        insta::assert_snapshot!(snapshot(&providers));
        insta::assert_snapshot!(snapshot(&told.rules));
        let any = Jwt { all: false, allow_missing: true, ..both() };
        insta::assert_snapshot!(snapshot(&requirement(&any)));
        let one = Jwt { providers: both().providers[..1].to_vec(), ..both() };
        assert_eq!(requirement(&one).requires_type, Some(RequiresType::ProviderName("two".into())));
    }

    #[test]
    fn a_tunnel_needs_its_token_though_it_has_no_path() {
        let told: JwtAuthentication = any::unpack(&settings(&both(), &PathMatch::Connect)).expect("settings");
        let matched = told.rules[0].r#match.clone().unwrap_or_default();
        assert_eq!(matched.path_specifier, Some(PathSpecifier::ConnectMatcher(ConnectMatcher {})));
    }

    #[test]
    fn the_same_providers_are_the_same_bytes() {
        let named = |number| issuer(&format!("issuer-{number}"), Keys::Inline("{}".into()));
        let many = Jwt { providers: (0..20).map(named).collect(), ..both() };
        assert!((0..20).all(|_| settings(&many, &every()) == settings(&many, &every())));
        let told: JwtAuthentication = any::unpack(&settings(&many, &every())).expect("settings");
        assert_eq!(told.providers.len(), 20);
    }
}
