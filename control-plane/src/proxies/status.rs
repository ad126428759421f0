//! A proxy as an operator sees it, and how that follows from what its stream says of itself.
//!
//! It is also what replicas write into the database for each other, so it can be read back.

use std::{collections::BTreeMap, time::SystemTime};

use chancery_proto::type_url::short_name;
use chancery_xds::{Name, Rejection, Stamp, TypeStatus};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::Connection;
use crate::publish::{revision_at, sequence_of};

/// How many names of a rejection are shown.
const MOST_NAMES: usize = 100;

/// What a client of xDS is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// A proxy of a fleet.
    Proxy,
    /// A rate limiter, for all fleets.
    RateLimiter,
}

/// A proxy, or a rate limiter, as the API shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProxyStatus {
    /// Its id.
    pub id: String,
    /// What it is.
    pub role: Role,
    /// Its fleet; empty for a rate limiter, which belongs to none.
    pub fleet: String,
    /// Whether it has a stream open.
    pub connected: bool,
    /// Whether it is a canary: one of those who get a revision of their fleet first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub canary: bool,
    /// The replica of the control plane that it is connected to, or was last.
    pub replica: String,
    /// Whether that replica has gone without a word, so that nobody knows whether the proxy is connected.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replica_lost: bool,
    /// When the stream was opened.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub connected_since: OffsetDateTime,
    /// When it ended, if it has.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub disconnected_at: Option<OffsetDateTime>,
    /// Where it connects from.
    pub address: Option<String>,
    /// The Envoy version it says it is.
    pub envoy_version: Option<String>,
    /// `delta` or `sotw`.
    pub protocol: String,
    /// The revision that it has been sent completely, and has answered.
    pub settled_revision: u64,
    /// The newest revision that has something for it.
    pub wanted_revision: u64,
    /// Per type of resource, by short name: what was sent and what was answered.
    pub types: BTreeMap<String, ProxyTypeStatus>,
    /// Milliseconds from the last response to its acknowledgement, the longest of all types.
    pub lag_ms: Option<f64>,
    /// The last rejection of all types.
    pub last_rejection: Option<ProxyRejection>,
}

/// What a proxy was sent of one type, and what it answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProxyTypeStatus {
    /// Where it stands.
    pub status: SyncStatus,
    /// Version of the last response.
    pub sent_version: Option<String>,
    /// The revision that it was made from.
    pub sent_revision: Option<u64>,
    /// When it was sent.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub sent_at: Option<OffsetDateTime>,
    /// Version of the last response it applied.
    pub acked_version: Option<String>,
    /// The revision that it was made from.
    pub acked_revision: Option<u64>,
    /// When it said so.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub acked_at: Option<OffsetDateTime>,
    /// Milliseconds from the last response that it applied to its acknowledgement.
    pub lag_ms: Option<f64>,
    /// Milliseconds for which the last response has had no answer, if it has none: an Envoy does not answer while what it was
    /// sent is warming.
    pub warming_ms: Option<f64>,
    /// The last response it refused.
    pub last_rejection: Option<ProxyRejection>,
}

/// Where a proxy stands with one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProxyRejection {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub at: OffsetDateTime,
    /// Version of the response.
    pub version: String,
    /// The revision that it was made from.
    pub revision: u64,
    /// The proxy's words.
    pub message: String,
    /// The resources that its words name, or all in the response; the first hundred.
    pub resources: Vec<String>,
}

impl ProxyStatus {
    /// As it is at `now`, if it was connected to another replica and is so still as far as `replica_lives`.
    pub(super) fn seen_from_afar(mut self, connected: bool, replica_lives: bool, now: SystemTime) -> Self {
        self.replica_lost = connected && !replica_lives;
        self.connected = connected && replica_lives;
        for status in self.types.values_mut() {
            status.warming_ms = status.warming_ms.and(status.sent_at).filter(|_| self.connected).map(|sent| {
                let waited = OffsetDateTime::from(now) - sent;
                waited.as_seconds_f64().max(0.0) * 1000.0
            });
        }
        self
    }
}

