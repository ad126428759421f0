//! The script that charges cells in Redis, and both sides of its contract: what it is given, what its answer means.
//!
//! The contract of KEYS and ARGV is stated at the top of `charge.lua`. The script returns, for each key, only what it
//! held before; what follows from that ([`Charged`]) is computed here, by the same [`Meter`] that every store is measured by.
//! That keeps the server's part short (it is what limits a fleet of replicas), and makes a difference between the two a
//! visible one: a cell that the script stored is compared with what the model says it should be.
//!
//! Keys are `ch:b` or `ch:w` (bucket, window) and the 16 bytes of the fingerprint as they are: in hexadecimal they would
//! take twice the place and the time to hash, and nobody can read either. There is no common hash tag: in a
//! cluster cells lie wherever their fingerprints fall.

use std::time::Duration;

use redis::{Cmd, Script, Value};

use crate::{
    model::{
        cell::{Charged, Meter},
        descriptor::Hits,
        key::CellKey,
    },
    store::{Ask, Outcome, Source},
};

/// Ticks in a second: 1/8 µs each.
pub(crate) const TICKS_PER_SECOND: u64 = 8_000_000;

/// Seconds from the Unix epoch to tick zero, 2025-01-01T00:00:00Z.
pub(crate) const EPOCH_SECONDS: u64 = 1_735_689_600;

/// Keys of one call: a script holds up the whole server, so a large batch goes as several.
pub(crate) const MOST_KEYS: usize = 512;

const RECORD: usize = 41;
const NANOSECONDS_PER_TICK: u64 = 1_000_000_000 / TICKS_PER_SECOND;
const WINDOW_COUNT_BITS: u32 = 40;

/// Bytes of a cell's key.
pub(crate) type Key = [u8; 20];

/// One charge, in Redis's ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) key: CellKey,
    pub(crate) meter: Meter,
    pub(crate) hits: Hits,
    pub(crate) debt: bool,
    /// Tokens to borrow beyond the hits.
    pub(crate) want: u32,
}

/// What became of a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) charged: Charged,
    /// Tokens borrowed, at most as many as wanted.
    pub(crate) granted: u32,
}

/// An answer that is not what the script returns.
#[derive(Debug, thiserror::Error)]
#[error("the script answered {what} for {keys} keys")]
pub struct Unexpected {
    what: &'static str,
    keys: usize,
}

/// The script, with its digest.
pub(crate) struct ChargeScript {
    script: Script,
}

impl ChargeScript {
    pub(crate) fn new() -> Self {
        Self { script: Script::new(include_str!("charge.lua")) }
    }

    /// Has the server keep the script.
    pub(crate) fn load(&self) -> Cmd {
        let mut cmd = redis::cmd("SCRIPT");
        cmd.arg("LOAD").arg(include_str!("charge.lua"));
        cmd
    }

    /// Charges `calls` at `now`, or by the server's clock. `whole`: with the text of the script, for a server that has lost it.
    pub(crate) fn invoke<'a>(
        &self,
        calls: impl ExactSizeIterator<Item = &'a Call> + Clone,
        now: Option<u64>,
        whole: bool,
    ) -> Cmd {
        let count = calls.len();
        let mut cmd = Cmd::with_capacity(count + 5, count * (RECORD + 24) + 128);
        if whole {
            cmd.arg("EVAL").arg(include_str!("charge.lua"));
        } else {
            cmd.arg("EVALSHA").arg(self.script.get_hash());
        }
        cmd.arg(count);
        for call in calls.clone() {
            cmd.arg(&call.key()[..]);
        }
        match now {
            Some(now) => cmd.arg(now),
            None => cmd.arg(""),
        };
        let mut records = Vec::with_capacity(count * RECORD);
        for call in calls {
            call.record(&mut records);
        }
        cmd.arg(records);
        cmd
    }
}

impl Call {
    /// `None` for a limit of zero, which has no cell.
    pub(crate) fn new(ask: &Ask, want: u32) -> Option<Self> {
        let meter = Meter::new(&ask.limit, TICKS_PER_SECOND);
        let call = Self { key: ask.key, meter, hits: ask.hits, debt: ask.policy.debt, want };
        (meter != Meter::Never).then_some(call)
    }

