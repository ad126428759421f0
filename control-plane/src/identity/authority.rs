//! The CA: one of our own, made when it is first needed, or one that was brought.
//!
//! What it issues is short: a key that only the holder has, one identity, one purpose (client or
//! server), and a life that ends. A certificate never outlives its CA.
//!
//! Making a CA is two files, and a crash or a second process may come between them. The key is
//! created first and never replaced; the certificate is made for whatever key is there. So an
//! interrupted start is completed by the next one, and of two at the same time both end with the
//! same key.
//!
//! A CA that was brought is tried before it is used: its first signature is checked against its
//! certificate. That finds a key of another certificate, and a subject whose encoding we cannot
//! repeat to the byte, both of which would otherwise show as handshakes that fail for no visible
//! reason.

mod error;

use std::{fs, net::IpAddr, os::unix::fs::DirBuilderExt as _, path::Path, time::Duration};

use chancery_runtime::{
    Secret, SecretString, file,
    tls::{CertificateDer, read_certificates, read_private_key},
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose as Purpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

pub use self::error::AuthorityError;
use super::{
    request::RequestedKey,
    spiffe::{LimiterIdentity, OperatorIdentity, ProxyIdentity, check_trust_domain, control_plane_uri},
};
use crate::model::Name;

/// The file of a CA's certificate within its folder.
pub const CERTIFICATE_FILE: &str = "ca.crt";
/// The file of a CA's key within its folder.
pub const KEY_FILE: &str = "ca.key";

/// How long a CA that we make lives.
const CA_LIFE: time::Duration = time::Duration::days(3650);

/// How far before its issue a certificate is valid, for clocks that are behind.
pub(super) const BACKDATED: time::Duration = time::Duration::minutes(5);

/// A proxy is client and server.
const PROXY_PURPOSES: [Purpose; 2] = [Purpose::ServerAuth, Purpose::ClientAuth];

/// A CA that can issue.
pub struct Authority {
    trust_domain: String,
    issuer: Issuer<'static, KeyPair>,
    not_after: OffsetDateTime,
    /// What the holders of our certificates trust.
    ca_pem: String,
    /// What leads from our certificate to a root, if we are not one.
    intermediates_pem: String,
}

/// A certificate with its key.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The SPIFFE ID in it.
    pub uri: String,
    /// The certificate and the intermediates of its CA, PEM.
    pub certificate_pem: String,
    /// Its key, PEM (PKCS#8).
    pub private_key_pem: SecretString,
    /// The CA that issued it, PEM.
    pub ca_pem: String,
    /// When it ends.
    pub not_after: OffsetDateTime,
}

/// A certificate for a key that its holder has made.
#[derive(Clone, Debug)]
pub struct Certified {
    /// The SPIFFE ID in it.
    pub uri: String,
    /// The certificate and the intermediates of its CA, PEM.
    pub certificate_pem: String,
    /// The CA that issued it, PEM.
    pub ca_pem: String,
    /// When it ends.
    pub not_after: OffsetDateTime,
}

impl Authority {
    /// The CA in `dir` (`ca.crt`, `ca.key`); makes folder and CA if they are missing.
    ///
    /// # Errors
    /// Names the file that cannot be used or written, and why.
    pub fn load_or_create(dir: &Path, trust_domain: &str, now: OffsetDateTime) -> Result<Self, AuthorityError> {
        let (certificate, key) = (dir.join(CERTIFICATE_FILE), dir.join(KEY_FILE));
        if !certificate.exists() {
            create(dir, trust_domain, now)?;
        } else if !key.exists() {
            return Err(AuthorityError::KeyMissing { certificate, key });
        }
        Self::load(&certificate, &key, trust_domain, now)
    }

    /// The CA in `dir`, which must be there.
    ///
    /// # Errors
    /// There is none, or it cannot be used.
    pub fn load_from(dir: &Path, trust_domain: &str, now: OffsetDateTime) -> Result<Self, AuthorityError> {
        if !dir.join(CERTIFICATE_FILE).exists() {
            return Err(AuthorityError::NoCa { dir: dir.to_owned() });
        }
        Self::load_or_create(dir, trust_domain, now)
    }

