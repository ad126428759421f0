//! Why a CA cannot be used, or cannot issue.

use std::{path::PathBuf, time::Duration};

use chancery_runtime::tls::TlsError;
use time::OffsetDateTime;

use crate::identity::spiffe::InvalidTrustDomain;

/// Why a CA cannot be used, or cannot issue.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The CA's certificate or key cannot be read.
    #[error("cannot load the CA")]
    Load(#[source] TlsError),
    /// A folder or file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There is a certificate, but its key is gone.
    #[error("{} is there, but its key {} is not", certificate.display(), key.display())]
    KeyMissing {
        /// The certificate's file.
        certificate: PathBuf,
        /// Where the key should be.
        key: PathBuf,
    },
    /// There is no CA in the folder.
    #[error("there is no CA in {}", dir.display())]
    NoCa {
        /// The folder.
        dir: PathBuf,
    },
    /// The key is of a kind that cannot sign certificates here.
    #[error("the private key in {} cannot be used (EC and RSA keys can)", path.display())]
    Key {
        /// The key's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// The certificate cannot be that of a CA.
    #[error("{} cannot be used as a CA: {reason}", path.display())]
    NotACa {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The certificate's time is over.
    #[error("the CA in {} expired on {not_after}", path.display())]
    Expired {
        /// The certificate's file.
        path: PathBuf,
        /// When.
        not_after: OffsetDateTime,
    },
    /// The trust domain cannot stand in a SPIFFE ID.
    #[error("invalid trust domain {text:?}")]
    TrustDomain {
        /// What was given.
        text: String,
        /// What is wrong.
        #[source]
        source: InvalidTrustDomain,
    },
    /// The requested life is zero, or ends after the year 9999.
    #[error("a certificate cannot live {0:?}")]
    Life(Duration),
    /// A DNS name cannot stand in a certificate.
    #[error("{0:?} is not a DNS name")]
    DnsName(String),
    /// Signing failed.
    #[error("cannot issue a certificate")]
    Sign(#[source] rcgen::Error),
}
