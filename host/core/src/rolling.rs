//! Latencies of the last 1, 5 and 60 minutes, and of all time.
//!
//! Why: the last value says nothing of the slowest of a hundred, and an average hides it. So each value
//! is counted, in buckets that are at most 1 % wide (`HdrHistogram`), by slices of time: five seconds
//! each for the last five minutes, a minute each for the last hour. A slice that has passed keeps only
//! the buckets that were used, some tens.
//!
//! A span is the slice that is under way and those before it: "the last minute" is the last 55 to 60 s,
//! an hour 59 to 60 minutes. Values above [`LATENCY_MAX`] count as that.

use std::collections::VecDeque;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// What is longer is counted as this.
pub const LATENCY_MAX: Duration = Duration::from_secs(24 * 3_600);

/// Significant digits that are kept of a value.
const DIGITS: u8 = 2;

/// Length of the slices of the last five minutes, in ms.
const SHORT_MS: u64 = 5_000;

/// Length of the slices of the last hour, in ms.
const LONG_MS: u64 = 60_000;

/// How many slices of a kind make its longest span: five minutes, and an hour.
const SLICES: u64 = 60;

/// The stretch of time that a figure is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Span {
    /// The last minute.
    #[serde(rename = "1m")]
    Minute,
    /// The last five minutes.
    #[serde(rename = "5m")]
    FiveMinutes,
    /// The last hour.
    #[serde(rename = "1h")]
    Hour,
    /// Since the start.
    #[serde(rename = "start")]
    Start,
}

impl Span {
    /// All of them, from short to long.
    pub const ALL: [Self; 4] = [Self::Minute, Self::FiveMinutes, Self::Hour, Self::Start];

    /// Its name: `1m`, `5m`, `1h`, `start`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Minute => "1m",
            Self::FiveMinutes => "5m",
            Self::Hour => "1h",
            Self::Start => "start",
        }
    }

    /// The span with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|span| span.name() == name)
    }
}

/// What became of latencies, in ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many there were.
    pub count: u64,
    /// Their mean.
    pub mean_ms: f64,
    /// What half of them did not exceed.
    pub p50_ms: f64,
    /// What 95 % did not exceed.
    pub p95_ms: f64,
    /// What 99 % did not exceed.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Rolling {
    /// The slice that is under way.
    current: Slice,
    short: Passed<SHORT_MS>,
    /// The minute that is under way, without the slice that is.
    minute: Slice,
    long: Passed<LONG_MS>,
    /// All time, without the slice that is under way.
    total: Histogram<u64>,
    sum: Duration,
}

/// Values of one slice of time.
#[derive(Clone, Debug)]
struct Slice {
    number: u64,
    values: Histogram<u64>,
}

/// Slices that have passed: of each its number, and how often which value (in µs) was seen.
#[derive(Clone, Debug, Default)]
struct Passed<const MS: u64>(VecDeque<(u64, Vec<(u64, u64)>)>);

impl<const MS: u64> Passed<MS> {
    fn push(&mut self, number: u64, values: &Histogram<u64>) {
        while self.0.len() as u64 >= SLICES - 1 {
            self.0.pop_front();
        }
        let recorded = values.iter_recorded();
        let counts = recorded.map(|step| (step.value_iterated_to(), step.count_at_value()));
        self.0.push_back((number, counts.collect()));
    }

    /// Adds what the last `slices` saw, the one that is under way at `now` counted as one of them.
    fn add_to(&self, sum: &mut Histogram<u64>, now: Timestamp, slices: u64) {
        let oldest = (now.as_millis() / MS + 1).saturating_sub(slices);
        for (_, counts) in self.0.iter().filter(|(number, _)| *number >= oldest) {
            for (value, count) in counts {
                record(sum, *value, *count);
            }
        }
    }
}

impl Slice {
    fn add_to(&self, sum: &mut Histogram<u64>, now: Timestamp, slices: u64, ms: u64) {
        if self.number + slices > now.as_millis() / ms {
            add(sum, &self.values);
        }
    }
}

/// An empty histogram of µs.
///
/// # Panics
///
/// Never: the precision is one that histograms have.
#[must_use]
pub fn histogram() -> Histogram<u64> {
    Histogram::new(DIGITS).expect("two digits are a precision that histograms have")
}

fn record(values: &mut Histogram<u64>, value: u64, count: u64) {
    let recorded = values.record_n(value, count);
    recorded.expect("a histogram grows as it has to");
}

