//! Which requests are traced, and to whom that is told.

use super::{Name, access_log::Share};

/// How the requests of a listener are traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// The service that takes spans (OTLP).
    pub service: Name,
    /// What the proxies are called in spans.
    pub service_name: String,
    /// Which requests.
    pub sampling: Sampling,
    /// What spans say besides.
    pub tags: Vec<Tag>,
}

/// Which requests are traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// Of those of which nothing is said yet.
    pub random: Share,
    /// Of those whose client asks for it (`x-client-trace-id`).
    pub client: Share,
    /// The most of all that are chosen.
    pub overall: Share,
}

/// What spans say besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Under which name.
    pub name: String,
    /// What.
    pub value: TagValue,
}

/// The value of a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagValue {
    /// Always this.
    Literal(String),
    /// That of a header of the request, in lower case.
    Header {
        /// The header.
        name: String,
        /// What is said if it is not there; empty: nothing.
        default: String,
    },
}
