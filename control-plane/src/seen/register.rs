//! The fleets whose proxies tell what they see.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use time::OffsetDateTime;

use super::{Request, Requests};
use crate::model::Name;

/// How many streams of one proxy are read: each of its threads has one for each way in which its listeners send.
pub const MOST_STREAMS: usize = 512;

/// What fleets have seen.
#[derive(Debug, Default)]
pub struct Seen {
    fleets: Mutex<BTreeMap<Name, Arc<Fleet>>>,
}

#[derive(Debug, Default)]
struct Fleet {
    requests: Mutex<Requests>,
    /// How many streams each proxy has.
    streams: Mutex<BTreeMap<Name, usize>>,
}

/// A stream on which a proxy tells; dropping it ends that, and leaves what it has told.
#[derive(Debug)]
pub struct Reporting {
    fleet: Arc<Fleet>,
    proxy: Name,
}

impl Seen {
    /// Registers a stream of a proxy; `None` if it has too many. What was kept of fleets that are not there any more is forgotten.
    pub fn connect(&self, fleet: &Name, proxy: Name, is_there: impl Fn(&Name) -> bool) -> Option<Reporting> {
        let fleet = {
            let mut fleets = self.fleets.lock();
            fleets.retain(|name, _| name == fleet || is_there(name));
            fleets.entry(fleet.clone()).or_default().clone()
        };
        {
            let mut streams = fleet.streams.lock();
            let own = streams.entry(proxy.clone()).or_default();
            if *own >= MOST_STREAMS {
                return None;
            }
            *own += 1;
        }
        Some(Reporting { fleet, proxy })
    }

    /// What a fleet has seen.
    pub fn of(&self, fleet: &Name) -> Requests {
        let fleet = self.fleets.lock().get(fleet).cloned();
        fleet.map(|fleet| fleet.requests.lock().clone()).unwrap_or_default()
    }

    /// Forgets what a fleet has seen.
    pub fn forget(&self, fleet: &Name) {
        self.fleets.lock().remove(fleet);
    }
}

impl Reporting {
    /// Takes in what was seen, told at `now`.
    pub fn note(&self, seen: Vec<Option<Request>>, now: OffsetDateTime) {
        let mut requests = self.fleet.requests.lock();
        for request in seen {
            requests.note(request, now);
        }
    }
}

impl Drop for Reporting {
    fn drop(&mut self) {
        let mut streams = self.fleet.streams.lock();
        if let Some(own) = streams.get_mut(&self.proxy) {
            *own -= 1;
            if *own == 0 {
                streams.remove(&self.proxy);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn seen(path: &str) -> Vec<Option<Request>> {
        vec![Some(Request { method: "GET", authority: "a".into(), path: path.into() })]
    }

    #[test]
    fn what_a_fleet_has_seen_outlives_its_streams_and_goes_with_the_fleet() {
        let (all, now) = (Seen::default(), OffsetDateTime::UNIX_EPOCH);
        let [one, two] = ["one", "two"].map(|proxy| all.connect(&name("edge"), name(proxy), |_| true).unwrap());
        one.note(seen("/a"), now);
        two.note(seen("/a"), now);
        drop((one, two));
        let edge = all.of(&name("edge"));
        assert_eq!(edge.newest().map(|seen| seen.count).collect::<Vec<_>>(), [2]);
        assert_eq!(all.of(&name("core")).total(), 0, "the other fleet has seen nothing");
        assert!(all.fleets.lock()[&name("edge")].streams.lock().is_empty());

        let _core = all.connect(&name("core"), name("one"), |fleet| fleet.as_str() != "edge");
        assert_eq!(all.of(&name("edge")).total(), 0, "it is not there any more");
        all.forget(&name("core"));
        assert!(all.fleets.lock().is_empty());
    }

    #[test]
    fn a_proxy_has_so_many_streams_and_no_more() {
        let all = Seen::default();
        let connect = |proxy| all.connect(&name("edge"), name(proxy), |_| true);
        let mut streams: Vec<_> = std::iter::from_fn(|| connect("one")).collect();
        assert_eq!(streams.len(), MOST_STREAMS);
        assert!(connect("two").is_some(), "others have their own");
        streams.pop();
        assert!(connect("one").is_some());
    }
}
