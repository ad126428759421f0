//! The rules of the protocol, one by one, as a client meets them on the wire. `docs/xds-conformance.md` lists them.

use std::sync::atomic::Ordering;

use chancery_proto::{
    Message,
    envoy::{
        core::Node,
        discovery::{DeltaDiscoveryRequest, DiscoveryRequest},
    },
    google::rpc,
    type_url::{ALL, CLUSTER, LISTENER, VIRTUAL_HOST},
};
use chancery_xds::{Resource, Update};

use crate::support::{Delta, Served, node, strings, until, version};

const T: &str = "type.example/T";

/// A change of a delta subscription, with or without an answer.
async fn change(client: &Delta, nonce: &str, subscribe: &[&str], unsubscribe: &[&str]) {
    let request = DeltaDiscoveryRequest {
        type_url: T.into(),
        response_nonce: nonce.into(),
        resource_names_subscribe: strings(subscribe),
        resource_names_unsubscribe: strings(unsubscribe),
        ..DeltaDiscoveryRequest::default()
    };
    client.send(request).await;
}

#[tokio::test]
async fn a_hundred_thousand_initial_versions_are_taken_and_only_the_difference_is_sent() {
    const COUNT: usize = 100_000;
    /// What servers take at most unless they are told otherwise.
    const USUAL_LIMIT: usize = 4 << 20;
    let name = |i: usize| format!("cluster-of-a-service-with-a-name-{i:06}");
    let served = Served::by_default().await;
    let mut update = Update::default();
    // All but the first, which is gone; the last is new.
    for i in 1..=COUNT {
        update.upsert(T, Resource::new(T, name(i), b"same"));
    }
    update.upsert(T, Resource::new(T, name(7), b"changed"));
    served.desk.edge.apply(2, update);

    let request = DeltaDiscoveryRequest {
        node: node(),
        type_url: T.into(),
        resource_names_subscribe: strings(&["*"]),
        initial_resource_versions: (0..COUNT).map(|i| (name(i), version("same"))).collect(),
        ..DeltaDiscoveryRequest::default()
    };
    assert!(request.encoded_len() > USUAL_LIMIT);
    let mut client = served.delta().await;
    client.send(request).await;
    client.expect_and_ack(T, &[&name(7), &name(COUNT)], &[&name(0)]).await;
    client.expect_nothing().await;
}

#[tokio::test]
async fn it_is_the_error_that_makes_a_rejection_and_not_the_version() {
    let served = Served::by_default().await;
    served.set(T, "a", "1");
    let mut client = served.sotw().await;
    client.ask(T, &["a"]).await;
    let first = client.expect(T, &["1"]).await;
    client.ack(&first, &["a"]).await;
    served.set(T, "a", "2");
    let second = client.expect(T, &["2"]).await;
    let answer = |version: &str, nonce: &str, error_detail| DiscoveryRequest {
        type_url: T.into(),
        version_info: version.into(),
        response_nonce: nonce.into(),
        resource_names: strings(&["a"]),
        error_detail,
        ..DiscoveryRequest::default()
    };
    client.send(answer(&first.version_info, &second.nonce, None)).await;
    client.expect_nothing().await;
    assert_eq!(*served.type_status(T).acknowledged.unwrap().nonce, *second.nonce);

    served.set(T, "a", "3");
    let third = client.expect(T, &["3"]).await;
    // Even without a word.
    client.send(answer(&third.version_info, &third.nonce, Some(rpc::Status::default()))).await;
    client.expect_nothing().await;
    let status = served.type_status(T);
    assert_eq!(*status.rejected.unwrap().response.nonce, *third.nonce);
    assert_eq!(*status.acknowledged.unwrap().nonce, *second.nonce);
}

#[tokio::test]
async fn a_stale_state_of_the_world_request_is_not_answered_and_its_names_do_not_count() {
    let served = Served::by_default().await;
    served.apply(&[(T, "a", "a1"), (T, "b", "b1")], &[]);
    let mut client = served.sotw().await;
    client.ask(T, &["a"]).await;
    let first = client.expect(T, &["a1"]).await;
    client.ack(&first, &["a"]).await;
    served.set(T, "a", "a2");
    let second = client.expect(T, &["a2"]).await;
    client.nack(&first, &["b"], "stale").await;
    client.expect_nothing().await;
    assert_eq!(served.type_status(T).rejected, None);
    client.ack(&second, &["a"]).await;
    client.expect_nothing().await;
    client.ack(&second, &["a", "b"]).await;
    client.expect(T, &["b1"]).await;
}

#[tokio::test]
async fn names_that_change_while_a_response_is_on_its_way_are_not_lost() {
    let served = Served::by_default().await;
    served.apply(&[(T, "a", "a1"), (T, "b", "b1")], &[]);
    let mut client = served.sotw().await;
    client.ask(T, &["a"]).await;
    let first = client.expect(T, &["a1"]).await;
    served.set(T, "a", "a2");
    // One response at a time, or the answer to the first, with the new list, would be taken for stale.
    client.expect_nothing().await;
    client.ack(&first, &["a", "b"]).await;
    let second = client.expect(T, &["a2", "b1"]).await;
    client.ack(&second, &["a", "b"]).await;
    client.expect_nothing().await;
}

