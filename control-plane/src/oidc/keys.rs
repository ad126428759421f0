//! The keys that an issuer signs with (RFC 7517), and whether a signature is theirs. Pure.
//!
//! A key is for one kind of signature by what it is, and for one algorithm if it says so; a token may only name an algorithm
//! that the key is for. So no token can have a public key taken for the secret of an HMAC, which is not spoken here at all.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, RsaParameters,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::Value;

/// The most keys that are kept of one issuer.
const MOST_KEYS: usize = 64;

/// A signature that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs256,
    Ps256,
    Es256,
    EdDsa,
}

impl Algorithm {
    /// All that are taken, for people.
    pub(super) const NAMES: &str = "RS256, PS256, ES256 and EdDSA";

    /// By its name in a token or a key (RFC 7518, RFC 8037, RFC 9864).
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "RS256" => Some(Self::Rs256),
            "PS256" => Some(Self::Ps256),
            "ES256" => Some(Self::Es256),
            "EdDSA" | "Ed25519" => Some(Self::EdDsa),
            _ => None,
        }
    }
}

/// A key as an issuer lists it.
#[derive(Debug, Deserialize)]
struct RawKey {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Public {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// A point, uncompressed.
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// A key of an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    id: Option<String>,
    /// None: it is for all that it can do.
    algorithm: Option<Algorithm>,
    public: Public,
}

/// The keys of an issuer; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Keys(Vec<Key>);

/// A list of keys that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidKeys {
    /// It is no list of keys.
    #[error("the keys of the issuer cannot be read")]
    Malformed(#[source] serde_json::Error),
    /// None of them is of use.
    #[error("none of the issuer's {0} keys is one for {names}", names = Algorithm::NAMES)]
    NoneOfUse(usize),
}

impl Keys {
    /// Reads what an issuer lists. Keys for something else, or of a kind that is not known, do no harm.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, InvalidKeys> {
        #[derive(Deserialize)]
        struct Listed {
            keys: Vec<Value>,
        }
        let Listed { keys } = serde_json::from_slice(bytes).map_err(InvalidKeys::Malformed)?;
        let listed = keys.len();
        let raw = keys.into_iter().filter_map(|key| serde_json::from_value(key).ok());
        let found: Vec<_> = raw.filter_map(Key::of).take(MOST_KEYS).collect();
        if found.is_empty() { Err(InvalidKeys::NoneOfUse(listed)) } else { Ok(Self(found)) }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Those that a token may be signed with that names the key `id`, or none, and this algorithm.
    pub(super) fn of<'k>(&'k self, id: Option<&'k str>, algorithm: Algorithm) -> impl Iterator<Item = &'k Key> {
        let named = move |key: &&Key| id.is_none() || key.id.as_deref() == id;
        self.0.iter().filter(named).filter(move |key| key.is_for(algorithm))
    }
}

impl Key {
    /// None, if it is for something else.
    fn of(raw: RawKey) -> Option<Self> {
        let RawKey { kty, kid, alg, usage, crv, n, e, x, y } = raw;
        if usage.is_some_and(|usage| usage != "sig") {
            return None;
        }
        let bytes = |text: Option<String>| URL_SAFE_NO_PAD.decode(text?).ok().filter(|bytes| !bytes.is_empty());
        let public = match (kty.as_str(), crv.as_deref()) {
            ("RSA", _) => Public::Rsa { n: bytes(n)?, e: bytes(e)? },
            ("EC", Some("P-256")) => {
                let (x, y) = (bytes(x)?, bytes(y)?);
                let sound = x.len() == 32 && y.len() == 32;
                sound.then(|| Public::P256([vec![4], x, y].concat()))?
            }
            ("OKP", Some("Ed25519")) => Public::Ed25519(bytes(x).filter(|x| x.len() == 32)?),
            _ => return None,
        };
        let algorithm = match alg {
            Some(name) => Some(Algorithm::named(&name)?),
            None => None,
        };
        Some(Self { id: kid, algorithm, public })
    }

