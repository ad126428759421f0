//! What the connections of a cluster begin with: the address of the client, TLS.

use serde_json::{Value, json};

use super::super::message::{items, text};

/// Whether the address of the client comes first, and in which form.
pub(super) fn proxy_protocol(cluster: &Value) -> Option<&'static str> {
    let socket = cluster.pointer("/transport_socket/typed_config").filter(|socket| wraps(socket))?;
    // Of the two forms, the older one is not written.
    Some(if text(socket, "/config/version") == Some("V2") { "v2" } else { "v1" })
}

/// `tls` of the service.
pub(super) fn tls(cluster: &Value) -> Option<Value> {
    let socket = cluster.pointer("/transport_socket/typed_config")?;
    let socket = if wraps(socket) { socket.pointer("/transport_socket/typed_config")? } else { socket };
    text(socket, "/@type").is_some_and(|url| url.ends_with(".UpstreamTlsContext")).then(|| context(socket))
}

fn wraps(socket: &Value) -> bool {
    text(socket, "/@type").is_some_and(|url| url.ends_with(".ProxyProtocolUpstreamTransport"))
}

fn context(context: &Value) -> Value {
    let common = &context["common_tls_context"];
    let validation = &common["validation_context"];
    let trusted = &validation["trusted_ca"];
    let trusted = match (text(trusted, "/filename"), text(trusted, "/inline_string")) {
        (Some(file), _) => Some(json!({ "file": file })),
        (None, Some(pem)) => Some(json!({ "pem": pem })),
        (None, None) => None,
    };
    let names: Vec<Value> = items(validation, "/match_typed_subject_alt_names").iter().map(peer).collect();
    let certificate = items(common, "/tls_certificates").first().map(|certificate| {
        json!({
            "certificateFile": certificate["certificate_chain"]["filename"],
            "privateKeyFile": certificate["private_key"]["filename"],
        })
    });
    let oldest = text(common, "/tls_params/tls_minimum_protocol_version");
    json!({
        "sni": context["sni"],
        // Envoy believes whoever answers, unless it is told whom to believe.
        "insecureSkipVerify": trusted.is_none().then_some(true),
        "trustedCa": trusted,
        "subjectAltNames": (!names.is_empty()).then_some(names),
        "clientCertificate": certificate,
        "minVersion": (oldest == Some("TLSv1_3")).then_some("tls1.3"),
    })
}

fn peer(name: &Value) -> Value {
    let matcher = &name["matcher"];
    match text(name, "/san_type") {
        Some("URI") => json!({ "uri": matcher["exact"], "uriPrefix": matcher["prefix"] }),
        Some("IP_ADDRESS") => json!({ "ip": matcher["exact"] }),
        _ => json!({ "dns": matcher["exact"] }),
    }
}
