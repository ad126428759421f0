//! What can be set about a sidecar, and the flags that set it.
//!
//! One struct is the file, the environment (`CHANCERY_…`) and the flags at once. What it serves comes over xDS; here is where
//! it stands, who it is, and what it lets in.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    path::PathBuf,
};

use chancery_runtime::telemetry::LogFormat;
use serde::{Deserialize, Serialize};

use crate::config::tcp::TcpPort;

/// The settings of a sidecar.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The file with which an Envoy of the same fleet would start.
    pub bootstrap: PathBuf,
    /// Where others reach the application.
    pub inbound_addr: SocketAddr,
    /// Where the application reaches others.
    pub outbound_addr: SocketAddr,
    /// Where health, metrics and the configuration in force are shown.
    pub admin_addr: SocketAddr,
    /// Where the application itself listens.
    pub app_addr: SocketAddr,
    /// Take plaintext from others, whoever they are, and speak it with the control plane if the bootstrap file says so.
    pub insecure: bool,
    /// What others may speak.
    pub inbound_protocol: InboundProtocol,
    /// The trust domain of callers.
    pub trust_domain: String,
    /// Who of it may call: paths of SPIFFE IDs, separated by commas, each perhaps ending in `*`; empty: all.
    pub allow: String,
    /// Which service the application is, whose cluster says how many requests are let in at once; empty: none that is known.
    pub service: String,
    /// By the routes of which listener requests go out; empty: of any.
    pub listener: String,
    /// Which listeners that carry TCP have a port here, and where if not where they say themselves.
    pub tcp_listener: Vec<TcpPort>,
    /// Where the configuration in force is kept for a start without the control plane; empty: nowhere.
    pub saved_config: PathBuf,
    /// Requests a second that are let in; 0: any number.
    pub inbound_rate: u32,
    /// Requests at once that are let in, whatever the service says; 0: as many as the application takes without becoming slower.
    pub inbound_requests: u32,
    /// Requests at once that go out.
    pub outbound_requests: u32,
    /// Connections at once, of each port.
    pub max_connections: usize,
    /// How long a caller may neither go on with what it sends nor take what it asked for.
    pub stall_seconds: NonZeroU32,
    /// How long requests may take to end once a stop was asked for.
    pub drain_seconds: u64,
    /// URL of the collector that is told of traces, over OTLP; empty: what the environment says.
    pub otlp_endpoint: String,
    /// Share of the traces that begin here and are recorded, from 0.0 to 1.0.
    pub trace_ratio: f64,
    /// Which events are logged, as a filter of `tracing`: `info,chancery_xds=debug`; empty: what `RUST_LOG` says, else `info`.
    pub log: String,
    /// What log lines look like: `auto`, which is pretty on a terminal and JSON elsewhere, `pretty` or `json`.
    pub log_format: LogFormat,
}

/// What others may speak with the application.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum InboundProtocol {
    /// HTTP/1.1 and HTTP/2.
    #[default]
    Http,
    /// Anything: the bytes reach the application as they are.
    Tcp,
    /// HTTP, or what a caller's first bytes show to be something else.
    Detect,
}

impl Default for Settings {
    fn default() -> Self {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            bootstrap: PathBuf::new(),
            inbound_addr: local(15006),
            outbound_addr: local(15001),
            admin_addr: local(15020),
            app_addr: local(8080),
            insecure: false,
            inbound_protocol: InboundProtocol::default(),
            trust_domain: "chancery.local".to_owned(),
            allow: String::new(),
            service: String::new(),
            listener: String::new(),
            tcp_listener: Vec::new(),
            saved_config: PathBuf::new(),
            inbound_rate: 0,
            inbound_requests: 0,
            outbound_requests: 10_000,
            max_connections: 10_000,
            stall_seconds: NonZeroU32::MIN.saturating_add(299),
            drain_seconds: 25,
            otlp_endpoint: String::new(),
            trace_ratio: 1.0,
            log: String::new(),
            log_format: LogFormat::default(),
        }
    }
}

impl Settings {
    /// Who may call.
    pub fn allowed(&self) -> Vec<String> {
        self.allow.split(',').map(str::trim).filter(|one| !one.is_empty()).map(str::to_owned).collect()
    }

    /// Requests a second that are let in.
    pub fn inbound_rate(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.inbound_rate)
    }
}

