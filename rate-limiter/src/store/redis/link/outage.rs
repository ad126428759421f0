//! What is logged of a Redis that is connected but does not serve: one line when it begins, one when it is over.
//!
//! A Redis that is about as slow as its deadline opens the breaker again and again. That is one outage: it is over
//! when Redis has served for a second.

use std::time::Duration;

use tokio::time::Instant;

/// After serving for so long, the next trouble is another outage.
const HEALED: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Outage {
    told: bool,
    /// Since when Redis serves.
    serves: Option<Instant>,
}

impl Outage {
    /// The breaker opens. Says whether to tell of it.
    pub(super) fn begins(&mut self, now: Instant) -> bool {
        if self.serves.take().is_some_and(|since| now >= since + HEALED) {
            self.told = false;
        }
        !std::mem::replace(&mut self.told, true)
    }

    /// The breaker closes.
    pub(super) fn ends(&mut self, now: Instant) {
        self.serves = Some(now);
    }

    /// Redis answers in time. Says whether to tell that an outage is over.
    pub(super) fn heals(&mut self, now: Instant) -> bool {
        let healed = self.told && self.serves.is_some_and(|since| now >= since + HEALED);
        self.told &= !healed;
        healed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_within_a_second_is_the_same_outage() {
        let (mut outage, now) = (Outage::default(), Instant::now());
        outage.ends(now);
        assert!(!outage.heals(now + HEALED), "there was none");
        assert!(outage.begins(now));
        outage.ends(now);
        assert!(!outage.heals(now + HEALED / 2));
        assert!(!outage.begins(now + HEALED / 2));
        assert!(!outage.heals(now + 2 * HEALED), "it goes on");
        outage.ends(now);
        assert!(outage.heals(now + HEALED) && !outage.heals(now + HEALED));
        assert!(outage.begins(now + 2 * HEALED));
        // Nobody asked for a while, and so nothing was told.
        outage.ends(now + 2 * HEALED);
        assert!(outage.begins(now + 4 * HEALED));
    }
}
