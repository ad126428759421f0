//! gRPC messages made of pre-encoded resources.
//!
//! A response is written field by field into tonic's buffer, each resource as the bytes it was
//! encoded to once; requests are decoded with prost as usual.

use std::marker::PhantomData;

use prost::Message;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use crate::{
    resource::{Resource, TypeUrl, field_len, put_field},
    subscription::{delta::DeltaReply, sotw::SotwReply},
};

/// A reply with what the envelope of a response adds to it.
#[derive(Clone, Debug)]
pub(crate) struct Response<R> {
    /// The type of the resources.
    pub(crate) type_url: TypeUrl,
    /// Names this response in its answer.
    pub(crate) nonce: String,
    /// Version of the whole.
    pub(crate) version: String,
    /// The content.
    pub(crate) reply: R,
}

/// A response that knows its encoding.
pub(crate) trait EncodeResponse: Send + 'static {
    /// Exact length of what [`EncodeResponse::encode`] writes.
    fn encoded_len(&self) -> usize;

    /// Writes the message.
    fn encode(&self, buf: &mut EncodeBuf<'_>);
}

impl EncodeResponse for Response<SotwReply> {
    fn encoded_len(&self) -> usize {
        let resources: usize = self.reply.resources.iter().map(|r| field_len(r.any_bytes().len())).sum();
        field_len(self.version.len()) + resources + field_len(self.type_url.len()) + field_len(self.nonce.len())
    }

    fn encode(&self, buf: &mut EncodeBuf<'_>) {
        put_field(buf, 1, self.version.as_bytes());
        for resource in &self.reply.resources {
            put_field(buf, 2, resource.any_bytes());
        }
        put_field(buf, 4, self.type_url.as_bytes());
        put_field(buf, 5, self.nonce.as_bytes());
    }
}

impl EncodeResponse for Response<DeltaReply> {
    fn encoded_len(&self) -> usize {
        let upserts: usize = self.reply.upserts.iter().map(|r: &Resource| field_len(r.delta_bytes().len())).sum();
        let removed: usize = self.reply.removed.iter().map(|name| field_len(name.len())).sum();
        field_len(self.version.len()) + upserts + field_len(self.type_url.len()) + field_len(self.nonce.len()) + removed
    }

    fn encode(&self, buf: &mut EncodeBuf<'_>) {
        put_field(buf, 1, self.version.as_bytes());
        for resource in &self.reply.upserts {
            put_field(buf, 2, resource.delta_bytes());
        }
        put_field(buf, 4, self.type_url.as_bytes());
        put_field(buf, 5, self.nonce.as_bytes());
        for name in &self.reply.removed {
            put_field(buf, 6, name.as_bytes());
        }
    }
}

/// Decodes requests of type `Q`, encodes responses of type `S`.
pub(crate) struct ResponseCodec<Q, S>(PhantomData<fn() -> (Q, S)>);

impl<Q, S> ResponseCodec<Q, S> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<Q: Message + Default + 'static, S: EncodeResponse> Codec for ResponseCodec<Q, S> {
    type Encode = S;
    type Decode = Q;
    type Encoder = ResponseEncoder<S>;
    type Decoder = RequestDecoder<Q>;

    fn encoder(&mut self) -> Self::Encoder {
        ResponseEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        RequestDecoder(PhantomData)
    }
}

pub(crate) struct ResponseEncoder<S>(PhantomData<fn() -> S>);

impl<S: EncodeResponse> Encoder for ResponseEncoder<S> {
    type Item = S;
    type Error = Status;

    fn encode(&mut self, item: S, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buf.reserve(item.encoded_len());
        item.encode(buf);
        Ok(())
    }
}

pub(crate) struct RequestDecoder<Q>(PhantomData<fn() -> Q>);

impl<Q: Message + Default> Decoder for RequestDecoder<Q> {
    type Item = Q;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<Q>, Status> {
        Q::decode(buf).map(Some).map_err(|error| Status::invalid_argument(format!("malformed request: {error}")))
    }
}
