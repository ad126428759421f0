//! Who did what: entries of the audit log, and whether it is whole.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use utoipa::{IntoParams, ToSchema};

use super::{
    Api,
    error::ApiError,
    params::{Limit, Params},
};
use crate::store::{
    Action, AuditQuery, Entry, Outcome, Store, StoreError,
    audit::chain::{Chain, Finding, Verdict},
};

/// Entries that are checked at once.
const PAGE: u32 = 1000;

/// Entries go once a day, and verifying takes seconds.
const BEGUN_ANEW: u32 = 3;

/// Which entries, and how many.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditParams {
    /// Only of this principal.
    #[param(example = "admin")]
    actor: Option<String>,
    /// Only about this kind of thing, as `Route` or `Token`; a revision is about all that it changed.
    kind: Option<String>,
    /// Only about what has this name.
    name: Option<String>,
    /// Only this: `write`, `sign-in`, `token.create`, `token.rotate`, `token.revoke`, `quarantine.release`, `rollout.promote`,
    /// `rollout.return`, `endpoint.register`, `read`, `retention` or `restore`.
    action: Option<String>,
    /// `done` or `refused`.
    outcome: Option<String>,
    /// Not before this time (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<String>,
    /// Before this time (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<String>,
    /// Oldest first instead, those above this sequence; goes with `limit` only.
    after: Option<u64>,
    /// The `nextCursor` of the page before.
    cursor: Option<String>,
    /// How many, 1 to 1000.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000, default = 100)]
    limit: Limit,
}

/// A page of the audit log.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AuditList {
    /// The entries, newest first.
    items: Vec<Entry>,
    /// Where the next page starts; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// List the audit log
///
/// Newest first: every change, every refusal, who is known from where, with the hashes that chain one entry to the next.
#[utoipa::path(get, path = "/api/v1/audit", tag = "Access", operation_id = "listAudit", params(AuditParams),
    responses((status = 200, body = AuditList)))]
pub(super) async fn list(
    State(api): State<Api>,
    Params(params): Params<AuditParams>,
) -> Result<Json<AuditList>, ApiError> {
    let AuditParams { actor, kind, name, action, outcome, since, until, after, cursor, limit: Limit(limit) } = params;
    if let Some(after) = after {
        if [&actor, &kind, &name, &action, &outcome, &since, &until, &cursor].into_iter().any(Option::is_some) {
            return Err(ApiError::Malformed("query: after goes with limit only".to_owned()));
        }
        let items = api.replica.store().audit_after(after, limit).await?;
        return Ok(Json(AuditList { items, next_cursor: None }));
    }
    for (what, given) in [("actor", &actor), ("kind", &kind), ("name", &name)] {
        if given.as_ref().is_some_and(|given| given.chars().any(char::is_control)) {
            return Err(ApiError::Malformed(format!("query: {what} has a control character")));
        }
    }
    known("action", action.as_deref(), &Action::ALL.map(Action::as_str))?;
    known("outcome", outcome.as_deref(), &[Outcome::Done, Outcome::Refused].map(Outcome::as_str))?;
    let (since, until) = (moment("since", since)?, moment("until", until)?);
    let before = cursor.map(|cursor| cursor.parse()).transpose();
    let before = before.map_err(|error| ApiError::Malformed(format!("query: cursor: {error}")))?;
    let query = AuditQuery { actor, action, outcome, kind, name, since, until, before, limit: limit + 1 };
    let mut items = api.replica.store().audit(query).await?;
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next_cursor = items.last().filter(|_| more).map(|last| last.sequence.to_string());
    Ok(Json(AuditList { items, next_cursor }))
}

/// What a log has to hold beside itself.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct VerifyParams {
    /// An entry that has to be there; with `hash`.
    sequence: Option<u64>,
    /// The hash that it has to have: the `head` of an earlier answer, kept where nobody could change it.
    hash: Option<String>,
}

