//! What was measured, and what of it is said.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use self::Unit::{Kib, Micros, Nanos, PerSecond};
use super::Subject::{self, Audit, Broadcast, Consume, Observe, Publish, Replay, Swap};
use super::{BenchOptions, PAYLOAD_BYTES};

/// What each figure belongs to, its name, what it says, its unit, and what it is held against.
type Definition = (
    Subject,
    &'static str,
    &'static str,
    Unit,
    Option<&'static str>,
);

#[rustfmt::skip]
const FIGURES: [Definition; 26] = [
    (Publish, "raw-publish", "raw XADD, pipelines of 256", PerSecond, None),
    (Publish, "publish", "publish, embedded", PerSecond, Some("raw-publish")),
    (Publish, "publish-each", "the same, time for each message", Nanos, None),
    (Publish, "recording", "recording its latencies and journey, of that", Nanos, Some("publish-each")),
    (Publish, "publish-grpc", "publish, gRPC stream", PerSecond, Some("raw-publish")),
    (Publish, "raw-publish-single", "raw XADD, one at a time, p50", Micros, None),
    (Publish, "publish-single", "publish, one at a time, p50", Micros, Some("raw-publish-single")),
    (Consume, "raw-consume", "raw XREADGROUP 200 + XACK", PerSecond, None),
    (Consume, "consume", "consume + ack, embedded", PerSecond, Some("raw-consume")),
    (Consume, "consume-grpc", "consume + ack, gRPC stream", PerSecond, Some("raw-consume")),
    (Swap, "publish-steady", "publish, 256 in flight, p99", Micros, None),
    (Swap, "publish-swapped", "the same, 20 swaps a second, p99", Micros, Some("publish-steady")),
    (Swap, "swap-pause-max", "longest pause of a worker by a swap", Nanos, None),
    (Broadcast, "broadcast", "broadcast until 3 groups have acknowledged, p50", Micros, None),
    (Broadcast, "broadcast-p99", "the same, p99", Micros, None),
    (Replay, "parse-log", "a decision log read, on one core, decisions", PerSecond, None),
    (Replay, "replay", "the same replayed, on all cores, decisions", PerSecond, Some("parse-log")),
    (Replay, "replay-memory", "memory that this took more, at the most", Kib, None),
    (Observe, "publish-unseen", "publish, embedded, nothing observed", PerSecond, None),
    (Observe, "publish-seen", "the same, everything observed", PerSecond, Some("publish-unseen")),
    (Audit, "raw-letters", "raw XRANGE of dead letters, 128 at a time, letters", PerSecond, None),
    (Audit, "audit", "an audit of the same, without its pauses, letters", PerSecond, Some("raw-letters")),
    (Audit, "audit-step-max", "longest step of it", Micros, None),
    (Audit, "audit-memory", "memory that it took more, at the most", Kib, None),
    (Audit, "publish-alone", "publish, embedded, beside no audit", PerSecond, None),
    (Audit, "publish-audited", "the same, beside audits without end", PerSecond, Some("publish-alone")),
];

#[derive(Clone, Copy)]
enum Unit {
    PerSecond,
    Micros,
    Nanos,
    Kib,
}

impl Unit {
    const fn name(self) -> &'static str {
        match self {
            Self::PerSecond => "1/s",
            Self::Micros => "us",
            Self::Nanos => "ns",
            Self::Kib => "KiB",
        }
    }
}

/// Every figure of every round.
#[derive(Default)]
pub(super) struct Samples {
    warm_up: bool,
    by_name: BTreeMap<String, Vec<f64>>,
    swapped: Swapped,
}

/// What became of what was published while policies were swapped, in all rounds together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Swapped {
    /// Messages that were accepted.
    pub accepted: u64,
    /// Those of them that Redis does not hold.
    pub lost: u64,
    /// Those that stand before an earlier one of the same key.
    pub reordered: u64,
}

