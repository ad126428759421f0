//! Scripted proxies: each has a connection, a certificate and a stream of its own, as in reality.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use chancery_proto::Message as _;
use h2::client::SendRequest;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use super::{
    script::{Catalog, Envelope, Script, TYPES, acknowledge, ask, node, place, read},
    stream::{Connection, Credentials, Stream, WINDOW, be_refused, shake_hands},
};
use crate::certificates::Authority;

/// How many proxies connect at the same time; each handshake costs both ends about a millisecond of CPU.
const CONNECTING: usize = 128;

/// A proxy that is put off comes again after this long.
const PUT_OFF: Duration = Duration::from_millis(500);

/// What the proxies of one server share.
#[derive(Clone)]
pub struct Fleet {
    credentials: Credentials,
    /// What has happened to them.
    pub tally: Arc<Tally>,
}

/// What has happened to all of them.
#[derive(Default)]
pub struct Tally {
    /// Proxies that have all they asked for.
    pub synced: AtomicUsize,
    /// Bytes of responses.
    pub received: AtomicU64,
    /// Streams that were put off.
    pub put_off: AtomicUsize,
    /// Proxies that failed, for good.
    failed: Mutex<Option<String>>,
    /// The edit under way.
    change: Mutex<Option<Change>>,
    /// The edit that each proxy was given last.
    held: Mutex<BTreeMap<usize, u64>>,
}

/// An edit under way.
struct Change {
    number: u64,
    begun: Instant,
    /// How long it took to each proxy that it has reached.
    reached: BTreeMap<usize, Duration>,
}

impl Tally {
    /// The edit with this number, as the script counts edits, is made from now on.
    pub fn begin_change(&self, number: u64) {
        *lock(&self.change) = Some(Change { number, begun: Instant::now(), reached: BTreeMap::new() });
    }

    /// How long the change took to each proxy, once it has reached `count`.
    pub async fn change_reached(&self, count: usize, within: Duration) -> Result<Vec<Duration>> {
        let reached = || lock(&self.change).as_ref().map_or(0, |change| change.reached.len());
        self.wait("a change reaches all", within, reached, count).await?;
        Ok(lock(&self.change).take().map(|change| change.reached.into_values().collect()).unwrap_or_default())
    }

    /// Waits until `count` proxies have been given nothing newer, nor older, than this edit since.
    pub async fn all_hold(&self, number: u64, count: usize, within: Duration) -> Result<()> {
        let hold = || lock(&self.held).values().filter(|held| **held == number).count();
        self.wait("all proxies hold the last edit", within, hold, count).await
    }

    /// Waits until `count` proxies have all they asked for.
    pub async fn all_synced(&self, count: usize, within: Duration) -> Result<()> {
        self.wait("all proxies are served", within, || self.synced.load(Ordering::Relaxed), count).await
    }

