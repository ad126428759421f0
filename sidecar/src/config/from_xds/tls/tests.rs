//! Contexts and secrets as Envoy's documentation writes them.

use chancery_proto::{
    envoy::{cluster::Cluster, tls::Secret as SecretMessage},
    type_url,
};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

use super::*;
use crate::config::from_xds::{
    ClusterSpec, cluster,
    tests::{message, paths},
};

const AT: &str = "transport_socket.typed_config.common_tls_context";

#[expect(clippy::needless_pass_by_value, reason = "callers write json!(…) in place")]
fn read(context: Value, has_identity: bool) -> Result<ClusterSpec, Vec<Problem>> {
    let config = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": "b", "common_tls_context": context,
    });
    let socket = json!({ "name": "tls", "typed_config": config });
    let value = json!({ "name": "b", "type": "STATIC", "transport_socket": socket });
    cluster(&message::<Cluster>(type_url::CLUSTER, value), has_identity)
}

fn read_secret(value: Value) -> Result<Secret, Vec<Problem>> {
    secret(&message::<SecretMessage>(type_url::SECRET, value))
}

fn sds(name: &str) -> Value {
    json!({ "name": name, "sds_config": { "ads": {}, "resource_api_version": "V3" } })
}

fn file(name: &str) -> Value {
    json!({ "filename": name })
}

