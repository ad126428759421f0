//! Waiting for a condition instead of sleeping.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep, timeout_at};

/// Long enough for anything here on a busy machine with two cores; a test that reaches it has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

const PAUSE: Duration = Duration::from_millis(5);

/// Asks `probe` again and again until it answers `Ok`, for at most `within`.
///
/// An `Err` of the probe means "not yet"; the last one is the cause of the error when time is up. A probe that
/// hangs is cut off at the deadline as well.
pub async fn until<T>(what: &str, within: Duration, mut probe: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + within;
    let mut last = None;
    loop {
        match timeout_at(deadline, probe()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(not_yet)) => last = Some(not_yet),
            Err(_) => break,
        }
        if Instant::now() + PAUSE > deadline {
            break;
        }
        sleep(PAUSE).await;
    }
    match last {
        Some(reason) => Err(reason.context(format!("{what}: not within {within:?}"))),
        None => bail!("{what}: no answer within {within:?}"),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::ensure;

    use super::*;

    #[tokio::test]
    async fn answers_as_soon_as_the_condition_holds() {
        let mut asked = 0;
        let answer = until("three", PATIENCE, async || {
            asked += 1;
            ensure!(asked == 3, "asked {asked} times");
            Ok(asked)
        });
        assert_eq!(answer.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn says_what_it_last_saw_when_time_is_up() {
        let never = until("the impossible", 3 * PAUSE, async || -> Result<()> { bail!("still 7") });
        let error = format!("{:#}", never.await.unwrap_err());
        assert_eq!(error, "the impossible: not within 15ms: still 7");
    }
}
