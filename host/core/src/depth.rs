//! How deep a stream is, without asking for every publish.
//!
//! The store is sampled in the background; in between, what this host has written since is added.
//! What was written while a sample was under way may or may not be in it: it is counted on top, so
//! that the estimate errs towards full until the next sample. Only what was counted before a sample
//! began and taken back while it was under way errs the other way, by that much and for as long.

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct DepthEstimate {
    sampled: u64,
    /// Written since the last sample began.
    since_sample: u64,
    /// Written since the sample that is under way began.
    since_begin: u64,
}

impl DepthEstimate {
    /// What the stream holds unfinished, in entries.
    #[must_use]
    pub const fn estimate(&self) -> u64 {
        self.sampled.saturating_add(self.since_sample)
    }

    /// Counts entries that are written or about to be.
    pub const fn wrote(&mut self, count: u64) {
        self.since_sample = self.since_sample.saturating_add(count);
        self.since_begin = self.since_begin.saturating_add(count);
    }

    /// Takes back entries that were counted and not written after all.
    pub const fn unwrote(&mut self, count: u64) {
        self.since_sample = self.since_sample.saturating_sub(count);
        self.since_begin = self.since_begin.saturating_sub(count);
    }

    /// The store is about to be asked.
    pub const fn begin_sample(&mut self) {
        self.since_begin = 0;
    }

    /// The store has answered.
    pub const fn end_sample(&mut self, depth: u64) {
        self.sampled = depth;
        self.since_sample = self.since_begin;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_sample_replaces_what_was_counted_before_it() {
        let mut depth = DepthEstimate::default();
        depth.wrote(10);
        assert_eq!(depth.estimate(), 10);
        depth.begin_sample();
        depth.wrote(3);
        depth.end_sample(4);
        assert_eq!(
            depth.estimate(),
            7,
            "what was written meanwhile is counted on top"
        );
        depth.begin_sample();
        depth.end_sample(2);
        assert_eq!(depth.estimate(), 2);
    }

    proptest! {
        /// With nothing in flight when a sample begins, the estimate never misses a written entry.
        #[test]
        fn it_never_errs_towards_empty(
            rounds in prop::collection::vec((0u64..50, 0u64..50, 0u64..50, 0u64..50), 1..50)
        ) {
            let mut estimate = DepthEstimate::default();
            let mut real = 0;
            for (before, during, seen, refused) in rounds {
                estimate.wrote(before);
                real += before;
                prop_assert!(estimate.estimate() >= real);
                estimate.begin_sample();
                // The store looks somewhere in the middle; what is refused was never there.
                let in_it = real + during.min(seen);
                estimate.wrote(during + refused);
                estimate.unwrote(refused);
                real += during;
                estimate.end_sample(in_it);
                prop_assert!(estimate.estimate() >= real);
                prop_assert!(estimate.estimate() <= real + during);
            }
        }
    }

    #[test]
    fn a_sample_that_fails_changes_nothing() {
        let mut depth = DepthEstimate::default();
        depth.end_sample(5);
        depth.wrote(1);
        depth.begin_sample();
        depth.wrote(1);
        assert_eq!(depth.estimate(), 7);
        depth.unwrote(1);
        assert_eq!(depth.estimate(), 6);
    }
}
