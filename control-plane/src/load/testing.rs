//! Reports, for the tests of what becomes of them.

use chancery_proto::envoy::endpoint::{ClusterStats, UpstreamLocalityStats};

/// A report of one cluster.
pub(super) fn stats(cluster: &str, successes: u64, errors: u64, in_progress: u64) -> ClusterStats {
    let locality = UpstreamLocalityStats {
        total_successful_requests: successes,
        total_error_requests: errors,
        total_requests_in_progress: in_progress,
        ..UpstreamLocalityStats::default()
    };
    ClusterStats { cluster_name: cluster.into(), upstream_locality_stats: vec![locality], ..ClusterStats::default() }
}
