//! What proxies write of requests, and where.

use std::{collections::BTreeMap, time::Duration};

use super::Name;

/// A log of the requests of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// Where it is written.
    pub to: Sink,
    /// Of which requests; of all by default.
    pub filter: Filter,
}

/// Where a log is written, and how, where that can be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sink {
    /// The standard output of the proxy.
    Stdout(Format),
    /// Its standard error.
    Stderr(Format),
    /// A file on its machine, to which lines are added.
    File {
        /// The path, as the proxy sees it.
        path: String,
        /// What a line says.
        format: Format,
    },
    /// A service that takes Envoy's messages.
    Service(LogService),
    /// The control plane, which keeps the last requests seen.
    ControlPlane,
}

/// A service that takes logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogService {
    /// The service.
    pub service: Name,
    /// What the log is called there.
    pub log_name: String,
    /// Headers of requests that are told besides, in lower case.
    pub request_headers: Vec<String>,
    /// Headers of answers that are told besides, in lower case.
    pub response_headers: Vec<String>,
    /// How long what was logged may wait for more.
    pub flush_interval: Duration,
    /// How many bytes of it may wait.
    pub buffer: u32,
}

/// What a line says, by Envoy's command operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// A text; each line ends with a newline.
    Text(String),
    /// An object of JSON on a line of its own: what each field says.
    Json(BTreeMap<String, Field>),
}

/// What a field of an object says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// This text; one that is a single operator has the type of what that says.
    Text(String),
    /// An object of its own.
    Object(BTreeMap<String, Field>),
}

impl Format {
    /// What a line says where nothing else is asked for: what Envoy's does, without queries, which may hold secrets.
    pub const DEFAULT: &str = concat!(
        r#"[%START_TIME%] "%REQ(:METHOD)% %PATH(NQ:ORIG_OR_PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% "#,
        r#"%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "#,
        r#""%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%""#,
    );
}

/// Of which requests: all conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// At least this status.
    pub min_status: Option<u16>,
    /// Took at least so long.
    pub min_duration: Option<Duration>,
    /// Only failures: a status of 500 and above, or something that Envoy has a flag for.
    pub only_errors: bool,
    /// Only so many of them, by chance.
    pub share: Option<Share>,
}

/// A share of all, in hundredths of a percent: 0 to 10,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u32);

impl Share {
    /// None.
    pub const NONE: Self = Self(0);

    /// One of a hundred.
    pub const ONE_PERCENT: Self = Self(100);

    /// All.
    pub const ALL: Self = Self(10_000);

    /// So many hundredths of a percent, if that is a share.
    pub fn of_hundredths(hundredths: u32) -> Option<Self> {
        (hundredths <= Self::ALL.0).then_some(Self(hundredths))
    }

    /// In hundredths of a percent.
    pub fn hundredths(self) -> u32 {
        self.0
    }
}
