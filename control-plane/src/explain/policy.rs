//! What else the rule that matches does to a request that it sends to services: time, retries, limits, copies, faults, other origins.

use std::{borrow::Cow, time::Duration};

use time::format_description::well_known::Rfc3339;

use super::{
    Explainer,
    arrival::{Arrived, Header},
    destination::allows,
    explanation::{
        CorsPolicy, FaultPolicy, HeaderEdits, KeyValue, LimitPolicy, MirrorPolicy, Policies, RetryPolicy, Source,
        written,
    },
    path,
};
use crate::model::{
    Kind,
    cors::Cors,
    fault::{Abort, Delay, Fault},
    fleet::Fleet,
    rate_limit::{Absent, Enforcement, KeyPart, Limit, RateLimit},
    retry::{Retry, RetryCondition},
    route::{Action, HeaderChanges, order::Claim},
};

/// What requests without a header or parameter count as.
const ABSENT: &str = "-";

impl Explainer<'_> {
    /// What the rule of `claim` does beside sending the request to services; `None` if it does not send it anywhere.
    pub(super) fn policies(&self, fleet: &Fleet, claim: &Claim<'_>, arrived: &Arrived) -> Option<Policies> {
        let Action::Forward(forward) = &claim.rule.action else { return None };
        let at = |place: &str| self.rule_source(claim, place);
        let limits = forward.rate_limits.iter().enumerate().filter_map(|(index, name)| {
            let limit = self.catalog.rate_limit(name)?;
            let from = at(&format!(".rateLimits[{index}]"));
            Some(limited(limit, self.source(Kind::RateLimit, name, ""), from, arrived))
        });
        let (timeout, timeout_from) = match forward.timeout {
            // Only a tunnel is waited for without end.
            Some(Duration::ZERO) => ("none".to_owned(), at(".match.connect")),
            Some(timeout) => (written(timeout), at(".timeout")),
            None => (written(fleet.default_timeout), self.source(Kind::Fleet, &fleet.name, "spec.defaults.timeout")),
        };
        Some(Policies {
            timeout,
            timeout_from,
            idle_timeout: forward.idle_timeout.map(written),
            max_stream_duration: forward.max_stream_duration.map(written),
            retry: forward.retry.as_ref().map(|retry| retried(retry, at(".retry"))),
            limits: limits.collect(),
            mirror: forward.mirror.as_ref().map(|mirror| MirrorPolicy {
                from: at(".mirror"),
                service: self.source(Kind::Service, &mirror.service, ""),
                percent: mirror.percent,
            }),
            fault: forward.fault.as_ref().map(|fault| faulty(fault, at(".fault"))),
            cors: forward.cors.as_deref().map(|cors| self.shared(cors, at(".cors"), arrived)),
            request_headers: edited(&claim.rule.request_headers, || at(".headers.request")),
            response_headers: edited(&claim.rule.response_headers, || at(".headers.response")),
        })
    }

    /// What is changed about the headers of an answer that the rule of `claim` gives by itself.
    pub(super) fn answer_headers(&self, claim: &Claim<'_>) -> Option<HeaderEdits> {
        let answers = !matches!(claim.rule.action, Action::Forward(_));
        let from = || self.rule_source(claim, ".headers.response");
        answers.then(|| edited(&claim.rule.response_headers, from)).flatten()
    }

    fn shared(&self, cors: &Cors, from: Source, arrived: &Arrived) -> CorsPolicy {
        let origin = arrived.text("origin");
        let origin_allowed = (!origin.is_empty()).then(|| allows(cors, &origin, &self.patterns));
        CorsPolicy { from, origin_allowed }
    }
}

fn retried(retry: &Retry, from: Source) -> RetryPolicy {
    let Retry { on, statuses, headers, attempts, per_try_timeout, per_try_idle_timeout: _, another_host, backoff } =
        retry;
    let headers = headers.iter().map(|header| format!("header {}", header.name));
    RetryPolicy {
        from,
        on: on.iter().copied().map(RetryCondition::as_str).map(str::to_owned).collect(),
        on_answers: statuses.iter().map(u16::to_string).chain(headers).collect(),
        attempts: *attempts,
        another_host: *another_host,
        per_try_timeout: per_try_timeout.map(written),
        backoff: backoff.map(|backoff| [written(backoff.base), written(backoff.max)]),
    }
}

