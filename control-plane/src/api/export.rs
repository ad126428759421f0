//! Everything as text, to be kept elsewhere, or applied to another control plane.
//!
//! Resources come in an order in which each could be applied by itself: kinds as [`Kind::ALL`] has them, what is referred to first.
//! The answer is written while it is read, from the catalog at one revision, so its size costs no memory.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};

use super::{Api, condition, text};
use crate::{
    model::{Document, Kind, Name},
    replica::Current,
};

/// Export everything
///
/// All resources as YAML documents, in an order in which they can be applied, without what the server adds to them. The `ETag` is
/// the revision of the catalog. What is no resource is not in it: the history, endpoints that register themselves, certificates.
#[utoipa::path(get, path = "/api/v1/export", tag = "Changes", operation_id = "export",
    responses((status = 200, content_type = "application/yaml", body = String,
        description = "Documents, separated by `---`")))]
pub(super) async fn export(State(api): State<Api>) -> Response {
    let current = api.replica.current();
    let headers = [
        (header::ETAG, condition::etag(current.revision)),
        (header::CONTENT_TYPE, header::HeaderValue::from_static("application/yaml")),
    ];
    let texts = documents(current).map(|text| Ok::<_, Infallible>(Bytes::from(text)));
    (headers, Body::from_stream(tokio_stream::iter(texts))).into_response()
}

/// The documents of all resources, each with the `---` that parts it from the one before.
fn documents(current: Arc<Current>) -> impl Iterator<Item = String> {
    let mut kinds = Kind::ALL.into_iter();
    let mut place: Option<(Kind, Option<Name>)> = kinds.next().map(|kind| (kind, None));
    let mut first = true;
    std::iter::from_fn(move || {
        loop {
            let (kind, after) = place.take()?;
            let next = match &after {
                Some(name) => current.catalog.entries_after(kind, name).next(),
                None => current.catalog.entries(kind).next(),
            };
            let Some(entry) = next else {
                place = kinds.next().map(|kind| (kind, None));
                continue;
            };
            let document: &Document = &entry.document;
            place = Some((kind, Some(document.name.clone())));
            let parted = if std::mem::take(&mut first) { "" } else { "---\n" };
            return Some(parted.to_owned() + &text::yaml(document));
        }
    })
}
