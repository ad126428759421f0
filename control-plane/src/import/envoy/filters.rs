//! What a route tells filters, as fields of a rule; and a route's own way to say it in the form of ours.

use serde_json::{Map, Value, json};

use super::message::{duration, items, text};
use crate::import::draft;

const CORS: &str = "envoy.filters.http.cors";
const LOCAL_RATE_LIMIT: &str = "envoy.filters.http.local_ratelimit";
const BUFFER: &str = "envoy.filters.http.buffer";

/// What is around the settings of a filter where that is switched on for a route.
const FILTER_CONFIG: &str = "type.googleapis.com/envoy.config.route.v3.FilterConfig";

/// Adds to `rule` what `route` tells filters that rules have fields for.
pub(super) fn fields(route: &Value, rule: &mut Map<String, Value>) {
    let told = |filter: &str| {
        let told = route.get("typed_per_filter_config")?.get(filter)?;
        Some(if text(told, "/@type") == Some(FILTER_CONFIG) { told.get("config")? } else { told })
    };
    if let Some(cors) = told(CORS) {
        rule.insert("cors".to_owned(), draft::dense(self::cors(cors)));
    }
    if let Some(limit) = told(LOCAL_RATE_LIMIT) {
        let bucket = &limit["token_bucket"];
        let limit = json!({
            "requests": bucket.get("tokens_per_fill").cloned().unwrap_or_else(|| 1.into()),
            "per": duration(bucket, "/fill_interval"),
            "burst": bucket["max_tokens"],
        });
        rule.insert("localRateLimit".to_owned(), draft::dense(limit));
    }
    if let Some(bytes) = told(BUFFER).and_then(|buffer| buffer.pointer("/buffer/max_request_bytes")) {
        rule.insert("maxRequestBody".to_owned(), format!("{bytes}B").into());
    }
}

fn cors(cors: &Value) -> Value {
    let listed = |field: &str| {
        let names = text(cors, &format!("/{field}"))?.split(',').map(str::trim);
        Some(names.filter(|name| !name.is_empty()).collect::<Vec<_>>())
    };
    let origins: Vec<Value> =
        items(cors, "/allow_origin_string_match").iter().map(|origin| origin["exact"].clone()).collect();
    json!({
        "origins": origins,
        "methods": listed("allow_methods"),
        "headers": listed("allow_headers"),
        "exposeHeaders": listed("expose_headers"),
        "maxAge": text(cors, "/max_age").map(|seconds| format!("{seconds}s")),
        "credentials": cors["allow_credentials"],
    })
}

/// Puts what `route` tells filters into the form of ours.
pub(super) fn in_our_words(route: &mut Value) {
    let Some(told) = route.get_mut("typed_per_filter_config").and_then(Value::as_object_mut) else { return };
    for (filter, told) in
        told.iter_mut().filter(|(filter, _)| [CORS, LOCAL_RATE_LIMIT, BUFFER].contains(&filter.as_str()))
    {
        if text(told, "/@type") != Some(FILTER_CONFIG) {
            *told = json!({ "@type": FILTER_CONFIG, "config": told.take() });
        }
        // How statistics are called.
        if filter == LOCAL_RATE_LIMIT
            && let Some(settings) = told.get_mut("config").and_then(Value::as_object_mut)
        {
            settings.remove("stat_prefix");
        }
    }
}
