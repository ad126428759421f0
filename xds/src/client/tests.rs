use std::{collections::BTreeMap, time::Instant};

use bytes::Bytes;
use chancery_proto::{
    envoy::{
        core::Node,
        discovery::{DeltaDiscoveryResponse, DiscoveryResponse, Resource as Wire},
    },
    google::protobuf::Any,
};
use proptest::prelude::*;
use prost::Message;

use super::{
    delta::Delta,
    session::{Dialect, Response},
    sotw::Sotw,
    *,
};
use crate::{
    Cache, Resource, Update,
    codec::{self, EncodeResponse},
    resource::Name,
    subscription::{Gate, Subscription, TypeRules, Verdict, delta, sotw},
};

const T: &str = "type.example/T";

fn everything() -> Vec<(TypeUrl, Interest)> {
    vec![(T.into(), Interest::Wildcard)]
}

fn node() -> Node {
    Node { id: "limiter-1".into(), ..Node::default() }
}

/// A message whose first field is `name`.
fn named(name: &str, body: &str) -> Vec<u8> {
    let mut bytes = vec![10, u8::try_from(name.len()).unwrap()];
    bytes.extend(name.as_bytes());
    bytes.extend([18, u8::try_from(body.len()).unwrap()]);
    bytes.extend(body.as_bytes());
    bytes
}

fn any(name: &str, body: &str) -> Any {
    Any { type_url: T.into(), value: named(name, body) }
}

fn wire(name: &str, version: &str) -> Wire {
    Wire { name: name.into(), version: version.into(), resource: Some(any(name, version)), ..Wire::default() }
}

fn delta_response(resources: Vec<Wire>, removed: &[&str]) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: T.into(),
        nonce: "n".into(),
        resources,
        removed_resources: removed.iter().map(ToString::to_string).collect(),
        ..DeltaDiscoveryResponse::default()
    }
}

fn sotw_response(version: &str, resources: Vec<Any>) -> DiscoveryResponse {
    DiscoveryResponse {
        type_url: T.into(),
        nonce: "n".into(),
        version_info: version.into(),
        resources,
        ..DiscoveryResponse::default()
    }
}

fn refused(name: &str) -> Vec<Refused> {
    vec![Refused { name: name.into(), reason: "rules[0].per: is missing".into() }]
}

fn names(response: &Response) -> (Vec<&str>, Vec<&str>) {
    let Batch { upserts, removed, .. } = &response.batch;
    (upserts.iter().map(|received| &*received.name).collect(), removed.iter().map(|name| &**name).collect())
}

#[test]
fn the_first_request_of_a_stream_says_who_and_each_says_what() {
    let types = vec![
        (T.into(), Interest::Names([Name::from("b"), Name::from("a")].into())),
        ("type.example/U".into(), Interest::Wildcard),
    ];
    let opening = Delta::new(node(), types.clone()).opening();
    assert_eq!(opening.iter().map(|request| request.node.is_some()).collect::<Vec<_>>(), [true, false]);
    assert_eq!(opening[0].resource_names_subscribe, ["a", "b"]);
    assert_eq!(opening[1].resource_names_subscribe, ["*"]);
    let opening = Sotw::new(node(), types).opening();
    assert_eq!(opening.iter().map(|request| request.node.is_some()).collect::<Vec<_>>(), [true, false]);
    assert_eq!(opening[0].resource_names, ["a", "b"]);
    assert!(opening[1].resource_names.is_empty());
}

#[test]
fn what_was_received_is_said_after_a_reconnect() {
    let mut client = Delta::new(node(), everything());
    let response = client.receive(delta_response(vec![wire("a", "1"), wire("b", "1")], &[])).unwrap();
    assert_eq!(names(&response), (vec!["a", "b"], vec![]));
    let ack = client.answer(&response, &[]);
    assert_eq!((ack.type_url.as_str(), ack.response_nonce.as_str(), ack.error_detail), (T, "n", None));
    let response = client.receive(delta_response(vec![wire("a", "2")], &["b", "never"])).unwrap();
    assert_eq!(names(&response), (vec!["a"], vec!["b"]));
    client.answer(&response, &[]);
    let opening = client.opening().remove(0);
    assert_eq!(opening.initial_resource_versions, [("a".to_owned(), "2".to_owned())].into());
    assert!(opening.response_nonce.is_empty());
}

#[test]
fn what_is_held_from_an_earlier_life_can_be_gone() {
    let mut client = Delta::new(node(), everything());
    client.hold(T, "a".into(), "1".into());
    assert_eq!(client.opening()[0].initial_resource_versions, [("a".to_owned(), "1".to_owned())].into());
    assert_eq!(names(&client.receive(delta_response(Vec::new(), &["a"])).unwrap()).1, ["a"]);
    let mut client = Sotw::new(node(), everything());
    client.hold(T, "a".into());
    assert_eq!(names(&client.receive(sotw_response("1", Vec::new())).unwrap()).1, ["a"]);
}

