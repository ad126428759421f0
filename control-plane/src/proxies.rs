//! Who is connected, and what each proxy and each rate limiter has applied.
//!
//! A stream writes its own status (`chancery_xds::StreamStatus`); this is the register of them, and the place
//! where someone waits until a revision has arrived. A proxy that disconnects is remembered for a while,
//! with what it last said, so that an operator can see it is away.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::{Instant, SystemTime},
};

use chancery_proto::type_url::short_name;
use chancery_xds::{Cache, Protocol, Rejection, SharedStatus, Stamp, TypeStatus};
use parking_lot::Mutex;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::{commit::Committed, model::Name, publish::sequence};

/// How many proxies that went away are remembered.
const MAX_AWAY: usize = 1000;

/// The register of proxies.
#[derive(Default)]
pub struct Proxies {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    connected: BTreeMap<u64, Connection>,
    away: VecDeque<ProxyStatus>,
}

/// One stream of one proxy or limiter.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The fleet, from the certificate; none for a rate limiter.
    pub fleet: Option<Name>,
    /// The id, from the certificate.
    pub id: Name,
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
    /// What it was sent, and said.
    pub status: SharedStatus,
}

/// What a client of xDS is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// A proxy of a fleet.
    Proxy,
    /// A rate limiter, for all fleets.
    RateLimiter,
}

/// A proxy, or a rate limiter, as the API shows it.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProxyStatus {
    /// Its id.
    pub id: String,
    /// What it is.
    pub role: Role,
    /// Its fleet; empty for a rate limiter, which belongs to none.
    pub fleet: String,
    /// Whether it has a stream open to this replica.
    pub connected: bool,
    /// When the stream was opened.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub connected_since: OffsetDateTime,
    /// Where it connects from.
    pub address: Option<String>,
    /// The Envoy version it says it is.
    pub envoy_version: Option<String>,
    /// `delta` or `sotw`.
    pub protocol: &'static str,
    /// The revision that it has been sent completely, and has answered.
    pub settled_revision: u64,
    /// Per type of resource, by short name: what was sent and what was answered.
    pub types: BTreeMap<String, ProxyTypeStatus>,
    /// Milliseconds from the last response to its acknowledgement, the longest of all types.
    pub lag_ms: Option<f64>,
    /// The last rejection of all types.
    pub last_rejection: Option<ProxyRejection>,
}

/// What a proxy was sent of one type, and what it answered.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProxyTypeStatus {
    /// Where it stands.
    pub status: SyncStatus,
    /// Version of the last response.
    pub sent_version: Option<String>,
    /// When it was sent.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub sent_at: Option<OffsetDateTime>,
    /// Version of the last response it applied.
    pub acked_version: Option<String>,
    /// When it said so.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub acked_at: Option<OffsetDateTime>,
    /// The last response it refused.
    pub last_rejection: Option<ProxyRejection>,
}

/// Where a proxy stands with one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum SyncStatus {
    /// It has applied what it was sent last.
    Synced,
    /// It has not answered yet.
    Stale,
    /// It has refused what it was sent last.
    Error,
    /// It has asked, and there was nothing to send.
    NotSent,
}

/// A response that a proxy refused.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProxyRejection {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub at: OffsetDateTime,
    /// Version of the response.
    pub version: String,
    /// The proxy's words.
    pub message: String,
    /// The resources it is about.
    pub resources: Vec<String>,
}

/// How far a revision has arrived.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    /// How many proxies and rate limiters it concerns, of those connected to this replica.
    pub proxies: usize,
    /// How many have applied it.
    pub applied: usize,
    /// Which have refused it.
    pub refused: Vec<Refusal>,
    /// Ids of those that have not answered in time.
    pub pending: Vec<String>,
    /// Milliseconds until the slowest of those that answered did.
    pub slowest_ms: f64,
    /// Whether the time was up before all had answered.
    pub timed_out: bool,
}

/// One refusal.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// Which proxy or rate limiter.
    pub proxy: String,
    /// Which type of resource.
    #[serde(rename = "type")]
    pub resource_type: String,
    /// Which resource, if the proxy names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// The proxy's words.
    pub reason: String,
}

impl Connection {
    fn fleet(&self) -> &str {
        self.fleet.as_ref().map_or("", Name::as_str)
    }
}

impl Proxies {
    /// Nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a stream until the returned guard is dropped.
    pub fn connect(self: &Arc<Self>, connection: Connection) -> Connected {
        let mut state = self.state.lock();
        let stream = state.next;
        state.next += 1;
        state.away.retain(|away| away.id != connection.id.as_str() || away.fleet != connection.fleet());
        state.connected.insert(stream, connection);
        Connected { proxies: self.clone(), stream }
    }

    /// Every proxy and limiter, connected ones and those remembered, by fleet and id.
    pub fn list(&self, fleet: Option<&Name>) -> Vec<ProxyStatus> {
        let (connections, away) = {
            let state = self.state.lock();
            (state.connected.values().cloned().collect::<Vec<_>>(), state.away.clone())
        };
        // A proxy that reconnects may have two streams for a moment: the newer one speaks for it.
        let mut by_proxy: HashMap<(String, String), ProxyStatus> = HashMap::new();
        for status in away.into_iter().chain(connections.iter().map(|connection| status_of(connection, true))) {
            by_proxy.insert((status.fleet.clone(), status.id.clone()), status);
        }
        let wanted = |status: &ProxyStatus| fleet.is_none_or(|fleet| status.fleet == fleet.as_str());
        let mut proxies: Vec<_> = by_proxy.into_values().filter(wanted).collect();
        proxies.sort_by(|a, b| (&a.fleet, &a.id).cmp(&(&b.fleet, &b.id)));
        proxies
    }