fn add(sum: &mut Histogram<u64>, values: &Histogram<u64>) {
    sum.add(values).expect("a histogram grows as it has to");
}

fn micros(latency: Duration) -> u64 {
    u64::try_from(latency.min(LATENCY_MAX).as_micros()).unwrap_or(u64::MAX)
}

impl Default for Rolling {
    fn default() -> Self {
        let slice = || Slice {
            number: 0,
            values: histogram(),
        };
        Self {
            current: slice(),
            short: Passed::default(),
            minute: slice(),
            long: Passed::default(),
            total: histogram(),
            sum: Duration::ZERO,
        }
    }
}

impl Rolling {
    /// Counts `count` values. A `now` that goes back counts with the slice that is under way.
    pub fn record(&mut self, now: Timestamp, latency: Duration, count: u64) {
        self.turn(now);
        record(&mut self.current.values, micros(latency), count);
        let together = match count {
            1 => latency,
            _ => latency.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX)),
        };
        self.sum = self.sum.saturating_add(together);
    }

    /// Ends the slices that are over at `now`.
    fn turn(&mut self, now: Timestamp) {
        let number = now.as_millis() / SHORT_MS;
        if number <= self.current.number {
            return;
        }
        let values = &self.current.values;
        if !values.is_empty() {
            self.short.push(self.current.number, values);
            add(&mut self.total, values);
            // Its minute is the one in which it began, and cannot have ended without it.
            let minute = self.current.number * SHORT_MS / LONG_MS;
            self.end_minute(minute);
            add(&mut self.minute.values, &self.current.values);
            self.current.values.reset();
        }
        self.current.number = number;
        self.end_minute(now.as_millis() / LONG_MS);
    }

    /// Ends the minute that is under way, if `number` is a later one.
    fn end_minute(&mut self, number: u64) {
        if number <= self.minute.number {
            return;
        }
        if !self.minute.values.is_empty() {
            self.long.push(self.minute.number, &self.minute.values);
            self.minute.values.reset();
        }
        self.minute.number = number;
    }

    /// What was recorded within `span` of `now`.
    #[must_use]
    pub fn values(&self, now: Timestamp, span: Span) -> Histogram<u64> {
        let mut sum = histogram();
        self.add_to(&mut sum, now, span);
        sum
    }

    /// Adds what was recorded within `span` of `now` to a sum.
    pub fn add_to(&self, sum: &mut Histogram<u64>, now: Timestamp, span: Span) {
        let mut short = |slices| {
            self.short.add_to(sum, now, slices);
            self.current.add_to(sum, now, slices, SHORT_MS);
        };
        match span {
            Span::Minute => short(LONG_MS / SHORT_MS),
            Span::FiveMinutes => short(SLICES),
            Span::Hour => {
                self.long.add_to(sum, now, SLICES);
                self.minute.add_to(sum, now, SLICES, LONG_MS);
                let in_minutes = LONG_MS / SHORT_MS * SLICES;
                self.current.add_to(sum, now, in_minutes, SHORT_MS);
            }
            Span::Start => {
                add(sum, &self.total);
                add(sum, &self.current.values);
            }
        }
    }

    /// The same in a few figures.
    #[must_use]
    pub fn summary(&self, now: Timestamp, span: Span) -> Summary {
        summary(&self.values(now, span))
    }

    /// All that was ever recorded: how many values up to each of `bounds` (in ascending order) and not
    /// up to the one before, how many above the last, and their sum. A value within 1 % of a bound may
    /// count for either side of it.
    #[must_use]
    pub fn buckets(&self, bounds: &[Duration]) -> (Vec<u64>, Duration) {
        let mut counts = vec![0; bounds.len() + 1];
        for values in [&self.total, &self.current.values] {
            for step in values.iter_recorded() {
                let value = Duration::from_micros(step.value_iterated_to());
                let bucket = bounds.partition_point(|bound| value > *bound);
                counts[bucket] += step.count_at_value();
            }
        }
        (counts, self.sum)
    }
}