#[test]
fn a_refused_resource_is_told_and_counts_as_received() {
    let mut client = Delta::new(node(), everything());
    let response = client.receive(delta_response(vec![wire("a", "1")], &[])).unwrap();
    let nack = client.answer(&response, &refused("a"));
    assert_eq!(nack.response_nonce, "n");
    assert_eq!(nack.error_detail.unwrap().message, "a: rules[0].per: is missing");
    assert_eq!(client.opening()[0].initial_resource_versions.len(), 1);
}

#[test]
fn a_heartbeat_brings_nothing_and_a_stranger_is_refused() {
    let mut client = Delta::new(node(), everything());
    let heartbeat = Wire { name: "a".into(), version: "1".into(), ..Wire::default() };
    let mut stranger = wire("b", "1");
    stranger.resource = Some(Any { type_url: "type.example/U".into(), value: Vec::new() });
    let response = client.receive(delta_response(vec![heartbeat, stranger], &[])).unwrap();
    assert_eq!(names(&response), (vec![], vec![]));
    assert_eq!(response.malformed.len(), 1);
    assert!(client.receive(DeltaDiscoveryResponse { type_url: "x".into(), ..Default::default() }).is_err());
}

#[test]
fn an_absent_name_is_news_to_who_asked_for_it() {
    let interest = Interest::Names([Name::from("a")].into());
    let mut client = Delta::new(node(), vec![(T.into(), interest)]);
    let response = client.receive(delta_response(Vec::new(), &["a", "b"])).unwrap();
    assert_eq!(names(&response), (vec![], vec!["a"]));
}

#[test]
fn what_is_missing_from_the_state_of_the_world_is_gone() {
    let mut client = Sotw::new(node(), everything());
    let response = client.receive(sotw_response("1", vec![any("a", "1"), any("b", "1")])).unwrap();
    assert_eq!(names(&response), (vec!["a", "b"], vec![]));
    let ack = client.answer(&response, &[]);
    assert_eq!((ack.version_info.as_str(), ack.response_nonce.as_str(), ack.error_detail), ("1", "n", None));
    let response = client.receive(sotw_response("2", vec![any("b", "1")])).unwrap();
    assert_eq!(names(&response), (vec!["b"], vec!["a"]));
    let nack = client.answer(&response, &refused("b"));
    assert_eq!((nack.version_info.as_str(), nack.response_nonce.as_str()), ("1", "n"));
    assert!(nack.error_detail.is_some());
    assert_eq!(client.opening()[0].version_info, "", "of what was refused, some may be in force");
}

#[test]
fn what_cannot_be_read_takes_nothing_away() {
    let mut client = Sotw::new(node(), everything());
    let response = client.receive(sotw_response("1", vec![any("a", "1")])).unwrap();
    client.answer(&response, &[]);
    for body in [vec![], vec![10, 0], vec![10, 9, b'a'], vec![10, 1, 0xff], vec![16, 1], vec![0x0a]] {
        let nameless = Any { type_url: T.into(), value: body.clone() };
        let response = client.receive(sotw_response("2", vec![nameless])).unwrap();
        assert_eq!((names(&response), response.malformed.len()), ((vec![], vec![]), 1), "{body:?}");
    }
}

#[test]
fn a_wrapped_resource_goes_by_the_name_on_the_wrapping() {
    let mut client = Sotw::new(node(), everything());
    let wrapped = Wire { name: "outer".into(), ..wire("inner", "1") };
    let wrapped = chancery_proto::any::pack_typed(&wrapped);
    let response = client.receive(sotw_response("1", vec![wrapped])).unwrap();
    assert_eq!(names(&response).0, ["outer"]);
    assert_eq!(response.batch.upserts[0].body, named("inner", "1"));
}

#[test]
fn a_long_refusal_is_cut_and_counted() {
    let refused: Vec<Refused> =
        (0..100).map(|i| Refused { name: format!("r{i}").into(), reason: "x".repeat(100) }).collect();
    let message = session::error_detail(&refused).unwrap().message;
    assert!(message.len() < 4200 && message.ends_with(" more"), "{message}");
    let long = Refused { name: "a".into(), reason: "ü".repeat(5000) };
    assert!(session::error_detail(&[long]).unwrap().message.len() < 4200);
    assert_eq!(session::error_detail(&[]), None);
}

/// A client and the server's subscription, joined without a wire.
struct Pair<C, S> {
    cache: Cache,
    sequence: u64,
    client: C,
    server: S,
    taken: BTreeMap<Name, Bytes>,
    sent: usize,
    refusals: usize,
}

