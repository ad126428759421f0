//! Who is connected, and what each proxy has applied.

use axum::{
    Json,
    extract::{Path, State},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Api, ProblemDetails,
    error::ApiError,
    page::Page,
    params::{self, Limit, Params},
};
use crate::proxies::{Everywhere, Given, ProxyId, ProxyStatus, Silent, Wanted, given};

/// Which proxy is meant, beside its id.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct ProxyParams {
    /// Its fleet.
    fleet: Option<String>,
}

/// Which proxies to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Only those of this fleet.
    fleet: Option<String>,
    /// Only those of the replica that is asked, which it knows without a look at the database.
    here: bool,
    /// At most so many, 1 to 1000; 1000 by default.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    limit: Option<Limit>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// The proxies that are known.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProxyList {
    /// The proxies and rate limiters, by fleet and id.
    items: Vec<ProxyStatus>,
    /// Whether those of other replicas are among them: not while the database is away, or if that was not asked for.
    complete: bool,
    /// Where the next page starts; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// List proxies
///
/// Proxies and rate limiters of all replicas. Per one and type: what was sent, what was acknowledged, what was refused last and
/// why. Of those that are connected to other replicas, it is what these wrote last, up to some seconds ago.
#[utoipa::path(get, path = "/api/v1/proxies", tag = "Proxies", operation_id = "listProxies", params(ListParams),
    responses((status = 200, body = ProxyList)))]
pub(super) async fn list(
    State(api): State<Api>,
    Params(params): Params<ListParams>,
) -> Result<Json<ProxyList>, ApiError> {
    let ListParams { fleet, here, limit, cursor } = params;
    let Everywhere { proxies, complete } = if here {
        Everywhere { proxies: api.proxies.list(params::fleet(fleet)?.as_ref()), complete: false }
    } else {
        find(&api, fleet, None).await?
    };
    let page = Page::new(limit, cursor);
    let (items, next_cursor) = page.of(proxies, |proxy| (proxy.fleet.clone(), proxy.id.clone()))?;
    Ok(Json(ProxyList { items, complete, next_cursor }))
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
    one(&api, &id, params.fleet).await.map(Json)
}

/// Which resources of a proxy to show.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct ConfigParams {
    /// The fleet of the proxy.
    fleet: Option<String>,
    /// Only resources of this type, by its short name: `cluster`, `endpoint`, `listener`, `route`, `virtualHost` …
    r#type: Option<String>,
    /// Only resources of this name.
    name: Option<String>,
    /// Only where the proxy has something else than it should, and without the resources themselves.
    diff: bool,
}

/// Read what a proxy was given
///
/// Each resource that it asked for, as it should have it, and whether it has said that it does. The replica that it is connected
/// to knows; another one answers 421 and names it.
#[utoipa::path(get, path = "/api/v1/proxies/{id}/config", tag = "Proxies", operation_id = "readProxyConfig",
    params(("id" = String, Path, description = "The id in its certificate"), ConfigParams),
    responses(
        (status = 200, body = Given),
        (status = 409, description = "It is not connected", content_type = "application/problem+json", body = ProblemDetails),
        (status = 421, description = "It is connected to another replica", content_type = "application/problem+json", body = ProblemDetails),
    ))]
pub(super) async fn config(
    State(api): State<Api>,
    Path(id): Path<String>,
    Params(params): Params<ConfigParams>,
) -> Result<Json<Given>, ApiError> {
    let proxy = one(&api, &id, params.fleet).await?;
    if proxy.connected && proxy.replica != api.proxies.replica() {
        return Err(ApiError::OtherReplica { proxy: id, replica: proxy.replica });
    }
    let known = ProxyId::named(&proxy.fleet, &proxy.id).and_then(|known| api.proxies.connection(&known));
    let connection = known.filter(|_| proxy.connected).ok_or_else(|| ApiError::NotConnected(id.clone()))?;
    let wanted = Wanted { resource_type: params.r#type, name: params.name, different: params.diff };
    given(&connection, wanted).await.map(Json).map_err(|Silent| ApiError::NotConnected(id))
}

/// The one proxy that is meant.
async fn one(api: &Api, id: &str, fleet: Option<String>) -> Result<ProxyStatus, ApiError> {
    let Everywhere { mut proxies, complete } = find(api, fleet, Some(id)).await?;
    match (proxies.pop(), proxies.len()) {
        (Some(proxy), 0) => Ok(proxy),
        (Some(_), _) => Err(ApiError::Malformed(format!("more than one fleet has a proxy {id:?}: add ?fleet="))),
        (None, _) if complete => Err(ApiError::NotFound(format!("proxy {id:?}"))),
        (None, _) => Err(ApiError::NotFound(format!(
            "proxy {id:?} at this replica; whether others have it is not known while the database is away"
        ))),
    }
}

async fn find(api: &Api, fleet: Option<String>, id: Option<&str>) -> Result<Everywhere, ApiError> {
    let fleet = params::fleet(fleet)?;
    Ok(api.proxies.everywhere(api.replica.store().as_ref(), fleet.as_ref(), id).await)
}
