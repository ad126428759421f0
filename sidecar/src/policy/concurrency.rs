//! How many requests may be under way at once. Who comes when they are has to be turned away, before anything is read of him.
//!
//! - A *fixed* limit.
//! - *Gradient2* (Netflix `concurrency-limits`, `Gradient2Limit`): the limit follows the ratio of the long-term latency to the recent
//!   one. While requests take no longer than usual (half as long again is tolerated) it grows by its square root; when they
//!   queue somewhere, it shrinks by up to half.
//! - *AIMD* (the same library's `AIMDLimit`): one more while all is well, a tenth less when a request was dropped or took too long.
//!
//! The last two look at windows, not at single requests (`WindowedLimit` there): a second, and ten requests at least. A burst of
//! drops is then one reason to shrink, and not fifty. While fewer than half of what is allowed are under way, the limit stays
//! as it is: such a window does not say what more would do.

use std::time::Duration;

/// How the limit is found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Settings {
    /// It is this one.
    Fixed(u32),
    /// By the gradient of the latency.
    Gradient2(Gradient2),
    /// By drops.
    Aimd(Aimd),
}

/// Constants of Gradient2, with the defaults of the library.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gradient2 {
    /// Where it begins; 20.
    pub initial: u32,
    /// It is never less; 20.
    pub least: u32,
    /// It is never more; 200.
    pub most: u32,
    /// By how much the latency may exceed the usual one; 1.5.
    pub tolerance: f64,
    /// The weight of what a window says; 0.2.
    pub smoothing: f64,
    /// Windows that the long-term latency is the average of; 600.
    pub long_window: u32,
}

impl Default for Gradient2 {
    fn default() -> Self {
        Self { initial: 20, least: 20, most: 200, tolerance: 1.5, smoothing: 0.2, long_window: 600 }
    }
}

/// Constants of AIMD, with the defaults of the library.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Aimd {
    /// Where it begins; 20.
    pub initial: u32,
    /// It is never less; 20.
    pub least: u32,
    /// It is never more; 200.
    pub most: u32,
    /// What is left of it after a drop; 0.9.
    pub backoff: f64,
    /// A request that takes longer counts as dropped; 5 s.
    pub timeout: Duration,
}

impl Default for Aimd {
    fn default() -> Self {
        Self { initial: 20, least: 20, most: 200, backoff: 0.9, timeout: Duration::from_secs(5) }
    }
}

/// How a request ended that was under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Answered, after this time.
    Answered(Duration),
    /// Not answered in time, or turned away for want of room, after this time.
    Dropped(Duration),
    /// In a way that says nothing of how much is too much: its caller went away, it was wrong.
    Ignored,
}

/// A window is as long as this, at least, and has so many requests.
const WINDOW: Duration = Duration::from_secs(1);
const SAMPLES: u32 = 10;

/// Averages are plain ones until so many windows have gone into them.
const WARM_UP: u32 = 10;

/// What is under way, and how much may be.
#[derive(Clone, Debug)]
pub struct Concurrency {
    settings: Settings,
    limit: f64,
    in_flight: u32,
    window: Window,
    long: Average,
}

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    since: Duration,
    samples: u32,
    seconds: f64,
    dropped: bool,
    most_in_flight: u32,
}

/// A moving average, in seconds.
#[derive(Clone, Copy, Debug, Default)]
struct Average {
    value: f64,
    count: u32,
}

impl Concurrency {
    /// With nothing under way.
    pub fn new(settings: Settings, now: Duration) -> Self {
        let window = Window { since: now, ..Window::default() };
        Self { settings, limit: initial(settings), in_flight: 0, window, long: Average::default() }
    }

    /// Takes new settings. If they are others, the limit is sought anew; what is under way still is.
    pub fn configure(&mut self, settings: Settings, now: Duration) {
        if settings != self.settings {
            *self = Self { in_flight: self.in_flight, ..Self::new(settings, now) };
        }
    }

    /// Lets a request in, or says that it is one too many. What is let in is to be [released](Self::release).
    pub fn try_admit(&mut self) -> bool {
        let admitted = self.in_flight < self.limit();
        if admitted {
            self.in_flight += 1;
            self.window.most_in_flight = self.window.most_in_flight.max(self.in_flight);
        }
        admitted
    }

