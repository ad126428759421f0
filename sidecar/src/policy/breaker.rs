//! Closed, open, half open: whether one endpoint is asked.
//!
//! Closed, everyone passes and what they meet is counted. Open, nobody passes for a while (`min(1 s · 2ⁿ, 60 s)` and up to half
//! as much again, n the number of openings in a row). Half open, one request passes as a probe: a good answer closes the
//! breaker, any other opens it again.
//!
//! A probe that ends without an answer, because its caller went away, gives its place back and nothing is decided. A probe that has no
//! answer by its deadline is taken for a bad one. So nothing that becomes of a probe leaves the breaker half open for ever, which
//! it does in implementations where only an answer ends a probe.
//!
//! An answer to a request that passed before the breaker last opened or closed is not counted: it says what was
//! known already.
//!
//! Whether it may open is not for the breaker to say, since somebody must be left to ask: it says that it
//! [would open](Judgement::WouldOpen), and whoever knows all endpoints then [opens](Breaker::open) it, or does not.

use std::time::Duration;

use super::{
    backoff::Exponential,
    classify::Verdict,
    failure_accrual::{self, FailureAccrual},
};

/// When a breaker opens, and how it closes again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// When an endpoint has failed enough.
    pub accrual: failure_accrual::Settings,
    /// How long the breaker then stays open.
    pub backoff: Exponential,
    /// How long a probe may take; 10 s.
    pub probe: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            accrual: failure_accrual::Settings::default(),
            backoff: Exponential::default(),
            probe: Duration::from_secs(10),
        }
    }
}

/// The breaker of one endpoint.
#[derive(Clone, Debug)]
pub struct Breaker {
    settings: Settings,
    accrual: FailureAccrual,
    state: State,
    /// Changes whenever the breaker opens or closes and whenever a probe begins.
    era: u64,
    /// Openings since it was last closed.
    openings: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Duration },
    Probing { until: Duration },
}

/// That a request passed. To be given back exactly once, by [`Breaker::record`] or [`Breaker::cancel`].
#[must_use = "a probe that is not given back blocks the endpoint until its deadline"]
#[derive(Debug, PartialEq, Eq)]
pub struct Pass {
    era: u64,
    probe: bool,
}

impl Pass {
    /// Whether it is the probe.
    pub fn is_probe(&self) -> bool {
        self.probe
    }
}

/// Whether an endpoint may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// By everyone.
    Closed,
    /// By one, as a probe.
    Probe,
    /// By nobody.
    Open,
}

/// In which of its states a breaker is, to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Everyone passes.
    Closed,
    /// Nobody passes, for so long.
    Open(Duration),
    /// One is due as a probe, or under way.
    HalfOpen,
}

/// What an answer led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Nothing.
    Unchanged,
    /// The endpoint has failed enough.
    WouldOpen,
    /// The probe was good.
    Closed,
    /// The probe was bad.
    OpenedAgain,
}

impl Breaker {
    /// A closed one.
    pub fn new(settings: Settings) -> Self {
        Self { settings, accrual: FailureAccrual::new(settings.accrual), state: State::Closed, era: 0, openings: 0 }
    }

    /// Takes new settings. What was counted is forgotten if it is now counted in another way; open stays open.
    pub fn configure(&mut self, settings: Settings) {
        if settings.accrual != self.settings.accrual {
            self.accrual = FailureAccrual::new(settings.accrual);
        }
        self.settings = settings;
    }

    /// Whether somebody may ask, without asking.
    pub fn readiness(&self, now: Duration) -> Readiness {
        match self.after_lost_probe(now) {
            State::Closed => Readiness::Closed,
            State::Open { until } if until <= now => Readiness::Probe,
            State::Open { .. } | State::Probing { .. } => Readiness::Open,
        }
    }

    /// The state, as it is told.
    pub fn phase(&self, now: Duration) -> Phase {
        match self.after_lost_probe(now) {
            State::Closed => Phase::Closed,
            State::Open { until } if until > now => Phase::Open(until - now),
            State::Open { .. } | State::Probing { .. } => Phase::HalfOpen,
        }
    }

    /// Whether a probe has had no answer in time, which the next to be admitted takes note of.
    pub fn has_lost_probe(&self, now: Duration) -> bool {
        self.after_lost_probe(now) != self.state
    }

    /// Whether it is closed. An open one whose time is over is not.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// When an open one may be probed, or a probe is given up; none when closed.
    pub fn until(&self) -> Option<Duration> {
        match self.state {
            State::Closed => None,
            State::Open { until } | State::Probing { until } => Some(until),
        }
    }

    /// Lets a request pass, or none.
    pub fn admit(&mut self, now: Duration) -> Option<Pass> {
        let after = self.after_lost_probe(now);
        if after != self.state {
            self.openings = self.openings.saturating_add(1);
            self.change(after);
        }
        match self.readiness(now) {
            Readiness::Closed => Some(Pass { era: self.era, probe: false }),
            Readiness::Probe => {
                self.change(State::Probing { until: now.saturating_add(self.settings.probe) });
                Some(Pass { era: self.era, probe: true })
            }
            Readiness::Open => None,
        }
    }

    /// Counts what a request that passed has met.
    pub fn record(&mut self, pass: Pass, verdict: Verdict, now: Duration, chance: f64) -> Judgement {
        if verdict == Verdict::Ignored {
            self.cancel(pass, now);
            return Judgement::Unchanged;
        }
        if pass.era != self.era {
            return Judgement::Unchanged;
        }
        match self.state {
            State::Closed if self.accrual.record(verdict, now) => Judgement::WouldOpen,
            State::Closed | State::Open { .. } => Judgement::Unchanged,
            State::Probing { .. } if verdict == Verdict::Success => {
                self.close();
                Judgement::Closed
            }
            State::Probing { .. } => {
                self.open(now, chance, None);
                Judgement::OpenedAgain
            }
        }
    }

    /// Takes back that a request passed: it has met nothing.
    #[expect(clippy::needless_pass_by_value, reason = "it is given back, once")]
    pub fn cancel(&mut self, pass: Pass, now: Duration) {
        if pass.probe && pass.era == self.era {
            // The next one may probe at once.
            self.change(State::Open { until: now });
        }
    }

    /// Opens it, for the time that is due and at least for as long as the endpoint asked for.
    pub fn open(&mut self, now: Duration, chance: f64, asked: Option<Duration>) {
        let wait = self.settings.backoff.wait(self.openings, chance).max(asked.unwrap_or_default());
        self.openings = self.openings.saturating_add(1);
        self.change(State::Open { until: now.saturating_add(wait) });
    }

    /// Closes it, as after a good probe.
    pub fn close(&mut self) {
        self.openings = 0;
        self.change(State::Closed);
    }

    /// The state, if at `now` a probe that has no answer is given up.
    fn after_lost_probe(&self, now: Duration) -> State {
        match self.state {
            State::Probing { until } if until <= now => {
                State::Open { until: until.saturating_add(self.settings.backoff.wait(self.openings, 0.0)) }
            }
            state => state,
        }
    }

    fn change(&mut self, state: State) {
        self.accrual.clear();
        self.era += 1;
        self.state = state;
    }
}

#[cfg(test)]
mod tests;
