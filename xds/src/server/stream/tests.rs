//! What the tests over TCP meet only by chance.

use chancery_proto::envoy::discovery::DeltaDiscoveryRequest;
use futures_util::FutureExt as _;

use super::{
    super::slot::{Inlet, slot},
    *,
};
use crate::{Resource, Update, subscription::delta::Delta};

struct Nobody;

impl Admit for Nobody {
    fn admit(&self, _: Hello<'_>) -> Result<Admission, Status> {
        Err(Status::permission_denied("nobody"))
    }
}

fn stream(cache: &Arc<Cache>) -> Stream<Delta> {
    let context = Context {
        admit: Arc::new(Nobody),
        settings: StreamSettings::default(),
        shutdown: CancellationToken::new(),
        only: None,
        meters: Arc::default(),
    };
    Stream::new(cache.clone(), SharedStatus::default(), &context, ("id".into(), "fleet".into()))
}

async fn next(taken: &mut Inlet<Outgoing<Delta>>) -> Outgoing<Delta> {
    std::future::poll_fn(|context| taken.poll_next(context)).await.unwrap()
}

fn all_of(type_url: &str) -> DeltaDiscoveryRequest {
    let resource_names_subscribe = vec!["*".to_owned()];
    DeltaDiscoveryRequest { type_url: type_url.into(), resource_names_subscribe, ..Default::default() }
}

#[tokio::test]
async fn a_change_that_comes_while_the_connection_takes_the_last_reply_is_looked_at() {
    let cache = Arc::new(Cache::new());
    let mut stream = stream(&cache);
    let (responses, mut taken) = slot();
    stream.on_request(all_of("c")).unwrap();
    stream.pump(&responses).unwrap();
    let first = next(&mut taken).await;
    stream.on_request(ack_of(&first)).unwrap();

    stream.on_request(all_of("a")).unwrap();
    stream.on_request(all_of("b")).unwrap();
    stream.pump(&responses).unwrap();
    assert_eq!(stream.queue.len(), 1, "the connection takes one");
    let mut update = Update::default();
    update.upsert("c", Resource::new("c", "name", b"body"));
    cache.apply(1, update);
    assert_eq!(&*next(&mut taken).await.type_url, "a");
    stream.pump(&responses).unwrap();
    assert_eq!(&*next(&mut taken).await.type_url, "b");
    assert_eq!(stream.queue.iter().map(|response| &*response.type_url).collect::<Vec<_>>(), ["c"]);
}

fn ack_of(response: &Response<<Delta as Subscription>::Reply>) -> DeltaDiscoveryRequest {
    let (type_url, response_nonce) = (response.type_url.to_string(), response.nonce.to_string());
    DeltaDiscoveryRequest { type_url, response_nonce, ..Default::default() }
}

fn apply(cache: &Cache, sequence: u64, types: &[&str]) -> Arc<Tables> {
    let mut update = Update::default();
    for type_url in types {
        update.upsert(*type_url, Resource::new(type_url, "name", sequence.to_string().as_bytes()));
    }
    cache.apply(sequence, update);
    cache.snapshot()
}

#[tokio::test]
async fn a_connection_that_takes_one_reply_at_a_time_holds_up_no_route() {
    const ALL: [&str; 3] = [type_url::CLUSTER, type_url::ENDPOINT, type_url::ROUTE];
    let cache = Arc::new(Cache::new());
    let mut sequence = 1;
    apply(&cache, sequence, &ALL);
    let mut stream = stream(&cache);
    let (responses, mut taken) = slot();
    for type_url in ALL {
        stream.on_request(all_of(type_url)).unwrap();
    }
    let mut types = Vec::new();
    while !types.ends_with(&[type_url::ROUTE]) {
        stream.pump(&responses).unwrap();
        let response = next(&mut taken).now_or_never().unwrap();
        // Each finds another state.
        sequence += 1;
        apply(&cache, sequence, &ALL);
        stream.on_request(ack_of(&response)).unwrap();
        types.push(ALL.into_iter().find(|known| *known == &*response.type_url).unwrap());
        assert!(types.len() < 10, "{types:?}");
    }
}

#[tokio::test]
async fn a_connection_that_takes_nothing_for_long_keeps_no_state_of_the_past() {
    let cache = Arc::new(Cache::new());
    let apply = |sequence| apply(&cache, sequence, &[type_url::CLUSTER, type_url::ROUTE, "other"]);
    let first = apply(1);
    let mut stream = stream(&cache);
    stream.patience = Duration::ZERO;
    let (responses, mut taken) = slot();
    for type_url in [type_url::CLUSTER, type_url::ROUTE] {
        stream.on_request(all_of(type_url)).unwrap();
    }
    stream.pump(&responses).unwrap();
    let second = apply(2);
    assert_eq!(Arc::strong_count(&first), 2, "the route is held back in the state of the cluster");
    stream.on_request(all_of("other")).unwrap();
    assert_eq!(stream.pump(&responses).unwrap(), None);
    assert_eq!((stream.queue.len(), Arc::strong_count(&first)), (1, 1));
    assert_eq!(&*next(&mut taken).await.type_url, type_url::CLUSTER);
    drop(second);
}

#[tokio::test]
async fn a_connection_that_takes_nothing_for_a_moment_keeps_the_state_of_what_it_waits_for() {
    let cache = Arc::new(Cache::new());
    let apply = |sequence| apply(&cache, sequence, &[type_url::CLUSTER, type_url::ROUTE, "other"]);
    let first = apply(1);
    let mut stream = stream(&cache);
    let (responses, _taken) = slot();
    for type_url in [type_url::CLUSTER, type_url::ROUTE] {
        stream.on_request(all_of(type_url)).unwrap();
    }
    stream.pump(&responses).unwrap();
    let _second = apply(2);
    stream.on_request(all_of("other")).unwrap();
    let look_again = stream.pump(&responses).unwrap().unwrap();
    assert_eq!((stream.queue.len(), Arc::strong_count(&first)), (1, 2));
    assert!(look_again > Instant::now() && look_again <= Instant::now() + stream.patience);
}

#[test]
fn a_client_cannot_make_up_labels() {
    let cache = Cache::new();
    let mut update = Update::default();
    update.upsert("type.googleapis.com/ours", Resource::new("type.googleapis.com/ours", "name", b"body"));
    cache.apply(1, update);
    let tables = cache.snapshot();
    let all = AllMeters::default();
    let label = |type_url: &str| all.of(&type_url.into(), &tables).label.clone();
    assert_eq!([type_url::CLUSTER, "type.googleapis.com/ours", "anything"].map(label), ["cluster", "ours", "other"]);
    assert_eq!(all.0.lock().len(), 2, "what it makes up is not remembered");
}
