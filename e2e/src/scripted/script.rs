//! What a scripted proxy says, in the order in which Envoy says it, and how it reads what it hears.
//!
//! Requests are encoded once and sent by every proxy as they are; of a response only its envelope is looked at. A
//! fleet of ten thousand would otherwise measure its own clients.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use chancery_proto::{
    Message as _,
    envoy::{
        core::{BuildVersion, Node, node::UserAgentVersionType},
        discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
        types::SemanticVersion,
    },
    google::rpc,
    type_url,
};

/// In the order in which Envoy asks for them.
pub const TYPES: [&str; 5] =
    [type_url::CLUSTER, type_url::ENDPOINT, type_url::LISTENER, type_url::ROUTE, type_url::VIRTUAL_HOST];

/// What stands before the number of an edit.
const EDIT: &str = "edit-";

/// A flag and a length.
const HEADER: usize = 5;

/// A response without its content.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Envelope {
    /// Each resource, encoded.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub resources: Vec<Bytes>,
    /// The type of them all.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// What an answer has to carry.
    #[prost(string, tag = "5")]
    pub nonce: String,
}

/// The text of an edit, in a resource that it sets; numbers have six digits.
pub fn edit_text(number: u64) -> String {
    format!("{EDIT}{number:06}")
}

impl Envelope {
    /// The number of the edit that this response brings, by its text.
    pub fn edit(&self) -> Option<u64> {
        let digits = self.resources.iter().find_map(|resource| {
            let at = resource.windows(EDIT.len()).position(|part| part == EDIT.as_bytes())?;
            resource.get(at + EDIT.len()..)?.get(..6)
        });
        std::str::from_utf8(digits?).ok()?.parse().ok()
    }

    /// 0 for any response with endpoints, where no other edit is made than of endpoints.
    pub fn endpoints(&self) -> Option<u64> {
        (self.type_url == type_url::ENDPOINT && !self.resources.is_empty()).then_some(0)
    }
}

/// All that a fleet is served, as one proxy was given it.
#[derive(Debug, Default)]
pub struct Catalog {
    /// By type, in the order of [`TYPES`].
    by_type: [DeltaDiscoveryResponse; TYPES.len()],
}

impl Catalog {
    /// Adds what a response holds.
    pub fn add(&mut self, at: usize, response: DeltaDiscoveryResponse) {
        self.by_type[at].resources.extend(response.resources);
        TYPES[at].clone_into(&mut self.by_type[at].type_url);
    }

    /// How many resources there are of each type.
    pub fn counts(&self) -> [usize; TYPES.len()] {
        std::array::from_fn(|at| self.by_type[at].resources.len())
    }

    /// The names that are to be asked for of the type after this one.
    pub fn referred(&self, at: usize) -> Vec<String> {
        match TYPES[at] {
            // Every service here is served its endpoints, under its cluster's name.
            type_url::CLUSTER => self.by_type[at].resources.iter().map(|one| one.name.clone()).collect(),
            // Every listener has one RouteConfiguration, of its own name.
            type_url::LISTENER => self.by_type[at].resources.iter().map(|one| one.name.clone()).collect(),
            _ => Vec::new(),
        }
    }

    /// As the peer reads it: responses, each with its length before it.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for response in &self.by_type {
            let message = response.encode_to_vec();
            bytes.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
            bytes.extend(message);
        }
        bytes
    }
}

/// The first requests of a proxy, one per type.
#[derive(Clone, Debug)]
pub struct Script {
    /// Messages without a node.
    requests: [Bytes; TYPES.len()],
    /// How many resources answer each.
    pub counts: [usize; TYPES.len()],
    /// Whether it says what it holds: then it asks for everything at once.
    pub returning: bool,
    /// Which edit a response brings, to a proxy that has all it asked for.
    pub sign: fn(&Envelope) -> Option<u64>,
}

impl Script {
    /// Of a proxy that holds nothing.
    pub fn cold(catalog: &Catalog, sign: fn(&Envelope) -> Option<u64>) -> Self {
        Self::new(catalog, |_| BTreeMap::new(), false, sign)
    }

