//! An authority of our own for tests, independent of the one in the product: what it issues is what an operator
//! would bring, or what an attacker would.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

/// An authority, with its certificate in a file.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    name: String,
    folder: PathBuf,
}

/// A certificate and its key, in files.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The PEM certificate.
    pub certificate: PathBuf,
    /// The PEM key.
    pub key: PathBuf,
}

impl Identity {
    /// The chain and the key, read.
    pub fn read(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let chain = CertificateDer::pem_file_iter(&self.certificate)?.collect::<Result<_, _>>()?;
        Ok((chain, PrivateKeyDer::from_pem_file(&self.key)?))
    }

    /// TLS of a server that has this identity and asks its clients for none.
    pub fn server_config(&self) -> Result<ServerConfig> {
        let (chain, key) = self.read()?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let building = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        Ok(building.with_no_client_auth().with_single_cert(chain, key)?)
    }
}

impl Authority {
    /// Creates one; its files in `folder` start with `name`.
    pub fn create(folder: &Path, name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let authority = Self { issuer, name: name.to_owned(), folder: folder.to_owned() };
        fs::write(authority.file(), authority.issuer.pem())?;
        fs::write(authority.key_file(), authority.issuer.key().serialize_pem())?;
        Ok(authority)
    }

    /// File of its certificate.
    pub fn file(&self) -> PathBuf {
        self.folder.join(format!("{}.pem", self.name))
    }

    /// File of its key.
    pub fn key_file(&self) -> PathBuf {
        self.folder.join(format!("{}.key", self.name))
    }

    /// For a server on this machine.
    pub fn server(&self) -> Result<Identity> {
        self.server_called("server", &["localhost", "127.0.0.1"])
    }

    /// For a server with these names, or addresses.
    pub fn server_called(&self, label: &str, names: &[&str]) -> Result<Identity> {
        let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(label, &params)
    }

    /// For a rate limiter, towards proxies and the control plane.
    pub fn limiter(&self, id: &str) -> Result<Identity> {
        let mut params = client(&format!("spiffe://chancery.local/rate-limiter/{id}"))?;
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        self.issue(&format!("limiter-{id}"), &params)
    }

    /// For a proxy of a fleet, which is a server to other proxies too.
    pub fn proxy(&self, fleet: &str, id: &str) -> Result<Identity> {
        self.mesh(&format!("{fleet}-{id}"), &proxy_uri(fleet, id))
    }

    /// For a client and server that is known by its SPIFFE ID alone.
    pub fn mesh(&self, label: &str, uri: &str) -> Result<Identity> {
        let mut params = client(uri)?;
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        self.issue(label, &params)
    }

    /// Many of a fleet at once, in memory and with one key for all: the certificates as DER, and the key as PKCS#8.
    pub fn proxies(&self, fleet: &str, ids: impl Iterator<Item = String>) -> Result<(Vec<Vec<u8>>, Vec<u8>)> {
        let key = KeyPair::generate()?;
        let certificate = |id: String| {
            let params = client(&proxy_uri(fleet, &id))?;
            Ok(params.signed_by(&key, &self.issuer)?.der().to_vec())
        };
        Ok((ids.map(certificate).collect::<Result<_>>()?, key.serialize_der()))
    }

    /// For a rate limiter: a server on this machine, and a client of xDS.
    pub fn rate_limiter(&self, id: &str) -> Result<Identity> {
        let mut params = client(&format!("spiffe://chancery.local/rate-limiter/{id}"))?;
        params.subject_alt_names.push(SanType::DnsName("localhost".try_into()?));
        params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        self.issue(&format!("rate-limiter-{id}"), &params)
    }

    /// As [`Authority::rate_limiter`], but it ended years ago.
    pub fn expired_rate_limiter(&self, id: &str) -> Result<Identity> {
        let mut params = client(&format!("spiffe://chancery.local/rate-limiter/{id}"))?;
        params.subject_alt_names.push(SanType::DnsName("localhost".try_into()?));
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.issue(&format!("rate-limiter-{id}-expired"), &params)
    }

    /// As [`Authority::proxy`], but it ended years ago.
    pub fn expired_proxy(&self, fleet: &str, id: &str) -> Result<Identity> {
        let mut params = client(&proxy_uri(fleet, id))?;
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.issue(&format!("{fleet}-{id}-expired"), &params)
    }

    /// For a client with another identity than a proxy's.
    pub fn client(&self, label: &str, uri: &str) -> Result<Identity> {
        self.issue(label, &client(uri)?)
    }

    fn issue(&self, label: &str, params: &CertificateParams) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let file = |end: &str| self.folder.join(format!("{}-{label}.{end}", self.name));
        let identity = Identity { certificate: file("pem"), key: file("key") };
        fs::write(&identity.certificate, certificate.pem())?;
        fs::write(&identity.key, key.serialize_pem())?;
        Ok(identity)
    }
}

/// The SPIFFE identity of a proxy.
pub fn proxy_uri(fleet: &str, id: &str) -> String {
    format!("spiffe://chancery.local/fleet/{fleet}/proxy/{id}")
}

fn client(uri: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}
