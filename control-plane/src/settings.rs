//! What can be set about a control plane, and the flags that set it.
//!
//! One struct is the file, the environment (`CHANCERY_…`) and the flags at once; what is left out follows from
//! the data folder, so that the shortest command line is a working one.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use chancery_runtime::{
    SecretString,
    telemetry::LogFormat,
    tls::ServerTlsFiles,
    traces::{self, InvalidTraces, Said},
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{
    api::{Networks, Origins, Rates},
    identity::authority::{Authority, AuthorityError},
    load,
    oidc::{OidcFlags, OidcSettings},
};

/// Streams opened in a second, unless it is set: ten thousand proxies are back ten seconds after a restart.
const NEW_STREAMS: NonZeroU32 = NonZeroU32::new(1000).unwrap();

/// How long the audit log keeps what is in it, unless it is set: a year of 365.25 days, which is printed as `1year`.
const A_YEAR: Duration = Duration::from_secs(31_557_600);

/// How long an xDS connection may be kept.
const CONNECTION_AGES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(366 * 24 * 3600);

/// How often proxies may be asked to report their load: what is shown is a minute of it.
const LOAD_INTERVALS: RangeInclusive<Duration> = Duration::from_secs(1)..=load::WINDOW;

/// An interval of load reports that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("load_report_interval is {0:?}; it must be between a second and a minute")]
pub struct InvalidInterval(Duration);

/// An age of connections that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("xds_connection_age is {0:?}; it must be between a second and a year")]
pub struct InvalidAge(Duration);

/// A CA that cannot be issued with.
#[derive(Debug, thiserror::Error)]
pub enum InvalidAuthority {
    /// Both files are needed.
    #[error("{set} is set, but {missing} is not; a CA issues with both")]
    Half {
        /// The setting that is there.
        set: &'static str,
        /// The one that is not.
        missing: &'static str,
    },
    /// One of them cannot be used.
    #[error("cannot use the CA that proxies enrol with")]
    Unusable(#[from] AuthorityError),
}

/// Entries of the audit log are kept a day at least.
const SHORTEST_RETENTION: Duration = Duration::from_secs(24 * 3600);

/// A retention of the audit log that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("audit_retention is {0:?}; it must be a day at least, or 0s to keep everything")]
pub struct InvalidRetention(Duration);

/// A name of a replica that cannot be shown everywhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("replica_name is {0:?}; it must be at most 100 letters, digits, '-', '_' and '.'")]
pub struct InvalidReplicaName(String);

/// The settings of a control plane.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where state is kept that is not in the database; the defaults below lie in it.
    pub data_dir: PathBuf,
    /// `sqlite://PATH` or `postgres://…`, of several hosts with commas between them the first that takes writes; not set: `chancery.db` in the data folder.
    pub database: Option<SecretString>,
    /// Where the API listens.
    pub api_addr: SocketAddr,
    /// Where xDS listens.
    pub xds_addr: SocketAddr,
    /// Where health and metrics listen.
    pub admin_addr: SocketAddr,
    /// Certificate chain of the xDS server, PEM; empty: `tls/tls.crt` in the data folder.
    pub tls_cert: PathBuf,
    /// Its private key, PEM; empty: `tls/tls.key` in the data folder.
    pub tls_key: PathBuf,
    /// The CA of client certificates, PEM; empty: `tls/ca.crt` in the data folder.
    pub client_ca: PathBuf,
    /// Certificate of the CA that proxies get theirs from when they enrol, PEM; may go on with the CAs above it; empty: none enrols.
    pub ca_cert: PathBuf,
    /// Its private key, PEM.
    pub ca_key: PathBuf,
    /// The trust domain of client certificates.
    pub trust_domain: String,
    /// File with the admin's token, made if it does not exist; empty: `admin-token` in the data folder.
    pub admin_token_file: PathBuf,
    /// How long an xDS connection is kept, a tenth more or less; then its proxy opens another.
    #[serde(with = "humantime_serde")]
    pub xds_connection_age: Duration,
    /// How many xDS streams may be opened in a second; more are asked to try again.
    pub max_new_streams: NonZeroU32,
    /// How this replica is called among others on the same database; empty: the host's name and four letters of chance.
    pub replica_name: String,
    /// How often each proxy reports the load of its services.
    #[serde(with = "humantime_serde")]
    pub load_report_interval: Duration,
    /// How long entries of the audit log are kept; `0s`: for ever.
    #[serde(with = "humantime_serde")]
    pub audit_retention: Duration,
    /// An Envoy that is asked about every change before it is stored; not set: none is.
    pub envoy_validate: Option<PathBuf>,
    /// Requests a second that one token may make of the API, ten times as many at once; 0: no limit.
    pub api_token_rate: u32,
    /// As many to register endpoints.
    pub api_registration_rate: u32,
    /// As many from one address.
    pub api_address_rate: u32,
    /// Proxies before the API that say in `X-Forwarded-For` who asks.
    pub trusted_proxies: Networks,
    /// Pages of which origins may ask the API from a browser.
    pub cors_origins: Origins,
    /// URL of the collector that is told of traces, over OTLP; empty: what the environment says.
    pub otlp_endpoint: String,
    /// Share of the traces that begin here and are recorded, from 0.0 to 1.0.
    pub trace_ratio: f64,
    /// Which events are logged, as a filter of `tracing`: `info,chancery_xds=debug`; empty: what `RUST_LOG` says, else `info`.
    pub log: String,
    /// What log lines look like: `auto`, which is pretty on a terminal and JSON elsewhere, `pretty` or `json`.
    pub log_format: LogFormat,
    /// The sign-in of people.
    pub oidc: OidcSettings,
}