    /// A CA from PEM files. The certificate's file may go on with the CAs above it.
    ///
    /// # Errors
    /// Names the file that cannot be used, and why.
    pub fn load(
        certificate_file: &Path,
        key_file: &Path,
        trust_domain: &str,
        now: OffsetDateTime,
    ) -> Result<Self, AuthorityError> {
        check_trust_domain(trust_domain)
            .map_err(|source| AuthorityError::TrustDomain { text: trust_domain.to_owned(), source })?;
        let chain = read_certificates(certificate_file).map_err(AuthorityError::Load)?;
        let key = read_private_key(key_file).map_err(AuthorityError::Load)?;
        let key =
            KeyPair::try_from(&key).map_err(|source| AuthorityError::Key { path: key_file.to_owned(), source })?;

        let unusable =
            |reason: &str| AuthorityError::NotACa { path: certificate_file.to_owned(), reason: reason.to_owned() };
        let der = &chain[0];
        let (_, parsed) = X509Certificate::from_der(der).map_err(|_| unusable("it is not an X.509 certificate"))?;
        if !parsed.is_ca() {
            return Err(unusable("it is not the certificate of a CA"));
        }
        if let Ok(Some(usage)) = parsed.key_usage()
            && !usage.value.key_cert_sign()
        {
            return Err(unusable("its key may not sign certificates"));
        }
        let not_after = parsed.validity().not_after.to_datetime();
        if not_after <= now {
            return Err(AuthorityError::Expired { path: certificate_file.to_owned(), not_after });
        }
        let issuer = Issuer::from_ca_cert_der(der, key).map_err(|_| unusable("its subject is not supported"))?;
        try_out(&issuer, &parsed).map_err(unusable)?;

        let ca_pem = chain.iter().map(pem).collect();
        let intermediates_pem = chain.iter().filter(|certificate| !is_self_issued(certificate)).map(pem).collect();
        Ok(Self { trust_domain: trust_domain.to_owned(), issuer, not_after, ca_pem, intermediates_pem })
    }

    /// The CA's certificates, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The trust domain of what it issues.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// A new key and certificate for a proxy: a client of the control plane, of limiters and of other proxies, and a server to these.
    /// It has no names but its SPIFFE ID, so nobody who asks for a name takes it for a control plane.
    ///
    /// # Errors
    /// The life is impossible, or signing failed.
    pub fn issue_proxy(
        &self,
        fleet: &Name,
        id: &Name,
        life: Duration,
        now: OffsetDateTime,
    ) -> Result<Issued, AuthorityError> {
        self.issue(self.proxy_uri(fleet, id), Vec::new(), &PROXY_PURPOSES, life, now)
    }

    /// As [`Authority::issue_proxy`], for a key that the proxy has made.
    ///
    /// # Errors
    /// The life is impossible, or signing failed.
    pub fn certify_proxy(
        &self,
        key: &RequestedKey,
        fleet: &Name,
        id: &Name,
        life: Duration,
        now: OffsetDateTime,
    ) -> Result<Certified, AuthorityError> {
        self.certify(key.key(), self.proxy_uri(fleet, id), Vec::new(), &PROXY_PURPOSES, life, now)
    }

    fn proxy_uri(&self, fleet: &Name, id: &Name) -> String {
        let trust_domain = self.trust_domain.clone();
        ProxyIdentity { trust_domain, fleet: fleet.clone(), id: id.clone() }.to_string()
    }

    /// A new key and server certificate for a control plane that is reached under these names and addresses.
    ///
    /// # Errors
    /// A name is not a DNS name, the life is impossible, or signing failed.
    pub fn issue_server(
        &self,
        dns_names: &[String],
        addresses: &[IpAddr],
        life: Duration,
        now: OffsetDateTime,
    ) -> Result<Issued, AuthorityError> {
        let names = subject_names(dns_names, addresses)?;
        self.issue(control_plane_uri(&self.trust_domain), names, &[Purpose::ServerAuth], life, now)
    }

    /// A new key and certificate for a rate limiter: a server to proxies, under these names and addresses, and a client of
    /// the control plane.
    ///
    /// # Errors
    /// A name is not a DNS name, the life is impossible, or signing failed.
    pub fn issue_limiter(
        &self,
        id: &Name,
        dns_names: &[String],
        addresses: &[IpAddr],
        life: Duration,
        now: OffsetDateTime,
    ) -> Result<Issued, AuthorityError> {
        let identity = LimiterIdentity { trust_domain: self.trust_domain.clone(), id: id.clone() };
        let names = subject_names(dns_names, addresses)?;
        self.issue(identity.to_string(), names, &[Purpose::ServerAuth, Purpose::ClientAuth], life, now)
    }

    /// A new key and client certificate for an operator.
    ///
    /// # Errors
    /// The life is impossible, or signing failed.
    pub fn issue_operator(&self, id: &Name, life: Duration, now: OffsetDateTime) -> Result<Issued, AuthorityError> {
        let identity = OperatorIdentity { trust_domain: self.trust_domain.clone(), id: id.clone() };
        self.issue(identity.to_string(), Vec::new(), &[Purpose::ClientAuth], life, now)
    }

