//! Which of several clusters, by their shares. Pure.

use std::sync::Arc;

/// Of `clusters` with their shares, of which there has to be one, the one for a random number from 0 to 1.
pub fn cluster(clusters: &[(Arc<str>, u32)], chance: f64) -> &Arc<str> {
    let total: u64 = clusters.iter().map(|(_, share)| u64::from(*share)).sum();
    let mut point = ((chance * total as f64) as u64).min(total.saturating_sub(1));
    let hit = clusters.iter().find(|(_, share)| {
        let share = u64::from(*share);
        let hit = point < share;
        point = point.saturating_sub(share);
        hit
    });
    &hit.unwrap_or(&clusters[0]).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cluster_has_its_share() {
        let clusters: Vec<(Arc<str>, u32)> = vec![("a".into(), 1), ("none".into(), 0), ("b".into(), 3)];
        for (chance, expected) in [(0.0, "a"), (0.24, "a"), (0.25, "b"), (0.999, "b"), (1.0, "b")] {
            assert_eq!(&**cluster(&clusters, chance), expected, "{chance}");
        }
    }
}
