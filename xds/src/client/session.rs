//! What a response brought, what is said to it, and what both variants of the protocol have in common. Pure.
//!
//! A resource that is refused counts as received all the same: a server does not send it again before it changes, and says
//! when it goes. Whoever takes batches keeps the last good one in force, and knows that the refused one is there.

use std::{collections::BTreeSet, fmt::Write as _};

use bytes::Bytes;
use chancery_proto::google::{protobuf::Any, rpc};

use crate::resource::{Name, TypeUrl};

/// The longest text of a refusal that is sent; what is beyond is counted.
const MAX_REFUSAL: usize = 4096;

/// gRPC's code for what the client was given and cannot use.
const INVALID_ARGUMENT: i32 = 3;

/// Which resources of a type a client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interest {
    /// All of them.
    Wildcard,
    /// Those.
    Names(BTreeSet<Name>),
}

/// What one response brought.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The type.
    pub type_url: TypeUrl,
    /// Resources that are new or changed, each name once; from a server that does not tell them apart, unchanged ones too.
    pub upserts: Vec<Received>,
    /// Names that have no resource, or none any more.
    pub removed: Vec<Name>,
}

/// A resource that came.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    /// Its name.
    pub name: Name,
    /// Its version, as the server calls it.
    pub version: String,
    /// The encoded message.
    pub body: Bytes,
}

/// A resource that cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its name.
    pub name: Name,
    /// What is wrong with it.
    pub reason: String,
}

/// A response, taken apart.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Response {
    /// What is handed over.
    pub(crate) batch: Batch,
    /// What cannot be, because it is no resource of this type.
    pub(crate) malformed: Vec<Refused>,
    /// Names the response in the answer.
    pub(crate) nonce: String,
    /// The version of the whole, where the variant has one.
    pub(crate) version: String,
}

/// The server sent a type that nobody asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server sent resources of type {0:?}, which was not asked for")]
pub(crate) struct NotAskedFor(pub(crate) String);

/// One variant of the protocol, as a client speaks it. It outlives streams.
pub(crate) trait Dialect: Send {
    /// The variant's request.
    type Request: Send + 'static;
    /// The variant's response.
    type Response: Send + 'static;

    /// What is said first on a new stream: one request per type.
    fn opening(&mut self) -> Vec<Self::Request>;

    /// Takes a response apart.
    fn receive(&mut self, response: Self::Response) -> Result<Response, NotAskedFor>;

    /// What is said to it: that it is in force, or what is wrong with it.
    fn answer(&mut self, response: &Response, refused: &[Refused]) -> Self::Request;
}

/// The refusals as a server gets them; `None` if there are none.
pub(crate) fn error_detail(refused: &[Refused]) -> Option<rpc::Status> {
    let (first, rest) = refused.split_first()?;
    let mut message = String::new();
    let _ = write!(message, "{}: {}", first.name, first.reason);
    let mut left = rest.len();
    for Refused { name, reason } in rest {
        if message.len() + name.len() + reason.len() > MAX_REFUSAL {
            break;
        }
        let _ = write!(message, "; {name}: {reason}");
        left -= 1;
    }
    if message.len() > MAX_REFUSAL {
        message.truncate(message.floor_char_boundary(MAX_REFUSAL));
        message.push('…');
    }
    if left > 0 {
        let _ = write!(message, "; and {left} more");
    }
    Some(rpc::Status { code: INVALID_ARGUMENT, message, details: Vec::new() })
}

/// The message in `any`, if it is of the type that the response is of.
pub(crate) fn body(any: Any, type_url: &str) -> Result<Bytes, String> {
    if any.type_url == type_url { Ok(any.value.into()) } else { Err(format!("it is of type {:?}", any.type_url)) }
}