/// The flags: each setting under its own name, and two that act at once.
#[derive(Clone, Debug, Default, clap::Parser, Serialize)]
#[command(name = "chancery-sidecar", version, about = "Stands beside a service and sees to it that its calls succeed")]
#[serde(rename_all = "snake_case")]
pub struct Flags {
    /// The file with which an Envoy of the same fleet would start (`chancery bootstrap`)
    #[arg(long, value_name = "FILE")]
    pub bootstrap: Option<PathBuf>,
    /// Where others reach the application [default: 127.0.0.1:15006]
    #[arg(long, value_name = "ADDR")]
    pub inbound_addr: Option<SocketAddr>,
    /// Where the application reaches others [default: 127.0.0.1:15001]
    #[arg(long, value_name = "ADDR")]
    pub outbound_addr: Option<SocketAddr>,
    /// Address of health, metrics and the configuration in force [default: 127.0.0.1:15020]
    #[arg(long, value_name = "ADDR")]
    pub admin_addr: Option<SocketAddr>,
    /// Where the application itself listens [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub app_addr: Option<SocketAddr>,
    /// Take plaintext from others, whoever they are
    #[arg(long, num_args = 0, default_missing_value = "true")]
    pub insecure: Option<bool>,
    /// What others may speak; `detect` looks at a caller's first bytes [default: http]
    #[arg(long, value_name = "PROTOCOL")]
    pub inbound_protocol: Option<InboundProtocol>,
    /// Trust domain of callers [default: chancery.local]
    #[arg(long, value_name = "DOMAIN")]
    pub trust_domain: Option<String>,
    /// Who of it may call: paths of SPIFFE IDs, separated by commas, each perhaps ending in * [default: all]
    #[arg(long, value_name = "PATHS")]
    pub allow: Option<String>,
    /// Which service the application is: its `adaptiveConcurrency` says how many requests are let in at once
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// By the routes of which listener requests go out [default: of any]
    #[arg(long, value_name = "NAME")]
    pub listener: Option<String>,
    /// A listener that carries TCP and has a port here, where it says itself or at this address; may be said more than once
    #[arg(long, value_name = "NAME[=ADDR]")]
    pub tcp_listener: Option<Vec<TcpPort>>,
    /// File that keeps the configuration in force, for a start without the control plane
    #[arg(long, value_name = "FILE")]
    pub saved_config: Option<PathBuf>,
    /// Requests a second that are let in [default: any number]
    #[arg(long, value_name = "N")]
    pub inbound_rate: Option<u32>,
    /// Requests at once that are let in, whatever --service says [default: as many as the application takes without becoming slower]
    #[arg(long, value_name = "N")]
    pub inbound_requests: Option<u32>,
    /// Requests at once that go out [default: 10000]
    #[arg(long, value_name = "N")]
    pub outbound_requests: Option<u32>,
    /// Connections at once, of each port [default: 10000]
    #[arg(long, value_name = "N")]
    pub max_connections: Option<usize>,
    /// How long a caller may neither go on with what it sends nor take what it asked for [default: 300]
    #[arg(long, value_name = "SECONDS")]
    pub stall_seconds: Option<NonZeroU32>,
    /// How long requests may take to end once a stop was asked for [default: 25]
    #[arg(long, value_name = "SECONDS")]
    pub drain_seconds: Option<u64>,
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
    /// Settings file, TOML
    #[arg(long, value_name = "FILE", env = "CHANCERY_SETTINGS")]
    #[serde(skip)]
    pub settings: Option<PathBuf>,
    /// Print the settings and exit
    #[arg(long)]
    #[serde(skip)]
    pub print_settings: bool,
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn flags_say_what_is_set() {
        let arguments =
            ["chancery-sidecar", "--insecure", "--allow", "fleet/edge/*, team/a ,", "--inbound-protocol", "detect"];
        let flags = Flags::parse_from(arguments);
        let settings: Settings = chancery_runtime::settings::load(&flags, [], None).unwrap();
        assert!(settings.insecure);
        assert_eq!(settings.inbound_protocol, InboundProtocol::Detect);
        assert_eq!(settings.allowed(), ["fleet/edge/*", "team/a"]);
        assert!(chancery_runtime::settings::print(&settings).unwrap().contains("drain_seconds = 25"));
    }

    #[test]
    fn listeners_are_named_one_by_one_or_in_a_list() {
        let ports = |settings: &Settings| settings.tcp_listener.iter().map(ToString::to_string).collect::<Vec<_>>();
        let arguments = ["chancery-sidecar", "--tcp-listener", "db", "--tcp-listener", "cache=127.0.0.1:6379"];
        let flags = Flags::parse_from(arguments);
        let settings: Settings = chancery_runtime::settings::load(&flags, [], None).unwrap();
        assert_eq!(ports(&settings), ["db", "cache=127.0.0.1:6379"]);
        let variable = ("CHANCERY_TCP_LISTENER".to_owned(), "db, cache=127.0.0.1:6379".to_owned());
        let from_environment = chancery_runtime::settings::load(&Flags::default(), [variable], None).unwrap();
        assert_eq!(ports(&from_environment), ports(&settings));
        let printed = chancery_runtime::settings::print(&settings).unwrap();
        assert!(printed.contains("\"cache=127.0.0.1:6379\""), "{printed}");
        assert!(Flags::try_parse_from(["chancery-sidecar", "--tcp-listener", "db=5432"]).is_err());
    }
}
