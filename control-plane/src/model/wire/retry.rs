//! Retries as they are written.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr, Schema,
        schema::{ObjectBuilder, Type},
    },
};

use super::{DurationText, HeaderMatchSpec};
use crate::model::retry::RetryCondition;

/// When and how a request is tried again.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetrySpec {
    /// Conditions, one of which must hold. It can be left out if there are `statuses` or `responseHeaders`.
    #[schema(min_items = 1, max_items = 20)]
    pub on: Option<Vec<RetryOnSpec>>,
    /// Statuses after which it is tried again, 400 to 599, beside those that `on` means.
    #[schema(min_items = 1, max_items = 50, examples(json!([429])))]
    pub statuses: Option<Vec<RetryStatusSpec>>,
    /// Conditions on the headers of an answer: if one of them holds, it is tried again. Sidecars refuse them.
    #[schema(min_items = 1, max_items = 10)]
    pub response_headers: Option<Vec<HeaderMatchSpec>>,
    /// How often it is tried again after the first try.
    #[schema(minimum = 1, maximum = 10, default = 1)]
    pub attempts: Option<u32>,
    /// The time for one try, 1ms to 24h, not above the rule's timeout; the rule's timeout if it is not given.
    pub per_try_timeout: Option<DurationText>,
    /// The time for which one try may stand still, 1ms to 24h, not above `perTryTimeout`; no limit if it is not given.
    pub per_try_idle_timeout: Option<DurationText>,
    /// Whether endpoints that have not been tried yet come first.
    #[schema(default = true)]
    pub another_host: Option<bool>,
    /// The time between tries; Envoy's default (25ms to 250ms) if it is not given.
    pub backoff: Option<BackoffSpec>,
}

/// A condition on which a request is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryOnSpec(pub RetryCondition);

impl<'de> Deserialize<'de> for RetryOnSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let condition = RetryCondition::ALL.into_iter().find(|condition| condition.as_str() == text);
        condition.map(Self).ok_or_else(|| serde::de::Error::custom("is not a condition for a retry"))
    }
}

impl PartialSchema for RetryOnSpec {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("A condition on which a request is tried again, by Envoy's name."))
            .enum_values(Some(RetryCondition::ALL.map(RetryCondition::as_str)))
            .into()
    }
}

impl ToSchema for RetryOnSpec {}

/// A status after which a request is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct RetryStatusSpec(pub u16);

impl PartialSchema for RetryStatusSpec {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .description(Some("A status after which a request is tried again."))
            .minimum(Some(400))
            .maximum(Some(599))
            .into()
    }
}

impl ToSchema for RetryStatusSpec {}

/// Exponential backoff with full jitter.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackoffSpec {
    /// The longest first wait, 1ms to 1h.
    pub base: DurationText,
    /// The longest wait of all, `base` to 1h; ten times `base` if it is not given.
    pub max: Option<DurationText>,
}
