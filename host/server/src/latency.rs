//! How long each step of a message's life takes, by stream, priority and outcome.
//!
//! One table is behind everything that tells latencies: the histograms of `/metrics`, the windows of
//! `/v1/latency`, telemetry on the bus. So they cannot disagree. To record a value costs some ns: what comes after
//! one another is mostly of one series, and a whole pipeline is recorded under one lock. `oona bench
//! publish` says how much that is of a publish.

mod exemplars;

use std::borrow::Cow;
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use oona_core::Timestamp;
use oona_core::objective::Tally;
use oona_core::policy::Priority;
use oona_core::rolling::{Rolling, Span, Summary, histogram, summary};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use serde::{Deserialize, Serialize};

use self::exemplars::{Exemplars, Notes};
use crate::sync::lock;

/// Upper bounds of latencies in the exposition, in µs. They hold every bound that the service levels
/// name: 10, 25, 50, 100 and 250 ms.
const BOUNDS_US: [u64; 15] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 10_000_000,
];

/// A step of a message's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// From a publish to its outcome.
    Publish,
    /// From a publish until policies were asked about it.
    Queue,
    /// While policies decided on the group that it was in.
    Policy,
    /// While the pipeline that it was in was written.
    Append,
    /// From its entry in the stream to its delivery.
    Delivery,
    /// From its delivery to the answer of its subscriber.
    Handler,
    /// From when it was issued until it was acknowledged, retries and redrives included.
    EndToEnd,
}

impl Stage {
    /// All, in the order in which a message goes through them.
    pub const ALL: [Self; 7] = [
        Self::Publish,
        Self::Queue,
        Self::Policy,
        Self::Append,
        Self::Delivery,
        Self::Handler,
        Self::EndToEnd,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Queue => "queue",
            Self::Policy => "policy",
            Self::Append => "append",
            Self::Delivery => "delivery",
            Self::Handler => "handler",
            Self::EndToEnd => "end_to_end",
        }
    }

    /// Whether it begins with an entry id, which is in whole milliseconds.
    #[must_use]
    pub const fn is_in_ms(self) -> bool {
        matches!(self, Self::Delivery | Self::EndToEnd)
    }

    /// The name of its histogram, without `oona_`, and what that says.
    const fn metric(self) -> (&'static str, &'static str) {
        match self {
            Self::Publish => ("publish_duration_seconds", "From a publish to its outcome"),
            Self::Queue => (
                "publish_queue_duration_seconds",
                "From a publish until policies were asked about it",
            ),
            Self::Policy => (
                "publish_policy_duration_seconds",
                "While policies decided on the group that a publish was in",
            ),
            Self::Append => (
                "publish_append_duration_seconds",
                "While the pipeline that a publish was in was written",
            ),
            Self::Delivery => ("delivery_duration_seconds", "From append to delivery"),
            Self::Handler => (
                "handler_duration_seconds",
                "From a delivery to the answer of its subscriber",
            ),
            Self::EndToEnd => (
                "end_to_end_duration_seconds",
                "From when a message was issued until it was acknowledged",
            ),
        }
    }
}

/// What latencies of a stage are told apart by.
#[derive(Clone, Debug)]
pub struct Series {
    /// The stream; empty where a message was refused before it had one.
    pub stream: Arc<str>,
    /// The priority.
    pub priority: Priority,
    /// How it ended, of a closed set for each stage.
    pub outcome: &'static str,
}

impl Series {
    /// Such a series.
    #[must_use]
    pub const fn new(stream: Arc<str>, priority: Priority, outcome: &'static str) -> Self {
        Self {
            stream,
            priority,
            outcome,
        }
    }

    /// Whether they are the same. Names are shared, so it is mostly enough to look where they are.
    fn is(&self, other: &Self) -> bool {
        self.priority == other.priority
            && (ptr::eq(self.outcome, other.outcome) || self.outcome == other.outcome)
            && (Arc::ptr_eq(&self.stream, &other.stream) || self.stream == other.stream)
    }
}

/// The latencies of one series within a span.
#[derive(Clone, Debug, Serialize)]
pub struct LatencyStatus {
    /// Which step.
    pub stage: Stage,
    /// Of which stream; empty where a message was refused before it had one.
    pub stream: Arc<str>,
    /// Of which priority.
    pub priority: &'static str,
    /// How it ended.
    pub outcome: &'static str,
    /// The figures.
    #[serde(flatten)]
    pub summary: Summary,
}

