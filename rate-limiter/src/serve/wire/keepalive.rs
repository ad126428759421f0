//! Whether the other end is still there, and still needed.
//!
//! A connection on which nothing happened for a while is pinged; without an answer it is given up. One that
//! stays unused for long is closed in an orderly way, so that forgotten clients do not hold places for ever. Nothing
//! here is done per call but setting a flag.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep};

/// How long nothing may happen before a ping is sent.
const QUIET: Duration = Duration::from_secs(30);

/// How long its answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// After how many answered pings in a row an unused connection is closed: an hour.
const UNUSED: u32 = 120;

/// What is to be done about the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The other end does not answer.
    Dead,
    /// Nobody used it for long.
    Unused,
}

/// Watches one connection.
pub(super) struct Keepalive {
    pings: Option<PingPong>,
    timer: Pin<Box<Sleep>>,
    asked: bool,
    active: bool,
    unused: u32,
}

impl Keepalive {
    /// Pings with `pings`.
    pub(super) fn new(pings: Option<PingPong>) -> Self {
        Self { pings, timer: Box::pin(tokio::time::sleep(QUIET)), asked: false, active: false, unused: 0 }
    }

    /// Something happened.
    pub(super) fn seen(&mut self) {
        self.active = true;
    }

    /// To be polled before the connection is, which sends the pings.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Verdict> {
        let Some(pings) = &mut self.pings else { return Poll::Pending };
        if self.asked && matches!(pings.poll_pong(context), Poll::Ready(Ok(_))) {
            self.asked = false;
            self.unused += 1;
            self.timer.as_mut().reset(Instant::now() + QUIET);
        }
        while self.timer.as_mut().poll(context).is_ready() {
            if std::mem::take(&mut self.active) {
                // Whoever calls is there, even if the answer to a ping is late.
                self.asked = false;
                self.unused = 0;
            } else if self.asked {
                return Poll::Ready(Verdict::Dead);
            } else if self.unused >= UNUSED {
                self.unused = 0;
                return Poll::Ready(Verdict::Unused);
            } else if pings.send_ping(Ping::opaque()).is_ok() {
                self.asked = true;
                self.timer.as_mut().reset(Instant::now() + PATIENCE);
                // Registers for the answer.
                if pings.poll_pong(context).is_pending() {
                    continue;
                }
            }
            self.timer.as_mut().reset(Instant::now() + QUIET);
        }
        Poll::Pending
    }
}
