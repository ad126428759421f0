//! Queries and paths. A parameter that is not known is refused: `?dryrun=true` must not write.

use std::time::Duration;

use axum::{
    extract::{FromRequestParts, Path, Query},
    http::request::Parts,
};
use serde::{Deserialize, de::DeserializeOwned};
use utoipa::IntoParams;

use super::error::ApiError;
use crate::model::Name;

/// The longest that a write waits for proxies.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(60);

const DEFAULT_WAIT: Duration = Duration::from_secs(5);
const LONGEST_MESSAGE: usize = 1000;

/// The query of a request.
#[derive(Debug)]
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(rejection) => {
                let reason = rejection.body_text();
                let reason = reason.strip_prefix("Failed to deserialize query string: ").unwrap_or(&reason);
                Err(ApiError::Malformed(format!("query: {reason}")))
            }
        }
    }
}

/// The `fleet` of a query.
pub(super) fn fleet(given: Option<String>) -> Result<Option<Name>, ApiError> {
    let fleet = given.map(Name::try_from).transpose();
    fleet.map_err(|error| ApiError::Malformed(format!("query: fleet {error}")))
}

/// The `{name}` of a path.
#[derive(Debug)]
pub(super) struct NameInPath(pub(super) Name);

impl<S: Send + Sync> FromRequestParts<S> for NameInPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(text) = path.map_err(|rejection| ApiError::Malformed(format!("path: {}", rejection.body_text())))?;
        let name = text.parse().map_err(|error| ApiError::Malformed(format!("path: name: {error}")))?;
        Ok(Self(name))
    }
}

/// What every write may be told.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct WriteParams {
    /// Checks the change and says what it would do, but does not make it.
    pub(super) dry_run: bool,
    /// `applied` answers only when the proxies that get something new have applied or refused it, or the timeout is over.
    #[param(inline)]
    wait: Option<Wait>,
    /// How long to wait, at most `60s`; `5s` by default.
    #[param(value_type = Option<String>, example = "5s")]
    timeout: Option<Timeout>,
    /// Why the change is made; kept with the revision.
    pub(super) message: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
enum Wait {
    Applied,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
struct Timeout(Duration);

impl TryFrom<String> for Timeout {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let scale = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err("timeout must be a number with ms, s, m or h, as 5s".to_owned()),
        };
        let number: u64 =
            number.parse().map_err(|_| "timeout must be a number with ms, s, m or h, as 5s".to_owned())?;
        let timeout = Duration::from_millis(number.saturating_mul(scale));
        if timeout > LONGEST_WAIT {
            return Err(format!("timeout must be at most {}s", LONGEST_WAIT.as_secs()));
        }
        Ok(Self(timeout))
    }
}

impl WriteParams {
    /// How long to wait for the proxies, if at all.
    pub(super) fn wait(&self) -> Result<Option<Duration>, ApiError> {
        match (self.wait, self.timeout) {
            (Some(Wait::Applied), timeout) => Ok(Some(timeout.map_or(DEFAULT_WAIT, |Timeout(timeout)| timeout))),
            (None, None) => Ok(None),
            (None, Some(_)) => Err(ApiError::Malformed("query: timeout is for wait=applied".to_owned())),
        }
    }

    /// Why the change is made; `in_body` is what the body says.
    pub(super) fn message(&self, in_body: Option<String>) -> Result<String, ApiError> {
        let message = match (&self.message, in_body) {
            (Some(_), Some(_)) => {
                return Err(ApiError::Malformed("message is in the query and in the body".to_owned()));
            }
            (Some(message), None) => message.clone(),
            (None, in_body) => in_body.unwrap_or_default(),
        };
        if message.chars().count() > LONGEST_MESSAGE {
            return Err(ApiError::Malformed(format!("message must have at most {LONGEST_MESSAGE} characters")));
        }
        if message.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
            return Err(ApiError::Malformed("message must not contain control characters".to_owned()));
        }
        Ok(message)
    }
}

/// A page of a list.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "u32")]
pub(super) struct Limit(pub(super) u32);

impl Limit {
    pub(super) const MOST: u32 = 1000;
}

impl Default for Limit {
    fn default() -> Self {
        Self(100)
    }
}

impl TryFrom<u32> for Limit {
    type Error = String;

    fn try_from(limit: u32) -> Result<Self, String> {
        if (1..=Self::MOST).contains(&limit) {
            Ok(Self(limit))
        } else {
            Err(format!("limit must be 1 to {}", Self::MOST))
        }
    }
}
