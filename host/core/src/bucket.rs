//! Token buckets for the emergency lane.
//!
//! Why: what everybody calls an emergency is none. Trips when: a source, or all together, publish
//! more emergencies than their rate for long enough to empty the bucket. Recovers when: time passes;
//! tokens come back evenly, up to a full bucket.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::symbols::Symbol;
use crate::time::Timestamp;

/// How many sources have a bucket of their own. Sources beyond that share one, until a bucket that
/// is full again makes room.
pub const SOURCES_MAX: usize = 4_096;

/// Full buckets are looked for once in this time at most: it costs a look at each of them.
const PRUNE_INTERVAL: Duration = Duration::from_secs(1);

const MINUTE_MS: u64 = 60_000;
/// The longest time that an empty bucket takes to fill.
const MINUTE: Duration = Duration::from_millis(MINUTE_MS);

/// Tokens that come back evenly. Exact: it counts in parts of a token, 60 000 to each, so that a
/// rate per minute adds a whole number of parts every millisecond.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    per_minute: u32,
    parts: u64,
    at: Timestamp,
}

impl TokenBucket {
    /// A full bucket that refills at `per_minute` tokens a minute and holds as many.
    #[must_use]
    pub fn per_minute(per_minute: u32, now: Timestamp) -> Self {
        Self {
            per_minute,
            parts: u64::from(per_minute) * MINUTE_MS,
            at: now,
        }
    }

    fn refill(&mut self, now: Timestamp) {
        let elapsed = u64::try_from(now.since(self.at).as_millis()).unwrap_or(u64::MAX);
        let rate = u64::from(self.per_minute);
        self.parts = self
            .parts
            .saturating_add(elapsed.saturating_mul(rate))
            .min(rate * MINUTE_MS);
        // Callers that overtake one another by a moment must not gain it twice; a clock that was set
        // back by more must not keep the bucket empty for as long.
        if now > self.at || self.at.since(now) > MINUTE {
            self.at = now;
        }
    }

    /// Whole tokens at `now`.
    pub fn available(&mut self, now: Timestamp) -> u32 {
        self.refill(now);
        u32::try_from(self.parts / MINUTE_MS).unwrap_or(u32::MAX)
    }

    /// Takes a token; `false` if there is none.
    pub fn take(&mut self, now: Timestamp) -> bool {
        self.refill(now);
        let taken = self.parts.checked_sub(MINUTE_MS);
        self.parts = taken.unwrap_or(self.parts);
        taken.is_some()
    }

    /// Puts back a token that was not used.
    pub fn give_back(&mut self, now: Timestamp) {
        self.parts = self.parts.saturating_add(MINUTE_MS);
        self.refill(now);
    }

    /// How long until there is a token: zero if there is one. The longest time there is for a
    /// bucket that never refills.
    pub fn wait(&mut self, now: Timestamp) -> Duration {
        self.refill(now);
        let missing = MINUTE_MS.saturating_sub(self.parts);
        match u64::from(self.per_minute) {
            _ if missing == 0 => Duration::ZERO,
            0 => Duration::MAX,
            rate => Duration::from_millis(missing.div_ceil(rate)),
        }
    }

    fn is_full(&mut self, now: Timestamp) -> bool {
        self.refill(now);
        self.parts == u64::from(self.per_minute) * MINUTE_MS
    }
}

/// The buckets of the emergency lane: one for all, and one for each source.
#[derive(Debug)]
pub struct EmergencyBuckets {
    source_per_minute: u32,
    total_per_minute: u32,
    total: TokenBucket,
    /// Of the sources that have taken a token lately. A full bucket is as good as none.
    sources: BTreeMap<Symbol, TokenBucket>,
    pruned_at: Timestamp,
}

impl EmergencyBuckets {
    /// Full buckets, each of `per_minute` tokens a minute. One source may use up the total: see
    /// [`Self::with_rates`].
    #[must_use]
    pub fn per_minute(per_minute: u32) -> Self {
        Self::with_rates(per_minute, per_minute)
    }

    /// Full buckets, of `total_per_minute` tokens a minute for all sources together and
    /// `source_per_minute` for each. Where the second is less than the first, a source that raises an
    /// alarm without end leaves the others room for theirs.
    #[must_use]
    pub fn with_rates(total_per_minute: u32, source_per_minute: u32) -> Self {
        Self {
            source_per_minute,
            total_per_minute,
            total: TokenBucket::per_minute(total_per_minute, Timestamp::EPOCH),
            sources: BTreeMap::new(),
            pruned_at: Timestamp::EPOCH,
        }
    }

