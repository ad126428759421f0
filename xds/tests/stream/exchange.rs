//! What client and server say to each other on one stream, over TCP.

use crate::support::{Served, until, version};
use chancery_proto::type_url::{CLUSTER, ENDPOINT, LISTENER, ROUTE};

const T: &str = "type.example/T";

#[tokio::test]
async fn an_incremental_client_gets_what_changes_and_only_that() {
    let served = Served::by_default().await;
    served.apply(&[(T, "a", "1"), (T, "b", "1")], &[]);
    let mut client = served.delta().await;
    client.subscribe(T, &["*"]).await;
    let first = client.expect_and_ack(T, &["a", "b"], &[]).await;
    let a = &first.resources[0];
    assert_eq!((a.version.clone(), a.resource.as_ref().unwrap().value.as_slice()), (version("1"), b"1".as_slice()));
    served.apply(&[(T, "a", "2")], &[(T, "b")]);
    client.expect_and_ack(T, &["a"], &["b"]).await;
    served.set(T, "a", "2");
    client.expect_nothing().await;
}

#[tokio::test]
async fn a_state_of_the_world_client_gets_what_changes_and_only_that() {
    let served = Served::by_default().await;
    served.apply(&[(T, "a", "1"), (T, "b", "1")], &[]);
    let mut client = served.sotw().await;
    client.ask(T, &["a", "b", "c"]).await;
    let first = client.expect(T, &["1", "1"]).await;
    client.ack(&first, &["a", "b", "c"]).await;
    served.set(T, "a", "2");
    let second = client.expect(T, &["2"]).await;
    assert_ne!(first.version_info, second.version_info);
    client.ack(&second, &["a", "b", "c"]).await;
    served.set(T, "c", "new");
    let third = client.expect(T, &["new"]).await;
    client.ack(&third, &["a", "b", "c"]).await;
    served.set(T, "other", "1");
    client.expect_nothing().await;
}

#[tokio::test]
async fn where_absence_deletes_a_response_has_everything() {
    let served = Served::by_default().await;
    served.apply(&[(LISTENER, "a", "1"), (LISTENER, "b", "2")], &[]);
    let mut client = served.sotw().await;
    client.ask(LISTENER, &[]).await;
    let first = client.expect(LISTENER, &["1", "2"]).await;
    client.ack(&first, &[]).await;
    served.apply(&[(LISTENER, "c", "3")], &[(LISTENER, "a")]);
    client.expect(LISTENER, &["2", "3"]).await;
}

#[tokio::test]
async fn an_incremental_name_without_resource_is_answered_at_once() {
    let served = Served::by_default().await;
    let mut client = served.delta().await;
    client.subscribe(ROUTE, &["r"]).await;
    client.expect_and_ack(ROUTE, &[], &["r"]).await;
    served.set(ROUTE, "r", "1");
    client.expect_and_ack(ROUTE, &["r"], &[]).await;
}

#[tokio::test]
async fn a_hundred_changes_before_the_answer_are_one_response() {
    let served = Served::by_default().await;
    served.set(T, "a", "0");
    let mut client = served.delta().await;
    client.subscribe(T, &["*"]).await;
    let first = client.expect(T, &["a"], &[]).await;
    for change in 1..=100 {
        served.set(T, "a", &change.to_string());
    }
    client.expect_nothing().await;
    client.ack(&first).await;
    let second = client.expect_and_ack(T, &["a"], &[]).await;
    assert_eq!(second.resources[0].version, version("100"));
    client.expect_nothing().await;
}

#[tokio::test]
async fn the_status_follows_what_is_sent_and_acknowledged() {
    let served = Served::by_default().await;
    let mut client = served.delta().await;
    client.subscribe(T, &["*"]).await;
    let empty = client.expect(T, &[], &[]).await;
    let status = served.type_status(T);
    assert_eq!(status.sent.as_ref().map(|sent| &*sent.nonce), Some(&*empty.nonce));
    assert_eq!((status.acknowledged, status.rejected), (None, None));
    client.ack(&empty).await;

    let sequence = served.set(T, "a", "1");
    let response = client.expect(T, &["a"], &[]).await;
    let sent = served.type_status(T).sent.unwrap();
    assert_eq!(
        (sent.sequence, sent.version, sent.nonce),
        (sequence, (&*response.system_version_info).into(), (&*response.nonce).into())
    );
    assert!(served.status().settled() < sequence);

    client.ack(&response).await;
    crate::support::soon(served.status().settled_at(sequence)).await;
    assert_eq!(served.status().settled(), sequence);
    let acknowledged = served.type_status(T).acknowledged.unwrap();
    assert_eq!((acknowledged.sequence, &*acknowledged.nonce), (sequence, &*response.nonce));
    assert!(served.status().rejections_since(0).is_empty());
}

