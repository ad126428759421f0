//! What can be set about a rate limiter, and the flags that set it.
//!
//! One struct is the file, the environment (`CHANCERY_…`) and the flags at once. Without any flag but a configuration it serves
//! from memory on this machine only; certificates are asked for unless `--insecure` says that they are not wanted.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::{NonZero, NonZeroU32},
    path::PathBuf,
    time::Duration,
};

use chancery_runtime::{
    SecretString,
    telemetry::LogFormat,
    tls::{ClientTlsFiles, ServerTlsFiles},
};
use serde::{Deserialize, Serialize};

use crate::{
    config::ads::{self, AdsSettings, InvalidServer, NoIdentity},
    model::limit::Algorithm,
    serve::{answer::ResponseHeaders, worker::GrpcServer},
    store::{
        memory,
        redis::{InvalidAddress, RedisSettings, TlsFiles},
    },
};

/// The settings of a rate limiter.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// File or folder with rules in envoyproxy/ratelimit's format; empty: none.
    pub config: PathBuf,
    /// `memory`, or the URL of Redis; not set: `memory`.
    pub store: Option<SecretString>,
    /// Where rules come from over xDS; empty: from nowhere.
    pub xds: String,
    /// Where rules that came over xDS are kept for a start without its server; empty: nowhere.
    pub saved_rules: PathBuf,
    /// Where gRPC listens.
    pub grpc_addr: SocketAddr,
    /// Where HTTP (health, metrics, rules) listens.
    pub http_addr: SocketAddr,
    /// Serve gRPC in plaintext, to whoever asks.
    pub insecure: bool,
    /// Certificate chain of the gRPC server, PEM.
    pub tls_cert: PathBuf,
    /// Its private key, PEM.
    pub tls_key: PathBuf,
    /// The CA of client certificates, PEM.
    pub client_ca: PathBuf,
    /// The trust domain whose certificates speak for a fleet.
    pub trust_domain: String,
    /// The CA of Redis's certificate, PEM; empty: the system's.
    pub redis_ca: PathBuf,
    /// The certificate chain to show Redis, PEM; empty: none.
    pub redis_cert: PathBuf,
    /// Its private key, PEM.
    pub redis_key: PathBuf,
    /// How long Redis may take over a decision.
    pub redis_timeout: Milliseconds,
    /// Whether tokens are borrowed from Redis and its refusals remembered; otherwise each decision is Redis's own.
    pub leases: bool,
    /// How many limiters share the limits, until Redis has said it.
    pub replicas: NonZeroU32,
    /// Cells kept in memory.
    pub memory_cells: usize,
    /// How limits of the YAML are counted.
    pub algorithm: AlgorithmChoice,
    /// Which headers are added to responses.
    pub response_headers: ResponseHeaders,
    /// Threads that serve gRPC; 0: one per core.
    pub workers: usize,
    /// gRPC connections at the same time.
    pub max_connections: usize,
    /// What speaks HTTP/2.
    pub grpc_server: GrpcServer,
    /// Which events are logged, as a filter of `tracing`: `info,chancery_xds=debug`; empty: what `RUST_LOG` says, else `info`.
    pub log: String,
    /// What log lines look like: `auto`, which is pretty on a terminal and JSON elsewhere, `pretty` or `json`.
    pub log_format: LogFormat,
}

/// A time in whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Milliseconds(u32);

impl From<Milliseconds> for Duration {
    fn from(Milliseconds(milliseconds): Milliseconds) -> Self {
        Self::from_millis(milliseconds.into())
    }
}

impl From<AlgorithmChoice> for Algorithm {
    fn from(choice: AlgorithmChoice) -> Self {
        match choice {
            AlgorithmChoice::TokenBucket => Self::TokenBucket,
            AlgorithmChoice::FixedWindow => Self::FixedWindow,
        }
    }
}

/// How limits are counted that do not say so themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlgorithmChoice {
    /// Smoothly, with a burst.
    #[default]
    TokenBucket,
    /// In windows aligned to the clock, as envoyproxy/ratelimit does.
    FixedWindow,
}

