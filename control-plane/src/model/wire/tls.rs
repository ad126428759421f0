//! TLS towards the endpoints of a service as it is written.

use serde::Deserialize;
use utoipa::ToSchema;

use super::NameText;

/// TLS towards the endpoints. `{}` is as on the web: endpoints with `dns: true` must have a certificate for their name, of an
/// authority that the system of the proxy trusts.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceTlsSpec {
    /// The endpoints are proxies of a fleet, such as sidecars. Both sides show what they are by their bootstrap files. It
    /// says all of that, so nothing but `minVersion` goes beside it.
    pub mesh: Option<MeshSpec>,
    /// The name that is asked for, and that the certificate must have unless `subjectAltNames` says otherwise. If it is not
    /// given: the name of each endpoint with `dns: true`.
    #[schema(examples("api.example.com"))]
    pub sni: Option<String>,
    /// Whose certificates are accepted; if it is not given: those of `/etc/ssl/certs/ca-certificates.crt` on the machine of
    /// the proxy.
    pub trusted_ca: Option<TrustedCaSpec>,
    /// Who an endpoint may be: one of these has to be in its certificate. They take the place of the name that is asked for.
    #[schema(min_items = 1, max_items = 100)]
    pub subject_alt_names: Option<Vec<SubjectAltNameSpec>>,
    /// What is shown to endpoints that ask for a certificate; nothing if it is not given.
    pub client_certificate: Option<ClientCertificateSpec>,
    /// The oldest version that is spoken; `tls1.2` if it is not given.
    pub min_version: Option<TlsVersionSpec>,
    /// `true`: whoever answers is believed, whatever its certificate. Encrypted, but to nobody knows whom. Sidecars do not
    /// do that: they hold an endpoint to their own authority and its name all the same.
    #[schema(default = false)]
    pub insecure_skip_verify: Option<bool>,
}

/// The endpoints are proxies of a fleet.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MeshSpec {
    /// The fleet.
    pub fleet: NameText,
    /// Which of its proxies: ids, or with a star at the end how ids begin. All of them if it is not given.
    #[schema(min_items = 1, max_items = 100)]
    pub proxies: Option<Vec<String>>,
}

/// Whose certificates are accepted: exactly one of `file`, `pem` and `mesh`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrustedCaSpec {
    /// Absolute path of a file with PEM certificates, as a proxy sees it.
    #[schema(examples("/etc/envoy/tls/ca.crt"))]
    pub file: Option<String>,
    /// The PEM certificates themselves, up to 64 KiB.
    pub pem: Option<String>,
    /// `true`: those by which the proxy knows its control plane.
    pub mesh: Option<bool>,
}

/// A name in a certificate: exactly one of `uri`, `uriPrefix`, `dns` and `ip`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SubjectAltNameSpec {
    /// This URI, such as a SPIFFE ID.
    #[schema(examples("spiffe://example.com/billing"))]
    pub uri: Option<String>,
    /// A URI that begins so; it ends with a slash, so that it is no part of a name.
    #[schema(examples("spiffe://example.com/billing/"))]
    pub uri_prefix: Option<String>,
    /// This DNS name. A certificate for `*.example.com` has it too.
    #[schema(examples("api.example.com"))]
    pub dns: Option<String>,
    /// This IP address.
    #[schema(examples("10.0.0.7"))]
    pub ip: Option<String>,
}

/// What is shown to endpoints that ask for a certificate: both files, or `mesh`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientCertificateSpec {
    /// Absolute path of the PEM certificate chain, as a proxy sees it.
    #[schema(examples("/etc/envoy/tls/client.crt"))]
    pub certificate_file: Option<String>,
    /// Absolute path of the PEM private key, as a proxy sees it.
    #[schema(examples("/etc/envoy/tls/client.key"))]
    pub private_key_file: Option<String>,
    /// `true`: what the proxy shows to its control plane.
    pub mesh: Option<bool>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
pub enum TlsVersionSpec {
    /// TLS 1.2.
    #[serde(rename = "tls1.2")]
    V1_2,
    /// TLS 1.3.
    #[serde(rename = "tls1.3")]
    V1_3,
}