    /// The proxies called `id`, one per fleet that has such a one.
    pub fn named(&self, id: &str) -> Vec<ProxyStatus> {
        self.list(None).into_iter().filter(|status| status.id == id).collect()
    }

    /// Waits until every proxy and limiter that is connected to this replica and gets something new by what was committed
    /// has answered, or until `deadline`.
    pub async fn wait_applied(&self, committed: &Committed, deadline: Instant) -> Applied {
        let Committed { fleets, limiters, revision, published, .. } = committed;
        let from = sequence::of_revision(*revision);
        let concerns = |fleet: &Option<Name>| fleet.as_ref().map_or(*limiters, |fleet| fleets.contains(fleet));
        let concerned: Vec<Connection> = {
            let state = self.state.lock();
            state.connected.values().filter(|c| concerns(&c.fleet) && c.cache.head() >= from).cloned().collect()
        };
        let mut applied = Applied { proxies: concerned.len(), ..Applied::default() };
        for connection in concerned {
            let mut settled = connection.status.watch_settled();
            let arrived = settled.wait_for(|settled| *settled >= from);
            match tokio::time::timeout_at(deadline.into(), arrived).await {
                Ok(Ok(_)) => {
                    let refusals = connection.status.rejections_since(from);
                    if refusals.is_empty() {
                        applied.applied += 1;
                    }
                    for (type_url, rejection) in refusals {
                        applied.refused.push(refusal(&connection.id, &type_url, rejection));
                    }
                    applied.slowest_ms = published.elapsed().as_secs_f64() * 1000.0;
                }
                Ok(Err(_)) | Err(_) => applied.pending.push(connection.id.to_string()),
            }
        }
        applied.timed_out = !applied.pending.is_empty();
        applied
    }

    fn disconnect(&self, stream: u64) {
        let mut state = self.state.lock();
        let Some(connection) = state.connected.remove(&stream) else { return };
        let same = |other: &Connection| other.id == connection.id && other.fleet == connection.fleet;
        if !state.connected.values().any(same) {
            if state.away.len() == MAX_AWAY {
                state.away.pop_front();
            }
            state.away.push_back(status_of(&connection, false));
        }
    }
}

/// A registered stream; dropping it takes the stream off the register.
pub struct Connected {
    proxies: Arc<Proxies>,
    stream: u64,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.proxies.disconnect(self.stream);
    }
}

fn status_of(connection: &Connection, connected: bool) -> ProxyStatus {
    let types = connection.status.types();
    let lag = |status: &TypeStatus| {
        let (sent, acknowledged) = (status.sent.as_ref()?, status.acknowledged.as_ref()?);
        let waited = acknowledged.at.duration_since(sent.at).ok()?;
        (sent.nonce == acknowledged.nonce).then_some(waited.as_secs_f64() * 1000.0)
    };
    ProxyStatus {
        id: connection.id.to_string(),
        role: if connection.fleet.is_some() { Role::Proxy } else { Role::RateLimiter },
        fleet: connection.fleet().to_owned(),
        connected,
        connected_since: connection.since.into(),
        address: connection.address.map(|address| address.to_string()),
        envoy_version: connection.version.clone(),
        protocol: connection.protocol.as_str(),
        settled_revision: sequence::revision(connection.status.settled()),
        lag_ms: types.values().filter_map(lag).reduce(f64::max),
        last_rejection: types
            .values()
            .filter_map(|status| status.rejected.as_ref())
            .max_by_key(|rejection| rejection.response.at)
            .map(shown_rejection),
        types: types.iter().map(|(type_url, status)| (short_name(type_url).to_owned(), shown_type(status))).collect(),
    }
}

fn shown_type(status: &TypeStatus) -> ProxyTypeStatus {
    let nonce = |stamp: &Option<Stamp>| stamp.as_ref().map(|stamp| stamp.nonce.clone());
    let sent = nonce(&status.sent);
    ProxyTypeStatus {
        status: match &status.sent {
            None => SyncStatus::NotSent,
            Some(_) if sent == nonce(&status.acknowledged) => SyncStatus::Synced,
            Some(_) if sent == status.rejected.as_ref().map(|r| r.response.nonce.clone()) => SyncStatus::Error,
            Some(_) => SyncStatus::Stale,
        },
        sent_version: status.sent.as_ref().map(|stamp| stamp.version.clone()),
        sent_at: status.sent.as_ref().map(|stamp| stamp.at.into()),
        acked_version: status.acknowledged.as_ref().map(|stamp| stamp.version.clone()),
        acked_at: status.acknowledged.as_ref().map(|stamp| stamp.at.into()),
        last_rejection: status.rejected.as_ref().map(shown_rejection),
    }
}

fn shown_rejection(rejection: &Rejection) -> ProxyRejection {
    ProxyRejection {
        at: rejection.response.at.into(),
        version: rejection.response.version.clone(),
        message: rejection.message.clone(),
        resources: rejection.resources.iter().map(ToString::to_string).collect(),
    }
}

fn refusal(proxy: &Name, type_url: &str, rejection: Rejection) -> Refusal {
    let resource = match rejection.resources.as_slice() {
        [one] => Some(one.to_string()),
        _ => None,
    };
    Refusal {
        proxy: proxy.to_string(),
        resource_type: short_name(type_url).to_owned(),
        resource,
        reason: rejection.message,
    }
}