#[tokio::test]
async fn a_rejection_is_recorded_with_its_reason_and_not_answered() {
    let served = Served::by_default().await;
    let sequence = served.apply(&[(T, "good", "1"), (T, "bad", "1")], &[]);
    let mut client = served.delta().await;
    client.subscribe(T, &["*"]).await;
    let response = client.expect(T, &["bad", "good"], &[]).await;
    client.nack(&response, "bad: no such thing").await;
    client.expect_nothing().await;
    let rejections = served.status().rejections_since(sequence);
    let (type_url, rejection) = &rejections[0];
    assert_eq!((&**type_url, rejection.message.as_str()), (T, "bad: no such thing"));
    assert_eq!(rejection.resources, ["bad".into()]);
    assert_eq!(served.type_status(T).acknowledged, None);
    until("settled, by a rejection", || served.status().settled() == sequence).await;
    assert!(served.status().rejections_since(sequence + 1).is_empty());

    served.set(T, "bad", "2");
    client.expect_and_ack(T, &["bad"], &[]).await;
    client.expect_nothing().await;
}

#[tokio::test]
async fn a_rejection_of_a_full_state_is_not_answered_either() {
    let served = Served::by_default().await;
    served.set(CLUSTER, "a", "1");
    let mut client = served.sotw().await;
    client.ask(CLUSTER, &[]).await;
    let response = client.expect(CLUSTER, &["1"]).await;
    client.nack(&response, &[], "no").await;
    client.expect_nothing().await;
    assert_eq!(served.type_status(CLUSTER).rejected.unwrap().message, "no");
    served.set(CLUSTER, "a", "2");
    client.expect(CLUSTER, &["2"]).await;
}

#[tokio::test]
async fn a_client_that_moves_to_another_replica_is_sent_only_what_it_may_lack() {
    let content =
        [(CLUSTER, "c", "cluster"), (ENDPOINT, "c", "endpoints"), (LISTENER, "l", "listener"), (ROUTE, "l", "route")];
    let (here, there) = (Served::by_default().await, Served::by_default().await);
    here.apply(&content, &[]);
    for resource in content.iter().rev() {
        there.apply(&[*resource], &[]);
    }

    let mut client = here.delta().await;
    client.subscribe(CLUSTER, &[]).await;
    let clusters = client.expect_and_ack(CLUSTER, &["c"], &[]).await;
    let mut client = there.delta().await;
    client.subscribe_with(CLUSTER, &[], &[("c", clusters.resources[0].version.clone())]).await;
    client.subscribe_with(ENDPOINT, &["c"], &[("c", version("endpoints"))]).await;
    client.expect_and_ack(ENDPOINT, &["c"], &[]).await;
    client.subscribe_with(LISTENER, &[], &[("l", version("listener"))]).await;
    client.subscribe_with(ROUTE, &["l"], &[("l", version("route"))]).await;
    client.expect_nothing().await;
    until("settled", || there.status().settled() == there.desk.edge.head()).await;

    let mut client = here.sotw().await;
    let mut versions = Vec::new();
    for (type_url, names, body) in
        [(CLUSTER, [].as_slice(), "cluster"), (LISTENER, &[], "listener"), (ROUTE, &["l"], "route")]
    {
        client.ask(type_url, names).await;
        let response = client.expect(type_url, &[body]).await;
        client.ack(&response, names).await;
        versions.push((type_url, names, response.version_info));
    }
    let mut client = there.sotw().await;
    for (type_url, names, version) in versions {
        client.ask_with(type_url, names, &version).await;
    }
    // Of what it asked for by name, a version does not say which it has.
    let routes = client.expect(ROUTE, &["route"]).await;
    client.ack(&routes, &["l"]).await;
    client.expect_nothing().await;
    there.set(ROUTE, "l", "changed");
    client.expect(ROUTE, &["changed"]).await;
}

#[tokio::test]
async fn a_large_response_arrives_whole() {
    let served = Served::by_default().await;
    let body = "x".repeat(100_000);
    let names: Vec<String> = (0..100).map(|i| format!("{i:03}")).collect();
    let all: Vec<_> = names.iter().map(|name| (T, name.as_str(), body.as_str())).collect();
    served.apply(&all, &[]);
    let mut client = served.delta().await;
    client.subscribe(T, &["*"]).await;
    let response = client.next().await;
    assert_eq!(response.resources.len(), 100);
    assert!(response.resources.iter().all(|r| r.resource.as_ref().unwrap().value == body.as_bytes()));
}
