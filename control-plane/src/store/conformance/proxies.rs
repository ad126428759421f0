//! What replicas say of their proxies.

use chancery_control_plane::store::{FoundProxy, ProxyRecord, REMEMBERED};

use super::open;

fn record(fleet: &str, id: &str, connected: bool, status: &str) -> ProxyRecord {
    let owned = str::to_owned;
    ProxyRecord { fleet: owned(fleet), id: owned(id), connected, status: owned(status) }
}

fn shown(found: &[FoundProxy]) -> Vec<String> {
    let one = |FoundProxy { record, replica, replica_lives }: &FoundProxy| {
        let ProxyRecord { fleet, id, connected, status } = record;
        let connected = if *connected { "on" } else { "off" };
        let lives = if *replica_lives { "" } else { " (lost)" };
        format!("{fleet}/{id} {connected} {replica}{lives} {status}")
    };
    found.iter().map(one).collect()
}

pub async fn a_proxy_is_what_its_last_replica_said(url: &str) {
    let store = open(url).await;
    assert_eq!(store.proxies(None, None).await.unwrap(), []);
    store.replica_begins("left").await.unwrap();
    let first = vec![record("edge", "b", true, "1"), record("edge", "a", true, "2"), record("", "a", true, "3")];
    store.record_proxies("left", first).await.unwrap();
    store.record_proxies("right", vec![record("edge", "b", true, "4")]).await.unwrap();
    assert_eq!(
        shown(&store.proxies(None, None).await.unwrap()),
        ["/a on left 3", "edge/a on left 2", "edge/b on right (lost) 4"]
    );
    store.replica_lives("right").await.unwrap();
    store.replica_lives("right").await.unwrap();

    // It has moved on: that the old stream ended says nothing.
    let gone = vec![record("edge", "b", false, "5"), record("edge", "a", false, "6")];
    store.record_proxies("left", gone).await.unwrap();
    assert_eq!(shown(&store.proxies(Some("edge"), None).await.unwrap()), ["edge/a off left 6", "edge/b on right 4"]);
    assert_eq!(shown(&store.proxies(Some(""), Some("a")).await.unwrap()), ["/a on left 3"]);
    assert_eq!(shown(&store.proxies(None, Some("b")).await.unwrap()), ["edge/b on right 4"]);
    assert_eq!(store.connected_to("left").await.unwrap(), [(String::new(), "a".to_owned())]);
}

pub async fn a_replica_that_begins_or_ends_has_no_proxies(url: &str) {
    let store = open(url).await;
    let status = async || shown(&store.proxies(None, None).await.unwrap());
    store.replica_begins("left").await.unwrap();
    store.record_proxies("left", vec![record("edge", "a", true, "1")]).await.unwrap();
    store.record_proxies("right", vec![record("edge", "b", true, "2")]).await.unwrap();
    assert_eq!(status().await, ["edge/a on left 1", "edge/b on right (lost) 2"]);
    store.replica_begins("left").await.unwrap();
    assert_eq!(status().await, ["edge/a off left 1", "edge/b on right (lost) 2"]);
    store.record_proxies("left", vec![record("edge", "a", true, "1")]).await.unwrap();
    store.replica_ends("left").await.unwrap();
    assert_eq!(status().await, ["edge/a off left (lost) 1", "edge/b on right (lost) 2"]);
}

pub async fn many_proxies_are_recorded_at_once_as_they_are(url: &str) {
    let store = open(url).await;
    store.record_proxies("left", Vec::new()).await.unwrap();
    let status = r#"{"words":"it's \"bad\" \u0000 \n 😀"}"#;
    let records: Vec<_> = (0..1000).map(|n| record("edge", &format!("p{n:04}"), n % 2 == 0, status)).collect();
    store.record_proxies("left", records.clone()).await.unwrap();
    let found = store.proxies(None, None).await.unwrap();
    assert_eq!(found.into_iter().map(|found| found.record).collect::<Vec<_>>(), records);
    assert_eq!(store.head().await.unwrap(), 0, "that is no revision");
}

pub async fn only_so_many_that_are_gone_are_remembered(url: &str) {
    let store = open(url).await;
    store.replica_begins("left").await.unwrap();
    let gone = |range: std::ops::Range<u32>| range.map(|n| record("edge", &format!("p{n}"), false, "1")).collect();
    store.record_proxies("left", gone(0..2)).await.unwrap();
    store.record_proxies("left", vec![record("edge", "here", true, "1")]).await.unwrap();
    // That one is as good as gone.
    store.record_proxies("right", vec![record("edge", "lost", true, "1")]).await.unwrap();
    store.forget_proxies().await.unwrap();
    assert_eq!(store.proxies(None, None).await.unwrap().len(), 4);
    store.record_proxies("left", gone(2..REMEMBERED + 1)).await.unwrap();
    store.forget_proxies().await.unwrap();
    assert_eq!(store.proxies(None, None).await.unwrap().len(), REMEMBERED as usize + 1);
    let there = async |id: &str| !store.proxies(None, Some(id)).await.unwrap().is_empty();
    // Of those that were written first, in whatever order: a clock may tell no difference.
    assert!(there("here").await && !(there("p0").await && there("p1").await));
}
