//! Discovery responses made of pre-encoded resources.
//!
//! A response is written field by field, each resource as the bytes it was encoded to once. The fields stand in
//! the order of their numbers, as `prost` writes them. What is large is not copied: every client that is sent it sends
//! the same memory.

use std::{collections::VecDeque, sync::Arc};

use bytes::{Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint};

use crate::{
    resource::{TypeUrl, field_len, put_field},
    subscription::{delta::DeltaReply, sotw::SotwReply},
};

/// A reply with what the envelope of a response adds to it.
#[derive(Clone, Debug)]
pub(crate) struct Response<R> {
    /// The type of the resources.
    pub(crate) type_url: TypeUrl,
    /// Names this response in its answer.
    pub(crate) nonce: Arc<str>,
    /// Version of the whole.
    pub(crate) version: Arc<str>,
    /// The content.
    pub(crate) reply: R,
}

/// A response that knows its encoding.
pub(crate) trait EncodeResponse: Send + 'static {
    /// Exact length of what [`EncodeResponse::encode`] writes.
    fn encoded_len(&self) -> usize;

    /// Writes the message.
    fn encode(&self, pieces: &mut Pieces);
}

/// Above so many bytes, sharing is cheaper than copying: a piece costs a frame of its own.
const SHARED: usize = 4096;

/// A message in pieces: small fields together, large ones as they are.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    ready: VecDeque<Bytes>,
    open: BytesMut,
}

impl Pieces {
    /// Pieces of a message of `len` bytes, with `header` before it.
    pub(crate) fn new(header: &[u8], len: usize) -> Self {
        // What a longer one is made of is shared for the most part.
        let mut open = BytesMut::with_capacity(header.len() + len.min(SHARED));
        open.extend_from_slice(header);
        Self { ready: VecDeque::new(), open }
    }

    /// The next piece to be sent.
    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        let next = self.ready.pop_front();
        next.or_else(|| (!self.open.is_empty()).then(|| std::mem::take(&mut self.open).freeze()))
    }

    /// A message as a whole, without a field around it.
    pub(crate) fn put_message(&mut self, message: &impl prost::Message) {
        self.open.reserve(message.encoded_len());
        message.encode_raw(&mut self.open);
    }

    fn put(&mut self, number: u32, value: &[u8]) {
        put_field(&mut self.open, number, value);
    }

    fn put_shared(&mut self, number: u32, value: Bytes) {
        if value.len() < SHARED {
            return self.put(number, &value);
        }
        encode_key(number, WireType::LengthDelimited, &mut self.open);
        encode_varint(value.len() as u64, &mut self.open);
        self.ready.extend([std::mem::take(&mut self.open).freeze(), value]);
    }
}

impl EncodeResponse for Response<SotwReply> {
    fn encoded_len(&self) -> usize {
        let resources: usize = self.reply.resources.iter().map(|r| field_len(r.any_bytes().len())).sum();
        field_len(self.version.len()) + resources + field_len(self.type_url.len()) + field_len(self.nonce.len())
    }

    fn encode(&self, pieces: &mut Pieces) {
        pieces.put(1, self.version.as_bytes());
        for resource in &self.reply.resources {
            pieces.put_shared(2, resource.any_bytes());
        }
        pieces.put(4, self.type_url.as_bytes());
        pieces.put(5, self.nonce.as_bytes());
    }
}

impl EncodeResponse for Response<DeltaReply> {
    fn encoded_len(&self) -> usize {
        let upserts: usize = self.reply.upserts.iter().map(|r| field_len(r.delta_bytes().len())).sum();
        let removed: usize = self.reply.removed.iter().map(|name| field_len(name.len())).sum();
        field_len(self.version.len()) + upserts + field_len(self.type_url.len()) + field_len(self.nonce.len()) + removed
    }

