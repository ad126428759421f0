//! Outlier detection as Envoy defines it (`envoy/config/cluster/v3/outlier_detection.proto`): what one endpoint has done, and which
//! endpoints stand out from the others. Whether one that does may be ejected is decided in [`endpoints`](super::endpoints).
//!
//! As in Envoy, a missing answer counts as a 5xx and as a gateway failure (there, while `split_external_local_origin_errors` is
//! off), and what is detected is enforced in a share of cases only. An ejection lasts for the base time, times the number of ejections
//! that have not been made good; each interval that an endpoint stays in makes good one.
//!
//! Not honoured: the split of local-origin errors, and monitors that are extensions.

use std::time::Duration;

use super::classify::Verdict;

/// Fields of `OutlierDetection`, under its names and with its defaults.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// 5xx in a row; 5.
    pub consecutive_5xx: u32,
    /// 502, 503 and 504 in a row; 5.
    pub consecutive_gateway_failure: u32,
    /// From one comparison of the endpoints to the next; 10 s.
    pub interval: Duration,
    /// The first ejection lasts so long; 30 s.
    pub base_ejection_time: Duration,
    /// None lasts longer; 300 s.
    pub max_ejection_time: Duration,
    /// But for so much, by chance; 0 s.
    pub max_ejection_time_jitter: Duration,
    /// Endpoints to compare rates of success of, at least; 5.
    pub success_rate_minimum_hosts: u32,
    /// Answers in an interval, for an endpoint to be compared; 100.
    pub success_rate_request_volume: u32,
    /// Standard deviations below the mean, in thousandths; 1900.
    pub success_rate_stdev_factor: u32,
    /// Failures in a hundred; 85.
    pub failure_percentage_threshold: u32,
    /// Endpoints to look at percentages of, at least; 5.
    pub failure_percentage_minimum_hosts: u32,
    /// Answers in an interval, for an endpoint to be looked at; 50.
    pub failure_percentage_request_volume: u32,
    /// In how many of a hundred cases consecutive 5xx eject; 100.
    pub enforcing_consecutive_5xx: u32,
    /// In how many of a hundred cases consecutive gateway failures eject; 0.
    pub enforcing_consecutive_gateway_failure: u32,
    /// In how many of a hundred cases a low rate of success ejects; 100.
    pub enforcing_success_rate: u32,
    /// In how many of a hundred cases a high percentage of failures ejects; 0.
    pub enforcing_failure_percentage: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            consecutive_5xx: 5,
            consecutive_gateway_failure: 5,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_time_jitter: Duration::ZERO,
            success_rate_minimum_hosts: 5,
            success_rate_request_volume: 100,
            success_rate_stdev_factor: 1_900,
            failure_percentage_threshold: 85,
            failure_percentage_minimum_hosts: 5,
            failure_percentage_request_volume: 50,
            enforcing_consecutive_5xx: 100,
            enforcing_consecutive_gateway_failure: 0,
            enforcing_success_rate: 100,
            enforcing_failure_percentage: 0,
        }
    }
}

/// Why an endpoint stands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// 502, 503 and 504 in a row.
    ConsecutiveGatewayFailure,
    /// 5xx in a row.
    Consecutive5xx,
    /// A rate of success far below that of the others.
    SuccessRate,
    /// Too many failures in a hundred.
    FailurePercentage,
}

impl Settings {
    /// Whether this is one of the cases in which `cause` ejects.
    pub fn enforces(&self, cause: Cause, chance: f64) -> bool {
        let percent = match cause {
            Cause::ConsecutiveGatewayFailure => self.enforcing_consecutive_gateway_failure,
            Cause::Consecutive5xx => self.enforcing_consecutive_5xx,
            Cause::SuccessRate => self.enforcing_success_rate,
            Cause::FailurePercentage => self.enforcing_failure_percentage,
        };
        chance * 100.0 < f64::from(percent)
    }