    /// Of one that holds everything, but of endpoints of `stale` another version; edits are of endpoints.
    pub fn returning(catalog: &Catalog, stale: &str) -> Self {
        let versions = |at: usize| {
            let resources = catalog.by_type[at].resources.iter();
            let version = |name: &str, version: &str| {
                let is_stale = TYPES[at] == type_url::ENDPOINT && name == stale;
                if is_stale { "stale".to_owned() } else { version.to_owned() }
            };
            resources.map(|one| (one.name.clone(), version(&one.name, &one.version))).collect()
        };
        Self::new(catalog, versions, true, Envelope::endpoints)
    }

    fn new(
        catalog: &Catalog,
        versions: impl Fn(usize) -> BTreeMap<String, String>,
        returning: bool,
        sign: fn(&Envelope) -> Option<u64>,
    ) -> Self {
        let requests = std::array::from_fn(|at| {
            let by_name = matches!(TYPES[at], type_url::ENDPOINT | type_url::ROUTE);
            let names = catalog.by_type[at].resources.iter().filter(|_| by_name).map(|one| one.name.clone());
            let request = DeltaDiscoveryRequest {
                type_url: TYPES[at].into(),
                resource_names_subscribe: names.collect(),
                initial_resource_versions: versions(at).into_iter().collect(),
                ..DeltaDiscoveryRequest::default()
            };
            request.encode_to_vec().into()
        });
        Self { requests, counts: catalog.counts(), returning, sign }
    }

    /// The request for a type, as gRPC frames it; the first on a stream says who asks.
    pub fn request(&self, at: usize, node: Option<&Node>) -> Bytes {
        // Messages one after the other are one message with the fields of both.
        let node = node.map(|node| DeltaDiscoveryRequest { node: Some(node.clone()), ..Default::default() });
        let node = node.map(|request| request.encode_to_vec()).unwrap_or_default();
        frame(&[&node, &self.requests[at]])
    }

    /// Bytes of the largest request.
    pub fn largest(&self) -> usize {
        self.requests.iter().map(Bytes::len).max().unwrap_or(0)
    }
}

/// An Envoy of fleet `edge`.
pub fn node(id: &str) -> Node {
    let version = SemanticVersion { major_number: 1, minor_number: 40, patch: 0 };
    let build = BuildVersion { version: Some(version), metadata: None };
    Node {
        id: id.to_owned(),
        cluster: "edge".into(),
        user_agent_name: "envoy".into(),
        user_agent_version_type: Some(UserAgentVersionType::UserAgentBuildVersion(build)),
        ..Node::default()
    }
}

/// An acknowledgement.
pub fn acknowledge(envelope: &Envelope) -> Bytes {
    framed(&answer(envelope))
}

/// A rejection, with these words.
pub fn reject(envelope: &Envelope, words: &str) -> DeltaDiscoveryRequest {
    let error_detail = Some(rpc::Status { message: words.to_owned(), ..rpc::Status::default() });
    DeltaDiscoveryRequest { error_detail, ..answer(envelope) }
}

fn answer(envelope: &Envelope) -> DeltaDiscoveryRequest {
    let (type_url, response_nonce) = (envelope.type_url.clone(), envelope.nonce.clone());
    DeltaDiscoveryRequest { type_url, response_nonce, ..DeltaDiscoveryRequest::default() }
}

/// The first request of the scout, which does not know yet what there is.
pub fn ask(at: usize, names: Vec<String>, node: Option<Node>) -> Bytes {
    framed(&DeltaDiscoveryRequest {
        node,
        type_url: TYPES[at].into(),
        resource_names_subscribe: names,
        ..DeltaDiscoveryRequest::default()
    })
}

/// A request, as gRPC frames it.
pub fn framed(request: &DeltaDiscoveryRequest) -> Bytes {
    frame(&[&request.encode_to_vec()])
}

fn frame(parts: &[&[u8]]) -> Bytes {
    let len = parts.iter().map(|part| part.len()).sum::<usize>();
    let mut bytes = BytesMut::with_capacity(HEADER + len);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes.freeze()
}

