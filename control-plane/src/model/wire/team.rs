//! A team as it is written.

use serde::Deserialize;
use utoipa::ToSchema;

/// An owner of services, limits and routes: what names it in `team` is held to what stands here, whoever writes it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TeamSpec {
    /// The hosts that its routes may claim: a host, `*.example.com` for all below, or `*`. Without any, its routes may claim none.
    #[schema(max_items = 256, examples(json!(["*.payments.example.com", "checkout.example.com"])))]
    pub hosts: Option<Vec<String>>,
    /// How much it may have.
    pub quotas: Option<QuotasSpec>,
}

/// How much a team may have. What is not given has no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QuotasSpec {
    /// Routes.
    pub routes: Option<u32>,
    /// Rules, in all of its routes together.
    pub rules: Option<u32>,
    /// Services.
    pub services: Option<u32>,
    /// Limits.
    pub rate_limits: Option<u32>,
}
