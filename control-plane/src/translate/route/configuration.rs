//! The `RouteConfiguration` of a listener, in two forms.
//!
//! For state-of-the-world xDS it holds every virtual host. It is put together from their encoded bytes: a message
//! in a protobuf field is its bytes behind a tag and a length, so one changed host costs one encoding, not all of them.
//!
//! For delta xDS it says where the virtual hosts come from (VHDS), and never changes.
//!
//! What Envoy 1.40 does with the latter (seen on the wire) is what a server has to know:
//! - it asks for virtual hosts once per stream, with an empty list that means all of them, not once per listener;
//! - a virtual host that comes before its route configuration is acknowledged and forgotten, so the hosts of a
//!   listener must follow its route configuration on the stream, also when both are new;
//! - a listener whose route configuration announces virtual hosts opens with the first of them, or after 15 s without;
//! - a route configuration that stops announcing them does not make Envoy forget the hosts it has: they come
//!   back, deleted routes and all, when it announces them again.
//!
//! The last two are why every listener has one host more than its routes claim, [`placeholder`].
//!
//! A listener may want its routes whole even so ([`RouteDelivery`]). Then it names another configuration: both forms are there,
//! and a proxy asks for what its listener names. One name for both would lose requests when the form is changed: the
//! configuration that announces hosts comes before them, and hosts of the time before come back with it.
//! Another name changes the listener, which Envoy puts in place of the old one only when it has all of its routes.
//!
//! Envoys from before envoyproxy/envoy#41996 (end of 2025) refuse virtual hosts over ADS altogether.

use bytes::{BufMut, Bytes, BytesMut};
use chancery_proto::{
    Message,
    envoy::route::{RouteConfiguration, Vhds, VirtualHost},
};
use prost::encoding::{WireType, encode_key, encode_varint};

use crate::{
    model::{Name, listener::RouteDelivery},
    translate::value::{ads, flag},
};

/// Number of the field `virtual_hosts`.
const VIRTUAL_HOSTS: u32 = 2;

/// A whole configuration called `name`: encoded, with `virtual_hosts` (each encoded) in the order given,
/// which is to be that of their names.
pub fn route_configuration<'a>(name: &str, virtual_hosts: impl IntoIterator<Item = &'a [u8]>) -> Bytes {
    let mut bytes = BytesMut::new();
    put(&mut bytes, &RouteConfiguration { name: name.to_owned(), ..RouteConfiguration::default() });
    for host in virtual_hosts {
        encode_key(VIRTUAL_HOSTS, WireType::LengthDelimited, &mut bytes);
        encode_varint(host.len() as u64, &mut bytes);
        bytes.put_slice(host);
    }
    put(&mut bytes, &settings());
    bytes.freeze()
}

/// The name of the configuration that a listener asks for. Those with a prefix are of no listener, nor of a patch.
pub fn route_configuration_name(listener: &Name, delivery: RouteDelivery) -> String {
    match delivery {
        RouteDelivery::PerHost => listener.to_string(),
        RouteDelivery::Whole => format!("chancery.whole.{listener}"),
    }
}

/// The configuration of `listener` whose virtual hosts come one by one.
pub fn route_configuration_by_host(listener: &Name) -> RouteConfiguration {
    RouteConfiguration { name: listener.to_string(), vhds: Some(Vhds { config_source: Some(ads()) }), ..settings() }
}

/// A virtual host of `listener` that no request can be for: where hosts come one by one, it makes sure that
/// there is one. The top-level domain is reserved never to exist (RFC 2606).
pub fn placeholder(listener: &Name) -> VirtualHost {
    let host = "none.chancery.invalid";
    VirtualHost { name: format!("{listener}/{host}"), domains: vec![host.to_owned()], ..VirtualHost::default() }
}

/// What both forms share. All of it has a higher field number than the virtual hosts: it is encoded behind them.
fn settings() -> RouteConfiguration {
    RouteConfiguration {
        // `example.com:8080` is a request for `example.com`: the port is that of the listener.
        ignore_port_in_host_matching: true,
        // Clusters and routes arrive on their own; a route that came first must not be refused.
        validate_clusters: Some(flag(false)),
        ..RouteConfiguration::default()
    }
}

fn put(bytes: &mut BytesMut, message: &RouteConfiguration) {
    bytes.reserve(message.encoded_len());
    message.encode_raw(bytes);
}

#[cfg(test)]
mod tests {
    use chancery_proto::envoy::route::VirtualHost;

    use super::*;
    use crate::translate::testing::{name, snapshot};

    #[test]
    fn concatenated_bytes_are_those_of_the_whole_message() {
        let host = |text: &str| VirtualHost { name: text.into(), ..VirtualHost::default() };
        let virtual_hosts = vec![host("web/a.example.com"), host(&"x".repeat(300)), host("web/b.example.com")];
        let encoded: Vec<Vec<u8>> = virtual_hosts.iter().map(Message::encode_to_vec).collect();
        let whole = RouteConfiguration { name: "web".into(), virtual_hosts, ..settings() };
        let bytes = route_configuration("web", encoded.iter().map(Vec::as_slice));
        assert_eq!(bytes, whole.encode_to_vec());
    }

    #[test]
    fn hosts_are_asked_for_one_by_one() {
        insta::assert_snapshot!(snapshot(&route_configuration_by_host(&name("web"))));
    }
}