#[tokio::test]
async fn a_delta_subscription_counts_though_its_nonce_is_stale() {
    let served = Served::by_default().await;
    served.apply(&[(T, "a", "1"), (T, "b", "1"), (T, "c", "1")], &[]);
    let mut client = served.delta().await;
    client.subscribe(T, &["a"]).await;
    let first = client.expect_and_ack(T, &["a"], &[]).await;
    served.set(T, "a", "2");
    let second = client.expect(T, &["a"], &[]).await;
    change(&client, &first.nonce, &["b"], &[]).await;
    client.expect_nothing().await;
    assert_eq!(*served.type_status(T).acknowledged.unwrap().nonce, *first.nonce, "what is stale answers nothing");
    // One that rides on an acknowledgement does as well.
    change(&client, &second.nonce, &["c"], &[]).await;
    client.expect_and_ack(T, &["b", "c"], &[]).await;
    client.expect_nothing().await;
}

#[tokio::test]
async fn a_star_and_an_empty_first_list_mean_all() {
    let served = Served::by_default().await;
    served.apply(&[(LISTENER, "a", "1"), (LISTENER, "b", "2"), (T, "a", "1")], &[]);
    for names in [[].as_slice(), &["*"]] {
        let mut sotw = served.sotw().await;
        sotw.ask(LISTENER, names).await;
        sotw.expect(LISTENER, &["1", "2"]).await;
        let mut delta = served.delta().await;
        delta.subscribe(LISTENER, names).await;
        delta.expect_and_ack(LISTENER, &["a", "b"], &[]).await;
    }
    // Not of other types.
    let mut sotw = served.sotw().await;
    sotw.ask(T, &[]).await;
    sotw.expect_nothing().await;
    let mut delta = served.delta().await;
    delta.subscribe(T, &[]).await;
    delta.expect_nothing().await;
    delta.subscribe(T, &["*"]).await;
    delta.expect_and_ack(T, &["a"], &[]).await;
}

#[tokio::test]
async fn an_empty_list_after_names_means_none() {
    for first in ["a", "*"] {
        let served = Served::by_default().await;
        served.set(LISTENER, "a", "1");
        let mut client = served.sotw().await;
        client.ask(LISTENER, &[first]).await;
        let response = client.expect(LISTENER, &["1"]).await;
        client.ack(&response, &[]).await;
        served.set(LISTENER, "a", "2");
        client.expect_nothing().await;
        client.ack(&response, &["*"]).await;
        client.expect(LISTENER, &["2"]).await;
    }
}

#[tokio::test]
async fn the_delta_wildcard_is_joined_and_left_like_a_name() {
    let served = Served::by_default().await;
    served.apply(&[(T, "a", "1"), (T, "b", "1")], &[]);
    let mut client = served.delta().await;
    client.subscribe(T, &["*"]).await;
    client.expect_and_ack(T, &["a", "b"], &[]).await;
    change(&client, "", &["a", "gone"], &[]).await;
    client.expect_and_ack(T, &["a"], &["gone"]).await;
    // Names that are given up under the wildcard are answered: does it still give them?
    change(&client, "", &[], &["a", "gone"]).await;
    client.expect_and_ack(T, &["a"], &["gone"]).await;
    change(&client, "", &["a"], &["*"]).await;
    client.expect_and_ack(T, &["a"], &[]).await;
    served.apply(&[(T, "b", "2"), (T, "c", "1")], &[]);
    client.expect_nothing().await;
    served.set(T, "a", "2");
    client.expect_and_ack(T, &["a"], &[]).await;
}

#[tokio::test]
async fn a_name_that_is_subscribed_again_is_sent_again() {
    let served = Served::by_default().await;
    served.set(T, "a", "1");
    let mut client = served.delta().await;
    client.subscribe(T, &["a"]).await;
    for _ in 0..2 {
        client.expect_and_ack(T, &["a"], &[]).await;
        client.expect_nothing().await;
        change(&client, "", &["a"], &[]).await;
    }
    client.expect_and_ack(T, &["a"], &[]).await;
    // Also after it was given up.
    change(&client, "", &[], &["a"]).await;
    change(&client, "", &["a"], &[]).await;
    client.expect_and_ack(T, &["a"], &[]).await;
}

#[tokio::test]
async fn giving_up_what_was_never_asked_for_is_ignored() {
    let served = Served::by_default().await;
    served.apply(&[(T, "a", "1"), (T, "b", "1")], &[]);
    for (names, sent) in [(["*"], ["a", "b"].as_slice()), (["a"], &["a"])] {
        let mut client = served.delta().await;
        client.subscribe(T, &names).await;
        client.expect_and_ack(T, sent, &[]).await;
        change(&client, "", &[], &["b", "never"]).await;
        client.expect_nothing().await;
    }
}

