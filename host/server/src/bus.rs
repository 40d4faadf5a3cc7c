//! The bus: publish, subscribe, dead letters, and the tasks behind them.
//!
//! ```text
//! publish ─▶ queue ─▶ writer: routing ▸ backpressure ▸ sign ─▶ store ─▶ reader: verify ▸ freshness
//!                                                                                     │
//!                          store ◀─ settler: dead-letter ◀─ ack, nack, timeout ◀─ subscriber
//! ```
//!
//! Everything that decides is in `oona-core` or in a policy; what is here waits, asks and performs.

mod admission;
mod audit;
mod board;
mod broadcast;
mod config;
mod controls;
mod desk;
mod draft;
mod housekeeping;
mod inspect;
mod journey;
mod keeper;
mod letters;
mod memory;
mod reader;
mod receipts;
mod rejections;
mod settler;
mod shared;
mod spans;
mod status;
mod subscription;
mod texts;
mod turns;
mod writer;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use oona_core::Timestamp;
use oona_core::breaker::BreakerState;
use oona_core::outcome::{Outcome, RejectCause};
use oona_core::signing::Keyring;
use oona_core::telemetry::Counts;
use oona_core::trend::Point;
use tokio::sync::mpsc::error::SendError;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

pub(crate) use self::audit::SURVEY_STEP;
pub use self::broadcast::{
    BROADCAST_DEADLINE_MAX, BROADCAST_GROUPS_MAX, Broadcast, BroadcastError, BroadcastReport,
};
pub use self::config::{
    BroadcastConfig, BusConfig, ConsumeConfig, Overflow, PublishConfig, Retention, RetryOrder,
    Streams,
};
pub use self::controls::{BreakerStatus, ControlError, MESSAGE_BYTES_MAX, ModeStatus, Operator};
pub use self::draft::Draft;
pub use self::housekeeping::{
    HousekeepingConfig, HousekeepingReport, HousekeepingStatus, HousekeepingTotals, StreamRemovals,
};
pub use self::journey::{JourneyView, StepView};
pub use self::letters::{
    DeadLetterView, Found, LetterError, LettersMeant, Original, Redriven, Stroll,
};
pub use self::memory::{Held, MemoryStatus};
pub use self::rejections::{Decider, Rejection, Rejections};
pub use self::shared::Fates;
pub use self::status::{BusStatus, GroupStatus, PublishCount, StoreStatus, StreamStatus};
pub use self::subscription::{
    Delivery, DeliveryId, GROUP_BYTES_MAX, Nack, NotInFlight, SubscribeError, SubscribeOptions,
    Subscription, SubscriptionHandle,
};

use self::shared::{Parts, Shared};
use self::writer::{Asker, Pending, Writer};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::otel::Tracer;
use crate::policies::Policies;
use crate::record::State;
use crate::store::{Store, StoreError};

/// A handle on a running bus. Cheap to clone.
#[derive(Clone)]
pub struct Bus {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Pending>,
    /// One permit for each byte that may wait for its outcome.
    room: Arc<Semaphore>,
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bus")
            .field("store", &self.shared.store.info())
            .finish_non_exhaustive()
    }
}

/// What a bus stands on.
#[derive(Debug)]
pub struct Foundation {
    /// Where messages are kept.
    pub store: Arc<dyn Store>,
    /// What signs and verifies; without one nothing is signed and everything is believed.
    pub keyring: Option<Keyring>,
    /// What decides.
    pub policies: Policies,
    /// What counts.
    pub metrics: Arc<Metrics>,
    /// What takes the spans of messages.
    pub tracer: Tracer,
}

/// Owns the tasks of a bus.
#[derive(Debug)]
pub struct BusTasks {
    bus: Bus,
}

