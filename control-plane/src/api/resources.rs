//! Reading and writing resources one at a time, the same for every kind.
//!
//! The router says which kind a collection is of; `openapi` describes these handlers once for each.

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::Value;

use super::{
    Api,
    author::Author,
    body::Body,
    condition,
    envelope::{self, Known},
    error::ApiError,
    listing::{self, ListParams},
    merge_patch,
    params::{NameInPath, Params, WriteParams},
    view::{Action, ResourceList, ResourceView, Written},
    write,
};
use crate::{
    commit::{Edit, Expect},
    model::{Document, Key, Kind, Name, Problems},
};

/// How often a patch without a condition is made again when something else was written in between.
const PATCH_ATTEMPTS: usize = 5;

/// List resources
///
/// By name, a page at a time: those that the token allows to see. The `ETag` is the revision of the catalog.
#[utoipa::path(get, path = "", params(
    ListParams,
    ("If-None-Match" = Option<String>, Header, description = "Revisions that the caller has: 304 instead of one of these")
), responses(
    (status = 200, body = ResourceList),
    (status = 304, description = "Nothing changed since the revision in If-None-Match"),
))]
pub(super) async fn list(
    State(api): State<Api>,
    Extension(kind): Extension<Kind>,
    Params(params): Params<ListParams>,
    author: Author,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let selection = listing::Selection::try_from(params)?;
    let current = api.replica.current();
    Ok(conditional(&headers, current.revision, || listing::page(&current.catalog, kind, &selection, &author.who)))
}

/// Read a resource
#[utoipa::path(get, path = "/{name}", params(
    ("name" = String, Path, description = "What it is called", example = "checkout"),
    ("If-None-Match" = Option<String>, Header, description = "Revisions that the caller has: 304 instead of one of these")
), responses(
    (status = 200, body = ResourceView),
    (status = 304, description = "The resource is at the revision in If-None-Match"),
))]
pub(super) async fn read(
    State(api): State<Api>,
    Extension(kind): Extension<Kind>,
    NameInPath(name): NameInPath,
    author: Author,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let key = Key::new(kind, name);
    let current = api.replica.current();
    let entry = author.find(&current.catalog, &key)?;
    Ok(conditional(&headers, entry.revision, || ResourceView::from(entry.as_ref())))
}

/// Create a resource
#[utoipa::path(post, path = "", params(WriteParams), request_body(content(
    (ResourceView = "application/json"),
    (ResourceView = "application/yaml")
)), responses(
    (status = 201, body = Written, description = "It is there now; Location says where"),
    (status = 200, body = Written, description = "It would be created (dryRun)"),
))]
pub(super) async fn create(
    State(api): State<Api>,
    Extension(kind): Extension<Kind>,
    Params(params): Params<WriteParams>,
    author: Author,
    body: Body,
) -> Result<Response, ApiError> {
    let document = document(body.value().await?, kind, None)?;
    put(&api, author, &params, document, Expect::Absent).await
}

/// Create or replace a resource
///
/// `kind` and `name` may be left out of the body. `If-Match: "<revision>"` replaces only that version,
/// `If-Match: *` only what is there, `If-None-Match: *` only creates.
#[utoipa::path(put, path = "/{name}", params(
    ("name" = String, Path, description = "What it is called", example = "checkout"),
    WriteParams,
    ("If-Match" = Option<String>, Header, description = "Only this version: its revision in quotes, or `*` for any"),
    ("If-None-Match" = Option<String>, Header, description = "`*`: only if there is none")
), request_body(content(
    (ResourceView = "application/json"),
    (ResourceView = "application/yaml")
)), responses(
    (status = 200, body = Written, description = "It is as wanted now"),
    (status = 201, body = Written, description = "It was created; Location says where"),
))]
pub(super) async fn replace(
    State(api): State<Api>,
    Extension(kind): Extension<Kind>,
    NameInPath(name): NameInPath,
    Params(params): Params<WriteParams>,
    headers: HeaderMap,
    author: Author,
    body: Body,
) -> Result<Response, ApiError> {
    let expect = condition::expect(&headers, Expect::Any)?;
    let document = document(body.value().await?, kind, Some(name))?;
    put(&api, author, &params, document, expect).await
}

