//! Make before break, over TCP: what comes before what, and what a client that does not answer can hold up.

use std::time::Duration;

use crate::support::{Served, until};
use chancery_proto::type_url::{CLUSTER, ENDPOINT, LISTENER, ROUTE};
use chancery_xds::StreamSettings;

/// So long that a test that waits for it fails.
const LONG: StreamSettings = settings(Duration::from_secs(600));
const SHORT: StreamSettings = settings(Duration::from_millis(50));

const fn settings(order_timeout: Duration) -> StreamSettings {
    StreamSettings {
        hello_timeout: Duration::from_secs(10),
        order_timeout,
        max_types: 32,
        max_names: 1000,
        max_request_bytes: 1 << 20,
    }
}

/// A service with its endpoints, and a route to it.
async fn serve(settings: StreamSettings) -> Served {
    let served = Served::start(settings).await;
    fill(&served);
    served
}

fn fill(served: &Served) {
    served.apply(&[(CLUSTER, "a", "a1"), (ENDPOINT, "a", "ea1"), (LISTENER, "l", "l1"), (ROUTE, "l", "to a")], &[]);
}

/// An incremental client that has all of it.
async fn delta(served: &Served) -> crate::support::Delta {
    let mut client = served.delta().await;
    client.subscribe(CLUSTER, &[]).await;
    client.expect_and_ack(CLUSTER, &["a"], &[]).await;
    client.subscribe(ENDPOINT, &["a"]).await;
    client.expect_and_ack(ENDPOINT, &["a"], &[]).await;
    client.subscribe(LISTENER, &[]).await;
    client.expect_and_ack(LISTENER, &["l"], &[]).await;
    client.subscribe(ROUTE, &["l"]).await;
    client.expect_and_ack(ROUTE, &["l"], &[]).await;
    client.expect_nothing().await;
    client
}

/// A state-of-the-world client that has all of it.
async fn sotw(served: &Served) -> crate::support::Sotw {
    let mut client = served.sotw().await;
    for (type_url, names, body) in
        [(CLUSTER, [].as_slice(), "a1"), (ENDPOINT, &["a"], "ea1"), (LISTENER, &[], "l1"), (ROUTE, &["l"], "to a")]
    {
        client.ask(type_url, names).await;
        let response = client.expect(type_url, &[body]).await;
        client.ack(&response, names).await;
    }
    client.expect_nothing().await;
    client
}

/// Moves the route to a new service, and removes the old one, in one step.
fn swap(served: &Served) -> u64 {
    served.apply(
        &[(CLUSTER, "b", "b1"), (ENDPOINT, "b", "eb1"), (ROUTE, "l", "to b")],
        &[(CLUSTER, "a"), (ENDPOINT, "a")],
    )
}

#[tokio::test]
async fn an_incremental_swap_makes_before_it_breaks() {
    let served = serve(LONG).await;
    let mut client = delta(&served).await;
    let sequence = swap(&served);
    let clusters = client.expect(CLUSTER, &["b"], &[]).await;
    client.expect_nothing().await;
    client.subscribe(ENDPOINT, &["b"]).await;
    let endpoints = client.expect(ENDPOINT, &["b"], &[]).await;
    client.ack(&clusters).await;
    client.expect_nothing().await;
    client.ack(&endpoints).await;
    let routes = client.expect(ROUTE, &["l"], &[]).await;
    client.expect_nothing().await;
    assert!(served.status().settled() < sequence);
    client.ack(&routes).await;
    client.expect_and_ack(CLUSTER, &[], &["a"]).await;
    client.expect_and_ack(ENDPOINT, &[], &["a"]).await;
    until("settled", || served.status().settled() == sequence).await;
}

#[tokio::test]
async fn a_full_state_swap_keeps_the_doomed_cluster_until_its_route_has_moved() {
    let served = serve(LONG).await;
    let mut client = sotw(&served).await;
    let sequence = swap(&served);
    let clusters = client.expect(CLUSTER, &["b1", "a1"]).await;
    // Whatever is in the set may be new to the client, and need endpoints.
    let endpoints = client.expect(ENDPOINT, &["ea1"]).await;
    client.ack(&endpoints, &["a"]).await;
    client.expect_nothing().await;
    client.subscribe(ENDPOINT, &endpoints.nonce, &["a", "b"]).await;
    let endpoints = client.next().await;
    assert!(endpoints.resources.iter().any(|any| any.value == b"eb1"));
    client.ack(&endpoints, &["a", "b"]).await;
    client.expect_nothing().await;
    client.ack(&clusters, &[]).await;
    let routes = client.expect(ROUTE, &["to b"]).await;
    client.expect_nothing().await;
    client.ack(&routes, &["l"]).await;
    let clusters = client.expect(CLUSTER, &["b1"]).await;
    client.ack(&clusters, &[]).await;
    until("settled", || served.status().settled() == sequence).await;
}

