//! What is in the TLS files of a program, for whoever checks an installation before or beside it.
//!
//! The programs learn the same from a handshake that fails; here it is asked for one by one, so that a chain that ends
//! nowhere, a key of another certificate and a name that is missing are told apart.

use std::path::Path;

use rustls::{crypto::aws_lc_rs, sign::CertifiedKey};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

use super::{
    files::{TlsError, read_certificates, read_private_key},
    spiffe::{InvalidSpiffeId, SpiffeId},
};

/// What files hold.
#[derive(Debug)]
pub struct Inspection {
    /// From when all of the chain is valid.
    pub not_before: OffsetDateTime,
    /// Until when all of it is, the authority included.
    pub not_after: OffsetDateTime,
    /// The names and addresses of the leaf, as a client of it asks for them.
    pub names: Vec<String>,
    /// Who the leaf is to others.
    pub identity: Result<SpiffeId, InvalidSpiffeId>,
    /// Whether the key is that of the leaf.
    pub pair: Result<(), TlsError>,
    /// Whether the chain ends at the authority.
    pub chain: Result<(), BrokenChain>,
}

/// Why a chain leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokenChain {
    /// A certificate is followed by one that did not issue it.
    #[error("certificate {at} of the chain is not issued by the one after it")]
    Link {
        /// Which one, from 1.
        at: usize,
    },
    /// None of the authorities issued the last certificate.
    #[error("none of the authorities issued it; its issuer is {issuer}")]
    Authority {
        /// Who the last certificate says did.
        issuer: String,
    },
    /// A certificate cannot be parsed.
    #[error("a certificate cannot be read")]
    Unreadable,
}

/// Reads a certificate chain, its key and the authorities that are to vouch for it; all PEM.
///
/// # Errors
/// A file cannot be read, or does not hold what it should.
pub fn inspect(certificate: &Path, private_key: &Path, authority: &Path) -> Result<Inspection, TlsError> {
    let chain = read_certificates(certificate)?;
    let key = read_private_key(private_key)?;
    let authorities = read_certificates(authority)?;
    let pair = CertifiedKey::from_der(chain.clone(), key, &aws_lc_rs::default_provider()).map(drop);
    let pair = pair.map_err(|source| TlsError::Pair {
        certificate: certificate.to_owned(),
        private_key: private_key.to_owned(),
        source,
    });
    let parsed: Vec<X509Certificate<'_>> = chain.iter().filter_map(parse).collect();
    let trusted: Vec<X509Certificate<'_>> = authorities.iter().filter_map(parse).collect();
    let issuer = issuer(&parsed, &trusted);
    let links = if parsed.len() == chain.len() { links(&parsed) } else { Err(BrokenChain::Unreadable) };
    let whole = parsed.iter().chain(issuer.as_ref().ok().copied());
    let (mut not_before, mut not_after) = (OffsetDateTime::UNIX_EPOCH, None::<OffsetDateTime>);
    for certificate in whole {
        let validity = certificate.validity();
        not_before = not_before.max(validity.not_before.to_datetime());
        let ends = validity.not_after.to_datetime();
        not_after = Some(not_after.map_or(ends, |earliest| earliest.min(ends)));
    }
    let leaf: &[u8] = chain.first().map_or(&[], |leaf| leaf);
    Ok(Inspection {
        not_before,
        not_after: not_after.unwrap_or(OffsetDateTime::UNIX_EPOCH),
        names: parsed.first().map(names).unwrap_or_default(),
        identity: SpiffeId::from_certificate(leaf),
        pair,
        chain: links.and(issuer.map(drop)),
    })
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(der).ok().map(|(_, certificate)| certificate)
}

