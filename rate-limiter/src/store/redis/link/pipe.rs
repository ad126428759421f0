//! How many calls may be under way at once. Pure.
//!
//! One at a time would make the largest batches, but a charge that just misses a call would wait for two, and while an
//! answer travels neither side would have anything to do. Without a bound every charge would be a call of its own, which
//! costs Redis many times as much. So a few calls may be under way at any time ([`NEAR`]): enough for a Redis in the same
//! network. Where answers take longer, a charge must not wait for a call to come back; so one more call goes whenever the
//! last one left a sixteenth of the deadline ago.

use std::time::Duration;

use tokio::time::Instant;

/// Calls to a server that may be under way without a wait.
const NEAR: usize = 3;

/// Calls to a server that may be under way at all.
const FAR: usize = 64;

/// Calls to a cluster that may be under way: they are to many servers.
const CLUSTER: usize = 1_024;

/// Into so many parts the deadline is cut.
const PARTS: u32 = 16;

/// What is under way on a connection.
#[derive(Debug)]
pub(super) struct Pipe {
    near: usize,
    far: usize,
    spacing: Duration,
    under_way: usize,
    /// When the last call went.
    sent: Option<Instant>,
    /// When something last came back, or the first call went of those under way.
    moved: Instant,
}

impl Pipe {
    /// Nothing is under way yet; calls may take `timeout`.
    pub(super) fn new(cluster: bool, timeout: Duration, now: Instant) -> Self {
        let (near, far) = if cluster { (CLUSTER, CLUSTER) } else { (NEAR, FAR) };
        Self { near, far, spacing: timeout / PARTS, under_way: 0, sent: None, moved: now }
    }

    /// When the next call may go, if none comes back before; `None`: not before one does.
    pub(super) fn opens(&self, now: Instant) -> Option<Instant> {
        if self.under_way < self.near {
            return Some(now);
        }
        (self.under_way < self.far).then(|| self.sent.map_or(now, |sent| sent + self.spacing))
    }

    /// A call goes.
    pub(super) fn send(&mut self, now: Instant) {
        if self.under_way == 0 {
            self.moved = now;
        }
        self.under_way += 1;
        self.sent = Some(now);
    }

    /// A call came back, with an answer or without.
    pub(super) fn land(&mut self, now: Instant) {
        self.under_way = self.under_way.saturating_sub(1);
        self.moved = now;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.under_way == 0
    }

    /// Since when nothing has come back, though something is under way.
    pub(super) fn stuck_since(&self) -> Option<Instant> {
        (self.under_way > 0).then_some(self.moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(16);
    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_few_go_at_once_and_then_one_every_sixteenth_of_the_deadline() {
        let now = Instant::now();
        let mut pipe = Pipe::new(false, TIMEOUT, now);
        for _ in 0..NEAR {
            assert_eq!(pipe.opens(now), Some(now));
            pipe.send(now);
        }
        assert_eq!(pipe.opens(now), Some(now + MS));
        pipe.send(now + MS);
        assert_eq!(pipe.opens(now + MS), Some(now + 2 * MS));
        pipe.land(now + MS);
        assert_eq!(pipe.opens(now + MS), Some(now + 2 * MS), "still as many as may go without a wait");
        pipe.land(now + MS);
        assert_eq!(pipe.opens(now + MS), Some(now + MS));
    }

    #[test]
    fn there_is_an_end_to_it() {
        let now = Instant::now();
        for (cluster, most) in [(false, FAR), (true, CLUSTER)] {
            let mut pipe = Pipe::new(cluster, TIMEOUT, now);
            (0..most).for_each(|_| pipe.send(now));
            assert_eq!(pipe.opens(now + TIMEOUT), None);
            pipe.land(now);
            assert!(pipe.opens(now + TIMEOUT).is_some());
        }
    }

    #[test]
    fn it_is_stuck_since_something_last_came_back() {
        let now = Instant::now();
        let mut pipe = Pipe::new(false, TIMEOUT, now);
        assert_eq!(pipe.stuck_since(), None);
        pipe.send(now + MS);
        pipe.send(now + 2 * MS);
        assert_eq!(pipe.stuck_since(), Some(now + MS));
        pipe.land(now + 3 * MS);
        assert_eq!(pipe.stuck_since(), Some(now + 3 * MS));
        pipe.land(now + 4 * MS);
        assert!(pipe.is_empty() && pipe.stuck_since().is_none());
    }
}