#[tokio::test]
async fn what_is_absent_is_remembered_and_sent_when_it_is_there() {
    let served = Served::by_default().await;
    let mut client = served.sotw().await;
    client.ask(T, &["a"]).await;
    client.expect_nothing().await;
    // Where absence deletes, an empty response says so.
    client.ask(LISTENER, &["l"]).await;
    let empty = client.expect(LISTENER, &[]).await;
    client.ack(&empty, &["l"]).await;
    served.set(LISTENER, "l", "2");
    client.expect(LISTENER, &["2"]).await;
    served.set(T, "a", "1");
    client.expect(T, &["1"]).await;

    let mut client = served.delta().await;
    client.subscribe(T, &["b"]).await;
    client.expect_and_ack(T, &[], &["b"]).await;
    served.set(T, "b", "1");
    client.expect_and_ack(T, &["b"], &[]).await;
    served.apply(&[], &[(T, "b")]);
    client.expect_and_ack(T, &[], &["b"]).await;
    served.set(T, "b", "1");
    client.expect_and_ack(T, &["b"], &[]).await;
}

#[tokio::test]
async fn a_name_is_never_twice_in_a_response() {
    let served = Served::by_default().await;
    served.set(T, "a", "1");
    let mut client = served.sotw().await;
    client.ask(T, &["a", "a", "*"]).await;
    client.expect(T, &["1"]).await;

    let mut client = served.delta().await;
    client.subscribe(T, &["a", "*", "a", "b", "b"]).await;
    client.expect_and_ack(T, &["a"], &["b"]).await;
    change(&client, "", &["a", "a"], &[]).await;
    client.expect_and_ack(T, &["a"], &[]).await;
    client.expect_nothing().await;
}

/// There is no time-to-live here (see the crate's documentation), so there is nothing to wrap either.
#[tokio::test]
async fn clients_that_know_of_time_to_live_are_served_as_all_others() {
    let served = Served::by_default().await;
    served.set(T, "a", "1");
    for feature in ["xds.config.supports-resource-in-sotw", "xds.config.resource-in-sotw"] {
        let node = node().map(|node| Node { client_features: strings(&[feature]), ..node });
        let resource_names = strings(&["a"]);
        let mut client = served.sotw().await;
        let ask = DiscoveryRequest { node, type_url: T.into(), resource_names, ..DiscoveryRequest::default() };
        client.send(ask).await;
        let response = client.expect(T, &["1"]).await;
        assert_eq!(response.resources[0].type_url, T, "it is not wrapped");
    }
    let mut client = served.delta().await;
    client.subscribe(T, &["a"]).await;
    let response = client.expect(T, &["a"], &[]).await;
    assert_eq!(response.resources[0].ttl, None);
}

#[tokio::test]
async fn a_name_of_the_new_form_is_a_name_like_any_other() {
    let name = "xdstp://authority.example/envoy.config.listener.v3.Listener/shop/*?node=a&b=c#frag";
    let below = "xdstp://authority.example/envoy.config.listener.v3.Listener/shop/one?node=a&b=c#frag";
    let served = Served::by_default().await;
    served.apply(&[(T, name, "1"), (T, below, "1")], &[]);
    let mut client = served.delta().await;
    client.subscribe(T, &[name]).await;
    client.expect_and_ack(T, &[name], &[]).await;
    client.expect_nothing().await;
}

#[tokio::test]
async fn every_type_travels_on_one_stream() {
    let served = Served::by_default().await;
    for (type_url, short) in ALL {
        served.set(type_url, "x", short);
    }
    let mut delta = served.delta().await;
    for (type_url, _) in ALL.into_iter().filter(|(type_url, _)| *type_url != VIRTUAL_HOST) {
        delta.subscribe(type_url, &["x"]).await;
        delta.expect_and_ack(type_url, &["x"], &[]).await;
    }
    let mut sotw = served.sotw().await;
    for (type_url, short) in ALL.into_iter().filter(|(type_url, _)| *type_url != VIRTUAL_HOST) {
        sotw.ask(type_url, &["x"]).await;
        let response = sotw.expect(type_url, &[short]).await;
        sotw.ack(&response, &["x"]).await;
    }
}

#[tokio::test]
async fn nothing_is_kept_of_a_client_that_is_refused() {
    let served = Served::by_default().await;
    for _ in 0..20 {
        let client = served.delta().await;
        let stranger = Node { id: "proxy-1".into(), cluster: "nowhere".into(), ..Node::default() };
        let hello = DeltaDiscoveryRequest { node: Some(stranger), type_url: T.into(), ..Default::default() };
        client.send(hello).await;
        client.end().await;
    }
    until("the streams are gone", || served.streams.is_empty()).await;
    assert_eq!((served.desk.open.load(Ordering::SeqCst), served.desk.statuses.lock().len()), (0, 0));
}

#[tokio::test]
async fn nothing_is_sent_before_it_is_asked_for() {
    let served = Served::by_default().await;
    served.apply(&[(CLUSTER, "c", "1"), (LISTENER, "l", "1")], &[]);
    let mut client = served.delta().await;
    client.subscribe(T, &["*"]).await;
    client.expect_and_ack(T, &[], &[]).await;
    served.apply(&[(CLUSTER, "c", "2"), (LISTENER, "l", "2")], &[]);
    client.expect_nothing().await;
}
