//! Random charges: three cells, limits that change on the way, time that stands, creeps or leaps.
//!
//! The numbers come from the seed that the report of a failure names, so that it can be run again.

use std::{ops::Range, time::Duration};

use super::{Subject, Trial};
use crate::{
    model::{
        descriptor::Hits,
        limit::{Algorithm, Limit},
        rule::Policy,
    },
    store::Ask,
};

const CELLS: usize = 3;
const STEPS: usize = 40;

pub(super) async fn random(subject: &Subject<'_>, seeds: Range<u64>) {
    for seed in seeds {
        let mut chance = Chance(seed);
        let mut trial = Trial::new(subject, format!("schedule of seed {seed}"));
        let algorithms: [Algorithm; CELLS] = std::array::from_fn(|_| chance.algorithm());
        let mut limits = algorithms.map(|algorithm| chance.limit(algorithm));
        for _ in 0..STEPS {
            let edited = chance.below(CELLS as u64) as usize;
            if chance.one_in(10) {
                limits[edited] = chance.limit(algorithms[edited]);
            }
            trial.advance(chance.step(&limits[edited]));
            let asks: Vec<Ask> = (0..=chance.below(4))
                .map(|_| {
                    let cell = chance.below(CELLS as u64) as usize;
                    let debt = chance.one_in(6);
                    let hits = chance.hits(&limits[cell]);
                    let policy = Policy { debt, strict: true, ..Policy::default() };
                    Ask { key: trial.key(cell), limit: limits[cell], hits, policy }
                })
                .collect();
            trial.charge(&asks).await;
        }
    }
}

/// SplitMix64: any seed is good, and a run can be repeated anywhere.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn among<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    fn algorithm(&mut self) -> Algorithm {
        self.among(&[Algorithm::TokenBucket, Algorithm::TokenBucket, Algorithm::FixedWindow])
    }

    fn limit(&mut self, algorithm: Algorithm) -> Limit {
        loop {
            let any = self.below(1_000_000) as u32;
            let requests = self.among(&[0, 1, 2, 3, 7, 10, 100, 1_000, 999_983, u32::MAX, any]);
            let milliseconds = self.below(100_000) + 1;
            let per = self.among(&[1, 1_000, 1_000, 60_000, 3_600_000, 86_400_000, 366 * 86_400_000, milliseconds]);
            let any = self.below(10_000) as u32;
            let burst = self.among(&[None, None, Some(1), Some(5), Some(1_000), Some(any)]);
            if let Ok(limit) = Limit::new(requests, Duration::from_millis(per), burst, algorithm) {
                return limit;
            }
        }
    }

    /// How long until the next charge, of the order of what `limit` can tell apart.
    fn step(&mut self, limit: &Limit) -> Duration {
        let period = limit.per().as_micros() as u64;
        let interval = (period / u64::from(limit.requests().max(1))).max(1);
        Duration::from_micros(match self.below(6) {
            0 | 1 => 0,
            2 => 1 + self.below(10),
            3 => self.below(3 * interval),
            4 => interval,
            _ => self.below(2 * period),
        })
    }

    fn hits(&mut self, limit: &Limit) -> Hits {
        let burst = u64::from(limit.burst());
        let some = 1 + self.below(burst);
        match self.below(12) {
            0 | 1 => Hits::Take(0),
            2..=5 => Hits::Take(1),
            6 | 7 => Hits::Take(some),
            8 => Hits::Take(burst),
            9 => Hits::Take(self.among(&[burst + 1, u64::from(u32::MAX), u64::MAX])),
            10 => Hits::GiveBack(self.among(&[some, burst, u64::MAX])),
            _ => Hits::GiveBack(1),
        }
    }
}