/// What is said to who names a span that there is none of.
#[must_use]
pub fn no_span(name: &str) -> String {
    let known = Span::ALL.map(Span::name).join(", ");
    format!("there is no span `{name}`; choose one of {known}")
}

/// What was recorded of one series.
#[derive(Debug, Default)]
struct Recorded {
    values: Rolling,
    exemplars: Option<Box<Exemplars>>,
}

type Table = Vec<(Series, Recorded)>;

/// See the module.
#[derive(Debug, Default)]
pub struct Latencies {
    tables: [Mutex<Table>; Stage::ALL.len()],
    off: bool,
}

/// The right to record latencies of one stage.
#[derive(Debug)]
pub struct Recording<'a> {
    now: Timestamp,
    table: MutexGuard<'a, Table>,
    /// Where the last one was recorded.
    last: usize,
    off: bool,
}

impl Recording<'_> {
    /// Records one that ended now.
    pub fn record(&mut self, series: &Series, latency: Duration) {
        self.record_many(series, latency, 1);
    }

    /// Records one that ended now, and the trace that it belongs to if that is told: the last of each bucket
    /// is its exemplar.
    pub fn record_traced(&mut self, series: &Series, latency: Duration, trace_id: Option<u128>) {
        self.record(series, latency);
        let Some(trace_id) = trace_id.filter(|_| !self.off) else {
            return;
        };
        let recorded = &mut self.table[self.last].1;
        let exemplars = recorded.exemplars.get_or_insert_default();
        exemplars.record(self.now, latency, trace_id);
    }

    /// Records one and the same of each of these.
    pub fn record_alike<'a>(
        &mut self,
        all: impl IntoIterator<Item = &'a Series>,
        latency: Duration,
    ) {
        let mut run: Option<(&Series, u64)> = None;
        for series in all {
            run = match run {
                Some((before, count)) if before.is(series) => Some((before, count + 1)),
                ended => {
                    if let Some((before, count)) = ended {
                        self.record_many(before, latency, count);
                    }
                    Some((series, 1))
                }
            };
        }
        if let Some((last, count)) = run {
            self.record_many(last, latency, count);
        }
    }

    fn record_many(&mut self, series: &Series, latency: Duration, count: u64) {
        if self.off {
            return;
        }
        let is_here = |(known, _): &(Series, Recorded)| known.is(series);
        if !self.table.get(self.last).is_some_and(is_here) {
            let found = self.table.iter().position(is_here);
            self.last = found.unwrap_or_else(|| {
                self.table.push((series.clone(), Recorded::default()));
                self.table.len() - 1
            });
        }
        let recorded = &mut self.table[self.last].1;
        recorded.values.record(self.now, latency, count);
    }
}

impl Latencies {
    /// Such a table that records nothing, for who measures what recording costs.
    pub(crate) fn off() -> Self {
        Self {
            off: true,
            ..Self::default()
        }
    }

    /// To record some of the same stage that end at `now`. Nobody else records of it meanwhile.
    pub fn of(&self, stage: Stage, now: Timestamp) -> Recording<'_> {
        Recording {
            now,
            table: self.table(stage),
            last: 0,
            off: self.off,
        }
    }

    fn table(&self, stage: Stage) -> MutexGuard<'_, Table> {
        lock(&self.tables[stage as usize])
    }

    /// Every series that had a value within `span` of `now`.
    #[must_use]
    pub fn list(&self, now: Timestamp, span: Span) -> Vec<LatencyStatus> {
        let mut list = Vec::new();
        for stage in Stage::ALL {
            for (series, recorded) in &*self.table(stage) {
                let summary = recorded.values.summary(now, span);
                if summary.count > 0 {
                    list.push(LatencyStatus {
                        stage,
                        stream: Arc::clone(&series.stream),
                        priority: series.priority.name(),
                        outcome: series.outcome,
                        summary,
                    });
                }
            }
        }
        list
    }

    /// The series of a stage that `wanted` chooses, together.
    pub fn together(
        &self,
        stage: Stage,
        now: Timestamp,
        span: Span,
        wanted: impl Fn(&Series) -> bool,
    ) -> Summary {
        let mut sum = histogram();
        for (_, recorded) in self
            .table(stage)
            .iter()
            .filter(|(series, _)| wanted(series))
        {
            recorded.values.add_to(&mut sum, now, span);
        }
        summary(&sum)
    }

    /// Of the series of a stage that `wanted` chooses, since the start: how many took no longer than `bound`, give
    /// or take 1 % of it, and how many there were.
    pub fn within(&self, stage: Stage, bound: Duration, wanted: impl Fn(&Series) -> bool) -> Tally {
        let mut tally = Tally::default();
        for (_, rolling) in self
            .table(stage)
            .iter()
            .filter(|(series, _)| wanted(series))
        {
            let (counts, _) = rolling.values.buckets(&[bound]);
            tally.good += counts.first().copied().unwrap_or(0);
            tally.total += counts.iter().sum::<u64>();
        }
        tally
    }
}

