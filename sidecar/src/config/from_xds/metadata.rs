//! What Envoy has no field for: `metadata.filter_metadata["chancery.sidecar"]` of a cluster, which Envoy passes over.
//!
//! All of it is optional: `{ breaker: { consecutiveFailures, openFor, openForMost, probeTimeout, minSuccessRate } | false,
//! maxOutPercent, retryBudget: { ttl, ratio, perSecond }, hedge: { quantile, samples, least } | true | false,
//! adaptiveConcurrency: { algorithm: "gradient" | "aimd", least, most } }`. Times are strings of seconds (`1.5s`), as protobuf's
//! JSON has them. The last of these is for the sidecar in front of the cluster, not for those that call it.

use std::time::Duration;

use chancery_proto::google::protobuf::{Struct, Value, value::Kind};

use super::Problems;
use crate::{
    config::snapshot::ClusterSettings,
    policy::{
        breaker,
        concurrency::{self, Aimd, Gradient2},
        failure_accrual::SuccessRate,
        hedge,
    },
};

/// The key of the metadata.
pub(super) const KEY: &str = "chancery.sidecar";

/// An object, with where it stands.
struct At<'a> {
    path: String,
    fields: Vec<(&'a String, &'a Value)>,
}

impl<'a> At<'a> {
    fn new(path: String, object: &'a Struct) -> Self {
        let mut fields: Vec<_> = object.fields.iter().collect();
        fields.sort_unstable_by_key(|(name, _)| *name);
        Self { path, fields }
    }

