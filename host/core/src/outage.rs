//! Outages of a bus: for how long it has not done what it is for.
//!
//! Why: that something fails is soon mended or not; what matters is how long it takes. Begins when: the bus is not ready,
//! or a stream is at high water or over it. Ends when: the bus is ready, and the stream under low water. Between the two
//! waters nothing changes, so a burst is over when its backlog is, and not at the first good moment.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::conservative::ConservativeConfig;
use crate::time::Timestamp;

/// See the module.
#[derive(Clone, Debug)]
pub struct Outages {
    high_water: u64,
    low_water: u64,
    /// Since when the bus is not ready.
    away: Option<Timestamp>,
    /// Since when each stream has too much to do.
    deep: BTreeMap<String, Timestamp>,
}

impl Outages {
    /// No outage so far. The waters are those of conservative mode.
    #[must_use]
    pub fn new(waters: &ConservativeConfig) -> Self {
        Self {
            high_water: waters.high_water,
            low_water: waters.low_water,
            away: None,
            deep: BTreeMap::new(),
        }
    }

    /// Looks at whether the bus is ready, and at the depth of each stream; answers for how long the outage has lasted
    /// that is the longest, if there is any. A stream that is not named has none.
    pub fn look<'a>(
        &mut self,
        now: Timestamp,
        ready: bool,
        depths: impl IntoIterator<Item = (&'a str, u64)>,
    ) -> Option<Duration> {
        self.away = (!ready).then(|| since(self.away, now));
        let before = std::mem::take(&mut self.deep);
        for (stream, depth) in depths {
            let began = before.get(stream).copied();
            let limit = if began.is_some() {
                self.low_water
            } else {
                self.high_water
            };
            if depth >= limit {
                self.deep.insert(stream.to_owned(), since(began, now));
            }
        }
        let longest = self.deep.values().copied().chain(self.away).min();
        longest.map(|began| now.since(began))
    }
}

/// A clock that is set back begins an outage anew.
fn since(began: Option<Timestamp>, now: Timestamp) -> Timestamp {
    began.map_or(now, |began| began.min(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WATERS: ConservativeConfig = ConservativeConfig {
        high_water: 4_000,
        low_water: 1_000,
        recovery_ms: 0,
    };

    /// A look: whether the bus is ready, the depths of two streams, and for how many seconds there is an outage.
    type Look = (bool, u64, u64, Option<u64>);

    #[track_caller]
    fn check(looks: &[Look]) {
        let mut outages = Outages::new(&WATERS);
        for (second, (ready, a, b, expected)) in (0..).zip(looks) {
            let now = Timestamp::from_millis(second * 1_000);
            let found = outages.look(now, *ready, [("a", *a), ("b", *b)]);
            assert_eq!(found, expected.map(Duration::from_secs), "second {second}");
        }
    }

    #[test]
    fn a_bus_that_is_away_is_so_until_it_is_ready() {
        check(&[
            (true, 0, 0, None),
            (false, 0, 0, Some(0)),
            (false, 0, 0, Some(1)),
            (true, 0, 0, None),
            (false, 0, 0, Some(0)),
        ]);
    }

    #[test]
    fn a_burst_is_over_when_its_backlog_is() {
        check(&[
            (true, 3_999, 0, None),
            (true, 4_000, 0, Some(0)),
            (true, 9_000, 0, Some(1)),
            // A good moment is no recovery.
            (true, 3_000, 0, Some(2)),
            (true, 1_000, 0, Some(3)),
            (true, 5_000, 0, Some(4)),
            (true, 999, 0, None),
            // What is between the waters was never an outage.
            (true, 3_999, 0, None),
            (true, 4_000, 0, Some(0)),
        ]);
    }

    #[test]
    fn each_stream_has_its_own() {
        check(&[
            (true, 4_000, 2_000, Some(0)),
            (true, 2_000, 4_000, Some(1)),
            // The second has been over for a second; that it was deep before does not count.
            (true, 999, 2_000, Some(1)),
            (true, 2_000, 2_000, Some(2)),
            (true, 0, 0, None),
        ]);
    }

    #[test]
    fn the_longest_counts() {
        check(&[
            (false, 0, 0, Some(0)),
            (false, 4_000, 0, Some(1)),
            (true, 4_000, 0, Some(1)),
            (false, 4_000, 0, Some(2)),
            (false, 0, 0, Some(1)),
        ]);
    }

    #[test]
    fn a_stream_that_is_gone_has_no_outage() {
        let mut outages = Outages::new(&WATERS);
        let at = Timestamp::from_millis;
        assert!(outages.look(at(0), true, [("a", 9_000)]).is_some());
        assert_eq!(outages.look(at(1), true, []), None);
        assert_eq!(outages.look(at(2), true, [("a", 2_000)]), None);
    }

    #[test]
    fn a_clock_that_is_set_back_begins_it_anew() {
        let mut outages = Outages::new(&WATERS);
        let mut look = |second: u64| {
            let now = Timestamp::from_millis(second * 1_000);
            let lasted = outages.look(now, false, [("a", 9_000)]);
            lasted.map(|lasted| lasted.as_secs())
        };
        let found = [100, 130, 10, 15].map(&mut look);
        assert_eq!(found, [Some(0), Some(30), Some(0), Some(5)]);
    }
}
