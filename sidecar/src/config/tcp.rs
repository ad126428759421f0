//! TCP that goes out as it is: what a listener does with it, and which listeners this sidecar takes on. Pure.

use std::{
    fmt,
    net::{AddrParseError, SocketAddr},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::share;

/// So long may both sides of a connection be silent, if nothing is said about it (Envoy's `idle_timeout` of TCP).
pub const IDLE: Duration = Duration::from_secs(3600);

/// What a listener does with the connections that it carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpProxy {
    /// Where the application connects, on the loopback interface; `None`: the listener names no port.
    pub address: Option<SocketAddr>,
    /// Clusters and their shares; at least one, and one share that is not zero.
    pub clusters: Vec<(Arc<str>, u32)>,
    /// How long both sides may be silent; `None`: for ever.
    pub idle_timeout: Option<Duration>,
    /// How often an endpoint is connected to before a connection is given up; at least 1.
    pub connect_attempts: u32,
}

impl TcpProxy {
    /// The cluster for a random number from 0 to 1.
    pub fn cluster(&self, chance: f64) -> &Arc<str> {
        share::cluster(&self.clusters, chance)
    }
}

/// A listener that this sidecar takes on, in text `NAME` or `NAME=ADDRESS`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TcpPort {
    /// Its name.
    pub listener: Arc<str>,
    /// Where the application connects; `None`: where the listener says.
    pub address: Option<SocketAddr>,
}

/// Why a text names no listener to take on.
#[derive(Debug, thiserror::Error)]
pub enum InvalidTcpPort {
    /// Nothing before the address.
    #[error("{0:?} does not begin with the name of a listener")]
    NoName(String),
    /// What follows the name is no address.
    #[error("{0:?} is no address with a port, such as 127.0.0.1:5432")]
    Address(String, #[source] AddrParseError),
}

impl FromStr for TcpPort {
    type Err = InvalidTcpPort;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Names may have such a sign in them, addresses have none.
        let (listener, address) = match text.rsplit_once('=') {
            Some((listener, address)) => {
                let parsed = address.parse().map_err(|source| InvalidTcpPort::Address(address.to_owned(), source))?;
                (listener, Some(parsed))
            }
            None => (text, None),
        };
        if listener.is_empty() {
            return Err(InvalidTcpPort::NoName(text.to_owned()));
        }
        Ok(Self { listener: listener.into(), address })
    }
}

impl TryFrom<String> for TcpPort {
    type Error = InvalidTcpPort;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<TcpPort> for String {
    fn from(port: TcpPort) -> Self {
        port.to_string()
    }
}

impl fmt::Display for TcpPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{}={address}", self.listener),
            None => f.write_str(&self.listener),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_a_name_and_perhaps_an_address() {
        for (text, listener, address) in [
            ("db", "db", None),
            ("db=127.0.0.1:5432", "db", Some("127.0.0.1:5432")),
            ("a=b=[::1]:0", "a=b", Some("[::1]:0")),
        ] {
            let port: TcpPort = text.parse().unwrap();
            let read = (&*port.listener, port.address.map(|address| address.to_string()));
            assert_eq!(read, (listener, address.map(str::to_owned)), "{text}");
            assert_eq!(port.to_string(), text);
        }
        for text in ["", "=127.0.0.1:1", "db=", "db=5432", "db=localhost:1"] {
            assert!(text.parse::<TcpPort>().is_err(), "{text:?}");
        }
    }
}
