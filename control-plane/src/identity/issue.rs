//! An identity as files, as `chancery cert issue` and `chancery agent` leave them: `tls.crt`, `tls.key`, `ca.crt`; and two that tell an
//! Envoy where those lie, so that it follows them.
//!
//! The names are those of a Kubernetes TLS secret, so the folder can stand in for a mounted one.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use chancery_runtime::{
    SecretString, file,
    tls::{read_certificates, read_private_key, spiffe::SpiffeId},
};
use rcgen::{KeyPair, PublicKeyData as _};
use serde::Serialize;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::authority::{self, Authority, AuthorityError, Issued};
use crate::{bootstrap::secret_files, model::Name};

/// Where the CA comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaSource {
    /// A folder that holds one.
    Existing(PathBuf),
    /// A folder that holds one, or shall.
    ExistingOrNew(PathBuf),
    /// Two files, PEM.
    Brought {
        /// The certificate, and those of the CAs above it.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
}

/// For whom a certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A proxy of a fleet.
    Proxy {
        /// The fleet.
        fleet: Name,
        /// The proxy's id.
        id: Name,
    },
    /// A rate limiter, reached under these names and addresses.
    RateLimiter {
        /// Its id.
        id: Name,
        /// DNS names.
        dns_names: Vec<String>,
        /// IP addresses.
        addresses: Vec<IpAddr>,
    },
    /// An operator, who may ask what clients have.
    Operator {
        /// The operator's id.
        id: Name,
    },
    /// A control plane, reached under these names and addresses.
    ControlPlane {
        /// DNS names.
        dns_names: Vec<String>,
        /// IP addresses.
        addresses: Vec<IpAddr>,
    },
}

/// What is to be issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The CA.
    pub ca: CaSource,
    /// The trust domain.
    pub trust_domain: String,
    /// For whom.
    pub holder: Holder,
    /// How long it is valid.
    pub life: Duration,
    /// The folder for the files; made if it is missing.
    pub out: PathBuf,
}

/// The files of an identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IdentityFiles {
    /// The certificate and its intermediates.
    pub certificate: PathBuf,
    /// The key; readable for the owner only.
    pub private_key: PathBuf,
    /// The CA that both ends trust.
    pub ca: PathBuf,
}

/// A certificate that was written before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Whose it is, as its SPIFFE ID says.
    pub identity: String,
    /// When it ends.
    pub not_after: OffsetDateTime,
    /// When it is time for the next.
    pub renew_after: OffsetDateTime,
}

/// The certificate in `dir`; none, if there is none that can be used with the key beside it.
pub fn held(dir: &Path) -> Option<Held> {
    let files = IdentityFiles::within(dir);
    let chain = read_certificates(&files.certificate).ok()?;
    let first = chain.first()?;
    let key = KeyPair::try_from(&read_private_key(&files.private_key).ok()?).ok()?;
    let (_, parsed) = X509Certificate::from_der(first).ok()?;
    if parsed.public_key().raw != key.subject_public_key_info() {
        return None;
    }
    let [issued, not_after] = [parsed.validity().not_before, parsed.validity().not_after].map(|at| at.to_datetime());
    let identity = SpiffeId::from_certificate(first).ok()?.to_string();
    Some(Held { identity, not_after, renew_after: authority::renew_after(issued + authority::BACKDATED, not_after) })
}

/// Why nothing was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The CA cannot be used.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The files cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl IdentityFiles {
    /// The files of an identity in `dir`.
    pub fn within(dir: &Path) -> Self {
        Self { certificate: dir.join("tls.crt"), private_key: dir.join("tls.key"), ca: dir.join("ca.crt") }
    }
}

/// Issues a certificate and writes it.
///
/// # Errors
/// Names the file that cannot be used or written, and why.
pub fn issue(request: &Request, now: OffsetDateTime) -> Result<(Issued, IdentityFiles), IssueError> {
    let trust_domain = &request.trust_domain;
    let authority = match &request.ca {
        CaSource::Existing(dir) => Authority::load_from(dir, trust_domain, now)?,
        CaSource::ExistingOrNew(dir) => Authority::load_or_create(dir, trust_domain, now)?,
        CaSource::Brought { certificate, key } => Authority::load(certificate, key, trust_domain, now)?,
    };
    let issued = match &request.holder {
        Holder::Proxy { fleet, id } => authority.issue_proxy(fleet, id, request.life, now)?,
        Holder::RateLimiter { id, dns_names, addresses } => {
            authority.issue_limiter(id, dns_names, addresses, request.life, now)?
        }
        Holder::Operator { id } => authority.issue_operator(id, request.life, now)?,
        Holder::ControlPlane { dns_names, addresses } => {
            authority.issue_server(dns_names, addresses, request.life, now)?
        }
    };
    let files = write(&request.out, &issued)?;
    Ok((issued, files))
}

/// Writes an identity into `dir`, each file in one step. Makes the folder if it is missing.
///
/// The key goes before its certificate: a server that reloads in between finds a pair that does not
/// match and keeps its old one.
///
/// # Errors
/// Names the file.
pub fn write(dir: &Path, issued: &Issued) -> Result<IdentityFiles, IssueError> {
    write_pem(dir, &issued.certificate_pem, &issued.private_key_pem, &issued.ca_pem)
}

/// Writes an identity that somebody else issued, all PEM, into `dir`, as [`write()`] does.
///
/// # Errors
/// Names the file.
pub fn write_pem(dir: &Path, certificate: &str, key: &SecretString, ca: &str) -> Result<IdentityFiles, IssueError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| IssueError::Write { path, source }
    };
    fs::create_dir_all(dir).map_err(failed(dir))?;
    let files = IdentityFiles::within(dir);
    for (path, contents, mode) in [
        (&files.ca, ca, file::PUBLIC),
        (&files.private_key, key.expose().as_str(), file::PRIVATE),
        (&files.certificate, certificate, file::PUBLIC),
    ] {
        file::replace(path, contents.as_bytes(), mode).map_err(failed(path))?;
    }
    // Where an Envoy finds them, wherever it was started.
    let [certificate, key, ca] = [&files.certificate, &files.private_key, &files.ca].map(std::path::absolute);
    let named = secret_files(&certificate.map_err(failed(dir))?, &key.map_err(failed(dir))?, &ca.map_err(failed(dir))?);
    for (name, content) in named {
        let path = dir.join(name);
        file::replace(&path, content.to_string().as_bytes(), file::PUBLIC).map_err(failed(&path))?;
    }
    Ok(files)
}
