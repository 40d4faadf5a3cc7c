//! How a stream fares: rates of the last minute, and a line of the last hour.
//!
//! Samples are taken at an even pace of what was counted since the start; a rate is the difference of two of
//! them. So whoever looks once sees what was going on before, and a counter is kept once, where it is
//! counted.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// Between two samples.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(5);

/// How many samples are held: an hour of them, and where it begins.
pub const SAMPLES_MAX: usize = 721;

/// Over how long a rate is taken.
pub const RATE_OVER: Duration = Duration::from_secs(60);

/// What was counted of a stream since the start, and how deep it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Messages that were accepted.
    pub published: u64,
    /// Deliveries.
    pub delivered: u64,
    /// Deliveries that were settled.
    pub settled: u64,
    /// What its slowest group has yet to finish, right now.
    pub depth: u64,
}

/// Changes of a stream, a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Messages accepted.
    pub published_per_s: f64,
    /// Deliveries.
    pub delivered_per_s: f64,
    /// Deliveries settled.
    pub settled_per_s: f64,
    /// By how much the stream gets deeper with each message published: 0 keeps pace, 1 finishes
    /// nothing, less than 0 catches up. `None` if nothing was published.
    pub depth_per_publish: Option<f64>,
}

/// A sample, as it is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// When it was taken, in ms since the epoch.
    pub at_ms: u64,
    /// How deep the stream was.
    pub depth: u64,
    /// Its rates since the sample before.
    #[serde(flatten)]
    pub rates: Rates,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Trend(VecDeque<(Timestamp, Totals)>);

impl Trend {
    /// Takes a sample, if it is time for one. If the clock was set back, the line begins anew.
    pub fn observe(&mut self, now: Timestamp, totals: impl FnOnce() -> Totals) {
        match self.0.back() {
            Some((at, _)) if *at >= now + SAMPLE_EVERY => self.0.clear(),
            Some((at, _)) if now < *at + SAMPLE_EVERY => return,
            _ => {}
        }
        if self.0.len() == SAMPLES_MAX {
            self.0.pop_front();
        }
        self.0.push_back((now, totals()));
    }

    /// Rates from the first sample within [`RATE_OVER`] until now.
    #[must_use]
    pub fn rates(&self, now: Timestamp, totals: Totals) -> Rates {
        let within = |(at, _): &&(Timestamp, Totals)| *at <= now && now.since(*at) <= RATE_OVER;
        let first = self.0.iter().find(within);
        first.map_or_else(Rates::default, |first| rates(*first, (now, totals)))
    }

    /// The last `count` samples, the oldest first.
    #[must_use]
    pub fn points(&self, count: usize) -> Vec<Point> {
        let pairs = self.0.iter().zip(self.0.iter().skip(1));
        let skipped = pairs.len().saturating_sub(count);
        pairs
            .skip(skipped)
            .map(|(before, after)| Point {
                at_ms: after.0.as_millis(),
                depth: after.1.depth,
                rates: rates(*before, *after),
            })
            .collect()
    }
}

fn rates((from, before): (Timestamp, Totals), (to, after): (Timestamp, Totals)) -> Rates {
    let seconds = to.since(from).as_secs_f64();
    if seconds == 0.0 {
        return Rates::default();
    }
    let change = |before: u64, after: u64| after.saturating_sub(before) as f64;
    let published = change(before.published, after.published);
    let deeper = after.depth as f64 - before.depth as f64;
    Rates {
        published_per_s: published / seconds,
        delivered_per_s: change(before.delivered, after.delivered) / seconds,
        settled_per_s: change(before.settled, after.settled) / seconds,
        depth_per_publish: (published > 0.0).then(|| deeper / published),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    fn totals(published: u64, settled: u64) -> Totals {
        Totals {
            published,
            delivered: settled,
            settled,
            depth: published - settled,
        }
    }

    /// A trend of a stream to which ten a second are published, and of which `settled` a second are finished.
    fn trend(seconds: u64, settled: u64) -> Trend {
        let mut trend = Trend::default();
        for second in 0..=seconds {
            trend.observe(at(second), || totals(second * 10, second * settled));
        }
        trend
    }

    #[test]
    fn rates_are_of_the_last_minute() {
        let table = [(10, 0.0), (5, 0.5), (0, 1.0)];
        for (settled, depth_per_publish) in table {
            let trend = trend(300, settled);
            let rates = trend.rates(at(302), totals(3_020, 302 * settled));
            assert_eq!(rates.published_per_s, 10.0);
            assert_eq!(rates.settled_per_s, settled as f64);
            assert_eq!(rates.depth_per_publish, Some(depth_per_publish));
        }
        let still = trend(300, 10).rates(at(362), totals(3_000, 3_000));
        assert_eq!(still, Rates::default());
    }

    #[test]
    fn a_stream_that_catches_up_gets_less_deep() {
        let mut trend = Trend::default();
        trend.observe(at(0), || totals(100, 0));
        let rates = trend.rates(at(10), totals(120, 60));
        assert_eq!(rates.depth_per_publish, Some(-2.0));
    }

    #[test]
    fn an_hour_is_held() {
        let trend = trend(10_000, 10);
        let points = trend.points(usize::MAX);
        assert_eq!(points.len(), SAMPLES_MAX - 1);
        assert_eq!(points[0].at_ms + 3_595_000, 10_000_000);
        let last = trend.points(2);
        assert_eq!(last[1].at_ms - last[0].at_ms, 5_000);
        assert_eq!(last[1].rates.published_per_s, 10.0);
        assert_eq!(Trend::default().points(9), []);
    }

    #[test]
    fn a_clock_that_steps_divides_by_nothing() {
        let mut trend = Trend::default();
        trend.observe(at(100), || totals(10, 0));
        assert_eq!(trend.rates(at(100), totals(30, 0)), Rates::default());
        assert_eq!(trend.rates(at(50), totals(30, 0)), Rates::default());
    }

    #[test]
    fn a_clock_that_is_set_back_begins_the_line_anew() {
        let mut trend = trend(300, 0);
        // By a little: the line waits.
        trend.observe(at(299), || totals(3_000, 0));
        assert_eq!(trend.points(9).len(), 9);
        trend.observe(at(50), || totals(3_010, 0));
        trend.observe(at(55), || totals(3_060, 0));
        let points = trend.points(9);
        assert_eq!((points.len(), points[0].at_ms), (1, 55_000));
        let rates = trend.rates(at(60), totals(3_110, 0));
        assert_eq!(rates.published_per_s, 10.0);
    }
}
