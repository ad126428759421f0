//! How long the requests of each route of a cluster take, for the clusters whose requests are hedged.
//!
//! By route, since one cluster may answer one kind of request in a millisecond and another in a second: what is slow for one is
//! not for the other. Routes without a name share a record, as do those beyond a bound: names come from the
//! configuration, and whoever renames routes all day must not fill the memory.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use crate::policy::hedge::Latencies;

/// Routes of a cluster that have a record of their own.
const MOST_ROUTES: usize = 256;

/// The records of a cluster.
#[derive(Default)]
pub struct Hedging {
    by_route: Mutex<HashMap<Arc<str>, Arc<Mutex<Latencies>>>>,
}

impl Hedging {
    /// The record of a route, by its name.
    pub fn of(&self, route: &Arc<str>) -> Arc<Mutex<Latencies>> {
        let mut known = self.by_route.lock();
        let own = known.contains_key(route) || known.len() < MOST_ROUTES;
        let key = if own { route.clone() } else { Arc::default() };
        known.entry(key).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_has_its_own_record_up_to_a_bound() {
        let hedging = Hedging::default();
        let of = |route: String| hedging.of(&route.into());
        assert!(Arc::ptr_eq(&of("a".into()), &of("a".into())));
        assert!(!Arc::ptr_eq(&of("a".into()), &of("b".into())));
        for n in 0..1_000 {
            of(format!("route-{n}"));
        }
        assert!(Arc::ptr_eq(&of("new".into()), &of("newer".into())));
        assert!(hedging.by_route.lock().len() <= MOST_ROUTES + 1);
    }
}
