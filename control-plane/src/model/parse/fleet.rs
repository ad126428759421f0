//! What a fleet's spec means.

use std::time::Duration;

use super::text;
use crate::model::{Name, fleet::Fleet, problem::Problems, wire::FleetSpec};

/// The time for a whole answer where nothing else is said.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

pub(super) fn fleet(name: Name, spec: &FleetSpec, problems: &mut Problems) -> Option<Fleet> {
    let FleetSpec { defaults, trusted_hops } = spec;
    let default_timeout = match defaults.as_ref().and_then(|defaults| defaults.timeout.as_ref()) {
        None => Some(DEFAULT_TIMEOUT),
        Some(timeout) => problems.at("defaults").at("timeout").ok(text::duration(timeout, text::DAY)),
    };
    Some(Fleet { name, default_timeout: default_timeout?, trusted_hops: trusted_hops.unwrap_or(0) })
}
