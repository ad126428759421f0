//! Who is connected, and what each proxy and each rate limiter has applied.
//!
//! A stream writes its own status (`chancery_xds::StreamStatus`); this is the register of them, and the place
//! where someone waits until a revision has arrived. A proxy that disconnects is remembered for a while,
//! with what it last said, so that an operator can see it is away.
//!
//! What an operator sees of a proxy is a [`ProxyStatus`]. Other replicas see it through the database ([`records`]), and whoever
//! listens hears of it ([`Observer`]).
//!
//! Invariant: a proxy is connected or remembered, never both.

mod answers;
mod applied;
mod census;
mod changed;
mod everywhere;
mod given;
mod observer;
pub mod records;
mod status;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::SystemTime,
};

use chancery_xds::{Cache, Protocol, SharedStatus};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

pub use answers::Answers;
pub use applied::{Applied, Refusal};
pub use census::Standing;
pub use everywhere::Everywhere;
pub use given::{Because, Given, GivenResource, GivenState, Silent, Wanted, given};
pub use observer::{Judged, Observer};
pub use status::{ProxyRejection, ProxyStatus, ProxyTypeStatus, Role, SyncStatus};

use self::changed::Changed;
use crate::{
    feed::{Event, Feed},
    model::Name,
};

/// How many proxies that went away are remembered.
const MAX_AWAY: usize = 1000;

/// A proxy, or a rate limiter, by its certificate. Rate limiters sort first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProxyId {
    /// Its fleet; none for a rate limiter.
    pub fleet: Option<Name>,
    /// Its id, unique within its fleet.
    pub id: Name,
}

impl ProxyId {
    /// Who is shown as `id` of `fleet`, if there can be such a one.
    pub fn named(fleet: &str, id: &str) -> Option<Self> {
        let fleet = if fleet.is_empty() { None } else { Some(fleet.parse().ok()?) };
        Some(Self { fleet, id: id.parse().ok()? })
    }

    /// The fleet as it is shown: empty for a rate limiter.
    pub fn fleet(&self) -> &str {
        self.fleet.as_ref().map_or("", Name::as_str)
    }
}

/// The register of proxies.
pub struct Proxies {
    /// How this replica is called.
    replica: String,
    feed: Arc<Feed>,
    /// Those of which others are to be told.
    changed: Changed,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How many streams there were, and how many went away.
    next: u64,
    /// Each with its streams, the newest last: one that reconnects may have two for a moment.
    connected: BTreeMap<Arc<ProxyId>, Vec<(u64, Connection)>>,
    away: HashMap<Arc<ProxyId>, (u64, ProxyStatus)>,
    /// Who is away, by when it went.
    went: BTreeMap<u64, Arc<ProxyId>>,
}

/// One stream of one proxy or limiter.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Whose it is.
    pub proxy: Arc<ProxyId>,
    /// Where it connects from.
    pub address: Option<SocketAddr>,
    /// The version it says it is.
    pub version: Option<String>,
    /// The protocol variant.
    pub protocol: Protocol,
    /// When it connected.
    pub since: SystemTime,
    /// What it is served from.
    pub cache: Arc<Cache>,
    /// Whether that is what the canaries of its fleet are served.
    pub canary: bool,
    /// What it says of itself.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Cancelled to have it open the stream anew, and be served from elsewhere.
    pub ended: CancellationToken,
    /// What it was sent, and said.
    pub status: SharedStatus,
}

impl Proxies {
    /// Nobody yet. `replica` is how this one is called.
    pub fn new(replica: String, feed: Arc<Feed>) -> Self {
        Self { replica, feed, changed: Changed::default(), state: Mutex::default() }
    }

    /// How this replica is called.
    pub fn replica(&self) -> &str {
        &self.replica
    }

