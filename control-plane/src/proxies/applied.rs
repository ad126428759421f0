//! How far a revision has arrived, and the wait for it.

use std::{collections::BTreeMap, time::Instant};

use chancery_proto::type_url::short_name;
use chancery_xds::Rejection;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Connection, Proxies, ProxyId};
use crate::{commit::Committed, model::Name, publish::sequence_of};

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
    /// Fleets that get it in stages, canaries first: their proxies are not waited for. `GET /api/v1/rollouts/{fleet}` says how far
    /// it has come.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub staged: Vec<String>,
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

impl Proxies {
    /// Waits until every proxy and limiter that is connected to this replica and gets something new by what was committed
    /// has answered, or until `deadline`; but for the fleets that are `staged`.
    pub async fn wait_applied(
        &self,
        committed: &Committed,
        staged: &BTreeMap<Name, u64>,
        deadline: Instant,
    ) -> Applied {
        let Committed { fleets, limiters, revision, published, .. } = committed;
        let (staged, fleets): (Vec<&Name>, Vec<&Name>) = fleets.iter().partition(|fleet| staged.contains_key(*fleet));
        let concerns = |fleet: &Option<Name>| fleet.as_ref().map_or(*limiters, |fleet| fleets.contains(&fleet));
        let concerned = self.connections(|c| concerns(&c.proxy.fleet) && c.cache.head() >= sequence_of(*revision));
        let mut applied = Applied {
            proxies: concerned.len(),
            staged: staged.iter().map(ToString::to_string).collect(),
            ..Applied::default()
        };
        // All at once: the time of each is when it answered, and not when it was its turn to be asked.
        let mut waits: FuturesUnordered<_> = concerned
            .into_iter()
            .map(|connection| async move {
                let settled = arrived(&connection, *revision, deadline).await;
                (connection, settled.then(Instant::now))
            })
            .collect();
        while let Some((connection, settled)) = waits.next().await {
            let Some(settled) = settled else {
                applied.pending.push(connection.proxy.id.to_string());
                continue;
            };
            let refusals = connection.status.rejections_since(sequence_of(*revision));
            if refusals.is_empty() {
                applied.applied += 1;
            }
            applied.refused.extend(
                refusals.into_iter().map(|(type_url, rejection)| refusal(&connection.proxy, &type_url, rejection)),
            );
            let took = settled.saturating_duration_since(*published).as_secs_f64() * 1000.0;
            applied.slowest_ms = applied.slowest_ms.max(took);
        }
        applied.pending.sort();
        applied.refused.sort_by(|a, b| a.proxy.cmp(&b.proxy));
        applied.timed_out = !applied.pending.is_empty();
        applied
    }
}

async fn arrived(connection: &Connection, revision: u64, deadline: Instant) -> bool {
    let arrived = connection.status.settled_at(sequence_of(revision));
    tokio::time::timeout_at(deadline.into(), arrived).await.is_ok()
}

fn refusal(proxy: &ProxyId, type_url: &str, rejection: Rejection) -> Refusal {
    let resource = match rejection.resources.as_slice() {
        [one] => Some(one.to_string()),
        _ => None,
    };
    Refusal {
        proxy: proxy.id.to_string(),
        resource_type: short_name(type_url).to_owned(),
        resource,
        reason: rejection.message,
    }
}
