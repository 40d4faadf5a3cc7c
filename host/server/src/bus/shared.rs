//! What the tasks of one bus share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use oona_core::Timestamp;
use oona_core::breaker::{Breaker, BreakerState, Permit};
use oona_core::entry::Record;
use oona_core::envelope::Message;
use oona_core::force::Forced;
use oona_core::limits::Invalid;
use oona_core::nonces::NonceWindow;
use oona_core::policy::{Candidate, Failure};
use oona_core::signing::Keyring;
use oona_core::symbols::Symbol;
use oona_core::telemetry::{Counts, Event, Level};
use oona_core::trend::Totals;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::BusConfig;
use super::board::Board;
use super::controls::BreakerStatus;
use super::housekeeping::HousekeepingStatus;
use super::rejections::{self, Refusal};
use super::status::PublishCount;
use crate::clock::Clock;
use crate::journeys::Journeys;
use crate::latency::{Recording, Series, Stage};
use crate::metrics::{Counter, DeliveryKind, Metrics, PublishOutcome, Step};
use crate::otel::Tracer;
use crate::policies::Policies;
use crate::store::Store;
use crate::sync::lock;

/// Why publishes are refused when it is the store that is at fault.
const FAULTS: [&str; 5] = [
    "breaker-open",
    "store-unavailable",
    "store-refused",
    "store-unusable",
    "no-group",
];

/// What became of messages since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fates {
    /// Publishes that were accepted.
    pub accepted: u64,
    /// Of these, those that backpressure sent elsewhere than routing had.
    pub rerouted: u64,
    /// Publishes that were refused, though there was nothing wrong with them.
    pub refused: u64,
    /// Of these, those that the store or its breaker is the cause of.
    pub refused_by_faults: u64,
    /// Deliveries that were acknowledged.
    pub acknowledged: u64,
    /// Deliveries that became dead letters.
    pub dead_lettered: u64,
    /// Deliveries that were given up.
    pub discarded: u64,
    /// Entries that went unfinished: dropped from an overfull stream, or with a group that was removed.
    pub removed: u64,
}

/// The breakers of the bus.
const BREAKERS: [&str; 2] = ["publish", "consume"];

/// See the module.
pub(super) struct Shared {
    pub(super) config: BusConfig,
    pub(super) store: Arc<dyn Store>,
    pub(super) policies: Policies,
    pub(super) metrics: Arc<Metrics>,
    pub(super) tracer: Tracer,
    pub(super) handles: Handles,
    pub(super) clock: Clock,
    /// Fires when the bus begins to shut down.
    pub(super) shutdown: CancellationToken,
    /// Fires when draining has taken too long.
    pub(super) abandon: CancellationToken,
    /// Every task of the bus; they are waited for at the end.
    pub(super) tasks: TaskTracker,
    pub(super) store_up: AtomicBool,
    /// Whether the error budget of an objective is nearly spent, as whoever watches them says.
    pub(super) budget_low: AtomicBool,
    /// Held during a round of housekeeping.
    pub(super) rounds: tokio::sync::Mutex<()>,
    /// What rounds have removed.
    pub(super) housekeeping: Mutex<HousekeepingStatus>,
    /// Places for broadcasts.
    pub(super) broadcasts: Semaphore,
    /// Number of the next subscription, part of its consumer name.
    pub(super) subscriptions: AtomicU64,
    /// What happened to messages, for whoever asks.
    pub(super) journeys: Journeys,
    /// What was refused, by whom.
    pub(super) rejections: rejections::Board,
    keyring: Option<Keyring>,
    board: Mutex<Board>,
    publish_breaker: Mutex<Breaker>,
    consume_breaker: Mutex<Breaker>,
    /// Nonces by consumer group: a message is new to each group once.
    nonces: Mutex<HashMap<Arc<str>, Arc<Mutex<NonceWindow>>>>,
}

/// Metric handles that are resolved once.
pub(super) struct Handles {
    publishes: Counters<(Arc<str>, PublishOutcome, Arc<str>)>,
    deliveries: Counters<(Arc<str>, DeliveryKind)>,
    settled: Counters<(Arc<str>, Step)>,
    failures: Counters<(Arc<str>, Failure)>,
}

/// Counters by their labels.
type Counters<L> = Mutex<HashMap<L, Counter>>;

/// What a [`Shared`] is made of.
pub(super) struct Parts {
    pub(super) config: BusConfig,
    pub(super) store: Arc<dyn Store>,
    pub(super) keyring: Option<Keyring>,
    pub(super) policies: Policies,
    pub(super) metrics: Arc<Metrics>,
    pub(super) tracer: Tracer,
    pub(super) clock: Clock,
}

