//! Whose connections are carried, by the networks that they come from.
//!
//! Envoy's filter for access looks at a connection when its first bytes come. In many protocols the server speaks first, so whoever may
//! not would hear it. The network is a condition of the filter chain instead: it is known before anything is carried.
//!
//! Of several conditions on networks Envoy takes the narrowest that holds, and what is denied counts even within what is
//! allowed. So what is denied as a whole is no condition at all, and what is denied in part is one of a chain that carries nothing.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
};

use crate::model::access::{Access, Caller, Network};

/// Who may connect. None of the networks is in both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sources {
    /// Whose connections are carried.
    pub(super) allowed: BTreeSet<Network>,
    /// Whose connections are not, although they are within what is allowed.
    pub(super) denied: BTreeSet<Network>,
}

/// Who may by all of `access`, as far as networks say it; `None` if everybody may.
pub(super) fn sources<'a>(access: impl Iterator<Item = &'a Access>) -> Option<Sources> {
    let mut allowed: BTreeSet<Network> =
        [Network::around(Ipv4Addr::UNSPECIFIED.into(), 0), Network::around(Ipv6Addr::UNSPECIFIED.into(), 0)].into();
    let mut denied = BTreeSet::new();
    let mut somebody = false;
    for Access { allow, deny } in access {
        somebody = true;
        if let Some(allow) = allow {
            allowed = both(&allowed, &networks(allow));
        }
        denied.extend(networks(deny));
    }
    let within_denied = Wide::of(&denied);
    allowed.retain(|network| !within_denied.covers(network));
    let within_allowed = Wide::of(&allowed);
    let denied = denied.iter().filter(|network| within_allowed.covers(network)).copied().collect();
    somebody.then_some(Sources { allowed, denied })
}

fn networks(callers: &[Caller]) -> BTreeSet<Network> {
    callers.iter().flat_map(|caller| &caller.networks).copied().collect()
}

/// What is in both.
fn both(a: &BTreeSet<Network>, b: &BTreeSet<Network>) -> BTreeSet<Network> {
    let within = |these: &BTreeSet<Network>, those: &BTreeSet<Network>| {
        let those = Wide::of(those);
        these.iter().filter(|network| those.covers(network)).copied().collect::<Vec<_>>()
    };
    within(a, b).into_iter().chain(within(b, a)).collect()
}

/// Networks, and how long they are: to find one around another is a look for each length.
struct Wide<'a> {
    networks: &'a BTreeSet<Network>,
    lengths: BTreeSet<u8>,
}

impl<'a> Wide<'a> {
    fn of(networks: &'a BTreeSet<Network>) -> Self {
        Self { networks, lengths: networks.iter().map(|network| network.length).collect() }
    }

    /// Whether one of them is `network`, or around it.
    fn covers(&self, network: &Network) -> bool {
        let around = |length: u8| Network::around(network.address, length);
        self.lengths.range(..=network.length).any(|length| self.networks.contains(&around(*length)))
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    fn network(text: &str) -> Network {
        let (address, length) = text.split_once('/').unwrap();
        Network { address: address.parse().unwrap(), length: length.parse().unwrap() }
    }

    fn callers(networks: &[&str]) -> Vec<Caller> {
        let of = |text: &&str| Caller { clients: vec![], networks: vec![network(text)], headers: vec![] };
        networks.iter().map(of).collect()
    }

    fn access(allow: Option<&[&str]>, deny: &[&str]) -> Access {
        Access { allow: allow.map(callers), deny: callers(deny) }
    }

    fn told(access: &[Access]) -> (Vec<String>, Vec<String>) {
        let Sources { allowed, denied } = sources(access.iter()).expect("conditions");
        let texts = |networks: BTreeSet<Network>| {
            networks.iter().map(|network| format!("{}/{}", network.address, network.length)).collect()
        };
        (texts(allowed), texts(denied))
    }

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn what_is_denied_counts_within_what_is_allowed_and_around_it() {
        let office: &[&str] = &["10.0.0.0/8"];
        for (access, allowed, denied) in [
            (vec![access(Some(office), &[])], office, &[] as &[&str]),
            (vec![access(Some(office), &["10.1.0.0/16", "192.0.2.0/24"])], office, &["10.1.0.0/16"]),
            (vec![access(Some(&["10.1.0.0/16", "::1/128"]), office)], &["::1/128"], &[]),
            (vec![access(None, &["10.0.0.0/8"])], &["0.0.0.0/0", "::/0"], &["10.0.0.0/8"]),
            (vec![access(None, &["0.0.0.0/0"])], &["::/0"], &[]),
            (vec![access(None, &["0.0.0.0/0", "::/0"])], &[], &[]),
            (
                vec![access(Some(office), &[]), access(Some(&["10.1.0.0/16", "11.0.0.0/8"]), &["10.1.1.0/24"])],
                &["10.1.0.0/16"],
                &["10.1.1.0/24"],
            ),
        ] {
            assert_eq!(told(&access), (strings(allowed), strings(denied)), "{access:?}");
        }
        assert_eq!(sources([].into_iter()), None);
    }

    /// Of few addresses, so that networks meet.
    fn any_networks() -> impl Strategy<Value = Vec<Caller>> {
        let network = (0..8_u32, 0..=32_u8).prop_map(|(high, length)| Caller {
            clients: vec![],
            networks: vec![Network::around(IpAddr::V4((high << 29).into()), length)],
            headers: vec![],
        });
        proptest::collection::vec(network, 0..4)
    }

    proptest! {
        #[test]
        fn the_narrowest_condition_says_what_all_of_them_mean(
            several in proptest::collection::vec((proptest::option::of(any_networks()), any_networks()), 1..3),
            address in any::<u32>(),
        ) {
            let several: Vec<Access> = several.into_iter().map(|(allow, deny)| Access { allow, deny }).collect();
            let address = IpAddr::V4(address.into());
            let names = |callers: &[Caller]| {
                let mut networks = callers.iter().flat_map(|caller| &caller.networks);
                networks.any(|network| Network::around(address, network.length) == *network)
            };
            let may = several.iter().all(|Access { allow, deny }| {
                allow.as_ref().is_none_or(|allow| names(allow)) && !names(deny)
            });
            let Sources { allowed, denied } = sources(several.iter()).unwrap();
            let narrowest = |networks: &BTreeSet<Network>| {
                let holding = networks.iter().filter(|network| Network::around(address, network.length) == **network);
                holding.map(|network| network.length).max()
            };
            let carried = match (narrowest(&allowed), narrowest(&denied)) {
                (Some(allowed), Some(denied)) => {
                    prop_assert_ne!(allowed, denied);
                    allowed > denied
                }
                (allowed, _) => allowed.is_some(),
            };
            prop_assert_eq!(carried, may);
        }
    }
}
