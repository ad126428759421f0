//! What the rollout policy of a fleet means.

use std::{collections::BTreeMap, time::Duration};

use super::{document::check_labels, text};
use crate::model::{
    fleet::{CanaryChoice, ErrorRateGate, OnRolloutFailure, RolloutPolicy},
    problem::Problems,
    wire::{CanarySpec, DurationText, ErrorRateGateSpec, OnRolloutFailureSpec, RolloutGatesSpec, RolloutSpec},
};

/// How long canaries have a revision before the others do where nothing else is said.
const DEFAULT_SOAK: Duration = Duration::from_secs(30);

/// How long canaries may take to acknowledge a revision where nothing else is said.
const DEFAULT_ACKNOWLEDGE_WITHIN: Duration = Duration::from_secs(60);

/// How many requests in a hundred more may fail than before where nothing else is said.
const DEFAULT_MARGIN_PERCENT: u32 = 1;

/// How many requests it takes to say something of them where nothing else is said.
const DEFAULT_MIN_REQUESTS: u64 = 100;

pub(super) fn policy(spec: &RolloutSpec, problems: &mut Problems) -> Option<RolloutPolicy> {
    let RolloutSpec { canary, soak, acknowledge_within, gates, on_failure } = spec;
    let canaries = canaries(canary, &mut problems.at("canary"));
    let soak = at_least_a_second(soak.as_ref(), DEFAULT_SOAK, text::DAY, &mut problems.at("soak"));
    let acknowledge_within = at_least_a_second(
        acknowledge_within.as_ref(),
        DEFAULT_ACKNOWLEDGE_WITHIN,
        text::HOUR,
        &mut problems.at("acknowledgeWithin"),
    );
    let RolloutGatesSpec { error_rate } = gates.clone().unwrap_or_default();
    Some(RolloutPolicy {
        canaries: canaries?,
        soak: soak?,
        acknowledge_within: acknowledge_within?,
        error_rate: error_rate.map(|ErrorRateGateSpec { margin_percent, min_requests }| ErrorRateGate {
            margin_percent: margin_percent.unwrap_or(DEFAULT_MARGIN_PERCENT),
            min_requests: min_requests.unwrap_or(DEFAULT_MIN_REQUESTS),
        }),
        on_failure: match on_failure {
            None | Some(OnRolloutFailureSpec::Return) => OnRolloutFailure::Return,
            Some(OnRolloutFailureSpec::Hold) => OnRolloutFailure::Hold,
        },
    })
}

fn canaries(spec: &CanarySpec, problems: &mut Problems) -> Option<CanaryChoice> {
    match spec {
        CanarySpec { percent: Some(percent), labels: None } => Some(CanaryChoice::Percent(*percent)),
        CanarySpec { percent: None, labels: Some(labels) } => self::labels(labels, &mut problems.at("labels")),
        CanarySpec { percent: None, labels: None } => {
            problems.report("needs percent or labels");
            None
        }
        CanarySpec { percent: Some(_), labels: Some(_) } => {
            problems.report("has percent and labels; only one of them can say who the canaries are");
            None
        }
    }
}

fn labels(labels: &BTreeMap<String, String>, problems: &mut Problems) -> Option<CanaryChoice> {
    let before = problems.count();
    if labels.is_empty() {
        problems.report("needs a label");
    }
    check_labels(labels, problems);
    (problems.count() == before).then(|| CanaryChoice::Labels(labels.clone()))
}

fn at_least_a_second(
    given: Option<&DurationText>,
    default: Duration,
    most: Duration,
    problems: &mut Problems,
) -> Option<Duration> {
    let Some(given) = given else { return Some(default) };
    let given = problems.ok(text::duration(given, most))?;
    if given < Duration::from_secs(1) {
        problems.report("is below 1s");
        return None;
    }
    Some(given)
}
