//! The answer to a request, before it is put into any wire format.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use smallvec::SmallVec;

use super::{limit::Limit, rule::Rule};

/// The answer to a request.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Whether the request may pass.
    pub admitted: bool,
    /// One for each descriptor, in order.
    pub statuses: SmallVec<[Status; 4]>,
    /// Body of the refusal: that of the first rule that refuses, if it has one.
    pub body: Option<Bytes>,
    /// Descriptors, by place, that are beyond a limit in quota mode.
    pub violations: Vec<usize>,
    /// The status to speak of in headers, by place: of those that refuse the one that does so longest, otherwise the one with
    /// the least remaining; the first of equals. `None` where no limit is in force.
    pub tightest: Option<usize>,
}

/// What is said of one descriptor.
#[derive(Clone, Debug)]
pub struct Status {
    /// Whether this descriptor is within its limit (also where shadow or quota mode admits regardless: then `true`).
    pub admitted: bool,
    /// The limit in force; `None` where no rule applies, or it is unlimited.
    pub limit: Option<Limit>,
    /// The rule; `None` where none applies or another replaces it, and for a limit that came with the request.
    pub rule: Option<Arc<Rule>>,
    /// Hits that would still be admitted. `u32::MAX` where unlimited, zero where no rule applies.
    pub remaining: u64,
    /// Admitted: until nothing is used any more (a window: until it ends). Refused: until the request would be admitted;
    /// where it never would, the period of the limit.
    pub reset: Duration,
}
