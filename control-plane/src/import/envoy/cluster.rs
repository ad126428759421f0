//! A cluster as a service, if it is one.

use chancery_proto::type_url;
use serde_json::{Value, json};

use super::{
    covered::uncovered,
    message::{duration, items, shown, text},
};
use crate::{
    import::draft,
    model::{Kind, Resource},
    translate::cluster,
};

/// Where the protocols of a cluster stand.
const PROTOCOLS: &str =
    "/typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions/explicit_http_config";

/// The spec of the service that says all that `cluster` says; or the paths of what no service says.
pub(super) fn service(cluster: &Value) -> Result<Value, Vec<String>> {
    let endpoints = endpoints(cluster).ok_or_else(|| vec!["load_assignment".to_owned()])?;
    let http2 = cluster.pointer(&format!("{PROTOCOLS}/http2_protocol_options")).is_some();
    let checks = items(cluster, "/health_checks").first().map(|check| {
        json!({
            "path": text(check, "/http_health_check/path"),
            "host": text(check, "/http_health_check/host"),
            "interval": duration(check, "/interval"),
            "timeout": duration(check, "/timeout"),
            "unhealthyAfter": check["unhealthy_threshold"],
            "healthyAfter": check["healthy_threshold"],
        })
    });
    let thresholds = &cluster["circuit_breakers"]["thresholds"][0];
    let breaker = json!({
        "maxConnections": thresholds["max_connections"],
        "maxRequests": thresholds["max_requests"],
        "maxPending": thresholds["max_pending_requests"],
        "maxRetries": thresholds["max_retries"],
    });
    let outliers = cluster.get("outlier_detection").map(|outliers| {
        // Envoy counts gateway failures, and does nothing about them unless it is told to.
        let enforced = outliers["enforcing_consecutive_gateway_failure"] == 100;
        json!({
            "consecutive5xx": outliers["consecutive_5xx"],
            "consecutiveGatewayFailures": enforced.then(|| outliers["consecutive_gateway_failure"].clone()),
            "interval": duration(outliers, "/interval"),
            "ejectFor": duration(outliers, "/base_ejection_time"),
            "maxEjectedPercent": outliers["max_ejection_percent"],
        })
    });
    let named = text(cluster, "/lb_policy").and_then(policy_called);
    let policy = named.or_else(|| policy_called(policy_type(cluster)?));
    let spec = draft::dense(json!({
        "endpoints": endpoints,
        "protocol": http2.then_some("http2"),
        "tls": cluster.pointer("/transport_socket/typed_config").map(tls),
        "connectTimeout": duration(cluster, "/connect_timeout"),
        "loadBalancing": policy,
        "healthCheck": checks,
        "breaker": draft::given(breaker),
        "outlierDetection": outliers,
    }));
    let Some(Resource::Service(service)) = draft::resource(&draft::document(Kind::Service, "a", None, spec.clone()))
    else {
        return Err(vec![String::new()]);
    };
    let made = shown(type_url::CLUSTER, &cluster::cluster(&service));
    let mut source = cluster.clone();
    if let Some(fields) = source.as_object_mut() {
        // Told by the endpoints.
        for told in ["name", "type", "load_assignment"] {
            fields.remove(told);
        }
        // The older way to say it, which ours is not written in.
        if named.is_some() {
            fields.remove("lb_policy");
        }
    }
    match uncovered(&source, &made, &["name"]) {
        paths if paths.is_empty() => Ok(spec),
        paths => Err(paths),
    }
}

/// How a service calls a policy, by its name in `lb_policy` or that of its message; none: round robin, or none that a service has.
fn policy_called(name: &str) -> Option<&'static str> {
    match name {
        "LEAST_REQUEST" | "LeastRequest" => Some("least-request"),
        "RANDOM" | "Random" => Some("random"),
        _ => None,
    }
}

/// The name of the message that says how an endpoint is chosen.
fn policy_type(cluster: &Value) -> Option<&str> {
    let settings = "/load_balancing_policy/policies/0/typed_extension_config/typed_config/@type";
    text(cluster, settings)?.rsplit('.').next()
}

/// The endpoints, if they have nothing but addresses and weights.
fn endpoints(cluster: &Value) -> Option<Vec<Value>> {
    let dns = match text(cluster, "/type").unwrap_or("STATIC") {
        "STATIC" => false,
        "STRICT_DNS" => true,
        _ => return None,
    };
    let only = |value: &Value, known: &[&str]| {
        value.as_object().is_some_and(|fields| fields.keys().all(|name| known.contains(&name.as_str())))
    };
    let assignment = cluster.get("load_assignment")?;
    let localities = items(assignment, "/endpoints");
    if !only(assignment, &["cluster_name", "endpoints"]) || localities.len() > 1 {
        return None;
    }
    let mut endpoints = Vec::new();
    for locality in localities {
        if !only(locality, &["lb_endpoints"]) {
            return None;
        }
        for endpoint in items(locality, "/lb_endpoints") {
            let socket = endpoint.pointer("/endpoint/address/socket_address")?;
            if !only(endpoint, &["endpoint", "load_balancing_weight"])
                || !only(&endpoint["endpoint"], &["address"])
                || !only(socket, &["address", "port_value"])
            {
                return None;
            }
            endpoints.push(json!({
                "address": socket["address"],
                "port": socket["port_value"],
                "dns": (dns && text(socket, "/address")?.parse::<std::net::IpAddr>().is_err()).then_some(true),
                "weight": endpoint["load_balancing_weight"],
            }));
        }
    }
    Some(endpoints)
}

fn tls(context: &Value) -> Value {
    let common = &context["common_tls_context"];
    let validation = &common["validation_context"];
    let trusted = text(validation, "/trusted_ca/filename").map(|file| json!({ "file": file }));
    let names: Vec<Value> = items(validation, "/match_typed_subject_alt_names")
        .iter()
        .map(|name| match text(name, "/san_type") {
            Some("URI") => json!({ "uri": name["matcher"]["exact"] }),
            Some("IP_ADDRESS") => json!({ "ip": name["matcher"]["exact"] }),
            _ => json!({ "dns": name["matcher"]["exact"] }),
        })
        .collect();
    let certificate = items(common, "/tls_certificates").first().map(|certificate| {
        json!({
            "certificateFile": certificate["certificate_chain"]["filename"],
            "privateKeyFile": certificate["private_key"]["filename"],
        })
    });
    json!({
        "sni": context["sni"],
        // Envoy believes whoever answers, unless it is told whom to believe.
        "insecureSkipVerify": trusted.is_none().then_some(true),
        "trustedCa": trusted,
        "subjectAltNames": (!names.is_empty()).then_some(names),
        "clientCertificate": certificate,
    })
}
