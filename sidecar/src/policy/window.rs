//! What happened in the last stretch of time, in slots that are forgotten one after another.
//!
//! Slots lie on a grid from time zero. So a slot is forgotten whole, and what is remembered is between one slot less than the
//! length and the length. Exact counts, and not an average that decays: a burst weighs the same however close together it came.

use std::time::Duration;

/// A number of slots that together span a length of time.
#[derive(Clone, Debug)]
pub struct Window<T> {
    slots: Box<[T]>,
    width: u128,
    /// The newest slot, counted from time zero.
    newest: u128,
}

impl<T: Copy + Default> Window<T> {
    /// An empty window of `length` in `slots`; of one slot at least, each a nanosecond wide at least.
    pub fn new(length: Duration, slots: usize) -> Self {
        let slots = slots.max(1);
        Self { slots: vec![T::default(); slots].into(), width: (length.as_nanos() / slots as u128).max(1), newest: 0 }
    }

    /// The slot of `now`, after what is too old was forgotten.
    pub fn slot(&mut self, now: Duration) -> &mut T {
        self.forget(now);
        let index = self.index(self.newest);
        &mut self.slots[index]
    }

    /// All slots that are remembered at `now`, in no order.
    pub fn slots(&mut self, now: Duration) -> &[T] {
        self.forget(now);
        &self.slots
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.slots.fill(T::default());
    }

    fn forget(&mut self, now: Duration) {
        let newest = (now.as_nanos() / self.width).max(self.newest);
        let passed = newest - self.newest;
        if passed >= self.slots.len() as u128 {
            self.clear();
        } else {
            for number in self.newest + 1..=newest {
                let index = self.index(number);
                self.slots[index] = T::default();
            }
        }
        self.newest = newest;
    }

    fn index(&self, number: u128) -> usize {
        (number % self.slots.len() as u128) as usize
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn the_last_slots_are_remembered_and_no_others(steps in vec((0..3_000_u64, 0..9_u32), 1..80)) {
            let mut window = Window::<u32>::new(Duration::from_secs(1), 10);
            let mut all = HashMap::<u64, u32>::new();
            let mut now = 0;
            for (pause, count) in steps {
                now += pause;
                *window.slot(Duration::from_millis(now)) += count;
                *all.entry(now / 100).or_default() += count;
                let expected: u32 = all.iter().filter(|(slot, _)| **slot + 10 > now / 100).map(|(_, count)| count).sum();
                prop_assert_eq!(window.slots(Duration::from_millis(now)).iter().sum::<u32>(), expected);
            }
        }
    }

    #[test]
    fn no_length_and_no_time_breaks_it() {
        for (length, slots) in [(Duration::ZERO, 0), (Duration::MAX, 1), (Duration::from_nanos(3), 10)] {
            let mut window = Window::<u32>::new(length, slots);
            *window.slot(Duration::MAX) += 1;
            *window.slot(Duration::ZERO) += 1;
            assert_eq!(window.slots(Duration::MAX).iter().sum::<u32>(), 2, "time that goes back stands still");
        }
    }
}