    /// A new key and its certificate.
    fn issue(
        &self,
        uri: String,
        names: Vec<SanType>,
        purposes: &[Purpose],
        life: Duration,
        now: OffsetDateTime,
    ) -> Result<Issued, AuthorityError> {
        let key = KeyPair::generate().map_err(AuthorityError::Sign)?;
        let Certified { uri, certificate_pem, ca_pem, not_after } =
            self.certify(&key, uri, names, purposes, life, now)?;
        Ok(Issued { uri, certificate_pem, private_key_pem: Secret::new(key.serialize_pem()), ca_pem, not_after })
    }

    fn certify(
        &self,
        key: &impl PublicKeyData,
        uri: String,
        mut names: Vec<SanType>,
        purposes: &[Purpose],
        life: Duration,
        now: OffsetDateTime,
    ) -> Result<Certified, AuthorityError> {
        let not_after = time::Duration::try_from(life).ok().filter(|life| life.is_positive());
        let not_after = not_after.and_then(|life| now.checked_add(life)).ok_or(AuthorityError::Life(life))?;
        // A certificate knows no fractions of a second.
        let not_after = not_after.min(self.not_after).truncate_to_second();

        names.push(SanType::URI(uri.as_str().try_into().map_err(AuthorityError::Sign)?));
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        // Empty: the alternative names say who it is, and a second place could only disagree.
        params.distinguished_name = DistinguishedName::new();
        params.not_before = now - BACKDATED;
        params.not_after = not_after;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = purposes.to_vec();
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(key, &self.issuer).map_err(AuthorityError::Sign)?;
        Ok(Certified {
            uri,
            certificate_pem: pem(certificate.der()) + &self.intermediates_pem,
            ca_pem: self.ca_pem.clone(),
            not_after,
        })
    }
}

/// When it is time for the certificate after one that was issued at `issued`: at two thirds of its life, so whoever cannot renew for a
/// while has a third left.
pub fn renew_after(issued: OffsetDateTime, not_after: OffsetDateTime) -> OffsetDateTime {
    issued + (not_after - issued) * 2 / 3
}

fn subject_names(dns_names: &[String], addresses: &[IpAddr]) -> Result<Vec<SanType>, AuthorityError> {
    let mut names = Vec::with_capacity(dns_names.len() + addresses.len());
    for name in dns_names {
        let text = name.as_str().try_into().map_err(|_| AuthorityError::DnsName(name.clone()))?;
        names.push(SanType::DnsName(text));
    }
    names.extend(addresses.iter().copied().map(SanType::IpAddress));
    Ok(names)
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

/// Makes what is missing of a CA in `dir`.
fn create(dir: &Path, trust_domain: &str, now: OffsetDateTime) -> Result<(), AuthorityError> {
    let written = |path: &Path| {
        let path = path.to_owned();
        move |source| AuthorityError::Write { path, source }
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(written(dir))?;

    let key_file = dir.join(KEY_FILE);
    let fresh = KeyPair::generate().map_err(AuthorityError::Sign)?;
    file::create(&key_file, fresh.serialize_pem().as_bytes(), file::PRIVATE).map_err(written(&key_file))?;
    let key = read_private_key(&key_file).map_err(AuthorityError::Load)?;
    let key = KeyPair::try_from(&key).map_err(|source| AuthorityError::Key { path: key_file, source })?;

    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // The key in the name: two CAs for one trust domain are never taken for each other.
    let fingerprint = Sha256::digest(key.public_key_raw());
    let name =
        format!("Chancery CA of {trust_domain} ({:02x}{:02x}{:02x})", fingerprint[0], fingerprint[1], fingerprint[2]);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = now - BACKDATED;
    params.not_after = now + CA_LIFE;
    let certificate = params.self_signed(&key).map_err(AuthorityError::Sign)?;
    let certificate_file = dir.join(CERTIFICATE_FILE);
    file::create(&certificate_file, pem(certificate.der()).as_bytes(), file::PUBLIC)
        .map_err(written(&certificate_file))?;
    Ok(())
}

/// Signs something, and looks whether the CA's certificate explains the signature.
fn try_out(issuer: &Issuer<'_, KeyPair>, ca: &X509Certificate<'_>) -> Result<(), &'static str> {
    let probe = KeyPair::generate().and_then(|key| CertificateParams::default().signed_by(&key, issuer));
    let probe = probe.map_err(|_| "it cannot sign")?;
    let (_, probe) = X509Certificate::from_der(probe.der()).map_err(|_| "what it signs cannot be read")?;
    if probe.verify_signature(Some(ca.public_key())).is_err() {
        return Err("the private key is not the one of this certificate");
    }
    if probe.issuer().as_raw() != ca.subject().as_raw() {
        return Err("its subject has a form that is not supported");
    }
    Ok(())
}

fn is_self_issued(der: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(der).is_ok_and(|(_, parsed)| parsed.subject().as_raw() == parsed.issuer().as_raw())
}

fn pem(der: &CertificateDer<'_>) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let encoded = STANDARD.encode(der);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, next) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = next;
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

#[cfg(test)]
mod tests;
