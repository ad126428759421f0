//! Where a request comes from, behind proxies or not.
//!
//! `X-Forwarded-For` is believed as far as it was written by proxies that are trusted: from its end, up to the first address that
//! is none of theirs. What stands before that anybody may have made up.

use std::{fmt, net::IpAddr, str::FromStr};

use axum::http::{HeaderMap, HeaderName};
use serde::{Deserialize, Serialize};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Addresses with the same beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    /// The first of them.
    address: IpAddr,
    /// Bits that they share.
    length: u8,
}

/// A list of networks, as `10.0.0.0/8, ::1`. An address alone is a network of one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Networks(Vec<Network>);

/// A text that is no list of networks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a network; write an address, with / and a number of bits if more than one is meant, as 10.0.0.0/8"
)]
pub struct InvalidNetwork(String);

impl Networks {
    fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// Who sends a request that comes from `peer` with these headers.
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        let lines: Vec<&str> =
            headers.get_all(FORWARDED_FOR).iter().map(|line| line.to_str().unwrap_or_default()).collect();
        let mut told = lines.iter().rev().flat_map(|line| line.rsplit(','));
        while self.contains(client) {
            // What cannot be read says nothing; then it is the proxy that asks.
            let Some(before) = told.next().and_then(parse) else { break };
            client = before;
        }
        client
    }
}

/// An address as proxies write it: some with its port.
fn parse(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let address = text.parse().ok().or_else(|| text.parse().ok().map(|socket: std::net::SocketAddr| socket.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                same_start(u128::from(own.to_bits()), u128::from(other.to_bits()), 32 - u32::from(self.length))
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                same_start(own.to_bits(), other.to_bits(), 128 - u32::from(self.length))
            }
            _ => false,
        }
    }
}

/// Whether `a` and `b` differ in their last `rest` bits only.
fn same_start(a: u128, b: u128, rest: u32) -> bool {
    (a ^ b).checked_shr(rest).unwrap_or(0) == 0
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let invalid = || InvalidNetwork(text.to_owned());
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            Some(length) => length.parse().ok().filter(|length| *length <= most).ok_or_else(invalid)?,
            None => most,
        };
        Ok(Self { address, length })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Networks {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl TryFrom<String> for Networks {
    type Error = InvalidNetwork;

    fn try_from(text: String) -> Result<Self, InvalidNetwork> {
        text.parse()
    }
}

impl From<Networks> for String {
    fn from(Networks(networks): Networks) -> Self {
        networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_and_written() {
        let networks: Networks = "10.0.0.0/8, ::1,fd00::/8".parse().unwrap();
        assert_eq!(String::from(networks), "10.0.0.0/8,::1/128,fd00::/8");
        assert_eq!("".parse::<Networks>().unwrap(), Networks::default());
        for text in ["10.0.0.0/33", "10.0.0/8", "::/129", "a", "10.0.0.0/-1", "10.0.0.0/", "10.0.0.1/8/8"] {
            assert!(text.parse::<Networks>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_network_is_what_starts_like_it() {
        let contains =
            |network: &str, address: &str| network.parse::<Networks>().unwrap().contains(address.parse().unwrap());
        assert!(contains("10.0.0.0/8", "10.255.1.2") && !contains("10.0.0.0/8", "11.0.0.0"));
        assert!(contains("0.0.0.0/0", "255.1.2.3") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("::/0", "fd00::1") && contains("fd00::/8", "fdff::1") && !contains("fd00::/8", "fe80::1"));
        assert!(contains("127.0.0.1", "::ffff:127.0.0.1") && !contains("127.0.0.1", "127.0.0.2"));
    }

    #[test]
    fn what_trusted_proxies_say_is_believed_and_nothing_else() {
        let trusted: Networks = "10.0.0.0/8".parse().unwrap();
        for (peer, told, client) in [
            ("192.0.2.1", vec!["198.51.100.7"], "192.0.2.1"),
            ("10.0.0.1", vec![], "10.0.0.1"),
            ("10.0.0.1", vec!["198.51.100.7"], "198.51.100.7"),
            ("::ffff:10.0.0.1", vec!["198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", vec!["203.0.113.9, 198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", vec!["203.0.113.9", "198.51.100.7, 10.0.0.2"], "198.51.100.7"),
            ("10.0.0.1", vec!["198.51.100.7:4711"], "198.51.100.7"),
            ("10.0.0.1", vec!["[2001:db8::1]:4711"], "2001:db8::1"),
            ("10.0.0.1", vec!["198.51.100.7, unknown"], "10.0.0.1"),
            ("10.0.0.1", vec!["10.0.0.3"], "10.0.0.3"),
        ] {
            let mut headers = HeaderMap::new();
            for line in &told {
                headers.append(FORWARDED_FOR, line.parse().unwrap());
            }
            assert_eq!(trusted.client(peer.parse().unwrap(), &headers).to_string(), client, "{peer} {told:?}");
        }
        let mut headers = HeaderMap::new();
        headers.append(FORWARDED_FOR, "198.51.100.7".parse().unwrap());
        let peer = "10.0.0.1".parse().unwrap();
        assert_eq!(Networks::default().client(peer, &headers), peer, "by default nobody is believed");
    }
}
