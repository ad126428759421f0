//! Which traces revisions were made in.

use std::collections::BTreeMap;

use serde_json::json;

use super::{change, new_revision, open, service};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

pub async fn a_trace_is_there_with_its_revision_or_not_at_all(url: &str) {
    let store = open(url).await;
    for traced in [true, false, true] {
        let mut write = store.begin().await.unwrap();
        let before = if write.head() > 0 { vec![1] } else { vec![] };
        assert_eq!(write.traces_after(0).await.unwrap().into_keys().collect::<Vec<_>>(), before);
        if traced {
            write.traced(TRACE).await.unwrap();
        }
        let name = format!("s{}", write.head());
        let document = service(&name, json!({}));
        write.commit(new_revision("more", vec![change(&name, None, Some(&document))])).await.unwrap();
    }
    let mut dropped = store.begin().await.unwrap();
    dropped.traced(TRACE).await.unwrap();
    drop(dropped);
    let found = store.traces_after(0).await.unwrap();
    assert_eq!(found, BTreeMap::from([(1, TRACE.to_owned()), (3, TRACE.to_owned())]));
    assert_eq!(store.traces_after(1).await.unwrap().into_keys().collect::<Vec<_>>(), [3]);
}