/// A histogram of µs in a few figures. Nothing was counted: all are 0.
#[must_use]
pub fn summary(values: &Histogram<u64>) -> Summary {
    let ms = |us: u64| us as f64 / 1_000.0;
    if values.is_empty() {
        return Summary::default();
    }
    Summary {
        count: values.len(),
        mean_ms: values.mean() / 1_000.0,
        p50_ms: ms(values.value_at_quantile(0.5)),
        p95_ms: ms(values.value_at_quantile(0.95)),
        p99_ms: ms(values.value_at_quantile(0.99)),
        max_ms: ms(values.max()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_764_000_000_000 + seconds * 1_000)
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// How many are within each span, `seconds` after the epoch of these tests.
    fn counts(rolling: &Rolling, seconds: u64) -> [u64; 4] {
        Span::ALL.map(|span| rolling.summary(at(seconds), span).count)
    }

    #[test]
    fn a_value_leaves_one_span_after_the_other() {
        let mut rolling = Rolling::default();
        rolling.record(at(0), ms(3), 2);
        let table = [
            (0, [2, 2, 2, 2]),
            (59, [2, 2, 2, 2]),
            (60, [0, 2, 2, 2]),
            (299, [0, 2, 2, 2]),
            (300, [0, 0, 2, 2]),
            (3_599, [0, 0, 2, 2]),
            (3_600, [0, 0, 0, 2]),
            (86_400, [0, 0, 0, 2]),
        ];
        // Whether nothing else happens, or something does.
        let mut busy = rolling.clone();
        for (seconds, expected) in table {
            assert_eq!(counts(&rolling, seconds), expected, "after {seconds} s");
            busy.record(at(seconds), ms(1), 0);
            assert_eq!(counts(&busy, seconds), expected, "busy, after {seconds} s");
        }
    }

    #[test]
    fn quantiles_are_within_one_percent() {
        let mut rolling = Rolling::default();
        for n in 1..=1_000 {
            rolling.record(at(n / 100), Duration::from_micros(n * 100), 1);
        }
        let summary = rolling.summary(at(10), Span::Minute);
        assert_eq!(summary.count, 1_000);
        let near = |found: f64, expected: f64| (found / expected - 1.0).abs() < 0.01;
        assert!(near(summary.p50_ms, 50.0), "{summary:?}");
        assert!(near(summary.p95_ms, 95.0), "{summary:?}");
        assert!(near(summary.p99_ms, 99.0), "{summary:?}");
        assert!(near(summary.max_ms, 100.0), "{summary:?}");
        assert!(near(summary.mean_ms, 50.05), "{summary:?}");
    }

    #[test]
    fn buckets_hold_what_they_bound() {
        let mut rolling = Rolling::default();
        let values = [(1, 1), (9, 2), (30, 4), (5_000, 8)];
        for (value, count) in values {
            rolling.record(at(value), ms(value), count);
        }
        let (counts, sum) = rolling.buckets(&[ms(2), ms(10), ms(50)]);
        assert_eq!(counts, [1, 2, 4, 8]);
        assert_eq!(sum, ms(1 + 18 + 120 + 40_000));
    }

    #[test]
    fn what_is_absurd_is_counted() {
        let mut rolling = Rolling::default();
        rolling.record(at(100), Duration::MAX, 1);
        rolling.record(Timestamp::EPOCH, Duration::ZERO, 1);
        rolling.record(Timestamp::from_millis(u64::MAX), ms(1), 1);
        let now = Timestamp::from_millis(u64::MAX);
        let summary = rolling.summary(now, Span::Start);
        assert_eq!(summary.count, 3);
        let day_ms = LATENCY_MAX.as_millis() as f64;
        assert!((summary.max_ms / day_ms - 1.0).abs() < 0.01, "{summary:?}");
        assert_eq!(rolling.summary(now, Span::Minute).count, 1);
    }

    proptest! {
        /// Each span holds what is young enough, give or take the slice that it begins in.
        #[test]
        fn spans_agree_with_a_list(
            events in prop::collection::vec((0u64..400, 1u64..20), 1..200),
            later in 0u64..4_000,
        ) {
            let (mut rolling, mut list, mut now) = (Rolling::default(), Vec::new(), 0);
            for (step, count) in events {
                now += step;
                rolling.record(at(now), ms(step), count);
                list.push((now, count));
            }
            let end = now + later;
            let within = |seconds: u64| -> u64 {
                let young = list.iter().filter(|(at, _)| at + seconds > end);
                young.map(|(_, count)| count).sum()
            };
            let [minute, five, hour, start] = counts(&rolling, end);
            prop_assert!((within(55)..=within(60)).contains(&minute));
            prop_assert!((within(295)..=within(300)).contains(&five));
            prop_assert!((within(3_540)..=within(3_600)).contains(&hour));
            prop_assert_eq!(start, within(u64::MAX / 2));
        }
    }
}
