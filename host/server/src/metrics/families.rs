//! The families behind [`Metrics`](super::Metrics): what is registered under which name.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

/// How many values an open label (a reason, the name of a policy) takes before `other`.
pub const LABEL_VALUES_MAX: usize = 64;

/// How long one value of an open label may be, in bytes. A longer one is cut.
pub const LABEL_LENGTH_MAX: usize = 64;

/// Upper bounds of latencies, in seconds. They hold every bound that the service levels name: 10,
/// 25, 50, 100 and 250 ms.
pub(super) const LATENCY: Buckets = Buckets(&[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    10.0,
]);

/// Upper bounds of one policy call, in seconds: a call takes about 100 ns.
const CALLS: Buckets = Buckets(&[
    1e-7, 2.5e-7, 5e-7, 1e-6, 2.5e-6, 5e-6, 1e-5, 5e-5, 1e-4, 5e-4, 2e-3, 1e-2,
]);

/// Upper bounds of group sizes, in messages.
pub(super) const GROUPS: Buckets = Buckets(&[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0,
]);

/// Labels known at compile time, with their values.
pub(super) type Labels<const N: usize> = [(&'static str, Cow<'static, str>); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;
type Gauges<const N: usize> = Family<Labels<N>, Gauge>;

/// A gauge of what is no whole number.
pub type FloatGauge = Gauge<f64, AtomicU64>;
type Histograms<const N: usize> = Family<Labels<N>, Histogram, Buckets>;

/// What happens to publishes.
#[derive(Debug)]
pub(super) struct Publishing {
    pub(super) outcomes: Counters<3>,
    pub(super) emergencies: Counters<2>,
    pub(super) broadcasts: Counters<1>,
    pub(super) spans_lost: Counters<1>,
}

impl Publishing {
    pub(super) fn register(t: &mut Table) -> Self {
        Self {
            outcomes: t.family("publish", "Publishes by outcome and reason"),
            emergencies: t.family("emergency", "Emergency messages by source and outcome"),
            broadcasts: t.family("broadcasts", "Broadcasts by outcome"),
            spans_lost: t.family("spans_lost", "Spans that no collector has, by why"),
        }
    }
}

/// What happens to deliveries.
#[derive(Debug)]
pub(super) struct Delivering {
    pub(super) deliveries: Counters<2>,
    pub(super) settled: Counters<2>,
    pub(super) failures: Counters<2>,
    pub(super) quarantined: Counters<1>,
    pub(super) claimed: Counters<1>,
}

impl Delivering {
    pub(super) fn register(t: &mut Table) -> Self {
        Self {
            deliveries: t.family("deliveries", "Deliveries to subscribers"),
            settled: t.family("settled", "Deliveries settled: ack, retry, dead_letter, discard, or release if put back unhandled"),
            failures: t.family("failures", "Deliveries that failed, by how"),
            quarantined: t.family("quarantined", "Foreign entries moved to the dead letters"),
            claimed: t.family("claimed", "Entries taken over from dead consumers"),
        }
    }
}

/// What the streams hold.
#[derive(Debug)]
pub(super) struct StreamFamilies {
    pub(super) depth: Gauges<1>,
    pub(super) lag: Gauges<1>,
    pub(super) pending: Gauges<1>,
    pub(super) delayed: Gauges<1>,
    pub(super) in_line: Gauges<1>,
    pub(super) length: Gauges<1>,
    pub(super) turns_mended: Counters<1>,
    pub(super) trimmed: Counters<1>,
    pub(super) dropped: Counters<1>,
    pub(super) expired: Counters<1>,
    pub(super) expired_removed: Counters<1>,
    pub(super) consumers_removed: Counters<1>,
    pub(super) groups_removed: Counters<1>,
    pub(super) abandoned: Counters<1>,
    pub(super) promoted: Counters<1>,
    pub(super) dead_letters_removed: Counters<1>,
}

impl StreamFamilies {
    pub(super) fn register(t: &mut Table) -> Self {
        Self {
            depth: t.family("stream_depth", "What the slowest group has yet to finish"),
            lag: t.family("stream_lag", "What the slowest group has yet to read"),
            pending: t.family(
                "stream_pending",
                "What the slowest group read and did not settle",
            ),
            delayed: t.family("stream_delayed", "Retries that wait for their time"),
            in_line: t.family(
                "stream_in_line",
                "Messages that wait until another of their key is finished",
            ),
            turns_mended: t.family(
                "turns_mended",
                "Turns passed on because the message that had them is gone",
            ),
            length: t.family("stream_length", "Entries held, finished ones included"),
            trimmed: t.family("trimmed", "Finished entries removed"),
            dropped: t.family("dropped", "Unfinished entries of overfull streams removed"),
            expired: t.family("expired", "Messages not delivered since they had expired"),
            expired_removed: t.family(
                "expired_removed",
                "Expired messages removed where nobody reads",
            ),
            consumers_removed: t.family("consumers_removed", "Names of idle consumers removed"),
            groups_removed: t.family("groups_removed", "Idle groups removed"),
            abandoned: t.family("abandoned", "What removed groups had yet to finish"),
            promoted: t.family("promoted", "Delayed retries that fell due"),
            dead_letters_removed: t.family(
                "dead_letters_removed",
                "Dead letters that were redriven, purged, or have expired",
            ),
        }
    }
}

/// What protects the bus.
#[derive(Debug)]
pub(super) struct Guards {
    pub(super) breaker_state: Gauges<1>,
    pub(super) breaker_forced: Gauges<1>,
    pub(super) breaker_transitions: Counters<3>,
    pub(super) conservative_transitions: Counters<2>,
}

impl Guards {
    pub(super) fn register(t: &mut Table) -> Self {
        Self {
            breaker_state: t.family("breaker_state", "1 closed, 2 open, 3 half-open"),
            breaker_forced: t.family("breaker_forced", "1 while an operator holds a breaker"),
            breaker_transitions: t.family(
                "breaker_transitions",
                "Changes of a breaker's state, with the reason",
            ),
            conservative_transitions: t.family(
                "conservative_transitions",
                "Ways into conservative mode and out of it",
            ),
        }
    }
}

/// What the policies do.
#[derive(Debug)]
pub(super) struct PolicyFamilies {
    pub(super) decisions: Counters<4>,
    pub(super) failures: Counters<3>,
    pub(super) fallbacks: Counters<1>,
    pub(super) activations: Counters<2>,
    pub(super) call_duration: Histograms<1>,
    pub(super) generation: Gauges<1>,
    pub(super) budget: Family<Labels<2>, FloatGauge>,
    pub(super) used: Family<Labels<2>, FloatGauge>,
    pub(super) trial_decisions: Counters<2>,
    pub(super) trial_faults: Counters<1>,
}

impl PolicyFamilies {
    pub(super) fn register(t: &mut Table) -> Self {
        Self {
            decisions: t.family("policy_decisions", "Decisions of policies"),
            failures: t.family("policy_failures", "Failed calls, answered by the fail-safe"),
            fallbacks: t.family(
                "policy_fallbacks",
                "Versions taken out for failing too often",
            ),
            activations: t.family("policy_activations", "Activations by outcome"),
            call_duration: t.histograms(
                "policy_call_duration_seconds",
                "One call of a policy for a batch of messages",
                CALLS,
            ),
            generation: t.family("policy_generation", "Replacements since start"),
            budget: t.family("policy_budget", "What a policy may use, by resource: call_seconds, memory_bytes, failures"),
            used: t.family("policy_used", "What a policy uses of it: its slowest recent call, its largest instance, failures of late"),
            trial_decisions: t.family(
                "policy_trial_decisions",
                "Decisions of a candidate beside those of the policy in use",
            ),
            trial_faults: t.family("policy_trial_faults", "Failed calls of a candidate"),
        }
    }
}

/// The label that names a stream. Streams are configured, so there are few.
pub(super) fn stream_label(stream: &str) -> (&'static str, Cow<'static, str>) {
    ("stream", stream.to_owned().into())
}

/// The values that open labels have taken so far, [`LABEL_VALUES_MAX`] at most for each label.
#[derive(Debug, Default)]
pub(super) struct Bounded(Mutex<BTreeMap<&'static str, BTreeSet<String>>>);

impl Bounded {
    /// The values that a label has taken so far.
    pub(super) fn values(&self, label: &str) -> Vec<Cow<'static, str>> {
        let labels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = labels.get(label).into_iter().flatten();
        seen.map(|value| value.clone().into()).collect()
    }

    pub(super) fn admit(&self, label: &'static str, value: &str) -> Cow<'static, str> {
        let value = clean(value);
        let mut labels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = labels.entry(label).or_default();
        if seen.contains(&value) {
            return value.into();
        }
        if seen.len() >= LABEL_VALUES_MAX {
            return "other".into();
        }
        seen.insert(value.clone());
        value.into()
    }
}

/// A label's value without what would break its line.
pub(super) fn clean(value: &str) -> String {
    let mut clean = String::with_capacity(value.len().min(LABEL_LENGTH_MAX));
    for c in value.chars() {
        let c = if c.is_control() || c == '"' || c == '\\' {
            '_'
        } else {
            c
        };
        if clean.len() + c.len_utf8() > LABEL_LENGTH_MAX {
            break;
        }
        clean.push(c);
    }
    clean
}

/// Upper bounds of a histogram's buckets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

/// Registers, and hands back what it registered.
pub(super) struct Table(pub(super) Registry);

impl Table {
    pub(super) fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register(name, help, metric.clone());
        metric
    }

    pub(super) fn counter(&mut self, name: &str, help: &str) -> Counter {
        self.add(name, help, Counter::default())
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str) -> Gauge {
        self.add(name, help, Gauge::default())
    }

    pub(super) fn histogram(&mut self, name: &str, help: &str, buckets: Buckets) -> Histogram {
        self.add(name, help, buckets.new_metric())
    }

    fn histograms<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        buckets: Buckets,
    ) -> Histograms<N> {
        self.add(name, help, Family::new_with_constructor(buckets))
    }

    fn family<const N: usize, M>(&mut self, name: &str, help: &str) -> Family<Labels<N>, M>
    where
        Family<Labels<N>, M>: Metric + Clone + Default,
        Labels<N>: EncodeLabelSet,
    {
        self.add(name, help, Family::default())
    }
}
