//! What the TLS contexts of listeners, services and the limiter have in common.

use chancery_proto::{
    chancery::{CA_SECRET, IDENTITY_SECRET},
    envoy::{
        core::{DataSource, TransportSocket, data_source::Specifier, transport_socket},
        matcher::string_matcher::MatchPattern,
        tls::{
            CertificateValidationContext, SdsSecretConfig, SubjectAltNameMatcher, TlsCertificate, TlsParameters,
            common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
            subject_alt_name_matcher::SanType,
            tls_parameters::TlsProtocol,
        },
    },
    google::protobuf::Any,
};

use super::value::{regex, string_matcher};
use crate::model::{
    listener::TlsFiles,
    service::tls::{Authorities, Peer, ProxyId, TlsVersion},
};

/// Where most systems keep the authorities that they trust: Debian, Alpine, and the images of Envoy that are made of them. Envoy
/// has no name for "those of the system".
pub(super) const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The transport socket that speaks TLS as `context` says.
pub(super) fn socket(context: Any) -> TransportSocket {
    TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(context)),
    }
}

/// Nothing older is spoken than this.
pub(super) fn since(version: TlsVersion) -> TlsParameters {
    let oldest = match version {
        TlsVersion::V1_2 => TlsProtocol::TlSv12,
        TlsVersion::V1_3 => TlsProtocol::TlSv13,
    };
    TlsParameters { tls_minimum_protocol_version: oldest.into(), ..TlsParameters::default() }
}

/// A certificate in files of the proxy. Envoy reads them when they are named, and not again.
pub(super) fn certificate(files: &TlsFiles) -> TlsCertificate {
    let TlsFiles { certificate_file, private_key_file } = files;
    TlsCertificate {
        certificate_chain: Some(file(certificate_file)),
        private_key: Some(file(private_key_file)),
        ..TlsCertificate::default()
    }
}

/// What is in a file of the proxy.
pub(super) fn file(path: &str) -> DataSource {
    DataSource { specifier: Some(Specifier::Filename(path.to_owned())), ..DataSource::default() }
}

/// What the proxy is to its control plane.
pub(super) fn own_identity() -> SdsSecretConfig {
    of_bootstrap(IDENTITY_SECRET)
}

/// As `names` says, and of an authority that the proxy knows its control plane by.
pub(super) fn of_mesh(names: Vec<SubjectAltNameMatcher>) -> ValidationContextType {
    ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
        default_validation_context: Some(CertificateValidationContext {
            match_typed_subject_alt_names: names,
            ..CertificateValidationContext::default()
        }),
        validation_context_sds_secret_config: Some(of_bootstrap(CA_SECRET)),
        ..CombinedCertificateValidationContext::default()
    })
}

/// A secret of the bootstrap: without a source, it is asked of nobody.
fn of_bootstrap(name: &str) -> SdsSecretConfig {
    SdsSecretConfig { name: name.to_owned(), sds_config: None }
}

/// Whoever has a URI that is, as a whole, as `pattern` says.
pub(super) fn uri_like(pattern: String) -> SubjectAltNameMatcher {
    san(SanType::Uri, MatchPattern::SafeRegex(regex(pattern)))
}

/// Whoever has a name of this type that matches.
fn san(of: SanType, pattern: MatchPattern) -> SubjectAltNameMatcher {
    SubjectAltNameMatcher {
        san_type: of.into(),
        matcher: Some(string_matcher(pattern)),
        ..SubjectAltNameMatcher::default()
    }
}

/// Whoever shows a certificate of `authorities` in which one of `peers` is named; any name will do if there are none.
pub(super) fn validation(authorities: &Authorities, peers: Vec<SubjectAltNameMatcher>) -> ValidationContextType {
    let trusted = match authorities {
        Authorities::Mesh => return of_mesh(peers),
        Authorities::System => file(SYSTEM_AUTHORITIES),
        Authorities::File(path) => file(path),
        Authorities::Pem(pem) => {
            DataSource { specifier: Some(Specifier::InlineString(pem.clone())), ..DataSource::default() }
        }
    };
    ValidationContextType::ValidationContext(CertificateValidationContext {
        trusted_ca: Some(trusted),
        match_typed_subject_alt_names: peers,
        ..CertificateValidationContext::default()
    })
}

/// Whoever is `peer` by a certificate.
pub(super) fn matcher(peer: &Peer) -> SubjectAltNameMatcher {
    match peer {
        Peer::Uri(uri) => exact(SanType::Uri, uri),
        Peer::UriPrefix(beginning) => san(SanType::Uri, MatchPattern::Prefix(beginning.clone())),
        Peer::Dns(name) => exact(SanType::Dns, name),
        Peer::Ip(address) => exact(SanType::IpAddress, &address.to_string()),
        Peer::Proxy { fleet, id } => {
            // Of names and their beginnings, no character means anything in an expression.
            let id = match id {
                ProxyId::Any => "[^/]+".to_owned(),
                ProxyId::Exact(id) => id.to_string(),
                ProxyId::Prefix(beginning) => format!("{beginning}[^/]*"),
            };
            uri_like(format!("spiffe://[^/]+/fleet/{fleet}/proxy/{id}"))
        }
    }
}

pub(super) fn exact(of: SanType, text: &str) -> SubjectAltNameMatcher {
    san(of, MatchPattern::Exact(text.to_owned()))
}
