//! How answers are compressed.

use super::text;
use crate::model::{
    compression::{Compression, CompressionAlgorithm},
    problem::Problems,
    wire::{CompressionAlgorithmSpec, CompressionSpec},
};

/// Below this, what is saved is not worth the work.
const MIN_LENGTH: u32 = 1024;

pub(super) fn compression(spec: &CompressionSpec, problems: &mut Problems) -> Option<Compression> {
    let CompressionSpec { algorithms, content_types, min_length } = spec;
    let algorithms: Vec<_> = algorithms
        .iter()
        .map(|algorithm| match algorithm {
            CompressionAlgorithmSpec::Brotli => CompressionAlgorithm::Brotli,
            CompressionAlgorithmSpec::Gzip => CompressionAlgorithm::Gzip,
        })
        .collect();
    problems.at("algorithms").each_once(&algorithms);
    let content_types = {
        let mut problems = problems.at("contentTypes");
        let types = problems.each(content_types.iter().flatten(), |of, problems| problems.ok(text::content_type(of)));
        problems.each_once(types.as_deref().unwrap_or_default());
        types
    };
    let min_length = match min_length {
        None => Some(MIN_LENGTH),
        Some(length) => problems.at("minLength").ok(text::size(length, "30B", "1MiB")),
    };
    Some(Compression { algorithms, content_types: content_types?, min_length: min_length? })
}
