//! Giving back at the end: many cells at a time, as it must be done in a moment.

use std::collections::HashMap;

use futures_util::{StreamExt as _, stream};
use redis::{RedisError, cluster_routing::Slot};

use super::{
    connect::{Connection, Connector},
    script::{Call, MOST_KEYS},
};

/// Calls that are under way at once.
const UNDER_WAY: usize = 32;

/// Gives back `calls`. All of them are tried; the first failure is told.
pub(super) async fn give_back(
    connector: &Connector,
    connection: &Connection,
    calls: &[Call],
    now: Option<u64>,
) -> Result<(), RedisError> {
    let lots = if connection.is_cluster() { by_slot(calls) } else { vec![calls.to_vec()] };
    let mut returning = Vec::new();
    for lot in lots.iter().flat_map(|lot| lot.chunks(MOST_KEYS)) {
        let mut connection = connection.clone();
        returning.push(async move { connector.charge(&mut connection, lot.iter(), now).await });
    }
    let returned: Vec<_> = stream::iter(returning).buffer_unordered(UNDER_WAY).collect().await;
    returned.into_iter().try_for_each(|answer| answer.map(drop))
}

fn by_slot(calls: &[Call]) -> Vec<Vec<Call>> {
    let mut slots: HashMap<Slot, Vec<Call>> = HashMap::new();
    for call in calls {
        slots.entry(Slot::for_key(call.key())).or_default().push(*call);
    }
    slots.into_values().collect()
}
