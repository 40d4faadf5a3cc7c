//! What can be seen of a running bus, by the conventions of Prometheus.
//!
//! Recording is cheap: a method such as [`Metrics::publishes`] resolves a label set once and returns
//! a handle; the hot path keeps the handle and pays one atomic addition for a whole batch
//! (`handle.inc_by(n)`). Labels come from small closed sets. The two that do not, reasons and names
//! that a policy may invent, are bounded by [`LABEL_VALUES_MAX`]: what comes after is counted
//! as `other`, so that no policy can grow the exposition without limit.

mod audit;
mod classic;
mod families;
mod groups;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use oona_core::policy::{Failure, Kind};
use prometheus_client::encoding::text;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::alerts::Board;
use crate::events::Events;
use crate::latency::Latencies;
use families::{
    Bounded, Delivering, GROUPS, Guards, LATENCY, PolicyFamilies, Publishing, StreamFamilies,
    Table, stream_label,
};

pub use audit::{AuditGauges, AuditStatus};
pub use groups::{GroupGauges, GroupSample};

pub use families::{FloatGauge, LABEL_LENGTH_MAX, LABEL_VALUES_MAX};
pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::metrics::histogram::Histogram;

/// The content type of [`Metrics::render_classic`].
pub const CONTENT_TYPE_CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How a publish ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PublishOutcome {
    /// Written.
    Accepted,
    /// Refused, with a reason.
    Rejected,
}

impl PublishOutcome {
    /// Both, for those who resolve handles ahead.
    pub const ALL: [Self; 2] = [Self::Accepted, Self::Rejected];

    /// The value of the label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
        }
    }
}

/// Whether a message reaches a subscriber for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeliveryKind {
    /// For the first time.
    First,
    /// Again.
    Redelivered,
}

impl DeliveryKind {
    /// The value of the label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Redelivered => "redelivered",
        }
    }
}

/// How a delivery was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Acknowledged by the subscriber.
    Ack,
    /// To be tried again.
    Retry,
    /// Moved to the dead letters.
    DeadLetter,
    /// Given up, as the policy said.
    Discard,
    /// Put back unhandled, for another member: nothing failed.
    Release,
}

impl Step {
    /// The value of the label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ack => "ack",
            Self::Retry => "retry",
            Self::DeadLetter => "dead_letter",
            Self::Discard => "discard",
            Self::Release => "release",
        }
    }
}

