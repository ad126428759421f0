//! What a certificate is asked for with: a certificate signing request (PKCS#10). Pure.
//!
//! Of a request the public key counts, and the signature, which shows that whoever asks has the private one. Who the certificate will be
//! for is decided by whoever grants it: names in the request are not looked at.

use chancery_runtime::{Secret, SecretString};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData, SubjectPublicKeyInfo};
use sha2::{Digest as _, Sha256};
use x509_parser::{
    certification_request::X509CertificationRequest,
    prelude::{FromDer, X509Certificate},
    public_key::PublicKey,
};

/// The longest request that is read, in bytes of PEM: one for the largest key has a few thousand.
pub const LONGEST: usize = 16 << 10;

/// Sizes of RSA keys, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// A public key whose private one the asking party has shown to have.
pub struct RequestedKey {
    key: SubjectPublicKeyInfo,
    hash: [u8; 32],
}

/// Why a request is no good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRequest {
    /// It is too long.
    #[error("must have at most {LONGEST} bytes")]
    TooLong,
    /// It is not PEM of the right kind.
    #[error("must be a certificate signing request (PKCS#10) in PEM: -----BEGIN CERTIFICATE REQUEST-----")]
    Pem,
    /// What is in it is no request.
    #[error("is not a certificate signing request")]
    Malformed,
    /// Whoever asks has not shown that they have the key.
    #[error("is not signed by the key that it asks for")]
    Signature,
    /// A key that Envoy does not take, or nobody should.
    #[error("asks for a key that is not taken: use EC P-256 or P-384, or RSA of {from} to {to} bits", from = RSA_BITS.start(), to = RSA_BITS.end())]
    Key,
}

/// A new key and the request for its certificate: what the asking party makes.
#[derive(Debug)]
pub struct OwnKey {
    key: KeyPair,
}

impl OwnKey {
    /// A new one (EC P-256).
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn generate() -> Result<Self, rcgen::Error> {
        KeyPair::generate().map(|key| Self { key })
    }

    /// The one that was kept as PEM.
    ///
    /// # Errors
    /// It is none.
    pub fn from_pem(pem: &str) -> Result<Self, rcgen::Error> {
        KeyPair::from_pem(pem).map(|key| Self { key })
    }

    /// The private key, PEM (PKCS#8).
    pub fn pem(&self) -> SecretString {
        Secret::new(self.key.serialize_pem())
    }

    /// The request for a certificate, PEM. It names nobody: who the certificate is for is decided elsewhere.
    ///
    /// # Errors
    /// Signing failed.
    pub fn request(&self) -> Result<String, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.serialize_request(&self.key)?.pem()
    }
}

impl RequestedKey {
    /// Reads a request, PEM.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn of(pem: &str) -> Result<Self, InvalidRequest> {
        if pem.len() > LONGEST {
            return Err(InvalidRequest::TooLong);
        }
        let (rest, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|_| InvalidRequest::Pem)?;
        let is_request = ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"].contains(&pem.label.as_str());
        if !is_request || !rest.trim_ascii().is_empty() {
            return Err(InvalidRequest::Pem);
        }
        let (rest, request) =
            X509CertificationRequest::from_der(&pem.contents).map_err(|_| InvalidRequest::Malformed)?;
        if !rest.is_empty() {
            return Err(InvalidRequest::Malformed);
        }
        let info = &request.certification_request_info.subject_pki;
        let taken = match info.parsed() {
            Ok(PublicKey::RSA(key)) => RSA_BITS.contains(&key.key_size()),
            Ok(PublicKey::EC(point)) => [256, 384].contains(&point.key_size()),
            _ => false,
        };
        let key = SubjectPublicKeyInfo::from_der(info.raw).ok().filter(|_| taken).ok_or(InvalidRequest::Key)?;
        request.verify_signature().map_err(|_| InvalidRequest::Signature)?;
        Ok(Self { hash: Sha256::digest(info.raw).into(), key })
    }

    /// The key, as certificates have it.
    pub(super) fn key(&self) -> &impl PublicKeyData {
        &self.key
    }

    /// Its hash; that of a certificate for it is the same ([`key_hash`]).
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }
}

