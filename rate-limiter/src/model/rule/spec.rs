//! Rules as they were configured, whatever the form they were written in.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::model::limit::Limit;

/// A domain as it was configured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DomainSpec {
    /// Its name.
    pub name: String,
    /// Its rules.
    pub descriptors: Vec<DescriptorSpec>,
    /// Fleets whose proxies may ask; `None`: every client that may connect.
    pub fleets: Option<BTreeSet<String>>,
    /// Where it was read from, for messages: a file, or a resource.
    pub origin: String,
}

/// One level of a rule as it was configured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DescriptorSpec {
    /// The entry's key.
    pub key: String,
    /// Its value; empty: any. A trailing `*` matches what begins so.
    pub value: String,
    /// The limit here.
    pub limit: Option<LimitSpec>,
    /// Levels below.
    pub descriptors: Vec<DescriptorSpec>,
    /// Decide and count, but admit.
    pub shadow_mode: bool,
    /// Report without deciding.
    pub quota_mode: bool,
    /// Count by the whole descriptor in metrics.
    pub detailed_metric: bool,
    /// Name the value of this level in metrics.
    pub value_to_metric: bool,
    /// All values that match a wildcard share one cell.
    pub share_threshold: bool,
}

/// A limit as it was configured.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitSpec {
    /// How much.
    pub amount: Amount,
    /// Its name, for `replaces` and responses.
    pub name: String,
    /// Names of limits that do not apply where this one does.
    pub replaces: Vec<String>,
    /// What happens beyond.
    pub policy: Policy,
    /// Body of the refusal.
    pub body: Option<Bytes>,
}

/// How much a rule admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// Everything.
    Unlimited,
    /// So much.
    Limited(Limit),
}

/// How a limit behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Count what is refused too, below zero.
    pub debt: bool,
    /// Never lease: every decision is Redis's own.
    pub strict: bool,
    /// What to do without Redis.
    pub without_redis: WithoutRedis,
}

/// What to do without Redis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WithoutRedis {
    /// Count here, a replica's share of the limit.
    #[default]
    Local,
    /// Admit.
    Allow,
    /// Refuse.
    Deny,
}
