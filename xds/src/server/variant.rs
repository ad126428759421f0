//! The two variants of the protocol as a stream needs them.

use chancery_proto::envoy::{
    core::Node,
    discovery::{DeltaDiscoveryRequest, DiscoveryRequest},
};

use super::Protocol;
use crate::subscription::{Subscription, delta::Delta, sotw::Sotw};

/// A protocol variant as the stream needs it.
pub(crate) trait Variant: Subscription<Request: RequestHead> {
    const PROTOCOL: Protocol;
}

impl Variant for Delta {
    const PROTOCOL: Protocol = Protocol::Delta;
}

impl Variant for Sotw {
    const PROTOCOL: Protocol = Protocol::Sotw;
}

/// The parts of a request that both variants have.
pub(crate) trait RequestHead {
    fn node(&self) -> Option<&Node>;
    fn type_url(&self) -> &str;
    /// How many names it says.
    fn names(&self) -> usize;
}

impl RequestHead for DiscoveryRequest {
    fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    fn type_url(&self) -> &str {
        &self.type_url
    }

    fn names(&self) -> usize {
        self.resource_names.len()
    }
}

impl RequestHead for DeltaDiscoveryRequest {
    fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    fn type_url(&self) -> &str {
        &self.type_url
    }

    fn names(&self) -> usize {
        let asked = self.resource_names_subscribe.len() + self.resource_names_unsubscribe.len();
        asked + self.initial_resource_versions.len()
    }
}
