//! How much, per how long. A value of [`Limit`] is one that can be counted: every product stays in range.

use std::time::Duration;

/// The longest period, one year and a day.
pub const MAX_PERIOD: Duration = Duration::from_secs(366 * 86_400);

/// How a limit is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// A token bucket, as the generic cell rate algorithm: smooth, with a burst.
    #[default]
    TokenBucket,
    /// Windows aligned to the clock, as envoyproxy/ratelimit counts; what is refused counts too.
    FixedWindow,
}

/// Units of time that a rule or response can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// 1 s.
    Second,
    /// 60 s.
    Minute,
    /// 3,600 s.
    Hour,
    /// 86,400 s.
    Day,
    /// 7 days.
    Week,
    /// 30 days.
    Month,
    /// 365 days.
    Year,
}

/// A limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limit {
    requests: u32,
    per: Duration,
    burst: u32,
    algorithm: Algorithm,
}

/// Why a limit cannot be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLimit {
    /// The period is too short or too long.
    #[error("the period must be between 1ms and 366 days")]
    Period,
    /// The burst is zero.
    #[error("the burst must be at least 1")]
    Burst,
    /// A full bucket would take longer to fill than can be counted.
    #[error("a burst of {burst} would take more than ten years to refill at this rate")]
    Refill {
        /// What was asked.
        burst: u32,
    },
}

impl Limit {
    /// A limit of `requests` per `per`. No burst means as many as `requests` (at least one).
    ///
    /// # Errors
    /// The period or the burst is out of range.
    pub fn new(requests: u32, per: Duration, burst: Option<u32>, algorithm: Algorithm) -> Result<Self, InvalidLimit> {
        if per < Duration::from_millis(1) || per > MAX_PERIOD {
            return Err(InvalidLimit::Period);
        }
        let burst = burst.unwrap_or(requests.max(1));
        if burst == 0 {
            return Err(InvalidLimit::Burst);
        }
        let refill = per.as_nanos() * u128::from(burst) / u128::from(requests.max(1));
        if requests > 0 && refill > (MAX_PERIOD * 10).as_nanos() {
            return Err(InvalidLimit::Refill { burst });
        }
        Ok(Self { requests, per, burst, algorithm })
    }

    /// Requests per period; zero refuses everything.
    pub fn requests(&self) -> u32 {
        self.requests
    }

    /// The period.
    pub fn per(&self) -> Duration {
        self.per
    }

    /// How many may come at once.
    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// How it is counted.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The period as a unit, where it is one.
    pub fn unit(&self) -> Option<Unit> {
        Unit::ALL.into_iter().find(|unit| unit.duration() == self.per)
    }
}

impl Unit {
    /// All of them, shortest first.
    pub const ALL: [Self; 7] = [Self::Second, Self::Minute, Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year];

    /// How long it is; a month has 30 days and a year 365.
    pub const fn duration(self) -> Duration {
        const DAY: u64 = 86_400;
        Duration::from_secs(match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => DAY,
            Self::Week => 7 * DAY,
            Self::Month => 30 * DAY,
            Self::Year => 365 * DAY,
        })
    }

    /// Its name, lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }
}

#[cfg(test)]
mod tests;