/// A client that asks for everything by name, as gRPC does, and has all of it.
async fn by_name(served: &Served) -> crate::support::Sotw {
    let mut client = served.sotw().await;
    for (type_url, name, body) in
        [(LISTENER, "l", "l1"), (ROUTE, "l", "to a"), (CLUSTER, "a", "a1"), (ENDPOINT, "a", "ea1")]
    {
        client.ask(type_url, &[name]).await;
        let response = client.expect(type_url, &[body]).await;
        client.ack(&response, &[name]).await;
    }
    client.expect_nothing().await;
    client
}

#[tokio::test]
async fn a_cluster_that_was_asked_for_by_name_stays_until_the_name_is_given_up() {
    let served = serve(LONG).await;
    let mut client = by_name(&served).await;
    let clusters_before = served.type_status(CLUSTER).sent.unwrap();
    let sequence = swap(&served);
    let routes = client.expect(ROUTE, &["to b"]).await;
    client.ack(&routes, &["l"]).await;
    // It learns only now that there is another cluster, and sends to the old one until it has that.
    client.expect_nothing().await;
    client.subscribe(CLUSTER, &clusters_before.nonce, &["a", "b"]).await;
    let clusters = client.expect(CLUSTER, &["b1", "a1"]).await;
    let endpoints = client.expect(ENDPOINT, &["ea1"]).await;
    client.ack(&clusters, &["a", "b"]).await;
    client.ack(&endpoints, &["a", "b"]).await;
    let endpoints = client.next().await;
    assert!(endpoints.resources.iter().any(|any| any.value == b"eb1"));
    client.ack(&endpoints, &["a", "b"]).await;
    client.expect_nothing().await;
    assert!(served.status().settled() < sequence);
    client.ack(&clusters, &["b"]).await;
    client.ack(&endpoints, &["b"]).await;
    client.expect_nothing().await;
    until("settled", || served.status().settled() == sequence).await;
}

#[tokio::test]
async fn a_cluster_whose_name_is_not_given_up_goes_when_the_patience_ends() {
    let served = serve(SHORT).await;
    let mut client = by_name(&served).await;
    let sequence = swap(&served);
    let routes = client.expect(ROUTE, &["to b"]).await;
    client.ack(&routes, &["l"]).await;
    let clusters = client.expect(CLUSTER, &[]).await;
    client.ack(&clusters, &["a"]).await;
    until("settled", || served.status().settled() == sequence).await;
}

#[tokio::test]
async fn a_cluster_that_went_while_a_client_was_away_stays_until_the_name_is_given_up() {
    let served = Served::start(LONG).await;
    // What the client has is never all that there is.
    served.set(CLUSTER, "z", "of no use to it");
    fill(&served);
    let client = by_name(&served).await;
    let had = served.type_status(CLUSTER).sent.unwrap().version;
    drop(client);
    swap(&served);
    let mut client = served.sotw().await;
    client.ask_with(CLUSTER, &["a"], &had).await;
    client.ask_with(ROUTE, &["l"], "any").await;
    let clusters = client.expect(CLUSTER, &["a1"]).await;
    client.ack(&clusters, &["a"]).await;
    let routes = client.expect(ROUTE, &["to b"]).await;
    client.ack(&routes, &["l"]).await;
    client.expect_nothing().await;
    client.ack(&clusters, &["b"]).await;
    client.expect(CLUSTER, &["b1"]).await;
}

