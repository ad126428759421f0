//! What a client has, as the stream tells it.

use chancery_proto::google::rpc::Status;

use super::*;
use crate::{Standing, subscription::Standing::*};

/// Name and standing of each resource of the clusters.
fn told<S: Subscription>(session: &Session<S>, cache: &Cache) -> Vec<(String, Standing)> {
    let inspected = session.inspect(&cache.snapshot());
    assert!(inspected.iter().all(|one| one.resource.is_some() == (one.standing != Absent)));
    inspected.into_iter().map(|one| (one.name.to_string(), one.standing)).collect()
}

fn put(cache: &Cache, sequence: u64, names: &[&str]) {
    let mut update = Update::default();
    for name in names {
        update.upsert(type_url::CLUSTER, Resource::new(type_url::CLUSTER, *name, sequence.to_string().as_bytes()));
    }
    cache.apply(sequence, update);
}

fn all(names: &[(&str, Standing)]) -> Vec<(String, Standing)> {
    names.iter().map(|(name, standing)| ((*name).to_owned(), *standing)).collect()
}

#[test]
fn an_incremental_client_goes_from_not_sent_to_applied_or_rejected() {
    let (cache, now) = (Cache::new(), Instant::now());
    put(&cache, 1, &["a", "b"]);
    let mut session = session::<Delta>(now);
    assert_eq!(told(&session, &cache), []);
    let names = ["*", "gone"].map(str::to_owned).to_vec();
    let request = DeltaDiscoveryRequest { resource_names_subscribe: names, ..Default::default() };
    session.on_request(&type_url::CLUSTER.into(), request, &cache.snapshot()).unwrap();
    assert_eq!(told(&session, &cache), all(&[("a", NotSent), ("b", NotSent), ("gone", Absent)]));
    let sent = session.turn(&cache.snapshot(), now).unwrap().replies;
    assert_eq!(told(&session, &cache), all(&[("a", Unanswered), ("b", Unanswered), ("gone", Absent)]));
    answer(&mut session, &cache, &sent[0]);
    assert_eq!(told(&session, &cache), all(&[("a", Applied), ("b", Applied), ("gone", Absent)]));

    // Also what the stream has not looked at yet.
    put(&cache, 2, &["a", "c"]);
    assert_eq!(told(&session, &cache)[..3], all(&[("a", NotSent), ("b", Applied), ("c", NotSent)]));
    let sent = session.turn(&cache.snapshot(), now).unwrap().replies;
    let error = Status { message: "Error adding/updating cluster(s) c: bad".into(), ..Status::default() };
    let nack = DeltaDiscoveryRequest {
        response_nonce: sent[0].1.nonce.clone(),
        error_detail: Some(error),
        ..DeltaDiscoveryRequest::default()
    };
    session.on_request(&type_url::CLUSTER.into(), nack, &cache.snapshot()).unwrap();
    assert_eq!(told(&session, &cache)[..3], all(&[("a", Applied), ("b", Applied), ("c", Rejected)]));
    put(&cache, 3, &["c"]);
    assert_eq!(told(&session, &cache)[2], ("c".to_owned(), NotSent), "another version of it");
}

#[test]
fn what_a_client_did_not_ask_for_is_not_told() {
    let (cache, now) = (Cache::new(), Instant::now());
    put(&cache, 1, &["a", "b"]);
    let mut session = session::<Sotw>(now);
    let ask = |session: &mut Session<Sotw>, nonce: &str| {
        let request = DiscoveryRequest {
            resource_names: vec!["a".into(), "gone".into()],
            response_nonce: nonce.into(),
            ..DiscoveryRequest::default()
        };
        session.on_request(&type_url::CLUSTER.into(), request, &cache.snapshot()).unwrap();
    };
    ask(&mut session, "");
    assert_eq!(told(&session, &cache), all(&[("a", NotSent), ("gone", Absent)]));
    let sent = session.turn(&cache.snapshot(), now).unwrap().replies;
    ask(&mut session, &sent[0].1.nonce);
    assert_eq!(told(&session, &cache), all(&[("a", Applied), ("gone", Absent)]));
}
