//! Compression of answers as it is written.

use serde::Deserialize;
use utoipa::ToSchema;

use super::SizeText;

/// How answers are compressed for clients that take them so, unless their rule has `compress: false`. Over TLS, whoever can have a
/// client send requests of their choice can guess what an answer repeats of them next to a secret (BREACH).
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CompressionSpec {
    /// Of those that a client likes alike, the first is taken.
    #[schema(min_items = 1, max_items = 2)]
    pub algorithms: Vec<CompressionAlgorithmSpec>,
    /// Types of content; HTML, CSS, JavaScript, JSON, XML, SVG and plain text if it is not given.
    #[schema(min_items = 1, max_items = 50, examples(json!(["application/json", "text/html"])))]
    pub content_types: Option<Vec<String>>,
    /// What is shorter stays as it is, 30B to 1MiB; 1KiB if it is not given. An answer that does not tell its length is compressed.
    pub min_length: Option<SizeText>,
}

/// How an answer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CompressionAlgorithmSpec {
    /// Brotli (RFC 7932): smaller, and more work.
    Brotli,
    /// Gzip (RFC 1952).
    Gzip,
}