/// The hash of the public key in a certificate (DER); none, if that is no certificate.
pub fn key_hash(certificate: &[u8]) -> Option<[u8; 32]> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(Sha256::digest(certificate.public_key().raw).into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{
        CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SignatureAlgorithm,
    };

    use super::*;

    fn request(algorithm: &'static SignatureAlgorithm) -> String {
        let key = KeyPair::generate_for(algorithm).unwrap();
        CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap()
    }

    fn refused(pem: &str) -> InvalidRequest {
        RequestedKey::of(pem).err().unwrap()
    }

    #[test]
    fn a_key_is_taken_from_a_request_and_known_by_its_certificate() {
        for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let params = CertificateParams::new(vec!["ignored.example.com".to_owned()]).unwrap();
            let pem = params.serialize_request(&key).unwrap().pem().unwrap();
            let requested = RequestedKey::of(&pem).unwrap();
            let certificate = params.self_signed(&key).unwrap();
            assert_eq!(key_hash(certificate.der()), Some(*requested.hash()));
            assert_eq!(requested.key().der_bytes(), key.public_key_raw());
        }
        assert_eq!(key_hash(b"nothing"), None);
    }

    #[test]
    fn what_is_asked_with_is_understood() {
        let own = OwnKey::generate().unwrap();
        let again = OwnKey::from_pem(own.pem().expose()).unwrap();
        let [one, other] = [&own, &again].map(|key| *RequestedKey::of(&key.request().unwrap()).unwrap().hash());
        assert_eq!(one, other);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let good = request(&PKCS_ECDSA_P256_SHA256);
        assert_eq!(refused(""), InvalidRequest::Pem);
        assert_eq!(refused(&good.replace("CERTIFICATE REQUEST", "CERTIFICATE")), InvalidRequest::Pem);
        assert_eq!(refused(&format!("{good}{good}")), InvalidRequest::Pem);
        assert_eq!(refused(&"x".repeat(LONGEST + 1)), InvalidRequest::TooLong);
        assert_eq!(refused(&request(&PKCS_ED25519)), InvalidRequest::Key);
        let empty = "-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n";
        assert_eq!(refused(empty), InvalidRequest::Malformed);
    }

    #[test]
    fn who_has_not_the_key_is_refused() {
        // The last bytes are of the signature.
        let good = request(&PKCS_ECDSA_P256_SHA256);
        let der = x509_parser::pem::parse_x509_pem(good.as_bytes()).unwrap().1.contents;
        let (mine, theirs) = (der, request(&PKCS_ECDSA_P256_SHA256));
        let theirs = x509_parser::pem::parse_x509_pem(theirs.as_bytes()).unwrap().1.contents;
        let (_, parsed) = X509CertificationRequest::from_der(&theirs).unwrap();
        let (_, own) = X509CertificationRequest::from_der(&mine).unwrap();
        let raw_key = own.certification_request_info.subject_pki.raw;
        let their_key = parsed.certification_request_info.subject_pki.raw;
        let at = theirs.windows(their_key.len()).position(|window| window == their_key).unwrap();
        let mut forged = theirs.clone();
        forged[at..at + raw_key.len()].copy_from_slice(raw_key);
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let forged = STANDARD.encode(forged);
        let pem = format!("-----BEGIN CERTIFICATE REQUEST-----\n{forged}\n-----END CERTIFICATE REQUEST-----\n");
        assert_eq!(refused(&pem), InvalidRequest::Signature);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,200}", cut in 0usize..400) {
            let _ = RequestedKey::of(&text);
            let good = request(&PKCS_ECDSA_P256_SHA256);
            let _ = RequestedKey::of(&good[..cut.min(good.len())]);
        }
    }
}
