//! Bytes that are not HTTP: from the beginning, or after a request that changed the protocol of its connection. They are passed on
//! both ways until both sides are done, or nothing has come for long.

use std::{io, time::Duration};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use metrics::Counter;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf, split},
    sync::watch,
    time::Instant,
};

use crate::config::tcp::IDLE;

const BUFFER: usize = 16 * 1024;

/// How a tunnel ended that did not break off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Both sides were done.
    Done,
    /// Both sides were silent for too long.
    Idle,
}

/// Where the bytes are counted that were passed on, as they are.
pub struct Counters {
    /// Those that came from the caller.
    pub sent: Counter,
    /// Those that came from the other side.
    pub received: Counter,
}

impl Default for Counters {
    /// Nowhere.
    fn default() -> Self {
        Self { sent: Counter::noop(), received: Counter::noop() }
    }
}

/// Joins two connections that are about to change their protocol.
pub async fn join_upgraded(caller: OnUpgrade, endpoint: OnUpgrade, place: impl Send) {
    let joined = async {
        let (caller, endpoint) = tokio::try_join!(caller, endpoint).map_err(io::Error::other)?;
        join(TokioIo::new(caller), TokioIo::new(endpoint), Some(IDLE), &Counters::default()).await
    };
    match joined.await {
        Ok(ended) => tracing::trace!(?ended, "a tunnel ended"),
        Err(error) => tracing::debug!(%error, "a tunnel broke off"),
    }
    drop(place);
}

/// Passes bytes on both ways, until both sides are done or have been silent for `idle` (`None`: for however long). A side that is done
/// with sending still receives.
///
/// # Errors
/// One side broke off.
pub async fn join<A, B>(caller: A, endpoint: B, idle: Option<Duration>, counters: &Counters) -> io::Result<Ended>
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (from_caller, to_caller) = split(caller);
    let (from_endpoint, to_endpoint) = split(endpoint);
    let (seen, last) = watch::channel(Instant::now());
    let sent = pass(from_caller, to_endpoint, &seen, &counters.sent);
    let received = pass(from_endpoint, to_caller, &seen, &counters.received);
    tokio::select! {
        both = async { tokio::try_join!(sent, received) } => both.map(|_| Ended::Done),
        () = silent(last, idle) => Ok(Ended::Idle),
    }
}

async fn pass<R: AsyncRead, W: AsyncWrite>(
    mut from: ReadHalf<R>,
    mut to: WriteHalf<W>,
    seen: &watch::Sender<Instant>,
    passed: &Counter,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            // The other direction may go on.
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        passed.increment(read as u64);
        seen.send_replace(Instant::now());
    }
}

async fn silent(last: watch::Receiver<Instant>, idle: Option<Duration>) {
    loop {
        // A time that the clock cannot name does not come.
        let Some(due) = idle.and_then(|idle| last.borrow().checked_add(idle)) else {
            return std::future::pending().await;
        };
        if due <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(due).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    /// A tunnel, and both ends of it.
    fn tunnel(idle: Option<Duration>) -> (tokio::task::JoinHandle<io::Result<Ended>>, DuplexStream, DuplexStream) {
        let ((caller, there), (here, endpoint)) = (duplex(64), duplex(64));
        let joined = tokio::spawn(async move { join(there, here, idle, &Counters::default()).await });
        (joined, caller, endpoint)
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_done_with_sending_still_receives() {
        let (joined, mut caller, mut endpoint) = tunnel(Some(Duration::from_secs(60)));
        let (mut heard, mut answer) = (String::new(), String::new());
        caller.write_all(b"a question").await.unwrap();
        caller.shutdown().await.unwrap();
        endpoint.read_to_string(&mut heard).await.unwrap();
        assert!(!joined.is_finished());
        endpoint.write_all(b"an answer").await.unwrap();
        drop(endpoint);
        caller.read_to_string(&mut answer).await.unwrap();
        assert_eq!((&*heard, &*answer), ("a question", "an answer"));
        assert_eq!(joined.await.unwrap().unwrap(), Ended::Done);
    }

    #[tokio::test(start_paused = true)]
    async fn it_lasts_while_one_side_says_something() {
        let (joined, mut caller, mut endpoint) = tunnel(Some(Duration::from_secs(10)));
        let began = Instant::now();
        let mut heard = [0; 1];
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(9)).await;
            endpoint.write_all(b"x").await.unwrap();
            caller.read_exact(&mut heard).await.unwrap();
        }
        assert_eq!(joined.await.unwrap().unwrap(), Ended::Idle);
        assert_eq!(began.elapsed().as_secs(), 55);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silence_without_bound_is_none() {
        for idle in [None, Some(Duration::MAX)] {
            let (joined, _caller, _endpoint) = tunnel(idle);
            tokio::time::sleep(Duration::from_secs(400 * 24 * 3600)).await;
            assert!(!joined.is_finished());
        }
    }
}
