//! The proxies of all replicas: of those here what the register says, of others what is in the database.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, SystemTime},
};

use super::{Proxies, ProxyStatus};
use crate::{
    model::Name,
    store::{FoundProxy, Store, StoreError},
};

/// How long the database may take; without it there is less to say, but soon.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// The proxies that are known.
#[derive(Clone, Debug)]
pub struct Everywhere {
    /// By fleet and id.
    pub proxies: Vec<ProxyStatus>,
    /// Whether those of other replicas are among them.
    pub complete: bool,
}

impl Proxies {
    /// Every proxy and limiter that is known to any replica, of one fleet or all, called `id` or whatever. Without `store`,
    /// only those of this replica.
    pub async fn everywhere(&self, store: &dyn Store, fleet: Option<&Name>, id: Option<&str>) -> Everywhere {
        let found = tokio::time::timeout(ANSWER_WITHIN, store.proxies(fleet.map(Name::as_str), id)).await;
        let found = found.unwrap_or_else(|elapsed| Err(StoreError::Unavailable(elapsed.into())));
        let complete = found.is_ok();
        let mut here = self.list(fleet);
        here.retain(|status| id.is_none_or(|id| status.id == id));
        let proxies = merge(&self.replica, here, found.unwrap_or_default(), SystemTime::now());
        Everywhere { proxies, complete }
    }
}

/// One of each. Who is connected here is as it is known here; of the others, the database knows who spoke last.
fn merge(replica: &str, here: Vec<ProxyStatus>, found: Vec<FoundProxy>, now: SystemTime) -> Vec<ProxyStatus> {
    let key = |status: &ProxyStatus| (status.fleet.clone(), status.id.clone());
    let connected: HashSet<_> = here.iter().filter(|status| status.connected).map(key).collect();
    let mut merged: BTreeMap<_, _> = here.into_iter().map(|status| (key(&status), status)).collect();
    for FoundProxy { record, replica: by, replica_lives } in found {
        let key = (record.fleet, record.id);
        if connected.contains(&key) || by == replica && merged.contains_key(&key) {
            continue;
        }
        // Written by a newer replica, maybe; this one cannot show it.
        let Ok(status) = serde_json::from_str::<ProxyStatus>(&record.status) else { continue };
        // What this replica wrote and does not know, it wrote before it was started again.
        let still = record.connected && by != replica;
        merged.insert(key, status.seen_from_afar(still, replica_lives, now));
    }
    merged.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::{
        super::{status, tests::connection},
        *,
    };
    use crate::store::ProxyRecord;

    fn written(id: &str, replica: &str, connected: bool, replica_lives: bool) -> FoundProxy {
        let status = status::connected(&connection(id), replica, SystemTime::UNIX_EPOCH);
        let status = serde_json::to_string(&status).unwrap();
        let record = ProxyRecord { fleet: "edge".to_owned(), id: id.to_owned(), connected, status };
        FoundProxy { record, replica: replica.to_owned(), replica_lives }
    }

    #[test]
    fn each_proxy_is_shown_once_by_who_knows_best() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(9);
        let here = |id: &str| status::connected(&connection(id), "here", now);
        let left = |id: &str| status::away(&connection(id), "here", now);
        let known = vec![here("a-here"), here("b-back"), left("c-moved"), left("d-left")];
        let found = vec![
            written("b-back", "there", true, true),
            written("c-moved", "there", true, true),
            written("d-left", "here", true, true),
            written("e-there", "there", true, true),
            written("f-gone", "there", false, true),
            written("g-lost", "dead", true, false),
            written("h-before", "here", true, true),
            FoundProxy {
                record: ProxyRecord { status: "{}".to_owned(), ..written("i", "x", true, true).record },
                ..written("i", "x", true, true)
            },
        ];
        let shown = merge("here", known, found, now).into_iter();
        let shown: Vec<_> = shown.map(|s| (s.id, s.replica, s.connected, s.replica_lost)).collect();
        let expected = [
            ("a-here", "here", true, false),
            ("b-back", "here", true, false),
            ("c-moved", "there", true, false),
            ("d-left", "here", false, false),
            ("e-there", "there", true, false),
            ("f-gone", "there", false, false),
            ("g-lost", "dead", false, true),
            ("h-before", "here", false, false),
        ];
        assert_eq!(shown, expected.map(|(id, replica, on, lost)| (id.to_owned(), replica.to_owned(), on, lost)));
    }
}