/// Every metric of a bus. One per [`Bus`](crate::bus::Bus); nothing is global, so tests do not meet.
///
/// Public fields have no labels: record on them directly.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    bounded: Bounded,
    publishing: Publishing,
    delivering: Delivering,
    streams: StreamFamilies,
    guards: Guards,
    policies: PolicyFamilies,

    /// How long each step takes.
    pub latencies: Arc<Latencies>,
    /// What each consumer group has to do.
    pub groups: Arc<GroupGauges>,
    /// What lies in the dead-letter stream, as an auditor last found it.
    pub audit: Arc<AuditGauges>,
    /// Objectives and alerts.
    pub alerts: Arc<Board>,
    /// What happened of late.
    pub events: Arc<Events>,
    /// Messages per pipeline to the store.
    pub group_size: Histogram,
    /// Publishes that were answered with the outcome of an earlier one of the same event id.
    pub publish_duplicates: Counter,
    /// Spans that the collector has taken.
    pub spans_sent: Counter,
    /// Publishes that backpressure sent to another stream than routing had.
    pub publish_rerouted: Counter,
    /// Nonces that there was no room for: their messages were not delivered.
    pub nonces_refused: Counter,
    /// 1 while the bus is in conservative mode, else 0.
    pub conservative_mode: Gauge,
    /// Seconds until all had settled a broadcast, or nobody waited any longer.
    pub broadcast_duration: Histogram,
    /// 1 while an operator forces the mode, else 0.
    pub conservative_forced: Gauge,
    /// 1 while the store answers, else 0.
    pub store_up: Gauge,
    /// Calls of the store that failed.
    pub store_faults: Counter,
    /// Subscribers connected right now.
    pub subscribers: Gauge,
    /// Deliveries that wait for their settlement right now.
    pub in_flight: Gauge,
    /// Nonces held in memory.
    pub nonces: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers every metric, at zero.
    #[must_use]
    pub fn new() -> Self {
        Self::with_latencies(Latencies::default())
    }

    /// As [`Metrics::new`], for who measures what it costs to record latencies.
    pub(crate) fn without_latencies() -> Self {
        Self::with_latencies(Latencies::off())
    }

    fn with_latencies(latencies: Latencies) -> Self {
        let mut table = Table(Registry::with_prefix("oona"));
        let t = &mut table;
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        t.0.register("build", "Version of this host", build);
        let latencies = Arc::new(latencies);
        t.0.register_collector(Box::new(Arc::clone(&latencies)));
        let audit = Arc::new(AuditGauges::default());
        t.0.register_collector(Box::new(Arc::clone(&audit)));
        let groups = Arc::new(GroupGauges::default());
        t.0.register_collector(Box::new(Arc::clone(&groups)));
        let alerts = Arc::new(Board::default());
        t.0.register_collector(Box::new(Arc::clone(&alerts)));
        Self {
            bounded: Bounded::default(),
            publishing: Publishing::register(t),
            delivering: Delivering::register(t),
            streams: StreamFamilies::register(t),
            guards: Guards::register(t),
            policies: PolicyFamilies::register(t),
            latencies,
            groups,
            audit,
            alerts,
            events: Arc::default(),
            group_size: t.histogram("group_size", "Messages per pipeline to the store", GROUPS),
            conservative_mode: t.gauge("conservative_mode", "1 in conservative mode"),
            broadcast_duration: t.histogram(
                "broadcast_duration_seconds",
                "Until all had settled a broadcast, or nobody waited any longer",
                LATENCY,
            ),
            conservative_forced: t
                .gauge("conservative_forced", "1 while an operator forces the mode"),
            store_up: t.gauge("store_up", "1 while the store answers"),
            store_faults: t.counter("store_faults", "Calls of the store that failed"),
            subscribers: t.gauge("subscribers", "Subscribers connected"),
            in_flight: t.gauge("in_flight", "Deliveries that wait for their settlement"),
            nonces: t.gauge("nonces", "Nonces held in memory, of all groups"),
            nonces_refused: t.counter(
                "nonces_refused",
                "Deliveries put off because no more nonces may be held",
            ),
            publish_rerouted: t.counter(
                "publish_rerouted",
                "Publishes that backpressure sent to another stream than routing had",
            ),
            spans_sent: t.counter("spans_sent", "Spans that the collector has taken"),
            publish_duplicates: t.counter(
                "publish_duplicates",
                "Publishes answered with the outcome of an earlier one of the same event id",
            ),
            registry: table.0,
        }
    }

    /// `oona_publish_total{stream,outcome,reason}`.
    #[must_use]
    pub fn publishes(&self, stream: &str, outcome: PublishOutcome, reason: &str) -> Counter {
        self.publishing.outcomes.get_or_create_owned(&[
            stream_label(stream),
            ("outcome", outcome.name().into()),
            ("reason", self.bounded.admit("reason", reason)),
        ])
    }

    /// As what a reason is counted: itself, or `other` if there are too many.
    pub(crate) fn reason(&self, reason: &str) -> Cow<'static, str> {
        self.bounded.admit("reason", reason)
    }

    /// `oona_emergency_total{source,outcome}`: `accepted`, `demoted` to another stream, `over-rate`
    /// (refused with the time to retry) or `rejected`.
    #[must_use]
    pub fn emergencies(&self, source: &str, outcome: &'static str) -> Counter {
        self.publishing.emergencies.get_or_create_owned(&[
            ("source", self.bounded.admit("source", source)),
            ("outcome", outcome.into()),
        ])
    }

    /// How many emergency messages of all sources ended like this.
    pub(crate) fn emergencies_of_all(&self, outcome: &'static str) -> u64 {
        let mut sources: BTreeSet<_> = self.bounded.values("source").into_iter().collect();
        sources.insert("other".into());
        let count = |source: Cow<'static, str>| {
            let labels = [("source", source), ("outcome", outcome.into())];
            let counter = self.publishing.emergencies.get(&labels);
            counter.map_or(0, |counter| counter.get())
        };
        sources.into_iter().map(count).sum()
    }

    /// `oona_broadcasts_total{outcome}`: `all-acked`, `incomplete` or `refused`.
    #[must_use]
    pub fn broadcasts(&self, outcome: &'static str) -> Counter {
        self.publishing
            .broadcasts
            .get_or_create_owned(&[("outcome", outcome.into())])
    }

    /// `oona_spans_lost_total{reason}`: `queue-full` or `not-taken`.
    #[must_use]
    pub fn spans_lost(&self, reason: &'static str) -> Counter {
        self.publishing
            .spans_lost
            .get_or_create_owned(&[("reason", reason.into())])
    }

    /// `oona_deliveries_total{stream,kind}`.
    #[must_use]
    pub fn deliveries(&self, stream: &str, kind: DeliveryKind) -> Counter {
        let labels = [stream_label(stream), ("kind", kind.name().into())];
        self.delivering.deliveries.get_or_create_owned(&labels)
    }

    /// `oona_settled_total{stream,step}`.
    #[must_use]
    pub fn settled(&self, stream: &str, step: Step) -> Counter {
        let labels = [stream_label(stream), ("step", step.name().into())];
        self.delivering.settled.get_or_create_owned(&labels)
    }

    /// `oona_failures_total{stream,failure}`.
    #[must_use]
    pub fn failures(&self, stream: &str, failure: Failure) -> Counter {
        let labels = [stream_label(stream), ("failure", failure.name().into())];
        self.delivering.failures.get_or_create_owned(&labels)
    }

    /// `oona_quarantined_total{reason}`.
    #[must_use]
    pub fn quarantined(&self, reason: &str) -> Counter {
        let labels = [("reason", self.bounded.admit("reason", reason))];
        self.delivering.quarantined.get_or_create_owned(&labels)
    }

    /// `oona_trimmed_total{stream}`.
    #[must_use]
    pub fn trimmed(&self, stream: &str) -> Counter {
        self.streams
            .trimmed
            .get_or_create_owned(&[stream_label(stream)])
    }

    /// `oona_dropped_total{stream}`: unfinished entries of an overfull stream.
    #[must_use]
    pub fn dropped(&self, stream: &str) -> Counter {
        self.streams
            .dropped
            .get_or_create_owned(&[stream_label(stream)])
    }

    /// `oona_expired_total{stream}`: messages that were not delivered since they had expired.
    #[must_use]
    pub fn expired(&self, stream: &str) -> Counter {
        self.streams
            .expired
            .get_or_create_owned(&[stream_label(stream)])
    }

    /// `oona_expired_removed_total{stream}`: expired messages removed where nobody reads.
    #[must_use]
    pub fn expired_removed(&self, stream: &str) -> Counter {
        self.streams
            .expired_removed
            .get_or_create_owned(&[stream_label(stream)])
    }

    /// `oona_consumers_removed_total{stream}`.
    #[must_use]
    pub fn consumers_removed(&self, stream: &str) -> Counter {
        self.streams
            .consumers_removed
            .get_or_create_owned(&[stream_label(stream)])
    }

    /// `oona_groups_removed_total{stream}`.
    #[must_use]
    pub fn groups_removed(&self, stream: &str) -> Counter {
        self.streams
            .groups_removed
            .get_or_create_owned(&[stream_label(stream)])
    }

    /// `oona_abandoned_total{stream}`: what removed groups had yet to finish.
    #[must_use]
    pub fn abandoned(&self, stream: &str) -> Counter {
        self.streams
            .abandoned
            .get_or_create_owned(&[stream_label(stream)])
    }

    /// `oona_stream_in_line{stream}`.
    #[must_use]
    pub fn in_line(&self, stream: &str) -> Gauge {
        self.streams
            .in_line
            .get_or_create_owned(&[stream_label(stream)])
    }

    /// `oona_turns_mended_total{stream}`.
    #[must_use]
    pub fn turns_mended(&self, stream: &str) -> Counter {
        self.streams
            .turns_mended
            .get_or_create_owned(&[stream_label(stream)])
    }

    /// `oona_promoted_total{stream}`.
    #[must_use]
    pub fn promoted(&self, stream: &str) -> Counter {
        self.streams
            .promoted
            .get_or_create_owned(&[stream_label(stream)])
    }

    /// `oona_dead_letters_removed_total{how}`: `redriven`, `purged` or `expired`.
    #[must_use]
    pub fn dead_letters_removed(&self, how: &'static str) -> Counter {
        self.streams
            .dead_letters_removed
            .get_or_create_owned(&[("how", how.into())])
    }

    /// `oona_claimed_total{stream}`.
    #[must_use]
    pub fn claimed(&self, stream: &str) -> Counter {
        self.delivering
            .claimed
            .get_or_create_owned(&[stream_label(stream)])
    }

    /// The gauges of one stream.
    #[must_use]
    pub fn stream(&self, stream: &str) -> StreamGauges {
        let labels = [stream_label(stream)];
        StreamGauges {
            depth: self.streams.depth.get_or_create_owned(&labels),
            lag: self.streams.lag.get_or_create_owned(&labels),
            pending: self.streams.pending.get_or_create_owned(&labels),
            delayed: self.streams.delayed.get_or_create_owned(&labels),
            length: self.streams.length.get_or_create_owned(&labels),
        }
    }

    /// `oona_breaker_state{breaker}`: 1 closed, 2 open, 3 half-open, as on the wire.
    #[must_use]
    pub fn breaker_state(&self, breaker: &str) -> Gauge {
        let labels = [("breaker", self.bounded.admit("breaker", breaker))];
        self.guards.breaker_state.get_or_create_owned(&labels)
    }

    /// `oona_breaker_forced{breaker}`: 1 while an operator holds it.
    #[must_use]
    pub fn breaker_forced(&self, breaker: &str) -> Gauge {
        let labels = [("breaker", self.bounded.admit("breaker", breaker))];
        self.guards.breaker_forced.get_or_create_owned(&labels)
    }

    /// `oona_breaker_transitions_total{breaker,to,reason}`.
    #[must_use]
    pub fn breaker_transitions(
        &self,
        breaker: &str,
        to: &'static str,
        reason: &'static str,
    ) -> Counter {
        let labels = [
            ("breaker", self.bounded.admit("breaker", breaker)),
            ("to", to.into()),
            ("reason", reason.into()),
        ];
        self.guards.breaker_transitions.get_or_create_owned(&labels)
    }

    /// `oona_conservative_transitions_total{to,reason}`.
    #[must_use]
    pub fn conservative_transitions(&self, to: &'static str, reason: &str) -> Counter {
        let labels = [
            ("to", to.into()),
            ("reason", self.bounded.admit("reason", reason)),
        ];
        self.guards
            .conservative_transitions
            .get_or_create_owned(&labels)
    }

    /// `oona_policy_decisions_total{kind,name,version,reason}`.
    #[must_use]
    pub fn policy_decisions(&self, kind: Kind, name: &str, version: &str, reason: &str) -> Counter {
        self.policies.decisions.get_or_create_owned(&[
            ("kind", kind.name().into()),
            ("name", self.bounded.admit("name", name)),
            ("version", self.bounded.admit("version", version)),
            ("reason", self.bounded.admit("reason", reason)),
        ])
    }

    /// `oona_policy_failures_total{kind,version,fault}`.
    #[must_use]
    pub fn policy_failures(&self, kind: Kind, version: &str, fault: &str) -> Counter {
        self.policies.failures.get_or_create_owned(&[
            ("kind", kind.name().into()),
            ("version", self.bounded.admit("version", version)),
            ("fault", self.bounded.admit("fault", fault)),
        ])
    }

    /// `oona_policy_fallbacks_total{kind}`.
    #[must_use]
    pub fn policy_fallbacks(&self, kind: Kind) -> Counter {
        self.policies
            .fallbacks
            .get_or_create_owned(&[("kind", kind.name().into())])
    }

    /// `oona_policy_activations_total{kind,outcome}`; `kind` is `unknown` for what has none.
    #[must_use]
    pub fn policy_activations(&self, kind: Option<Kind>, activated: bool) -> Counter {
        let outcome = if activated { "activated" } else { "refused" };
        self.policies.activations.get_or_create_owned(&[
            ("kind", kind.map_or("unknown", Kind::name).into()),
            ("outcome", outcome.into()),
        ])
    }

    /// `oona_policy_call_duration_seconds{kind}`.
    #[must_use]
    pub fn policy_call_duration(&self, kind: Kind) -> Histogram {
        self.policies
            .call_duration
            .get_or_create_owned(&[("kind", kind.name().into())])
    }

    /// `oona_policy_generation{kind}`.
    #[must_use]
    pub fn policy_generation(&self, kind: Kind) -> Gauge {
        self.policies
            .generation
            .get_or_create_owned(&[("kind", kind.name().into())])
    }

    /// `oona_policy_budget{kind,resource}`: `call_seconds`, `memory_bytes` or `failures`.
    #[must_use]
    pub fn policy_budget(&self, kind: Kind, resource: &'static str) -> FloatGauge {
        self.policies
            .budget
            .get_or_create_owned(&[("kind", kind.name().into()), ("resource", resource.into())])
    }

    /// `oona_policy_used{kind,resource}`: `call_seconds` of the slowest recent call, `memory_bytes` of the
    /// largest instance, or `failures` within the window.
    #[must_use]
    pub fn policy_used(&self, kind: Kind, resource: &'static str) -> FloatGauge {
        self.policies
            .used
            .get_or_create_owned(&[("kind", kind.name().into()), ("resource", resource.into())])
    }

    /// `oona_policy_trial_decisions_total{kind,outcome}`.
    #[must_use]
    pub fn policy_trial_decisions(&self, kind: Kind, agreed: bool) -> Counter {
        let outcome = if agreed { "agreed" } else { "disagreed" };
        self.policies
            .trial_decisions
            .get_or_create_owned(&[("kind", kind.name().into()), ("outcome", outcome.into())])
    }

    /// `oona_policy_trial_faults_total{kind}`.
    #[must_use]
    pub fn policy_trial_faults(&self, kind: Kind) -> Counter {
        self.policies
            .trial_faults
            .get_or_create_owned(&[("kind", kind.name().into())])
    }

    /// Everything, in the text format of OpenMetrics ([`CONTENT_TYPE`]).
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        text::encode(&mut out, &self.registry).expect("writing to a string does not fail");
        self.latencies.with_exemplars(out)
    }

    /// The same in the text format that is older ([`CONTENT_TYPE_CLASSIC`]), without exemplars.
    #[must_use]
    pub fn render_classic(&self) -> String {
        classic::classic(&self.render())
    }
}

/// The gauges of one stream, resolved once.
#[derive(Clone, Debug)]
pub struct StreamGauges {
    /// Lag and pending.
    pub depth: Gauge,
    /// Yet to be read by the slowest group.
    pub lag: Gauge,
    /// Read and not settled.
    pub pending: Gauge,
    /// Retries that wait for their time.
    pub delayed: Gauge,
    /// Entries held, finished ones included.
    pub length: Gauge,
}

#[cfg(test)]
mod tests;
