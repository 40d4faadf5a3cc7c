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

const MINUTE_MS: u64 = 60_000;

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
        self.at = self.at.max(now);
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
    per_minute: u32,
    total: TokenBucket,
    /// Of the sources that have taken a token lately. A full bucket is as good as none.
    sources: BTreeMap<Symbol, TokenBucket>,
}

impl EmergencyBuckets {
    /// Full buckets, each of `per_minute` tokens a minute.
    #[must_use]
    pub fn per_minute(per_minute: u32) -> Self {
        Self {
            per_minute,
            total: TokenBucket::per_minute(per_minute, Timestamp::EPOCH),
            sources: BTreeMap::new(),
        }
    }

    /// Tokens of a full bucket, at least 1.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.per_minute.max(1)
    }

    /// Tokens left for `source`: its own or the total, whichever is less.
    pub fn available(&mut self, now: Timestamp, source: Symbol) -> u32 {
        let own = self.source(source).map(|bucket| bucket.available(now));
        own.unwrap_or(self.per_minute)
            .min(self.total.available(now))
    }

    /// How long until there is a token for `source`.
    pub fn wait(&mut self, now: Timestamp, source: Symbol) -> Duration {
        let own = self.source(source).map(|bucket| bucket.wait(now));
        own.unwrap_or(Duration::ZERO).max(self.total.wait(now))
    }

    /// Takes a token for `source` from both buckets, as far as they have one. Whether both had.
    pub fn take(&mut self, now: Timestamp, source: Symbol) -> bool {
        let source = self.place(now, source);
        let per_minute = self.per_minute;
        let new = || TokenBucket::per_minute(per_minute, now);
        if self.available(now, source) == 0 {
            return false;
        }
        self.sources.entry(source).or_insert_with(new).take(now) && self.total.take(now)
    }

    /// Puts back a token that [`Self::take`] took for `source`.
    pub fn give_back(&mut self, now: Timestamp, source: Symbol) {
        if let Some(bucket) = self.source(source) {
            bucket.give_back(now);
        }
        self.total.give_back(now);
    }

    /// The bucket that `source` draws from, if it has drawn lately.
    fn source(&mut self, source: Symbol) -> Option<&mut TokenBucket> {
        let shared = !self.sources.contains_key(&source) && self.sources.len() >= SOURCES_MAX;
        self.sources
            .get_mut(if shared { &Symbol::NONE } else { &source })
    }

    /// Makes room for a new source, or sends it to the shared bucket.
    fn place(&mut self, now: Timestamp, source: Symbol) -> Symbol {
        if self.sources.contains_key(&source) || self.sources.len() < SOURCES_MAX {
            return source;
        }
        self.sources.retain(|_, bucket| !bucket.is_full(now));
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
    fn an_empty_rate_never_refills() {
        let mut bucket = TokenBucket::per_minute(0, at(0));
        assert!(!bucket.take(at(1_000_000)));
        assert_eq!(bucket.wait(at(0)), Duration::MAX);
    }

    #[test]
    fn one_source_leaves_the_others_their_share_of_the_total() {
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
