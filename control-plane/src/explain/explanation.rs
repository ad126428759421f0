//! What is said of a request: the words of the API and of the command line.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The revision of the catalog that this is said of.
    pub revision: u64,
    /// The fleet that the request comes to.
    pub fleet: Source,
    /// The listeners that could take it, by name, and what each does with it.
    pub listeners: Vec<AtListener>,
    /// What else is to be known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Explanation {
    /// Whether a rule matches, on any listener.
    pub fn is_matched(&self) -> bool {
        self.listeners.iter().any(|listener| listener.rule.is_some())
    }
}

/// Where something is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// The resource.
    #[schema(examples("Route/checkout"))]
    pub resource: String,
    /// Where in it, as a JSON path; empty for the whole resource.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(examples("spec.rules[2]"))]
    pub path: String,
    /// The revision that last changed the resource.
    pub revision: u64,
}

/// What a listener does with a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AtListener {
    /// The listener.
    pub listener: Source,
    /// `http` or `https`.
    pub protocol: String,
    /// The port that it is bound to.
    pub port: u16,
    /// The request as routes see it; absent if it does not get so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Seen>,
    /// The claimed host that matches; absent if none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_host: Option<VirtualHost>,
    /// The rules that were tried before and did not match, in their order.
    pub passed_over: Vec<PassedOver>,
    /// How many more there were, none of which came as close as those above.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub passed_over_omitted: usize,
    /// If no rule matches: the one that came closest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest: Option<Source>,
    /// The rule that matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Source>,
    /// What may turn the request away first, in the order in which it is asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guards: Vec<Guard>,
    /// Where the request goes.
    pub destination: Destination,
    /// What else the rule does, if it sends to services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policies: Option<Policies>,
    /// What is changed about the headers of the answer, if the rule answers by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_headers: Option<HeaderEdits>,
    /// Patches that may change any of this; what they do is not part of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patches: Vec<Source>,
    /// What else is to be known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// What a request has to pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Guard {
    /// Where it is written.
    pub from: Source,
    /// Who or what passes.
    #[schema(examples("a token of corp"))]
    pub what: String,
}

/// A request as routes see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// The method.
    pub method: String,
    /// The scheme.
    pub scheme: String,
    /// The host, with a port if the request has one.
    pub host: String,
    /// The path, normalized.
    pub path: String,
    /// The query, as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
}

/// The claimed host that a request comes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualHost {
    /// As routes claim it.
    #[schema(examples("*.example.com"))]
    pub host: String,
    /// Why it is this one.
    pub because: String,
    /// The routes that claim it; their rules are tried together.
    pub routes: Vec<Source>,
}

/// A rule that was tried and did not match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PassedOver {
    /// The rule.
    pub rule: Source,
    /// What did not hold, the first first.
    pub unmet: Vec<Unmet>,
}

/// A condition that did not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Unmet {
    /// Where it is written, in the resource of the rule.
    #[schema(examples("spec.rules[0].match.headers[1]"))]
    pub path: String,
    /// What it is.
    #[schema(examples("header x-beta is \"1\""))]
    pub wanted: String,
    /// What there was.
    #[schema(examples("\"2\""))]
    pub found: String,
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "action")]
pub enum Destination {
    /// To one of these services.
    Forward {
        /// The services, with their shares.
        to: Vec<Share>,
        /// The host that the service sees.
        host: String,
        /// Path and query that the service sees.
        path: String,
    },
    /// The client is sent elsewhere.
    Redirect {
        /// The status.
        status: u16,
        /// Where to.
        location: String,
    },
    /// The proxy answers.
    Respond {
        /// The status.
        status: u16,
        /// The URL of the request itself, which Envoy adds to 201 and to what is else a redirect.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        location: Option<String>,
        /// The body.
        body: String,
    },
    /// The proxy answers what a browser asks before it sends a request from a page of another origin.
    Preflight {
        /// The status.
        status: u16,
        /// Whether the origin may.
        allowed: bool,
    },
    /// The proxy refuses it before any rule is tried.
    Refused {
        /// The status.
        status: u16,
        /// Where the client is sent, if it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        location: Option<String>,
        /// Why.
        because: String,
    },
    /// No rule matches.
    NoRoute {
        /// The status.
        status: u16,
    },
}

