//! How fast streams are taken on: of all clients together, and of each.
//!
//! After a restart a whole fleet comes at once, and each stream costs a first response with everything in it. A client
//! that opens one after the other is put off before it takes anything from the rest.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicUsize, Ordering},
};

use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::model::Name;

/// Streams of one client in a second. Envoy comes back twice in that time at most.
const EACH: NonZeroU32 = NonZeroU32::new(5).unwrap();

/// Streams that one client may open at once: one per type where it uses services of their own, a few times over.
const EACH_AT_ONCE: NonZeroU32 = NonZeroU32::new(40).unwrap();

/// From so many clients on, those that have not come lately are forgotten.
const REMEMBERED: usize = 1024;

/// Fleet and id of a client; a rate limiter has no fleet.
pub(super) type Client = (Option<Name>, Name);

/// Who may open a stream now.
pub(super) struct Pace {
    all: DefaultDirectRateLimiter,
    each: DefaultKeyedRateLimiter<Client>,
    /// How many clients are remembered when it is looked next which of them can be forgotten.
    forget_at: AtomicUsize,
}

/// Why not now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TooSoon {
    /// There are too many streams of all clients.
    All,
    /// There are too many of this one.
    Client,
}

impl Pace {
    /// At most `per_second` streams of all clients.
    pub(super) fn new(per_second: NonZeroU32) -> Self {
        let each = Quota::per_second(EACH).allow_burst(EACH_AT_ONCE);
        Self {
            all: RateLimiter::direct(Quota::per_second(per_second)),
            each: RateLimiter::keyed(each),
            forget_at: AtomicUsize::new(REMEMBERED),
        }
    }

    /// Takes a place for a stream of `client`. Who is put off takes none.
    pub(super) fn take_place(&self, client: &Client) -> Result<(), TooSoon> {
        if self.each.len() >= self.forget_at.load(Ordering::Relaxed) {
            self.each.retain_recent();
            // Not with every client that comes: a whole fleet may be recent.
            self.forget_at.store((2 * self.each.len()).max(REMEMBERED), Ordering::Relaxed);
        }
        self.each.check_key(client).map_err(|_| TooSoon::Client)?;
        self.all.check().map_err(|_| TooSoon::All)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn client(id: usize) -> Client {
        (Some("edge".parse().unwrap()), format!("proxy-{id}").parse().unwrap())
    }

    #[test]
    fn who_opens_one_after_the_other_takes_nothing_from_the_rest() {
        let pace = Pace::new(NonZeroU32::new(1000).unwrap());
        let (greedy, taken) = (client(0), EACH_AT_ONCE.get() as usize);
        assert!((0..taken).all(|_| pace.take_place(&greedy).is_ok()), "it may use a service per type");
        let refused = (0..100_000).filter(|_| pace.take_place(&greedy) == Err(TooSoon::Client)).count();
        assert!(refused > 90_000, "{refused}");
        assert!((1..500).all(|id| pace.take_place(&client(id)).is_ok()));
    }

    #[tokio::test]
    async fn clients_that_are_gone_are_forgotten() {
        let pace = Pace::new(NonZeroU32::MAX);
        for id in 0..10 {
            pace.take_place(&client(id)).unwrap();
        }
        assert_eq!(pace.each.len(), 10);
        // When the places that they took are made up for, and it is looked again.
        let forgotten = async {
            while pace.each.len() > 1 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                pace.forget_at.store(0, Ordering::Relaxed);
                let _ = pace.take_place(&client(0));
            }
        };
        tokio::time::timeout(Duration::from_secs(20), forgotten).await.unwrap();
        assert_eq!(pace.forget_at.load(Ordering::Relaxed), REMEMBERED);
    }
}
