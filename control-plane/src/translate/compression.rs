//! Compression of answers: a filter for each algorithm, which stands on the listeners that want it alone.
//!
//! Routes can switch it off but not say how: Envoy takes types and lengths only for a listener.

use chancery_proto::{
    any,
    envoy::{
        brotli::Brotli,
        compressor_filter::{
            Compressor,
            compressor::{CommonDirectionConfig, ResponseDirectionConfig},
        },
        core::TypedExtensionConfig,
        gzip::Gzip,
        hcm::HttpFilter,
        matcher::string_matcher::MatchPattern,
    },
    google::protobuf::Any,
};

use super::{
    filter::{always, never},
    value::{number, string_matcher},
};
use crate::model::compression::{Compression, CompressionAlgorithm};

/// The filters, in order.
pub(super) fn filters(compression: &Compression) -> Vec<HttpFilter> {
    let Compression { algorithms, .. } = compression;
    let first = algorithms.first();
    let filter = |algorithm: &CompressionAlgorithm| {
        let compressor = compressor(compression, *algorithm, first == Some(algorithm));
        always(name(*algorithm), any::pack_typed(&compressor))
    };
    algorithms.iter().map(filter).collect()
}

/// What a rule tells the filters, by their names, whose answers are not compressed.
pub(super) fn none() -> impl Iterator<Item = (String, Any)> {
    CompressionAlgorithm::ALL.into_iter().map(|algorithm| never(name(algorithm)))
}

fn name(algorithm: CompressionAlgorithm) -> &'static str {
    match algorithm {
        CompressionAlgorithm::Brotli => "chancery.compression.brotli",
        CompressionAlgorithm::Gzip => "chancery.compression.gzip",
    }
}

fn compressor(compression: &Compression, algorithm: CompressionAlgorithm, choose_first: bool) -> Compressor {
    let Compression { algorithms: _, content_types, min_length } = compression;
    let (library, settings) = match algorithm {
        CompressionAlgorithm::Brotli => ("brotli", any::pack_typed(&Brotli::default())),
        CompressionAlgorithm::Gzip => ("gzip", any::pack_typed(&Gzip::default())),
    };
    Compressor {
        compressor_library: Some(TypedExtensionConfig { name: library.to_owned(), typed_config: Some(settings) }),
        response_direction_config: Some(ResponseDirectionConfig {
            common_config: Some(CommonDirectionConfig {
                content_type_matcher: content_types
                    .iter()
                    .cloned()
                    .map(MatchPattern::Exact)
                    .map(string_matcher)
                    .collect(),
                min_content_length: Some(number(*min_length)),
                ..CommonDirectionConfig::default()
            }),
            // What is compressed is no longer byte for byte what its tag says, but means the same.
            weaken_etag_on_compress: true,
            ..ResponseDirectionConfig::default()
        }),
        choose_first,
        ..Compressor::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translate::testing::snapshot;

    #[test]
    fn the_first_algorithm_is_liked_best() {
        let algorithms = vec![CompressionAlgorithm::Gzip, CompressionAlgorithm::Brotli];
        let content_types = vec!["application/json".into()];
        let compression = Compression { algorithms, content_types, min_length: 512 };
        insta::assert_snapshot!(snapshot(&filters(&compression)));
        let of = |algorithm, first| compressor(&compression, algorithm, first);
        insta::assert_snapshot!(snapshot(&of(CompressionAlgorithm::Gzip, true)));
        insta::assert_snapshot!(snapshot(&of(CompressionAlgorithm::Brotli, false)));
    }

    #[test]
    fn a_rule_without_it_switches_every_algorithm_off() {
        let mut off: Vec<String> = none().map(|(name, _)| name).collect();
        off.sort();
        assert_eq!(off, ["chancery.compression.brotli", "chancery.compression.gzip"]);
    }
}
