//! What was counted within the last minute: the difference of two of the samples that are held.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Timestamp;

/// Over how long.
pub const OVER: Duration = Duration::from_secs(60);

/// Between two samples that are held, at least.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// How many samples are held.
pub const SAMPLES_MAX: usize = 61;

/// Samples of counters, one a second at most. Of those that are a minute old or older only the youngest is held.
#[derive(Clone, Debug)]
pub struct LastMinute<T>(VecDeque<(Timestamp, T)>);

impl<T> Default for LastMinute<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T: Copy> LastMinute<T> {
    /// Takes a sample; answers with what was counted a minute ago, or when the first was taken. Where samples are
    /// further apart that is what the last one before the minute says.
    pub fn observe(&mut self, now: Timestamp, counted: T) -> T {
        // A clock that was set back makes all of them worthless.
        if self.0.back().is_some_and(|(at, _)| *at > now) {
            self.0.clear();
        }
        let is_due = |(at, _): &(Timestamp, T)| now >= *at + SAMPLE_EVERY;
        if self.0.back().is_none_or(is_due) {
            self.0.push_back((now, counted));
        }
        while self.0.get(1).is_some_and(|(at, _)| now.since(*at) >= OVER) {
            self.0.pop_front();
        }
        self.0.front().map_or(counted, |(_, before)| *before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_difference_to_a_minute_ago() {
        let mut minute = LastMinute::default();
        // When (in ms); what was counted; what was counted a minute ago.
        let table = [
            (1_000_000, 7, 7),
            (1_000_500, 9, 7),
            (1_030_000, 10, 7),
            (1_060_000, 20, 7),
            (1_060_001, 21, 7),
            (1_090_001, 30, 10),
            // Looks that are a minute apart, and more: what came since the one before counts.
            (1_150_001, 40, 30),
            (1_210_500, 50, 40),
            (1_271_000, 60, 50),
            // A clock that was set back.
            (1_000_000, 70, 70),
        ];
        for (ms, counted, before) in table {
            let now = Timestamp::from_millis(ms);
            assert_eq!(minute.observe(now, counted), before, "at {ms} ms");
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut minute = LastMinute::default();
        for ms in 0..200_000 {
            minute.observe(Timestamp::from_millis(ms), ms);
            assert!(minute.0.len() <= SAMPLES_MAX);
        }
        assert_eq!(minute.observe(Timestamp::from_millis(200_000), 0), 140_000);
    }
}
