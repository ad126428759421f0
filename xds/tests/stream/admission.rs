//! Who is let in, with what, and how a stream ends.

use std::{sync::atomic::Ordering, time::Duration};

use crate::support::{Served, node, until};
use chancery_proto::{
    envoy::{
        core::Node,
        discovery::{DeltaDiscoveryRequest, DiscoveryRequest},
    },
    type_url::CLUSTER,
};
use chancery_xds::StreamSettings;
use tonic::{Code, Status};

const T: &str = "type.example/T";

async fn first(request: DeltaDiscoveryRequest) -> Status {
    let served = Served::by_default().await;
    let client = served.delta().await;
    client.send(request).await;
    client.end().await
}

fn request(node: Option<Node>) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { node, type_url: T.into(), ..Default::default() }
}

#[tokio::test]
async fn the_first_request_says_who_asks_and_for_what() {
    assert_eq!(first(request(None)).await.code(), Code::InvalidArgument);
    let nobody = Node { cluster: "edge".into(), ..Node::default() };
    let refused = first(request(Some(nobody))).await;
    assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, "the node has no id"));
    let no_type = DeltaDiscoveryRequest { node: node(), ..Default::default() };
    assert_eq!(first(no_type).await.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn who_is_not_admitted_is_told_why_and_sent_nothing() {
    let stranger = Node { id: "proxy-1".into(), cluster: "nowhere".into(), ..Node::default() };
    let refused = first(request(Some(stranger))).await;
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, "no fleet nowhere"));
}

#[tokio::test]
async fn the_node_stays_the_same() {
    let other = |id: &str, cluster: &str| Some(Node { id: id.into(), cluster: cluster.into(), ..Node::default() });
    for changed in [other("proxy-2", "edge"), other("proxy-1", "core")] {
        let served = Served::by_default().await;
        let mut client = served.delta().await;
        client.subscribe(T, &["*"]).await;
        client.expect_and_ack(T, &[], &[]).await;
        client.send(request(node())).await;
        client.expect_nothing().await;
        client.send(request(changed)).await;
        assert_eq!(client.end().await.code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn who_says_nothing_is_not_waited_for() {
    let settings = StreamSettings { hello_timeout: Duration::from_millis(20), ..StreamSettings::default() };
    let served = Served::start(settings).await;
    assert_eq!(served.delta().await.end().await.code(), Code::DeadlineExceeded);
    assert_eq!(served.desk.statuses.lock().len(), 0);
}

#[tokio::test]
async fn a_request_above_the_limit_ends_the_stream() {
    let settings = StreamSettings { max_request_bytes: 1000, ..StreamSettings::default() };
    let served = Served::start(settings).await;
    let client = served.delta().await;
    client.subscribe(T, &[&"x".repeat(2000)]).await;
    assert_eq!(client.end().await.code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn a_stream_may_ask_for_so_many_types_and_no_more() {
    let settings = StreamSettings { max_types: 3, ..StreamSettings::default() };
    let served = Served::start(settings).await;
    let client = served.delta().await;
    for i in 0..4 {
        client.subscribe(&format!("{T}{i}"), &["a"]).await;
    }
    assert_eq!(client.end().await.code(), Code::ResourceExhausted);
    until("three types in the status", || served.status().types().len() == 3).await;
}

#[tokio::test]
async fn fleets_do_not_see_each_other() {
    let served = Served::by_default().await;
    let mut edge = served.delta().await;
    edge.subscribe(T, &["*"]).await;
    edge.expect_and_ack(T, &[], &[]).await;
    let mut core = served.sotw().await;
    let node = Some(Node { id: "proxy-1".into(), cluster: "core".into(), ..Node::default() });
    core.send(DiscoveryRequest { node, type_url: CLUSTER.into(), ..Default::default() }).await;
    let response = core.expect(CLUSTER, &[]).await;
    core.ack(&response, &[]).await;

    served.apply(&[(T, "a", "1"), (CLUSTER, "c", "of edge")], &[]);
    edge.expect_and_ack(T, &["a"], &[]).await;
    let mut update = chancery_xds::Update::default();
    update.upsert(CLUSTER, chancery_xds::Resource::new(CLUSTER, "c", b"of core"));
    served.desk.core.apply(1, update);
    core.expect(CLUSTER, &["of core"]).await;
    edge.expect_nothing().await;
}

#[tokio::test]
async fn a_stream_ends_when_whoever_admitted_it_says_so() {
    let served = Served::by_default().await;
    let mut client = served.delta().await;
    client.subscribe(T, &["*"]).await;
    client.expect_and_ack(T, &[], &[]).await;
    assert_eq!(served.desk.open.load(Ordering::SeqCst), 1);
    served.desk.ended.cancel();
    assert_eq!(client.end().await.code(), Code::Unavailable);
    until("the guard is dropped", || served.desk.open.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn all_streams_end_at_shutdown_whether_they_have_spoken_or_not() {
    let served = Served::by_default().await;
    let silent = served.delta().await;
    let mut client = served.sotw().await;
    client.ask(CLUSTER, &[]).await;
    client.expect(CLUSTER, &[]).await;
    served.shutdown.cancel();
    served.streams.close();
    crate::support::soon(served.streams.wait()).await;
    assert_eq!(client.end().await.code(), Code::Unavailable);
    assert_eq!(silent.end().await.code(), Code::Unavailable);
}

#[tokio::test]
async fn nothing_is_left_of_a_client_that_goes() {
    let served = Served::by_default().await;
    for round in 0..20 {
        let mut client = served.delta().await;
        client.subscribe(T, &["*"]).await;
        let response = client.expect(T, &[], &[]).await;
        // Some go in mid-sentence.
        if round % 2 == 0 {
            client.ack(&response).await;
        }
    }
    served.streams.close();
    crate::support::soon(served.streams.wait()).await;
    assert_eq!(served.desk.open.load(Ordering::SeqCst), 0);
}