    fn is_for(&self, algorithm: Algorithm) -> bool {
        let can = match self.public {
            Public::Rsa { .. } => matches!(algorithm, Algorithm::Rs256 | Algorithm::Ps256),
            Public::P256(_) => algorithm == Algorithm::Es256,
            Public::Ed25519(_) => algorithm == Algorithm::EdDsa,
        };
        can && self.algorithm.is_none_or(|own| own == algorithm)
    }

    /// Whether `signature` of `message` is by this key, which must be one for `algorithm`.
    pub(super) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let rsa = |parameters: &RsaParameters, n: &[u8], e: &[u8]| {
            RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
        };
        match (&self.public, algorithm) {
            (Public::Rsa { n, e }, Algorithm::Rs256) => rsa(&RSA_PKCS1_2048_8192_SHA256, n, e),
            (Public::Rsa { n, e }, Algorithm::Ps256) => rsa(&RSA_PSS_2048_8192_SHA256, n, e),
            (Public::P256(point), Algorithm::Es256) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok()
            }
            (Public::Ed25519(key), Algorithm::EdDsa) => {
                UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::oidc::testing::Signer;

    fn read(keys: &Value) -> Result<Keys, InvalidKeys> {
        Keys::read(json!({ "keys": keys }).to_string().as_bytes())
    }

    #[test]
    fn every_algorithm_verifies_its_own_signatures_and_no_others() {
        let signers = ["RS256", "PS256", "ES256", "EdDSA"].map(|name| (name, Signer::new(name, name)));
        for (name, signer) in &signers {
            let algorithm = Algorithm::named(name).unwrap();
            let keys = read(&json!([signer.public()])).unwrap();
            let key = keys.of(Some(name), algorithm).next().unwrap();
            let signature = signer.sign(b"message");
            assert!(key.verifies(algorithm, b"message", &signature), "{name}");
            assert!(!key.verifies(algorithm, b"another", &signature), "{name}");
            assert!(!key.verifies(algorithm, b"message", b""), "{name}");
            for (other, _) in &signers {
                let other = Algorithm::named(other).unwrap();
                assert_eq!(key.verifies(other, b"message", &signature), other == algorithm, "{name} as {other:?}");
            }
        }
    }

    #[test]
    fn a_key_is_for_the_algorithm_that_it_says() {
        let keys = read(&json!([Signer::new("PS256", "a").public()])).unwrap();
        assert_eq!(keys.of(Some("a"), Algorithm::Ps256).count(), 1);
        assert_eq!(keys.of(Some("a"), Algorithm::Rs256).count(), 0, "it says PS256");
        let mut silent = Signer::new("PS256", "a").public();
        silent.as_object_mut().unwrap().remove("alg");
        let keys = read(&json!([silent])).unwrap();
        assert_eq!(keys.of(None, Algorithm::Rs256).count(), 1);
        assert_eq!(keys.of(None, Algorithm::Es256).count(), 0);
    }

    #[test]
    fn what_is_of_no_use_is_left_out() {
        let good = Signer::new("ES256", "good").public();
        let with = |field: &str, value: &str| {
            let mut key = good.clone();
            key[field] = value.into();
            key
        };
        let useless = [
            json!({ "kty": "oct", "kid": "good", "k": "c2VjcmV0" }),
            with("use", "enc"),
            with("alg", "HS256"),
            with("crv", "P-384"),
            with("x", "AAAA"),
            with("x", "!"),
            json!("text"),
        ];
        for key in &useless {
            assert!(matches!(read(&json!([key])), Err(InvalidKeys::NoneOfUse(1))), "{key}");
        }
        let mut all = useless.to_vec();
        all.push(good.clone());
        assert_eq!(read(&json!(all)).unwrap().len(), 1);
        assert_eq!(read(&json!(vec![good; 1000])).unwrap().len(), MOST_KEYS);
        assert!(matches!(Keys::read(b"[]"), Err(InvalidKeys::Malformed(_))));
    }
}
