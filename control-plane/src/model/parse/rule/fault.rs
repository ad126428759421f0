//! What is done to requests on purpose.

use std::time::Duration;

use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

use super::{super::text, ALL};
use crate::model::{
    fault::{Abort, Delay, Fault},
    problem::{Problems, Quoted},
    wire::{FaultAbortSpec, FaultDelaySpec, FaultSpec},
};

/// The longest wait: whoever waits longer has gone.
const MINUTE: Duration = Duration::from_secs(60);

pub(super) fn fault(spec: &FaultSpec, problems: &mut Problems) -> Option<Fault> {
    let FaultSpec { delay, abort, expires } = spec;
    if delay.is_none() && abort.is_none() {
        problems.report("needs delay or abort");
    }
    let expires = problems.at("expires").ok(timestamp(expires));
    let delay = delay.as_ref().map(|FaultDelaySpec { time, percent }| {
        let time = problems.at("delay").at("time").ok(text::duration(time, MINUTE))?;
        Some(Delay { time, percent: percent.unwrap_or(ALL) })
    });
    let abort = abort
        .as_ref()
        .map(|FaultAbortSpec { status, percent }| Abort { status: *status, percent: percent.unwrap_or(ALL) });
    Some(Fault { delay: delay.flatten(), abort, expires: expires? })
}

fn timestamp(text: &str) -> Result<OffsetDateTime, String> {
    let parsed = OffsetDateTime::parse(text, &Rfc3339).ok().and_then(|at| at.checked_to_offset(UtcOffset::UTC));
    parsed.ok_or_else(|| format!("{} is not a time such as 2026-12-01T12:00:00Z", Quoted(text)))
}
