//! Clusters and the secrets that they name, in whatever order they come.

use chancery_proto::describe::{json, types::Type};
use serde_json::{Value, json};

use super::*;

/// Takes these resources of one type, by name, which are as they should be.
fn take(held: &mut Held, url: &str, name: &str, value: Option<Value>) {
    let mut batch = Batch { type_url: url.into(), upserts: vec![], removed: vec![] };
    match value {
        Some(value) => {
            let body = json::encode(Type::of_url(url).unwrap(), &value).unwrap().into();
            batch.upserts.push(Received { name: name.into(), version: "1".to_owned(), body });
        }
        None => batch.removed.push(name.into()),
    }
    held.take(&batch).unwrap();
}

/// A cluster with one endpoint, of this port, that trusts what this secret holds.
fn cluster_trusting(secret: &str, port: u16) -> Option<Value> {
    let socket = json!({ "name": "tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": { "validation_context_sds_secret_config": { "name": secret, "sds_config": { "ads": {} } } },
    } });
    let address = json!({ "socket_address": { "address": "10.0.0.1", "port_value": port } });
    let endpoints = json!([{ "lb_endpoints": [{ "endpoint": { "address": address } }] }]);
    Some(json!({
        "name": "c", "type": "STATIC", "transport_socket": socket,
        "load_assignment": { "cluster_name": "c", "endpoints": endpoints },
    }))
}

fn authorities(file: &str) -> Option<Value> {
    Some(json!({ "name": "x", "validation_context": { "trusted_ca": { "filename": file } } }))
}

/// Endpoints of the cluster, and whom it trusts.
fn standing(held: &Held) -> (Vec<String>, String) {
    let cluster = held.snapshot().clusters["c"].clone();
    let tls = cluster.settings.tls.clone().unwrap();
    let trusted = tls.waits_for.map_or(format!("{:?}", tls.authorities), |name| format!("waits for {name}"));
    (cluster.endpoints.iter().map(|one| one.at.to_string()).collect(), trusted)
}

#[test]
fn nobody_is_asked_before_the_first_secret_has_come() {
    let mut held = Held::new(true);
    take(&mut held, type_url::CLUSTER, "c", cluster_trusting("one", 1));
    assert_eq!(standing(&held), (vec![], "waits for one".to_owned()));
    take(&mut held, type_url::SECRET, "one", authorities("one.pem"));
    let (endpoints, trusted) = standing(&held);
    assert_eq!(endpoints, ["10.0.0.1:1"]);
    assert!(trusted.contains("one.pem"), "{trusted}");
    take(&mut held, type_url::SECRET, "one", authorities("two.pem"));
    assert!(standing(&held).1.contains("two.pem"));
    take(&mut held, type_url::SECRET, "one", None);
    assert_eq!(standing(&held), (vec![], "waits for one".to_owned()));
    let restored = Held::restore(&held.save(), true).unwrap();
    assert_eq!(standing(&restored), standing(&held));
}

#[test]
fn a_cluster_stays_as_it_was_until_its_next_secret_has_come() {
    let mut held = Held::new(true);
    take(&mut held, type_url::SECRET, "one", authorities("one.pem"));
    take(&mut held, type_url::CLUSTER, "c", cluster_trusting("one", 1));
    // Twice, before anything comes.
    for port in [2, 3] {
        take(&mut held, type_url::CLUSTER, "c", cluster_trusting("two", port));
        let (endpoints, trusted) = standing(&held);
        assert_eq!(endpoints, ["10.0.0.1:1"]);
        assert!(trusted.contains("one.pem"), "{trusted}");
    }
    take(&mut held, type_url::SECRET, "two", authorities("two.pem"));
    let (endpoints, trusted) = standing(&held);
    assert_eq!(endpoints, ["10.0.0.1:3"]);
    assert!(trusted.contains("two.pem"), "{trusted}");
    // What was in force before is no way back.
    take(&mut held, type_url::SECRET, "two", None);
    assert_eq!(standing(&held), (vec![], "waits for two".to_owned()));
}

#[test]
fn the_limiter_of_a_fleet_is_envoys_alone() {
    let mut held = Held::new(true);
    // With what no other cluster may have.
    let cluster = json!({ "name": RATE_LIMITER_CLUSTER, "transport_socket": { "name": "of another world" } });
    take(&mut held, type_url::CLUSTER, RATE_LIMITER_CLUSTER, Some(cluster));
    assert!(held.snapshot().clusters.is_empty());
    assert_eq!(held.versions().len(), 1, "it is not sent again");
}
