//! The answer to a request, before it is put into any wire format.

use std::{sync::Arc, time::Duration};

use smallvec::SmallVec;

use super::{limit::Limit, rule::Rule};

/// The answer to a request.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Whether the request may pass.
    pub admitted: bool,
    /// One for each descriptor, in order.
    pub statuses: SmallVec<[Status; 4]>,
}

/// What is said of one descriptor.
#[derive(Clone, Debug)]
pub struct Status {
    /// Whether this descriptor is within its limit (also where shadow or quota mode admits regardless: then `true`).
    pub admitted: bool,
    /// The limit in force; `None` where no rule applies, or it is unlimited.
    pub limit: Option<Limit>,
    /// The rule; `None` where none applies, and for a limit that came with the request.
    pub rule: Option<Arc<Rule>>,
    /// Hits that would still be admitted. `u32::MAX` where unlimited.
    pub remaining: u64,
    /// Admitted: until nothing is used any more (a window: until it ends). Refused: until the request would be admitted.
    pub reset: Duration,
}
