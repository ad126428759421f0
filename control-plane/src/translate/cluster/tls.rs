//! TLS towards the endpoints of a service.
//!
//! Envoy verifies nobody unless it is told whom to trust, and no name unless it is told which; so both are always said, but
//! where the service says that nobody is to be verified.
//!
//! Where every endpoint has a name of its own, each is held to its own (`auto_sni_san_validation`); the list of all names
//! stands beside that for an Envoy that is too old to know the field, and would pass it over.

use std::collections::BTreeSet;

use chancery_proto::envoy::tls::{
    CertificateValidationContext, CommonTlsContext, TlsParameters, UpstreamTlsContext,
    certificate_validation_context::TrustChainVerification, common_tls_context::ValidationContextType,
    subject_alt_name_matcher::SanType, tls_parameters::TlsProtocol,
};

use crate::{
    model::service::{
        Address, Service, ServiceProtocol,
        tls::{ClientCertificate, ServiceTls, Verification},
    },
    translate::tls::{certificate, exact, matcher, own_identity, since, validation},
};

/// The context of `service`, of which `tls` is what it says.
pub(super) fn context(tls: &ServiceTls, service: &Service) -> UpstreamTlsContext {
    let ServiceTls { sni, verification, client_certificate, min_version } = tls;
    let names = names(service);
    let by_host = sni.is_none() && !names.is_empty();
    let (validation, by_name) = match verification {
        Verification::Skipped => (unverified(), false),
        Verification::Required { authorities, peers } => {
            let asked_for = sni.as_deref().into_iter().chain(names.into_iter().filter(|_| by_host));
            let by_name = peers.is_empty();
            let peers = match by_name {
                true => asked_for.map(|name| exact(SanType::Dns, name)).collect(),
                false => peers.iter().map(matcher).collect(),
            };
            (validation(authorities, peers), by_name)
        }
    };
    let mut common = CommonTlsContext {
        // Older Envoys speak nothing newer than 1.2 to servers unless they are told to.
        tls_params: Some(TlsParameters {
            tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
            ..since(*min_version)
        }),
        alpn_protocols: vec![alpn(service.protocol).to_owned()],
        validation_context_type: Some(validation),
        ..CommonTlsContext::default()
    };
    match client_certificate {
        None => {}
        Some(ClientCertificate::Files(files)) => common.tls_certificates = vec![certificate(files)],
        Some(ClientCertificate::Mesh) => common.tls_certificate_sds_secret_configs = vec![own_identity()],
    }
    UpstreamTlsContext {
        common_tls_context: Some(common),
        sni: sni.clone().unwrap_or_default(),
        auto_host_sni: by_host,
        auto_sni_san_validation: by_host && by_name,
        ..UpstreamTlsContext::default()
    }
}

/// The names of the endpoints, if each has one.
fn names(service: &Service) -> BTreeSet<&str> {
    let names = service.endpoints.iter().map(|endpoint| match &endpoint.address {
        Address::Dns(name) => Some(name.as_str()),
        Address::Ip(_) => None,
    });
    names.collect::<Option<_>>().unwrap_or_default()
}

/// In the handshake is agreed on what is spoken anyway.
fn alpn(protocol: ServiceProtocol) -> &'static str {
    match protocol {
        ServiceProtocol::Http1 => "http/1.1",
        ServiceProtocol::Http2 => "h2",
    }
}

