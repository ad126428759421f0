//! Where in the history of a fleet's caches a change stands: a revision, and a step since it.
//!
//! A cache wants numbers that grow with every change. Revisions are not enough: a fleet is also given something new while
//! its revision stays, because a resource is quarantined, say. So the sequence of a cache is the revision in the upper
//! half and a step in the lower one. A revision itself is step 0; all that follows until the next one that concerns the
//! fleet counts up from there. Steps are this process's own and mean nothing to another replica.
//!
//! Whether a proxy has settled is asked in sequences; what people are shown is a revision.

/// How many bits the step has: four thousand million steps per revision.
const STEP_BITS: u32 = 32;

/// The sequence at which `revision` is published, if nothing has gone past it.
pub fn of_revision(revision: u64) -> u64 {
    revision.min(u64::MAX >> STEP_BITS) << STEP_BITS
}

/// The revision that `sequence` belongs to.
pub fn revision(sequence: u64) -> u64 {
    sequence >> STEP_BITS
}

/// The sequence after `last` for a change that belongs to `revision`, or to the revision of `last` if that is newer.
pub(super) fn next(last: u64, revision: u64) -> u64 {
    of_revision(revision).max(last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_stay_between_their_revision_and_the_next() {
        let seven = of_revision(7);
        let steps = [next(seven, 7), next(next(seven, 7), 0)];
        assert!(seven < steps[0] && steps[0] < steps[1] && steps[1] < of_revision(8));
        assert_eq!(steps.map(revision), [7, 7]);
        assert_eq!(next(steps[1], 8), of_revision(8));
        assert_eq!((revision(0), next(0, 0)), (0, 1));
    }
}
