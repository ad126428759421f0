//! What fleets are not served.

use chancery_control_plane::store::{QuarantineKey, QuarantineRecord};

use super::open;

fn record(fleet: &str, name: &str, version: &str, good: Option<&[u8]>) -> QuarantineRecord {
    let [fleet, form, type_url, name, version] = [fleet, "byHost", "type/A", name, version].map(str::to_owned);
    let key = QuarantineKey { fleet, form, type_url, name, version };
    QuarantineRecord { key, good: good.map(<[u8]>::to_vec), cause: r#"{"words":"it's \"bad\" 😀"}"#.to_owned() }
}

pub async fn what_is_quarantined_is_kept_as_it_is(url: &str) {
    let store = open(url).await;
    assert_eq!(store.quarantined().await.unwrap(), []);
    let (a, b) = (record("edge", "B", "1", Some(&[0, 255, 10])), record("edge", "a", "1", None));
    store.quarantine(vec![b.clone(), a.clone()]).await.unwrap();
    store.quarantine(vec![a.clone()]).await.unwrap();
    assert_eq!(store.quarantined().await.unwrap(), [a.clone(), b.clone()], "by bytes");
    assert_eq!(open(url).await.head().await.unwrap(), 0, "that is no revision");
    store.release(vec![b.key, record("far", "B", "1", None).key]).await.unwrap();
    assert_eq!(store.quarantined().await.unwrap(), [a]);
}

pub async fn a_resource_is_quarantined_in_one_version(url: &str) {
    let store = open(url).await;
    let (old, new) = (record("edge", "a", "1", None), record("edge", "a", "2", Some(&[1])));
    store.quarantine(vec![old.clone()]).await.unwrap();
    store.quarantine(vec![new.clone()]).await.unwrap();
    assert_eq!(store.quarantined().await.unwrap(), std::slice::from_ref(&new));
    store.release(vec![old.key]).await.unwrap();
    assert_eq!(store.quarantined().await.unwrap(), [new], "that version was not recorded any more");
}