impl Default for Settings {
    fn default() -> Self {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            config: PathBuf::new(),
            store: None,
            xds: String::new(),
            saved_rules: PathBuf::new(),
            grpc_addr: local(8081),
            http_addr: local(6070),
            insecure: false,
            tls_cert: PathBuf::new(),
            tls_key: PathBuf::new(),
            client_ca: PathBuf::new(),
            trust_domain: "chancery.local".to_owned(),
            redis_ca: PathBuf::new(),
            redis_cert: PathBuf::new(),
            redis_key: PathBuf::new(),
            redis_timeout: Milliseconds(5),
            leases: true,
            replicas: NonZeroU32::MIN,
            memory_cells: memory::CAPACITY,
            algorithm: AlgorithmChoice::default(),
            response_headers: ResponseHeaders::default(),
            workers: 0,
            max_connections: 10_000,
            grpc_server: GrpcServer::default(),
            log: String::new(),
            log_format: LogFormat::default(),
        }
    }
}

/// A combination of settings that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum InvalidSettings {
    /// Some of the TLS files are missing.
    #[error("TLS needs --tls-cert, --tls-key and --client-ca; --insecure serves in plaintext instead")]
    NoCertificates,
    /// Both.
    #[error("--insecure and TLS files contradict each other")]
    InsecureWithCertificates,
    /// No time for Redis.
    #[error("--redis-timeout 0 leaves Redis no time to answer; to count without Redis, use --store memory")]
    NoRedisTimeout,
    /// Not an address of Redis. What was said may hold a password, so it is not repeated.
    #[error("--store is neither \"memory\" nor the URL of a Redis")]
    Store(#[source] InvalidAddress),
    /// Not an xDS server.
    #[error("--xds names no server")]
    Xds(#[source] InvalidServer),
    /// The limiter's own certificate cannot be used with xDS.
    #[error("the certificate cannot be used for xDS")]
    Identity(#[source] NoIdentity),
}

impl Settings {
    /// The files of the gRPC server's identity; `None`: plaintext was asked for.
    ///
    /// # Errors
    /// Neither is clear.
    pub fn tls_files(&self) -> Result<Option<ServerTlsFiles>, InvalidSettings> {
        let files = [&self.tls_cert, &self.tls_key, &self.client_ca];
        let given = files.iter().filter(|path| !path.as_os_str().is_empty()).count();
        match (self.insecure, given) {
            (true, 0) => Ok(None),
            (true, _) => Err(InvalidSettings::InsecureWithCertificates),
            (false, 3) => Ok(Some(ServerTlsFiles {
                certificate: self.tls_cert.clone(),
                private_key: self.tls_key.clone(),
                client_ca: self.client_ca.clone(),
            })),
            (false, _) => Err(InvalidSettings::NoCertificates),
        }
    }

    /// Where rules come from over xDS, with the files of the gRPC server's identity; `None`: from nowhere.
    ///
    /// # Errors
    /// The server has no address, or the certificate no identity.
    pub fn ads(&self) -> Result<Option<AdsSettings>, InvalidSettings> {
        if self.xds.is_empty() {
            return Ok(None);
        }
        let tls = self.tls_files()?.map(|files| ClientTlsFiles {
            ca: files.client_ca,
            identity: Some((files.certificate, files.private_key)),
        });
        let named = tls.as_ref().map(ads::identity).transpose().map_err(InvalidSettings::Identity)?.flatten();
        Ok(Some(AdsSettings {
            server: self.xds.parse().map_err(InvalidSettings::Xds)?,
            tls,
            id: named.unwrap_or_else(|| ads::CLUSTER.to_owned()),
            saved: Some(self.saved_rules.clone()).filter(|path| !path.as_os_str().is_empty()),
            algorithm: self.algorithm.into(),
        }))
    }

    /// How long Redis may take over a decision.
    ///
    /// # Errors
    /// No time at all.
    pub fn redis_timeout(&self) -> Result<Duration, InvalidSettings> {
        match self.redis_timeout {
            Milliseconds(0) => Err(InvalidSettings::NoRedisTimeout),
            milliseconds => Ok(milliseconds.into()),
        }
    }

    /// The Redis to count in; `None`: memory.
    ///
    /// # Errors
    /// It has no address, or no time to answer.
    pub fn redis(&self) -> Result<Option<RedisSettings>, InvalidSettings> {
        let address = match self.store.as_ref().map(|store| store.expose().as_str()) {
            None | Some("memory" | "") => return Ok(None),
            Some(url) => url.parse().map_err(InvalidSettings::Store)?,
        };
        let some = |path: &PathBuf| (!path.as_os_str().is_empty()).then(|| path.clone());
        let tls =
            TlsFiles { ca: some(&self.redis_ca), certificate: some(&self.redis_cert), key: some(&self.redis_key) };
        let (timeout, leases, replicas) = (self.redis_timeout()?, self.leases, self.replicas);
        Ok(Some(RedisSettings { address, tls, timeout, leases, replicas }))
    }

    /// Threads that serve gRPC.
    pub fn worker_count(&self) -> usize {
        if self.workers > 0 {
            return self.workers;
        }
        std::thread::available_parallelism().map_or(1, NonZero::get)
    }
}

/// The flags: each setting under its own name, and three that act at once.
#[derive(Clone, Debug, Default, clap::Parser, Serialize)]
#[command(name = "chancery-rate-limiter", version, about = "Decides for Envoy which requests are within their limits")]
#[serde(rename_all = "snake_case")]
pub struct Flags {
    /// Rules: a file or folder of envoyproxy/ratelimit's YAML
    #[arg(long, value_name = "FILE|DIR")]
    pub config: Option<PathBuf>,
    /// memory, redis://…, rediss://…, redis+cluster://…, redis+sentinel://… [default: memory]
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// Rules over xDS from this address
    #[arg(long, value_name = "ADDR")]
    pub xds: Option<String>,
    /// File that keeps rules that came over xDS, for a start without its server
    #[arg(long, value_name = "FILE")]
    pub saved_rules: Option<PathBuf>,
    /// Address of gRPC [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR")]
    pub grpc_addr: Option<SocketAddr>,
    /// Address of HTTP: health, metrics, rules [default: 127.0.0.1:6070]
    #[arg(long, value_name = "ADDR")]
    pub http_addr: Option<SocketAddr>,
    /// Serve gRPC in plaintext, to whoever asks
    #[arg(long, num_args = 0, default_missing_value = "true")]
    pub insecure: Option<bool>,
    /// Certificate chain of the gRPC server, PEM
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the gRPC server, PEM
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// CA of client certificates, PEM
    #[arg(long, value_name = "FILE")]
    pub client_ca: Option<PathBuf>,
    /// Trust domain whose certificates speak for a fleet [default: chancery.local]
    #[arg(long, value_name = "DOMAIN")]
    pub trust_domain: Option<String>,
    /// CA of Redis's certificate, PEM [default: the system's]
    #[arg(long, value_name = "FILE")]
    pub redis_ca: Option<PathBuf>,
    /// Certificate chain to show Redis, PEM
    #[arg(long, value_name = "FILE")]
    pub redis_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE")]
    pub redis_key: Option<PathBuf>,
    /// How long Redis may take over a decision, in milliseconds [default: 5]
    #[arg(long, value_name = "MS")]
    pub redis_timeout: Option<u32>,
    /// Whether tokens are borrowed from Redis and its refusals remembered [default: true]
    #[arg(long, value_name = "true|false")]
    pub leases: Option<bool>,
    /// How many limiters share the limits: what one that starts without Redis goes by [default: 1]
    #[arg(long, value_name = "N")]
    pub replicas: Option<NonZeroU32>,
    /// Cells kept in memory [default: 1000000]
    #[arg(long, value_name = "N")]
    pub memory_cells: Option<usize>,
    /// How limits of the YAML are counted [default: token-bucket]
    #[arg(long, value_name = "ALGORITHM")]
    pub algorithm: Option<AlgorithmChoice>,
    /// Headers that responses get from here rather than from Envoy [default: none]
    #[arg(long, value_name = "WHICH")]
    pub response_headers: Option<ResponseHeaders>,
    /// Threads that serve gRPC [default: one per core]
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,
    /// gRPC connections at the same time [default: 10000]
    #[arg(long, value_name = "N")]
    pub max_connections: Option<usize>,
    /// What speaks HTTP/2, for comparison
    #[arg(long, hide = true)]
    pub grpc_server: Option<GrpcServer>,
    /// Check the rules and exit
    #[arg(long)]
    #[serde(skip)]
    pub check: bool,
    /// Which events are logged, as info,chancery_xds=debug [default: RUST_LOG, or info]
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// What log lines look like: auto, pretty or json [default: auto]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Settings file, TOML
    #[arg(long, value_name = "FILE", env = "CHANCERY_SETTINGS")]
    #[serde(skip)]
    pub settings: Option<PathBuf>,
    /// Print the settings, secrets hidden, and exit
    #[arg(long)]
    #[serde(skip)]
    pub print_settings: bool,
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn settings(args: &[&str]) -> Settings {
        let flags = Flags::parse_from(["chancery-rate-limiter"].iter().chain(args));
        chancery_runtime::settings::load(&flags, [], None).unwrap()
    }

    #[test]
    fn plaintext_must_be_asked_for() {
        use InvalidSettings as E;
        assert!(matches!(settings(&[]).tls_files(), Err(E::NoCertificates)));
        assert!(matches!(settings(&["--tls-cert", "a", "--tls-key", "b"]).tls_files(), Err(E::NoCertificates)));
        assert!(matches!(settings(&["--insecure"]).tls_files(), Ok(None)));
        let both = settings(&["--insecure", "--tls-cert", "a"]);
        assert!(matches!(both.tls_files(), Err(E::InsecureWithCertificates)));
        let files = settings(&["--tls-cert", "a", "--tls-key", "b", "--client-ca", "c"]).tls_files().unwrap();
        assert_eq!(files.unwrap().client_ca, PathBuf::from("c"));
    }

    #[test]
    fn redis_is_left_some_time() {
        assert!(matches!(settings(&["--redis-timeout", "0"]).redis_timeout(), Err(InvalidSettings::NoRedisTimeout)));
        assert_eq!(settings(&["--redis-timeout", "7"]).redis_timeout().unwrap(), Duration::from_millis(7));
        assert_eq!(settings(&[]).redis_timeout().unwrap(), crate::store::redis::DEFAULT_TIMEOUT);
    }

    #[test]
    fn choices_are_said_as_on_the_command_line() {
        let said =
            settings(&["--algorithm", "fixed-window", "--response-headers", "x-ratelimit", "--grpc-server", "tonic"]);
        let printed = chancery_runtime::settings::print(&said).unwrap();
        for line in ["algorithm = \"fixed-window\"", "response_headers = \"x-ratelimit\"", "grpc_server = \"tonic\""] {
            assert!(printed.contains(line), "no {line} in {printed}");
        }
        let environment = [("CHANCERY_RESPONSE_HEADERS".to_owned(), "ietf".to_owned())];
        let read: Settings = chancery_runtime::settings::load(&Flags::default(), environment, None).unwrap();
        assert_eq!(read.response_headers, ResponseHeaders::Ietf);
    }

    #[test]
    fn the_password_of_redis_is_not_printed() {
        let said = settings(&["--store", "redis://:hunter2@localhost"]);
        assert!(said.store.as_ref().is_some_and(|store| store.expose().contains("hunter2")));
        assert!(!chancery_runtime::settings::print(&said).unwrap().contains("hunter2"));
        assert!(!format!("{said:?}").contains("hunter2"));
    }
}
