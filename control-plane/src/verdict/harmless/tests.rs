use chancery_proto::describe::{json, types::Type};
use serde_json::{Value, json};

use super::*;

/// `message` as it would be shown, as JSON.
fn shown(type_url: &str, message: &Value) -> Option<Value> {
    let of = Type::of_url(type_url).unwrap();
    let bytes = json::encode(of, message).unwrap();
    Some(json::decode(of, &Harmless::of(type_url, &bytes)?.message).unwrap())
}

fn cluster(mut with: Value) -> Value {
    let endpoint = json!({ "address": { "socket_address": { "address": "shop.internal", "port_value": 80 } } });
    with["name"] = "shop".into();
    with["load_assignment"] =
        json!({ "cluster_name": "shop", "endpoints": [{ "lb_endpoints": [{ "endpoint": endpoint }] }] });
    with
}

fn typed(name: &str, mut fields: Value) -> Value {
    fields["@type"] = format!("type.googleapis.com/envoy.extensions.{name}").into();
    fields
}

fn listener(filter: &Value) -> Value {
    json!({ "name": "raw", "filter_chains": [{ "filters": [{ "name": "it", "typed_config": filter }] }] })
}

fn tls(certificate: &Value) -> Value {
    let context = json!({ "common_tls_context": { "tls_certificates": [certificate] } });
    let context = typed("transport_sockets.tls.v3.DownstreamTlsContext", context);
    json!({ "name": "raw", "filter_chains": [{ "transport_socket": { "name": "tls", "typed_config": context } }] })
}