/// A proxy with this stream open to `replica`.
pub(super) fn connected(connection: &Connection, replica: &str, now: SystemTime) -> ProxyStatus {
    let types = connection.status.types();
    let shown: BTreeMap<_, _> =
        types.iter().map(|(type_url, status)| (short_name(type_url).to_owned(), shown_type(status, now))).collect();
    ProxyStatus {
        id: connection.proxy.id.to_string(),
        role: if connection.proxy.fleet.is_some() { Role::Proxy } else { Role::RateLimiter },
        fleet: connection.proxy.fleet().to_owned(),
        connected: true,
        canary: connection.canary,
        replica: replica.to_owned(),
        replica_lost: false,
        connected_since: connection.since.into(),
        disconnected_at: None,
        address: connection.address.map(|address| address.to_string()),
        envoy_version: connection.version.clone(),
        protocol: connection.protocol.as_str().to_owned(),
        settled_revision: revision_at(connection.status.settled()),
        wanted_revision: revision_at(connection.cache.head()),
        lag_ms: shown
            .values()
            .filter(|shown| shown.status == SyncStatus::Synced)
            .filter_map(|shown| shown.lag_ms)
            .reduce(f64::max),
        last_rejection: types
            .values()
            .filter_map(|status| status.rejected.as_deref())
            .max_by_key(|rejection| rejection.response.at)
            .map(shown_rejection),
        types: shown,
    }
}

/// A proxy whose last stream to `replica` was this, and ended `now`.
pub(super) fn away(connection: &Connection, replica: &str, now: SystemTime) -> ProxyStatus {
    let mut status = connected(connection, replica, now);
    status.connected = false;
    status.disconnected_at = Some(now.into());
    for shown in status.types.values_mut() {
        shown.warming_ms = None;
    }
    status
}

/// As many of `names` as are shown.
pub(super) fn shown_names(names: &[Name]) -> Vec<String> {
    names.iter().take(MOST_NAMES).map(ToString::to_string).collect()
}

/// The version of a response. Incrementally it is the sequence of the cache, which says little as a number: it is shown as the
/// revision, and after a full stop the step within it, if there was one.
pub(super) fn shown_version(stamp: &Stamp) -> String {
    let Stamp { version, sequence, .. } = stamp;
    if **version != sequence.to_string() {
        return version.to_string();
    }
    match sequence - sequence_of(revision_at(*sequence)) {
        0 => revision_at(*sequence).to_string(),
        step => format!("{}.{step}", revision_at(*sequence)),
    }
}

fn shown_type(status: &TypeStatus, now: SystemTime) -> ProxyTypeStatus {
    let nonce = |stamp: &Option<Stamp>| stamp.as_ref().map(|stamp| stamp.nonce.clone());
    let sent = nonce(&status.sent);
    let standing = match &status.sent {
        None => SyncStatus::NotSent,
        Some(_) if sent == nonce(&status.acknowledged) => SyncStatus::Synced,
        Some(_) if sent == status.rejected.as_ref().map(|r| r.response.nonce.clone()) => SyncStatus::Error,
        Some(_) => SyncStatus::Stale,
    };
    let waiting = status.sent.as_ref().filter(|_| standing == SyncStatus::Stale);
    ProxyTypeStatus {
        status: standing,
        sent_version: status.sent.as_ref().map(shown_version),
        sent_revision: status.sent.as_ref().map(|stamp| revision_at(stamp.sequence)),
        sent_at: status.sent.as_ref().map(|stamp| stamp.at.into()),
        acked_version: status.acknowledged.as_ref().map(shown_version),
        acked_revision: status.acknowledged.as_ref().map(|stamp| revision_at(stamp.sequence)),
        acked_at: status.acknowledged.as_ref().map(|stamp| stamp.at.into()),
        lag_ms: status.acknowledged.as_ref().map(|stamp| stamp.after.as_secs_f64() * 1000.0),
        warming_ms: waiting.map(|sent| now.duration_since(sent.at).unwrap_or_default().as_secs_f64() * 1000.0),
        last_rejection: status.rejected.as_deref().map(shown_rejection),
    }
}

fn shown_rejection(rejection: &Rejection) -> ProxyRejection {
    ProxyRejection {
        at: rejection.response.at.into(),
        version: shown_version(&rejection.response),
        revision: revision_at(rejection.response.sequence),
        message: rejection.message.clone(),
        resources: shown_names(&rejection.resources),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_version_is_shown_as_revision_and_step() {
        let shown = |version: &str, sequence| {
            let (version, nonce) = (version.into(), "1".into());
            shown_version(&Stamp { version, nonce, sequence, at: SystemTime::UNIX_EPOCH, after: Duration::ZERO })
        };
        let seven = sequence_of(7);
        assert_eq!(shown(&seven.to_string(), seven), "7");
        assert_eq!(shown(&(seven + 2).to_string(), seven + 2), "7.2");
        assert_eq!(shown("2d06800538d394c2", seven), "2d06800538d394c2");
    }
}
