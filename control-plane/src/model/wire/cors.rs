//! Use from pages of other origins, as it is written.

use serde::Deserialize;
use utoipa::ToSchema;

use super::DurationText;

/// Which pages of other origins may use the rule (CORS). The proxy answers preflights itself.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CorsSpec {
    /// The origins: `https://shop.example.com`, `https://*.example.com` for every host below, `*` for every origin.
    #[schema(min_items = 1, max_items = 50, examples(json!(["https://shop.example.com", "https://*.example.com"])))]
    pub origins: Vec<String>,
    /// The methods they may use; those of `match`, or GET, HEAD, POST, PUT, PATCH and DELETE if it is not given.
    #[schema(min_items = 1, max_items = 20)]
    pub methods: Option<Vec<String>>,
    /// The headers they may send, beside those that everybody may.
    #[schema(max_items = 50)]
    pub headers: Option<Vec<String>>,
    /// The headers they may read, beside those that everybody may.
    #[schema(max_items = 50)]
    pub expose_headers: Option<Vec<String>>,
    /// How long browsers may remember this, 1s to 24h; a few seconds if it is not given.
    pub max_age: Option<DurationText>,
    /// Whether requests may have cookies and other credentials; not with the origin `*`.
    #[schema(default = false)]
    pub credentials: Option<bool>,
}
