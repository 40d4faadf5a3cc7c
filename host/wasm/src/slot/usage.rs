//! What a version uses of what it may use: the memory of its largest instance, and its slowest call
//! of late.
//!
//! Late is the window of the failure budget, and the one before it: so the slowest call is seen for
//! one window at least, and forgotten after two.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use oona_core::Timestamp;

/// How many bits of a record are the time of a call, in ns: 18 minutes.
const TIME_BITS: u32 = 40;

/// See the module. Whoever decides counts here, without a lock.
#[derive(Debug)]
pub(super) struct Usage {
    since: Timestamp,
    window_ms: u64,
    memory_bytes: AtomicU64,
    /// By turns, the slowest call of a window: the number of the window above its time in ns, so that
    /// what is greater is what replaces it.
    slowest: [AtomicU64; 2],
}

impl Usage {
    pub(super) fn new(since: Timestamp, window_ms: u64) -> Self {
        Self {
            since,
            window_ms: window_ms.max(1),
            memory_bytes: AtomicU64::new(0),
            slowest: [AtomicU64::new(0), AtomicU64::new(0)],
        }
    }

    /// A call has ended.
    pub(super) fn count(&self, now: Timestamp, took: Duration, memory_bytes: usize) {
        let memory_bytes = memory_bytes as u64;
        // Mostly nothing is new, and to look is cheaper than to write.
        if self.memory_bytes.load(Ordering::Relaxed) < memory_bytes {
            self.memory_bytes.fetch_max(memory_bytes, Ordering::Relaxed);
        }
        let longest = (1 << TIME_BITS) - 1;
        let took = u64::try_from(took.as_nanos())
            .unwrap_or(longest)
            .min(longest);
        let window = self.window(now);
        let seen = (window << TIME_BITS) | took;
        let slowest = self.of(window);
        if slowest.load(Ordering::Relaxed) < seen {
            slowest.fetch_max(seen, Ordering::Relaxed);
        }
    }

    /// The most memory that an instance had, in bytes; zero if none ran.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.memory_bytes.load(Ordering::Relaxed)
    }

    /// How long the slowest of the recent calls took.
    pub(super) fn slowest(&self, now: Timestamp) -> Duration {
        let window = self.window(now);
        let recent = [window.saturating_sub(1), window]
            .into_iter()
            .map(|window| {
                let seen = self.of(window).load(Ordering::Relaxed);
                let of_it = seen >> TIME_BITS == window;
                if of_it {
                    seen & ((1 << TIME_BITS) - 1)
                } else {
                    0
                }
            });
        Duration::from_nanos(recent.max().unwrap_or_default())
    }

    /// The number of the window in which `now` is; from 1, so that nothing is no record.
    fn window(&self, now: Timestamp) -> u64 {
        let since = now.as_millis().saturating_sub(self.since.as_millis());
        (since / self.window_ms + 1).min((1 << (u64::BITS - TIME_BITS)) - 1)
    }

    fn of(&self, window: u64) -> &AtomicU64 {
        &self.slowest[usize::from(window.is_multiple_of(2))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_call_is_seen_for_a_window_and_forgotten_after_two() {
        let usage = Usage::new(Timestamp::from_millis(1_000), 100);
        let us = Duration::from_micros;
        let at = Timestamp::from_millis;
        let slowest = |now| usage.slowest(at(now)).as_micros();
        assert_eq!(slowest(1_000), 0);
        usage.count(at(1_010), us(7), 0);
        usage.count(at(1_020), us(3), 0);
        assert_eq!([1_020, 1_199, 1_200].map(slowest), [7, 7, 0]);
        usage.count(at(1_150), us(2), 0);
        assert_eq!([1_150, 1_200, 1_299, 1_300].map(slowest), [7, 2, 2, 0]);
        // What comes late, by another clock, does not replace what is newer.
        usage.count(at(1_250), us(1), 0);
        usage.count(at(1_050), us(9), 0);
        assert_eq!(slowest(1_299), 2);
    }

    #[test]
    fn the_most_memory_is_told() {
        let usage = Usage::new(Timestamp::EPOCH, 0);
        for bytes in [0, 65_536, 131_072, 65_536] {
            usage.count(Timestamp::EPOCH, Duration::from_secs(10_000), bytes);
        }
        assert_eq!(usage.memory_bytes(), 131_072);
        assert!(usage.slowest(Timestamp::EPOCH) > Duration::from_secs(1_000));
    }
}
