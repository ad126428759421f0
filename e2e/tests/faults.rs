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

/// How long clients may take to misbehave often enough, on a busy machine and a server without optimisations.
const LONG: Duration = Duration::from_secs(300);

/// What a fault is made of.
struct Case {
    fault: Fault,
    /// How many identities they act under.
    identities: usize,
    /// How many act at the same time.
    clients: usize,
    rounds: u64,
    /// How long after they are gone the server may take to notice.
    noticed: Duration,
}

/// Lets clients misbehave until it is enough, and makes edits all the while.
async fn is_nobody_elses_business(case: Case) -> Result<()> {
    let mut stage = Stage::set(PROXIES, SERVICES, case.identities).await?;
    let Case { fault, clients, rounds, noticed, .. } = case;
    // What the first clients make the server take, it may keep.
    let warm = stage.misbehave(fault, clients);
    warm.reach(rounds.div_ceil(20), LONG).await?;
    stage.edit().await?;
    drop(warm);
    stage.left_alone(noticed).await?;
    stage.settled().await?;
    let before = stage.memory()?;

    let clients = stage.misbehave(fault, clients);
    let mut edits = 0;
    let mut most = before;
    while clients.rounds() < rounds || edits < 20 {
        stage.edit().await?;
        clients.check()?;
        edits += 1;
        most = most.max(stage.memory()?);
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

    // And it serves as ever.
    stage.newcomers().await?;
    stage.proxies_leave();
    stage.left_alone(PATIENCE).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reconnects() -> Result<()> {
    let fault = Fault::Reconnects;
    is_nobody_elses_business(Case { fault, identities: 1000, clients: 8, rounds: 10_000, noticed: PATIENCE }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_clients() -> Result<()> {
    let fault = Fault::Refused;
    is_nobody_elses_business(Case { fault, identities: 8, clients: 8, rounds: 5_000, noticed: PATIENCE }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxies_that_reject_everything() -> Result<()> {
    let fault = Fault::Nacks;
    is_nobody_elses_business(Case { fault, identities: 3, clients: 3, rounds: 60, noticed: PATIENCE }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxies_that_reject_everything_and_ask_again() -> Result<()> {
    let fault = Fault::NackLoop;
    is_nobody_elses_business(Case { fault, identities: 3, clients: 3, rounds: 3_000, noticed: PATIENCE }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn liars() -> Result<()> {
    let fault = Fault::Liar;
    is_nobody_elses_business(Case { fault, identities: 100, clients: 4, rounds: 400, noticed: PATIENCE }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stampedes() -> Result<()> {
    let fault = Fault::Stampede;
    is_nobody_elses_business(Case { fault, identities: 1, clients: 1, rounds: 10_000, noticed: PATIENCE }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers() -> Result<()> {
    let fault = Fault::SlowReader;
    is_nobody_elses_business(Case { fault, identities: 20, clients: 20, rounds: 20, noticed: PATIENCE }).await
}
