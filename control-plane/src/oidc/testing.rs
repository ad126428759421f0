//! An issuer's keys and tokens, as tests need them.

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
        RsaKeyPair, RsaPublicKeyComponents,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::OidcSettings;

/// The issuer, and whom its tokens are for, in tests.
pub(crate) const ISSUER: &str = "https://login.example.com";
pub(crate) const AUDIENCE: &str = "chancery";

/// Somebody who signs tokens.
pub(crate) struct Signer {
    algorithm: &'static str,
    id: String,
    key: Private,
}

enum Private {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

fn text(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    /// One with a new key called `id`.
    pub(crate) fn new(algorithm: &'static str, id: &str) -> Self {
        let key = match algorithm {
            "RS256" | "PS256" => Private::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()),
            "ES256" => Private::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()),
            _ => Private::Ed25519(Ed25519KeyPair::generate().unwrap()),
        };
        Self { algorithm, id: id.to_owned(), key }
    }

    /// Its key as an issuer lists it.
    pub(crate) fn public(&self) -> Value {
        let mut key = match &self.key {
            Private::Rsa(key) => {
                let RsaPublicKeyComponents::<Vec<u8>> { n, e } = key.public_key().into();
                json!({ "kty": "RSA", "n": text(&n), "e": text(&e) })
            }
            Private::P256(key) => {
                let point = key.public_key().as_ref();
                json!({ "kty": "EC", "crv": "P-256", "x": text(&point[1..33]), "y": text(&point[33..]) })
            }
            Private::Ed25519(key) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": text(key.public_key().as_ref()) })
            }
        };
        key["kid"] = self.id.as_str().into();
        key["alg"] = self.algorithm.into();
        key["use"] = "sig".into();
        key
    }

    /// Its key alone, as an issuer lists keys.
    pub(crate) fn keys(&self) -> Value {
        json!({ "keys": [self.public()] })
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.key {
            Private::Rsa(key) => {
                let padding = if self.algorithm == "PS256" { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
            Private::P256(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Private::Ed25519(key) => key.sign(message).as_ref().to_vec(),
        }
    }

    /// A token with these claims beside the usual ones, which they may replace; null takes one away.
    pub(crate) fn token(&self, now: i64, more: Value) -> String {
        let header = json!({ "alg": self.algorithm, "kid": self.id, "typ": "JWT" });
        let mut claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": "42", "iat": now, "exp": now + 600,
            "email": "ada@example.com", "email_verified": true, "groups": ["payments"],
        });
        if let Value::Object(more) = more {
            claims.as_object_mut().unwrap().extend(more);
        }
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        self.signed(&header, &claims)
    }

    /// A token of this header and these claims.
    pub(crate) fn signed(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", text(header.to_string().as_bytes()), text(claims.to_string().as_bytes()));
        let signature = text(&self.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }
}

/// Settings by which `payments` owns `payments`, and `platform` are operators.
pub(crate) fn settings(issuer: &str) -> OidcSettings {
    OidcSettings {
        issuer: issuer.to_owned(),
        audience: vec![AUDIENCE.to_owned()],
        grants: serde_json::from_value(json!(["owner/payments=payments", "operator=platform"])).unwrap(),
        ..OidcSettings::default()
    }
}