impl Bus {
    /// Starts a bus. A store that does not answer yet is waited for in the background: publishes are
    /// rejected as unavailable meanwhile, and subscriptions wait.
    #[must_use]
    pub fn start(config: BusConfig, foundation: Foundation, clock: Clock) -> (Self, BusTasks) {
        let Foundation {
            store,
            keyring,
            policies,
            metrics,
            tracer,
        } = foundation;
        let (queue, waiting) = mpsc::channel(config.publish.queue_max);
        let room = config.publish.queue_bytes_max.min(Semaphore::MAX_PERMITS);
        let room = Arc::new(Semaphore::new(room));
        let parts = Parts {
            config,
            store,
            keyring,
            policies,
            metrics,
            tracer,
            clock,
        };
        let shared = Arc::new(Shared::new(parts));
        shared
            .tasks
            .spawn(Writer::new(Arc::clone(&shared), waiting).run());
        shared.tasks.spawn(keeper::keep(Arc::clone(&shared)));
        let bus = Self {
            shared,
            queue,
            room,
        };
        (bus.clone(), BusTasks { bus })
    }

    /// Publishes a message and waits for its outcome. Accepted means written.
    pub async fn publish(&self, draft: Draft) -> Outcome {
        self.enqueue(draft).await.await
    }

    /// Hands a message over and returns as soon as it has its place in the queue, in count and in
    /// bytes; the outcome comes later. What one producer enqueues to one stream is written in this order.
    pub async fn enqueue(&self, draft: Draft) -> PendingOutcome {
        let shared = &self.shared;
        let since = Instant::now();
        let now = (shared.clock)();
        let named = draft.id.is_some();
        let mut message = draft.into_message(now, &shared.config.ttls);
        let (reply, outcome) = oneshot::channel();
        let outcome = PendingOutcome(outcome);
        let mut asker = Asker {
            event: message.id_hash(),
            trace: None,
            since,
            priority: message.priority,
            reply,
            room: None,
        };
        if let Err(invalid) = shared.config.limits.validate(&message) {
            let (cause, reason) = (invalid.cause(), invalid.name());
            writer::turn_away(
                shared,
                &message,
                asker,
                (cause, reason, invalid.to_string()),
            );
            return outcome;
        }
        asker.trace = spans::begin(shared, now, &mut message);
        let bytes = message.payload.len().max(1);
        let bytes = bytes.min(shared.config.publish.queue_bytes_max);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(bytes).await;
        asker.room = Some(room.unwrap_or_else(|_| unreachable!("it is never closed")));
        let pending = Pending {
            named,
            subject: message.subject(shared.symbol(&message.source)),
            message,
            asker,
        };
        if let Err(SendError(Pending { message, asker, .. })) = self.queue.send(pending).await {
            let why = (RejectCause::ShuttingDown, "shutting-down", String::new());
            writer::turn_away(shared, &message, asker, why);
        }
        outcome
    }

