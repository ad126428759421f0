//! How long an endpoint takes, as one number: a moving average that jumps up at once and comes down slowly (peak EWMA, as
//! Finagle has it and tower's `load::PeakEwma`).
//!
//! An answer that took longer than the average becomes the average. Otherwise it weighs `1 − e^(−Δ/τ)`, Δ the time since the last one.
//! Between answers the average decays towards zero, so that an endpoint that was slow is tried again though nobody
//! asks it any more.
//!
//! A failure is recorded as if it had taken five seconds, or as long as the endpoint asked to be left alone: an endpoint that fails
//! fast would else look like the best of all, and attract everything.

use std::time::Duration;

use super::pushback;

/// The constants of an average.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// In which time the average decays to 1/e; 10 s (linkerd2-proxy).
    pub tau: Duration,
    /// What is assumed of an endpoint that has not answered yet; 30 ms (linkerd2-proxy).
    pub seed: Duration,
    /// As how long a failure is recorded, at least; 5 s (linkerd2-proxy).
    pub penalty: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { tau: Duration::from_secs(10), seed: Duration::from_millis(30), penalty: Duration::from_secs(5) }
    }
}

/// The average of one endpoint.
#[derive(Clone, Copy, Debug)]
pub struct PeakEwma {
    settings: Settings,
    /// Seconds, at `at`.
    average: f64,
    at: Duration,
    /// Seconds that the last good answer took; the seed before there was one.
    last_good: f64,
    /// After a failure: from when on the average says nothing of what the endpoint is like.
    unknown_from: Option<Duration>,
}

impl PeakEwma {
    /// Of an endpoint that has not answered yet.
    pub fn new(settings: Settings, now: Duration) -> Self {
        let seed = settings.seed.as_secs_f64();
        Self { settings, average: seed, at: now, last_good: seed, unknown_from: None }
    }

    /// Forgets all but the last good answer. For an endpoint that is back: what it cost while it was not well would keep it
    /// from being asked for most of a minute.
    pub fn forgive(&mut self, now: Duration) {
        self.average = self.last_good;
        self.at = now.max(self.at);
    }

    /// A good answer took `time`.
    pub fn record(&mut self, time: Duration, now: Duration) {
        self.last_good = time.as_secs_f64();
        match self.unknown_from {
            // It was found out what it is like: well. Its failure is not held against it any longer.
            Some(from) if from <= now => {
                self.unknown_from = None;
                self.forgive(now);
            }
            _ => self.add(time, now),
        }
    }

    /// It failed after `time`, and perhaps asked to be left alone for a while.
    pub fn fail(&mut self, time: Duration, asked: Option<Duration>, now: Duration) {
        let asked = asked.unwrap_or_default().min(pushback::MOST);
        let penalty = time.max(self.settings.penalty).max(asked);
        self.unknown_from = Some(now.saturating_add(penalty));
        self.add(penalty, now);
    }

    /// Whether somebody should find out what it is like, with `pending` under way: it has failed, and been left alone for as
    /// long as that was taken for. By its cost alone it would not be asked for a minute or two: a service that answers in
    /// a millisecond is five thousand times as cheap as a failure.
    pub fn is_unknown(&self, pending: u32, now: Duration) -> bool {
        pending == 0 && self.unknown_from.is_some_and(|from| from <= now)
    }

    /// What one more request would cost: the average, once for it and once for each of the `pending` that wait before it.
    pub fn cost(&self, pending: u32, now: Duration) -> f64 {
        self.average(now) * (f64::from(pending) + 1.0)
    }

    /// The average, in seconds.
    pub fn average(&self, now: Duration) -> f64 {
        self.average * self.decay(now)
    }

    fn add(&mut self, time: Duration, now: Duration) {
        let time = time.as_secs_f64();
        self.average = if time > self.average {
            time
        } else {
            let weight = self.decay(now);
            self.average * weight + time * (1.0 - weight)
        };
        self.at = now.max(self.at);
    }

    /// What is left of one after the time since the last answer.
    fn decay(&self, now: Duration) -> f64 {
        let tau = self.settings.tau.as_secs_f64().max(f64::MIN_POSITIVE);
        (-now.saturating_sub(self.at).as_secs_f64() / tau).exp()
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[track_caller]
    fn assert_near(cost: f64, expected: f64) {
        assert!((cost - expected).abs() < 1e-9, "{cost} is not {expected}");
    }

    #[test]
    fn it_jumps_up_and_comes_down_with_tau() {
        let mut ewma = PeakEwma::new(Settings::default(), Duration::ZERO);
        assert_near(ewma.cost(0, Duration::ZERO), 0.030);
        ewma.record(ms(100), Duration::ZERO);
        assert_near(ewma.cost(0, Duration::ZERO), 0.100);
        ewma.record(ms(10), ms(10_000));
        let decay = (-1.0_f64).exp();
        assert_near(ewma.cost(0, ms(10_000)), 0.100 * decay + 0.010 * (1.0 - decay));
    }

    #[test]
    fn waiting_requests_cost_as_much_each() {
        let ewma = PeakEwma::new(Settings::default(), Duration::ZERO);
        assert_near(ewma.cost(9, Duration::ZERO), 0.300);
    }

    #[test]
    fn an_idle_endpoint_grows_cheaper() {
        let mut ewma = PeakEwma::new(Settings::default(), Duration::ZERO);
        ewma.record(ms(1_000), Duration::ZERO);
        assert_near(ewma.cost(0, ms(10_000)), (-1.0_f64).exp());
        assert_near(ewma.cost(0, ms(100_000)), (-10.0_f64).exp());
    }

    #[test]
    fn failing_fast_is_dear() {
        let mut ewma = PeakEwma::new(Settings::default(), Duration::ZERO);
        for (asked, expected) in [(None, 5.0), (Some(ms(20_000)), 20.0), (Some(Duration::MAX), 300.0)] {
            ewma.fail(ms(1), asked, Duration::ZERO);
            assert_near(ewma.cost(0, Duration::ZERO), expected);
        }
        ewma.forgive(ms(5));
        assert_near(ewma.cost(0, ms(5)), 0.030);
        ewma.record(ms(7), ms(5));
        ewma.fail(ms(1), None, ms(5));
        ewma.forgive(ms(6));
        assert_near(ewma.cost(0, ms(6)), 0.007);
    }

    proptest! {
        #[test]
        fn it_stays_within_what_was_recorded(times in vec((0..5_000_u64, 0..60_000_u64), 1..50)) {
            let mut ewma = PeakEwma::new(Settings::default(), Duration::ZERO);
            let mut now = Duration::ZERO;
            let mut longest = 30;
            for (time, pause) in times {
                now += ms(pause);
                longest = longest.max(time);
                ewma.record(ms(time), now);
                let cost = ewma.cost(0, now);
                prop_assert!(cost >= ms(time).as_secs_f64() * (1.0 - 1e-9) && cost <= ms(longest).as_secs_f64() * (1.0 + 1e-9));
            }
        }

        #[test]
        fn no_time_breaks_it(tau: Duration, time: Duration, now: Duration, pending: u32) {
            let mut ewma = PeakEwma::new(Settings { tau, ..Settings::default() }, now);
            ewma.record(time, Duration::ZERO);
            ewma.fail(time, Some(time), Duration::MAX);
            prop_assert!(ewma.cost(pending, now).is_finite());
        }
    }
}
