//! A URL names a primary of Postgres and its replica: the store is with the one that takes writes, also after the other one was promoted.

#![allow(clippy::unwrap_used, reason = "a panic here is the report of a failed test")]

#[allow(dead_code, unused_macros, reason = "only its tools are used here")]
#[path = "../../control-plane/src/store/conformance/mod.rs"]
mod conformance;

use anyhow::ensure;
use chancery_control_plane::store::{StoreError, survey};
use chancery_e2e::{
    postgres::{Postgres, Stop},
    wait::{PATIENCE, until},
};
use conformance::{change, create, open, service, try_commit};
use serde_json::json;

#[tokio::test]
async fn the_replica_that_takes_the_place_of_its_primary_is_found() {
    let Some(mut primary) = Postgres::start().await.unwrap() else { return };
    let database = primary.create_database().await.unwrap();
    let replica = primary.replica().await.unwrap();
    let (_, name) = database.rsplit_once('/').unwrap();
    let url = |ports: [u16; 2], rest: &str| {
        format!("postgres://postgres@127.0.0.1:{},127.0.0.1:{}/{name}{rest}", ports[0], ports[1])
    };
    // The first of the hosts is the one that is read only.
    let first = url([replica.port(), primary.port()], "?target_session_attrs=read-write");
    let store = open(&first).await;
    let other = open(&url([primary.port(), replica.port()], "")).await;
    let before = create(&store, "before").await;
    assert_eq!(other.head().await.unwrap(), 1);
    let single = survey(&format!("postgres://postgres@127.0.0.1:{}/{name}", replica.port())).await.unwrap();
    assert!(single.behind.is_some(), "a URL of one host leads there, whatever it is: {single:?}");
    assert!(survey(&first).await.unwrap().behind.is_none());

    primary.stop(Stop::Immediate).await.unwrap();
    let lost = service("lost", json!({}));
    let refused = try_commit(&store, "lost", vec![change("lost", None, Some(&lost))]).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    let Err(StoreError::Unavailable(cause)) = survey(&first).await else { panic!("neither takes writes") };
    let cause = cause.to_string();
    let read_only = format!("127.0.0.1:{} is read-only", replica.port());
    assert!(cause.contains(&read_only) && cause.contains(&primary.port().to_string()), "{cause}");

    let mut wakeups = other.wakeups();
    replica.promote().unwrap();
    let document = service("after", json!({}));
    let after = until("writes are stored again", PATIENCE, async || {
        Ok(try_commit(&store, "after", vec![change("after", None, Some(&document))]).await?)
    });
    let after = after.await.unwrap();
    assert_eq!(other.revisions_after(0).await.unwrap(), [before, after]);
    until("others hear of it", PATIENCE, async || {
        wakeups.mark_unchanged();
        let head = store.head().await?;
        let document = service(&format!("s{head}"), json!({}));
        try_commit(&store, "more", vec![change(&format!("s{head}"), None, Some(&document))]).await?;
        let heard = tokio::time::timeout(std::time::Duration::from_millis(500), wakeups.changed()).await;
        ensure!(heard.is_ok(), "not within half a second");
        Ok(())
    })
    .await
    .unwrap();
}
