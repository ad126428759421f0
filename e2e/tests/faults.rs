//! Clients that misbehave cost nobody else anything: every proxy that behaves is given every edit, and when they are gone
//! nothing is left of them.
//!
//! Whether others are *delayed* is measured by the benchmark `xds-faults`, which lets the same clients loose.

use std::time::Duration;

use anyhow::{Result, ensure};
use chancery_e2e::{
    faults::{Fault, stage::Stage},
    wait::{PATIENCE, until},
};

/// Proxies that behave.
const PROXIES: usize = 20;

/// Services, and as many routes.
const SERVICES: usize = 50;

/// What may be left in memory when all is over, in bytes: allocators keep some of what was freed.
const LEFT: u64 = 20 << 20;

/// What the server may hold meanwhile beyond what it holds anyway, in bytes.
const MEANWHILE: u64 = 60 << 20;

/// At least so many edits are made.
const EDITS: u64 = 20;

/// The server asks after a silence of 30 s whether a client is there, and gives it 10 s.
const KEEPALIVE: Duration = Duration::from_secs(90);

/// With nothing sent for so long, there is nothing to be sent.
const SILENCE: Duration = Duration::from_millis(500);

/// How long clients may take to misbehave often enough, on a busy machine and a server without optimisations.
const LONG: Duration = Duration::from_secs(300);

/// Lets clients misbehave for so many rounds, and makes edits all the while. The server may take `noticed` to see that
/// they are gone.
async fn is_nobody_elses_business(fault: Fault, rounds: u64, noticed: Duration) -> Result<()> {
    let mut stage = Stage::set(PROXIES, SERVICES, fault).await?;
    // What the first clients make the server take, it may keep.
    let first = stage.misbehave(None);
    first.reach(rounds.div_ceil(20), LONG).await?;
    stage.edit().await?;
    drop(first);
    stage.left_alone(noticed).await?;
    stage.settled().await?;
    let before = stage.memory()?;

    let clients = stage.misbehave(None);
    let (mut edits, mut most) = (0, before);
    while clients.rounds() < rounds || edits < EDITS {
        stage.edit().await?;
        clients.check()?;
        edits += 1;
        most = most.max(stage.memory()?);
    }
    if fault == Fault::Stampede {
        ensure!(stage.newcomers().await? == 0, "others were put off because of one");
    }
    drop(clients);
    stage.left_alone(noticed).await?;
    stage.settled().await?;
    let after = until("memory is given back", PATIENCE, async || {
        let after = stage.memory()?;
        ensure!(after <= before + LEFT, "before {before}, at most {most}, after {after} bytes");
        Ok(after)
    })
    .await?;
    let [before, most, after] = [before, most, after].map(|bytes| bytes >> 10);
    eprintln!("{fault}: {edits} edits; memory before {before}, at most {most}, after {after} KB");
    ensure!(most <= before + (MEANWHILE >> 10), "meanwhile {most} KB");

    // And it serves as ever.
    stage.newcomers().await?;
    stage.proxies_leave();
    stage.left_alone(PATIENCE).await
}

/// A test for each fault.
macro_rules! are_nobody_elses_business {
    ($($name:ident: $fault:ident, $rounds:expr, $noticed:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() -> Result<()> {
            is_nobody_elses_business(Fault::$fault, $rounds, $noticed).await
        }
    )*};
}

are_nobody_elses_business! {
    slow_readers: SlowReader, 20, PATIENCE;
    ten_thousand_reconnects: Reconnects, 10_000, PATIENCE;
    a_stampede_of_streams: Stampede, 3_000, PATIENCE;
    refused_clients: Refused, 5_000, PATIENCE;
    proxies_that_reject_everything: Nacks, 300, PATIENCE;
    proxies_that_reject_everything_and_ask_again: NackLoop, 3_000, PATIENCE;
    liars: Liar, 100, PATIENCE;
}

/// They hold their sockets open and do not read: the server has to find out by itself, and has its keepalive for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_that_are_not_read_for_a_minute() -> Result<()> {
    let mut stage = Stage::set(PROXIES, SERVICES, Fault::Deaf).await?;
    let before = stage.memory()?;
    let clients = stage.misbehave(None);
    let deaf = Fault::Deaf.clients();
    clients.reach(deaf as u64, PATIENCE).await?;
    for _ in 0..EDITS {
        stage.edit().await?;
    }
    let meanwhile = stage.memory()?;
    ensure!(meanwhile <= before + MEANWHILE, "before {before}, meanwhile {meanwhile} bytes");
    stage.left_alone(KEEPALIVE).await?;
    clients.check()?;
    stage.edit().await?;
    stage.settled().await?;
    until("memory is given back", PATIENCE, async || {
        let after = stage.memory()?;
        ensure!(after <= before + LEFT, "before {before}, meanwhile {meanwhile}, after {after} bytes");
        Ok(())
    })
    .await
}

/// Nobody makes a proxy that rejected something reject it again: who is silent about it is left in peace.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_rejected_is_not_sent_again_by_itself() -> Result<()> {
    let mut stage = Stage::set(PROXIES, SERVICES, Fault::Nacks).await?;
    let clients = stage.misbehave(None);
    for _ in 0..EDITS {
        stage.edit().await?;
    }
    stage.settled().await?;
    let mut last = 0;
    until("no more is sent", PATIENCE, async || {
        tokio::time::sleep(SILENCE).await;
        let before = std::mem::replace(&mut last, clients.rounds());
        ensure!(before == last, "{before} responses were rejected, and then {last}");
        Ok(())
    })
    .await?;
    // Each was sent each edit, and at first each type; and whatever was taken back and came again.
    let most = 3 * Fault::Nacks.clients() as u64 * (EDITS + 5);
    ensure!(last <= most, "{last} responses for {EDITS} edits");
    clients.check()
}