    /// Which of the endpoints stand out, by what each did in the last interval.
    pub fn outliers(&self, tallies: &[Tally]) -> Vec<(usize, Cause)> {
        let with_volume = |volume: u32| -> Vec<(usize, f64)> {
            let enough = tallies.iter().enumerate().filter(|(_, tally)| tally.all > 0 && tally.all >= volume);
            enough.map(|(index, tally)| (index, tally.success_percentage())).collect()
        };
        let mut outliers = Vec::new();
        let rates = with_volume(self.success_rate_request_volume);
        if rates.len() >= self.success_rate_minimum_hosts as usize {
            let least = threshold(&rates, f64::from(self.success_rate_stdev_factor) / 1_000.0);
            outliers
                .extend(rates.iter().filter(|(_, rate)| *rate < least).map(|(index, _)| (*index, Cause::SuccessRate)));
        }
        let rates = with_volume(self.failure_percentage_request_volume);
        if rates.len() >= self.failure_percentage_minimum_hosts as usize {
            let most = f64::from(self.failure_percentage_threshold);
            let failing = rates.iter().filter(|(_, rate)| 100.0 - rate >= most);
            outliers.extend(failing.map(|(index, _)| (*index, Cause::FailurePercentage)));
        }
        outliers
    }
}

/// The mean, less `factor` standard deviations.
fn threshold(rates: &[(usize, f64)], factor: f64) -> f64 {
    let count = rates.len().max(1) as f64;
    let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count;
    let variance = rates.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / count;
    mean - factor * variance.sqrt()
}

/// Answers of one endpoint in one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Those that were no 5xx.
    pub good: u32,
    /// All.
    pub all: u32,
}

impl Tally {
    fn success_percentage(self) -> f64 {
        f64::from(self.good) * 100.0 / f64::from(self.all.max(1))
    }
}

/// What one endpoint has done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Record {
    server_errors: u32,
    gateway_failures: u32,
    tally: Tally,
    /// Ejections that have not been made good.
    ejections: u32,
    /// When it last came back.
    returned: Option<Duration>,
}

impl Record {
    /// Counts an answer. Says what stands out; where that leads to an ejection, only the first matters.
    pub fn answer(&mut self, settings: &Settings, verdict: Verdict) -> impl Iterator<Item = Cause> + use<> {
        match verdict {
            Verdict::Ignored => return [None, None].into_iter().flatten(),
            Verdict::Success | Verdict::RateLimited => {
                (self.server_errors, self.gateway_failures) = (0, 0);
                self.tally.good = self.tally.good.saturating_add(1);
            }
            Verdict::Failure { gateway } => {
                self.server_errors = self.server_errors.saturating_add(1);
                self.gateway_failures = if gateway { self.gateway_failures.saturating_add(1) } else { 0 };
            }
        }
        self.tally.all = self.tally.all.saturating_add(1);
        // Each bout is noticed once: the count begins anew, whether or not anything follows.
        let gateway = full(&mut self.gateway_failures, settings.consecutive_gateway_failure);
        let server = full(&mut self.server_errors, settings.consecutive_5xx);
        [gateway.then_some(Cause::ConsecutiveGatewayFailure), server.then_some(Cause::Consecutive5xx)]
            .into_iter()
            .flatten()
    }

    /// It is ejected. Says for how long.
    pub fn eject(&mut self, settings: &Settings, chance: f64) -> Duration {
        let most = settings.max_ejection_time.max(settings.base_ejection_time);
        let base = settings.base_ejection_time;
        if base.saturating_mul(self.ejections) < most.saturating_add(base) {
            self.ejections = self.ejections.saturating_add(1);
        }
        let jitter = settings.max_ejection_time_jitter.mul_f64(chance.clamp(0.0, 1.0));
        base.saturating_mul(self.ejections).min(most).saturating_add(jitter)
    }

    /// It is back.
    pub fn come_back(&mut self, now: Duration) {
        (self.server_errors, self.gateway_failures) = (0, 0);
        self.returned = Some(now);
    }

    /// An interval ends: what it has done in it, which begins anew.
    pub fn end_interval(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// It was in at the end of an interval, which makes good an ejection if it is one since it came back.
    pub fn make_good(&mut self, settings: &Settings, now: Duration) {
        if self.returned.is_some_and(|returned| now.saturating_sub(returned) >= settings.interval) {
            self.ejections = self.ejections.saturating_sub(1);
        }
    }
}

/// Whether `count` has reached `most`, and then begins anew. Zero is never reached.
fn full(count: &mut u32, most: u32) -> bool {
    let full = most > 0 && *count >= most;
    if full {
        *count = 0;
    }
    full
}

#[cfg(test)]
mod tests {
    use super::*;

    const ERROR: Verdict = Verdict::Failure { gateway: false };
    const GATEWAY: Verdict = Verdict::Failure { gateway: true };