impl Default for Settings {
    fn default() -> Self {
        let Rates { token, registrations, address } = Rates::default();
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            data_dir: PathBuf::from("chancery-data"),
            database: None,
            api_addr: local(8080),
            xds_addr: local(18000),
            admin_addr: local(9900),
            tls_cert: PathBuf::new(),
            tls_key: PathBuf::new(),
            client_ca: PathBuf::new(),
            ca_cert: PathBuf::new(),
            ca_key: PathBuf::new(),
            trust_domain: crate::identity::DEFAULT_TRUST_DOMAIN.to_owned(),
            admin_token_file: PathBuf::new(),
            xds_connection_age: Duration::from_secs(30 * 60),
            max_new_streams: NEW_STREAMS,
            replica_name: String::new(),
            load_report_interval: Duration::from_secs(10),
            audit_retention: A_YEAR,
            envoy_validate: None,
            api_token_rate: token,
            api_registration_rate: registrations,
            api_address_rate: address,
            trusted_proxies: Networks::default(),
            cors_origins: Origins::default(),
            otlp_endpoint: String::new(),
            trace_ratio: 1.0,
            log: String::new(),
            log_format: LogFormat::default(),
            oidc: OidcSettings::default(),
        }
    }
}

impl Settings {
    /// The URL of the database.
    pub fn database_url(&self) -> String {
        match &self.database {
            Some(url) => url.expose().clone(),
            None => format!("sqlite://{}", self.data_dir.join("chancery.db").display()),
        }
    }

    /// The files of the xDS server's identity.
    pub fn tls_files(&self) -> ServerTlsFiles {
        ServerTlsFiles {
            certificate: self.or_in_data_dir(&self.tls_cert, "tls/tls.crt"),
            private_key: self.or_in_data_dir(&self.tls_key, "tls/tls.key"),
            client_ca: self.or_in_data_dir(&self.client_ca, "tls/ca.crt"),
        }
    }

    /// The CA that proxies get certificates from when they enrol, if there is one.
    ///
    /// # Errors
    /// One of its two files is not set, or they cannot be used.
    pub fn authority(&self, now: OffsetDateTime) -> Result<Option<Authority>, InvalidAuthority> {
        let set = |path: &Path| !path.as_os_str().is_empty();
        match (set(&self.ca_cert), set(&self.ca_key)) {
            (false, false) => Ok(None),
            (true, true) => Ok(Some(Authority::load(&self.ca_cert, &self.ca_key, &self.trust_domain, now)?)),
            (true, false) => Err(InvalidAuthority::Half { set: "ca_cert", missing: "ca_key" }),
            (false, true) => Err(InvalidAuthority::Half { set: "ca_key", missing: "ca_cert" }),
        }
    }

    /// How long an xDS connection is kept.
    ///
    /// # Errors
    /// So short that proxies would do nothing but connect, or so long that it means never.
    pub fn connection_age(&self) -> Result<Duration, InvalidAge> {
        let age = self.xds_connection_age;
        if CONNECTION_AGES.contains(&age) { Ok(age) } else { Err(InvalidAge(age)) }
    }

