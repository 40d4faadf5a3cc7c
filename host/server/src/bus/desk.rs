//! Where the parts of a subscription meet: readers bring entries, the subscriber takes deliveries
//! and answers them, the settler carries the answers to the store.
//!
//! Everything here is bounded by `in_flight_max`, the two lanes, and the bytes that may be held: a
//! reader asks for no more than there is room for, and room comes back when the store has confirmed a
//! settlement.
//!
//! A handler that fails at everything is given a rest: after so many failures in a row
//! (`breaker.handler_failures`) only emergencies are delivered to it, then a few messages on trial.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use oona_core::Timestamp;
use oona_core::breaker::{Breaker, Permit};
use oona_core::delivery::{Credit, Deliveries, DeliveryConfig};
use oona_core::entry::{EntryId, Fields};
use oona_core::envelope::Message;
use oona_core::lanes::Lanes;
use oona_core::policy::{Failure, Subject};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::journey;
use super::shared::Shared;
use super::spans;
use super::subscription::{Delivery, DeliveryId, Nack, NotInFlight, SubscribeOptions};
use crate::clock::Clock;
use crate::latency::{Series, Stage};
use crate::metrics::DeliveryKind;
use crate::store::StreamName;
use crate::sync::lock;

/// How much of what may be held is kept free for emergencies: one part in so many.
const EMERGENCY_SHARE: usize = 8;

/// An entry that this subscription holds.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) stream: StreamName,
    pub(super) entry: EntryId,
    /// Under which name it was read.
    pub(super) consumer: Arc<str>,
    pub(super) content: Content,
    /// The entry as it was read.
    pub(super) fields: Fields,
    pub(super) subject: Subject,
    pub(super) deliveries: u32,
    pub(super) redelivered: bool,
}

impl Held {
    /// The size of the entry as it was read.
    pub(super) fn bytes(&self) -> usize {
        let sizes = self.fields.iter();
        sizes.map(|(name, value)| name.len() + value.len()).sum()
    }

    /// When its message loses its value, if ever.
    pub(super) fn expires_at(&self) -> Option<Timestamp> {
        match &self.content {
            Content::Message(message) => message.expires_at,
            Content::Raw => None,
        }
    }
}

/// What an entry turned out to be.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// A message.
    Message(Arc<Message>),
    /// Something else.
    Raw,
}

/// What a subscriber says of a delivery.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    Ack,
    Nack(Nack),
}

/// What is to be told the store.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    /// It was handled.
    Ack,
    /// It is a retry that another group asked for.
    Skip,
    /// It failed.
    Failed {
        failure: Failure,
        delay: Option<Duration>,
        detail: String,
    },
    /// It was never in the subscriber's hands, or the bus goes down: to others at once.
    Release,
}

/// How a subscription ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Close {
    /// In good order: nothing has failed.
    Released,
    /// The subscriber went away: what it had in hand has failed.
    Lost,
}

/// See the module.
pub(super) struct Desk {
    pub(super) group: Arc<str>,
    state: Mutex<State>,
    clock: Clock,
    shared: Arc<Shared>,
    /// Something can be delivered.
    deliverable: Notify,
    /// There may be room for more.
    room: Notify,
    /// There is something to settle.
    settle: Notify,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk")
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

/// An entry in the hands of the subscriber.
struct InHand {
    held: Held,
    /// The right to call its handler; emergencies need none.
    permit: Option<Permit>,
    since: Instant,
}

impl InHand {
    fn new((held, permit): (Held, Option<Permit>)) -> Self {
        let since = Instant::now();
        Self {
            held,
            permit,
            since,
        }
    }
}

/// What is known of an entry that is held.
struct Holding {
    /// The name it was read under.
    consumer: Arc<str>,
    bytes: usize,
}

struct State {
    lanes: Lanes<Held>,
    in_flight: Deliveries<InHand>,
    handler: Breaker,
    verdicts: Vec<(Held, Verdict)>,
    /// Verdicts that the settler has taken and the store has not confirmed.
    settling: usize,
    /// Every entry held, whatever its state: kept alive in the store, so that nobody claims it.
    holding: BTreeMap<(StreamName, EntryId), Holding>,
    /// Their size together, and what it may be.
    bytes: usize,
    bytes_max: usize,
    next_id: u64,
    readers: usize,
    closed: Option<Close>,
}

impl State {
    /// How many more entries the reader of a lane may bring. What waits in the other lane takes no
    /// room from emergencies: they would else wait behind whatever was read ahead.
    fn room(&self, emergency: bool, entry_bytes_max: usize) -> usize {
        let waiting = if emergency {
            self.lanes.emergency_len()
        } else {
            self.lanes.len()
        };
        let ahead = waiting + self.verdicts.len() + self.settling;
        if self.closed.is_some() {
            return 0;
        }
        let free = self.in_flight.available().saturating_sub(ahead);
        let fit = self.bytes_room(emergency) / entry_bytes_max.max(1);
        // However little may be held, one is read when there is nothing to wait for.
        let none_held = if emergency {
            waiting == 0
        } else {
            self.bytes == 0
        };
        free.min(fit.max(none_held.into()))
    }

