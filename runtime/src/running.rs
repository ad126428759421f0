//! A program that serves.

use std::time::Duration;

use crate::{Shutdown, drain::DrainError};

/// A program that serves at addresses `A`.
pub struct Running<A> {
    addresses: A,
    shutdown: Shutdown,
    deadline: Duration,
}

impl<A: Copy> Running<A> {
    /// It serves at `addresses`, and gets `deadline` to end once `shutdown` has begun.
    pub fn new(addresses: A, shutdown: Shutdown, deadline: Duration) -> Self {
        Self { addresses, shutdown, deadline }
    }

    /// Where it serves.
    pub fn addresses(&self) -> A {
        self.addresses
    }

    /// Waits until a stop is asked for, and then until everything has ended.
    ///
    /// # Errors
    /// It did not end well.
    pub async fn finished(self) -> Result<(), DrainError> {
        self.shutdown.run_until_drained(self.deadline).await
    }

    /// Stops it.
    ///
    /// # Errors
    /// It did not end well.
    pub async fn stop(self) -> Result<(), DrainError> {
        self.shutdown.drained(self.deadline).await
    }
}