    /// How this replica is called: as it is set, or as no other is, by `chance`.
    ///
    /// # Errors
    /// A name that cannot stand in a header, a table or a log.
    pub fn replica_name(&self, chance: &mut impl rand::Rng) -> Result<String, InvalidReplicaName> {
        let name = self.said_name()?;
        if !name.is_empty() {
            return Ok(name.to_owned());
        }
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| std::env::var("HOSTNAME").ok());
        let host = host.unwrap_or_default();
        let host: String =
            host.split('.').next().unwrap_or_default().chars().filter(|c| in_a_name(*c)).take(63).collect();
        let host = if host.is_empty() { "replica" } else { &host };
        let letters = (0..4).map(|_| char::from(chance.random_range(b'a'..=b'z')));
        Ok(format!("{host}-{}", letters.collect::<String>()))
    }

    /// The name that is set.
    fn said_name(&self) -> Result<&str, InvalidReplicaName> {
        let name = &self.replica_name;
        if name.chars().all(in_a_name) && name.len() <= 100 { Ok(name) } else { Err(InvalidReplicaName(name.clone())) }
    }

    /// Everything that would keep a control plane from starting with them, as far as it shows without acting.
    pub fn problems(&self) -> Vec<String> {
        let problems = [
            self.connection_age().err().map(|error| error.to_string()),
            self.load_interval().err().map(|error| error.to_string()),
            self.audit_retention().err().map(|error| error.to_string()),
            self.said_name().err().map(|error| error.to_string()),
            crate::oidc::SignIn::new(&self.oidc).err().map(|error| chancery_runtime::telemetry::chain(&error)),
            self.authority(OffsetDateTime::now_utc()).err().map(|error| chancery_runtime::telemetry::chain(&error)),
            self.traces("").err().map(|error| chancery_runtime::telemetry::chain(&error)),
        ];
        problems.into_iter().flatten().collect()
    }

    /// How often each proxy reports the load of its services.
    ///
    /// # Errors
    /// So often that it is a load by itself, or so seldom that it says nothing of now.
    pub fn load_interval(&self) -> Result<Duration, InvalidInterval> {
        let interval = self.load_report_interval;
        if LOAD_INTERVALS.contains(&interval) { Ok(interval) } else { Err(InvalidInterval(interval)) }
    }

    /// How long entries of the audit log are kept; none: for ever.
    ///
    /// # Errors
    /// So short that nobody would look in time.
    pub fn audit_retention(&self) -> Result<Option<Duration>, InvalidRetention> {
        match self.audit_retention {
            Duration::ZERO => Ok(None),
            keep if keep < SHORTEST_RETENTION => Err(InvalidRetention(keep)),
            keep => Ok(Some(keep)),
        }
    }

    /// How many requests one caller of the API may make.
    pub fn api_rates(&self) -> Rates {
        Rates { token: self.api_token_rate, registrations: self.api_registration_rate, address: self.api_address_rate }
    }

    /// Whom to tell of traces, as the replica called `instance`; none: nobody.
    ///
    /// # Errors
    /// What is set, here or in the environment, cannot be used.
    pub fn traces(&self, instance: &str) -> Result<Option<traces::Settings>, InvalidTraces> {
        let (endpoint, ratio) = (self.otlp_endpoint.as_str(), self.trace_ratio);
        let said = Said { endpoint, ratio, service: "chancery-control-plane", instance };
        traces::Settings::new(said, |name| std::env::var(name).ok())
    }

    /// The file with the admin's token.
    pub fn admin_token_path(&self) -> PathBuf {
        self.or_in_data_dir(&self.admin_token_file, "admin-token")
    }

    fn or_in_data_dir(&self, path: &Path, default: &str) -> PathBuf {
        if path.as_os_str().is_empty() { self.data_dir.join(default) } else { path.to_owned() }
    }
}

/// Whether the name of a replica may have this character.
fn in_a_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.".contains(c)
}

