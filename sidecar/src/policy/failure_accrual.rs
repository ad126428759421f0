//! When an endpoint has failed enough to be left alone. Two conditions, and either is enough:
//! - *Consecutive*: seven failures without a success between them (linkerd2-proxy, `breaker/consecutive_failures.rs`).
//! - *Success rate*: of at least five answers in the last ten seconds, fewer than 80 % were good (linkerd2-proxy,
//!   `breaker/success_rate.rs`).
//!
//! "Too much to do" (429, RESOURCE_EXHAUSTED) counts against the rate, and says nothing about the run: it neither is a
//! failure nor ends a run of them. What is not the endpoint's doing is not counted at all.

use std::time::Duration;

use super::{classify::Verdict, window::Window};

/// When enough is enough.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Failures in a row; 7. None: any number.
    pub consecutive: Option<u32>,
    /// The rate of success. None: any rate.
    pub success_rate: Option<SuccessRate>,
}

/// The rate of success below which an endpoint is left alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SuccessRate {
    /// Below this share; 0.8.
    pub least: f64,
    /// Of at least so many answers; 5.
    pub samples: u32,
    /// In this time; 10 s.
    pub window: Duration,
}

/// Slots of the window for the rate.
const SLOTS: usize = 10;

impl Default for Settings {
    fn default() -> Self {
        Self { consecutive: Some(7), success_rate: Some(SuccessRate::default()) }
    }
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self { least: 0.8, samples: 5, window: Duration::from_secs(10) }
    }
}

/// What one endpoint has done lately.
#[derive(Clone, Debug)]
pub struct FailureAccrual {
    settings: Settings,
    run: u32,
    answers: Option<Window<Answers>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Answers {
    good: u32,
    all: u32,
}

impl FailureAccrual {
    /// Of an endpoint of which nothing is known.
    pub fn new(settings: Settings) -> Self {
        let answers = settings.success_rate.map(|rate| Window::new(rate.window, SLOTS));
        Self { settings, run: 0, answers }
    }

    /// Counts one answer. Says whether that is enough.
    pub fn record(&mut self, verdict: Verdict, now: Duration) -> bool {
        match verdict {
            Verdict::Ignored => return false,
            Verdict::Success => self.run = 0,
            Verdict::Failure { .. } => self.run = self.run.saturating_add(1),
            Verdict::RateLimited => {}
        }
        let good = verdict == Verdict::Success;
        if let Some(answers) = &mut self.answers {
            let slot = answers.slot(now);
            slot.all = slot.all.saturating_add(1);
            slot.good = slot.good.saturating_add(u32::from(good));
        }
        // An answer that is good never is the last straw, though the window may have moved on.
        !good && (self.run_is_too_long() || self.rate_is_too_low(now))
    }

    /// Forgets everything: what was counted has had its consequence.
    pub fn clear(&mut self) {
        self.run = 0;
        if let Some(answers) = &mut self.answers {
            answers.clear();
        }
    }

    fn run_is_too_long(&self) -> bool {
        self.settings.consecutive.is_some_and(|most| self.run >= most.max(1))
    }

    fn rate_is_too_low(&mut self, now: Duration) -> bool {
        let (Some(rate), Some(answers)) = (self.settings.success_rate, &mut self.answers) else { return false };
        let slots = answers.slots(now).iter();
        let (good, all) =
            slots.fold((0_u64, 0_u64), |(good, all), slot| (good + u64::from(slot.good), all + u64::from(slot.all)));
        all >= u64::from(rate.samples.max(1)) && (good as f64) < rate.least * all as f64
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const FAILURE: Verdict = Verdict::Failure { gateway: false };

    /// `+` success, `-` failure, `r` rate limited, `i` ignored, ` ` a second. Where it says that this is enough.
    fn enough(settings: Settings, answers: &str) -> Vec<usize> {
        let mut accrual = FailureAccrual::new(settings);
        let mut now = Duration::ZERO;
        let mut said = Vec::new();
        for (at, answer) in answers.chars().enumerate() {
            let verdict = match answer {
                '+' => Verdict::Success,
                '-' => FAILURE,
                'r' => Verdict::RateLimited,
                'i' => Verdict::Ignored,
                _ => {
                    now += Duration::from_secs(1);
                    continue;
                }
            };
            if accrual.record(verdict, now) {
                said.push(at);
            }
        }
        said
    }

    #[test]
    fn seven_failures_in_a_row_are_enough() {
        let settings = Settings { success_rate: None, ..Settings::default() };
        for (answers, said) in [
            ("------", vec![]),
            ("-------", vec![6]),
            ("--------", vec![6, 7]),
            ("------+------", vec![]),
            ("------r-", vec![7]),
            ("------rrrrr", vec![]),
            ("------iiii-", vec![10]),
            ("rrrrrrrrrrrr", vec![]),
            ("------                -", vec![22]),
        ] {
            assert_eq!(enough(settings, answers), said, "{answers}");
        }
    }

    #[test]
    fn less_than_four_fifths_of_five_in_ten_seconds_is_enough() {
        let settings = Settings { consecutive: None, ..Settings::default() };
        for (answers, said) in [
            ("----", vec![]),
            ("-----", vec![4]),
            ("++++-", vec![]),
            ("+++--", vec![4]),
            ("+++rr", vec![4]),
            ("+++ri-", vec![5]),
            ("++++++++-", vec![]),
            ("++++++++--", vec![]),
            ("++++++++---", vec![10]),
            ("+-+-+", vec![]),
            ("+-+-+-", vec![5]),
            // In the tenth second all is remembered, in the eleventh the first is forgotten.
            ("++++---         ", vec![5, 6]),
            ("----         -", vec![13]),
            ("----          -", vec![]),
        ] {
            assert_eq!(enough(settings, answers), said, "{answers}");
        }
    }

    #[test]
    fn nothing_is_remembered_after_clear() {
        let mut accrual = FailureAccrual::new(Settings::default());
        let said: Vec<_> = (0..5).map(|_| accrual.record(FAILURE, Duration::ZERO)).collect();
        assert_eq!(said, [false, false, false, false, true]);
        accrual.clear();
        let said: Vec<_> = (0..5).map(|_| accrual.record(FAILURE, Duration::ZERO)).collect();
        assert_eq!(said, [false, false, false, false, true]);
    }

    proptest! {
        #[test]
        fn how_fast_answers_come_within_the_window_changes_nothing(
            answers in vec(0..3_usize, 0..40), scale in 0..200_u64,
        ) {
            let run = |scale: u64| {
                let mut accrual = FailureAccrual::new(Settings::default());
                let verdicts = answers.iter().map(|answer| [Verdict::Success, FAILURE, Verdict::RateLimited][*answer]);
                verdicts.enumerate().map(|(at, verdict)| accrual.record(verdict, Duration::from_millis(at as u64 * scale))).collect::<Vec<_>>()
            };
            prop_assert_eq!(run(scale), run(0));
        }
    }
}
