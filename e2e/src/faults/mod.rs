//! Clients of xDS that misbehave: each way is a [`Fault`], which tests and benchmarks let loose on one control plane.
//!
//! They hold certificates that the control plane trusts, or nearly so, because that is what it meets: a proxy with a broken
//! configuration, one on a bad network, an impostor. A client goes on until it is dropped, and counts its rounds;
//! whoever lets it loose says how many are enough. That a server does *not* refuse what it has to is an error.

mod rounds;
pub mod stage;

use std::{
    fmt,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use tokio::{runtime::Handle, task::JoinSet, time::timeout};

use crate::{
    certificates::Authority,
    scripted::{
        script::{Catalog, Envelope, Script},
        stream::Credentials,
    },
    wait::until,
};

/// How long one round may take; those that last until the client is dropped have none.
const ROUND: Duration = Duration::from_secs(30);

/// A way to misbehave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Asks for everything, answers HTTP/2's pings and lets the server send nothing.
    SlowReader,
    /// Asks for everything and then does not read its socket any more.
    Deaf,
    /// Connects, is served, and is gone, now in order and now without a word.
    Reconnects,
    /// Opens streams on one connection as fast as it can.
    Stampede,
    /// Claims what its certificate does not say, or has none that is trusted, and comes again at once.
    Refused,
    /// Rejects everything at once, three times each.
    Nacks,
    /// Rejects everything at once, and asks for it again in the same breath.
    NackLoop,
    /// Says that it has what it has not and answers what it was never sent; then it is another proxy.
    Liar,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::SlowReader,
        Self::Deaf,
        Self::Reconnects,
        Self::Stampede,
        Self::Refused,
        Self::Nacks,
        Self::NackLoop,
        Self::Liar,
    ];

    /// How many clients do it at the same time, where nobody has a reason for another number.
    pub fn clients(self) -> usize {
        match self {
            Self::SlowReader | Self::Deaf => 20,
            Self::Reconnects | Self::Refused => 8,
            Self::Liar => 4,
            Self::Nacks | Self::NackLoop => 3,
            Self::Stampede => 1,
        }
    }

    /// How many identities they act under: a proxy that comes too often is put off, and not every one is to be.
    pub fn identities(self) -> usize {
        match self {
            Self::Reconnects => 1000,
            Self::Liar => 100,
            _ => self.clients(),
        }
    }

    /// Whether a client does it until it is dropped: its rounds come by themselves, or there is but one.
    fn is_endless(self) -> bool {
        matches!(self, Self::SlowReader | Self::Deaf | Self::Nacks | Self::NackLoop)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SlowReader => "slow readers",
            Self::Deaf => "deaf sockets",
            Self::Reconnects => "reconnects",
            Self::Stampede => "a stampede of streams",
            Self::Refused => "refused clients",
            Self::Nacks => "rejects everything",
            Self::NackLoop => "rejects and asks again",
            Self::Liar => "lies about versions",
        })
    }
}

/// Who misbehaves.
pub struct Culprits {
    /// Proxies of the fleet `edge`.
    own: Credentials,
    /// Proxies of a fleet that there is not.
    homeless: Credentials,
    /// Proxies of the fleet `edge`, as another authority says.
    strangers: Credentials,
    /// What everybody asks for.
    script: Script,
    /// What a liar says at first, for each type.
    lies: Vec<[Bytes; 4]>,
}

impl Culprits {
    /// `count` identities to act under. What they ask for is in `catalog`; files go into `folder`.
    pub fn new(folder: &Path, authority: &Authority, count: usize, catalog: &Catalog) -> Result<Arc<Self>> {
        let (trusted, other) = (authority.file(), Authority::create(folder, "another-authority")?);
        let some = |issuer: &Authority, fleet: &str, count: usize| {
            Credentials::new(&trusted, issuer, fleet, (0..count).map(id))
        };
        Ok(Arc::new(Self {
            own: some(authority, "edge", count)?,
            homeless: some(authority, "nowhere", 1)?,
            strangers: some(&other, "edge", 1)?,
            script: Script::cold(catalog, Envelope::edit),
            lies: rounds::lies(),
        }))
    }

    /// Lets them misbehave towards the server at `xds`, each at most once in `pause` and one after the other, as tasks of `runtime`.
    pub fn start(
        self: &Arc<Self>,
        fault: Fault,
        pause: Option<Duration>,
        xds: SocketAddr,
        runtime: &Handle,
    ) -> Misbehaving {
        let (mut tasks, record, clients) = (JoinSet::new(), Arc::<Record>::default(), fault.clients());
        let apart = pause.unwrap_or_default() / u32::try_from(clients).unwrap_or(u32::MAX).max(1);
        let mut first = tokio::time::Instant::now();
        for client in 0..clients {
            let (culprits, record, begins) = (self.clone(), record.clone(), first);
            first += apart;
            let misbehaves = async move {
                // Each goes through identities of its own.
                let mut number = client % culprits.own.len();
                let mut ticks = pause.map(|pause| tokio::time::interval_at(begins, pause));
                loop {
                    if let Some(ticks) = &mut ticks {
                        ticks.tick().await;
                    }
                    let round = culprits.round(fault, number, xds, &record);
                    let done = if fault.is_endless() { Ok(round.await) } else { timeout(ROUND, round).await };
                    let done = done.with_context(|| format!("a round takes longer than {ROUND:?}")).flatten();
                    if let Err(error) = done {
                        return record.failed(fault, number, &error);
                    }
                    record.round();
                    if fault != Fault::Stampede {
                        number = (number + clients) % culprits.own.len();
                    }
                }
            };
            tasks.spawn_on(misbehaves, runtime);
        }
        Misbehaving { record, _tasks: tasks }
    }
}

/// Clients that misbehave until this is dropped.
pub struct Misbehaving {
    record: Arc<Record>,
    _tasks: JoinSet<()>,
}

/// What the clients have done.
#[derive(Default)]
struct Record {
    rounds: AtomicU64,
    received: AtomicU64,
    failed: Mutex<Option<String>>,
}

impl Record {
    fn round(&self) {
        self.rounds.fetch_add(1, Ordering::Relaxed);
    }

    fn failed(&self, fault: Fault, number: usize, error: &anyhow::Error) {
        let text = format!("{fault}: {}: {error:#}", id(number));
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(text);
    }
}

impl Misbehaving {
    /// How often it was done: connections or streams that came and went, responses that were rejected, clients that
    /// are silent.
    pub fn rounds(&self) -> u64 {
        self.record.rounds.load(Ordering::Relaxed)
    }

    /// Bytes of responses that they have read.
    pub fn received(&self) -> u64 {
        self.record.received.load(Ordering::Relaxed)
    }

    /// Fails if the server did to one of them what it should not have.
    pub fn check(&self) -> Result<()> {
        match &*self.record.failed.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(failure) => bail!("{failure}"),
            None => Ok(()),
        }
    }

    /// Waits until it was done so often.
    pub async fn reach(&self, rounds: u64, within: Duration) -> Result<()> {
        until("clients misbehave often enough", within, async || {
            let done = self.rounds();
            ensure!(done >= rounds || self.check().is_err(), "{done} of {rounds} rounds");
            Ok(())
        })
        .await?;
        self.check()
    }
}

fn id(number: usize) -> String {
    format!("faulty-{number}")
}
