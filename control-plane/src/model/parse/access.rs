//! Who may send requests.

use std::net::IpAddr;

use super::{
    rule::matches::header_match,
    service::{all, tls::peer},
};
use crate::model::{
    access::{Access, Caller, Network},
    problem::{Problems, Quoted},
    wire::{AccessSpec, CallerSpec},
};

pub(super) fn access(spec: &AccessSpec, problems: &mut Problems) -> Option<Access> {
    let AccessSpec { allow, deny } = spec;
    if allow.is_none() && deny.is_none() {
        problems.report("needs allow or deny");
    }
    let allow = allow.as_ref().map(|callers| problems.at("allow").each(callers, caller));
    let deny = problems.at("deny").each(deny.iter().flatten(), caller);
    Some(Access { allow: all(allow)?, deny: deny? })
}

fn caller(spec: &CallerSpec, problems: &mut Problems) -> Option<Caller> {
    let CallerSpec { clients, networks, headers } = spec;
    if clients.is_none() && networks.is_none() && headers.is_none() {
        problems.report("needs clients, networks or headers");
    }
    let clients = problems.at("clients").each(clients.iter().flatten(), peer);
    let networks = problems.at("networks").each(networks.iter().flatten(), |text, problems| problems.ok(network(text)));
    let headers = problems.at("headers").each(headers.iter().flatten().cloned(), header_match);
    Some(Caller { clients: clients?, networks: networks?, headers: headers? })
}

/// `10.0.0.0/8`, or an address.
fn network(text: &str) -> Result<Network, String> {
    let is_not = || format!("{} is not a network such as 10.0.0.0/8, nor an IP address", Quoted(text));
    let (address, length) = match text.split_once('/') {
        None => (text, None),
        Some((address, length)) => (address, Some(length)),
    };
    let address: IpAddr = address.parse().map_err(|_| is_not())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => most,
        Some(length) => length.parse().ok().filter(|length| *length <= most).ok_or_else(is_not)?,
    };
    let network = Network::around(address, length);
    if network.address != address {
        let first = network.address;
        return Err(format!("{address} is in the network {first}/{length}; write that, or the address alone"));
    }
    Ok(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_begin_where_they_say() {
        for (text, address, length) in [
            ("0.0.0.0/0", "0.0.0.0", 0),
            ("10.0.0.0/8", "10.0.0.0", 8),
            ("192.0.2.7", "192.0.2.7", 32),
            ("192.0.2.7/32", "192.0.2.7", 32),
            ("::/0", "::", 0),
            ("2001:db8::/32", "2001:db8::", 32),
            ("::1", "::1", 128),
        ] {
            assert_eq!(network(text), Ok(Network { address: address.parse().unwrap(), length }), "{text}");
        }
        for text in ["", "10.0.0.0/", "10.0.0.0/33", "::/129", "10/8", "10.0.0.0/-1", "a", "10.0.0.0/8/8"] {
            assert!(network(text).unwrap_err().contains("is not a network"), "{text}");
        }
        for (text, meant) in [("10.0.0.1/8", "10.0.0.0/8"), ("0.0.0.1/0", "0.0.0.0/0"), ("::1/127", "::/127")] {
            assert!(network(text).unwrap_err().contains(meant), "{text}");
        }
    }
}
