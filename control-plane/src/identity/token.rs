//! Bearer tokens: how they are made, kept and compared.
//!
//! A token is 32 random bytes behind the prefix `chy_`, which lets scanners recognize one that
//! leaked. Only its SHA-256 is kept where tokens are looked up: the bytes are random, so there is
//! nothing to guess and no need for a slow hash. Hashes are compared in constant time.
//!
//! The admin's token is the one that exists before any other. It lies in a file that only its owner
//! may read, because whoever may read the control plane's files may do anything with it anyway.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chancery_runtime::{Secret, SecretString, file};
use rand::CryptoRng;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// What every token of the API starts with.
pub const PREFIX: &str = "chy_";

/// What every token of an enrolment starts with.
pub const ENROLMENT_PREFIX: &str = "chye_";

/// The shortest text that is accepted as an admin's token.
const MIN_LENGTH: usize = 16;

/// A new token that starts with `prefix`. It is shown once; keep its [`TokenHash`].
pub fn generate(prefix: &str, rng: &mut impl CryptoRng) -> SecretString {
    let mut bytes = [0; 32];
    rng.fill_bytes(&mut bytes);
    Secret::new(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// What is kept of a token.
#[derive(Clone, Copy)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of a token.
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Its bytes, to be kept.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether `presented` is the token. Takes the same time whatever was presented.
    pub fn matches(&self, presented: &str) -> bool {
        self.0.ct_eq(&Self::of(presented).0).into()
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(..)")
    }
}

/// The admin's token.
#[derive(Clone, Debug)]
pub struct AdminToken {
    token: SecretString,
    hash: TokenHash,
}

/// Why there is no admin's token.
#[derive(Debug, thiserror::Error)]
pub enum AdminTokenError {
    /// The file cannot be read.
    #[error("cannot read the admin token from {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write the admin token to {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What the file holds cannot be a token.
    #[error("{} must hold one admin token of at least {MIN_LENGTH} visible ASCII characters", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

impl AdminToken {
    /// Reads the token from a file; makes one if there is no file.
    ///
    /// Of several processes that start at the same time, one makes it and all use it.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn load_or_create(path: &Path, rng: &mut impl CryptoRng) -> Result<Self, AdminTokenError> {
        if !path.exists() {
            let write = |source| AdminTokenError::Write { path: path.to_owned(), source };
            let line = format!("{}\n", generate(PREFIX, rng).expose());
            file::create(path, line.as_bytes(), file::PRIVATE).map_err(write)?;
        }
        Self::load(path)
    }

    /// Reads the token from a file, which must be there.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn load(path: &Path) -> Result<Self, AdminTokenError> {
        let text =
            fs::read_to_string(path).map_err(|source| AdminTokenError::Read { path: path.to_owned(), source })?;
        let token = text.trim();
        // A header can carry nothing else.
        if token.len() < MIN_LENGTH || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(AdminTokenError::Malformed { path: path.to_owned() });
        }
        Ok(Self { hash: TokenHash::of(token), token: Secret::new(token.to_owned()) })
    }

    /// Whether `presented` is the token.
    pub fn matches(&self, presented: &str) -> bool {
        self.hash.matches(presented)
    }

    /// The token itself, for whoever may read the file anyway.
    pub fn token(&self) -> &SecretString {
        &self.token
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    fn rng() -> StdRng {
        StdRng::seed_from_u64(7)
    }

    #[test]
    fn a_token_carries_256_bits_behind_its_prefix() {
        let mut rng = rng();
        let (one, other) = (generate(PREFIX, &mut rng), generate(PREFIX, &mut rng));
        let bytes = URL_SAFE_NO_PAD.decode(one.expose().strip_prefix("chy_").unwrap()).unwrap();
        assert_eq!(bytes.len(), 32);
        assert_ne!(one, other);
    }

    #[test]
    fn a_hash_knows_its_token_only() {
        let token = generate(PREFIX, &mut rng());
        let hash = TokenHash::of(token.expose());
        assert!(hash.matches(token.expose()));
        assert!(!hash.matches("chy_"));
        assert!(!hash.matches(&format!("{} ", token.expose())));
        assert_eq!(format!("{hash:?}"), "TokenHash(..)");
    }

    #[test]
    fn the_admin_token_is_made_once_and_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin-token");
        let mut rng = rng();
        let made = AdminToken::load_or_create(&path, &mut rng).unwrap();
        let again = AdminToken::load_or_create(&path, &mut rng).unwrap();
        assert_eq!(made.token(), again.token());
        assert!(again.matches(made.token().expose()));
        assert!(!again.matches("chy_something-else"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!format!("{made:?}").contains(made.token().expose().as_str()));
    }

    #[test]
    fn a_file_without_a_token_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin-token");
        for text in ["", "\n", "short", "two words that are long enough"] {
            fs::write(&path, text).unwrap();
            let error = AdminToken::load_or_create(&path, &mut rng()).unwrap_err().to_string();
            assert!(error.contains("admin-token must hold"), "{error}");
        }
        let error = AdminToken::load_or_create(&dir.path().join("none/token"), &mut rng()).unwrap_err();
        assert!(matches!(error, AdminTokenError::Write { .. }), "{error}");
    }
}
