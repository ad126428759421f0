//! What is made of many measurements: medians, and latencies as histograms.

use hdrhistogram::Histogram;

/// From a microsecond to a minute, to a thousandth.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 60_000_000_000, 3).unwrap_or_else(|_| unreachable!("the bounds are in order"))
}

/// The pairs of value and count that [`restored`] makes a histogram of again.
pub(crate) fn recorded(latencies: &Histogram<u64>) -> Vec<(u64, u64)> {
    latencies.iter_recorded().map(|at| (at.value_iterated_to(), at.count_at_value())).collect()
}

/// What [`recorded`] told.
pub(crate) fn restored(recorded: &[(u64, u64)]) -> Histogram<u64> {
    let mut latencies = histogram();
    recorded.iter().for_each(|(value, count)| latencies.saturating_record_n(*value, *count));
    latencies
}

/// The one in the middle; of an even number the lower one of the two, so that it is one that was measured.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len().checked_sub(1)? / 2;
    Some(values.swap_remove(middle))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_one_that_was_measured() {
        assert_eq!(median(vec![9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(vec![9.0, 1.0]), Some(1.0));
        assert_eq!(median(vec![]), None);
    }

    #[test]
    fn a_histogram_comes_back_as_it_was() {
        let mut latencies = histogram();
        (1..=1_000).for_each(|number| latencies.saturating_record(number * 1_000));
        assert_eq!(restored(&recorded(&latencies)), latencies);
    }
}