    /// Registers a stream until the returned guard is dropped.
    pub fn connect(self: &Arc<Self>, connection: Connection) -> Connected {
        let mut state = self.state.lock();
        let stream = state.next;
        state.next += 1;
        let proxy = connection.proxy.clone();
        if let Some((went, _)) = state.away.remove(&proxy) {
            state.went.remove(&went);
        }
        let (address, version) = (connection.address, connection.version.clone());
        let streams = state.connected.entry(proxy.clone()).or_default();
        if streams.is_empty() {
            // Hardly ever is there another.
            streams.reserve_exact(1);
        }
        streams.push((stream, connection));
        if streams.len() == 1 {
            // Under the lock: nobody is to hear of it in another order than it happened.
            self.feed.tell(|| Event::Connected {
                proxy: proxy.id.to_string(),
                fleet: proxy.fleet().to_owned(),
                address: address.map(|address| address.to_string()),
                envoy_version: version,
            });
        }
        self.changed.mark_first(&proxy);
        Connected { proxies: self.clone(), proxy, stream }
    }

    /// Every proxy and limiter that is connected to this replica, or was, by fleet and id.
    pub fn list(&self, fleet: Option<&Name>) -> Vec<ProxyStatus> {
        let wanted = |proxy: &ProxyId| fleet.is_none_or(|fleet| proxy.fleet.as_ref() == Some(fleet));
        let (connected, mut proxies) = {
            let state = self.state.lock();
            let connected = state.connected.iter().filter(|(proxy, _)| wanted(proxy));
            let connected: Vec<_> = connected.filter_map(|(_, streams)| newest(streams).cloned()).collect();
            let away = state.away.iter().filter(|(proxy, _)| wanted(proxy));
            (connected, away.map(|(_, (_, status))| status.clone()).collect::<Vec<_>>())
        };
        let now = SystemTime::now();
        proxies.extend(connected.iter().map(|connection| status::connected(connection, &self.replica, now)));
        proxies.sort_by(|a, b| (&a.fleet, &a.id).cmp(&(&b.fleet, &b.id)));
        proxies
    }

    /// The proxy as it is, if it is connected to this replica or is remembered.
    pub fn find(&self, proxy: &ProxyId) -> Option<ProxyStatus> {
        match self.connection(proxy) {
            Some(connection) => Some(status::connected(&connection, &self.replica, SystemTime::now())),
            None => self.state.lock().away.get(proxy).map(|(_, status)| status.clone()),
        }
    }

    /// The stream of a proxy that is connected to this replica, the newest.
    pub fn connection(&self, proxy: &ProxyId) -> Option<Connection> {
        newest(self.state.lock().connected.get(proxy)?).cloned()
    }

    /// The streams that are open and `wanted`, by proxy.
    pub fn connections(&self, wanted: impl Fn(&Connection) -> bool) -> Vec<Connection> {
        let state = self.state.lock();
        let connections = state.connected.values().flatten().map(|(_, connection)| connection);
        connections.filter(|connection| wanted(connection)).cloned().collect()
    }

    fn disconnect(&self, proxy: &Arc<ProxyId>, stream: u64) {
        let mut state = self.state.lock();
        let State { next, connected, away, went } = &mut *state;
        let Some(streams) = connected.get_mut(proxy) else { return };
        let Some(at) = streams.iter().position(|(open, _)| *open == stream) else { return };
        let (_, connection) = streams.remove(at);
        if !streams.is_empty() {
            return;
        }
        connected.remove(proxy);
        if away.len() == MAX_AWAY
            && let Some((_, oldest)) = went.pop_first()
        {
            away.remove(&oldest);
            self.changed.forget(&oldest);
        }
        let status = status::away(&connection, &self.replica, SystemTime::now());
        went.insert(*next, proxy.clone());
        away.insert(proxy.clone(), (*next, status));
        *next += 1;
        self.feed.tell(|| Event::Disconnected { proxy: proxy.id.to_string(), fleet: proxy.fleet().to_owned() });
        self.changed.mark_first(proxy);
    }
}

/// The newest of a proxy's streams: what the proxy says there counts.
fn newest(streams: &[(u64, Connection)]) -> Option<&Connection> {
    streams.last().map(|(_, connection)| connection)
}

/// A registered stream; dropping it takes the stream off the register.
pub struct Connected {
    proxies: Arc<Proxies>,
    proxy: Arc<ProxyId>,
    stream: u64,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.proxies.disconnect(&self.proxy, self.stream);
    }
}

#[cfg(test)]
mod tests;
