//! `UpstreamTlsContext` and `Secret`.
//!
//! Without a certificate the sidecar shows its own, and without authorities it trusts its own: unlike Envoy, which then shows
//! nothing and verifies nobody. Its own is also meant by the secrets of a bootstrap file, which have no source: of the file
//! with which an Envoy would start, the sidecar reads who it is. What would let in fewer than is done here is refused (pins,
//! revocation lists).

use std::sync::Arc;

use chancery_proto::{
    any,
    chancery::{CA_SECRET, IDENTITY_SECRET},
    envoy::{
        core::{
            DataSource, TransportSocket, config_source::ConfigSourceSpecifier, data_source::Specifier,
            transport_socket::ConfigType,
        },
        matcher::{StringMatcher, string_matcher::MatchPattern},
        tls::{
            self, CertificateValidationContext, CommonTlsContext, SdsSecretConfig, SubjectAltNameMatcher,
            TlsCertificate, TlsParameters, UpstreamTlsContext, common_tls_context::ValidationContextType, secret::Type,
            subject_alt_name_matcher::SanType, tls_parameters::TlsProtocol,
        },
    },
};
use rustls::{crypto::aws_lc_rs, sign::CertifiedKey};

use super::{Problem, Problems, value};
use crate::config::tls::{self as material, Certificate, PeerMatch, Pem, UpstreamTls, UriPattern};

const CONTEXT: &str = "transport_socket.typed_config";

/// How a cluster is spoken to over TLS, with the names of secrets in the places of what is in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSpec {
    server_name: Option<Arc<str>>,
    by_host: bool,
    certificate: Option<Certificate>,
    certificate_in: Option<Arc<str>>,
    validation: Validation,
    validation_in: Option<Arc<str>>,
    /// An endpoint has to be whom it was asked for, whoever else is said.
    by_name: bool,
    only_1_3: bool,
}

/// Whose certificates are accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validation {
    authorities: Option<Pem>,
    peers: Vec<PeerMatch>,
}

/// What a secret holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// What somebody shows.
    Certificate(Certificate),
    /// Whom somebody believes.
    Validation(Validation),
    /// What only an Envoy of the same fleet has a use for.
    Other,
}

impl TlsSpec {
    /// With what is in `secrets`; says which one it waits for if one is not there, or not of the kind that is needed.
    pub fn resolve<'a>(&self, secrets: impl Fn(&Arc<str>) -> Option<&'a Secret>) -> UpstreamTls {
        let mut tls = UpstreamTls {
            server_name: self.server_name.clone(),
            by_host: self.by_host,
            peers: self.validation.peers.clone(),
            certificate: self.certificate.clone(),
            authorities: self.validation.authorities.clone(),
            only_1_3: self.only_1_3,
            waits_for: None,
        };
        if let Some(name) = &self.certificate_in {
            match secrets(name) {
                Some(Secret::Certificate(certificate)) => tls.certificate = Some(certificate.clone()),
                _ => tls.waits_for = Some(name.clone()),
            }
        }
        if let Some(name) = &self.validation_in {
            match secrets(name) {
                Some(Secret::Validation(validation)) => {
                    tls.peers.extend(validation.peers.iter().cloned());
                    tls.authorities = validation.authorities.clone().or(tls.authorities);
                }
                _ => tls.waits_for = Some(name.clone()),
            }
        }
        if self.by_name {
            tls.peers.clear();
        }
        tls
    }
}

/// Reads the transport socket of a cluster; `None`: plaintext.
pub(super) fn upstream(problems: &mut Problems, socket: &TransportSocket, has_identity: bool) -> Option<TlsSpec> {
    let Some(ConfigType::TypedConfig(config)) = &socket.config_type else {
        if socket.name != "envoy.transport_sockets.raw_buffer" {
            problems.add("transport_socket", "has no configuration");
        }
        return None;
    };
    if config.type_url.ends_with("raw_buffer.v3.RawBuffer") {
        return None;
    }
    let context: UpstreamTlsContext = match any::unpack(config) {
        Ok(context) => context,
        Err(error) => {
            problems.add(CONTEXT, error.to_string());
            return None;
        }
    };
    let server_name = Some(context.sni).filter(|sni| !sni.is_empty()).map(Into::into);
    let (by_host, by_name) = (context.auto_host_sni, context.auto_sni_san_validation);
    let mut spec = TlsSpec { server_name, by_host, by_name, ..TlsSpec::default() };
    if let Some(common) = &context.common_tls_context {
        common_context(problems, &mut spec, common);
    }
    let shows = spec.certificate.is_some() || spec.certificate_in.is_some();
    let believes = spec.validation.authorities.is_some() || spec.validation_in.is_some();
    if !(has_identity || shows && believes) {
        problems.add("transport_socket", "the sidecar was started without certificates, and none are named here");
    }
    Some(spec)
}