    /// The key of its cell.
    pub(crate) fn key(&self) -> Key {
        let mut key = *b"ch:b----------------";
        if matches!(self.meter, Meter::Window { .. }) {
            key[3] = b'w';
        }
        key[4..].copy_from_slice(&self.key.0.to_be_bytes());
        key
    }

    /// Whether it says what has happened already, and so must be counted however late: hits that were not used after all, or a
    /// bill for what was.
    pub(crate) fn is_owed(&self) -> bool {
        match self.hits {
            Hits::Take(hits) => self.debt && hits > 0,
            Hits::GiveBack(_) => true,
        }
    }

    fn record(&self, into: &mut Vec<u8>) {
        // Hits beyond `most` change nothing any more, and their product must stay below 2^53.
        let (kind, interval, tolerance, most, most_hits) = match self.meter {
            Meter::Never => (0, 1, 0, 0, 0),
            Meter::Bucket { interval, tolerance, most } => {
                (u8::from(self.debt), interval, tolerance, most, most / interval + 2)
            }
            Meter::Window { period, .. } => (2, period, epoch_ticks() % period, 0, 1 << WINDOW_COUNT_BITS),
        };
        let hits = match self.hits {
            Hits::Take(hits) => hits.min(most_hits) as f64,
            Hits::GiveBack(hits) => -(hits.min(most_hits) as f64),
        };
        into.push(kind);
        for number in [interval as f64, tolerance as f64, most as f64, hits, f64::from(self.want)] {
            into.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// What follows from what the key held before.
    fn conclude(&self, before: u64, now: u64) -> Reply {
        let (cell, now) = match self.meter {
            // Windows are aligned to the Unix epoch, not to ours: a week begins on another day.
            Meter::Window { period, .. } => {
                let now = now.saturating_add(epoch_ticks());
                ((now / period) << WINDOW_COUNT_BITS | before, now)
            }
            _ => (before, now),
        };
        let mut charged = self.meter.charge(cell, now, self.hits, self.debt);
        let mut granted = 0;
        if let (Meter::Bucket { interval, .. }, Hits::Take(_), true) = (self.meter, self.hits, charged.admitted) {
            granted = u64::from(self.want).min(charged.remaining);
            charged.cell += granted * interval;
            charged.reset += granted * interval;
            charged.remaining -= granted;
        }
        Reply { charged, granted: granted as u32 }
    }
}

impl Reply {
    pub(crate) fn outcome(&self) -> Outcome {
        let Charged { admitted, remaining, reset, retry, .. } = self.charged;
        Outcome { admitted, remaining, reset: duration(reset), retry: duration(retry), source: Source::Redis }
    }
}

/// Reads an answer.
///
/// # Errors
/// It is not one number for the time and one for each call.
pub(crate) fn replies<'a>(
    value: &Value,
    calls: impl ExactSizeIterator<Item = &'a Call>,
) -> Result<Vec<Reply>, Unexpected> {
    let keys = calls.len();
    let unexpected = |what| Unexpected { what, keys };
    let Value::Array(values) = value else { return Err(unexpected("no list")) };
    let number = |value: &Value| match value {
        Value::Int(number) => u64::try_from(*number).map_err(|_| unexpected("a negative number")),
        _ => Err(unexpected("no number")),
    };
    let Some((now, cells)) = values.split_first() else { return Err(unexpected("nothing")) };
    if cells.len() != keys {
        return Err(unexpected("a list of another length"));
    }
    let now = number(now)?;
    calls.zip(cells).map(|(call, cell)| Ok(call.conclude(number(cell)?, now))).collect()
}

/// `ticks` as time. `u64::MAX` is never.
pub(crate) fn duration(ticks: u64) -> Duration {
    match ticks.checked_mul(NANOSECONDS_PER_TICK) {
        Some(nanoseconds) => Duration::from_nanos(nanoseconds),
        None if ticks == u64::MAX => Duration::MAX,
        None => Duration::from_nanos(u64::MAX),
    }
}

/// Ticks from the Unix epoch to tick zero.
fn epoch_ticks() -> u64 {
    EPOCH_SECONDS * TICKS_PER_SECOND
}
