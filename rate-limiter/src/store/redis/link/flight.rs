//! One call under way, and what its failure means.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use redis::{ErrorKind, RedisError, ServerErrorKind, cluster_routing::Slot};
use tokio::time::Instant;

use crate::store::redis::{
    connect::{Connection, Connector},
    queue::Item,
    script::{Reply, Unexpected, replies},
};

/// A call that has been answered, or not.
pub(super) struct Landed {
    pub(super) items: Vec<Item>,
    /// All its keys lie here. `None`: not a cluster.
    pub(super) slot: Option<Slot>,
    pub(super) sent: Instant,
    pub(super) result: Result<Vec<Reply>, Trouble>,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The connection is gone.
    #[error("the connection to Redis is lost")]
    Lost(#[source] RedisError),
    /// Redis is there, but cannot serve now: loading, a replica, without its cluster.
    #[error("Redis cannot serve now")]
    Away(#[source] RedisError),
    /// Redis refuses: permissions, memory, a foreign value.
    #[error("Redis refuses the script")]
    Refused(#[source] RedisError),
    /// An answer that makes no sense.
    #[error("Redis gave an unexpected answer")]
    Unexpected(#[from] Unexpected),
}

impl Trouble {
    pub(super) fn new(error: RedisError) -> Self {
        use ServerErrorKind::{
            Ask, BusyLoading, ClusterDown, CrossSlot, ExecAbort, MasterDown, Moved, NoPerm, NoScript, NoSub, NotBusy,
            ReadOnly, ResponseError, TryAgain,
        };
        match error.kind() {
            ErrorKind::Server(kind) => match kind {
                BusyLoading | ReadOnly | MasterDown | ClusterDown | TryAgain | Moved | Ask => Self::Away(error),
                ResponseError | ExecAbort | NoScript | CrossSlot | NotBusy | NoSub | NoPerm => Self::Refused(error),
                _ => Self::Refused(error),
            },
            ErrorKind::Io | ErrorKind::Parse | ErrorKind::ClusterConnectionNotFound => Self::Lost(error),
            // NOREPLICAS, OOM, MISCONF and whatever else is not known by name.
            _ => Self::Refused(error),
        }
    }

    /// For the metric.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Lost(_) => "lost",
            Self::Away(_) => "away",
            Self::Refused(_) | Self::Unexpected(_) => "refused",
        }
    }
}

/// Sends `items` as one call.
pub(super) fn launch(
    items: Vec<Item>,
    slot: Option<Slot>,
    mut connection: Connection,
    connector: Arc<Connector>,
    now: Option<u64>,
) -> BoxFuture<'static, Landed> {
    let sent = Instant::now();
    Box::pin(async move {
        let calls = items.iter().map(|item| &item.call);
        let answer = connector.charge(&mut connection, calls.clone(), now).await;
        let result = match answer {
            Ok(value) => replies(&value, calls).map_err(Trouble::from),
            Err(error) => Err(Trouble::new(error)),
        };
        Landed { items, slot, sent, result }
    })
}