    fn each(self, problems: &mut Problems, mut take: impl FnMut(&mut Problems, &str, &str, Option<&'a Kind>) -> Taken) {
        for (name, value) in self.fields {
            let path = format!("{}.{name}", self.path);
            match take(problems, name, &path, value.kind.as_ref()) {
                Taken::Yes => {}
                Taken::Unknown => problems.add(path, "is not known"),
                Taken::Wrong(expected) => problems.add(path, format!("has to be {expected}")),
            }
        }
    }
}

enum Taken {
    Yes,
    Unknown,
    Wrong(&'static str),
}

/// Reads it into `settings`.
pub(super) fn read(problems: &mut Problems, settings: &mut ClusterSettings, own: &Struct) {
    let path = format!("metadata.filter_metadata[{KEY}]");
    At::new(path, own).each(problems, |problems, name, path, kind| match (name, kind) {
        ("breaker", Some(Kind::BoolValue(false))) => {
            settings.endpoints.breaker = None;
            Taken::Yes
        }
        ("breaker", Some(Kind::StructValue(object))) => {
            let mut breaker = settings.endpoints.breaker.unwrap_or_default();
            read_breaker(problems, At::new(path.to_owned(), object), &mut breaker);
            settings.endpoints.breaker = Some(breaker);
            Taken::Yes
        }
        ("breaker", _) => Taken::Wrong("an object, or false"),
        ("maxOutPercent", kind) => set(
            kind,
            "a percentage",
            |kind| whole(kind).filter(|n| *n <= 100),
            |percent| {
                settings.endpoints.max_ejection_percent = percent;
            },
        ),
        ("retryBudget", Some(Kind::StructValue(object))) => {
            let budget = &mut settings.retry_budget;
            At::new(path.to_owned(), object).each(problems, |_, name, _, kind| match name {
                "ttl" => set(kind, "a duration above zero", time, |ttl| budget.ttl = ttl),
                "ratio" => set(kind, "a number from 0 to 1", share, |ratio| budget.ratio = ratio),
                "perSecond" => set(kind, "a whole number", whole, |number| budget.least_per_second = number),
                _ => Taken::Unknown,
            });
            Taken::Yes
        }
        ("retryBudget", _) => Taken::Wrong("an object"),
        ("hedge", Some(Kind::BoolValue(asked))) => {
            settings.hedge = asked.then(hedge::Settings::default);
            Taken::Yes
        }
        ("hedge", Some(Kind::StructValue(object))) => {
            let mut hedge = hedge::Settings::default();
            read_hedge(problems, At::new(path.to_owned(), object), &mut hedge);
            settings.hedge = Some(hedge);
            Taken::Yes
        }
        ("hedge", _) => Taken::Wrong("an object, true or false"),
        ("adaptiveConcurrency", Some(Kind::StructValue(object))) => {
            let read = read_concurrency(problems, At::new(path.to_owned(), object));
            settings.adaptive_concurrency = Some(read);
            Taken::Yes
        }
        ("adaptiveConcurrency", _) => Taken::Wrong("an object"),
        _ => Taken::Unknown,
    });
}

fn read_breaker(problems: &mut Problems, object: At<'_>, breaker: &mut breaker::Settings) {
    object.each(problems, |_, name, _, kind| match name {
        "consecutiveFailures" => set(kind, "a whole number", whole, |number| {
            breaker.accrual.consecutive = Some(number).filter(|number| *number > 0);
        }),
        "minSuccessRate" => set(kind, "a number from 0 to 1", share, |least| {
            let rate = breaker.accrual.success_rate.unwrap_or_default();
            breaker.accrual.success_rate = (least > 0.0).then_some(SuccessRate { least, ..rate });
        }),
        "openFor" => set(kind, "a duration above zero", time, |open| breaker.backoff.least = open),
        "openForMost" => set(kind, "a duration above zero", time, |open| breaker.backoff.most = open),
        "probeTimeout" => set(kind, "a duration above zero", time, |probe| breaker.probe = probe),
        _ => Taken::Unknown,
    });
}

fn read_hedge(problems: &mut Problems, object: At<'_>, hedge: &mut hedge::Settings) {
    object.each(problems, |_, name, _, kind| match name {
        "quantile" => set(kind, "a number above 0 and below 1", within, |quantile| hedge.quantile = quantile),
        "samples" => set(kind, "a whole number", whole, |samples| hedge.samples = samples),
        "least" => set(kind, "a duration above zero", time, |least| hedge.least = least),
        _ => Taken::Unknown,
    });
}

fn read_concurrency(problems: &mut Problems, object: At<'_>) -> concurrency::Settings {
    let path = object.path.clone();
    let Gradient2 { mut least, mut most, .. } = Gradient2::default();
    let mut is_gradient = true;
    object.each(problems, |_, name, _, kind| match (name, kind) {
        ("algorithm", Some(Kind::StringValue(name))) if name == "gradient" || name == "aimd" => {
            is_gradient = name == "gradient";
            Taken::Yes
        }
        ("algorithm", _) => Taken::Wrong("gradient or aimd"),
        ("least", kind) => set(kind, "a whole number", whole, |number| least = number),
        ("most", kind) => set(kind, "a whole number", whole, |number| most = number),
        _ => Taken::Unknown,
    });
    if most < least {
        problems.add(format!("{path}.most"), format!("must not be below least, which is {least}"));
    }
    if is_gradient {
        concurrency::Settings::Gradient2(Gradient2 { least, most, ..Gradient2::default() })
    } else {
        concurrency::Settings::Aimd(Aimd { least, most, ..Aimd::default() })
    }
}

fn set<T>(
    kind: Option<&Kind>,
    expected: &'static str,
    read: impl Fn(&Kind) -> Option<T>,
    take: impl FnOnce(T),
) -> Taken {
    match kind.and_then(read) {
        Some(value) => {
            take(value);
            Taken::Yes
        }
        None => Taken::Wrong(expected),
    }
}

fn number(kind: &Kind) -> Option<f64> {
    match kind {
        Kind::NumberValue(number) => Some(*number),
        _ => None,
    }
}

fn whole(kind: &Kind) -> Option<u32> {
    number(kind).filter(|n| n.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(n)).map(|n| n as u32)
}

fn share(kind: &Kind) -> Option<f64> {
    number(kind).filter(|number| (0.0..=1.0).contains(number))
}

fn within(kind: &Kind) -> Option<f64> {
    number(kind).filter(|number| *number > 0.0 && *number < 1.0)
}

fn time(kind: &Kind) -> Option<Duration> {
    let Kind::StringValue(text) = kind else { return None };
    let seconds: f64 = text.strip_suffix('s')?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok().filter(|time| !time.is_zero())
}