    async fn wait(&self, what: &str, within: Duration, done: impl Fn() -> usize, count: usize) -> Result<()> {
        let begun = Instant::now();
        loop {
            let done = done();
            if done >= count {
                return Ok(());
            }
            if let Some(failure) = lock(&self.failed).clone() {
                bail!("{what}: a proxy failed: {failure}");
            }
            ensure!(begun.elapsed() < within, "{what}: {done} of {count} within {within:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn arrived(&self, proxy: usize, number: u64) {
        lock(&self.held).insert(proxy, number);
        if let Some(change) = lock(&self.change).as_mut().filter(|change| change.number == number) {
            change.reached.entry(proxy).or_insert_with(|| change.begun.elapsed());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Proxies that run until this is dropped.
pub struct Running {
    tasks: JoinSet<()>,
    connections: Vec<(usize, SendRequest<Bytes>)>,
}

impl Fleet {
    /// `count` proxies of fleet `edge`, and one more, the scout.
    pub fn new(authority: &Authority, count: usize) -> Result<Self> {
        let credentials = Credentials::new(&authority.file(), authority, "edge", (0..=count).map(id))?;
        Ok(Self { credentials, tally: Arc::default() })
    }

    /// The same proxies, of whom nothing is known yet.
    pub fn renewed(&self) -> Self {
        Self { tally: Arc::default(), ..self.clone() }
    }

    fn scout(&self) -> usize {
        self.credentials.len() - 1
    }

    async fn connect(&self, address: SocketAddr, number: usize) -> Result<Connection> {
        shake_hands(self.credentials.connect(address, Some(number)).await?, WINDOW).await
    }

    /// Connects them all, without a stream yet. Each connection has carried the largest request of `script`, to a service that
    /// there is not: what TLS and HTTP/2 keep is in use from then on.
    pub async fn connect_all(self: &Arc<Self>, address: SocketAddr, script: &Script) -> Result<Running> {
        let largest = script.largest();
        let (sender, mut connected) = mpsc::channel(CONNECTING);
        let (mut tasks, limit) = (JoinSet::new(), Arc::new(Semaphore::new(CONNECTING)));
        for number in 0..self.scout() {
            let (fleet, limit, sender) = (self.clone(), limit.clone(), sender.clone());
            tasks.spawn(async move {
                let opened = async {
                    let permit = limit.acquire_owned().await?;
                    let (requests, mut connection) = fleet.connect(address, number).await?;
                    tokio::select! {
                        refused = be_refused(requests.clone(), largest) => refused?,
                        ended = &mut connection => bail!("the connection ended: {ended:?}"),
                    }
                    drop(permit);
                    anyhow::Ok((requests, connection))
                };
                match opened.await {
                    Ok((requests, connection)) => {
                        let _ = sender.send((number, requests)).await;
                        // How it ends is seen by the stream on it.
                        let _ = connection.await;
                    }
                    Err(error) => fleet.failed(number, &error),
                }
            });
        }
        drop(sender);
        let mut connections = Vec::new();
        while connections.len() < self.scout() {
            let Some(one) = connected.recv().await else { bail!("a proxy cannot connect: {:?}", self.failure()) };
            connections.push(one);
            if let Some(failure) = self.failure() {
                bail!("a proxy cannot connect: {failure}");
            }
        }
        Ok(Running { tasks, connections })
    }

    /// Opens a stream on each connection.
    pub fn open_all(self: &Arc<Self>, running: &mut Running, script: &Script) {
        let script = Arc::new(script.clone());
        for (number, requests) in running.connections.drain(..) {
            running.tasks.spawn(self.clone().play(number, requests, script.clone()));
        }
    }

    /// Connects them all, each opening its stream as soon as it is connected.
    pub fn start_all(self: &Arc<Self>, address: SocketAddr, script: &Script) -> Running {
        let script = Arc::new(script.clone());
        let (mut tasks, limit) = (JoinSet::new(), Arc::new(Semaphore::new(CONNECTING)));
        for number in 0..self.scout() {
            let (fleet, limit, script) = (self.clone(), limit.clone(), script.clone());
            tasks.spawn(async move {
                let opened = async {
                    let _permit = limit.acquire_owned().await?;
                    fleet.connect(address, number).await
                };
                match opened.await {
                    Ok((requests, connection)) => {
                        let _ = tokio::join!(fleet.play(number, requests, script), connection);
                    }
                    Err(error) => fleet.failed(number, &error),
                }
            });
        }
        Running { tasks, connections: Vec::new() }
    }

    /// Follows the script until the stream ends.
    async fn play(self: Arc<Self>, number: usize, requests: SendRequest<Bytes>, script: Arc<Script>) {
        loop {
            match self.stream(number, requests.clone(), &script).await {
                Ok(PutOff) => {
                    self.tally.put_off.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(PUT_OFF.mul_f64(rand::random_range(0.5..1.5))).await;
                }
                Err(error) => return self.failed(number, &error),
            }
        }
    }

    async fn stream(&self, number: usize, requests: SendRequest<Bytes>, script: &Script) -> Result<PutOff> {
        let mut stream = Stream::open(requests).await?;
        stream.say(script.request(0, Some(&node(&id(number)))))?;
        if script.returning {
            for at in 1..TYPES.len() {
                stream.say(script.request(at, None))?;
            }
        }
        let (mut at, mut held, mut synced) = (0, [0; TYPES.len()], false);
        loop {
            let Some(message) = stream.next(&self.tally.received).await? else {
                ensure!(!synced, "the server ended the stream");
                return Ok(PutOff);
            };
            let envelope = Envelope::decode(message)?;
            stream.say(acknowledge(&envelope))?;
            let place = place(&envelope.type_url)?;
            held[place] += envelope.resources.len();
            if synced {
                if let Some(edit) = (script.sign)(&envelope) {
                    self.tally.arrived(number, edit);
                }
                continue;
            }
            if script.returning && (script.sign)(&envelope).is_some() {
                synced = true;
                self.tally.synced.fetch_add(1, Ordering::Relaxed);
            }
            while !synced && !script.returning && held[at] >= script.counts[at] {
                at += 1;
                if at == TYPES.len() {
                    synced = true;
                    self.tally.synced.fetch_add(1, Ordering::Relaxed);
                    break;
                }
                stream.say(script.request(at, None))?;
            }
        }
    }

    /// What the server serves, as the scout is given it.
    pub async fn explore(&self, address: SocketAddr) -> Result<Catalog> {
        let (requests, connection) = self.connect(address, self.scout()).await?;
        let driver = tokio::spawn(connection);
        let mut stream = Stream::open(requests).await?;
        let mut catalog = Catalog::default();
        let mut names: Vec<String> = Vec::new();
        for (at, type_url) in TYPES.iter().enumerate() {
            let node = (at == 0).then(|| node(&id(self.scout())));
            stream.say(ask(at, std::mem::take(&mut names), node))?;
            loop {
                let message =
                    stream.next(&self.tally.received).await?.context("the server ended the scout's stream")?;
                stream.say(acknowledge(&Envelope::decode(message.clone())?))?;
                let response = read(message)?;
                if response.type_url == *type_url {
                    catalog.add(at, response);
                    break;
                }
            }
            names = catalog.referred(at);
        }
        driver.abort();
        Ok(catalog)
    }

    fn failed(&self, number: usize, error: &anyhow::Error) {
        lock(&self.tally.failed).get_or_insert(format!("{}: {error:#}", id(number)));
    }

    fn failure(&self) -> Option<String> {
        lock(&self.tally.failed).clone()
    }
}

/// The server did not take the stream on; it may later.
struct PutOff;

fn id(number: usize) -> String {
    format!("proxy-{number}")
}
