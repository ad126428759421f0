//! An authority, and what it issues, in files.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType};
use tempfile::TempDir;

use crate::config::tls::{Certificate, Own, Pem};

pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { issuer, folder: tempfile::tempdir().unwrap() };
        std::fs::write(authority.file(), authority.issuer.pem()).unwrap();
        authority
    }

    pub(super) fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    pub(super) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Certificate and key for a client and server: `uri`, and the DNS names.
    pub(super) fn issue_pem(&self, uri: &str, names: &[&str]) -> (String, String) {
        let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// The same in files that begin with `name`.
    pub(super) fn issue(&self, name: &str, uri: &str, names: &[&str]) -> (PathBuf, PathBuf) {
        let file = |end: &str| self.folder.path().join(format!("{name}.{end}"));
        let (certificate, key) = self.issue_pem(uri, names);
        write(&file("pem"), &certificate);
        write(&file("key"), &key);
        (file("pem"), file("key"))
    }

    /// Who a sidecar is that has this identity in its bootstrap file.
    pub(super) fn own(&self, name: &str, uri: &str) -> Own {
        let (chain, key) = self.issue(name, uri, &[]);
        let certificate = Certificate { chain: Pem::File(chain), key: Pem::File(key) };
        Own { authorities: Pem::File(self.file()), certificate }
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}