#[tokio::test]
async fn endpoints_follow_a_changed_cluster_unasked_and_before_its_answer() {
    let served = serve(LONG).await;
    let mut client = delta(&served).await;
    served.set(CLUSTER, "a", "a2");
    client.expect(CLUSTER, &["a"], &[]).await;
    client.expect(ENDPOINT, &["a"], &[]).await;

    let mut client = sotw_anew(&served).await;
    served.set(CLUSTER, "a", "a3");
    client.expect(CLUSTER, &["a3"]).await;
    client.expect(ENDPOINT, &["ea1"]).await;
}

async fn sotw_anew(served: &Served) -> crate::support::Sotw {
    served.set(CLUSTER, "a", "a1");
    sotw(served).await
}

#[tokio::test]
async fn routes_are_held_back_no_longer_than_the_patience_lasts() {
    let served = serve(SHORT).await;
    let mut client = delta(&served).await;
    let sequence = swap(&served);
    let clusters = client.expect(CLUSTER, &["b"], &[]).await;
    let routes = client.expect(ROUTE, &["l"], &[]).await;
    client.ack(&routes).await;
    client.expect_and_ack(CLUSTER, &[], &["a"]).await;
    client.expect_and_ack(ENDPOINT, &[], &["a"]).await;
    client.expect_nothing().await;
    assert!(served.type_status(CLUSTER).acknowledged.is_some_and(|stamp| *stamp.nonce != *clusters.nonce));
    until("settled", || served.status().settled() == sequence).await;
}

#[tokio::test]
async fn silence_is_not_taken_for_consent() {
    let served = serve(SHORT).await;
    let mut client = delta(&served).await;
    let sequence = served.apply(&[(CLUSTER, "b", "b1"), (ROUTE, "l", "to b")], &[]);
    let clusters = client.expect(CLUSTER, &["b"], &[]).await;
    client.expect_and_ack(ROUTE, &["l"], &[]).await;
    client.expect_nothing().await;
    assert!(served.status().settled() < sequence, "the cluster was not answered");
    client.nack(&clusters, "too late, but no").await;
    until("settled", || served.status().settled() == sequence).await;
    assert_eq!(served.status().rejections_since(sequence).len(), 1);
}

#[tokio::test]
async fn what_a_reconnecting_client_lost_is_removed_when_it_has_asked_for_what_refers_to_it() {
    let served = serve(LONG).await;
    let mut client = served.delta().await;
    client
        .subscribe_with(CLUSTER, &[], &[("a", crate::support::version("a1")), ("gone", crate::support::version("g"))])
        .await;
    client.expect_nothing().await;
    client.subscribe_with(LISTENER, &[], &[("l", crate::support::version("l1"))]).await;
    client.expect_nothing().await;
    client.subscribe_with(ROUTE, &["l"], &[("l", crate::support::version("to gone"))]).await;
    let routes = client.expect(ROUTE, &["l"], &[]).await;
    client.expect_nothing().await;
    client.ack(&routes).await;
    client.expect_and_ack(CLUSTER, &[], &["gone"]).await;
}

#[tokio::test]
async fn what_a_reconnecting_client_lost_is_removed_when_the_patience_ends() {
    let served = serve(SHORT).await;
    let mut client = served.delta().await;
    client
        .subscribe_with(CLUSTER, &[], &[("a", crate::support::version("a1")), ("gone", crate::support::version("g"))])
        .await;
    client.expect_and_ack(CLUSTER, &[], &["gone"]).await;
}

#[tokio::test]
async fn a_full_state_client_keeps_what_it_lost_until_it_has_asked_for_what_refers_to_it() {
    let served = serve(LONG).await;
    served.set(CLUSTER, "b", "b1");
    let mut client = served.sotw().await;
    client.ask(CLUSTER, &[]).await;
    let before = client.expect(CLUSTER, &["a1", "b1"]).await;
    served.apply(&[(CLUSTER, "c", "c1")], &[(CLUSTER, "b")]);

    let mut client = served.sotw().await;
    client.ask_with(CLUSTER, &[], &before.version_info).await;
    let clusters = client.expect(CLUSTER, &["a1", "c1", "b1"]).await;
    client.ack(&clusters, &[]).await;
    client.expect_nothing().await;
    for (type_url, names, body) in [(LISTENER, [].as_slice(), "l1"), (ROUTE, &["l"], "to a")] {
        client.ask(type_url, names).await;
        let response = client.expect(type_url, &[body]).await;
        client.ack(&response, names).await;
    }
    client.expect(CLUSTER, &["a1", "c1"]).await;
}
