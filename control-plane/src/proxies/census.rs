//! How many of the proxies that are connected here stand how, by fleet.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use chancery_xds::TypeStatus;

use super::{Connection, Proxies, newest};

/// How long an answer may be out before a proxy counts as stale: far longer than any healthy one takes.
const STALE_AFTER: Duration = Duration::from_secs(30);

/// How a proxy stands with what it was sent, the worst of its types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It has applied it, or has just been sent it.
    Synced,
    /// It has not answered for half a minute.
    Stale,
    /// It has refused what it was sent last.
    Error,
}

impl Standing {
    /// All of them, the best first.
    pub const ALL: [Self; 3] = [Self::Synced, Self::Stale, Self::Error];

    /// As it is called in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::Stale => "stale",
            Self::Error => "error",
        }
    }

    fn of(status: &TypeStatus, now: SystemTime) -> Self {
        let Some(sent) = &status.sent else { return Self::Synced };
        if status.acknowledged.as_ref().is_some_and(|stamp| stamp.nonce == sent.nonce) {
            Self::Synced
        } else if status.rejected.as_ref().is_some_and(|rejection| rejection.response.nonce == sent.nonce) {
            Self::Error
        } else if now.duration_since(sent.at).is_ok_and(|waited| waited > STALE_AFTER) {
            Self::Stale
        } else {
            Self::Synced
        }
    }
}

impl Proxies {
    /// How many of a fleet stand how, in the order of [`Standing::ALL`]; limiters under the empty name.
    pub fn census(&self, now: SystemTime) -> BTreeMap<String, [u32; Standing::ALL.len()]> {
        let mut census: BTreeMap<String, [u32; Standing::ALL.len()]> = BTreeMap::new();
        let state = self.state.lock();
        for (proxy, streams) in &state.connected {
            let Some(connection) = newest(streams) else { continue };
            let counts = match census.get_mut(proxy.fleet()) {
                Some(counts) => counts,
                None => census.entry(proxy.fleet().to_owned()).or_default(),
            };
            counts[standing(connection, now) as usize] += 1;
        }
        census
    }
}

fn standing(connection: &Connection, now: SystemTime) -> Standing {
    let mut worst = Standing::Synced;
    connection.status.look(|_, status| worst = worst.max(Standing::of(status, now)));
    worst
}

#[cfg(test)]
mod tests {
    use chancery_xds::{Rejection, Stamp};

    use super::*;

    fn stamp(nonce: &str, at: SystemTime) -> Stamp {
        Stamp { version: "1".into(), nonce: nonce.into(), sequence: 1, at, after: Duration::ZERO }
    }

    #[test]
    fn a_proxy_is_stale_only_when_it_keeps_silent() {
        let now = SystemTime::now();
        let (lately, long_ago) = (now - Duration::from_secs(1), now - Duration::from_secs(31));
        let sent = |nonce: &str, at| TypeStatus { sent: Some(stamp(nonce, at)), ..TypeStatus::default() };
        assert_eq!(Standing::of(&TypeStatus::default(), now), Standing::Synced);
        assert_eq!(Standing::of(&sent("2", lately), now), Standing::Synced);
        assert_eq!(Standing::of(&sent("2", long_ago), now), Standing::Stale);
        // What it said of an earlier response does not count.
        let behind = TypeStatus { acknowledged: Some(stamp("1", long_ago)), ..sent("2", long_ago) };
        assert_eq!(Standing::of(&behind, now), Standing::Stale);
        let taken = TypeStatus { acknowledged: Some(stamp("2", lately)), ..sent("2", long_ago) };
        assert_eq!(Standing::of(&taken, now), Standing::Synced);
        let response = stamp("2", lately);
        let rejected = Some(Box::new(Rejection { response, message: "no".to_owned(), resources: Vec::new() }));
        assert_eq!(Standing::of(&TypeStatus { rejected, ..sent("2", lately) }, now), Standing::Error);
    }
}