/// Change parts of a resource
///
/// A JSON merge patch (RFC 7396): what is given replaces, `null` removes, lists are replaced whole.
#[utoipa::path(patch, path = "/{name}", params(
    ("name" = String, Path, description = "What it is called", example = "checkout"),
    WriteParams,
    ("If-Match" = Option<String>, Header, description = "Only this version: its revision in quotes, or `*` for any")
),
    request_body(content((Object = "application/merge-patch+json"), (Object = "application/json"))),
    responses((status = 200, body = Written, description = "It is as wanted now")))]
pub(super) async fn patch(
    State(api): State<Api>,
    Extension(kind): Extension<Kind>,
    NameInPath(name): NameInPath,
    Params(params): Params<WriteParams>,
    headers: HeaderMap,
    author: Author,
    body: Body,
) -> Result<Response, ApiError> {
    let condition = condition::expect(&headers, Expect::Exists)?;
    let patch = body.value().await?;
    let key = Key::new(kind, name);
    let mut attempts_left = PATCH_ATTEMPTS;
    loop {
        attempts_left -= 1;
        let current = api.replica.current();
        let entry = author.find(&current.catalog, &key)?;
        let expect = match condition {
            Expect::Exists => Expect::Revision(entry.revision),
            given => given,
        };
        let target = serde_json::to_value(entry.document.as_ref())
            .map_err(|error| ApiError::Internal("reading the resource", error.into()))?;
        let patched = document(merge_patch::merge(target, patch.clone()), kind, Some(key.name.clone()))?;
        match put(&api, author.clone(), &params, patched, expect).await {
            Err(ApiError::Conflict { .. }) if condition == Expect::Exists && attempts_left > 0 => {}
            answer => return answer,
        }
    }
}

/// Delete a resource
#[utoipa::path(delete, path = "/{name}", params(
    ("name" = String, Path, description = "What it is called", example = "checkout"),
    WriteParams,
    ("If-Match" = Option<String>, Header, description = "Only this version: its revision in quotes, or `*` for any")
), responses((status = 200, body = Written, description = "It is gone")))]
pub(super) async fn delete(
    State(api): State<Api>,
    Extension(kind): Extension<Kind>,
    NameInPath(name): NameInPath,
    Params(params): Params<WriteParams>,
    headers: HeaderMap,
    author: Author,
) -> Result<Json<Written>, ApiError> {
    let expect = condition::expect(&headers, Expect::Exists)?;
    let edit = Edit::Delete { key: Key::new(kind, name), expect };
    write::commit(&api, author, &params, None, vec![edit], None).await.map(Json)
}

fn document(value: Value, kind: Kind, name: Option<Name>) -> Result<Document, ApiError> {
    let mut problems = Problems::default();
    let known = Known { kind: Some(kind), name, place: String::new() };
    envelope::document(value, &known, &mut problems).ok_or_else(|| ApiError::Problems(problems.into_vec()))
}

async fn put(
    api: &Api,
    author: Author,
    params: &WriteParams,
    document: Document,
    expect: Expect,
) -> Result<Response, ApiError> {
    let key = document.key();
    let edit = Edit::Put { document, expect };
    let written = write::commit(api, author, params, None, vec![edit], None).await?;
    // Without a change the resource keeps the revision it had.
    let unchanged = || api.replica.current().catalog.entry(&key).map(|entry| entry.revision);
    let revision = if written.changed.is_empty() { unchanged() } else { Some(written.revision) };
    Ok(answer(written, revision))
}

/// The answer to a write of one resource, which was last changed by `revision`.
pub(super) fn answer(written: Written, revision: Option<u64>) -> Response {
    let mut headers = HeaderMap::new();
    let mut status = StatusCode::OK;
    if !written.dry_run {
        headers.extend(revision.map(|revision| (header::ETAG, condition::etag(revision))));
        if let Some(created) = written.changed.iter().find(|changed| changed.action == Action::Created) {
            status = StatusCode::CREATED;
            let location = HeaderValue::try_from(format!("/api/v1/{}/{}", created.kind.collection(), created.name));
            headers.extend(location.map(|location| (header::LOCATION, location)));
        }
    }
    (status, headers, Json(written)).into_response()
}

/// `body` under its `ETag`, unless the reader has it.
fn conditional<T: serde::Serialize>(headers: &HeaderMap, revision: u64, body: impl FnOnce() -> T) -> Response {
    let tag = [(header::ETAG, condition::etag(revision))];
    if condition::has(headers, revision) {
        (StatusCode::NOT_MODIFIED, tag).into_response()
    } else {
        (tag, Json(body())).into_response()
    }
}
