//! A virtual host as bytes, always the same ones.
//!
//! `prost` writes the entries of a map in whatever order it finds them, and routes hold maps: what each filter is to know.
//! Here they are written in the order of their keys, the fields around them as `prost` does. Bytes that changed by
//! chance would be another version: sent to every proxy after each restart, and by each replica anew.

use std::{collections::BTreeMap, mem};

use bytes::Bytes;
use chancery_proto::{
    Message,
    envoy::route::{Route, VirtualHost, route::Action, route_action::ClusterSpecifier},
    google::protobuf::Any,
};
use prost::encoding;

use crate::translate::{metadata, value::encode_map};

/// `envoy.config.route.v3.VirtualHost.routes`.
const ROUTES: u32 = 3;

/// `envoy.config.route.v3.Route.typed_per_filter_config`.
const PER_FILTER: u32 = 13;

/// `envoy.config.route.v3.Route.route`.
const ACTION: u32 = 2;

/// `envoy.config.route.v3.RouteAction.weighted_clusters`.
const WEIGHTED_CLUSTERS: u32 = 3;

/// `envoy.config.route.v3.RouteAction.metadata_match`.
const METADATA_MATCH: u32 = 4;

/// `envoy.config.route.v3.WeightedCluster.clusters`.
const CLUSTERS: u32 = 1;

/// `envoy.config.route.v3.WeightedCluster.ClusterWeight.metadata_match`.
const CLUSTER_METADATA_MATCH: u32 = 3;

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
    let subsets = subsets(&mut route);
    let mut bytes = route.encode_to_vec();
    encode_map(PER_FILTER, &per_filter, &mut bytes);
    if !subsets.is_empty() {
        // What stands twice in a message is one with the fields of both.
        encoding::bytes::encode(ACTION, &subsets, &mut bytes);
    }
    bytes
}

/// Takes out of the action of `route` the labels of endpoints that it wants, and what has them, and gives it back encoded.
fn subsets(route: &mut Route) -> Vec<u8> {
    let mut bytes = Vec::new();
    let Some(Action::Route(action)) = &mut route.action else { return bytes };
    metadata::encode(METADATA_MATCH, action.metadata_match.take(), &mut bytes);
    if let Some(ClusterSpecifier::WeightedClusters(weighted)) = &mut action.cluster_specifier
        && weighted.clusters.iter().any(|cluster| cluster.metadata_match.is_some())
    {
        let mut clusters = Vec::new();
        for mut cluster in mem::take(&mut weighted.clusters) {
            let labels = cluster.metadata_match.take();
            let mut of_cluster = cluster.encode_to_vec();
            metadata::encode(CLUSTER_METADATA_MATCH, labels, &mut of_cluster);
            encoding::bytes::encode(CLUSTERS, &of_cluster, &mut clusters);
        }
        encoding::bytes::encode(WEIGHTED_CLUSTERS, &clusters, &mut bytes);
    }
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
    fn wanted_labels_are_in_order() {
        use chancery_proto::envoy::route::{RouteAction, WeightedCluster, weighted_cluster::ClusterWeight};
        let labels = (0..20).map(|one| (format!("label-{one}"), one.to_string())).collect();
        let wanted = || metadata::of_labels(&labels);
        let weight =
            |name: &str, metadata_match| ClusterWeight { name: name.into(), metadata_match, ..Default::default() };
        let clusters = vec![weight("a", wanted()), weight("b", None), weight("c", wanted())];
        let weighted = ClusterSpecifier::WeightedClusters(WeightedCluster { clusters, ..WeightedCluster::default() });
        for (cluster_specifier, metadata_match) in [(ClusterSpecifier::Cluster("a".into()), wanted()), (weighted, None)]
        {
            let cluster_specifier = Some(cluster_specifier);
            let action = RouteAction { cluster_specifier, metadata_match, ..RouteAction::default() };
            let mut host = host(&["one"]);
            host.routes[0].action = Some(Action::Route(action));
            let bytes = || encode_virtual_host(host.clone());
            assert!((0..20).all(|_| bytes() == bytes()));
            assert_eq!(VirtualHost::decode(bytes()).unwrap(), host);
        }
    }

    #[test]
    fn maps_do_not_change_the_bytes_by_chance() {
        let names: Vec<String> = (0..20).map(|number| format!("filter-{number}")).collect();
        let forth: Vec<&str> = names.iter().map(String::as_str).collect();
        let back: Vec<&str> = forth.iter().rev().copied().collect();
        assert_eq!(encode_virtual_host(host(&forth)), encode_virtual_host(host(&back)));
    }
}
