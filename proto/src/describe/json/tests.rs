use serde_json::{Value, json};

use super::*;
use crate::{
    Message as _,
    any::unpack,
    describe::types::Type,
    envoy::{cluster::Cluster, hcm::HttpConnectionManager, listener::Listener, route::VirtualHost},
};

fn of(name: &str) -> &'static Type {
    Type::named(name).unwrap_or_else(|| panic!("no type {name}"))
}

fn cluster() -> &'static Type {
    of("envoy.config.cluster.v3.Cluster")
}

fn host() -> &'static Type {
    of("envoy.config.route.v3.VirtualHost")
}

fn listener() -> Value {
    json!({
        "name": "web",
        "address": { "socket_address": { "address": "::1", "port_value": 10000 } },
        "filter_chains": [{ "filters": [{
            "name": "http",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "web",
                "rds": { "route_config_name": "web" },
                "xff_num_trusted_hops": 1,
            },
        }]}],
        "per_connection_buffer_limit_bytes": 0,
    })
}

#[test]
fn json_becomes_the_message_that_it_means() {
    let bytes = encode(of("envoy.config.listener.v3.Listener"), &listener()).unwrap();
    let message = Listener::decode(bytes.as_slice()).unwrap();
    assert_eq!(message.name, "web");
    assert_eq!(message.per_connection_buffer_limit_bytes.map(|limit| limit.value), Some(0));
    let Some(crate::envoy::listener::filter::ConfigType::TypedConfig(packed)) =
        &message.filter_chains[0].filters[0].config_type
    else {
        panic!("{message:?}")
    };
    let manager: HttpConnectionManager = unpack(packed).unwrap();
    assert_eq!((manager.stat_prefix.as_str(), manager.xff_num_trusted_hops), ("web", 1));
}

#[test]
fn every_form_is_read_and_shown_again() {
    for (name, value) in [
        ("envoy.config.listener.v3.Listener", listener()),
        (
            "envoy.config.core.v3.Metadata",
            json!({ "filter_metadata": { "b": { "list": [1.5, "x", null, true, [], {}] }, "a": {} } }),
        ),
        (
            "envoy.config.cluster.v3.Cluster",
            json!({
                "connect_timeout": "-0.000000001s",
                "type": "EDS",
                "upstream_bind_config": { "source_address": { "address": "a", "port_value": 0 } },
                "ring_hash_lb_config": { "minimum_ring_size": "18446744073709551615" },
                "preconnect_policy": { "per_upstream_preconnect_ratio": 1.25 },
                "lb_subset_config": { "default_subset": {}, "subset_selectors": [{ "keys": ["a", "a"] }] },
            }),
        ),
        ("envoy.config.core.v3.HealthCheck", json!({ "http_health_check": { "send": { "text": "" }, "path": "/" } })),
        ("envoy.config.core.v3.DataSource", json!({ "inline_bytes": "AP8=" })),
        ("envoy.config.route.v3.RetryPolicy", json!({ "retriable_status_codes": [500, 0], "num_retries": 0 })),
        ("google.protobuf.Any", json!({ "@type": "x/google.protobuf.Duration", "value": "1s" })),
        ("google.protobuf.Timestamp", json!("2024-02-29T23:59:59.000000001Z")),
        ("google.protobuf.FloatValue", json!(0.5)),
        ("google.protobuf.DoubleValue", json!("NaN")),
    ] {
        let bytes = encode(of(name), &value).unwrap_or_else(|found| panic!("{name}: {found:?}"));
        let shown = decode(of(name), &bytes).unwrap();
        assert_eq!(shown, value, "{name}");
        assert_eq!(encode(of(name), &shown).unwrap(), bytes, "{name}");
    }
}

#[test]
fn both_names_of_a_field_and_numbers_of_values_are_taken() {
    let shown = json!({ "connect_timeout": "1s", "type": "LOGICAL_DNS", "lb_policy": "RANDOM" });
    let given = json!({ "connectTimeout": "1.000s", "type": 2, "lbPolicy": "RANDOM", "name": null });
    assert_eq!(encode(cluster(), &given).unwrap(), encode(cluster(), &shown).unwrap());
    let offset = json!("2024-03-01T00:59:59+01:00");
    let timestamp = of("google.protobuf.Timestamp");
    assert_eq!(encode(timestamp, &offset).unwrap(), encode(timestamp, &json!("2024-02-29T23:59:59Z")).unwrap());
}

#[test]
fn the_order_of_what_has_none_does_not_change_the_bytes() {
    let entries: Vec<(String, Value)> =
        (0..50).map(|number| (format!("filter-{number}"), json!({ "a": number }))).collect();
    let forth =
        json!({ "metadata": { "filter_metadata": Value::Object(entries.iter().cloned().collect()) }, "name": "a" });
    let back =
        json!({ "name": "a", "metadata": { "filter_metadata": Value::Object(entries.into_iter().rev().collect()) } });
    assert_eq!(encode(host(), &forth).unwrap(), encode(host(), &back).unwrap());
}

