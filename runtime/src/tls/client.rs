//! The client's side of TLS: whom to trust, and who we are.

use std::{path::PathBuf, sync::Arc};

use rustls::ClientConfig;

use super::{
    ALPN,
    files::{self, TlsError},
    install_crypto_provider,
};

/// The PEM files of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTlsFiles {
    /// The authorities whose server certificates are accepted.
    pub ca: PathBuf,
    /// Our certificate and its key, where the server asks for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// The client's side of TLS, with HTTP/2 by ALPN.
#[derive(Clone, Debug)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
}

impl ClientTls {
    /// Loads the files.
    ///
    /// # Errors
    /// Names the file that cannot be used, and why.
    pub fn load(from: &ClientTlsFiles) -> Result<Self, TlsError> {
        install_crypto_provider();
        let authorities = files::read_authorities(&from.ca)?;
        let trusting = ClientConfig::builder().with_root_certificates(authorities);
        let mut config = match &from.identity {
            None => trusting.with_no_client_auth(),
            Some((certificate, private_key)) => {
                let chain = files::read_certificates(certificate)?;
                let config = trusting.with_client_auth_cert(chain.clone(), files::read_private_key(private_key)?);
                let config = config.map_err(|source| TlsError::Pair {
                    certificate: certificate.clone(),
                    private_key: private_key.clone(),
                    source,
                })?;
                files::show_expiry(certificate, &chain);
                config
            }
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self { config: Arc::new(config) })
    }

    /// What a connector uses.
    pub fn config(&self) -> Arc<ClientConfig> {
        self.config.clone()
    }
}
