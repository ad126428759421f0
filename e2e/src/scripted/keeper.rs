//! Scripted proxies that outlive their connections: each comes back as Envoy does, saying which version it holds of each resource,
//! and counts what it is sent although it has it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use chancery_proto::{
    Message as _,
    envoy::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    type_url,
};
use tokio::task::JoinSet;

use super::{
    script::{Envelope, TYPES, acknowledge, framed, node, place, read},
    stream::{Credentials, Stream, WINDOW, shake_hands},
};
use crate::{
    certificates::Authority,
    wait::{PATIENCE, until},
};

/// After so long a proxy comes back; half of it more or less, by chance.
const PAUSE: Duration = Duration::from_millis(200);

/// What has happened to all of them.
#[derive(Debug, Default)]
pub struct Kept {
    /// Streams opened after the first of each proxy.
    pub returns: AtomicU64,
    /// Resources received, all in all.
    pub received: AtomicU64,
    /// Resources that came in the version that the proxy had, by type and name.
    resent: Mutex<BTreeMap<String, u64>>,
    /// The last edit that each proxy was given.
    edits: Mutex<BTreeMap<usize, u64>>,
}

impl Kept {
    /// Resources that came although the proxy had them in that version, endpoints aside, by type and name.
    pub fn resent(&self) -> BTreeMap<String, u64> {
        lock(&self.resent).clone()
    }

    /// Waits until `count` proxies hold this edit.
    pub async fn all_hold(&self, edit: u64, count: usize) -> Result<()> {
        until(&format!("{count} proxies hold edit {edit}"), PATIENCE, async || {
            let hold = lock(&self.edits).values().filter(|held| **held == edit).count();
            ensure!(hold >= count, "{hold} of {count}");
            Ok(())
        })
        .await
    }
}

/// Proxies of fleet `edge` that run until this is dropped.
#[derive(Debug)]
pub struct Keepers {
    /// What has happened to them.
    pub kept: Arc<Kept>,
    _tasks: JoinSet<()>,
}

impl Keepers {
    /// Starts `count` of them, whose control plane is at `xds`.
    pub fn start(authority: &Authority, xds: SocketAddr, count: usize) -> Result<Self> {
        let ids = (0..count).map(id);
        let credentials = Arc::new(Credentials::new(&authority.file(), authority, "edge", ids)?);
        let (kept, mut tasks) = (Arc::<Kept>::default(), JoinSet::new());
        for number in 0..count {
            let (credentials, kept) = (credentials.clone(), kept.clone());
            tasks.spawn(async move {
                let mut proxy = Keeper { number, kept, held: Default::default() };
                loop {
                    // Why a stream ended does not matter to a proxy: it comes again.
                    let _ = proxy.connect(&credentials, xds).await;
                    tokio::time::sleep(PAUSE.mul_f64(rand::random_range(0.5..1.5))).await;
                }
            });
        }
        Ok(Self { kept, _tasks: tasks })
    }
}

/// One of them.
struct Keeper {
    number: usize,
    kept: Arc<Kept>,
    /// The version of each resource, in the order of [`TYPES`].
    held: [BTreeMap<String, String>; TYPES.len()],
}

impl Keeper {
    /// Connects, and listens until that ends.
    async fn connect(&mut self, credentials: &Credentials, xds: SocketAddr) -> Result<()> {
        let connecting = async { shake_hands(credentials.connect(xds, Some(self.number)).await?, WINDOW).await };
        let (requests, driver) =
            tokio::time::timeout(PATIENCE, connecting).await.context("no connection in time")??;
        tokio::select! {
            result = async { self.listen(Stream::open(requests).await?).await } => result,
            _ = driver => Ok(()),
        }
    }

    async fn listen(&mut self, mut stream: Stream) -> Result<()> {
        let returns = self.held.iter().any(|held| !held.is_empty());
        if returns {
            self.kept.returns.fetch_add(1, Relaxed);
        }
        let mut asked: [BTreeSet<String>; TYPES.len()] = Default::default();
        for (at, asked) in asked.iter_mut().enumerate() {
            let names = self.wanted(at);
            // What is asked for by name waits until a name is known.
            if !is_by_name(at) || !names.is_empty() {
                stream.say(self.first(at, &names))?;
                *asked = names;
            }
        }
        let ignored = AtomicU64::new(0);
        while let Some(message) = stream.next(&ignored).await? {
            let envelope = Envelope::decode(message.clone())?;
            let at = place(&envelope.type_url)?;
            self.take(at, &envelope, read(message)?);
            stream.say(acknowledge(&envelope))?;
            for at in (0..TYPES.len()).filter(|at| is_by_name(*at)) {
                let wanted = self.wanted(at);
                let more: BTreeSet<_> = wanted.difference(&asked[at]).cloned().collect();
                let fewer: Vec<_> = asked[at].difference(&wanted).cloned().collect();
                if asked[at].is_empty() && !more.is_empty() {
                    stream.say(self.first(at, &more))?;
                } else if !more.is_empty() || !fewer.is_empty() {
                    stream.say(framed(&DeltaDiscoveryRequest {
                        type_url: TYPES[at].into(),
                        resource_names_subscribe: more.into_iter().collect(),
                        resource_names_unsubscribe: fewer,
                        ..DeltaDiscoveryRequest::default()
                    }))?;
                }
                self.held[at].retain(|name, _| wanted.contains(name));
                asked[at] = wanted;
            }
        }
        Ok(())
    }

    fn take(&mut self, at: usize, envelope: &Envelope, response: DeltaDiscoveryResponse) {
        self.kept.received.fetch_add(response.resources.len() as u64, Relaxed);
        if let Some(edit) = envelope.edit() {
            lock(&self.kept.edits).insert(self.number, edit);
        }
        for resource in response.resources {
            let before = self.held[at].insert(resource.name.clone(), resource.version.clone());
            // Endpoints come again on purpose: an Envoy whose cluster was warming waits for them.
            if TYPES[at] != type_url::ENDPOINT && before.is_some_and(|before| before == resource.version) {
                *lock(&self.kept.resent).entry(format!("{} {}", TYPES[at], resource.name)).or_default() += 1;
            }
        }
        for name in response.removed_resources {
            self.held[at].remove(&name);
        }
    }

    /// The names that are asked for: of endpoints those of clusters, of routes those of listeners.
    fn wanted(&self, at: usize) -> BTreeSet<String> {
        let of = match TYPES[at] {
            type_url::ENDPOINT => type_url::CLUSTER,
            type_url::ROUTE => type_url::LISTENER,
            _ => return BTreeSet::new(),
        };
        let of = TYPES.iter().position(|one| *one == of).unwrap_or_default();
        self.held[of].keys().cloned().collect()
    }

    /// The first request for a type on a stream.
    fn first(&self, at: usize, names: &BTreeSet<String>) -> bytes::Bytes {
        framed(&DeltaDiscoveryRequest {
            node: Some(node(&id(self.number))),
            type_url: TYPES[at].into(),
            resource_names_subscribe: names.iter().cloned().collect(),
            initial_resource_versions: self.held[at].clone().into_iter().collect(),
            ..DeltaDiscoveryRequest::default()
        })
    }
}

fn is_by_name(at: usize) -> bool {
    matches!(TYPES[at], type_url::ENDPOINT | type_url::ROUTE)
}

fn id(number: usize) -> String {
    format!("keeper-{number}")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