    fn encode(&self, pieces: &mut Pieces) {
        pieces.put(1, self.version.as_bytes());
        for resource in &self.reply.upserts {
            pieces.put_shared(2, resource.delta_bytes());
        }
        pieces.put(4, self.type_url.as_bytes());
        pieces.put(5, self.nonce.as_bytes());
        for name in &self.reply.removed {
            pieces.put(6, name.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use chancery_proto::envoy::discovery::{DeltaDiscoveryResponse, DiscoveryResponse, Resource as Wire};
    use chancery_proto::google::protobuf::Any;
    use prost::Message;

    use super::*;
    use crate::resource::{Name, Resource};

    const T: &str = "type.example/T";

    const LARGE: usize = SHARED + 300;

    fn resources() -> Vec<Resource> {
        let large = vec![7; LARGE];
        [("a", b"one".as_slice()), ("b", large.as_slice()), ("c", b"")].map(|(n, b)| Resource::new(T, n, b)).into()
    }

    fn any(body: &[u8]) -> Any {
        Any { type_url: T.into(), value: body.into() }
    }

    fn bodies() -> [Vec<u8>; 3] {
        [b"one".to_vec(), vec![7; LARGE], Vec::new()]
    }

    fn response<R>(reply: R) -> Response<R> {
        Response { type_url: T.into(), nonce: "12".into(), version: "v".into(), reply }
    }

    fn encoded(response: &impl EncodeResponse) -> Vec<u8> {
        let mut pieces = Pieces::default();
        response.encode(&mut pieces);
        let buf: Vec<u8> = std::iter::from_fn(|| pieces.pop()).flatten().collect();
        assert_eq!(buf.len(), response.encoded_len());
        buf
    }

    #[test]
    fn a_state_of_the_world_response_is_what_prost_writes() {
        let wire = DiscoveryResponse {
            version_info: "v".into(),
            resources: bodies().iter().map(|body| any(body)).collect(),
            type_url: T.into(),
            nonce: "12".into(),
            ..DiscoveryResponse::default()
        };
        let ours = encoded(&response(SotwReply { resources: resources() }));
        assert_eq!(DiscoveryResponse::decode(ours.as_slice()).unwrap(), wire);
    }

    #[test]
    fn an_incremental_response_is_what_prost_writes() {
        let resources = resources();
        let wire = DeltaDiscoveryResponse {
            system_version_info: "v".into(),
            resources: std::iter::zip(&resources, bodies())
                .map(|(resource, body)| Wire {
                    name: resource.name().to_string(),
                    version: resource.version().to_string(),
                    resource: Some(any(&body)),
                    ..Wire::default()
                })
                .collect(),
            removed_resources: vec!["gone".into(), "never".into()],
            type_url: T.into(),
            nonce: "12".into(),
            ..DeltaDiscoveryResponse::default()
        };
        let removed = vec![Name::from("gone"), Name::from("never")];
        let ours = encoded(&response(DeltaReply { upserts: resources, removed }));
        assert_eq!(DeltaDiscoveryResponse::decode(ours.as_slice()).unwrap(), wire);
    }

    #[test]
    fn what_is_large_is_not_copied() {
        let resources = resources();
        let large = resources[1].delta_bytes();
        let mut pieces = Pieces::new(b"header", 0);
        response(DeltaReply { upserts: resources, removed: Vec::new() }).encode(&mut pieces);
        let pieces: Vec<Bytes> = std::iter::from_fn(|| pieces.pop()).collect();
        assert!(pieces[0].starts_with(b"header"));
        assert_eq!(
            pieces.iter().map(|piece| piece.as_ptr() == large.as_ptr()).collect::<Vec<_>>(),
            [false, true, false]
        );
    }

    #[test]
    fn an_empty_response_is_one_too() {
        let ours = encoded(&response(DeltaReply { upserts: Vec::new(), removed: Vec::new() }));
        let wire = DeltaDiscoveryResponse::decode(ours.as_slice()).unwrap();
        assert_eq!((wire.resources.len(), wire.removed_resources.len(), wire.nonce.as_str()), (0, 0, "12"));
    }
}
