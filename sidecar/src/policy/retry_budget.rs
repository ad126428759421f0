//! How many retries all requests to a cluster together may cause (Finagle's `RetryBudget`).
//!
//! Every original request deposits, every retry and every hedge withdraws five times as much; so one in five requests may be
//! repeated. What is not used within ten seconds is forgotten. A reserve of ten retries a second lets those through who ask
//! rarely; it, too, is for ten seconds at once.
//!
//! Amounts are whole numbers: 1000 for a request and 1000 / ratio for a retry, rounded up. (Budgets that cut the quotient off let
//! more through than they were told to: tower#857.)
//!
//! Law: of `n` requests in time `t`, at most `ratio · n + reserve · ⌈t / TTL + 1⌉` are retries, whatever fails and when. For each
//! retry is paid either from a deposit that no other uses, or from the reserve; and what is paid from the reserve comes back
//! only when it is forgotten, one TTL later.

use std::time::Duration;

use super::window::Window;

/// How many retries there may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// For how long a request counts; 10 s.
    pub ttl: Duration,
    /// Retries for each request; 0.2.
    pub ratio: f64,
    /// Retries each second that are always allowed; 10.
    pub least_per_second: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { ttl: Duration::from_secs(10), ratio: 0.2, least_per_second: 10 }
    }
}

/// Slots of the time for which a request counts.
const SLOTS: usize = 10;

/// What one request deposits.
const DEPOSIT: i64 = 1_000;

/// What may still be withdrawn.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    settings: Settings,
    deposit: i64,
    withdrawal: i64,
    reserve: i64,
    slots: Window<i64>,
}

impl RetryBudget {
    /// With nothing deposited.
    pub fn new(settings: Settings) -> Self {
        let (deposit, withdrawal) = amounts(settings.ratio);
        let retries = settings.ttl.as_secs_f64() * f64::from(settings.least_per_second);
        // The cast saturates.
        let reserve = (retries as i64).saturating_mul(withdrawal);
        Self { settings, deposit, withdrawal, reserve, slots: Window::new(settings.ttl, SLOTS) }
    }

    /// Takes new settings. What was deposited is forgotten if they are others.
    pub fn configure(&mut self, settings: Settings) {
        if settings != self.settings {
            *self = Self::new(settings);
        }
    }

    /// An original request begins. Once for each, and not for its retries.
    pub fn deposit(&mut self, now: Duration) {
        let slot = self.slots.slot(now);
        *slot = slot.saturating_add(self.deposit);
    }

    /// Pays for a retry, or says that it cannot be paid. Before the wait for it, so that those who wait are counted.
    pub fn withdraw(&mut self, now: Duration) -> bool {
        let enough = self.balance(now) >= i128::from(self.withdrawal);
        if enough {
            let slot = self.slots.slot(now);
            *slot = slot.saturating_sub(self.withdrawal);
        }
        enough
    }

    /// How many retries could be paid now.
    pub fn retries_left(&mut self, now: Duration) -> u64 {
        u64::try_from(self.balance(now).max(0) / i128::from(self.withdrawal)).unwrap_or(u64::MAX)
    }

    fn balance(&mut self, now: Duration) -> i128 {
        self.slots.slots(now).iter().map(|slot| i128::from(*slot)).sum::<i128>() + i128::from(self.reserve)
    }
}

