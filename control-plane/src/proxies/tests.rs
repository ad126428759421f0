use std::time::{Duration, Instant};

use chancery_proto::type_url;
use chancery_xds::{Resource, StreamStatus, Update};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{commit::Committed, publish::sequence_of};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn proxy(id: &str) -> Arc<ProxyId> {
    Arc::new(ProxyId { fleet: Some(name("edge")), id: name(id) })
}

fn register() -> Arc<Proxies> {
    register_of("here")
}

pub(super) fn register_of(replica: &str) -> Arc<Proxies> {
    let feed = Arc::new(Feed::new("run".to_owned(), &CancellationToken::new()));
    Arc::new(Proxies::new(replica.to_owned(), feed))
}

pub(super) fn connection(id: &str) -> Connection {
    Connection {
        proxy: proxy(id),
        address: None,
        version: None,
        protocol: Protocol::Delta,
        since: SystemTime::UNIX_EPOCH,
        cache: Arc::default(),
        canary: false,
        labels: Arc::default(),
        ended: CancellationToken::new(),
        status: Arc::new(StreamStatus::default()),
    }
}

fn ids(proxies: &Proxies, connected: bool) -> Vec<String> {
    let list = proxies.list(None).into_iter();
    list.filter(|status| status.connected == connected).map(|status| status.id).collect()
}

#[test]
fn a_proxy_is_connected_until_its_last_stream_ends() {
    let proxies = register();
    let first = proxies.connect(connection("one"));
    let second = proxies.connect(Connection { version: Some("1.40.0".to_owned()), ..connection("one") });
    assert_eq!(proxies.list(None)[0].envoy_version.as_deref(), Some("1.40.0"), "the newer stream speaks for it");
    drop(first);
    assert_eq!(ids(&proxies, true), ["one"]);
    drop(second);
    assert_eq!((ids(&proxies, true), ids(&proxies, false)), (vec![], vec!["one".to_owned()]));
    assert!(proxies.list(None)[0].disconnected_at.is_some());
    let _again = proxies.connect(connection("one"));
    assert_eq!((ids(&proxies, true), ids(&proxies, false)), (vec!["one".to_owned()], vec![]));
    assert!(proxies.find(&proxy("one")).is_some_and(|status| status.connected && status.replica == "here"));
    assert!(proxies.find(&proxy("two")).is_none());
}

#[test]
fn of_those_that_went_the_last_are_remembered() {
    let proxies = register();
    for at in 0..MAX_AWAY + 2 {
        drop(proxies.connect(connection(&format!("p-{at}"))));
    }
    let listed = ids(&proxies, false);
    assert_eq!(listed.len(), MAX_AWAY);
    assert!(!listed.contains(&"p-1".to_owned()) && listed.contains(&"p-2".to_owned()));
    assert_eq!(proxies.changed.take(usize::MAX).len(), MAX_AWAY, "and nothing is kept of the others");
}

#[tokio::test]
async fn the_feed_hears_of_a_proxy_and_not_of_its_streams() {
    let proxies = register();
    let mut listener = proxies.feed.listen(None).unwrap();
    let streams = (proxies.connect(connection("one")), proxies.connect(connection("one")));
    drop(streams);
    for expected in ["connected", "disconnected"] {
        let Some(crate::feed::Heard::Event(told)) = listener.next().await else { panic!("nothing") };
        assert_eq!((told.event.name(), told.event.about()), (expected, Some(("one", "edge"))));
    }
}

/// A connection whose cache is at revision 1, and its client.
fn client(id: &str) -> (Connection, chancery_xds::SharedStatus) {
    let connection = connection(id);
    let mut update = Update::default();
    update.upsert(type_url::CLUSTER, Resource::new(type_url::CLUSTER, "a", b"a"));
    connection.cache.apply(sequence_of(1), update);
    let status = connection.status.clone();
    (connection, status)
}

#[tokio::test]
async fn the_slowest_is_who_answered_last_whatever_the_order() {
    let proxies = register();
    let (first, quick) = client("a");
    let (second, slow) = client("b");
    let (third, silent) = client("c");
    let _connected = [first, second, third].map(|connection| proxies.connect(connection));
    let committed = Committed {
        revision: 1,
        changed: Vec::new(),
        fleets: vec![name("edge")],
        limiters: false,
        published: Instant::now(),
    };
    let staged = BTreeMap::new();
    let wait = proxies.wait_applied(&committed, &staged, committed.published + Duration::from_millis(400));
    let answers = async {
        quick.on_settled(sequence_of(1));
        tokio::time::sleep(Duration::from_millis(50)).await;
        slow.on_settled(sequence_of(1));
    };
    let (applied, ()) = tokio::join!(wait, answers);
    assert_eq!((applied.proxies, applied.applied, applied.timed_out), (3, 2, true));
    assert_eq!(applied.pending, ["c"]);
    assert!((50.0..400.0).contains(&applied.slowest_ms), "{} ms", applied.slowest_ms);
    drop(silent);
}