#[test]
fn names_are_looked_up_by_nobody() {
    let address = |with: Value| {
        let shown = shown(type_url::CLUSTER, &cluster(with)).unwrap();
        let endpoint = &shown["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
        endpoint["address"]["socket_address"]["address"].as_str().unwrap().to_owned()
    };
    let dns = json!({ "name": "dns", "typed_config": typed("clusters.dns.v3.DnsCluster", json!({})) });
    for resolved in [json!({ "type": "STRICT_DNS" }), json!({ "type": "LOGICAL_DNS" }), json!({ "cluster_type": dns })]
    {
        assert_eq!(address(resolved), "127.0.0.1");
    }
    // What Envoy refuses must still be seen.
    assert_eq!(address(json!({ "type": "STATIC" })), "shop.internal");
}

#[test]
fn files_of_the_proxy_become_stand_ins() {
    let file = |name: &str| json!({ "filename": name });
    let both = json!({ "certificate_chain": file("/etc/tls.crt"), "private_key": file("/etc/tls.key") });
    let ours = json!({ "certificate_chain": file(CERTIFICATE_FILE), "private_key": file(KEY_FILE) });
    assert_eq!(shown(type_url::LISTENER, &tls(&both)), Some(tls(&ours)));

    let ours = tls(&json!({ "certificate_chain": { "inline_string": "a" }, "private_key": { "inline_string": "b" } }));
    assert_eq!(shown(type_url::LISTENER, &ours), Some(ours.clone()), "what is there is judged");
    let mixed = json!({ "certificate_chain": { "inline_string": "a" }, "private_key": file("/etc/tls.key") });
    assert_eq!(shown(type_url::LISTENER, &tls(&mixed)), None);

    let log = |path: &str| {
        let log = json!({ "name": "log", "typed_config": typed("access_loggers.file.v3.FileAccessLog", json!({ "path": path })) });
        listener(&typed("filters.network.tcp_proxy.v3.TcpProxy", json!({ "stat_prefix": "raw", "access_log": [log] })))
    };
    assert_eq!(shown(type_url::LISTENER, &log("/var/log/envoy.log")), Some(log("/dev/null")));
}

#[test]
fn what_would_run_or_reach_out_or_read_is_not_shown() {
    let google = json!({ "google_grpc": { "target_uri": "10.0.0.1:80", "stat_prefix": "x" } });
    let source = json!({ "api_config_source": { "api_type": "GRPC", "grpc_services": [google] } });
    let resolver = typed(
        "network.dns_resolver.cares.v3.CaresDnsResolverConfig",
        json!({ "resolvers": [
        { "socket_address": { "address": "10.0.0.1", "port_value": 53 } }
    ] }),
    );
    for (type_url, message) in [
        (type_url::LISTENER, listener(&typed("filters.http.lua.v3.Lua", json!({ "inline_code": "os.exit()" })))),
        (
            type_url::LISTENER,
            listener(&typed(
                "filters.http.lua.v3.Lua",
                json!({
                    "source_codes": { "a": { "inline_bytes": "AA==" } },
                }),
            )),
        ),
        (type_url::CLUSTER, json!({ "name": "a", "eds_cluster_config": { "eds_config": source } })),
        (
            type_url::CLUSTER,
            json!({ "name": "a", "typed_dns_resolver_config": { "name": "c", "typed_config": resolver } }),
        ),
        (
            type_url::CLUSTER,
            json!({ "name": "a", "eds_cluster_config": { "eds_config": {
            "path_config_source": { "path": "/etc/passwd" },
        } } }),
        ),
        (type_url::SECRET, json!({ "name": "a", "generic_secret": { "secret": { "environment_variable": "HOME" } } })),
        (
            type_url::VIRTUAL_HOST,
            json!({ "name": "web/a", "domains": ["a"], "routes": [{
            "match": { "prefix": "/" },
            "direct_response": { "status": 200, "body": { "filename": "/etc/passwd" } },
        }] }),
        ),
    ] {
        assert_eq!(shown(type_url, &message), None, "{message}");
    }
}

#[test]
fn clusters_that_are_named_are_known() {
    let proxy = typed("filters.network.tcp_proxy.v3.TcpProxy", json!({ "stat_prefix": "raw", "cluster": "shop" }));
    let bytes = json::encode(Type::of_url(type_url::LISTENER).unwrap(), &listener(&proxy)).unwrap();
    let harmless = Harmless::of(type_url::LISTENER, &bytes).unwrap();
    assert_eq!(harmless.clusters, BTreeSet::from(["shop".to_owned()]));
}

/// Fields that sound as if they named a file and do not.
const SOUNDS_LIKE_A_FILE: [&str; 23] = [
    "envoy.config.core.v3.HealthCheck.HttpHealthCheck.path",
    // Neither bound nor connected to.
    "envoy.config.core.v3.Pipe.path",
    "envoy.config.route.v3.RedirectAction.path_redirect",
    "envoy.config.route.v3.RedirectAction.path_rewrite",
    "envoy.config.route.v3.RouteAction.HashPolicy.Cookie.path",
    "envoy.config.route.v3.RouteAction.path_rewrite",
    "envoy.config.route.v3.RouteMatch.path",
    "envoy.config.route.v3.RouteMatch.path_separated_prefix",
    "envoy.extensions.bootstrap.reverse_tunnel.downstream_socket_interface.v3.DownstreamReverseConnectionSocketInterface.HttpHandshakeConfig.request_path",
    "envoy.extensions.clusters.mcp_multicluster.v3.ClusterConfig.McpCluster.path",
    "envoy.extensions.filters.http.a2a.v3.MethodParsingConfig.paths",
    "envoy.extensions.filters.http.ext_authz.v3.HttpService.path_override",
    "envoy.extensions.filters.http.ext_authz.v3.HttpService.path_prefix",
    "envoy.extensions.filters.http.file_server.v3.FileServerConfig.PathMapping.request_path_prefix",
    "envoy.extensions.filters.http.oauth2.v3.CookieConfig.path",
    "envoy.extensions.filters.http.proto_message_extraction.v3.ProtoMessageExtractionConfig.proto_descriptor_typed_metadata",
    "envoy.extensions.filters.network.reverse_tunnel.v3.ReverseTunnel.request_path",
    "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.TunnelingConfig.post_path",
    "envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig.UdpTunnelingConfig.post_path",
    "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig.path_template",
    "envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig.path_template_rewrite",
    "envoy.extensions.filters.http.file_server.v3.FileServerConfig.DirectoryBehavior.default_file",
    "envoy.type.http.v3.Cookie.path",
];

/// Whoever takes newer messages of Envoy's has to say of each new field what it is.
#[test]
fn of_every_field_that_sounds_like_a_file_it_is_known_what_it_is() {
    let sounds = ["path", "file", "dir", "library", "proto_descriptor", "environment_variable"];
    // What stands in no resource of a fleet, or speaks of a part of a message.
    let elsewhere =
        ["envoy.config.bootstrap.v3.", "envoy.service.", "envoy.admin.", "envoy.data.", "envoy.watchdog.", "google."];
    let about_requests = ["redirect", ".mcp.", ".mcp_", "profile"];
    let exists = |field: &&str| {
        let (of, name) = field.rsplit_once('.').unwrap();
        Type::named(of).is_some_and(|of| of.texts().any(|text| text == name))
    };
    let gone: Vec<_> = LOGS.iter().chain(&ON_THE_PROXY).filter(|field| !exists(field)).collect();
    assert!(gone.is_empty(), "{gone:#?}");
    let mut unknown = Vec::new();
    for name in Type::names() {
        if elsewhere.iter().any(|prefix| name.starts_with(prefix)) || NEVER_SHOWN.iter().any(|part| name.contains(part))
        {
            continue;
        }
        for field in Type::named(name).into_iter().flat_map(Type::texts) {
            let whole = format!("{name}.{field}");
            let is_known = LOGS.iter().chain(&ON_THE_PROXY).chain(&SOUNDS_LIKE_A_FILE).any(|known| *known == whole);
            let plain = about_requests.iter().any(|part| whole.contains(part));
            if sounds.iter().any(|sound| field.contains(sound)) && !is_known && !plain {
                unknown.push(whole);
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
}