/// What a request deposits and what a retry withdraws.
fn amounts(ratio: f64) -> (i64, i64) {
    if ratio > 0.0 {
        // Nearest whole number if that is meant: 1000 / 0.2 is 5000, whatever floating point makes of it.
        let exact = DEPOSIT as f64 / ratio;
        let whole = exact.round();
        let amount = if (exact - whole).abs() < 1e-6 { whole } else { exact.ceil() };
        (DEPOSIT, (amount as i64).clamp(1, i64::MAX / 1_000_000))
    } else {
        (0, DEPOSIT)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn withdrawals(budget: &mut RetryBudget, now: Duration) -> u32 {
        let mut paid = 0;
        while budget.withdraw(now) {
            paid += 1;
        }
        paid
    }

    fn without_reserve(ratio: f64) -> RetryBudget {
        RetryBudget::new(Settings { ratio, least_per_second: 0, ..Settings::default() })
    }

    #[test]
    fn every_ratio_is_kept_to_the_retry() {
        for (ratio, requests, retries) in [
            (0.2, 1_000, 200),
            (0.6, 1_000, 599),
            (0.6, 5, 2),
            (0.3, 1_000, 299),
            (1.0 / 3.0, 999, 333),
            (0.7, 1_000, 699),
            (1.0, 1_000, 1_000),
            (2.5, 1_000, 2_500),
            (0.0001, 10_000, 1),
            (0.0, 1_000, 0),
            (-1.0, 1_000, 0),
            (f64::NAN, 1_000, 0),
        ] {
            let mut budget = without_reserve(ratio);
            (0..requests).for_each(|_| budget.deposit(Duration::ZERO));
            assert_eq!(withdrawals(&mut budget, Duration::ZERO), retries, "{ratio}");
        }
    }

    #[test]
    fn the_fifth_request_pays_for_a_retry() {
        let mut budget = without_reserve(0.2);
        let paid: Vec<_> = (0..10)
            .map(|_| {
                budget.deposit(Duration::ZERO);
                budget.withdraw(Duration::ZERO)
            })
            .collect();
        assert_eq!(paid, [false, false, false, false, true, false, false, false, false, true]);
    }

    #[test]
    fn the_reserve_is_ten_a_second_and_comes_back_after_ten() {
        let mut budget = RetryBudget::new(Settings::default());
        assert_eq!(budget.retries_left(Duration::ZERO), 100);
        assert_eq!(withdrawals(&mut budget, Duration::ZERO), 100);
        assert_eq!(withdrawals(&mut budget, Duration::from_millis(9_999)), 0);
        assert_eq!(withdrawals(&mut budget, Duration::from_secs(10)), 100);
    }

    #[test]
    fn a_request_is_forgotten_after_ten_seconds() {
        let mut budget = without_reserve(1.0);
        budget.deposit(Duration::from_millis(500));
        assert_eq!(budget.retries_left(Duration::from_millis(9_999)), 1);
        assert_eq!(budget.retries_left(Duration::from_millis(10_000)), 0);
    }

    /// Requests and the retries each would like, and the time until the next.
    fn load() -> impl Strategy<Value = Vec<(u64, u32, u32)>> {
        vec((prop_oneof![0..50_u64, 0..12_000_u64], 0..40_u32, 0..60_u32), 1..80)
    }

    proptest! {
        #[test]
        fn there_are_no_more_retries_than_the_law_allows(
            load in load(), percent in 0..150_u32, least_per_second in 0..5_u32,
        ) {
            let ratio = f64::from(percent) / 100.0;
            let settings = Settings { ratio, least_per_second, ..Settings::default() };
            let mut budget = RetryBudget::new(settings);
            let (mut now, mut requests, mut retries) = (0, 0_u64, 0_u64);
            for (pause, new, wanted) in load {
                now += pause;
                let now = Duration::from_millis(now);
                (0..new).for_each(|_| budget.deposit(now));
                requests += u64::from(new);
                retries += (0..wanted).filter(|_| budget.withdraw(now)).count() as u64;
            }
            let reserve = u64::from(least_per_second) * 10 * (now / 10_000 + 1);
            let allowed = ratio * requests as f64 + reserve as f64;
            prop_assert!(retries as f64 <= allowed + 1e-6, "{retries} of {requests}, {allowed} allowed");
        }

        #[test]
        fn no_settings_break_it(ttl: Duration, ratio: f64, least_per_second: u32, now: Duration) {
            let mut budget = RetryBudget::new(Settings { ttl, ratio, least_per_second });
            budget.deposit(now);
            budget.withdraw(now);
            budget.retries_left(Duration::MAX);
        }
    }
}
