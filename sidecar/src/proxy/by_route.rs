//! What a cluster keeps of each of its routes: how long requests take, where they are hedged, and what is counted of them.
//!
//! By route, since one cluster may answer one kind of request in a millisecond and another in a second. Routes without a name share
//! a record, as do those beyond a bound: names come from the configuration, and whoever renames routes all day must not fill the memory.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

/// Routes of a cluster that have a record of their own.
const MOST_ROUTES: usize = 256;

/// The records of a cluster.
pub struct ByRoute<T> {
    known: Mutex<HashMap<Arc<str>, Arc<T>>>,
}

impl<T> Default for ByRoute<T> {
    fn default() -> Self {
        Self { known: Mutex::default() }
    }
}

impl<T> ByRoute<T> {
    /// The record of a route, by its name; made for it, or for those that share one, if there is none yet.
    pub fn of(&self, route: &Arc<str>, make: impl FnOnce(&Arc<str>) -> T) -> Arc<T> {
        let mut known = self.known.lock();
        if let Some(record) = known.get(route) {
            return record.clone();
        }
        let key = if known.len() < MOST_ROUTES { route.clone() } else { Arc::default() };
        let record = known.entry(key);
        let name = record.key().clone();
        record.or_insert_with(|| Arc::new(make(&name))).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_has_its_own_record_up_to_a_bound() {
        let records = ByRoute::default();
        let of = |route: String| records.of(&route.into(), Arc::clone);
        assert!(Arc::ptr_eq(&of("a".into()), &of("a".into())));
        assert_eq!((&**of("a".into()), &**of("b".into())), ("a", "b"));
        for n in 0..1_000 {
            of(format!("route-{n}"));
        }
        assert_eq!(&**of("new".into()), "");
        assert!(Arc::ptr_eq(&of("new".into()), &of("newer".into())));
        assert!(records.known.lock().len() <= MOST_ROUTES + 1);
    }
}