    /// Joins a consumer group.
    ///
    /// # Errors
    ///
    /// If the options are no good or the bus is shutting down. A store that does not answer is no
    /// error: the subscription waits for it.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "options are made for one call"
    )]
    pub fn subscribe(&self, options: SubscribeOptions) -> Result<Subscription, SubscribeError> {
        Subscription::start(&self.shared, &options)
    }

    /// What time it is on this bus.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.shared.clock)()
    }

    /// What backpressure would be told right now of a message on its way to `stream`, wherever
    /// `said` does not say otherwise.
    #[must_use]
    pub fn state_of(&self, stream: &str, said: State) -> State {
        let symbols = self.shared.policies.symbols();
        let board = self.shared.board();
        let bus = board.bus_state();
        let lane = board.depth(symbols.intern(stream));
        let name = |symbol| symbols.name(symbol).map(|name| name.to_string());
        State {
            stream: Some(stream.to_owned()),
            depth: said.depth.or(Some(lane)),
            capacity: said.capacity.or(Some(bus.normal_capacity)),
            mode: said.mode.or(Some(bus.mode)),
            emergency_stream: said.emergency_stream.or_else(|| name(bus.emergency_stream)),
            emergency_depth: said.emergency_depth.or(Some(bus.emergency_depth)),
            emergency_capacity: said.emergency_capacity.or(Some(bus.emergency_capacity)),
            normal_stream: said.normal_stream.or_else(|| name(bus.normal_stream)),
            normal_depth: said.normal_depth.or(Some(bus.normal_depth)),
            normal_capacity: said.normal_capacity.or(Some(bus.normal_capacity)),
            ..said
        }
    }

    /// The policies of this bus.
    #[must_use]
    pub fn policies(&self) -> &Policies {
        &self.shared.policies
    }

    /// The metrics of this bus.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    /// The configuration that the bus was started with.
    #[must_use]
    pub fn config(&self) -> &BusConfig {
        &self.shared.config
    }

    /// How the bus is.
    #[must_use]
    pub fn status(&self) -> BusStatus {
        status::of(&self.shared)
    }

    /// How often publishes ended alike, since the start.
    #[must_use]
    pub fn publish_counts(&self) -> Vec<PublishCount> {
        self.shared.publish_counts()
    }

    /// What was refused since the start, most often first: why, by whom, and an example of each.
    #[must_use]
    pub fn rejections(&self) -> Vec<Rejections> {
        self.shared.rejections.list()
    }

    /// The last samples of each stream, `count` at most, the oldest first. There is one every
    /// [`SAMPLE_EVERY`](oona_core::trend::SAMPLE_EVERY).
    #[must_use]
    pub fn trends(&self, count: usize) -> Vec<(Arc<str>, Vec<Point>)> {
        let board = self.shared.board();
        let trend = |lane: &board::Lane| (lane.name.clone(), lane.trend.points(count));
        board.lanes().map(trend).collect()
    }

    /// What this host has counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.counts()
    }

    /// What became of messages so far.
    #[must_use]
    pub fn fates(&self) -> Fates {
        self.shared.fates()
    }

    /// Tells the bus whether the error budget of an objective is nearly spent: a trigger of conservative mode.
    pub fn note_budget_low(&self, low: bool) {
        self.shared.budget_low.store(low, Ordering::Relaxed);
    }

    /// The states of the publish breaker and of the consume breaker.
    #[must_use]
    pub fn breaker_states(&self) -> [BreakerState; 2] {
        let now = self.now();
        let publish = self.shared.publish_breaker().state(now);
        [publish, self.shared.consume_breaker().state(now)]
    }

    /// What this host holds in memory, and what bounds it.
    #[must_use]
    pub fn memory(&self) -> MemoryStatus {
        let max = self.config().publish.queue_bytes_max;
        memory::of(&self.shared, &self.room, max.min(Semaphore::MAX_PERMITS))
    }

    /// Waits until the store answers.
    ///
    /// # Errors
    ///
    /// The store's last error, if it has not answered within `patience` or the bus shuts down.
    pub async fn store_ready(&self, patience: Option<Duration>) -> Result<(), StoreError> {
        keeper::await_store(&self.shared, patience).await
    }

    /// Fires when the bus begins to shut down.
    pub async fn shutting_down(&self) {
        self.shared.shutdown.cancelled().await;
    }
}

impl BusTasks {
    /// Shuts the bus down in good order: no more publishes are taken, those taken have their
    /// outcome, subscriptions may finish what is in flight until `deadline` has passed.
    ///
    /// Answers whether everything was drained in time. What was not is still in the store.
    pub async fn shutdown(self, deadline: Duration) -> bool {
        let Self { bus } = self;
        bus.shared.shutdown.cancel();
        bus.shared.tasks.close();
        let drained = tokio::time::timeout(deadline, bus.shared.tasks.wait())
            .await
            .is_ok();
        if !drained {
            bus.shared.abandon.cancel();
            bus.shared.tasks.wait().await;
        }
        drained
    }
}

/// The outcome of a publish, when it is there.
#[derive(Debug)]
#[must_use = "the outcome says whether the message was written"]
pub struct PendingOutcome(oneshot::Receiver<Outcome>);

impl Future for PendingOutcome {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let lost = || Outcome::Rejected {
            cause: RejectCause::ShuttingDown,
            reason: "shutting-down".into(),
            retry_after: None,
            detail: "the writer ended before this publish had its outcome".to_owned(),
        };
        Pin::new(&mut self.0)
            .poll(context)
            .map(|outcome| outcome.unwrap_or_else(|_| lost()))
    }
}
