//! What tokens and enrolments have in common as the API has them: lives that are asked for and told of, and secrets by chance.

use std::ops::RangeInclusive;

use humantime_serde::re::humantime;
use rand::{SeedableRng as _, rngs::StdRng};
use serde::Serializer;
use time::{Duration, OffsetDateTime};

/// `30d`, `1h 30m`.
pub(super) fn duration(text: &str, within: RangeInclusive<Duration>) -> Result<Duration, String> {
    let parsed = humantime::parse_duration(text).ok().and_then(|duration| Duration::try_from(duration).ok());
    let parsed = parsed.ok_or_else(|| "must be a duration, as 30d or 12h".to_owned())?;
    if within.contains(&parsed) {
        return Ok(parsed);
    }
    let shown = |duration: &Duration| humantime::format_duration(duration.unsigned_abs()).to_string();
    Err(format!("must be between {} and {}", shown(within.start()), shown(within.end())))
}

/// As RFC 3339 has it.
pub(super) fn moment<S: Serializer>(moment: &Option<OffsetDateTime>, serializer: S) -> Result<S::Ok, S::Error> {
    time::serde::rfc3339::option::serialize(moment, serializer)
}

/// A generator of its own that can be kept while the store is asked.
pub(super) fn chance() -> StdRng {
    StdRng::from_rng(&mut rand::rng())
}
