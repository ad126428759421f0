//! Who may send requests: to a listener, or by a rule. Pure.

use std::net::IpAddr;

use super::{route::NamedMatch, service::tls::Peer};

/// Who may. Whoever is denied may not, even if allowed too.
#[derive(Clone, Debug, PartialEq)]
pub struct Access {
    /// Nobody but these; everybody if it is not given. Not empty.
    pub allow: Option<Vec<Caller>>,
    /// These may not. Not empty unless there is `allow`.
    pub deny: Vec<Caller>,
}

impl Access {
    /// Whether it tells callers apart by their certificates.
    pub fn names_clients(&self) -> bool {
        self.callers().any(|caller| !caller.clients.is_empty())
    }

    /// Whether it tells callers apart by headers.
    pub fn names_headers(&self) -> bool {
        self.callers().any(|caller| !caller.headers.is_empty())
    }

    /// Everybody whom it names.
    pub fn callers(&self) -> impl Iterator<Item = &Caller> {
        self.allow.iter().flatten().chain(&self.deny)
    }
}

/// Some callers: all parts that are not empty must hold, and one of them is not.
#[derive(Clone, Debug, PartialEq)]
pub struct Caller {
    /// One of these is named in the certificate.
    pub clients: Vec<Peer>,
    /// One of these has the address of the client, as the proxies in front that are trusted tell it.
    pub networks: Vec<Network>,
    /// All of these hold for the headers of the request.
    pub headers: Vec<NamedMatch>,
}

/// A network, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network {
    /// The address, of which no bit beyond `length` is set.
    pub address: IpAddr,
    /// How many bits of it count.
    pub length: u8,
}

impl Network {
    /// The one of so many bits that `address` is in.
    pub fn around(address: IpAddr, length: u8) -> Self {
        // A shift by all bits is none: nothing is kept of the address.
        let address = match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32_u32.saturating_sub(length.into())).unwrap_or(0);
                IpAddr::V4((v4.to_bits() & mask).into())
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128_u32.saturating_sub(length.into())).unwrap_or(0);
                IpAddr::V6((v6.to_bits() & mask).into())
            }
        };
        Self { address, length }
    }
}
