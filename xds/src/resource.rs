//! A resource, encoded once.
//!
//! Every stream that sends a resource shares these bytes: the delta `Resource` message is encoded
//! when the resource is made, with its `Any` last, so that the state-of-the-world form (the bare
//! `Any`) is a slice of the same buffer. `prost_types::Any` would copy the value for each client.

use std::{fmt, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

/// A resource name. Opaque to this crate.
pub type Name = Arc<str>;

/// The URL of a resource type, such as `type.googleapis.com/envoy.config.cluster.v3.Cluster`.
pub type TypeUrl = Arc<str>;

/// A content hash. Two resources of one type and name with equal versions have equal bytes.
///
/// Because it is made from the content alone, a proxy that moves to another replica, or meets a
/// restarted one, is sent nothing that it already has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(u64);

impl Version {
    /// The version of `body`.
    pub fn of(body: &[u8]) -> Self {
        Self(xxhash_rust::xxh3::xxh3_64(body))
    }

    /// The hash itself.
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One resource, ready to be sent on any stream. Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    name: Name,
    version: Version,
    delta: Bytes,
    any_at: usize,
    body_at: usize,
}

impl Resource {
    /// The resource `name` of type `type_url`, whose encoded message is `body`.
    pub fn new(type_url: &str, name: impl Into<Name>, body: &[u8]) -> Self {
        const NAME: u32 = 3;
        const VERSION: u32 = 1;
        const RESOURCE: u32 = 2;
        const ANY_TYPE_URL: u32 = 1;
        const ANY_VALUE: u32 = 2;

        let name = name.into();
        let version = Version::of(body);
        let any_len = field_len(type_url.len()) + field_len(body.len());
        let version_text = version.to_string();
        let total = field_len(name.len()) + field_len(version_text.len()) + field_len(any_len);

        let mut buf = BytesMut::with_capacity(total);
        put_field(&mut buf, NAME, name.as_bytes());
        put_field(&mut buf, VERSION, version_text.as_bytes());
        encode_key(RESOURCE, WireType::LengthDelimited, &mut buf);
        encode_varint(any_len as u64, &mut buf);
        let any_at = buf.len();
        put_field(&mut buf, ANY_TYPE_URL, type_url.as_bytes());
        put_field(&mut buf, ANY_VALUE, body);
        debug_assert_eq!(buf.len(), total);
        let body_at = total - body.len();
        Self { name, version, delta: buf.freeze(), any_at, body_at }
    }

    /// The name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The same, with another copy of its name.
    pub(crate) fn named(self, name: Name) -> Self {
        debug_assert_eq!(self.name, name);
        Self { name, ..self }
    }

    /// The content hash.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Stands for name and content in the version of a set of resources, which is the sum of these.
    pub(crate) fn fingerprint(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64_with_seed(self.name.as_bytes(), self.version.0)
    }

    /// The encoded `envoy.service.discovery.v3.Resource`.
    pub fn delta_bytes(&self) -> Bytes {
        self.delta.clone()
    }

    /// The encoded message itself.
    pub fn body(&self) -> Bytes {
        self.delta.slice(self.body_at..)
    }

    /// The encoded `google.protobuf.Any`.
    pub fn any_bytes(&self) -> Bytes {
        self.delta.slice(self.any_at..)
    }
}

/// Length of a length-delimited field with a one-byte key.
pub(crate) fn field_len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

/// Writes a length-delimited field with a number below 16.
pub(crate) fn put_field(buf: &mut impl BufMut, number: u32, value: &[u8]) {
    encode_key(number, WireType::LengthDelimited, buf);
    encode_varint(value.len() as u64, buf);
    buf.put_slice(value);
}

#[cfg(test)]
mod tests {
    use chancery_proto::envoy::discovery;
    use prost::Message;

    use super::*;

    #[test]
    fn both_forms_decode_to_what_went_in() {
        let resource = Resource::new("type.example/T", "a", b"body");
        let delta = discovery::Resource::decode(resource.delta_bytes()).unwrap();
        assert_eq!(delta.name, "a");
        assert_eq!(delta.version, resource.version().to_string());
        let any = delta.resource.unwrap();
        assert_eq!((any.type_url.as_str(), any.value.as_slice()), ("type.example/T", b"body".as_slice()));
        assert_eq!(prost_types::Any::decode(resource.any_bytes()).unwrap().value, b"body");
        assert_eq!(&*resource.body(), b"body");
    }

    #[test]
    fn the_version_follows_the_content_and_never_changes_between_releases() {
        assert_eq!(Version::of(b"body"), Version::of(b"body"));
        assert_ne!(Version::of(b"body"), Version::of(b"bodz"));
        assert_eq!(Version::of(b"").to_string(), "2d06800538d394c2");
    }

    #[test]
    fn large_bodies_keep_their_length_prefixes() {
        let body = vec![7; 70_000];
        let resource = Resource::new("type.example/T", "long-name-".repeat(40), &body);
        let delta = discovery::Resource::decode(resource.delta_bytes()).unwrap();
        assert_eq!(delta.resource.unwrap().value, body);
    }
}