/// A service and how much of the requests it gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    /// The service.
    pub service: Source,
    /// The labels of its endpoints that are meant; all endpoints if there are none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub subset: BTreeMap<String, String>,
    /// Its weight.
    pub weight: u32,
    /// The sum of all weights.
    pub of: u64,
    /// By what a client comes back to the endpoint that it had, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionPolicy>,
}

/// By what a client comes back to the endpoint that it had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionPolicy {
    /// Where it is written.
    pub from: Source,
    /// What the client has to bring.
    #[schema(examples("cookie sid"))]
    pub by: String,
}

/// What a rule does to requests that it sends to services.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Policies {
    /// How long the whole answer may take.
    #[schema(examples("15s"))]
    pub timeout: String,
    /// Who says so: the rule, or the fleet for want of that.
    pub timeout_from: Source,
    /// Time without a byte, if the rule says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<String>,
    /// Time for request and answer together, if the rule says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_stream_duration: Option<String>,
    /// When it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// The limits, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<LimitPolicy>,
    /// Who gets a copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<MirrorPolicy>,
    /// What some requests meet on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<FaultPolicy>,
    /// Which pages of other origins may use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<CorsPolicy>,
    /// What is changed about the headers of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_headers: Option<HeaderEdits>,
    /// What is changed about the headers of the response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_headers: Option<HeaderEdits>,
}

/// When and how often a request is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetryPolicy {
    /// Where it is written.
    pub from: Source,
    /// When.
    pub on: Vec<String>,
    /// The statuses of answers and the headers in them after which it is, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_answers: Vec<String>,
    /// How often, after the first try.
    pub attempts: u32,
    /// Whether endpoints that were not tried yet come first.
    #[serde(default)]
    pub another_host: bool,
    /// Time for one try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_try_timeout: Option<String>,
    /// The first and the longest wait between tries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<[String; 2]>,
}

/// A limit and what the request counts as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LimitPolicy {
    /// The limit.
    pub limit: Source,
    /// The place that names it.
    pub from: Source,
    /// How much is admitted.
    #[schema(examples("100 per 1s, burst 200"))]
    pub amount: String,
    /// Whether it applies to this request; it may be for those with a certain header or parameter only.
    pub applies: bool,
    /// By what the request is counted.
    pub key: Vec<KeyValue>,
}

/// A part of the key of a limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyValue {
    /// The part.
    pub key: String,
    /// Its value for this request; absent if it is not known before the request is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// Who gets a copy of some requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MirrorPolicy {
    /// Where it is written.
    pub from: Source,
    /// The service.
    pub service: Source,
    /// Of how many requests in a hundred.
    pub percent: u32,
}

/// What some requests meet on purpose, until it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FaultPolicy {
    /// Where it is written.
    pub from: Source,
    /// What.
    #[schema(examples("5 % answered with 503"))]
    pub what: Vec<String>,
    /// When it ends.
    pub expires: String,
}

/// Which pages of other origins may use a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CorsPolicy {
    /// Where it is written.
    pub from: Source,
    /// The origin of this request, and whether it may; absent if the request names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin_allowed: Option<bool>,
}

/// Changes to headers: removals first, then what is set, then what is added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeaderEdits {
    /// Where they are written.
    pub from: Source,
    /// `-x-debug`, `x-from: edge`, `+x-via: edge`.
    pub edits: Vec<String>,
}

/// A duration as it is written in a document.
pub(super) fn written(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let units = [(3_600_000, "h"), (60_000, "m"), (1000, "s")];
    let whole = units.into_iter().find(|(unit, _)| milliseconds > 0 && milliseconds.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{milliseconds}ms"), |(unit, name)| format!("{}{name}", milliseconds / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_in_documents() {
        let written = |milliseconds| super::written(Duration::from_millis(milliseconds));
        assert_eq!(
            [250, 1500, 15_000, 90_000, 300_000, 3_600_000].map(written),
            ["250ms", "1500ms", "15s", "90s", "5m", "1h"]
        );
    }
}