    /// `+` success, `5` 500, `g` 503, `r` 429, `i` ignored.
    fn causes(answers: &str) -> Vec<(usize, Cause)> {
        let mut record = Record::default();
        let verdict = |answer| match answer {
            '+' => Verdict::Success,
            '5' => ERROR,
            'g' => GATEWAY,
            'r' => Verdict::RateLimited,
            _ => Verdict::Ignored,
        };
        let answers = answers.chars().enumerate();
        answers
            .flat_map(|(at, answer)| {
                record.answer(&Settings::default(), verdict(answer)).map(move |cause| (at, cause)).collect::<Vec<_>>()
            })
            .collect()
    }

    #[test]
    fn five_in_a_row_stand_out() {
        let (five, gateway) = (Cause::Consecutive5xx, Cause::ConsecutiveGatewayFailure);
        for (answers, expected) in [
            ("5555", vec![]),
            ("55555", vec![(4, five)]),
            ("5555+5", vec![]),
            ("5555r5", vec![]),
            ("5555i5", vec![(5, five)]),
            ("5555555555", vec![(4, five), (9, five)]),
            ("ggggg", vec![(4, gateway), (4, five)]),
            ("g5ggg", vec![(4, five)]),
            ("5ggggg", vec![(4, five), (5, gateway)]),
        ] {
            assert_eq!(causes(answers), expected, "{answers}");
        }
    }

    #[test]
    fn zero_in_a_row_is_never() {
        let settings = Settings { consecutive_5xx: 0, consecutive_gateway_failure: 0, ..Settings::default() };
        let mut record = Record::default();
        assert!((0..20).all(|_| record.answer(&settings, GATEWAY).next().is_none()));
    }

    fn tallies(good_of_a_hundred: &[u32]) -> Vec<Tally> {
        good_of_a_hundred.iter().map(|good| Tally { good: *good, all: 100 }).collect()
    }

    #[test]
    fn a_rate_far_below_the_others_stands_out() {
        let settings = Settings::default();
        // Mean 90, deviation 20: below 52.
        assert_eq!(settings.outliers(&tallies(&[100, 100, 50, 100, 100])), [(2, Cause::SuccessRate)]);
        assert_eq!(settings.outliers(&tallies(&[100, 100, 100, 100])), []);
        assert_eq!(settings.outliers(&tallies(&[100, 50, 100, 100])), [], "four are too few");
        assert_eq!(settings.outliers(&tallies(&[50, 50, 50, 50, 50])), [], "nobody is worse than the others");
        let quiet = Tally { good: 0, all: 99 };
        let mut with_quiet = tallies(&[100, 100, 100, 100, 100]);
        with_quiet.push(quiet);
        assert_eq!(
            settings.outliers(&with_quiet),
            [(5, Cause::FailurePercentage)],
            "99 answers are too few for a rate"
        );
    }

    #[test]
    fn eighty_five_failures_in_a_hundred_stand_out() {
        let settings = Settings { success_rate_minimum_hosts: 100, ..Settings::default() };
        let expected = [(0, Cause::FailurePercentage), (3, Cause::FailurePercentage)];
        assert_eq!(settings.outliers(&tallies(&[15, 16, 100, 0, 90])), expected);
        assert_eq!(settings.outliers(&tallies(&[15, 16, 100, 0])), []);
    }

    #[test]
    fn detection_is_enforced_as_often_as_it_says() {
        let settings = Settings { enforcing_success_rate: 30, ..Settings::default() };
        for (cause, chance, enforced) in [
            (Cause::Consecutive5xx, 0.999, true),
            (Cause::ConsecutiveGatewayFailure, 0.0, false),
            (Cause::FailurePercentage, 0.0, false),
            (Cause::SuccessRate, 0.299, true),
            (Cause::SuccessRate, 0.3, false),
        ] {
            assert_eq!(settings.enforces(cause, chance), enforced, "{cause:?} {chance}");
        }
    }

    #[test]
    fn an_ejection_lasts_longer_each_time_until_it_is_made_good() {
        let settings = Settings { max_ejection_time_jitter: Duration::from_secs(8), ..Settings::default() };
        let mut record = Record::default();
        let times: Vec<_> = (0..13).map(|_| record.eject(&settings, 0.0).as_secs()).collect();
        assert_eq!(times, [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300, 300]);
        assert_eq!(record.eject(&settings, 0.5).as_secs(), 304);
        record.come_back(Duration::from_secs(100));
        record.make_good(&settings, Duration::from_secs(109));
        assert_eq!(record.ejections, 11);
        (0..11).for_each(|_| record.make_good(&settings, Duration::from_secs(110)));
        assert_eq!(record.eject(&settings, 0.0).as_secs(), 30);
    }
}
