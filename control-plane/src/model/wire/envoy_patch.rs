//! A patch of Envoy's own configuration as it is written.

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::NameText;

/// Raw configuration for the proxies of a fleet: a whole resource of Envoy that no other kind can describe, or a part that is
/// merged into one that was translated. Checked against Envoy's own constraints before it is stored.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvoyPatchSpec {
    /// The fleet whose proxies get it.
    pub fleet: NameText,
    /// A whole resource as Envoy's JSON, with its type in `@type`: `Cluster`, `ClusterLoadAssignment`, `Listener`,
    /// `RouteConfiguration`, `VirtualHost`, `Secret` or `Runtime`. Nothing else may make one of its name.
    #[schema(value_type = Option<Object>)]
    pub resource: Option<Value>,
    /// The translated resource to change, in place of `resource`.
    pub target: Option<PatchTargetSpec>,
    /// Where in the target, `filter_chains[0].filters[0].typed_config`; the whole of it if not given.
    #[schema(examples("filter_chains[0].filters[0].typed_config"))]
    pub path: Option<String>,
    /// What is merged there (RFC 7396): what is given replaces, `null` removes, lists are replaced whole.
    #[schema(value_type = Option<Object>)]
    pub merge: Option<Value>,
}

/// A resource that is translated from others.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PatchTargetSpec {
    /// What it is.
    pub kind: PatchTargetKindSpec,
    /// What Envoy calls it: the name of the service or the listener; of a virtual host `listener/host`, `web/*`.
    pub name: String,
}

/// What can be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
pub enum PatchTargetKindSpec {
    /// The cluster of a service, or `chancery.rate-limiter`.
    Cluster,
    /// The endpoints of a service.
    Endpoints,
    /// A listener.
    Listener,
    /// The requests for one host on a listener.
    VirtualHost,
}