    /// How many more bytes the reader of a lane may bring.
    fn bytes_room(&self, emergency: bool) -> usize {
        let reserved = if emergency {
            0
        } else {
            self.bytes_max / EMERGENCY_SHARE
        };
        (self.bytes_max - reserved).saturating_sub(self.bytes)
    }

    fn hold(&mut self, held: &Held) {
        let holding = Holding {
            consumer: Arc::clone(&held.consumer),
            bytes: held.bytes(),
        };
        self.bytes += holding.bytes;
        let place = (held.stream.clone(), held.entry);
        if let Some(before) = self.holding.insert(place, holding) {
            self.bytes -= before.bytes;
        }
    }

    /// What is delivered next. While the handler has a rest, that is an emergency or nothing.
    fn pop(&mut self, now: Timestamp) -> Option<(Held, Option<Permit>)> {
        if self.lanes.is_empty() {
            return None;
        }
        if self.lanes.emergency_is_next() {
            return self.lanes.pop().map(|held| (held, None));
        }
        match self.handler.try_acquire(now) {
            Ok(permit) => self.lanes.pop().map(|held| (held, Some(permit))),
            Err(_) => self.lanes.pop_emergency().map(|held| (held, None)),
        }
    }
}

/// What the settler finds when it looks.
pub(super) enum Work {
    /// Verdicts to carry out.
    Settle(Vec<(Held, Verdict)>),
    /// Nothing before this time.
    Wait(Option<Timestamp>),
    /// The subscription has ended and everything is settled.
    Done,
}

impl Desk {
    pub(super) fn new(
        shared: &Arc<Shared>,
        options: &SubscribeOptions,
        usual_streams: usize,
        readers: usize,
    ) -> Self {
        let consume = &shared.config.consume;
        let deadline = options.ack_deadline.unwrap_or(consume.ack_deadline);
        let mut in_flight = Deliveries::new(DeliveryConfig {
            in_flight_max: options.in_flight_max,
            in_flight_bytes_max: consume.bytes_max,
            ack_deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
        });
        in_flight.credit(options.credit);
        let lanes = Lanes::new(consume.batch_max, consume.batch_max * usual_streams.max(1));
        Self {
            group: options.group.as_str().into(),
            state: Mutex::new(State {
                lanes,
                in_flight,
                handler: Breaker::new(shared.config.handler_breaker.clone()),
                verdicts: Vec::new(),
                settling: 0,
                holding: BTreeMap::new(),
                bytes: 0,
                bytes_max: consume.bytes_max,
                next_id: 1,
                readers,
                closed: None,
            }),
            clock: Arc::clone(&shared.clock),
            shared: Arc::clone(shared),
            deliverable: Notify::new(),
            room: Notify::new(),
            settle: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    // ---- the readers' side ----

    /// Waits for room; answers how many entries may be read from each of `streams` streams, or
    /// `None` when the subscription has ended.
    pub(super) async fn room(&self, emergency: bool, streams: usize) -> Option<usize> {
        let batch_max = self.shared.config.consume.batch_max;
        let entry_bytes_max = self.shared.config.limits.payload_bytes_max * streams.max(1);
        wait_for(&self.room, || {
            let state = self.state();
            if state.closed.is_some() {
                return Some(None);
            }
            let free = if emergency {
                state.lanes.emergency_free()
            } else {
                state.lanes.normal_free()
            };
            let count = state
                .room(emergency, entry_bytes_max)
                .min(free / streams.max(1))
                .min(batch_max);
            (count > 0).then_some(Some(count))
        })
        .await
    }

    /// Takes in what a reader has judged deliverable.
    pub(super) fn arrived(&self, emergency: bool, held: Vec<Held>) {
        let mut state = self.state();
        for held in held {
            state.hold(&held);
            if state.closed.is_some() {
                state.verdicts.push((held, Verdict::Release));
                continue;
            }
            let full = if emergency {
                state.lanes.push_emergency(held)
            } else {
                state.lanes.push_normal(held)
            };
            if let Err(full) = full {
                state.verdicts.push((full.0, Verdict::Release));
            }
        }
        let release = !state.verdicts.is_empty();
        drop(state);
        self.deliverable.notify_waiters();
        if release {
            self.settle.notify_one();
        }
    }

    /// Takes in what a reader has judged not deliverable.
    pub(super) fn judged(&self, verdicts: Vec<(Held, Verdict)>) {
        if verdicts.is_empty() {
            return;
        }
        let mut state = self.state();
        for (held, _) in &verdicts {
            state.hold(held);
        }
        state.verdicts.extend(verdicts);
        drop(state);
        self.settle.notify_one();
    }

    /// Whether an entry is in these hands already, so that a claim of it is no news.
    pub(super) fn holds(&self, stream: &StreamName, entry: EntryId) -> bool {
        self.state().holding.contains_key(&(stream.clone(), entry))
    }

    /// A reader has ended.
    pub(super) fn reader_ended(&self) {
        self.state().readers -= 1;
        self.settle.notify_one();
    }

    // ---- the subscriber's side ----

    /// The next delivery. Waits for a message and for credit.
    pub(super) async fn next(&self) -> Delivery {
        wait_for(&self.deliverable, || self.try_next()).await
    }

    /// The next delivery, if there are a message and credit right now.
    pub(super) fn try_next(&self) -> Option<Delivery> {
        let now = (self.clock)();
        let mut state = self.state();
        if state.closed.is_some() || state.in_flight.available() == 0 {
            return None;
        }
        let (held, permit) = state.pop(now)?;
        let Content::Message(message) = &held.content else {
            return None;
        };
        let id = DeliveryId(state.next_id);
        state.next_id += 1;
        let trace = spans::delivered(&self.shared, now, &held, &self.group);
        let delivery = Delivery {
            id,
            stream: held.stream.clone(),
            entry: held.entry,
            message: Arc::clone(message),
            redelivered: held.redelivered,
            deliveries: held.deliveries,
            trace,
        };
        let before = state.in_flight.next_deadline();
        let (bytes, hash) = (held.bytes(), held.subject.id);
        let kind = if held.redelivered {
            DeliveryKind::Redelivered
        } else {
            DeliveryKind::First
        };
        let series = Series::new(held.stream.clone(), held.subject.priority, kind.name());
        let in_hand = InHand::new((held, permit));
        state.in_flight.start(now, id.0, bytes, in_hand);
        // An older delivery may have been given longer than this one has.
        self.shared.metrics.in_flight.inc();
        let sooner = before.is_none_or(|before| state.in_flight.next_deadline() < Some(before));
        drop(state);
        if sooner {
            self.settle.notify_one();
        }
        let waited = now.since(Timestamp::from_millis(delivery.entry.ms));
        let trace_id = trace.map(|trace| trace.trace_id);
        self.shared
            .took_traced(Stage::Delivery, &series, waited, trace_id);
        self.shared.count_delivery(&delivery.stream, kind);
        journey::delivered(&self.shared, now, &self.group, &delivery, (hash, waited));
        Some(delivery)
    }

    pub(super) fn reply(&self, id: DeliveryId, reply: Reply) -> Result<(), NotInFlight> {
        let now = (self.clock)();
        let mut state = self.state();
        let settled = state.in_flight.settle(id.0);
        let in_hand = settled.map_err(|_| NotInFlight(id))?;
        self.shared.metrics.in_flight.dec();
        let verdict = match reply {
            Reply::Ack => Verdict::Ack,
            Reply::Nack(Nack {
                poison,
                delay,
                reason,
            }) => {
                let failure = if poison {
                    Failure::Poison
                } else {
                    Failure::HandlerError
                };
                Verdict::Failed {
                    failure,
                    delay,
                    detail: reason,
                }
            }
        };
        self.answered(&mut state, now, in_hand, verdict);
        drop(state);
        self.settle.notify_one();
        self.deliverable.notify_waiters();
        Ok(())
    }

    /// What was in hand has its verdict, by the subscriber or by the clock.
    fn answered(&self, state: &mut State, now: Timestamp, in_hand: InHand, verdict: Verdict) {
        let InHand {
            held,
            permit,
            since,
        } = in_hand;
        let outcome = match &verdict {
            Verdict::Ack => "ack",
            Verdict::Failed { failure, .. } => failure.name(),
            Verdict::Skip | Verdict::Release => "released",
        };
        let series = Series::new(held.stream.clone(), held.subject.priority, outcome);
        let took = since.elapsed();
        let trace_id = spans::trace_of_held(&self.shared, &held);
        self.shared
            .took_traced(Stage::Handler, &series, took, trace_id);
        spans::answered(&self.shared, now, &held, &self.group, (outcome, took));
        journey::answered(&self.shared, now, &self.group, &held, (outcome, took));
        self.tell_handler_breaker(&mut state.handler, now, permit, &verdict);
        state.verdicts.push((held, verdict));
    }

    /// Whether the handler failed. A message that can never be handled is not its fault.
    fn tell_handler_breaker(
        &self,
        breaker: &mut Breaker,
        now: Timestamp,
        permit: Option<Permit>,
        verdict: &Verdict,
    ) {
        let Some(permit) = permit else { return };
        match verdict {
            Verdict::Ack => breaker.record(now, permit, true),
            Verdict::Failed {
                failure: Failure::HandlerError | Failure::Timeout,
                ..
            } => breaker.record(now, permit, false),
            _ => breaker.give_back(permit),
        }
        self.shared.tell_breaker("handler", breaker, now);
    }

    pub(super) fn extend(&self, id: DeliveryId, by: Duration) -> Result<(), NotInFlight> {
        let now = (self.clock)();
        self.state()
            .in_flight
            .extend(now, id.0, by)
            .map_err(|_| NotInFlight(id))
    }

    pub(super) fn credit(&self, more: Credit) {
        self.state().in_flight.credit(more);
        self.deliverable.notify_waiters();
        self.room.notify_waiters();
    }

    /// Waits until nothing is in flight and nothing waits to be settled.
    pub(super) async fn idle(&self) {
        wait_for(&self.room, || {
            let state = self.state();
            let idle =
                state.in_flight.is_empty() && state.verdicts.is_empty() && state.settling == 0;
            idle.then_some(())
        })
        .await;
    }

    /// Ends the subscription. The first call counts.
    pub(super) fn close(&self, close: Close) {
        let mut state = self.state();
        if state.closed.is_some() {
            return;
        }
        state.closed = Some(close);
        while let Some(held) = state.lanes.pop() {
            state.verdicts.push((held, Verdict::Release));
        }
        for InHand { held, .. } in state.in_flight.drain() {
            self.shared.metrics.in_flight.dec();
            let verdict = match close {
                Close::Released => Verdict::Release,
                Close::Lost => Verdict::Failed {
                    failure: Failure::SubscriberLost,
                    delay: None,
                    detail: "the subscriber went away".to_owned(),
                },
            };
            state.verdicts.push((held, verdict));
        }
        drop(state);
        self.room.notify_waiters();
        self.settle.notify_one();
    }

    // ---- the settler's side ----

    /// What there is to settle right now.
    pub(super) fn work(&self) -> Work {
        let now = (self.clock)();
        let mut state = self.state();
        for in_hand in state.in_flight.expired(now) {
            self.shared.metrics.in_flight.dec();
            let failed = Verdict::Failed {
                failure: Failure::Timeout,
                delay: None,
                detail: "no answer before the acknowledgement deadline".to_owned(),
            };
            self.answered(&mut state, now, in_hand, failed);
        }
        if !state.verdicts.is_empty() {
            let verdicts = std::mem::take(&mut state.verdicts);
            state.settling += verdicts.len();
            return Work::Settle(verdicts);
        }
        if state.closed.is_some() && state.readers == 0 {
            return Work::Done;
        }
        let rest = state.handler.refuses_for(now).map(|rest| now + rest);
        if rest.is_none() && !state.lanes.is_empty() {
            self.deliverable.notify_waiters();
        }
        let deadline = state.in_flight.next_deadline();
        Work::Wait(deadline.into_iter().chain(rest).min())
    }

    /// Waits until there may be something to settle.
    pub(super) async fn stirred(&self) {
        self.settle.notified().await;
    }

    /// The store has confirmed these.
    pub(super) fn settled<'a>(&self, places: impl Iterator<Item = (&'a StreamName, EntryId)>) {
        let mut state = self.state();
        for (stream, entry) in places {
            state.settling -= 1;
            let holding = state.holding.remove(&(stream.clone(), entry));
            state.bytes -= holding.map_or(0, |holding| holding.bytes);
        }
        drop(state);
        self.room.notify_waiters();
        self.deliverable.notify_waiters();
    }

    /// Every entry held, by stream and by the name it was read under.
    pub(super) fn holding(&self) -> BTreeMap<(StreamName, Arc<str>), Vec<EntryId>> {
        let state = self.state();
        let mut places: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for ((stream, entry), holding) in &state.holding {
            places
                .entry((stream.clone(), Arc::clone(&holding.consumer)))
                .or_default()
                .push(*entry);
        }
        places
    }
}

/// Looks, and looks again each time `notify` says that something changed, until there is an answer.
async fn wait_for<T>(notify: &Notify, mut look: impl FnMut() -> Option<T>) -> T {
    loop {
        let mut changed = std::pin::pin!(notify.notified());
        changed.as_mut().enable();
        if let Some(found) = look() {
            return found;
        }
        changed.await;
    }
}
