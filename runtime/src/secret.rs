//! A value that must not be printed.
//!
//! `Debug` and `Serialize` show `***`, so that neither a log line nor `--print-settings` can leak
//! it by accident; reading it takes the word [`Secret::expose`], which is easy to search for.
//!
//! A mask is refused as input: settings that were printed and fed back would otherwise start a
//! program whose secret is three asterisks.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// What is shown in place of a secret.
pub const MASK: &str = "***";

/// A value that prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T>(T);

/// A text that prints as `***`.
pub type SecretString = Secret<String>;

impl<T> Secret<T> {
    /// Hides `value`.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself. Never pass it to a log or a message.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> From<T> for Secret<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl Serialize for SecretString {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // An empty text hides nothing, and as a default it has to survive being serialized.
        serializer.serialize_str(if self.0.is_empty() { "" } else { MASK })
    }
}

impl<'de> Deserialize<'de> for SecretString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == MASK {
            return Err(de::Error::custom("a masked secret (***) is not a secret"));
        }
        Ok(Self(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_debug_nor_serde_shows_it() {
        let secret = SecretString::new("hunter2".to_owned());
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(serde_json::to_string(&Some(secret.clone())).unwrap(), "\"***\"");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn an_empty_one_can_be_a_default() {
        let empty = SecretString::new(String::new());
        assert_eq!(serde_json::to_string(&empty).unwrap(), "\"\"");
        assert_eq!(serde_json::from_str::<SecretString>("\"\"").unwrap(), empty);
    }

    #[test]
    fn a_mask_is_not_accepted_as_a_value() {
        let error = serde_json::from_str::<SecretString>("\"***\"").unwrap_err();
        assert!(error.to_string().contains("masked secret"), "{error}");
    }
}
