//! One message inside another: `google.protobuf.Any`.
//!
//! Encoding cannot fail and is deterministic for messages without map fields: `prost` writes fields in
//! the order of their numbers, and keeps the order of repeated ones. Whoever fills a map field with more
//! than one entry must write it in order where equal bytes matter.

use prost::{DecodeError, Message, Name};

use crate::google::protobuf::Any;

/// Packs `message` under the given type URL.
pub fn pack<M: Message>(type_url: &str, message: &M) -> Any {
    Any { type_url: type_url.to_owned(), value: message.encode_to_vec() }
}

/// Packs `message` under its own type URL: the form in which Envoy takes the configuration of an extension.
pub fn pack_typed<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

/// Why an `Any` does not hold the message that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It holds another type.
    #[error("expected {expected}, found {found}")]
    Type {
        /// The message that was asked for.
        expected: String,
        /// The type URL that was there.
        found: String,
    },
    /// It says it holds this type, but does not decode as one.
    #[error("malformed {expected}")]
    Malformed {
        /// The message that was asked for.
        expected: String,
        /// What the decoder said.
        #[source]
        source: DecodeError,
    },
}

/// The message of type `M` in `any`.
pub fn unpack<M: Message + Name + Default>(any: &Any) -> Result<M, UnpackError> {
    if crate::type_url::message_name(&any.type_url) != M::full_name() {
        return Err(UnpackError::Type { expected: M::full_name(), found: any.type_url.clone() });
    }
    M::decode(any.value.as_slice()).map_err(|source| UnpackError::Malformed { expected: M::full_name(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        envoy::{cluster::Cluster, listener::Listener},
        type_url,
    };

    fn cluster() -> Cluster {
        Cluster { name: "checkout".into(), ..Cluster::default() }
    }

    #[test]
    fn what_is_packed_unpacks() {
        let any = pack(type_url::CLUSTER, &cluster());
        assert_eq!(any, pack_typed(&cluster()));
        assert_eq!(unpack::<Cluster>(&any).unwrap(), cluster());
    }

    #[test]
    fn another_type_is_refused() {
        let error = unpack::<Listener>(&pack_typed(&cluster())).unwrap_err();
        assert!(matches!(error, UnpackError::Type { .. }), "{error:?}");
    }

    #[test]
    fn malformed_bytes_are_refused() {
        let any = Any { type_url: type_url::CLUSTER.into(), value: vec![0xff] };
        assert!(matches!(unpack::<Cluster>(&any), Err(UnpackError::Malformed { .. })));
    }
}
