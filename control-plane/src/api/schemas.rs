//! The JSON Schemas of documents, for editors: files that need no token, the same for every reader of this version.

use std::sync::LazyLock;

use axum::{
    Json, Router,
    body::Bytes,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Api, condition};
use crate::model::{
    Kind,
    wire::{schema, schema_of_any},
};

/// Where they are listed; below it lie the files.
const FOLDER: &str = "/api/schemas";

/// They change with the version of the program only.
const CACHING: HeaderValue = HeaderValue::from_static("public, max-age=300");

const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/schema+json");

/// Of each kind, and of all together.
static FILES: LazyLock<Vec<File>> =
    LazyLock::new(|| Kind::ALL.map(Some).into_iter().chain([None]).map(File::of).collect());

/// A schema as it leaves.
struct File {
    path: String,
    tag: HeaderValue,
    bytes: Bytes,
}

impl File {
    fn of(kind: Option<Kind>) -> Self {
        let bytes = Bytes::from(text(kind));
        let hash: String = Sha256::digest(&bytes).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let tag = HeaderValue::try_from(format!("\"{hash}\"")).unwrap_or_else(|_| HeaderValue::from_static("\"\""));
        Self { path: path(kind), tag, bytes }
    }

    fn answer(&self, headers: &HeaderMap) -> Response {
        let about = [(header::ETAG, self.tag.clone()), (header::CACHE_CONTROL, CACHING)];
        if condition::names(headers, |tag| tag.strip_prefix("W/").unwrap_or(tag).as_bytes() == self.tag.as_bytes()) {
            return (StatusCode::NOT_MODIFIED, about).into_response();
        }
        (about, [(header::CONTENT_TYPE, MEDIA_TYPE)], self.bytes.clone()).into_response()
    }
}

/// The JSON Schema of a document of `kind`, or of any kind, as a text file.
pub fn text(kind: Option<Kind>) -> String {
    let schema = kind.map_or_else(schema_of_any, schema);
    format!("{schema:#}\n")
}

/// Whether `path` leads here.
pub(super) fn lie_at(path: &str) -> bool {
    path.strip_prefix(FOLDER).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The files and their index.
pub(super) fn routes() -> Router<Api> {
    let index = Router::new().route(FOLDER, get(async || Json(index())));
    FILES.iter().fold(index, |routes, file| {
        routes.route(&file.path, get(move |headers: HeaderMap| std::future::ready(file.answer(&headers))))
    })
}

fn index() -> Value {
    let items = Kind::ALL.map(|kind| json!({ "kind": kind, "schema": path(Some(kind)) }));
    json!({ "items": items, "all": path(None) })
}

fn path(kind: Option<Kind>) -> String {
    format!("{FOLDER}/{}.json", kind.map_or("all", Kind::as_str))
}