impl Samples {
    /// A round begins. What a warm-up measures is not kept.
    pub(super) fn begin(&mut self, warm_up: bool) {
        self.warm_up = warm_up;
    }

    /// Messages in a time.
    pub(super) fn rate(&mut self, name: &str, messages: usize, took: Duration) {
        self.add(name, messages as f64 / took.as_secs_f64());
    }

    /// The median of a round's latencies, in µs.
    pub(super) fn median_latency(&mut self, name: &str, took: &mut [Duration]) {
        self.latency_at(name, 0.5, took);
    }

    /// A quantile of a round's latencies, in µs.
    pub(super) fn latency_at(&mut self, name: &str, quantile: f64, took: &mut [Duration]) {
        took.sort_unstable();
        let last = took.len().saturating_sub(1);
        let at = (last as f64 * quantile).round() as usize;
        if let Some(latency) = took.get(at) {
            self.add(name, latency.as_secs_f64() * 1e6);
        }
    }

    /// A time in ns, or a size in KiB.
    pub(super) fn cost(&mut self, name: &str, ns: f64) {
        self.add(name, ns);
    }

    /// The account of a load under swaps. Counts in the warm-up too.
    pub(super) fn swapped(&mut self, accepted: u64, lost: u64, reordered: u64) {
        self.swapped.accepted += accepted;
        self.swapped.lost += lost;
        self.swapped.reordered += reordered;
    }

    fn add(&mut self, name: &str, value: f64) {
        if !self.warm_up {
            self.by_name.entry(name.to_owned()).or_default().push(value);
        }
    }

    fn figure(&self, name: &str, what: &str, unit: Unit, against: Option<&str>) -> Option<Figure> {
        let values = self.by_name.get(name)?;
        let reference = against.and_then(|name| self.by_name.get(name));
        let ratios = reference.map(|reference| {
            let pairs = values.iter().zip(reference);
            pairs.map(|(value, reference)| value / reference).collect()
        });
        Some(Figure {
            name: name.to_owned(),
            what: what.to_owned(),
            unit: unit.name(),
            median: median(values.clone()),
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(0.0, f64::max),
            reference: against.filter(|_| ratios.is_some()).map(str::to_owned),
            ratio: ratios.map(median),
        })
    }

    /// Policies are measured by kind and batch size.
    fn policies(&self) -> impl Iterator<Item = Figure> {
        let native = self.by_name.keys().filter_map(|name| {
            let (kind, batch) = name.split_once("-native-")?;
            Some((kind, batch.parse::<u32>().ok()?))
        });
        let mut native: Vec<_> = native.collect();
        native.sort_unstable();
        native.into_iter().flat_map(|(kind, batch)| {
            let (native, wasm) = (
                format!("{kind}-native-{batch}"),
                format!("{kind}-wasm-{batch}"),
            );
            let what = |build| format!("{kind} policy, {build}, batch of {batch}, per message");
            let figures = [
                self.figure(&native, &what("native"), Nanos, None),
                self.figure(&wasm, &what("WebAssembly"), Nanos, Some(&native)),
            ];
            figures.into_iter().flatten()
        })
    }
}

pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// How many rounds count.
    pub rounds: usize,
    /// How many messages a round publishes and consumes.
    pub messages: usize,
    /// Size of their content in bytes.
    pub payload_bytes: usize,
    /// Whether they are signed.
    pub signed: bool,
    /// What decides on them: `wasm` or `native`.
    pub policies: &'static str,
    /// Version of the Redis that was measured against.
    pub redis: String,
    /// What became of messages under swaps; none if there were no swaps.
    pub swapped: Option<Swapped>,
    /// The figures.
    pub figures: Vec<Figure>,
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// Its name.
    pub name: String,
    /// What it is.
    pub what: String,
    /// `1/s`, `us`, `ns` or `KiB`.
    pub unit: &'static str,
    /// Median of the rounds.
    pub median: f64,
    /// The smallest of the rounds.
    pub min: f64,
    /// The largest of the rounds.
    pub max: f64,
    /// The name of the figure that it is held against.
    pub reference: Option<String>,
    /// Median of the ratios to that, round by round.
    pub ratio: Option<f64>,
}