/// The flags: each setting under its own name, and three that act at once.
#[derive(Clone, Debug, Default, clap::Parser, Serialize)]
#[command(name = "chancery-control-plane", version, about = "Instructs and credentials fleets of Envoy proxies")]
pub struct Flags {
    /// Folder for state that is not in the database [default: chancery-data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// sqlite://PATH or postgres://USER:PASSWORD@HOST/DATABASE, where HOST may be several as A:5432,B:5432, of which the first that takes writes is used [default: chancery.db in the data folder]
    #[arg(long, value_name = "URL")]
    pub database: Option<String>,
    /// Address of the API [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub api_addr: Option<SocketAddr>,
    /// Address of xDS [default: 127.0.0.1:18000]
    #[arg(long, value_name = "ADDR")]
    pub xds_addr: Option<SocketAddr>,
    /// Address of health and metrics [default: 127.0.0.1:9900]
    #[arg(long, value_name = "ADDR")]
    pub admin_addr: Option<SocketAddr>,
    /// Certificate chain of the xDS server, PEM [default: tls/tls.crt in the data folder]
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the xDS server, PEM [default: tls/tls.key in the data folder]
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// CA of client certificates, PEM [default: tls/ca.crt in the data folder]
    #[arg(long, value_name = "FILE")]
    pub client_ca: Option<PathBuf>,
    /// Certificate of the CA that proxies get theirs from when they enrol, PEM [default: none; no proxy enrols]
    #[arg(long, value_name = "FILE")]
    pub ca_cert: Option<PathBuf>,
    /// Private key of that CA, PEM
    #[arg(long, value_name = "FILE")]
    pub ca_key: Option<PathBuf>,
    /// Trust domain of client certificates [default: chancery.local]
    #[arg(long, value_name = "DOMAIN")]
    pub trust_domain: Option<String>,
    /// File with the admin's token, made if it does not exist [default: admin-token in the data folder]
    #[arg(long, value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// How long an xDS connection is kept, a tenth more or less [default: 30m]
    #[arg(long, value_name = "DURATION")]
    pub xds_connection_age: Option<String>,
    /// How many xDS streams may be opened in a second [default: 1000]
    #[arg(long, value_name = "N")]
    pub max_new_streams: Option<NonZeroU32>,
    /// How this replica is called among others; unique [default: the host's name and four letters of chance]
    #[arg(long, value_name = "NAME")]
    pub replica_name: Option<String>,
    /// How often each proxy reports the load of its services, 1s to 1m [default: 10s]
    #[arg(long, value_name = "DURATION")]
    pub load_report_interval: Option<String>,
    /// How long entries of the audit log are kept, a day at least; 0s for ever [default: 1year]
    #[arg(long, value_name = "DURATION")]
    pub audit_retention: Option<String>,
    /// Envoy's binary, to ask it about every change before it is stored [default: none is asked]
    #[arg(long, value_name = "FILE")]
    pub envoy_validate: Option<PathBuf>,
    /// Requests a second that one token may make of the API; 0 for no limit [default: 500]
    #[arg(long, value_name = "N")]
    pub api_token_rate: Option<u32>,
    /// Requests a second that one token may make to register endpoints; 0 for no limit [default: 5000]
    #[arg(long, value_name = "N")]
    pub api_registration_rate: Option<u32>,
    /// Requests a second that may come to the API from one address; 0 for no limit [default: 5000]
    #[arg(long, value_name = "N")]
    pub api_address_rate: Option<u32>,
    /// Networks of proxies before the API that say in X-Forwarded-For who asks, as 10.0.0.0/8,::1 [default: none]
    #[arg(long, value_name = "NETWORKS")]
    pub trusted_proxies: Option<Networks>,
    /// Origins of pages that may ask the API from a browser: scheme, host and port, with commas between them [default: none]
    #[arg(long, value_name = "ORIGINS")]
    pub cors_origins: Option<Origins>,
    /// Collector that is told of traces, over OTLP, http://HOST:PORT [default: OTEL_EXPORTER_OTLP_ENDPOINT, if that is set]
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// Share of the traces that begin here and are recorded [default: 1.0]
    #[arg(long, value_name = "0.0-1.0")]
    pub trace_ratio: Option<f64>,
    /// Which events are logged, as info,chancery_xds=debug [default: RUST_LOG, or info]
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// What log lines look like: auto, pretty or json [default: auto]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// The sign-in of people.
    #[command(flatten)]
    pub oidc: OidcFlags,

    /// Settings file, TOML
    #[arg(long, value_name = "FILE", env = "CHANCERY_CONFIG")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Print the settings, secrets hidden, and exit
    #[arg(long)]
    #[serde(skip)]
    pub print_settings: bool,
}
