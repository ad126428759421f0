//! Tasks that run as long as their owner, whatever happens in them.
//!
//! A task whose handle nobody awaits would end by a panic without a word, and a worker would be without Redis for good.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt as _;
use tokio::time::sleep;

/// How long after a panic a task is started again: one that always panics must not take a core.
const AGAIN: Duration = Duration::from_secs(1);

/// Runs what `start` makes to its end; after a panic, says so and starts it again. What the task owns is dropped before, so its
/// `Drop` must leave nobody waiting.
pub(crate) async fn tended<T: Future<Output = ()>>(task: &'static str, start: impl Fn() -> T) {
    while AssertUnwindSafe(start()).catch_unwind().await.is_err() {
        tracing::error!(task, "a task panicked, and is started again");
        sleep(AGAIN).await;
    }
}
