//! Chancery's own messages: what its control plane tells its other parts, where Envoy's messages say too little.
//!
//! The sources are in `proto/chancery/`; the generated code is committed, and `tests/generated.rs` keeps the two equal.

#[rustfmt::skip]
#[allow(clippy::all, clippy::pedantic, unreachable_pub)]
mod config_v1;
#[rustfmt::skip]
#[allow(clippy::all, clippy::pedantic, unreachable_pub)]
mod identity_v1;

pub use config_v1::{Algorithm, Enforcement, RateLimitDomain, RateLimitRule, WithoutRedis};
pub use identity_v1::{RenewRequest, RenewResponse};

/// The service by which proxies renew their certificates, as it stands in the path of a call.
pub const RENEWAL_SERVICE: &str = "chancery.identity.v1.RenewalService";

/// The path of its only method.
pub const RENEW: &str = "/chancery.identity.v1.RenewalService/Renew";

/// The key of the first entry of a descriptor: its value is the name of a limit.
pub const LIMIT_KEY: &str = "chancery.limit";

/// The cluster of a fleet's rate limiter. Services are DNS labels, so none is called so.
pub const RATE_LIMITER_CLUSTER: &str = "chancery.rate-limiter";

/// The cluster of the control plane, in the bootstrap of every proxy; it also stands in Envoy's statistics and logs.
pub const XDS_CLUSTER: &str = "chancery-xds";

/// The proxy's own certificate and key, a secret of its bootstrap: a cluster cannot say where they lie on its machine.
pub const IDENTITY_SECRET: &str = "chancery.identity";

/// The CA certificates by which the proxy knows its control plane, and everyone else; a secret of its bootstrap too.
pub const CA_SECRET: &str = "chancery.ca";

/// The only key of a quota bucket (RLQS) that stands for a whole descriptor.
///
/// A bucket of Envoy is a map that the listener lays down; routes could not count by different things. So its one value is
/// an object in JSON, `{"descriptor": [["chancery.limit", "per-client"], ["x-api-key", "k1"], …]}`: the entries, in
/// order. Envoy escapes what clients send. A value that is null or empty stands for [`ABSENT`]; if such an entry has
/// [`SKIP_IF_ABSENT`] as its third element, the bucket is under no limit.
pub const DESCRIPTOR_BUCKET: &str = "chancery.descriptor";

/// See [`DESCRIPTOR_BUCKET`].
pub const SKIP_IF_ABSENT: &str = "skip";

/// The value of an entry for a header or parameter that is not there, or empty.
pub const ABSENT: &str = "-";