/// Takes the next message out of what has arrived.
pub fn take_message(inbox: &mut BytesMut) -> Result<Option<Bytes>> {
    let Some(mut header) = inbox.get(..HEADER) else { return Ok(None) };
    ensure!(header.get_u8() == 0, "a compressed response, which nobody asked for");
    let len = header.get_u32() as usize;
    if inbox.len() < HEADER + len {
        return Ok(None);
    }
    inbox.advance(HEADER);
    let message = inbox.split_to(len).freeze();
    if inbox.is_empty() {
        *inbox = BytesMut::new();
    }
    Ok(Some(message))
}

/// The place of a type in [`TYPES`].
pub fn place(type_url: &str) -> Result<usize> {
    match TYPES.iter().position(|one| *one == type_url) {
        Some(at) => Ok(at),
        None => bail!("a response of type {type_url:?}"),
    }
}

/// A response with its content.
pub fn read(message: Bytes) -> Result<DeltaDiscoveryResponse> {
    DeltaDiscoveryResponse::decode(message).context("a response that is none")
}

#[cfg(test)]
mod tests {
    use chancery_proto::envoy::discovery::Resource;

    use super::*;

    fn catalog() -> Catalog {
        let one = |name: &str| Resource { name: name.into(), version: "1".into(), ..Resource::default() };
        let mut catalog = Catalog::default();
        catalog.add(0, DeltaDiscoveryResponse { resources: vec![one("a"), one("b")], ..Default::default() });
        catalog.add(1, DeltaDiscoveryResponse { resources: vec![one("a"), one("b")], ..Default::default() });
        catalog
    }

    fn parse(framed: &[u8]) -> DeltaDiscoveryRequest {
        let mut inbox = BytesMut::from(framed);
        let message = take_message(&mut inbox).unwrap().unwrap();
        assert!(inbox.is_empty());
        DeltaDiscoveryRequest::decode(message).unwrap()
    }

    #[test]
    fn the_first_request_names_the_proxy_and_a_later_one_its_endpoints() {
        let script = Script::cold(&catalog(), Envelope::endpoints);
        let first = parse(&script.request(0, Some(&node("p"))));
        assert_eq!((first.node.unwrap().id, first.type_url), ("p".into(), type_url::CLUSTER.into()));
        assert!(first.resource_names_subscribe.is_empty(), "clusters are asked for with the wildcard");
        let endpoints = parse(&script.request(1, None));
        assert_eq!((endpoints.node, endpoints.resource_names_subscribe), (None, vec!["a".into(), "b".into()]));
    }

    #[test]
    fn who_returns_says_what_it_holds() {
        let script = Script::returning(&catalog(), "a");
        let versions = |at| parse(&script.request(at, None)).initial_resource_versions;
        let wanted = |a: &str| [("a".to_owned(), a.to_owned()), ("b".to_owned(), "1".to_owned())].into();
        assert_eq!((versions(0), versions(1)), (wanted("1"), wanted("stale")));
    }

    #[test]
    fn an_edit_is_known_by_its_text() {
        let resource = |text: &str| Resource { version: text.into(), ..Resource::default() }.encode_to_vec().into();
        let edit = |texts: &[&str]| {
            let resources = texts.iter().copied().map(resource).collect();
            Envelope { resources, ..Envelope::default() }.edit()
        };
        assert_eq!(edit(&["", "edit-", "an edit-00001"]), None, "one that is cut off is none");
        assert_eq!(edit(&["", &edit_text(17)]), Some(17));
        assert_eq!(edit(&["edit-", "an edit-000017 it is"]), Some(17), "whatever is around it");
    }

    #[test]
    fn a_message_is_taken_when_all_of_it_is_there() {
        let framed = ask(0, Vec::new(), None);
        let mut inbox = BytesMut::from(&framed[..framed.len() - 1]);
        assert_eq!(take_message(&mut inbox).unwrap(), None);
        inbox.extend_from_slice(&framed[framed.len() - 1..]);
        assert!(take_message(&mut inbox).unwrap().is_some());
    }
}
