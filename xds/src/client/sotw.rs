//! The state-of-the-world variant, as a client speaks it, for servers that know no other. Pure.
//!
//! Every response is everything: what is missing from it is gone. The wildcard is spelled as nothing at all, as all
//! servers understand it; the special name `*` is younger.
//!
//! A resource has no name of its own here. It is read from the first field of the message, where all resources of Envoy,
//! of envoyproxy/ratelimit and of Chancery have it, unless a `Resource` is wrapped around it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, Bytes};
use chancery_proto::{
    Message, Name as _,
    envoy::{
        core::Node,
        discovery::{DiscoveryRequest, DiscoveryResponse, Resource},
    },
    google::protobuf::Any,
};
use prost::encoding::{WireType, decode_key, decode_varint};

use super::session::{Batch, Dialect, Interest, NotAskedFor, Received, Refused, Response, body, error_detail};
use crate::resource::{Name, TypeUrl, Version};

/// What a client of the state-of-the-world variant asks for, and holds.
#[derive(Debug)]
pub(crate) struct Sotw {
    node: Node,
    types: BTreeMap<TypeUrl, Subscribed>,
}

#[derive(Debug)]
struct Subscribed {
    interest: Interest,
    /// What was received and not removed.
    names: BTreeSet<Name>,
    /// The version that was taken last.
    accepted: String,
    /// Whether what came after it was refused: some of that may be in force, so no version says what is held.
    mixed: bool,
}

impl Sotw {
    pub(crate) fn new(node: Node, types: Vec<(TypeUrl, Interest)>) -> Self {
        let subscribed =
            |interest| Subscribed { interest, names: BTreeSet::new(), accepted: String::new(), mixed: false };
        Self { node, types: types.into_iter().map(|(type_url, interest)| (type_url, subscribed(interest))).collect() }
    }

    /// It has this, from an earlier life.
    pub(crate) fn hold(&mut self, type_url: &str, name: Name) {
        if let Some(subscribed) = self.types.get_mut(type_url) {
            subscribed.names.insert(name);
        }
    }
}

impl Subscribed {
    fn request(&self, type_url: &str) -> DiscoveryRequest {
        DiscoveryRequest {
            type_url: type_url.to_owned(),
            version_info: self.accepted.clone(),
            resource_names: match &self.interest {
                Interest::Wildcard => Vec::new(),
                Interest::Names(names) => names.iter().map(ToString::to_string).collect(),
            },
            ..DiscoveryRequest::default()
        }
    }
}

impl Dialect for Sotw {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    fn opening(&mut self) -> Vec<DiscoveryRequest> {
        let mut node = Some(self.node.clone());
        let first = |(type_url, held): (&TypeUrl, &Subscribed)| {
            let request = held.request(type_url);
            let version_info = if held.mixed { String::new() } else { request.version_info };
            // Once per stream is enough.
            DiscoveryRequest { node: node.take(), version_info, ..request }
        };
        self.types.iter().map(first).collect()
    }

    fn receive(&mut self, response: DiscoveryResponse) -> Result<Response, NotAskedFor> {
        let DiscoveryResponse { version_info, resources, type_url, nonce, .. } = response;
        let Some((type_url, subscribed)) = self.types.get_key_value(type_url.as_str()) else {
            return Err(NotAskedFor(type_url));
        };
        let type_url = type_url.clone();
        let mut upserts = BTreeMap::new();
        let mut malformed = Vec::new();
        for (index, any) in resources.into_iter().enumerate() {
            match named(any, &type_url) {
                Ok((name, body)) => {
                    upserts.insert(name, body);
                }
                Err(reason) => malformed.push(Refused { name: format!("resource {index}").into(), reason }),
            }
        }
        let missing = subscribed.names.iter().filter(|name| !upserts.contains_key(*name));
        // What cannot be read may be any of them.
        let removed = missing.filter(|_| malformed.is_empty()).cloned().collect();
        let received = |(name, body): (Name, Bytes)| Received { name, version: Version::of(&body).to_string(), body };
        let batch = Batch { type_url, upserts: upserts.into_iter().map(received).collect(), removed };
        Ok(Response { batch, malformed, nonce, version: version_info })
    }

    fn answer(&mut self, response: &Response, refused: &[Refused]) -> DiscoveryRequest {
        let type_url = &response.batch.type_url;
        let Some(subscribed) = self.types.get_mut(type_url) else { return DiscoveryRequest::default() };
        let Batch { upserts, removed, .. } = &response.batch;
        subscribed.names.extend(upserts.iter().map(|received| received.name.clone()));
        subscribed.names.retain(|name| !removed.contains(name));
        subscribed.mixed = !refused.is_empty();
        if refused.is_empty() {
            subscribed.accepted.clone_from(&response.version);
        }
        DiscoveryRequest {
            response_nonce: response.nonce.clone(),
            error_detail: error_detail(refused),
            ..subscribed.request(type_url)
        }
    }
}

fn named(any: Any, type_url: &str) -> Result<(Name, Bytes), String> {
    if any.type_url == Resource::type_url() {
        let wrapped = Resource::decode(any.value.as_slice()).map_err(|error| format!("it cannot be read: {error}"))?;
        let inner = wrapped.resource.ok_or("it is empty")?;
        return Ok((wrapped.name.into(), body(inner, type_url)?));
    }
    let body = body(any, type_url)?;
    let name = first_field(&body).ok_or("it has no name")?;
    Ok((name, body))
}

/// The text in field 1, which writers put first.
fn first_field(mut message: &[u8]) -> Option<Name> {
    const NAME: (u32, WireType) = (1, WireType::LengthDelimited);
    let (number, wire_type) = decode_key(&mut message).ok()?;
    if (number, wire_type) != NAME {
        return None;
    }
    let length = usize::try_from(decode_varint(&mut message).ok()?).ok()?;
    let text = (length <= message.remaining()).then(|| &message[..length])?;
    std::str::from_utf8(text).ok().filter(|text| !text.is_empty()).map(Name::from)
}