#[test]
fn everything_that_cannot_be_read_is_reported_where_it_is() {
    let wrong = json!({
        "name": 5,
        "nam": "a",
        "domains": "*",
        "routes": [
            { "match": { "prefix": "/", "path": "/" }, "route": { "timeout": "1h", "cluster": "a" } },
            { "direct_response": { "status": -1 }, "typed_per_filter_config": { "a.b": { "@type": "x/none" }, "c": { "d": 1 } } },
        ],
        "require_tls": "SOMETIMES",
        "include_request_attempt_count": "yes",
        "includeRequestAttemptCount": true,
    });
    let found: Vec<String> = encode(host(), &wrong).unwrap_err().iter().map(ToString::to_string).collect();
    for expected in [
        "name: must be a string, not 5",
        "nam: is not a field of envoy.config.route.v3.VirtualHost",
        "domains: must be a list, not \"*\"",
        "routes[0].route.timeout: must be a duration such as 1.5s, not \"1h\"",
        "routes[1].direct_response.status: must be an integer between 0 and 4294967295, not -1",
        "routes[1].typed_per_filter_config[\"a.b\"].@type: \"x/none\" is not a type that Envoy knows",
        "routes[1].typed_per_filter_config[\"c\"].@type: is required",
        "require_tls: must be one of NONE, EXTERNAL_ONLY, ALL, not \"SOMETIMES\"",
    ] {
        assert!(found.iter().any(|found| found == expected), "no {expected} in {found:#?}");
    }
    assert!(found.iter().any(|found| found.contains("cannot be given beside")), "{found:#?}");
    assert!(found.iter().any(|found| found.ends_with("is given twice")), "{found:#?}");
}

#[expect(clippy::needless_pass_by_value, reason = "callers write json!(…) in place")]
fn merged(target: Value, path: &str, patch: Value) -> Result<Value, Vec<String>> {
    let mut target = target;
    let path: MessagePath = path.parse().unwrap();
    merge(of("envoy.config.listener.v3.Listener"), &mut target, &path, &patch)
        .map(|()| target)
        .map_err(|found| found.iter().map(ToString::to_string).collect())
}

#[test]
fn a_patch_changes_what_it_names_and_nothing_else() {
    let patch = json!({ "filterChains": null, "address": { "socketAddress": { "port_value": 5 } }, "metadata": { "filter_metadata": { "a": { "b": 1 } } } });
    assert_eq!(
        merged(listener(), "", patch).unwrap(),
        json!({
            "name": "web",
            "address": { "socket_address": { "address": "::1", "port_value": 5 } },
            "per_connection_buffer_limit_bytes": 0,
            "metadata": { "filter_metadata": { "a": { "b": 1 } } },
        })
    );
}

#[test]
fn a_path_leads_into_lists_and_into_what_an_any_holds() {
    let config = |value: &Value| value["filter_chains"][0]["filters"][0]["typed_config"].clone();
    let path = "filter_chains[0].filters[0].typed_config";
    let patched =
        config(&merged(listener(), path, json!({ "serverName": "edge", "xff_num_trusted_hops": null })).unwrap());
    assert_eq!((&patched["server_name"], &patched["stat_prefix"]), (&json!("edge"), &json!("web")));
    assert_eq!(patched.get("xff_num_trusted_hops"), None);
    // Another member of a oneof takes the place of the one that was there.
    let inline = config(&merged(listener(), path, json!({ "route_config": {} })).unwrap());
    assert_eq!((inline.get("rds"), inline.get("route_config")), (None, Some(&json!({}))));
    // Another type replaces the whole.
    let other = json!({ "@type": "type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo" });
    assert_eq!(config(&merged(listener(), path, other.clone()).unwrap()), other);
    let deeper =
        merged(listener(), &format!("{path}.common_http_protocol_options"), json!({ "idle_timeout": "1s" })).unwrap();
    assert_eq!(config(&deeper)["common_http_protocol_options"], json!({ "idle_timeout": "1s" }));
}

#[test]
fn a_path_that_leads_nowhere_is_refused() {
    for (path, reason) in [
        ("filter_chains[1]", "filter_chains[1]: does not exist: the list has 1 entries"),
        ("nam", "nam: is not a field of envoy.config.listener.v3.Listener"),
        ("name.first", "name.first: leads into what has no fields"),
        ("filter_chains.filters", "filter_chains.filters: leads into a list without an index"),
        ("address[0]", "address[0]: leads into envoy.config.core.v3.Address without a field"),
    ] {
        assert_eq!(merged(listener(), path, json!({})).unwrap_err(), [reason]);
    }
    for text in [".", "a.", "a..b", "[", "[0", "a[-1]", "a[0]b", "a b", "a[\"b]"] {
        assert_eq!(text.parse::<MessagePath>(), Err(InvalidPath), "{text}");
    }
    for text in ["", "a", "a.b[0][1].c", "a[\"b.c\"].d"] {
        assert_eq!(text.parse::<MessagePath>().unwrap().to_string(), text);
    }
}

#[test]
fn what_is_shown_of_typed_messages_is_the_message() {
    let host = VirtualHost { name: "a".into(), domains: vec!["*".into()], ..VirtualHost::default() };
    let shown = decode(self::host(), &host.encode_to_vec()).unwrap();
    assert_eq!(shown, json!({ "name": "a", "domains": ["*"] }));
    assert_eq!(decode(cluster(), &Cluster::default().encode_to_vec()).unwrap(), json!({}));
    assert_eq!(decode(cluster(), &[0xff]), Err(Unreadable));
}
