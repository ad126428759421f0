//! Listeners that carry TCP: what is honoured, and what would send bytes elsewhere.

use std::time::Duration;

use chancery_proto::type_url;
use serde_json::{Value, json};

use super::{
    super::{
        Problem, Served, listener,
        tests::{message, paths},
    },
    *,
};

fn typed(name: &str, mut fields: Value) -> Value {
    fields["@type"] = format!("type.googleapis.com/envoy.extensions.filters.network.{name}").into();
    json!({ "name": "f", "typed_config": fields })
}

/// A proxy to `db` that says this, too.
fn to_db(more: Value) -> Value {
    let mut fields = json!({ "stat_prefix": "db", "cluster": "db" });
    merge(&mut fields, more);
    typed("tcp_proxy.v3.TcpProxy", fields)
}

fn merge(into: &mut Value, more: Value) {
    let Value::Object(more) = more else { panic!("an object") };
    more.into_iter().for_each(|(field, value)| into[field] = value);
}

/// A listener at port 5432 that says this, too.
fn read(more: Value) -> Result<TcpProxy, Vec<Problem>> {
    let mut fields =
        json!({ "name": "db", "address": { "socket_address": { "address": "0.0.0.0", "port_value": 5432 } } });
    merge(&mut fields, more);
    match listener(&message::<Listener>(type_url::LISTENER, fields))? {
        Served::Tcp(proxy) => Ok(TcpProxy::clone(&proxy)),
        Served::Http(_) => panic!("it is no HTTP"),
    }
}

fn read_proxy(more: Value) -> Result<TcpProxy, Vec<Problem>> {
    read(json!({ "filter_chains": [{ "filters": [to_db(more)] }] }))
}

#[test]
fn a_listener_says_where_connections_go_and_how_long_they_last() {
    let usual = TcpProxy {
        address: Some("127.0.0.1:5432".parse().unwrap()),
        clusters: vec![("db".into(), 1)],
        idle_timeout: Some(Duration::from_secs(3600)),
        connect_attempts: 1,
    };
    assert_eq!(read_proxy(json!({})).unwrap(), usual);
    assert_eq!(read(json!({ "default_filter_chain": { "filters": [to_db(json!({}))] } })).unwrap(), usual);
    let said = read_proxy(json!({ "idle_timeout": "7s", "max_connect_attempts": 3 })).unwrap();
    let wanted = TcpProxy { idle_timeout: Some(Duration::from_secs(7)), connect_attempts: 3, ..usual };
    assert_eq!(said, wanted);
    assert_eq!(read_proxy(json!({ "idle_timeout": "0s" })).unwrap().idle_timeout, None, "as Envoy has it");
    let weighted = typed(
        "tcp_proxy.v3.TcpProxy",
        json!({ "stat_prefix": "db", "weighted_clusters": { "clusters": [{ "name": "a", "weight": 1 }, { "name": "b", "weight": 3 }] } }),
    );
    let watched = typed("mongo_proxy.v3.MongoProxy", json!({ "stat_prefix": "db" }));
    let read = read(json!({ "filter_chains": [{ "filters": [watched, weighted] }] })).unwrap();
    assert_eq!(read.clusters, [("a".into(), 1), ("b".into(), 3)]);
}

#[test]
fn nobody_from_elsewhere_reaches_the_address() {
    let at = |address: Value| {
        let chain = json!([{ "filters": [to_db(json!({}))] }]);
        read(json!({ "address": address, "filter_chains": chain })).unwrap().address.map(|at| at.to_string())
    };
    let socket = |address: &str| json!({ "socket_address": { "address": address, "port_value": 1 } });
    for (address, expected) in
        [("10.0.0.1", "127.0.0.1:1"), ("127.0.0.7", "127.0.0.7:1"), ("::1", "[::1]:1"), ("::", "127.0.0.1:1")]
    {
        assert_eq!(at(socket(address)).as_deref(), Some(expected), "{address}");
    }
    for nowhere in [
        json!({ "pipe": { "path": "/run/db" } }),
        json!({ "socket_address": { "address": "0.0.0.0", "port_value": 0 } }),
    ] {
        assert_eq!(at(nowhere), None);
    }
}

#[test]
fn what_would_send_bytes_elsewhere_is_refused_by_its_field() {
    let at = "filter_chains[0].filters[0].typed_config";
    let subset = json!({ "filter_metadata": { "envoy.lb": { "version": "2" } } });
    let several = |one: Value| json!({ "cluster": null, "weighted_clusters": { "clusters": [one] } });
    for (proxy, path) in [
        (json!({ "tunneling_config": { "hostname": "elsewhere:1" } }), "tunneling_config"),
        (json!({ "metadata_match": subset }), "metadata_match"),
        (
            several(json!({ "name": "db", "weight": 1, "metadata_match": subset })),
            "weighted_clusters.clusters[0].metadata_match",
        ),
        (several(json!({ "name": "db", "weight": 0 })), "weighted_clusters"),
        (json!({ "max_connect_attempts": 0 }), "max_connect_attempts"),
        (json!({ "idle_timeout": "-1s" }), "idle_timeout"),
    ] {
        assert_eq!(paths(read_proxy(proxy)), [format!("{at}.{path}")]);
    }
    assert_eq!(paths(read_proxy(json!({ "cluster": null }))), [at]);
}

#[test]
fn a_chain_for_some_connections_is_refused_by_its_field() {
    let chain = || json!({ "filters": [to_db(json!({}))] });
    let some = json!({ "filters": [to_db(json!({}))], "filter_chain_match": { "server_names": ["db.example.com"] } });
    let everybody = json!({ "filters": [to_db(json!({}))], "filter_chain_match": {} });
    read(json!({ "filter_chains": [everybody] })).unwrap();
    let sni = typed("sni_cluster.v3.SniCluster", json!({}));
    let unknown = json!({ "name": "f", "config_discovery": { "config_source": { "ads": {} } } });
    for (listener, wanted) in [
        (json!({ "filter_chains": [some, chain()] }), vec!["filter_chains[1]", "filter_chains[0].filter_chain_match"]),
        (json!({ "filter_chains": [chain()], "default_filter_chain": chain() }), vec!["default_filter_chain"]),
        (json!({ "filter_chains": [chain()], "use_original_dst": true }), vec!["use_original_dst"]),
        (
            json!({ "filter_chains": [{ "filters": [sni, unknown, to_db(json!({}))] }] }),
            vec!["filter_chains[0].filters[0]", "filter_chains[0].filters[1]"],
        ),
    ] {
        assert_eq!(paths(read(listener)), wanted);
    }
}