impl Report {
    pub(super) fn new(options: &BenchOptions, redis: String, samples: &Samples) -> Self {
        let wanted = FIGURES.iter().filter(|figure| options.wants(figure.0));
        let fixed = wanted.filter_map(|(_, name, what, unit, against)| {
            samples.figure(name, what, *unit, *against)
        });
        Self {
            rounds: options.rounds,
            messages: options.messages,
            payload_bytes: PAYLOAD_BYTES,
            signed: true,
            policies: if options.native { "native" } else { "wasm" },
            redis,
            swapped: Some(samples.swapped).filter(|swapped| swapped.accepted > 0),
            figures: fixed.chain(samples.policies()).collect(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rounds,
            messages,
            payload_bytes,
            policies,
            redis,
            ..
        } = self;
        writeln!(
            f,
            "{rounds} rounds of {messages} messages of {payload_bytes} B, signed, policies: \
             {policies}, Redis {redis}; medians\n"
        )?;
        for figure in &self.figures {
            let value = format!("{} {}", thousands(figure.median), figure.unit);
            write!(f, "{:<60} {value:>14}", figure.what)?;
            match (figure.ratio, &figure.reference) {
                (Some(ratio), Some(reference)) => writeln!(f, "   {ratio:>5.2} x {reference}")?,
                _ => writeln!(f)?,
            }
        }
        if let Some(Swapped {
            accepted,
            lost,
            reordered,
        }) = self.swapped
        {
            let accepted = thousands(accepted as f64);
            writeln!(
                f,
                "under swaps: {accepted} accepted, {lost} lost, {reordered} reordered within a key"
            )?;
        }
        Ok(())
    }
}

/// Whole numbers in groups of three; small ones with a digit after the point.
fn thousands(value: f64) -> String {
    if value < 1_000.0 {
        return format!("{value:.1}");
    }
    grouped(&format!("{value:.0}"))
}

/// A count, in groups of three.
pub(super) fn count(count: u64) -> String {
    grouped(&count.to_string())
}

fn grouped(digits: &str) -> String {
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_within_a_round() {
        let mut samples = Samples::default();
        for (raw, ours) in [(100.0, 50.0), (10.0, 9.0), (1.0, 0.6)] {
            samples.cost("raw-publish", raw);
            samples.cost("publish", ours);
        }
        let figure = samples.figure("publish", "", Nanos, Some("raw-publish"));
        let figure = figure.expect("it was measured");
        assert_eq!((figure.median, figure.min, figure.max), (9.0, 0.6, 50.0));
        assert_eq!(figure.ratio, Some(0.6));
        assert!(samples.figure("consume", "", Nanos, None).is_none());
    }

    #[test]
    fn a_warm_up_does_not_count() {
        let mut samples = Samples::default();
        samples.begin(true);
        samples.rate("publish", 1, Duration::from_secs(1));
        assert!(samples.by_name.is_empty());
    }

    #[test]
    fn quantiles_and_numbers() {
        let mut samples = Samples::default();
        let mut took: Vec<_> = (1..=101).rev().map(Duration::from_micros).collect();
        samples.latency_at("p99", 0.99, &mut took);
        samples.median_latency("p50", &mut took);
        assert!((samples.by_name["p99"][0] - 100.0).abs() < 1e-6);
        assert!((samples.by_name["p50"][0] - 51.0).abs() < 1e-6);
        assert_eq!(
            [7.25, 999.0, 1_234_567.8].map(thousands),
            ["7.2", "999.0", "1 234 568"]
        );
        assert_eq!([0, 999, 7_004_000].map(count), ["0", "999", "7 004 000"]);
    }
}
