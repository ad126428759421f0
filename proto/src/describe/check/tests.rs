use super::*;
use crate::{
    Message as _,
    any::pack_typed,
    envoy::{
        cluster::Cluster,
        core::{HeaderValue, HeaderValueOption, Metadata, TypedExtensionConfig},
        hcm::HttpConnectionManager,
        listener::{Filter, FilterChain, Listener, filter::ConfigType},
        route::{RouteMatch, VirtualHost, route_match::PathSpecifier},
    },
    google::protobuf::Any,
    type_url,
};

fn found(type_url: &str, message: &impl crate::Message) -> Vec<String> {
    check(type_url, &message.encode_to_vec()).iter().map(ToString::to_string).collect()
}

fn listener(config: Any) -> Listener {
    let filter = Filter { name: "http".into(), config_type: Some(ConfigType::TypedConfig(config)) };
    let chain = FilterChain { filters: vec![filter], ..FilterChain::default() };
    Listener { name: "web".into(), filter_chains: vec![chain], ..Listener::default() }
}

#[test]
fn a_good_message_has_no_violation() {
    let cluster = Cluster { name: "checkout".into(), ..Cluster::default() };
    assert_eq!(found(type_url::CLUSTER, &cluster), [""; 0]);
}

#[test]
fn everything_is_found_where_it_is() {
    let header = HeaderValue { key: "a\nb".into(), value: "\0".into(), ..HeaderValue::default() };
    let options = vec![
        HeaderValueOption::default(),
        HeaderValueOption { header: Some(header), append_action: 7, ..HeaderValueOption::default() },
    ];
    let host = VirtualHost { request_headers_to_add: options, ..VirtualHost::default() };
    assert_eq!(
        found(type_url::VIRTUAL_HOST, &host),
        [
            "name: value length must be at least 1 characters",
            "domains: value must contain at least 1 item(s)",
            "request_headers_to_add[0].header: value is required",
            r#"request_headers_to_add[1].header.key: value does not match regex pattern "^[^\\u0000\\u000A\\u000D]*$""#,
            r#"request_headers_to_add[1].header.value: value does not match regex pattern "^[^\\u0000\\u000A\\u000D]*$""#,
            "request_headers_to_add[1].append_action: value must be one of the defined enum values",
        ]
    );
}

#[test]
fn of_a_choice_only_what_is_chosen_has_to_be_there() {
    let chosen = RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".into())), ..RouteMatch::default() };
    assert_eq!(found("x/envoy.config.route.v3.RouteMatch", &chosen), [""; 0]);
    let none = RouteMatch::default();
    assert_eq!(found("x/envoy.config.route.v3.RouteMatch", &none), ["path_specifier: is required"]);
}

#[test]
fn what_stands_in_an_any_is_checked() {
    let listener = listener(pack_typed(&HttpConnectionManager::default()));
    let path = "filter_chains[0].filters[0].typed_config";
    assert_eq!(
        found(type_url::LISTENER, &listener),
        [
            format!("{path}.stat_prefix: value length must be at least 1 characters"),
            format!("{path}.route_specifier: is required"),
        ]
    );
}

#[test]
fn unknown_types_and_fields_are_refused() {
    let unknown = Any { type_url: "type.googleapis.com/envoy.Nothing".into(), value: vec![] };
    let listener = listener(unknown.clone());
    let path = "filter_chains[0].filters[0].typed_config";
    let reason = "\"type.googleapis.com/envoy.Nothing\" is not a type that Envoy knows";
    assert_eq!(found(type_url::LISTENER, &listener), [format!("{path}: {reason}")]);
    assert_eq!(found("x/none", &unknown), ["\"x/none\" is not a type that Envoy knows"]);

    let mut bytes = Cluster { name: "a".into(), ..Cluster::default() }.encode_to_vec();
    prost::encoding::string::encode(19999, &"b".to_owned(), &mut bytes);
    assert_eq!(check(type_url::CLUSTER, &bytes)[0].to_string(), "has an unknown field 19999");
}

#[test]
fn metadata_may_be_for_others() {
    let unknown = Any { type_url: "type.googleapis.com/elsewhere.Nothing".into(), value: vec![1] };
    let metadata = Metadata { typed_filter_metadata: [("a".to_owned(), unknown)].into(), ..Metadata::default() };
    let cluster = Cluster { name: "a".into(), metadata: Some(metadata), ..Cluster::default() };
    assert_eq!(found(type_url::CLUSTER, &cluster), [""; 0]);
}

#[test]
fn malformed_bytes_are_refused() {
    for bytes in [&[0xff][..], &[0x0a, 5, b'a'], &[0x0a, 1, 0xff], &[0x08, 1], &[0x0b]] {
        assert_ne!(check(type_url::CLUSTER, bytes), [], "{bytes:?}");
    }
}

#[test]
fn messages_without_end_are_refused() {
    // An extension in an extension in an extension …
    let mut config = TypedExtensionConfig { name: "a".into(), typed_config: None };
    for _ in 0..10_000 {
        config = TypedExtensionConfig { name: "a".into(), typed_config: Some(pack_typed(&config)) };
    }
    let found = found("type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig", &config);
    assert!(found[0].ends_with("is nested too deeply"), "{found:?}");
}

#[test]
fn no_more_is_kept_than_can_be_read() {
    let host = VirtualHost {
        domains: vec![],
        request_headers_to_add: vec![HeaderValueOption::default(); 1000],
        ..VirtualHost::default()
    };
    assert_eq!(check(type_url::VIRTUAL_HOST, &host.encode_to_vec()).len(), 100);
}
