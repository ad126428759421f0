//! Bytes that are not HTTP: from the beginning, or after a request that changed the protocol of its connection. They are passed on
//! both ways until both sides are done, or nothing has come for long.

use std::{io, time::Duration};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf, split},
    sync::watch,
    time::Instant,
};

/// So long may both sides be silent (Envoy's `idle_timeout` of TCP).
pub const IDLE: Duration = Duration::from_secs(3600);

const BUFFER: usize = 16 * 1024;

/// Joins two connections that are about to change their protocol.
pub async fn join_upgraded(caller: OnUpgrade, endpoint: OnUpgrade, place: impl Send) {
    let joined = async {
        let (caller, endpoint) = tokio::try_join!(caller, endpoint).map_err(io::Error::other)?;
        join(TokioIo::new(caller), TokioIo::new(endpoint), IDLE).await
    };
    if let Err(error) = joined.await {
        tracing::debug!(%error, "a tunnel broke off");
    }
    drop(place);
}

/// Passes bytes on both ways.
///
/// # Errors
/// One side broke off, or both were silent for `idle`.
pub async fn join<A, B>(a: A, b: B, idle: Duration) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (from_a, to_a) = split(a);
    let (from_b, to_b) = split(b);
    let (seen, last) = watch::channel(Instant::now());
    tokio::select! {
        both = async { tokio::try_join!(pass(from_a, to_b, &seen), pass(from_b, to_a, &seen)) } => both.map(|_| ()),
        () = silent(last, idle) => Err(io::Error::new(io::ErrorKind::TimedOut, "nothing came for long")),
    }
}

async fn pass<R: AsyncRead, W: AsyncWrite>(
    mut from: ReadHalf<R>,
    mut to: WriteHalf<W>,
    seen: &watch::Sender<Instant>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            // The other direction may go on.
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        seen.send_replace(Instant::now());
    }
}

async fn silent(last: watch::Receiver<Instant>, idle: Duration) {
    loop {
        let due = *last.borrow() + idle;
        if due <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(due).await;
    }
}