#[expect(deprecated, reason = "whoever still sets them is told")]
fn common_context(problems: &mut Problems, spec: &mut TlsSpec, context: &CommonTlsContext) {
    let path = format!("{CONTEXT}.common_tls_context");
    let elsewhere = [
        ("tls_certificate_provider_instance", context.tls_certificate_provider_instance.is_some()),
        ("custom_tls_certificate_selector", context.custom_tls_certificate_selector.is_some()),
        ("tls_certificate_certificate_provider", context.tls_certificate_certificate_provider.is_some()),
        (
            "tls_certificate_certificate_provider_instance",
            context.tls_certificate_certificate_provider_instance.is_some(),
        ),
        ("custom_handshaker", context.custom_handshaker.is_some()),
    ];
    refuse(problems, &path, elsewhere);
    let oldest = context.tls_params.as_ref().map(TlsParameters::tls_minimum_protocol_version);
    spec.only_1_3 = oldest == Some(TlsProtocol::TlSv13);
    if let Some(certificate) = context.tls_certificates.first() {
        spec.certificate = self::certificate(problems, &format!("{path}.tls_certificates[0]"), certificate);
    }
    if let Some(secret) = context.tls_certificate_sds_secret_configs.first() {
        let path = format!("{path}.tls_certificate_sds_secret_configs[0]");
        spec.certificate_in = self::secret_name(problems, &path, secret, IDENTITY_SECRET);
    }
    if context.tls_certificates.len() + context.tls_certificate_sds_secret_configs.len() > 1 {
        problems.add(&path, "names several certificates, and one is shown");
    }
    match &context.validation_context_type {
        None => {}
        Some(ValidationContextType::ValidationContext(context)) => {
            spec.validation = validation(problems, &format!("{path}.validation_context"), context);
        }
        Some(ValidationContextType::ValidationContextSdsSecretConfig(secret)) => {
            let path = format!("{path}.validation_context_sds_secret_config");
            spec.validation_in = secret_name(problems, &path, secret, CA_SECRET);
        }
        Some(ValidationContextType::CombinedValidationContext(both)) => {
            let path = format!("{path}.combined_validation_context");
            if let Some(context) = &both.default_validation_context {
                spec.validation = validation(problems, &format!("{path}.default_validation_context"), context);
            }
            if let Some(secret) = &both.validation_context_sds_secret_config {
                let path = format!("{path}.validation_context_sds_secret_config");
                spec.validation_in = secret_name(problems, &path, secret, CA_SECRET);
            }
        }
        Some(_) => problems.add(&path, "takes whom to trust from a provider, which is not known here"),
    }
}

fn refuse<const N: usize>(problems: &mut Problems, path: &str, set: [(&str, bool); N]) {
    for (field, _) in set.into_iter().filter(|(_, is_set)| *is_set) {
        problems.add(format!("{path}.{field}"), "is not known here");
    }
}

/// The name of a secret that comes over the same stream; none of `own`, the secret of the bootstrap file that holds the
/// sidecar's own.
fn secret_name(problems: &mut Problems, path: &str, secret: &SdsSecretConfig, own: &str) -> Option<Arc<str>> {
    let Some(source) = &secret.sds_config else {
        if secret.name != own {
            problems.add(format!("{path}.name"), format!("of the bootstrap file, {own:?} is known here"));
        }
        return None;
    };
    let source = source.config_source_specifier.as_ref();
    if !matches!(source, Some(ConfigSourceSpecifier::Ads(_) | ConfigSourceSpecifier::Self_(_))) {
        problems.add(format!("{path}.sds_config"), "secrets come over ADS");
    }
    if secret.name.is_empty() {
        problems.add(format!("{path}.name"), "is empty");
    }
    Some(secret.name.as_str().into())
}

/// Reads a secret.
///
/// # Errors
/// Everything that is wrong.
pub fn secret(secret: &tls::Secret) -> Result<Secret, Vec<Problem>> {
    let mut problems = Problems::default();
    let read = match &secret.r#type {
        Some(Type::TlsCertificate(certificate)) => {
            self::certificate(&mut problems, "tls_certificate", certificate).map_or(Secret::Other, Secret::Certificate)
        }
        Some(Type::ValidationContext(context)) => {
            Secret::Validation(validation(&mut problems, "validation_context", context))
        }
        Some(_) | None => Secret::Other,
    };
    problems.none_or(read)
}

