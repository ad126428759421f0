//! Answers made smaller on their way to clients that take them so.

/// What a listener compresses, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compression {
    /// At least one, without duplicates; of those that a client likes alike, the first.
    pub algorithms: Vec<CompressionAlgorithm>,
    /// Types of content, in lower case, without parameters and duplicates; Envoy's list of texts if there are none.
    pub content_types: Vec<String>,
    /// What is shorter stays as it is, in bytes, at least 30. An answer that does not tell its length is compressed.
    pub min_length: u32,
}

/// How an answer is compressed, by the name of its content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionAlgorithm {
    /// `br`.
    Brotli,
    /// `gzip`.
    Gzip,
}

impl CompressionAlgorithm {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::Brotli, Self::Gzip];
}