impl Shared {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts {
            config,
            store,
            keyring,
            policies,
            metrics,
            tracer,
            clock,
        } = parts;
        let board = Board::new(&config, |name| policies.symbols().intern(name));
        let handles = Handles {
            publishes: Mutex::default(),
            deliveries: Mutex::default(),
            settled: Mutex::default(),
            failures: Mutex::default(),
        };
        Self {
            publish_breaker: Mutex::new(Breaker::new(config.breaker.clone())),
            consume_breaker: Mutex::new(Breaker::new(config.breaker.clone())),
            board: Mutex::new(board),
            nonces: Mutex::default(),
            shutdown: CancellationToken::new(),
            abandon: CancellationToken::new(),
            tasks: TaskTracker::new(),
            store_up: AtomicBool::new(false),
            budget_low: AtomicBool::new(false),
            rounds: tokio::sync::Mutex::default(),
            housekeeping: Mutex::default(),
            journeys: Journeys::new(config.journeys),
            broadcasts: Semaphore::new(config.broadcast.under_way_max),
            subscriptions: AtomicU64::new(0),
            rejections: rejections::Board::default(),
            config,
            store,
            policies,
            metrics,
            tracer,
            handles,
            clock,
            keyring,
        }
    }

    pub(super) fn board(&self) -> MutexGuard<'_, Board> {
        lock(&self.board)
    }

    pub(super) fn publish_breaker(&self) -> MutexGuard<'_, Breaker> {
        lock(&self.publish_breaker)
    }

    pub(super) fn consume_breaker(&self) -> MutexGuard<'_, Breaker> {
        lock(&self.consume_breaker)
    }

    pub(super) fn keyring(&self) -> Option<&Keyring> {
        self.keyring.as_ref()
    }

    /// The name behind a symbol; empty for none.
    pub(super) fn name(&self, symbol: Symbol) -> Arc<str> {
        self.policies
            .symbols()
            .name(symbol)
            .unwrap_or_else(|| Arc::from(""))
    }

    /// The symbol of a name that a message brought along. The table is bounded: a name that it has
    /// no room for has none.
    pub(super) fn symbol(&self, name: &str) -> Symbol {
        self.policies.symbols().intern(name)
    }

    /// What is written of a message: its envelope, signed if there is a key.
    pub(super) fn record(&self, message: &Message) -> Record {
        let mut envelope = Vec::with_capacity(message.payload.len() + 256);
        message.encode(&mut envelope);
        self.sign(envelope)
    }

    /// An envelope, signed if there is a key.
    pub(super) fn sign(&self, envelope: Vec<u8>) -> Record {
        let signature = self.keyring.as_ref().map(|keyring| keyring.sign(&envelope));
        Record {
            payload: envelope.into(),
            signature,
        }
    }

    /// The nonces of a group.
    pub(super) fn nonces(&self, group: &Arc<str>) -> Arc<Mutex<NonceWindow>> {
        let mut groups = lock(&self.nonces);
        let window = || Arc::new(Mutex::new(NonceWindow::new(self.config.consume.nonces_max)));
        Arc::clone(groups.entry(Arc::clone(group)).or_insert_with(window))
    }

    /// To record how long some messages took for a stage that ends now.
    pub(super) fn took(&self, stage: Stage) -> Recording<'_> {
        self.metrics.latencies.of(stage, (self.clock)())
    }

    /// Records how long one message took.
    pub(super) fn took_one(&self, stage: Stage, series: &Series, latency: Duration) {
        self.took_traced(stage, series, latency, None);
    }

    /// Records how long one message took that may belong to a trace.
    pub(super) fn took_traced(
        &self,
        stage: Stage,
        series: &Series,
        latency: Duration,
        trace_id: Option<u128>,
    ) {
        self.took(stage).record_traced(series, latency, trace_id);
    }

    /// The nonces of every group.
    pub(super) fn nonce_windows(&self) -> Vec<Arc<Mutex<NonceWindow>>> {
        lock(&self.nonces).values().cloned().collect()
    }

    /// Counts publishes that ended alike.
    pub(super) fn count_publish(
        &self,
        stream: &Arc<str>,
        outcome: PublishOutcome,
        why: &Arc<str>,
        n: u64,
    ) {
        let mut counters = lock(&self.handles.publishes);
        let mut key = (Arc::clone(stream), outcome, Arc::clone(why));
        if let Some(counter) = counters.get(&key) {
            counter.inc_by(n);
            return;
        }
        // By its label, of which there are few: policies make up reasons, and those too many are one counter.
        key.2 = self.metrics.reason(why).into();
        let resolve = || self.metrics.publishes(stream, outcome, why);
        counters.entry(key).or_insert_with(resolve).inc_by(n);
    }

    /// Counts a publish that was refused, and notes by whom.
    pub(super) fn count_rejection(&self, refusal: &Refusal<'_>) {
        let (stream, reason) = (refusal.stream, refusal.reason);
        self.count_publish(stream, PublishOutcome::Rejected, reason, 1);
        let label = |reason: &str| self.metrics.reason(reason).into();
        self.rejections.note((self.clock)(), refusal, label);
    }

    /// How often publishes ended alike, in order.
    pub(super) fn publish_counts(&self) -> Vec<PublishCount> {
        let counters = lock(&self.handles.publishes);
        let counts = counters
            .iter()
            .map(|((stream, outcome, reason), counter)| PublishCount {
                stream: Arc::clone(stream),
                outcome: outcome.name(),
                reason: Arc::clone(reason),
                count: counter.get(),
            });
        let mut counts: Vec<_> = counts.collect();
        counts.sort();
        counts
    }

    /// Counts what became of a message that was to go to the emergency stream.
    pub(super) fn count_emergency(&self, candidate: &Candidate, landed: Option<Symbol>) {
        let outcome = match landed {
            Some(stream) if stream == candidate.stream => "accepted",
            Some(_) => "demoted",
            None if candidate.tokens == 0 => "over-rate",
            None => "rejected",
        };
        let source = self.name(candidate.subject.source);
        self.metrics.emergencies(&source, outcome).inc();
    }

    /// Counts a delivery.
    pub(super) fn count_delivery(&self, stream: &Arc<str>, kind: DeliveryKind) {
        let mut counters = lock(&self.handles.deliveries);
        let resolve = || self.metrics.deliveries(stream, kind);
        counters
            .entry((Arc::clone(stream), kind))
            .or_insert_with(resolve)
            .inc();
    }

    /// Counts a delivery that failed.
    pub(super) fn count_failure(&self, stream: &Arc<str>, failure: Failure) {
        let mut counters = lock(&self.handles.failures);
        let resolve = || self.metrics.failures(stream, failure);
        counters
            .entry((Arc::clone(stream), failure))
            .or_insert_with(resolve)
            .inc();
    }

    /// What was counted of all streams so far.
    pub(super) fn counts(&self) -> Counts {
        let published = |wanted| {
            sum(&self.handles.publishes, |(_, outcome, _)| {
                *outcome == wanted
            })
        };
        let settled = |wanted| sum(&self.handles.settled, |(_, step)| *step == wanted);
        let of_kernels = |wanted| {
            sum(&self.handles.failures, |(stream, failure)| {
                *failure == wanted && stream.contains("kernels")
            })
        };
        let emergencies = |outcome| self.metrics.emergencies_of_all(outcome);
        Counts {
            published: published(PublishOutcome::Accepted),
            rerouted: self.metrics.publish_rerouted.get(),
            refused: published(PublishOutcome::Rejected),
            retried: settled(Step::Retry),
            dead_lettered: settled(Step::DeadLetter),
            kernel_stale: of_kernels(Failure::Stale),
            kernel_replayed: of_kernels(Failure::Replay),
            emergencies: emergencies("accepted") + emergencies("demoted"),
            emergencies_over_rate: emergencies("over-rate"),
        }
    }

    /// What became of messages so far.
    pub(super) fn fates(&self) -> Fates {
        let settled = |wanted| sum(&self.handles.settled, |(_, step)| *step == wanted);
        let published = |wanted: &dyn Fn(&str, &str) -> bool| {
            sum(&self.handles.publishes, |(stream, outcome, reason)| {
                *outcome == PublishOutcome::Rejected && wanted(stream, reason)
            })
        };
        let accepted =
            |(_, outcome, _): &(_, PublishOutcome, _)| *outcome == PublishOutcome::Accepted;
        let streams = || self.config.streams.destinations();
        Fates {
            accepted: sum(&self.handles.publishes, accepted),
            rerouted: self.metrics.publish_rerouted.get(),
            refused: published(&|stream, reason| {
                !(stream.is_empty() && Invalid::NAMES.contains(&reason))
            }),
            refused_by_faults: published(&|stream, reason| {
                stream.is_empty() && FAULTS.contains(&reason)
            }),
            acknowledged: settled(Step::Ack),
            dead_lettered: settled(Step::DeadLetter),
            discarded: settled(Step::Discard),
            removed: streams()
                .map(|name| self.metrics.dropped(name).get() + self.metrics.abandoned(name).get())
                .sum(),
        }
    }

    /// What was counted of a stream so far.
    pub(super) fn totals(&self, stream: &str, depth: u64) -> Totals {
        let of_stream = |name: &Arc<str>| **name == *stream;
        Totals {
            published: sum(&self.handles.publishes, |(name, outcome, _)| {
                of_stream(name) && *outcome == PublishOutcome::Accepted
            }),
            delivered: sum(&self.handles.deliveries, |(name, _)| of_stream(name)),
            settled: sum(&self.handles.settled, |(name, _)| of_stream(name)),
            depth,
        }
    }

    /// Counts a settlement.
    pub(super) fn count_settled(&self, stream: &Arc<str>, step: Step) {
        let mut counters = lock(&self.handles.settled);
        let resolve = || self.metrics.settled(stream, step);
        counters
            .entry((Arc::clone(stream), step))
            .or_insert_with(resolve)
            .inc();
    }

    /// Tells the publish breaker how a call went, and the world if that changed its state.
    pub(super) fn record_publish_breaker(&self, now: Timestamp, permit: Permit, ok: bool) {
        self.record_breaker("publish", &mut self.publish_breaker(), now, permit, ok);
    }

    /// Tells the consume breaker how a call went, and the world if that changed its state.
    pub(super) fn record_consume_breaker(&self, now: Timestamp, permit: Permit, ok: bool) {
        self.record_breaker("consume", &mut self.consume_breaker(), now, permit, ok);
    }

    /// The breaker of this name.
    pub(super) fn breaker(&self, name: &str) -> Option<MutexGuard<'_, Breaker>> {
        match name {
            "publish" => Some(self.publish_breaker()),
            "consume" => Some(self.consume_breaker()),
            _ => None,
        }
    }

    /// How every breaker is.
    pub(super) fn breakers(&self) -> Vec<BreakerStatus> {
        let now = (self.clock)();
        let status = |name| Some(BreakerStatus::new(name, &*self.breaker(name)?, now));
        BREAKERS.into_iter().filter_map(status).collect()
    }

    fn record_breaker(
        &self,
        name: &str,
        breaker: &mut Breaker,
        now: Timestamp,
        permit: Permit,
        ok: bool,
    ) {
        breaker.record(now, permit, ok);
        self.store_answered(ok);
        self.tell_breaker(name, breaker, now);
    }

    /// Tells the world how a breaker is, and that it has changed if it has.
    pub(super) fn tell_breaker(&self, name: &str, breaker: &mut Breaker, now: Timestamp) {
        let Some(transition) = breaker.transition(now) else {
            return;
        };
        let (from, to) = (transition.from.name(), transition.to.name());
        let reason = transition.reason;
        self.metrics.breaker_transitions(name, to, reason).inc();
        let by = breaker.forced().map(Forced::words);
        let level = match transition.to {
            BreakerState::Closed => Level::Info,
            BreakerState::Open | BreakerState::HalfOpen => Level::Warning,
        };
        let description = format!("the {name} breaker is {to} ({reason}), it was {from}");
        self.happened(now, level, "breaker", description);
        tracing::warn!(breaker = name, from, to, reason, by, "breaker");
    }

    /// Notes something for telemetry on the bus.
    pub(super) fn happened(
        &self,
        at: Timestamp,
        level: Level,
        name: &'static str,
        description: String,
    ) {
        self.metrics.events.push(Event {
            at,
            level,
            name,
            description,
        });
    }

    /// Notes whether the store answered the last call.
    pub(super) fn store_answered(&self, ok: bool) {
        if !ok {
            self.metrics.store_faults.inc();
        }
        if self.store_up.swap(ok, Ordering::Relaxed) != ok {
            self.metrics.store_up.set(ok.into());
            let store = self.store.info();
            if ok {
                tracing::info!(
                    store = store.name,
                    address = store.address,
                    "the store answers"
                );
            } else {
                tracing::warn!(
                    store = store.name,
                    address = store.address,
                    "the store does not answer"
                );
            }
        }
    }
}

/// The sum of the counters whose labels are wanted.
fn sum<L>(counters: &Counters<L>, wanted: impl Fn(&L) -> bool) -> u64 {
    let counters = lock(counters);
    let wanted = counters.iter().filter(|(labels, _)| wanted(labels));
    wanted.map(|(_, counter)| counter.get()).sum()
}
