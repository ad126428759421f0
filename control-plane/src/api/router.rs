//! Which path leads to which handler, and what every request passes on its way.

use std::sync::Arc;

use axum::{
    Extension, Json, Router,
    http::Uri,
    middleware::{from_fn, from_fn_with_state, map_response},
    routing::get,
};
use tower::util::option_layer;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, apply, audit, author, blame, compare, deprecation, endpoints, enrolments, error::ApiError, events, explain,
    export, guard, idempotency, load, observe, openapi, plan, proxies, quarantine, record, resources, revisions,
    rollouts, schemas, seen, sign_in, tokens, traffic,
};
use crate::model::Kind;

/// The API, its description at `/api/openapi.json`, a page to read it at `/docs`, and schemas of documents.
pub fn router(api: Api) -> Router {
    let (routes, description) = routes().split_for_parts();
    // Shared: a handler and what it holds are cloned for every request.
    let description = Arc::new(openapi::complete(description, deprecation::DEPRECATED));
    let routes = routes
        .route(openapi::PATH, get(move || std::future::ready(Json(description.clone()))))
        .merge(openapi::page())
        .merge(schemas::routes())
        .fallback(unknown);
    surround(routes, &api).with_state(api)
}

/// Puts around `routes` what every request passes, the outermost last.
pub(super) fn surround(routes: Router<Api>, api: &Api) -> Router<Api> {
    routes
        .layer(CatchPanicLayer::custom(observe::panicked))
        .layer(from_fn_with_state(api.clone(), idempotency::once))
        .layer(from_fn_with_state(api.clone(), author::authenticate))
        .layer(from_fn_with_state(api.clone(), record::refusals))
        .layer(from_fn_with_state(deprecation::DEPRECATED, deprecation::announce))
        .layer(from_fn(observe::limit_time))
        .layer(from_fn(observe::limit_head))
        .layer(from_fn_with_state(api.clone(), guard::by_address))
        .layer(option_layer(api.origins.layer()))
        .layer(map_response(observe::unify_errors))
        .layer(from_fn(observe::secure))
        .layer(from_fn_with_state(api.clone(), observe::observe))
}

/// Every operation with its description.
pub(super) fn routes() -> OpenApiRouter<Api> {
    let routes = OpenApiRouter::new()
        .routes(routes!(apply::apply))
        .routes(routes!(plan::plan))
        .routes(routes!(traffic::plan))
        .routes(routes!(explain::explain))
        .routes(routes!(revisions::list))
        .routes(routes!(revisions::read))
        .routes(routes!(revisions::revert))
        .routes(routes!(compare::compare))
        .routes(routes!(export::export))
        .routes(routes!(endpoints::list, endpoints::write))
        .routes(routes!(endpoints::register, endpoints::deregister))
        .routes(routes!(proxies::list))
        .routes(routes!(proxies::read))
        .routes(routes!(proxies::config))
        .routes(routes!(events::follow))
        .routes(routes!(quarantine::list))
        .routes(routes!(quarantine::release))
        .routes(routes!(rollouts::list))
        .routes(routes!(rollouts::read))
        .routes(routes!(rollouts::promote))
        .routes(routes!(rollouts::give_back))
        .routes(routes!(load::list))
        .routes(routes!(load::read))
        .routes(routes!(seen::list))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::revoke))
        .routes(routes!(tokens::rotate))
        .routes(routes!(enrolments::list, enrolments::create))
        .routes(routes!(enrolments::revoke))
        .routes(routes!(enrolments::enrol))
        .routes(routes!(audit::list))
        .routes(routes!(audit::verify))
        .routes(routes!(author::whoami))
        .routes(routes!(sign_in::read));
    Kind::ALL
        .into_iter()
        .fold(routes, |routes, kind| routes.nest(&format!("/api/v1/{}", kind.collection()), collection(kind)))
}

/// The handlers that serve every kind, told that it is `kind`.
fn collection(kind: Kind) -> OpenApiRouter<Api> {
    let routes = OpenApiRouter::new().routes(routes!(resources::list, resources::create)).routes(routes!(
        resources::read,
        resources::replace,
        resources::patch,
        resources::delete
    ));
    let routes = routes.routes(routes!(blame::blame));
    openapi::of_kind(routes, kind).layer(Extension(kind))
}

async fn unknown(uri: Uri) -> ApiError {
    ApiError::NotFound(format!("path {:?}", uri.path()))
}