fn unverified() -> ValidationContextType {
    ValidationContextType::ValidationContext(CertificateValidationContext {
        trust_chain_verification: TrustChainVerification::AcceptUntrusted.into(),
        ..CertificateValidationContext::default()
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use chancery_proto::{
        describe::{json, types::Type},
        type_url,
    };
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        model::{
            listener::TlsFiles,
            service::{
                Endpoint,
                tls::{Authorities, Peer, ProxyId, TlsVersion},
            },
        },
        translate::{
            cluster::{cluster, encode_cluster},
            testing::{ip, name, service},
        },
    };

    fn required(authorities: Authorities, peers: Vec<Peer>) -> ServiceTls {
        let verification = Verification::Required { authorities, peers };
        ServiceTls { sni: None, verification, client_certificate: None, min_version: TlsVersion::V1_2 }
    }

    /// The context of a service, as Envoy's documentation writes it.
    fn shown(tls: ServiceTls, endpoints: Vec<Endpoint>, protocol: ServiceProtocol) -> Value {
        let service = Service { tls: Some(tls), endpoints, protocol, ..service("api") };
        let of = Type::of_url(type_url::CLUSTER).unwrap();
        let shown = json::decode(of, &encode_cluster(cluster(&service))).unwrap();
        assert_eq!(shown["transport_socket"]["name"], "envoy.transport_sockets.tls");
        shown["transport_socket"]["typed_config"].clone()
    }

    fn named(name: &str) -> Endpoint {
        Endpoint { address: Address::Dns(name.into()), ..ip("10.0.0.1", 443) }
    }

    fn validation(context: &Value) -> &Value {
        &context["common_tls_context"]["validation_context"]
    }

    #[test]
    fn without_more_each_endpoint_is_held_to_its_own_name_by_the_authorities_of_the_system() {
        let endpoints = vec![named("b.example.com"), named("a.example.com"), named("a.example.com")];
        let plain = || required(Authorities::System, vec![]);
        let context = shown(plain(), endpoints.clone(), ServiceProtocol::Http1);
        insta::assert_json_snapshot!(context);
        let back = shown(plain(), endpoints.into_iter().rev().collect(), ServiceProtocol::Http1);
        assert_eq!(back, context, "the order of endpoints has no meaning");
    }

    #[test]
    fn proxies_of_a_fleet_are_known_by_what_the_bootstrap_file_holds() {
        let proxy = |id| Peer::Proxy { fleet: name("shop"), id };
        let peers =
            vec![proxy(ProxyId::Any), proxy(ProxyId::Exact(name("shop-1"))), proxy(ProxyId::Prefix("shop-".into()))];
        let client_certificate = Some(ClientCertificate::Mesh);
        let mesh = ServiceTls { client_certificate, ..required(Authorities::Mesh, peers) };
        insta::assert_json_snapshot!(shown(mesh, vec![ip("10.0.0.1", 15006)], ServiceProtocol::Http2));
    }

    #[test]
    fn everything_that_can_be_said_has_its_place() {
        let peers = vec![
            Peer::Uri("spiffe://example.com/billing".into()),
            Peer::UriPrefix("spiffe://example.com/shop/".into()),
            Peer::Dns("api.example.com".into()),
            Peer::Ip(Ipv6Addr::LOCALHOST.into()),
        ];
        let files = TlsFiles { certificate_file: "/tls/a.crt".into(), private_key_file: "/tls/a.key".into() };
        let all = ServiceTls {
            sni: Some("api.internal".into()),
            client_certificate: Some(ClientCertificate::Files(files)),
            min_version: TlsVersion::V1_3,
            ..required(Authorities::File("/tls/ca.crt".into()), peers)
        };
        insta::assert_json_snapshot!(shown(all, vec![named("a.example.com")], ServiceProtocol::Http2));
    }

    #[test]
    fn the_name_that_is_asked_for_is_the_one_that_counts() {
        let tls = ServiceTls { sni: Some("api.internal".into()), ..required(Authorities::Pem("PEM".into()), vec![]) };
        for endpoints in [vec![named("a.example.com")], vec![ip("10.0.0.1", 443)], vec![]] {
            let context = shown(tls.clone(), endpoints, ServiceProtocol::Http1);
            assert_eq!((&context["sni"], &context["auto_host_sni"]), (&json!("api.internal"), &Value::Null));
            assert_eq!(context["auto_sni_san_validation"], Value::Null);
            let names = json!([{ "san_type": "DNS", "matcher": { "exact": "api.internal" } }]);
            assert_eq!(validation(&context)["match_typed_subject_alt_names"], names);
            assert_eq!(validation(&context)["trusted_ca"], json!({ "inline_string": "PEM" }));
        }
    }

    #[test]
    fn addresses_are_asked_for_by_no_name_and_names_that_are_expected_stay_expected() {
        let tls = || required(Authorities::System, vec![Peer::Dns("api.example.com".into())]);
        let asked = |endpoints| {
            let context = shown(tls(), endpoints, ServiceProtocol::Http1);
            assert_eq!(context["auto_sni_san_validation"], Value::Null, "the list counts");
            context["auto_host_sni"] == true
        };
        assert!(asked(vec![named("a.example.com")]));
        assert!(!asked(vec![named("a.example.com"), ip("10.0.0.1", 443)]) && !asked(vec![ip("10.0.0.1", 443)]));
    }

    #[test]
    fn nobody_is_verified_only_where_that_is_said() {
        let skipped = ServiceTls { verification: Verification::Skipped, ..required(Authorities::System, vec![]) };
        let context = shown(skipped, vec![named("a.example.com")], ServiceProtocol::Http1);
        assert_eq!(*validation(&context), json!({ "trust_chain_verification": "ACCEPT_UNTRUSTED" }));
        assert_eq!((&context["auto_host_sni"], &context["auto_sni_san_validation"]), (&json!(true), &Value::Null));
    }
}
