//! Who may send requests, as it is written.

use serde::Deserialize;
use utoipa::ToSchema;

use super::{HeaderMatchSpec, SubjectAltNameSpec};

/// Who may send requests: at least one of `allow` and `deny`. Others are answered with 403.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessSpec {
    /// Nobody but these may; everybody if it is not given.
    #[schema(min_items = 1, max_items = 100)]
    pub allow: Option<Vec<CallerSpec>>,
    /// These may not, even if they are allowed too.
    #[schema(min_items = 1, max_items = 100)]
    pub deny: Option<Vec<CallerSpec>>,
}

/// Some callers, by at least one of `clients`, `networks` and `headers`; all that are given must hold.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CallerSpec {
    /// One of these names is in the certificate of the client; only where the listener has `tls.clients`.
    #[schema(min_items = 1, max_items = 100)]
    pub clients: Option<Vec<SubjectAltNameSpec>>,
    /// The address of the client is in one of these networks; behind proxies, what the fleet's `trustedHops` say.
    #[schema(min_items = 1, max_items = 100, examples(json!(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"])))]
    pub networks: Option<Vec<String>>,
    /// All of these hold. A client can send whatever headers it likes.
    #[schema(min_items = 1, max_items = 20)]
    pub headers: Option<Vec<HeaderMatchSpec>>,
}