const RULES: TypeRules = TypeRules { full_state: true, legacy_wildcard: true, always_resent: false, piecewise: false };

impl<C, S> Pair<C, S>
where
    C: Dialect<Request = S::Request>,
    S: Subscription,
    C::Response: Message + Default,
    codec::Response<S::Reply>: EncodeResponse,
{
    fn new(client: C) -> Self {
        let cache = Cache::new();
        let server = S::new(RULES);
        Self { cache, sequence: 0, client, server, taken: BTreeMap::new(), sent: 0, refusals: 0 }
    }

    fn change(&mut self, name: &str, body: Option<&str>) {
        let mut update = Update::default();
        match body {
            Some(body) => update.upsert(T, Resource::new(T, name, &named(name, body))),
            None => update.remove(T, name),
        }
        self.sequence += 1;
        self.cache.apply(self.sequence, update);
    }

    fn connect(&mut self) {
        self.server = S::new(RULES);
        for request in self.client.opening() {
            self.deliver(request);
        }
    }

    fn deliver(&mut self, request: S::Request) {
        let tables = self.cache.snapshot();
        if let Verdict::Rejected(..) = self.server.on_request(request, tables.table(T), tables.head()) {
            self.refusals += 1;
        }
    }

    /// One response and its answer, if one is due. Bodies that begin with `bad` are refused.
    fn exchange(&mut self) -> bool {
        let reply = {
            let tables = self.cache.snapshot();
            self.server.progress_mut().absorb(tables.table(T), tables.head()).unwrap();
            self.server.reply(tables.table(T), Gate::ALL, Instant::now())
        };
        let Some((sent, reply)) = reply else { return false };
        let response = codec::Response { type_url: T.into(), nonce: sent.nonce, version: sent.version, reply };
        let mut pieces = codec::Pieces::default();
        response.encode(&mut pieces);
        let bytes: Vec<u8> = std::iter::from_fn(|| pieces.pop()).flatten().collect();
        let response = self.client.receive(C::Response::decode(bytes.as_slice()).unwrap()).unwrap();
        let mut refused = Vec::new();
        for Received { name, body, .. } in &response.batch.upserts {
            self.sent += 1;
            self.taken.insert(name.clone(), body.clone());
            if body.windows(3).any(|window| window == b"bad") {
                refused.push(Refused { name: name.clone(), reason: "bad".into() });
            }
        }
        for name in &response.batch.removed {
            assert!(self.taken.remove(name).is_some(), "{name} was never there");
        }
        let answer = self.client.answer(&response, &refused);
        self.deliver(answer);
        true
    }

    fn holds(&self) -> BTreeMap<Name, Bytes> {
        let tables = self.cache.snapshot();
        let wire = |resource: &Resource| Any::decode(resource.any_bytes()).unwrap().value.into();
        tables.table(T).resources().map(|resource| (resource.name().clone(), wire(resource))).collect()
    }
}

fn agrees<C, S>(client: C, steps: &[(u8, u8)]) -> Pair<C, S>
where
    C: Dialect<Request = S::Request>,
    S: Subscription,
    C::Response: Message + Default,
    codec::Response<S::Reply>: EncodeResponse,
{
    let mut pair = Pair::<C, S>::new(client);
    pair.connect();
    for (what, name) in steps {
        let name = ["a", "b", "c"][usize::from(*name)];
        match what {
            0 => pair.change(name, Some("one")),
            1 => pair.change(name, Some("two")),
            2 => pair.change(name, Some("bad")),
            3 | 4 => pair.change(name, None),
            5 => pair.connect(),
            _ => {
                pair.exchange();
            }
        }
    }
    while pair.exchange() {}
    assert_eq!(pair.taken, pair.holds());
    pair
}

proptest! {
    #[test]
    fn in_the_end_the_client_has_what_the_server_has(
        steps in prop::collection::vec((0..8_u8, 0..3_u8), 0..60)
    ) {
        agrees::<_, delta::Delta>(Delta::new(node(), everything()), &steps);
        agrees::<_, sotw::Sotw>(Sotw::new(node(), everything()), &steps);
    }
}

#[test]
fn after_a_reconnect_only_what_changed_is_sent() {
    let mut pair = agrees::<_, delta::Delta>(Delta::new(node(), everything()), &[(0, 0), (2, 1), (0, 2)]);
    assert_eq!((pair.sent, pair.refusals), (3, 1));
    pair.change("a", Some("new"));
    pair.change("c", None);
    pair.connect();
    while pair.exchange() {}
    assert_eq!((pair.sent, pair.refusals), (4, 1));
    assert_eq!(pair.taken, pair.holds());
}