    /// The most tokens that a source can find, at least 1.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.source_per_minute.min(self.total_per_minute).max(1)
    }

    /// Tokens left for `source`: its own or the total, whichever is less.
    pub fn available(&mut self, now: Timestamp, source: Symbol) -> u32 {
        let own = self.drawn(now, source).map(|bucket| bucket.available(now));
        own.unwrap_or(self.source_per_minute)
            .min(self.total.available(now))
    }

    /// How long until there is a token for `source`.
    pub fn wait(&mut self, now: Timestamp, source: Symbol) -> Duration {
        let own = self.drawn(now, source).map(|bucket| bucket.wait(now));
        own.unwrap_or(Duration::ZERO).max(self.total.wait(now))
    }

    /// Takes a token for `source` from both buckets, or from neither. Whether both had one.
    pub fn take(&mut self, now: Timestamp, source: Symbol) -> bool {
        if self.available(now, source) == 0 {
            return false;
        }
        let rate = self.source_per_minute;
        let new = || TokenBucket::per_minute(rate, now);
        let source = self.place(now, source);
        self.sources.entry(source).or_insert_with(new).take(now) && self.total.take(now)
    }

    /// Puts back a token that [`Self::take`] took for `source`.
    pub fn give_back(&mut self, now: Timestamp, source: Symbol) {
        if let Some(bucket) = self.drawn(now, source) {
            bucket.give_back(now);
        }
        self.total.give_back(now);
    }

    /// The bucket that `source` draws from, if somebody has drawn from it lately.
    fn drawn(&mut self, now: Timestamp, source: Symbol) -> Option<&mut TokenBucket> {
        let place = self.place(now, source);
        self.sources.get_mut(&place)
    }

    /// Under which name `source` draws: its own if there is room for it, else the shared one.
    fn place(&mut self, now: Timestamp, source: Symbol) -> Symbol {
        if self.sources.contains_key(&source) || self.sources.len() < SOURCES_MAX {
            return source;
        }
        if now < self.pruned_at || now.since(self.pruned_at) >= PRUNE_INTERVAL {
            self.pruned_at = now;
            self.sources.retain(|_, bucket| !bucket.is_full(now));
        }
        if self.sources.len() < SOURCES_MAX {
            source
        } else {
            Symbol::NONE
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    #[test]
    fn tokens_come_back_evenly_and_to_the_millisecond() {
        let mut bucket = TokenBucket::per_minute(120, at(0));
        (0..120).for_each(|_| assert!(bucket.take(at(0))));
        assert!(!bucket.take(at(0)));
        assert_eq!(bucket.wait(at(0)), Duration::from_millis(500));
        assert!(!bucket.take(at(499)));
        assert!(bucket.take(at(500)));
        assert_eq!(bucket.available(at(60_499)), 119);
        assert_eq!(bucket.available(at(1_000_000)), 120);
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing() {
        let mut bucket = TokenBucket::per_minute(60, at(10_000));
        (0..60).for_each(|_| assert!(bucket.take(at(10_000))));
        assert!(!bucket.take(at(0)));
        assert_eq!(bucket.available(at(10_999)), 0);
        assert_eq!(bucket.available(at(11_000)), 1);
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_close_the_lane() {
        let mut bucket = TokenBucket::per_minute(60, at(9_000_000));
        (0..60).for_each(|_| assert!(bucket.take(at(9_000_000))));
        assert!(!bucket.take(at(1_000_000)));
        assert!(bucket.take(at(1_001_000)));
    }

    #[test]
    fn an_empty_rate_never_refills() {
        let mut bucket = TokenBucket::per_minute(0, at(0));
        assert!(!bucket.take(at(1_000_000)));
        assert_eq!(bucket.wait(at(0)), Duration::MAX);
    }

    #[test]
    fn one_source_leaves_the_others_their_share_of_the_total() {
        let mut buckets = EmergencyBuckets::with_rates(3, 2);
        let (loud, quiet) = (Symbol(1), Symbol(2));
        assert_eq!(buckets.capacity(), 2);
        let taken = (0..10).filter(|_| buckets.take(at(0), loud)).count();
        assert_eq!(taken, 2);
        assert_eq!(buckets.wait(at(0), loud), Duration::from_secs(30));
        assert_eq!(buckets.available(at(0), quiet), 1);
        assert!(buckets.take(at(0), quiet));
        assert!(!buckets.take(at(0), quiet), "the total is used up");
        assert_eq!(buckets.wait(at(0), quiet), Duration::from_secs(20));
    }

    #[test]
    fn what_is_given_back_is_there_for_all() {
        let mut buckets = EmergencyBuckets::per_minute(2);
        let (one, other) = (Symbol(1), Symbol(2));
        assert!(buckets.take(at(0), one));
        assert_eq!(buckets.available(at(0), other), 1);
        assert!(buckets.take(at(0), one));
        assert!(!buckets.take(at(0), other));
        buckets.give_back(at(0), one);
        assert_eq!(buckets.available(at(0), other), 1);
        assert_eq!(buckets.wait(at(0), other), Duration::ZERO);
    }

    #[test]
    fn sources_are_bounded() {
        let mut buckets = EmergencyBuckets::per_minute(u32::MAX);
        for source in 1..=5_000 {
            assert!(buckets.take(at(0), Symbol(source)));
        }
        assert!(buckets.sources.len() <= SOURCES_MAX + 1);
        assert!(buckets.take(at(1_000_000), Symbol(9_999)));
        assert_eq!(buckets.sources.len(), 1, "full buckets make room");
    }

    #[test]
    fn sources_beyond_the_bound_share_a_bucket() {
        let mut buckets = EmergencyBuckets::with_rates(u32::MAX, 1);
        let known = u32::try_from(SOURCES_MAX).unwrap();
        (1..=known).for_each(|source| assert!(buckets.take(at(0), Symbol(source))));
        let (one, other) = (Symbol(known + 1), Symbol(known + 2));
        assert!(buckets.take(at(0), one));
        assert!(!buckets.take(at(0), other));
        assert_eq!(buckets.wait(at(0), other), MINUTE);
        assert!(
            !buckets.take(at(59_999), Symbol(1)),
            "nobody is forgotten before it is full"
        );
        assert_eq!(buckets.available(at(60_000), other), 1);
    }

    proptest! {
        /// In any minute, no more than a full bucket and a minute's refill pass.
        #[test]
        fn the_rate_holds(
            rate in 1u32..200,
            waits in prop::collection::vec(0u64..2_000, 1..400),
        ) {
            let mut bucket = TokenBucket::per_minute(rate, at(0));
            let mut now = 0;
            let mut taken = 0u64;
            for wait in waits {
                now += wait;
                taken += u64::from(bucket.take(at(now)));
            }
            prop_assert!(taken <= u64::from(rate) + now * u64::from(rate) / MINUTE_MS);
        }
    }
}