/// A certificate that signs itself, and its key.
fn pair() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    (CertificateParams::default().self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[test]
fn endpoints_are_known_by_their_names() {
    let names = json!([
        { "san_type": "URI", "matcher": { "exact": "spiffe://a/b" } },
        { "san_type": "URI", "matcher": { "prefix": "spiffe://a/" } },
        { "san_type": "DNS", "matcher": { "exact": "b.example.com" } },
        { "san_type": "IP_ADDRESS", "matcher": { "exact": "10.0.0.1" } },
    ]);
    let context = json!({ "validation_context": { "match_typed_subject_alt_names": names } });
    let tls = read(context, true).unwrap().tls.unwrap().resolve(|_| None);
    let uri = |text: &str| PeerMatch::Uri(text.into());
    let name = |text: &str| PeerMatch::Name(text.into());
    let wanted =
        [uri("spiffe://a/b"), PeerMatch::UriPrefix("spiffe://a/".into()), name("b.example.com"), name("10.0.0.1")];
    assert_eq!((tls.peers.as_slice(), tls.server_name.as_deref()), (wanted.as_slice(), Some("b")));
    assert_eq!((tls.certificate, tls.authorities, tls.waits_for), (None, None, None), "its own");
}

#[test]
fn what_would_let_in_others_than_is_meant_is_refused_by_its_field() {
    let names = |name: Value| json!({ "validation_context": { "match_typed_subject_alt_names": [name] } });
    let name_at = |field: &str| format!("validation_context.match_typed_subject_alt_names[0].{field}");
    let elsewhere = json!({ "name": "own", "sds_config": { "path_config_source": { "path": "/sds" } } });
    let (one, other) = (pair(), pair());
    let inline = |text: &str| json!({ "inline_string": text });
    let unlike = json!({ "certificate_chain": inline(&one.0), "private_key": inline(&other.1) });
    let no_pem = json!({ "certificate_chain": inline("x"), "private_key": inline("y") });
    for (context, paths_wanted) in [
        (names(json!({ "san_type": "EMAIL", "matcher": { "exact": "a" } })), vec![name_at("san_type")]),
        (names(json!({ "san_type": "URI", "matcher": { "suffix": "a" } })), vec![name_at("matcher")]),
        (names(json!({ "san_type": "DNS", "matcher": { "prefix": "a" } })), vec![name_at("matcher")]),
        (
            names(json!({ "san_type": "URI", "matcher": { "exact": "a", "ignore_case": true } })),
            vec![name_at("matcher")],
        ),
        (
            json!({ "validation_context": { "verify_certificate_hash": ["00".repeat(32)], "crl": file("crl") } }),
            vec!["validation_context.verify_certificate_hash".to_owned(), "validation_context.crl".to_owned()],
        ),
        (
            json!({ "validation_context_sds_secret_config": { "name": IDENTITY_SECRET } }),
            vec!["validation_context_sds_secret_config.name".to_owned()],
        ),
        (
            names(json!({ "san_type": "URI", "matcher": { "safe_regex": { "regex": "(" } } })),
            vec![name_at("matcher.safe_regex.regex")],
        ),
        (
            json!({ "tls_certificate_sds_secret_configs": [elsewhere] }),
            vec!["tls_certificate_sds_secret_configs[0].sds_config".to_owned()],
        ),
        (json!({ "tls_certificates": [unlike] }), vec!["tls_certificates[0]".to_owned()]),
        (
            json!({ "tls_certificates": [no_pem] }),
            vec!["tls_certificates[0].certificate_chain".to_owned(), "tls_certificates[0].private_key".to_owned()],
        ),
        (
            json!({ "tls_certificates": [{ "certificate_chain": file("a") }] }),
            vec!["tls_certificates[0].private_key".to_owned()],
        ),
    ] {
        let wanted: Vec<_> = paths_wanted.iter().map(|path| format!("{AT}.{path}")).collect();
        assert_eq!(paths(read(context, true)), wanted);
    }
    let two = json!({ "tls_certificate_sds_secret_configs": [sds("a"), sds("b")] });
    assert_eq!(paths(read(two, true)), [AT]);
    assert_eq!(paths(read(json!({}), false)), ["transport_socket"]);
    let bad = json!({ "name": "a", "validation_context": { "trusted_ca": inline("x") } });
    assert_eq!(paths(read_secret(bad)), ["validation_context.trusted_ca"]);
    let other = json!({ "name": "a", "generic_secret": { "secret": inline("x") } });
    assert_eq!(read_secret(other), Ok(Secret::Other), "it is for others");
}

#[test]
fn what_is_in_the_bootstrap_file_is_its_own() {
    let context = json!({
        "tls_params": { "tls_minimum_protocol_version": "TLSv1_3" },
        "tls_certificate_sds_secret_configs": [{ "name": IDENTITY_SECRET }],
        "combined_validation_context": {
            "default_validation_context": { "match_typed_subject_alt_names": [
                { "san_type": "URI", "matcher": { "safe_regex": { "regex": "spiffe://[^/]+/fleet/shop/proxy/[^/]+" } } },
            ] },
            "validation_context_sds_secret_config": { "name": CA_SECRET },
        },
    });
    let tls = read(context.clone(), true).unwrap().tls.unwrap().resolve(|_| None);
    assert_eq!((tls.certificate, tls.authorities, tls.waits_for, tls.only_1_3), (None, None, None, true));
    let [PeerMatch::UriPattern(pattern)] = tls.peers.as_slice() else { panic!("{:?}", tls.peers) };
    let matches = |uri: &str| pattern.0.is_match(uri.as_bytes());
    assert!(matches("spiffe://a/fleet/shop/proxy/b"));
    assert!(!matches("spiffe://a/fleet/shop/proxy/b/c") && !matches("x spiffe://a/fleet/shop/proxy/b"), "all of it");
    assert_eq!(paths(read(context, false)), ["transport_socket"], "there is none");
}

#[test]
fn where_each_is_held_to_its_own_name_no_list_of_names_counts() {
    let config = |automatic: bool| {
        let names = json!([{ "san_type": "DNS", "matcher": { "exact": "a.example.com" } }]);
        let common = json!({ "validation_context": { "match_typed_subject_alt_names": names } });
        json!({
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": "b", "auto_host_sni": automatic, "auto_sni_san_validation": automatic, "common_tls_context": common,
        })
    };
    let tls = |automatic: bool| {
        let socket = json!({ "name": "tls", "typed_config": config(automatic) });
        let value = json!({ "name": "b", "type": "STATIC", "transport_socket": socket });
        let read = cluster(&message::<Cluster>(type_url::CLUSTER, value), true).unwrap();
        read.tls.unwrap().resolve(|_| None)
    };
    assert_eq!((tls(true).by_host, tls(true).peers.len()), (true, 0));
    assert_eq!((tls(false).by_host, tls(false).peers.len()), (false, 1));
}

#[test]
fn secrets_take_the_places_of_their_names() {
    let context = json!({
        "tls_certificate_sds_secret_configs": [sds("own")],
        "combined_validation_context": {
            "default_validation_context": { "match_typed_subject_alt_names": [
                { "san_type": "URI", "matcher": { "exact": "spiffe://a/b" } },
            ] },
            "validation_context_sds_secret_config": sds("ca"),
        },
    });
    // Nothing of its own is needed.
    let spec = read(context, false).unwrap().tls.unwrap();
    let (chain, key) = pair();
    let own = json!({ "name": "own", "tls_certificate": {
        "certificate_chain": { "inline_string": chain }, "private_key": { "inline_string": key } } });
    let own = read_secret(own).unwrap();
    let ca = read_secret(json!({ "name": "ca", "validation_context": { "trusted_ca": file("ca.pem") } })).unwrap();
    assert_eq!(spec.resolve(|_| None).waits_for.as_deref(), Some("ca"));
    assert_eq!(spec.resolve(|name| (&**name == "ca").then_some(&ca)).waits_for.as_deref(), Some("own"));
    let swapped = spec.resolve(|name| Some(if &**name == "ca" { &own } else { &ca }));
    assert!(swapped.waits_for.is_some(), "of the wrong kind");
    let resolved = spec.resolve(|name| Some(if &**name == "ca" { &ca } else { &own }));
    assert_eq!((resolved.waits_for, resolved.peers.len()), (None, 1));
    assert_eq!(resolved.authorities, Some(Pem::File("ca.pem".into())));
    let shown = format!("{:?}", resolved.certificate.unwrap());
    assert!(!shown.contains("PRIVATE"), "{shown}");
}
