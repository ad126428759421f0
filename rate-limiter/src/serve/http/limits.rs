//! What is loaded, and why a request would be refused: answers for people and for `chancery limits`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Json,
    body::Bytes,
    extract::{
        Query, State,
        rejection::{BytesRejection, QueryRejection},
    },
};
use serde::{Deserialize, Serialize};

use super::{Http, json::RequestDto, problem::Problem};
use crate::{
    decide::{
        Caller,
        explain::{Cell, Explained, Finding},
    },
    model::{
        descriptor::{Descriptor, Hits},
        limit::{Algorithm, Limit},
        rule::{Amount, Domain, Rule, WithoutRedis},
    },
    store::Source,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    domain: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct LimitsDto {
    domains: Vec<DomainDto>,
}

#[derive(Debug, Serialize)]
struct DomainDto {
    name: String,
    /// The file or the resource.
    origin: String,
    /// Absent: every client that may connect.
    #[serde(skip_serializing_if = "Option::is_none")]
    fleets: Option<Vec<String>>,
    rules: Vec<RuleDto>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RuleDto {
    path: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    /// Absent: unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<LimitDto>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    replaces: Vec<String>,
    /// Those that are set, in the words of the configuration.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    flags: Vec<&'static str>,
    when_redis_is_down: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LimitDto {
    requests: u32,
    per: String,
    burst: u32,
    algorithm: &'static str,
}

/// `GET /limits`, of all domains or one. Like metrics it is for whoever may reach the port: looking changes nothing.
pub(super) async fn list(
    State(http): State<Http>,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Json<LimitsDto>, Problem> {
    let Query(which) = which?;
    let rules = http.limiter.rules();
    let wanted = |domain: &&Domain| which.domain.as_deref().is_none_or(|name| name == domain.name());
    let mut domains: BTreeMap<&str, DomainDto> =
        rules.rules.domains().filter(wanted).map(|domain| (domain.name(), domain_dto(domain))).collect();
    for rule in rules.rules.all() {
        if let Some(domain) = domains.get_mut(&*rule.domain) {
            domain.rules.push(rule_dto(rule));
        }
    }
    Ok(Json(LimitsDto { domains: domains.into_values().collect() }))
}

fn domain_dto(domain: &Domain) -> DomainDto {
    DomainDto {
        name: domain.name().to_owned(),
        origin: domain.origin().to_owned(),
        fleets: domain.fleets().map(|fleets| fleets.iter().cloned().collect()),
        rules: Vec::new(),
    }
}

fn rule_dto(rule: &Rule) -> RuleDto {
    let flags = [
        ("shadow_mode", rule.shadow),
        ("quota_mode", rule.quota),
        ("detailed_metric", rule.detailed_metric),
        ("share_threshold", rule.levels.iter().any(|level| level.shared)),
        ("value_to_metric", rule.levels.iter().any(|level| level.value_to_metric)),
        ("debt", rule.policy.debt),
        ("strict", rule.policy.strict),
    ];
    RuleDto {
        path: rule.path.clone(),
        name: rule.name.clone(),
        limit: match rule.amount {
            Amount::Unlimited => None,
            Amount::Limited(limit) => Some(limit_dto(limit)),
        },
        replaces: rule.replaces.clone(),
        flags: flags.into_iter().filter(|(_, set)| *set).map(|(flag, _)| flag).collect(),
        when_redis_is_down: match rule.policy.without_redis {
            WithoutRedis::Local => "local",
            WithoutRedis::Allow => "allow",
            WithoutRedis::Deny => "deny",
        },
    }
}

fn limit_dto(limit: Limit) -> LimitDto {
    LimitDto {
        requests: limit.requests(),
        per: seconds(limit.per()),
        burst: match limit.algorithm() {
            Algorithm::TokenBucket => limit.burst(),
            Algorithm::FixedWindow => limit.requests(),
        },
        algorithm: match limit.algorithm() {
            Algorithm::TokenBucket => "token-bucket",
            Algorithm::FixedWindow => "fixed-window",
        },
    }
}

#[derive(Debug, Serialize)]
pub(super) struct CheckDto {
    domain: String,
    admitted: bool,
    descriptors: Vec<ExplainedDto>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ExplainedDto {
    entries: Vec<EntryDto>,
    hits: u64,
    finding: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<RuleDto>,
    #[serde(flatten)]
    cell: Option<CellDto>,
}

#[derive(Debug, Serialize)]
struct EntryDto {
    key: String,
    value: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CellDto {
    /// The fingerprint, as it is in Redis's key.
    cell: String,
    /// What the cell is held against: the rule's limit, or the one that came with the request.
    limit: LimitDto,
    remaining: u64,
    /// Until nothing is used any more, or the window ends.
    reset: String,
    /// Until the hits would be admitted; absent if they would be now.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<String>,
    decided_by: &'static str,
}

/// `POST /limits/check`, with the same body as `/json`.
pub(super) async fn check(
    State(http): State<Http>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<CheckDto>, Problem> {
    answer(&http, &RequestDto::parse(&body?)?).await
}

/// `GET /limits/check?domain=d&descriptor=key=value,key=value&descriptor=…&hits=1`
pub(super) async fn check_query(
    State(http): State<Http>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Json<CheckDto>, Problem> {
    let Query(query) = query?;
    answer(&http, &of_query(query)?).await
}

fn of_query(query: Vec<(String, String)>) -> Result<RequestDto, Problem> {
    let (mut domain, mut descriptors, mut hits) = (String::new(), Vec::new(), None);
    for (name, value) in query {
        match name.as_str() {
            "domain" => domain = value,
            "descriptor" => {
                let entry = |entry: &str| match entry.split_once('=') {
                    Some((key, value)) => (key.to_owned(), value.to_owned()),
                    None => (entry.to_owned(), String::new()),
                };
                descriptors.push(value.split(',').map(entry).collect());
            }
            "hits" => {
                let number = value.parse();
                hits = Some(number.map_err(|_| Problem::bad_request(format!("hits: {value:?} is not a number")))?);
            }
            _ => {
                let reason = format!("unknown parameter {name:?}: known are domain, descriptor, hits");
                return Err(Problem::bad_request(reason));
            }
        }
    }
    Ok(RequestDto::of(domain, descriptors, hits))
}

async fn answer(http: &Http, request: &RequestDto) -> Result<Json<CheckDto>, Problem> {
    let request = request.request()?;
    let explained = http.limiter.explain(&request, &Caller::Trusted).await?;
    Ok(Json(CheckDto {
        domain: request.domain.to_owned(),
        admitted: explained.iter().all(|explained| explained.finding != Finding::OverLimit),
        descriptors: request
            .descriptors
            .iter()
            .zip(explained)
            .map(|(asked, found)| explained_dto(asked, found))
            .collect(),
    }))
}

fn explained_dto(descriptor: &Descriptor<'_>, explained: Explained) -> ExplainedDto {
    let Explained { finding, rule, cell } = explained;
    let entry = |entry: &crate::model::descriptor::Entry<'_>| EntryDto {
        key: entry.key.to_owned(),
        value: entry.value.to_owned(),
    };
    ExplainedDto {
        entries: descriptor.entries.iter().map(entry).collect(),
        hits: match descriptor.hits {
            Hits::Take(hits) => hits,
            Hits::GiveBack(_) => 0,
        },
        finding: match finding {
            Finding::UnknownDomain => "unknown_domain",
            Finding::NoRule => "no_rule",
            Finding::Replaced => "replaced",
            Finding::Unlimited => "unlimited",
            Finding::WithinLimit => "within_limit",
            Finding::OverLimit => "over_limit",
            Finding::Shadow => "over_limit_in_shadow_mode",
            Finding::Quota => "over_limit_in_quota_mode",
        },
        rule: rule.as_ref().map(Arc::as_ref).map(rule_dto),
        cell: cell.map(cell_dto),
    }
}

fn cell_dto(cell: Cell) -> CellDto {
    let Cell { key, limit, outcome, retry } = cell;
    CellDto {
        cell: format!("{:032x}", key.0),
        limit: limit_dto(limit),
        remaining: outcome.remaining,
        reset: seconds(outcome.reset),
        retry_after: match retry {
            Some(Duration::ZERO) => None,
            Some(retry) => Some(seconds(retry)),
            None => Some("never".to_owned()),
        },
        decided_by: source(outcome.source),
    }
}

/// Who decided, as it is told.
pub(super) fn source(source: Source) -> &'static str {
    match source {
        Source::Memory => "memory",
        Source::Redis => "redis",
        Source::Lease => "lease",
        Source::Denial => "denial",
        Source::WithoutRedis => "without_redis",
    }
}

/// A duration in protobuf's JSON form: `1.250s`.
fn seconds(duration: Duration) -> String {
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
    match (nanos, nanos.is_multiple_of(1_000_000)) {
        (0, _) => format!("{seconds}s"),
        (_, true) => format!("{seconds}.{:03}s", nanos / 1_000_000),
        (_, false) => format!("{seconds}.{nanos:09}s"),
    }
}