/// Whether the audit log is whole.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AuditVerdict {
    /// Whether nothing is wrong.
    whole: bool,
    /// How many entries were checked.
    entries: u64,
    /// The newest entry. Kept elsewhere, it shows later whether the log was written anew.
    head: Option<Head>,
    /// What is wrong, at most a hundred.
    findings: Vec<FindingView>,
}

/// An entry and its hash.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Head {
    /// Its place, from 1.
    sequence: u64,
    /// The hash of it and all before it.
    hash: String,
}

/// Something that is not as it was written.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FindingView {
    /// The entry at which it shows; 0: none.
    sequence: u64,
    /// What it is.
    problem: String,
}

/// Verify the audit log
///
/// Computes every hash of the log anew, and that of every revision which it speaks of, from what the database holds.
#[utoipa::path(get, path = "/api/v1/audit/verify", tag = "Access", operation_id = "verifyAudit", params(VerifyParams),
    responses((status = 200, body = AuditVerdict)))]
pub(super) async fn verify(
    State(api): State<Api>,
    Params(VerifyParams { sequence, hash }): Params<VerifyParams>,
) -> Result<Json<AuditVerdict>, ApiError> {
    let expected = match (sequence, hash) {
        (Some(sequence), Some(hash)) => Some((sequence, hash)),
        (None, None) => None,
        _ => return Err(ApiError::Malformed("query: sequence and hash belong together".to_owned())),
    };
    let Verdict { entries, head, findings } = read_whole(api.replica.store().as_ref(), expected).await?;
    let finding = |Finding { sequence, problem }: Finding| FindingView { sequence, problem };
    Ok(Json(AuditVerdict {
        whole: findings.is_empty(),
        entries,
        head: head.map(|(sequence, hash)| Head { sequence, hash }),
        findings: findings.into_iter().map(finding).collect(),
    }))
}

/// Reads the log from its first entry that is left. If entries go meanwhile, so that none is left of those that were read, it begins
/// anew, [`BEGUN_ANEW`] times at most: what was trimmed is no gap.
async fn read_whole(store: &dyn Store, expected: Option<(u64, String)>) -> Result<Verdict, StoreError> {
    let mut begun_anew = 0;
    'anew: loop {
        // Before the entries: what is committed meanwhile has its entry at the end.
        let head = store.head().await?;
        let (mut chain, mut last) = (Chain::expecting(expected.clone()), 0);
        loop {
            let page = store.audit_after(last, PAGE).await?;
            let jumps = last > 0 && page.first().is_some_and(|entry| entry.sequence > last + 1);
            if jumps && begun_anew < BEGUN_ANEW {
                let oldest = store.audit_after(0, 1).await?;
                if oldest.first().is_some_and(|entry| entry.sequence > last) {
                    begun_anew += 1;
                    continue 'anew;
                }
            }
            let revisions = || page.iter().filter_map(|entry| entry.revision);
            let digests = match revisions().min().zip(revisions().max()) {
                Some((first, last)) => store.revision_digests(first, last).await?,
                None => Vec::new(),
            };
            for entry in &page {
                chain.entry(entry);
                let found = digests.iter().find(|(number, _)| Some(*number) == entry.revision);
                chain.revision(entry, found.map(|(_, digest)| digest));
            }
            match page.last() {
                Some(entry) if page.len() == PAGE as usize => last = entry.sequence,
                _ => return Ok(chain.end(Some(head))),
            }
        }
    }
}

fn known(what: &str, given: Option<&str>, known: &[&str]) -> Result<(), ApiError> {
    match given {
        Some(given) if !known.contains(&given) => {
            Err(ApiError::Malformed(format!("query: {what} must be one of {}", known.join(", "))))
        }
        _ => Ok(()),
    }
}

fn moment(what: &str, given: Option<String>) -> Result<Option<OffsetDateTime>, ApiError> {
    let parsed = given.map(|given| OffsetDateTime::parse(&given, &Rfc3339)).transpose();
    parsed.map_err(|_| ApiError::Malformed(format!("query: {what} must be a time, as 2026-11-21T03:00:00Z")))
}