impl Latencies {
    /// Writes a trace id beside each bucket of an exposition that one fell into: as OpenMetrics has it, and no other
    /// format.
    #[must_use]
    pub fn with_exemplars(&self, exposition: String) -> String {
        let mut notes = Notes::default();
        for stage in Stage::ALL {
            let name = format!("oona_{}_bucket", stage.metric().0);
            for (series, recorded) in &*self.table(stage) {
                let Some(exemplars) = &recorded.exemplars else {
                    continue;
                };
                let (stream, priority) = (&series.stream, series.priority.name());
                let outcome = series.outcome;
                let labels =
                    format!("stream=\"{stream}\",priority=\"{priority}\",outcome=\"{outcome}\"");
                notes.add(&name, &labels, exemplars);
            }
        }
        notes.write(exposition)
    }
}

impl Collector for Latencies {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let bounds = BOUNDS_US.map(Duration::from_micros);
        for stage in Stage::ALL {
            let (name, help) = stage.metric();
            let kind = MetricType::Histogram;
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for (series, recorded) in &*self.table(stage) {
                let labels: [(&str, Cow<'_, str>); 3] = [
                    ("stream", Cow::Borrowed(&*series.stream)),
                    ("priority", series.priority.name().into()),
                    ("outcome", series.outcome.into()),
                ];
                let (counts, sum) = recorded.values.buckets(&bounds);
                let upper = bounds
                    .iter()
                    .map(Duration::as_secs_f64)
                    .chain([f64::INFINITY]);
                let buckets: Vec<_> = upper.zip(counts.iter().copied()).collect();
                let count = counts.iter().sum();
                family
                    .encode_family(&labels)?
                    .encode_histogram::<NoLabelSet>(sum.as_secs_f64(), count, &buckets, None)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(stream: &str, outcome: &'static str) -> Series {
        Series::new(stream.into(), Priority::Normal, outcome)
    }

    #[test]
    fn what_is_alike_is_counted_together() {
        let latencies = Latencies::default();
        let all = ["a", "a", "b", "a"].map(|stream| series(stream, "accepted"));
        let mut recording = latencies.of(Stage::Append, Timestamp::EPOCH);
        recording.record_alike(&all, Duration::from_millis(1));
        recording.record_alike(&[], Duration::from_millis(1));
        drop(recording);
        let list = latencies.list(Timestamp::EPOCH, Span::Start);
        let told: Vec<_> = list
            .iter()
            .map(|told| (&*told.stream, told.summary.count))
            .collect();
        assert_eq!(told, [("a", 3), ("b", 1)]);
    }

    #[test]
    fn what_is_told_is_what_was_recorded() {
        let latencies = Latencies::default();
        let now = Timestamp::from_millis(1_000_000);
        for (stream, outcome, ms) in [
            ("a", "first", 10),
            ("b", "first", 20),
            ("b", "redelivered", 30),
        ] {
            let mut recording = latencies.of(Stage::Delivery, now);
            recording.record(&series(stream, outcome), Duration::from_millis(ms));
        }
        let list = latencies.list(now, Span::Minute);
        let told: Vec<_> = list
            .iter()
            .map(|told| {
                (
                    told.stage.name(),
                    &*told.stream,
                    told.outcome,
                    told.summary.count,
                )
            })
            .collect();
        let expected = [
            ("delivery", "a", "first", 1),
            ("delivery", "b", "first", 1),
            ("delivery", "b", "redelivered", 1),
        ];
        assert_eq!(told, expected);
        let of_b = |series: &Series| &*series.stream == "b";
        let both = latencies.together(Stage::Delivery, now, Span::Minute, of_b);
        assert_eq!(both.count, 2);
        assert!((20.0..31.0).contains(&both.p99_ms), "{both:?}");
        let later = now + Duration::from_secs(3_600);
        assert!(latencies.list(later, Span::Minute).is_empty());
        assert_eq!(latencies.list(later, Span::Start).len(), 3);
    }
}
