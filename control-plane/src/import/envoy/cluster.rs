//! A cluster as a service, if it is one.

mod endpoints;
mod load_balancing;
mod socket;

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

/// How many statuses a health check may name.
const MAX_STATUSES: u64 = 100;

/// The spec of the service that says all that `cluster` says; or the paths of what no service says.
pub(super) fn service(cluster: &Value) -> Result<Value, Vec<String>> {
    let (endpoints, overprovisioning) =
        endpoints::endpoints(cluster).ok_or_else(|| vec!["load_assignment".to_owned()])?;
    let http2 = cluster.pointer(&format!("{PROTOCOLS}/http2_protocol_options")).is_some();
    let thresholds = &cluster["circuit_breakers"]["thresholds"][0];
    let breaker = json!({
        "maxConnections": thresholds["max_connections"],
        "maxRequests": thresholds["max_requests"],
        "maxPending": thresholds["max_pending_requests"],
        "maxRetries": thresholds["max_retries"],
    });
    let budget = thresholds.get("retry_budget").map(|budget| {
        json!({
            "percent": whole(budget.pointer("/budget_percent/value")),
            "ttl": duration(budget, "/budget_interval"),
        })
    });
    let source = in_our_words(cluster);
    let (subsets, default_subset) = load_balancing::subsets(&source).unzip();
    let spec = draft::dense(json!({
        "endpoints": endpoints,
        "protocol": http2.then_some("http2"),
        "tls": socket::tls(cluster),
        "proxyProtocol": socket::proxy_protocol(cluster),
        "connectTimeout": duration(cluster, "/connect_timeout"),
        "loadBalancing": load_balancing::load_balancing(&source, overprovisioning.as_ref()),
        "subsets": subsets,
        "defaultSubset": default_subset.flatten(),
        "healthCheck": items(cluster, "/health_checks").first().map(health_check),
        "breaker": draft::given(breaker),
        "retryBudget": budget,
        "outlierDetection": cluster.get("outlier_detection").map(outlier_detection),
    }));
    let spec = draft::without_refused(Kind::Service, spec);
    let Some(Resource::Service(service)) = draft::resource(&draft::document(Kind::Service, "a", None, spec.clone()))
    else {
        return Err(vec![String::new()]);
    };
    let made = shown(type_url::CLUSTER, &cluster::cluster(&service));
    match uncovered(&source, &made, &["name"]) {
        paths if paths.is_empty() => Ok(spec),
        paths => Err(paths),
    }
}

/// A cluster as we would have said it, without what its endpoints tell.
fn in_our_words(cluster: &Value) -> Value {
    let mut source = load_balancing::in_our_words(cluster);
    if let Some(fields) = source.as_object_mut() {
        for told in ["name", "type", "load_assignment"] {
            fields.remove(told);
        }
    }
    // What a cluster is called is what its servers are asked for unless something else is said.
    if let Some(check) = source.pointer_mut("/health_checks/0/grpc_health_check").and_then(Value::as_object_mut)
        && check.get("authority").is_some_and(|authority| *authority == cluster["name"])
    {
        check.remove("authority");
    }
    source
}

fn health_check(check: &Value) -> Value {
    let statuses = items(check, "/http_health_check/expected_statuses").iter().flat_map(|range| {
        let bound = |name: &str| range.get(name).and_then(Value::as_str).and_then(|bound| bound.parse().ok());
        let (start, end): (u64, u64) = (bound("start").unwrap_or(0), bound("end").unwrap_or(0));
        start..end.min(start + MAX_STATUSES + 1)
    });
    let statuses: Vec<u64> = statuses.take(MAX_STATUSES as usize + 1).collect();
    json!({
        "path": text(check, "/http_health_check/path"),
        "host": text(check, "/http_health_check/host"),
        "statuses": (!statuses.is_empty()).then_some(statuses),
        "grpc": check.get("grpc_health_check").map(|grpc| json!({ "service": grpc["service_name"] })),
        "tcp": check.get("tcp_health_check").map(|_| true),
        "interval": duration(check, "/interval"),
        "timeout": duration(check, "/timeout"),
        "unhealthyAfter": check["unhealthy_threshold"],
        "healthyAfter": check["healthy_threshold"],
    })
}

fn outlier_detection(outliers: &Value) -> Value {
    // Envoy counts gateway failures, and does nothing about them unless it is told to; so with a share of failures.
    let enforced = |what: &str| outliers[format!("enforcing_{what}")] == 100;
    let if_enforced = |what: &str, field: &str| enforced(what).then(|| outliers[field].clone());
    let either = |one: &str, other: &str| outliers.get(one).or_else(|| outliers.get(other)).cloned();
    json!({
        "consecutive5xx": outliers["consecutive_5xx"],
        "consecutiveGatewayFailures": if_enforced("consecutive_gateway_failure", "consecutive_gateway_failure"),
        "interval": duration(outliers, "/interval"),
        "ejectFor": duration(outliers, "/base_ejection_time"),
        "maxEjectedPercent": outliers["max_ejection_percent"],
        "failurePercent": if_enforced("failure_percentage", "failure_percentage_threshold"),
        "minEndpoints": either("success_rate_minimum_hosts", "failure_percentage_minimum_hosts"),
        "minRequests": either("success_rate_request_volume", "failure_percentage_request_volume"),
    })
}

/// A number without a fraction, as one that documents take; anything else as it is, for them to refuse.
fn whole(number: Option<&Value>) -> Option<Value> {
    let number = number?;
    let whole = number.as_f64().filter(|value| value.fract() == 0.0 && (0.0..=1e6).contains(value));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is a whole number of this range")]
    let whole = whole.map(|value| Value::from(value as u64));
    Some(whole.unwrap_or_else(|| number.clone()))
}