fn faulty(fault: &Fault, from: Source) -> FaultPolicy {
    let Fault { delay, abort, expires } = fault;
    let delay = delay.map(|Delay { time, percent }| format!("{percent} % wait {}", written(time)));
    let abort = abort.map(|Abort { status, percent }| format!("{percent} % answered with {status}"));
    // A time that was parsed has a year of four digits, and so a form.
    FaultPolicy {
        from,
        what: delay.into_iter().chain(abort).collect(),
        expires: expires.format(&Rfc3339).unwrap_or_default(),
    }
}

fn edited(changes: &HeaderChanges, from: impl FnOnce() -> Source) -> Option<HeaderEdits> {
    let HeaderChanges { set, add, remove } = changes;
    let remove = remove.iter().map(|name| format!("-{name}"));
    let set = set.iter().map(|(name, value)| format!("{name}: {value}"));
    let add = add.iter().map(|(name, value)| format!("+{name}: {value}"));
    let edits: Vec<String> = remove.chain(set).chain(add).collect();
    (!edits.is_empty()).then(|| HeaderEdits { from: from(), edits })
}

fn limited(limit: &RateLimit, source: Source, from: Source, arrived: &Arrived) -> LimitPolicy {
    let values: Vec<(&KeyPart, Counted)> = limit.key.iter().map(|part| (part, counted(part, arrived))).collect();
    let applies = values.iter().all(|(_, value)| *value != Counted::Skipped);
    let key = values.into_iter().map(|(part, value)| KeyValue {
        key: part.key().to_owned(),
        value: match value {
            Counted::By(value) => Some(value),
            Counted::Unknown | Counted::Skipped => None,
        },
    });
    LimitPolicy { limit: source, from, amount: amount(limit), applies, key: key.collect() }
}

/// `100 per 1s, burst 200, shadow`.
fn amount(limit: &RateLimit) -> String {
    let Limit { requests, per, burst, algorithm: _ } = limit.limit;
    let burst = burst.map(|burst| format!("burst {burst}"));
    let shadow = limit.mode.shadow.then(|| "shadow".to_owned());
    let quota = (limit.enforcement == Enforcement::Quota).then(|| "quota".to_owned());
    let amount = format!("{requests} per {}", written(per));
    std::iter::once(amount).chain(burst).chain(shadow).chain(quota).collect::<Vec<_>>().join(", ")
}

/// What a request counts as by a part of a key.
#[derive(Debug, PartialEq, Eq)]
enum Counted {
    By(String),
    /// Only the proxy knows.
    Unknown,
    /// The limit does not apply.
    Skipped,
}

fn counted(part: &KeyPart, arrived: &Arrived) -> Counted {
    let or = |value: Option<String>, absent: Absent| match (value.filter(|value| !value.is_empty()), absent) {
        (Some(value), _) => Counted::By(value),
        (None, Absent::Together) => Counted::By(ABSENT.to_owned()),
        (None, Absent::Skip) => Counted::Skipped,
    };
    match part {
        KeyPart::Header { name, absent } => match arrived.header(name) {
            Header::Unknown => Counted::Unknown,
            Header::Values(values) => or(values.into_iter().next().map(Cow::into_owned), *absent),
            Header::Absent => or(None, *absent),
        },
        KeyPart::Query { name, absent } => or(arrived.parameter(name).map(path::decode), *absent),
        KeyPart::RemoteAddress | KeyPart::Network { .. } => Counted::Unknown,
        KeyPart::Path => Counted::By(arrived.path.clone()),
        KeyPart::Method => Counted::By(arrived.method.clone()),
        KeyPart::Constant { key: _, value } => Counted::By(value.clone()),
    }
}