fn certificate(problems: &mut Problems, path: &str, certificate: &TlsCertificate) -> Option<Certificate> {
    let beside = [
        ("pkcs12", certificate.pkcs12.is_some()),
        ("private_key_provider", certificate.private_key_provider.is_some()),
        ("password", certificate.password.is_some()),
    ];
    refuse(problems, path, beside);
    let chain_path = format!("{path}.certificate_chain");
    let chain = pem(problems, &chain_path, certificate.certificate_chain.as_ref());
    let key_path = format!("{path}.private_key");
    let key = pem(problems, &key_path, certificate.private_key.as_ref());
    let (chain, key) = (chain?, key?);
    let certificates = inline(problems, &chain_path, &chain, material::certificates);
    let private_key = inline(problems, &key_path, &key, material::private_key);
    if let Some((certificates, private_key)) = certificates.zip(private_key)
        && let Err(error) = CertifiedKey::from_der(certificates, private_key, &aws_lc_rs::default_provider())
    {
        problems.add(path, format!("certificate and key cannot be used together: {error}"));
    }
    Some(Certificate { chain, key })
}

#[expect(deprecated, reason = "whoever still sets them is told")]
fn validation(problems: &mut Problems, path: &str, context: &CertificateValidationContext) -> Validation {
    let stricter = [
        ("ca_certificate_provider_instance", context.ca_certificate_provider_instance.is_some()),
        ("system_root_certs", context.system_root_certs.is_some()),
        ("verify_certificate_spki", !context.verify_certificate_spki.is_empty()),
        ("verify_certificate_hash", !context.verify_certificate_hash.is_empty()),
        // Superseded, and says nothing of the kind of name.
        ("match_subject_alt_names", !context.match_subject_alt_names.is_empty()),
        ("require_signed_certificate_timestamp", context.require_signed_certificate_timestamp.is_some()),
        ("crl", context.crl.is_some()),
        ("custom_validator_config", context.custom_validator_config.is_some()),
        ("max_verify_depth", context.max_verify_depth.is_some()),
    ];
    refuse(problems, path, stricter);
    let authorities = context.trusted_ca.as_ref().and_then(|source| {
        let path = format!("{path}.trusted_ca");
        let pem = pem(problems, &path, Some(source))?;
        inline(problems, &path, &pem, material::authorities);
        Some(pem)
    });
    let names = context.match_typed_subject_alt_names.iter().enumerate();
    let peers =
        names.filter_map(|(n, name)| self::peer(problems, &format!("{path}.match_typed_subject_alt_names[{n}]"), name));
    Validation { peers: peers.collect(), authorities }
}

fn peer(problems: &mut Problems, path: &str, name: &SubjectAltNameMatcher) -> Option<PeerMatch> {
    let matcher = name.matcher.clone().unwrap_or_default();
    let StringMatcher { match_pattern, ignore_case } = &matcher;
    let of = match (name.san_type(), match_pattern) {
        _ if *ignore_case => None,
        (SanType::Uri, Some(MatchPattern::Exact(text))) => Some(PeerMatch::Uri(text.as_str().into())),
        (SanType::Uri, Some(MatchPattern::Prefix(text))) => Some(PeerMatch::UriPrefix(text.as_str().into())),
        (SanType::Uri, Some(MatchPattern::SafeRegex(matcher))) => {
            let path = format!("{path}.matcher.safe_regex");
            return value::regex(problems, &path, matcher, true).map(|regex| PeerMatch::UriPattern(UriPattern(regex)));
        }
        (SanType::Dns | SanType::IpAddress, Some(MatchPattern::Exact(text))) => {
            Some(PeerMatch::Name(text.as_str().into()))
        }
        (SanType::Uri | SanType::Dns | SanType::IpAddress, _) => None,
        (_, _) => {
            problems.add(format!("{path}.san_type"), "endpoints are known by URI, DNS name or address");
            return None;
        }
    };
    if of.is_none() {
        problems.add(
            format!("{path}.matcher"),
            "a URI is matched exactly, by its beginning or by an expression, other names exactly",
        );
    }
    of
}

fn pem(problems: &mut Problems, path: &str, source: Option<&DataSource>) -> Option<Pem> {
    match source.and_then(|source| source.specifier.as_ref()) {
        Some(Specifier::Filename(path)) if !path.is_empty() => Some(Pem::File(path.into())),
        Some(Specifier::InlineBytes(bytes)) => Some(Pem::Inline(bytes.as_slice().into())),
        Some(Specifier::InlineString(text)) => Some(Pem::Inline(text.as_bytes().into())),
        Some(_) => {
            problems.add(path, "is read from a file, or given here");
            None
        }
        None => {
            problems.add(path, "is missing");
            None
        }
    }
}

/// What is in `pem`, if it is here.
fn inline<T>(
    problems: &mut Problems,
    path: &str,
    pem: &Pem,
    read: impl FnOnce(&[u8]) -> Result<T, &'static str>,
) -> Option<T> {
    let Pem::Inline(bytes) = pem else { return None };
    read(bytes).map_err(|reason| problems.add(path, reason)).ok()
}

#[cfg(test)]
mod tests;
