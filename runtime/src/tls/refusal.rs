//! Why a handshake did not succeed, in the words of the log line and the label of the metric.

use std::{fmt, io};

use rustls::{CertificateError, Error};
use rustls_pki_types::UnixTime;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Why a connection was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The client sent no certificate.
    NoCertificate,
    /// The client's certificate does not lead to an authority we trust.
    UnknownAuthority,
    /// The client's certificate is no longer valid.
    Expired {
        /// When it ended, if known, in seconds since 1970.
        at: Option<u64>,
    },
    /// The client's certificate is not valid yet.
    NotYetValid {
        /// When it begins, if known, in seconds since 1970.
        from: Option<u64>,
    },
    /// The client's certificate was issued for something else, such as a server.
    WrongPurpose,
    /// Something else is wrong with the client's certificate.
    BadCertificate(String),
    /// The client did not accept the server.
    RefusedByClient(String),
    /// What came is not TLS.
    NotTls,
    /// The handshake took too long.
    TooSlow,
    /// The client closed the connection first. Port scans and TCP health checks do.
    Closed,
    /// Something else.
    Other(String),
}

impl Refusal {
    /// Reads the error of a failed handshake.
    pub fn of(error: &io::Error) -> Self {
        let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
            return match error.kind() {
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                    Self::Closed
                }
                _ => Self::Other(error.to_string()),
            };
        };
        match tls {
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::InvalidCertificate(reason) => Self::of_certificate(reason),
            Error::AlertReceived(alert) => Self::RefusedByClient(format!("{alert:?}")),
            Error::InvalidMessage(_) => Self::NotTls,
            other => Self::Other(other.to_string()),
        }
    }

    fn of_certificate(reason: &CertificateError) -> Self {
        use CertificateError as E;
        match reason {
            // An authority with a trusted name but another key shows as a bad signature.
            E::UnknownIssuer | E::BadSignature => Self::UnknownAuthority,
            E::Expired => Self::Expired { at: None },
            E::ExpiredContext { not_after, .. } => Self::Expired { at: Some(seconds(*not_after)) },
            E::NotValidYet => Self::NotYetValid { from: None },
            E::NotValidYetContext { not_before, .. } => Self::NotYetValid { from: Some(seconds(*not_before)) },
            E::InvalidPurpose | E::InvalidPurposeContext { .. } => Self::WrongPurpose,
            other => Self::BadCertificate(other.to_string()),
        }
    }

    /// The value of the metric's label `reason`; a fixed set.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::UnknownAuthority => "unknown_ca",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::WrongPurpose => "wrong_purpose",
            Self::BadCertificate(_) => "bad_certificate",
            Self::RefusedByClient(_) => "refused_by_client",
            Self::NotTls => "not_tls",
            Self::TooSlow => "too_slow",
            Self::Closed => "closed",
            Self::Other(_) => "other",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate => f.write_str("no client certificate"),
            Self::UnknownAuthority => f.write_str("certificate of an unknown CA"),
            Self::Expired { at: Some(at) } => write!(f, "certificate expired on {}", Date(*at)),
            Self::Expired { at: None } => f.write_str("certificate expired"),
            Self::NotYetValid { from: Some(from) } => write!(f, "certificate not valid before {}", Date(*from)),
            Self::NotYetValid { from: None } => f.write_str("certificate not valid yet"),
            Self::WrongPurpose => f.write_str("certificate not issued for clients"),
            Self::BadCertificate(reason) => write!(f, "bad certificate: {reason}"),
            Self::RefusedByClient(alert) => write!(f, "the client refused this server: {alert}"),
            Self::NotTls => f.write_str("not a TLS handshake"),
            Self::TooSlow => f.write_str("the handshake took too long"),
            Self::Closed => f.write_str("the client closed the connection during the handshake"),
            Self::Other(reason) => f.write_str(reason),
        }
    }
}

fn seconds(time: UnixTime) -> u64 {
    time.as_secs()
}

/// Seconds since 1970 as RFC 3339.
struct Date(u64);

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let date = i64::try_from(self.0).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
        match date.and_then(|date| date.format(&Rfc3339).ok()) {
            Some(text) => f.write_str(&text),
            None => write!(f, "second {} after 1970", self.0),
        }
    }
}