    /// A request that was let in has ended.
    pub fn release(&mut self, ended: Ended, now: Duration) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let (time, dropped) = match ended {
            Ended::Answered(time) => (time, false),
            Ended::Dropped(time) => (time, true),
            Ended::Ignored => return,
        };
        self.window.add(time, dropped || matches!(self.settings, Settings::Aimd(aimd) if time > aimd.timeout));
        if self.window.samples >= SAMPLES && now.saturating_sub(self.window.since) >= WINDOW {
            let ended = self.window;
            self.window = Window { since: now, most_in_flight: self.in_flight, ..Window::default() };
            self.limit = self.next_limit(&ended);
        }
    }

    /// How many may be under way.
    pub fn limit(&self) -> u32 {
        self.limit as u32
    }

    /// How many are.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    fn next_limit(&mut self, window: &Window) -> f64 {
        let busy = f64::from(window.most_in_flight) * 2.0 >= self.limit;
        match self.settings {
            Settings::Fixed(limit) => f64::from(limit),
            Settings::Gradient2(gradient) => {
                let short = window.seconds / f64::from(window.samples);
                let long = self.long.add(short, gradient.long_window);
                if long > short * 2.0 {
                    // Load has gone: what was usual under it is not any more.
                    self.long.value *= 0.95;
                }
                if !busy || short <= 0.0 {
                    return self.limit;
                }
                let slope = (gradient.tolerance * long / short).clamp(0.5, 1.0);
                let sought = self.limit * slope + self.limit.sqrt();
                let limit = self.limit * (1.0 - gradient.smoothing) + sought * gradient.smoothing;
                within(limit, gradient.least, gradient.most)
            }
            Settings::Aimd(aimd) => match (window.dropped, busy) {
                (true, _) => within(self.limit * aimd.backoff, aimd.least, aimd.most),
                (false, true) => within(self.limit + 1.0, aimd.least, aimd.most),
                (false, false) => self.limit,
            },
        }
    }
}

impl Window {
    fn add(&mut self, time: Duration, dropped: bool) {
        self.samples = self.samples.saturating_add(1);
        self.seconds += time.as_secs_f64();
        self.dropped |= dropped;
    }
}

impl Average {
    fn add(&mut self, value: f64, window: u32) -> f64 {
        self.count = self.count.saturating_add(1);
        let weight = if self.count <= WARM_UP { 1.0 / f64::from(self.count) } else { 2.0 / (f64::from(window) + 1.0) };
        self.value += (value - self.value) * weight.min(1.0);
        self.value
    }
}

fn initial(settings: Settings) -> f64 {
    match settings {
        Settings::Fixed(limit) => f64::from(limit),
        Settings::Gradient2(Gradient2 { initial, least, most, .. })
        | Settings::Aimd(Aimd { initial, least, most, .. }) => within(f64::from(initial), least, most),
    }
}

