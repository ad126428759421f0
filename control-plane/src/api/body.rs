//! The body of a request: its size, its time, its media type, and the values in it.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{HeaderMap, HeaderValue, header, request::Parts},
};
use serde_json::Value;
use tokio_stream::StreamExt as _;

use super::{
    error::ApiError,
    text::{self, Format, TextDocument},
};

/// The largest body.
pub(super) const LIMIT: usize = 8 << 20;

/// How much of a body that is too large is read and thrown away: a client that is still sending hears
/// the answer only if the connection is not reset under it.
const DRAIN: usize = 64 << 20;

/// The time for all of it.
const READ_WITHIN: Duration = Duration::from_secs(25);

const SUPPORTED: &str = "application/json, application/merge-patch+json, application/yaml";

/// A body within [`LIMIT`], of a media type that we read.
#[derive(Debug)]
pub(super) struct Body {
    format: Format,
    bytes: Bytes,
}

impl Body {
    /// Its documents. Reading is left to a thread that may block: a large body takes its time.
    pub(super) async fn documents(self) -> Result<Vec<TextDocument>, ApiError> {
        let read = tokio::task::spawn_blocking(move || text::documents(self.format, &self.bytes)).await;
        let documents = read.map_err(|error| ApiError::Internal("reading the body", error.into()))?;
        Ok(documents?)
    }

    /// The one document it must hold.
    pub(super) async fn value(self) -> Result<Value, ApiError> {
        let mut documents = self.documents().await?;
        match (documents.pop(), documents.len()) {
            (Some(document), 0) => Ok(document.value),
            (_, more) => Err(ApiError::Malformed(format!(
                "the body must hold one resource, not {}; POST /api/v1/apply takes many",
                if more == 0 { 0 } else { more + 1 }
            ))),
        }
    }
}

impl<S: Sync> FromRequest<S> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let format = format(request.headers().get(header::CONTENT_TYPE))?;
        Ok(Self { format, bytes: read(request, READ_WITHIN).await? })
    }
}

fn format(content_type: Option<&HeaderValue>) -> Result<Format, ApiError> {
    let given = content_type.map_or("", |value| value.to_str().unwrap_or("not a text"));
    match given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "application/json" | "application/merge-patch+json" => Ok(Format::Json),
        "application/yaml" | "application/x-yaml" | "text/yaml" => Ok(Format::Yaml),
        "" => Err(ApiError::MediaType { given: "without a Content-Type".to_owned(), supported: SUPPORTED }),
        _ => Err(ApiError::MediaType { given: given.to_owned(), supported: SUPPORTED }),
    }
}

/// The request without its body, and the body, within the bounds that hold for every body.
pub(super) async fn whole(request: Request) -> Result<(Parts, Bytes), ApiError> {
    let (parts, body) = request.into_parts();
    let mut bare = Request::new(body);
    bare.headers_mut().clone_from(&parts.headers);
    Ok((parts, read(bare, READ_WITHIN).await?))
}

/// Reads it whole, `within` that time.
async fn read(request: Request, within: Duration) -> Result<Bytes, ApiError> {
    let late = |_| Err(ApiError::SlowBody { limit: within });
    tokio::time::timeout(within, read_all(request)).await.unwrap_or_else(late)
}

async fn read_all(request: Request) -> Result<Bytes, ApiError> {
    if waits_for_go_ahead(request.headers()) && announced(request.headers()) > LIMIT {
        return Err(ApiError::TooLarge { limit: LIMIT });
    }
    let mut bytes = Vec::with_capacity(announced(request.headers()).min(LIMIT));
    let mut read = 0;
    let mut chunks = request.into_body().into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(ApiError::Body)?;
        read += chunk.len();
        if read <= LIMIT {
            bytes.extend_from_slice(&chunk);
        } else if read > DRAIN {
            break;
        } else {
            bytes = Vec::new();
        }
    }
    if read > LIMIT { Err(ApiError::TooLarge { limit: LIMIT }) } else { Ok(bytes.into()) }
}

fn announced(headers: &HeaderMap) -> usize {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    length.unwrap_or(0)
}

fn waits_for_go_ahead(headers: &HeaderMap) -> bool {
    headers.get(header::EXPECT).is_some_and(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let never = axum::body::Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let error = read(Request::new(never), Duration::from_millis(20)).await.unwrap_err();
        assert!(matches!(error, ApiError::SlowBody { .. }), "{error}");
        assert_eq!(read(Request::new("all".into()), READ_WITHIN).await.unwrap(), "all");
    }
}