/// Whether each certificate was issued by the next.
fn links(chain: &[X509Certificate<'_>]) -> Result<(), BrokenChain> {
    let broken = chain.windows(2).position(|pair| !issued(&pair[0], &pair[1]));
    broken.map_or(Ok(()), |at| Err(BrokenChain::Link { at: at + 1 }))
}

/// The authority that issued the last certificate of `chain`, or is it.
fn issuer<'a, 'b>(
    chain: &[X509Certificate<'_>],
    authorities: &'a [X509Certificate<'b>],
) -> Result<&'a X509Certificate<'b>, BrokenChain> {
    let last = chain.last().ok_or(BrokenChain::Unreadable)?;
    let found = authorities.iter().find(|authority| issued(last, authority) || last.as_raw() == authority.as_raw());
    found.ok_or_else(|| BrokenChain::Authority { issuer: last.issuer().to_string() })
}

fn issued(certificate: &X509Certificate<'_>, by: &X509Certificate<'_>) -> bool {
    certificate.issuer() == by.subject() && certificate.verify_signature(Some(by.public_key())).is_ok()
}

fn names(leaf: &X509Certificate<'_>) -> Vec<String> {
    let names = leaf.subject_alternative_name().ok().flatten();
    let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| std::net::Ipv4Addr::from(bytes).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| std::net::Ipv6Addr::from(bytes).to_string()),
            _ => None,
        },
        _ => None,
    };
    names.iter().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType, date_time_ymd};

    use super::*;

    fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    /// The files of a leaf that `issuer` signed, and of the authority that is trusted.
    fn files(folder: &Path, issuer: &CertifiedIssuer<'_, KeyPair>, trusted: &str, key: Option<&str>) -> [PathBuf; 3] {
        let mut params = CertificateParams::new(vec!["a.example.com".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI("spiffe://chancery.local/rate-limiter/a".try_into().unwrap()));
        params.not_after = date_time_ymd(2040, 1, 1);
        let own = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&own, issuer).unwrap().pem();
        let [certificate, private_key, ca] = ["tls.crt", "tls.key", "ca.crt"].map(|name| folder.join(name));
        std::fs::write(&certificate, leaf).unwrap();
        std::fs::write(&private_key, key.map_or_else(|| own.serialize_pem(), str::to_owned)).unwrap();
        std::fs::write(&ca, trusted).unwrap();
        [certificate, private_key, ca]
    }

    #[test]
    fn what_belongs_together_is_told_in_full() {
        let folder = tempfile::tempdir().unwrap();
        let ca = authority("ours");
        let [certificate, key, trusted] = files(folder.path(), &ca, &ca.pem(), None);
        let found = inspect(&certificate, &key, &trusted).unwrap();
        assert_eq!(found.names, ["a.example.com", "127.0.0.1"]);
        assert_eq!(found.identity.unwrap().path, "rate-limiter/a");
        assert_eq!(found.not_after, date_time_ymd(2040, 1, 1));
        assert!(found.pair.is_ok() && found.chain.is_ok());
    }

    #[test]
    fn another_authority_and_another_key_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let [ours, theirs] = ["ours", "ours"].map(authority);
        let [certificate, key, trusted] = files(folder.path(), &ours, &theirs.pem(), None);
        let found = inspect(&certificate, &key, &trusted).unwrap();
        assert!(matches!(found.chain, Err(BrokenChain::Authority { .. })), "same name, another key: {found:?}");
        assert!(found.pair.is_ok());

        let other = KeyPair::generate().unwrap().serialize_pem();
        let [certificate, key, trusted] = files(folder.path(), &ours, &ours.pem(), Some(&other));
        let found = inspect(&certificate, &key, &trusted).unwrap();
        assert!(matches!(found.pair, Err(TlsError::Pair { .. })));
        assert!(found.chain.is_ok());
    }

    #[test]
    fn a_chain_in_the_wrong_order_is_broken_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let ca = authority("ours");
        let [certificate, key, trusted] = files(folder.path(), &ca, &ca.pem(), None);
        let leaf = std::fs::read_to_string(&certificate).unwrap();
        std::fs::write(&certificate, leaf + &authority("stranger").pem()).unwrap();
        let found = inspect(&certificate, &key, &trusted).unwrap();
        assert_eq!(found.chain, Err(BrokenChain::Link { at: 1 }));
    }
}
