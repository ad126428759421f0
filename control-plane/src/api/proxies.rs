//! Who is connected, and what each proxy has applied.

use axum::{
    Json,
    extract::{Path, State},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Api, error::ApiError, params::Params};
use crate::{model::Name, proxies::ProxyStatus};

/// Which proxies to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct ProxyParams {
    /// Only those of this fleet.
    fleet: Option<String>,
}

/// The proxies that are known.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProxyList {
    items: Vec<ProxyStatus>,
}

/// List proxies
///
/// Proxies and rate limiters. Per one and type: what was sent, what was acknowledged, what was refused last and why.
#[utoipa::path(get, path = "/api/v1/proxies", tag = "Proxies", operation_id = "listProxies", params(ProxyParams),
    responses((status = 200, body = ProxyList)))]
pub(super) async fn list(
    State(api): State<Api>,
    Params(params): Params<ProxyParams>,
) -> Result<Json<ProxyList>, ApiError> {
    let fleet = params.fleet.map(Name::try_from).transpose();
    let fleet = fleet.map_err(|error| ApiError::Malformed(format!("query: fleet {error}")))?;
    Ok(Json(ProxyList { items: api.proxies.list(fleet.as_ref()) }))
}

/// Read a proxy
///
/// An id is unique within its fleet: where two fleets have the same, `fleet` says which is meant.
#[utoipa::path(get, path = "/api/v1/proxies/{id}", tag = "Proxies", operation_id = "readProxy",
    params(("id" = String, Path, description = "The id in its certificate"), ProxyParams),
    responses((status = 200, body = ProxyStatus)))]
pub(super) async fn read(
    State(api): State<Api>,
    Path(id): Path<String>,
    Params(params): Params<ProxyParams>,
) -> Result<Json<ProxyStatus>, ApiError> {
    let mut named = api.proxies.list(None);
    named.retain(|proxy| proxy.id == id && params.fleet.as_ref().is_none_or(|fleet| *fleet == proxy.fleet));
    match (named.pop(), named.len()) {
        (Some(proxy), 0) => Ok(Json(proxy)),
        (Some(_), _) => Err(ApiError::Malformed(format!("more than one fleet has a proxy {id:?}: add ?fleet="))),
        (None, _) => Err(ApiError::NotFound(format!("proxy {id:?}"))),
    }
}