/// `limit` in its bounds, and one at least: with none at all nothing would ever say that there is room again.
fn within(limit: f64, least: u32, most: u32) -> f64 {
    limit.min(f64::from(most)).max(f64::from(least)).max(1.0)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const GRADIENT: Settings = Settings::Gradient2(Gradient2 {
        initial: 20,
        least: 20,
        most: 200,
        tolerance: 1.5,
        smoothing: 0.2,
        long_window: 600,
    });

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// A window in which `in_flight` requests at once end in this way.
    fn window(concurrency: &mut Concurrency, now: &mut Duration, in_flight: u32, ended: Ended) {
        *now += WINDOW;
        for _ in 0..SAMPLES {
            let admitted = (0..in_flight).filter(|_| concurrency.try_admit()).count();
            for number in 0..admitted {
                concurrency.release(if number == 0 { ended } else { Ended::Ignored }, *now);
            }
        }
    }

    fn limits(settings: Settings, windows: impl IntoIterator<Item = (u32, Ended)>) -> Vec<u32> {
        let (mut concurrency, mut now) = (Concurrency::new(settings, Duration::ZERO), Duration::ZERO);
        let windows = windows.into_iter().map(|(in_flight, ended)| {
            let in_flight = in_flight.min(concurrency.limit());
            window(&mut concurrency, &mut now, in_flight, ended);
            concurrency.limit()
        });
        windows.collect()
    }

    #[test]
    fn who_is_one_too_many_is_turned_away() {
        let mut concurrency = Concurrency::new(Settings::Fixed(2), Duration::ZERO);
        assert_eq!([(); 3].map(|()| concurrency.try_admit()), [true, true, false]);
        concurrency.release(Ended::Ignored, Duration::ZERO);
        assert_eq!([(); 2].map(|()| concurrency.try_admit()), [true, false]);
        assert_eq!((concurrency.in_flight(), concurrency.limit()), (2, 2));
    }

    #[test]
    fn gradient2_grows_by_a_share_of_the_square_root_and_shrinks_with_latency() {
        // 20 + 0.2·√20, then 20.89 + 0.2·√20.89, …
        let steady = limits(GRADIENT, [(200, Ended::Answered(ms(10))); 4]);
        assert_eq!(steady, [20, 21, 22, 23]);
        let long = limits(GRADIENT, [(200, Ended::Answered(ms(10))); 400]);
        assert_eq!(long.last(), Some(&200), "the most");
        let quiet = limits(GRADIENT, [(9, Ended::Answered(ms(10))); 50]);
        assert_eq!(quiet.last(), Some(&20), "fewer than half under way say nothing");

        let mut windows = vec![(200, Ended::Answered(ms(10))); 400];
        windows.extend([(200, Ended::Answered(ms(14))); 10]);
        assert_eq!(limits(GRADIENT, windows.clone()).last(), Some(&200), "half as long again is tolerated");
        windows.extend([(200, Ended::Answered(ms(100))); 1]);
        // 0.8·200 + 0.2·(200·0.5 + √200).
        assert_eq!(limits(GRADIENT, windows.clone()).last(), Some(&182));
        windows.extend([(200, Ended::Answered(ms(100))); 29]);
        assert!(limits(GRADIENT, windows).last() < Some(&60), "and so on");
    }

    #[test]
    fn what_was_usual_under_load_is_forgotten_when_it_goes() {
        let mut average = Concurrency::new(GRADIENT, Duration::ZERO);
        let mut now = Duration::ZERO;
        (0..20).for_each(|_| window(&mut average, &mut now, 10, Ended::Answered(ms(100))));
        (0..60).for_each(|_| window(&mut average, &mut now, 10, Ended::Answered(ms(10))));
        assert!(average.long.value < 0.025, "{}", average.long.value);
    }

    #[test]
    fn aimd_adds_one_and_takes_a_tenth() {
        let aimd = Settings::Aimd(Aimd { initial: 100, ..Aimd::default() });
        let good = (200, Ended::Answered(ms(10)));
        for (windows, expected) in [
            (vec![good, good], vec![101, 102]),
            (vec![good, (200, Ended::Dropped(ms(10)))], vec![101, 90]),
            (vec![(200, Ended::Answered(ms(5_001))), good], vec![90, 91]),
            (vec![(40, Ended::Answered(ms(10)))], vec![100]),
            (vec![(10, Ended::Dropped(ms(10)))], vec![90]),
        ] {
            assert_eq!(limits(aimd, windows.clone()), expected, "{windows:?}");
        }
        assert_eq!(limits(aimd, [(200, Ended::Dropped(ms(10))); 50]).last(), Some(&20), "the least");
    }

    #[test]
    fn a_window_needs_a_second_and_ten_requests() {
        let mut concurrency = Concurrency::new(Settings::Aimd(Aimd::default()), Duration::ZERO);
        let mut release = |times: u32, now: Duration| {
            (0..times).for_each(|_| {
                assert!((0..10).all(|_| concurrency.try_admit()));
                (0..10).for_each(|number| {
                    concurrency.release(if number == 9 { Ended::Answered(ms(1)) } else { Ended::Ignored }, now);
                });
            });
            concurrency.limit()
        };
        assert_eq!(release(50, ms(999)), 20);
        assert_eq!(release(1, ms(1_000)), 21);
        assert_eq!(release(9, ms(5_000)), 21);
        assert_eq!(release(1, ms(5_000)), 21, "ten of twenty-one is not half");
    }

    #[test]
    fn new_settings_keep_what_is_under_way() {
        let mut concurrency = Concurrency::new(Settings::Fixed(2), Duration::ZERO);
        assert!(concurrency.try_admit());
        concurrency.configure(Settings::Fixed(1), Duration::ZERO);
        assert!(!concurrency.try_admit());
    }

    proptest! {
        #[test]
        fn the_limit_stays_in_its_bounds_and_what_is_under_way_within_it(
            acts in vec((0..3_u8, any::<u32>(), 0..400_u64), 0..400), aimd: bool, least in 0..5_u32, most in 5..60_u32,
        ) {
            let settings = if aimd {
                Settings::Aimd(Aimd { least, most, ..Aimd::default() })
            } else {
                Settings::Gradient2(Gradient2 { least, most, ..Gradient2::default() })
            };
            let mut concurrency = Concurrency::new(settings, Duration::ZERO);
            let (mut now, mut under_way) = (Duration::ZERO, 0);
            for (act, time, pause) in acts {
                now += ms(pause);
                let time = Duration::from_micros(time.into());
                if act == 0 && under_way > 0 {
                    concurrency.release(if time.as_micros().is_multiple_of(5) { Ended::Dropped(time) } else { Ended::Answered(time) }, now);
                    under_way -= 1;
                } else {
                    let admitted = concurrency.try_admit();
                    prop_assert_eq!(admitted, under_way < concurrency.limit());
                    under_way += u32::from(admitted);
                }
                prop_assert_eq!(concurrency.in_flight(), under_way);
                prop_assert!((least.max(1)..=most).contains(&concurrency.limit()));
            }
        }
    }
}
