//! What the API answers, as far as it is shown to people. For programs, answers are passed on as they came.

use std::collections::BTreeMap;

use chancery_control_plane::model::{Document, Kind};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

/// What a write did.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Written {
    pub(crate) revision: u64,
    pub(crate) changed: Vec<Changed>,
    #[serde(default)]
    pub(crate) dry_run: bool,
    pub(crate) applied: Option<Applied>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Changed {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) action: String,
    #[serde(default)]
    pub(crate) fields: Vec<FieldChange>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct FieldChange {
    pub(crate) path: String,
    pub(crate) before: Option<Value>,
    pub(crate) after: Option<Value>,
}

/// What an apply would do.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Plan {
    #[serde(flatten)]
    pub(crate) written: Written,
    pub(crate) fleets: Vec<FleetPlan>,
    pub(crate) limiters: Option<LimiterPlan>,
    pub(crate) complete: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct FleetPlan {
    pub(crate) fleet: String,
    pub(crate) connected: usize,
    pub(crate) proxies: Vec<String>,
    pub(crate) canaries: usize,
    pub(crate) staged: bool,
    pub(crate) resources: Vec<PlannedResource>,
    pub(crate) omitted: usize,
    pub(crate) drains: Vec<PlannedDrain>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct PlannedResource {
    pub(crate) r#type: String,
    pub(crate) name: String,
    pub(crate) change: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PlannedDrain {
    pub(crate) listener: String,
    pub(crate) reason: String,
    pub(crate) filter_chains: Option<Vec<String>>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct LimiterPlan {
    pub(crate) fleets: Vec<String>,
    pub(crate) connected: usize,
}

/// What differs between two revisions; a page of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Comparison<T> {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) items: Vec<T>,
    pub(crate) next_cursor: Option<String>,
}

/// A resource that differs.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Difference {
    #[serde(flatten)]
    pub(crate) changed: Changed,
    pub(crate) before: Option<Document>,
    pub(crate) after: Option<Document>,
}

/// Who wrote each field of a resource.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Blame {
    pub(crate) fields: Vec<FieldOrigin>,
    pub(crate) omitted: usize,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct FieldOrigin {
    pub(crate) path: String,
    pub(crate) value: Value,
    pub(crate) revision: Option<u64>,
    pub(crate) author: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) at: Option<String>,
}

/// How a change arrived at the proxies.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Applied {
    pub(crate) proxies: usize,
    pub(crate) applied: usize,
    pub(crate) refused: Vec<Refusal>,
    pub(crate) pending: Vec<String>,
    pub(crate) slowest_ms: Option<f64>,
    pub(crate) timed_out: bool,
    #[serde(default)]
    pub(crate) staged: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) proxy: String,
    pub(crate) r#type: String,
    pub(crate) resource: Option<String>,
    pub(crate) reason: String,
}

/// A page of anything.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    pub(crate) next_cursor: Option<String>,
}

/// The items that this version can read, to be shown as a table.
pub(crate) fn known<T: DeserializeOwned>(items: &[Value]) -> Vec<T> {
    items.iter().filter_map(|item| T::deserialize(item).ok()).collect()
}

/// A revision.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Revision {
    pub(crate) number: u64,
    pub(crate) author: String,
    pub(crate) message: String,
    pub(crate) at: String,
    pub(crate) change_count: u64,
}

/// The proxies that are known.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ProxyList<T> {
    pub(crate) items: Vec<T>,
    pub(crate) complete: bool,
}

/// A proxy.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Proxy {
    pub(crate) id: String,
    pub(crate) fleet: String,
    pub(crate) connected: bool,
    #[serde(default)]
    pub(crate) canary: bool,
    pub(crate) replica: String,
    #[serde(default)]
    pub(crate) replica_lost: bool,
    pub(crate) connected_since: String,
    pub(crate) disconnected_at: Option<String>,
    pub(crate) address: Option<String>,
    pub(crate) envoy_version: Option<String>,
    pub(crate) protocol: String,
    pub(crate) settled_revision: u64,
    pub(crate) wanted_revision: u64,
    pub(crate) lag_ms: Option<f64>,
    pub(crate) types: BTreeMap<String, TypeStatus>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TypeStatus {
    pub(crate) status: String,
    pub(crate) sent_version: Option<String>,
    pub(crate) acked_version: Option<String>,
    pub(crate) lag_ms: Option<f64>,
    pub(crate) warming_ms: Option<f64>,
    pub(crate) last_rejection: Option<Rejection>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Rejection {
    pub(crate) at: String,
    pub(crate) version: String,
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) resources: Vec<String>,
}

/// What a proxy was given.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Given {
    pub(crate) revision: u64,
    pub(crate) resources: Vec<GivenResource>,
    pub(crate) omitted: usize,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GivenResource {
    pub(crate) r#type: String,
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) because: Option<String>,
    pub(crate) wanted_version: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) reason: Option<String>,
}

impl Proxy {
    /// Whether it has applied everything it was sent.
    pub(crate) fn synced(&self) -> bool {
        self.types.values().all(|status| matches!(status.status.as_str(), "synced" | "notSent"))
    }
}

/// Seconds are enough for people.
pub(crate) fn moment(at: &str) -> String {
    match at.split_once('.') {
        Some((seconds, rest)) => seconds.to_owned() + rest.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => at.to_owned(),
    }
}
