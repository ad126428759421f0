//! The server's side of mutual TLS, from files that may be replaced at any time.
//!
//! The files are read, parsed and checked off to the side; only a set that works is swapped in, in
//! one step, and only new handshakes see it. A set that does not work is logged once, and the old
//! one stays: a half-copied file must not take a running server down.
//!
//! Contents are compared rather than modification times: two writes within one tick of the file
//! system's clock have the same time, and a replaced symbolic link (how Kubernetes updates a
//! mounted secret) may have an older one.
//!
//! Sessions are never resumed, neither by ticket nor from a cache. A resumed session skips the
//! verification of the client's certificate, so a client could outlive its certificate's expiry,
//! or the removal of its authority from the file, by as long as it holds a ticket. Proxies hold
//! one connection for half an hour; a full handshake each time costs nothing that matters.

use std::{
    hash::{BuildHasher, RandomState},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    ALPN,
    files::{self, TlsError},
    install_crypto_provider,
};
use crate::{metrics as m, telemetry::chain};

/// How often files are looked at.
pub const RELOAD_INTERVAL: Duration = Duration::from_secs(1);

/// The PEM files of a server that requires client certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTlsFiles {
    /// The server's certificate, and the intermediates up to the authority's.
    pub certificate: PathBuf,
    /// The key of the certificate.
    pub private_key: PathBuf,
    /// The authorities whose client certificates are accepted.
    pub client_ca: PathBuf,
}

/// The server's side of mutual TLS. Clones share the certificates.
#[derive(Clone, Debug)]
pub struct ServerTls {
    files: Arc<ServerTlsFiles>,
    /// What ALPN offers, the best first.
    protocols: &'static [&'static [u8]],
    current: Arc<ArcSwap<ServerConfig>>,
    hasher: RandomState,
    /// What the files held when `current` was made of them.
    loaded: u64,
}

/// What the files hold, unparsed.
#[derive(Hash)]
struct Contents {
    certificate: Vec<u8>,
    private_key: Vec<u8>,
    client_ca: Vec<u8>,
}

impl ServerTls {
    /// Loads the files, for a server of gRPC: HTTP/2 and nothing else.
    ///
    /// # Errors
    /// Names the file that cannot be used, and why.
    pub fn load(files: ServerTlsFiles) -> Result<Self, TlsError> {
        Self::offering(files, &[ALPN])
    }

    /// Loads the files, for a server that speaks these protocols, the best first. A client that asks for others only is refused;
    /// one that asks for none is not.
    ///
    /// # Errors
    /// Names the file that cannot be used, and why.
    pub fn offering(files: ServerTlsFiles, protocols: &'static [&'static [u8]]) -> Result<Self, TlsError> {
        let hasher = RandomState::new();
        let contents = Contents::read(&files)?;
        let current = Arc::new(ArcSwap::from_pointee(contents.parse(&files, protocols)?));
        Ok(Self { loaded: hasher.hash_one(&contents), hasher, files: Arc::new(files), protocols, current })
    }

    /// What the next handshake uses.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Looks at the files every `interval` and takes what they hold, until `stop` is cancelled.
    ///
    /// All clones see the change. Run it once, as an owned task.
    pub async fn watch(self, interval: Duration, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut seen = Seen::Contents(self.loaded);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            let (tls, before) = (self.clone(), seen.clone());
            match tokio::task::spawn_blocking(move || tls.look(&before)).await {
                Ok(now) => seen = now,
                Err(error) => warn!(%error, "looking at TLS files failed"),
            }
        }
    }

    /// One look at the files: takes them when they hold something new that works.
    pub(super) fn look(&self, before: &Seen) -> Seen {
        let contents = match Contents::read(&self.files) {
            Ok(contents) => contents,
            Err(error) => {
                let reason = chain(&error);
                if *before != Seen::Unreadable(reason.clone()) {
                    self.keep_old(&reason);
                }
                return Seen::Unreadable(reason);
            }
        };
        let seen = Seen::Contents(self.hasher.hash_one(&contents));
        if seen != *before {
            match contents.parse(&self.files, self.protocols) {
                Ok(config) => {
                    self.current.store(Arc::new(config));
                    metrics::counter!(m::TLS_RELOADS, "result" => "loaded").increment(1);
                    info!(path = %self.files.certificate.display(), "TLS files changed, new ones are in use");
                }
                Err(error) => self.keep_old(&chain(&error)),
            }
        }
        seen
    }

    fn keep_old(&self, reason: &str) {
        metrics::counter!(m::TLS_RELOADS, "result" => "refused").increment(1);
        warn!(error = reason, "TLS files changed but cannot be used, the old ones stay in use");
    }
}

/// What the last look found, so that the same thing is not reported twice.
#[derive(Clone, PartialEq)]
pub(super) enum Seen {
    Contents(u64),
    Unreadable(String),
}

impl Contents {
    fn read(files: &ServerTlsFiles) -> Result<Self, TlsError> {
        Ok(Self {
            certificate: files::read(&files.certificate)?,
            private_key: files::read(&files.private_key)?,
            client_ca: files::read(&files.client_ca)?,
        })
    }

    fn parse(&self, from: &ServerTlsFiles, protocols: &[&[u8]]) -> Result<ServerConfig, TlsError> {
        install_crypto_provider();
        let chain = files::certificates(&from.certificate, &self.certificate)?;
        let key = files::private_key(&from.private_key, &self.private_key)?;
        let authorities = files::authorities(&from.client_ca, &self.client_ca)?;
        let verifier = WebPkiClientVerifier::builder(authorities)
            .build()
            .map_err(|source| TlsError::Verifier { path: from.client_ca.clone(), source })?;
        let mut config = ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key)
            .map_err(|source| TlsError::Pair {
                certificate: from.certificate.clone(),
                private_key: from.private_key.clone(),
                source,
            })?;
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        files::show_expiry(&from.certificate, &chain);
        Ok(config)
    }
}
