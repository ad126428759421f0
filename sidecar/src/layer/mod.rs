//! What makes requests obey the policies: one thin tower layer for each, over [`http`] requests and responses.
//!
//! Common to all:
//! - What a layer takes it gives back when the future or the body that holds it is dropped, whatever the reason. So a caller
//!   that goes away leaves nothing behind: no place in a queue, no probe, no request under way.
//! - They are ready at any time: what has to be waited for, the request waits for.
//! - They fail with [`Failed`], which says what it means for the endpoint and for the client.
//! - State is shared by whoever has the same `Arc`, so that it outlives a configuration; locks are held for a decision, never across
//!   an await.
//!
//! From the outside in: [`deadline`], [`concurrency`], [`retry`] (with [`replay`] of the body and [`peek`] at the response),
//! [`hedge`], [`queue`]; and [`breaker`] around each endpoint that is asked.

use std::{
    future::Future,
    pin::Pin,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

mod asked;
pub mod breaker;
pub mod concurrency;
pub mod deadline;
mod failed;
pub mod grpc;
pub mod hedge;
pub mod held;
pub mod peek;
pub mod queue;
pub mod replay;
pub mod retry;

pub use asked::Asked;
pub use failed::{Failed, Overload};

/// What a service of ours returns.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The time that policies are told. All that share state share a clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// One that begins now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since it began.
    pub fn now(self) -> Duration {
        self.0.elapsed()
    }

    /// The moment of that time.
    pub fn at(self, time: Duration) -> Instant {
        self.0 + time
    }
}

/// That moment; never, if there is none.
pub(crate) async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Time since 1970, for what servers say in dates.
fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A random number from 0 (included) to 1 (excluded).
fn chance() -> f64 {
    rand::random()
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
