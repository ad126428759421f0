//! What is measured: each case is one load, under one limit, on one layout of cores.

use std::{fmt, str::FromStr, time::Duration};

use anyhow::{Context, Error};
use serde::Serialize;

use super::{
    load::Pace,
    requests::{DOMAIN, Keys, entry_key},
    subject::Subject,
};

/// A domain whose every value is admitted once: it shows that a server counts.
pub(super) const CHECKED: &str = "checked";

/// So many connections does a load have, as a fleet of a few Envoys with some worker threads each.
const CONNECTIONS: usize = 8;

const IN_FLIGHT: usize = 16;

const PER_SECOND: u32 = 10_000;

/// A limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Quota {
    pub(super) requests: u32,
    pub(super) seconds: u64,
}

impl Quota {
    /// Nobody reaches it.
    const AMPLE: Self = Self { requests: 1_000_000, seconds: 1 };
    /// Most requests are refused.
    const TIGHT: Self = Self { requests: 10, seconds: 1 };
    /// A key that was used once is remembered for minutes.
    const SLOW: Self = Self { requests: 60, seconds: 3600 };
    /// Admits one.
    pub(super) const ONCE: Self = Self { requests: 1, seconds: 3600 };

    /// Its unit in envoyproxy/ratelimit's YAML.
    fn unit(self) -> &'static str {
        if self.seconds == 1 { "second" } else { "hour" }
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.requests, self.seconds)
    }
}

impl FromStr for Quota {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (requests, seconds) = text.split_once('/').context("not REQUESTS/SECONDS")?;
        Ok(Self { requests: requests.parse()?, seconds: seconds.parse()? })
    }
}

/// How servers and load share the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Cores {
    /// The server has one, load and Redis have the other.
    Apart,
    /// Everybody may use both; servers have two threads.
    Shared,
}

/// One load under one limit.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Case {
    /// Short, fit for a file's name.
    pub(super) name: &'static str,
    pub(super) cores: Cores,
    pub(super) keys: Keys,
    pub(super) descriptors: usize,
    pub(super) quota: Quota,
    pub(super) connections: usize,
    pub(super) pace: Pace,
    /// Whether every key is asked for once before the load.
    pub(super) fill: bool,
    #[serde(skip)]
    pub(super) warm_up: Duration,
    #[serde(skip)]
    pub(super) measured: Duration,
}

impl Case {
    fn closed(name: &'static str, keys: Keys) -> Self {
        Self {
            name,
            cores: Cores::Apart,
            keys,
            descriptors: 1,
            quota: Quota::AMPLE,
            connections: CONNECTIONS,
            pace: Pace::Closed { in_flight: IN_FLIGHT },
            fill: false,
            warm_up: Duration::from_millis(300),
            measured: Duration::from_millis(1200),
        }
    }

    /// The same, measured for less time.
    pub(super) fn quick(self) -> Self {
        Self { warm_up: self.warm_up / 2, measured: self.measured / 2, ..self }
    }

    /// Whether it tells anything about a server.
    pub(super) fn is_for(&self, subject: Subject) -> bool {
        !self.fill || matches!(subject, Subject::Floor | Subject::Memory | Subject::Limitador)
    }

    /// Whether its limits refuse most requests.
    pub(super) fn is_tight(&self) -> bool {
        self.quota == Quota::TIGHT
    }

    /// How often it is run, if others are run so often. Memory hardly varies, and filling it takes time.
    pub(super) fn rounds(&self, others: usize) -> usize {
        if self.fill { 1 } else { others }
    }

    /// The rules of this case in the YAML of envoyproxy/ratelimit, one domain per file; `strict` is an addition of ours.
    pub(super) fn rules(&self, strict: bool) -> [(&'static str, String); 2] {
        let strict = if strict { ", strict: true" } else { "" };
        let domain = |name: &str, descriptors: usize, quota: Quota| {
            let rules: String = (0..descriptors)
                .map(|descriptor| {
                    let Quota { requests, .. } = quota;
                    let limit = format!("{{ unit: {}, requests_per_unit: {requests}{strict} }}", quota.unit());
                    format!("  - key: {}\n    rate_limit: {limit}\n", entry_key(descriptor))
                })
                .collect();
            format!("domain: {name}\ndescriptors:\n{rules}")
        };
        [
            ("bench.yaml", domain(DOMAIN, self.descriptors, self.quota)),
            ("checked.yaml", domain(CHECKED, 1, Quota::ONCE)),
        ]
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} descriptor{}", self.keys, self.descriptors, if self.descriptors == 1 { "" } else { "s" })?;
        write!(f, " per request, at most {} per {} and key; ", self.quota.requests, self.quota.unit())?;
        match self.pace {
            Pace::Closed { in_flight } => write!(f, "{} connections × {in_flight} in flight", self.connections)?,
            Pace::Open { per_second } => {
                write!(f, "{per_second} requests per second on {} connections", self.connections)?;
            }
        }
        f.write_str(match self.cores {
            Cores::Apart => "; the server on one core, load and Redis on the other",
            Cores::Shared => "; server, load and Redis share two cores",
        })
    }
}

/// Every case there is.
pub(super) fn all() -> Vec<Case> {
    let longer = |case: Case| Case { warm_up: Duration::from_millis(900), ..case };
    let thousand = |name| Case::closed(name, Keys::Zipf(1_000));
    let open = |name, keys| Case {
        pace: Pace::Open { per_second: PER_SECOND },
        measured: Duration::from_millis(2500),
        ..Case::closed(name, keys)
    };
    vec![
        Case::closed("one-key", Keys::Uniform(1)),
        Case::closed("thousand-uniform", Keys::Uniform(1_000)),
        thousand("thousand-zipf"),
        longer(Case::closed("many-uniform", Keys::Uniform(100_000))),
        longer(Case::closed("many-zipf", Keys::Zipf(100_000))),
        Case { descriptors: 3, ..thousand("three-descriptors") },
        Case { descriptors: 10, ..thousand("ten-descriptors") },
        Case { quota: Quota::TIGHT, ..thousand("mostly-refused") },
        open("open-loop", Keys::Zipf(1_000)),
        Case { cores: Cores::Shared, ..thousand("two-cores") },
        Case { fill: true, quota: Quota::SLOW, ..open("million-keys", Keys::Uniform(1_000_000)) },
    ]
}

/// What a short run is content with.
pub(super) const QUICK: [&str; 5] = ["thousand-zipf", "many-zipf", "ten-descriptors", "open-loop", "two-cores"];
