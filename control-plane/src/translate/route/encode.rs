//! A virtual host as bytes, always the same ones.
//!
//! `prost` writes the entries of a map in whatever order it finds them, and routes hold maps: what each filter is to know.
//! Here they are written in the order of their keys, the fields around them as `prost` does. Bytes that changed by
//! chance would be another version: sent to every proxy after each restart, and by each replica anew.

use std::{collections::BTreeMap, mem};

use bytes::Bytes;
use chancery_proto::{
    Message,
    envoy::route::{Route, VirtualHost},
    google::protobuf::Any,
};
use prost::encoding;

use crate::translate::value::encode_map;

/// `envoy.config.route.v3.VirtualHost.routes`.
const ROUTES: u32 = 3;

/// `envoy.config.route.v3.Route.typed_per_filter_config`.
const PER_FILTER: u32 = 13;

/// `host`, encoded. The routes come last, which is as good a place as any.
pub fn encode_virtual_host(mut host: VirtualHost) -> Bytes {
    let routes = mem::take(&mut host.routes);
    let mut bytes = host.encode_to_vec();
    for route in routes {
        encoding::bytes::encode(ROUTES, &encode_route(route), &mut bytes);
    }
    bytes.into()
}

fn encode_route(mut route: Route) -> Vec<u8> {
    let per_filter: BTreeMap<String, Any> = mem::take(&mut route.typed_per_filter_config).into_iter().collect();
    let mut bytes = route.encode_to_vec();
    encode_map(PER_FILTER, &per_filter, &mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(filters: &[&str]) -> VirtualHost {
        let settings = |name: &&str| ((*name).to_owned(), Any { type_url: (*name).to_owned(), value: vec![1, 2] });
        let route = |name: &str| Route {
            name: name.to_owned(),
            typed_per_filter_config: filters.iter().map(settings).collect(),
            ..Route::default()
        };
        VirtualHost { name: "web/*".into(), routes: vec![route("a/0"), route("b/0")], ..VirtualHost::default() }
    }

    #[test]
    fn what_was_encoded_decodes() {
        let host = host(&["one", "two", "three"]);
        assert_eq!(VirtualHost::decode(encode_virtual_host(host.clone())).unwrap(), host);
    }

    #[test]
    fn maps_do_not_change_the_bytes_by_chance() {
        let names: Vec<String> = (0..20).map(|number| format!("filter-{number}")).collect();
        let forth: Vec<&str> = names.iter().map(String::as_str).collect();
        let back: Vec<&str> = forth.iter().rev().copied().collect();
        assert_eq!(encode_virtual_host(host(&forth)), encode_virtual_host(host(&back)));
    }
}
