//! Where an issuer of tokens is, and what it says of itself (OpenID Connect Discovery 1.0).

use std::{fmt, str::FromStr};

use chancery_runtime::fetch::is_private;
use http::Uri;
use serde::Deserialize;

/// The largest document that an issuer is believed to have about itself, or list of its keys, in bytes.
pub const MOST_BYTES: usize = 1 << 20;

/// The URL of an issuer, exactly as its tokens name it: over TLS, or on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerUrl(String);

/// A text that is no URL of an issuer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not the URL of an issuer; write it as its tokens do, as https://login.example.com (http:// for this machine only)"
)]
pub struct InvalidIssuer(String);

impl IssuerUrl {
    /// As tokens name it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where it tells of itself.
    pub fn discovery_url(&self) -> String {
        format!("{}/.well-known/openid-configuration", self.0.trim_end_matches('/'))
    }
}

impl fmt::Display for IssuerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for IssuerUrl {
    type Err = InvalidIssuer;

    fn from_str(text: &str) -> Result<Self, InvalidIssuer> {
        let uri: Option<Uri> = text.parse().ok();
        let plain = |uri: &Uri| uri.query().is_none() && !text.contains(['#', '@']) && is_private(uri);
        uri.filter(plain).map(|_| Self(text.to_owned())).ok_or_else(|| InvalidIssuer(text.to_owned()))
    }
}

/// What an issuer says of itself, as far as it is of use here.
#[derive(Clone, Debug, Deserialize)]
pub struct Discovery {
    issuer: String,
    /// Where its keys are.
    pub jwks_uri: String,
    /// Where tokens are given out.
    pub token_endpoint: Option<String>,
    /// Where a device asks for a code that its user confirms elsewhere (RFC 8628).
    pub device_authorization_endpoint: Option<String>,
}

/// Why what an issuer says of itself cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidDiscovery {
    /// It cannot be read.
    #[error("what the issuer says of itself cannot be read")]
    Malformed(#[source] serde_json::Error),
    /// It is another issuer's.
    #[error("{asked} says that it is {found:?}; the issuer must be set as it calls itself")]
    OtherIssuer {
        /// The issuer that was asked.
        asked: IssuerUrl,
        /// What it says that it is.
        found: String,
    },
}

impl Discovery {
    /// Reads what `issuer` has answered.
    ///
    /// # Errors
    /// It cannot be read, or is about another issuer (OpenID Connect Discovery 1.0, section 4.3).
    pub fn read(bytes: &[u8], issuer: &IssuerUrl) -> Result<Self, InvalidDiscovery> {
        let discovery: Self = serde_json::from_slice(bytes).map_err(InvalidDiscovery::Malformed)?;
        if discovery.issuer != issuer.0 {
            return Err(InvalidDiscovery::OtherIssuer { asked: issuer.clone(), found: discovery.issuer });
        }
        Ok(discovery)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_over_tls_or_here() {
        for text in ["https://login.example.com", "https://a.example.com/realms/x/", "http://127.0.0.1:5556/dex"] {
            assert_eq!(text.parse::<IssuerUrl>().unwrap().as_str(), text);
        }
        for text in [
            "",
            "login.example.com",
            "http://login.example.com",
            "https://a.example.com?x=1",
            "https://a.example.com#x",
            "https://user@a.example.com",
            "ftp://a",
        ] {
            assert!(text.parse::<IssuerUrl>().is_err(), "{text}");
        }
        let issuer: IssuerUrl = "https://a.example.com/x/".parse().unwrap();
        assert_eq!(issuer.discovery_url(), "https://a.example.com/x/.well-known/openid-configuration");
    }

    #[test]
    fn who_says_to_be_another_is_not_believed() {
        let issuer: IssuerUrl = "https://a.example.com".parse().unwrap();
        let read = |issuer_said: &str| {
            let text = format!(r#"{{"issuer":"{issuer_said}","jwks_uri":"https://a.example.com/keys","more":1}}"#);
            Discovery::read(text.as_bytes(), &issuer)
        };
        assert_eq!(read("https://a.example.com").unwrap().jwks_uri, "https://a.example.com/keys");
        for other in ["https://b.example.com", "https://a.example.com/"] {
            assert!(matches!(read(other), Err(InvalidDiscovery::OtherIssuer { .. })), "{other}");
        }
        assert!(matches!(Discovery::read(b"<html>", &issuer), Err(InvalidDiscovery::Malformed(_))));
    }
}
