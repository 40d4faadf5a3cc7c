//! Where the parts of a subscription meet: readers bring entries, the subscriber takes deliveries
//! and answers them, the settler carries the answers to the store.
//!
//! Everything here is bounded by `in_flight_max` and the two lanes: a reader asks for no more than
//! there is room for, and room comes back when the store has confirmed a settlement.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use oona_core::Timestamp;
use oona_core::delivery::{Deliveries, DeliveryConfig};
use oona_core::entry::{Entry, EntryId};
use oona_core::envelope::Message;
use oona_core::lanes::Lanes;
use oona_core::policy::{Failure, Subject};
use tokio::sync::Notify;

use super::shared::Shared;
use super::subscription::{Delivery, DeliveryId, Nack, NotInFlight, SubscribeOptions};
use crate::clock::Clock;
use crate::metrics::DeliveryKind;
use crate::store::StreamName;
use crate::sync::lock;

/// An entry that this subscription holds.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) stream: StreamName,
    pub(super) entry: EntryId,
    /// Under which name it was read.
    pub(super) consumer: Arc<str>,
    pub(super) content: Content,
    pub(super) subject: Subject,
    pub(super) deliveries: u32,
    pub(super) redelivered: bool,
}

/// What an entry turned out to be.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// A message.
    Message(Arc<Message>),
    /// Something else.
    Raw(Arc<Entry>),
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

struct State {
    lanes: Lanes<Held>,
    in_flight: Deliveries<Held>,
    verdicts: Vec<(Held, Verdict)>,
    /// Verdicts that the settler has taken and the store has not confirmed.
    settling: usize,
    /// Every entry held, whatever its state, with the name it was read under: kept alive in the
    /// store, so that nobody claims it.
    holding: BTreeMap<(StreamName, EntryId), Arc<str>>,
    next_id: u64,
    readers: usize,
    closed: Option<Close>,
}

impl State {
    /// How many more entries the reader of a lane may bring. What waits in the other lane takes no
    /// room from emergencies: they would else wait behind whatever was read ahead.
    fn room(&self, emergency: bool) -> usize {
        let waiting = if emergency {
            self.lanes.emergency_len()
        } else {
            self.lanes.len()
        };
        let ahead = waiting + self.verdicts.len() + self.settling;
        if self.closed.is_some() {
            0
        } else {
            self.in_flight.available().saturating_sub(ahead)
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
            ack_deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
        });
        in_flight.credit(options.credit);
        let lanes = Lanes::new(consume.batch_max, consume.batch_max * usual_streams.max(1));
        Self {
            group: options.group.as_str().into(),
            state: Mutex::new(State {
                lanes,
                in_flight,
                verdicts: Vec::new(),
                settling: 0,
                holding: BTreeMap::new(),
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
                .room(emergency)
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
            state.holding.insert(
                (held.stream.clone(), held.entry),
                Arc::clone(&held.consumer),
            );
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
            state.holding.insert(
                (held.stream.clone(), held.entry),
                Arc::clone(&held.consumer),
            );
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
        let held = state.lanes.pop()?;
        let Content::Message(message) = &held.content else {
            return None;
        };
        let id = DeliveryId(state.next_id);
        state.next_id += 1;
        let delivery = Delivery {
            id,
            stream: held.stream.clone(),
            entry: held.entry,
            message: Arc::clone(message),
            redelivered: held.redelivered,
            deliveries: held.deliveries,
        };
        let before = state.in_flight.next_deadline();
        state.in_flight.start(now, id.0, held);
        // An older delivery may have been given longer than this one has.
        let sooner = before.is_none_or(|before| state.in_flight.next_deadline() < Some(before));
        drop(state);
        if sooner {
            self.settle.notify_one();
        }
        let waited = now.since(Timestamp::from_millis(delivery.entry.ms));
        self.shared
            .metrics
            .delivery_duration
            .observe(waited.as_secs_f64());
        let kind = if delivery.redelivered {
            DeliveryKind::Redelivered
        } else {
            DeliveryKind::First
        };
        self.shared.count_delivery(&delivery.stream, kind);
        Some(delivery)
    }

    pub(super) fn reply(&self, id: DeliveryId, reply: Reply) -> Result<(), NotInFlight> {
        let mut state = self.state();
        let held = state.in_flight.settle(id.0).map_err(|_| NotInFlight(id))?;
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
        state.verdicts.push((held, verdict));
        drop(state);
        self.settle.notify_one();
        self.deliverable.notify_waiters();
        Ok(())
    }

    pub(super) fn extend(&self, id: DeliveryId, by: Duration) -> Result<(), NotInFlight> {
        let now = (self.clock)();
        self.state()
            .in_flight
            .extend(now, id.0, by)
            .map_err(|_| NotInFlight(id))
    }

    pub(super) fn credit(&self, more: usize) {
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
        for held in state.in_flight.drain() {
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
        for held in state.in_flight.expired(now) {
            let failed = Verdict::Failed {
                failure: Failure::Timeout,
                delay: None,
                detail: "no answer before the acknowledgement deadline".to_owned(),
            };
            state.verdicts.push((held, failed));
        }
        if !state.verdicts.is_empty() {
            let verdicts = std::mem::take(&mut state.verdicts);
            state.settling += verdicts.len();
            return Work::Settle(verdicts);
        }
        if state.closed.is_some() && state.readers == 0 {
            return Work::Done;
        }
        Work::Wait(state.in_flight.next_deadline())
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
            state.holding.remove(&(stream.clone(), entry));
        }
        drop(state);
        self.room.notify_waiters();
        self.deliverable.notify_waiters();
    }

    /// Every entry held, by stream and by the name it was read under.
    pub(super) fn holding(&self) -> BTreeMap<(StreamName, Arc<str>), Vec<EntryId>> {
        let state = self.state();
        let mut places: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for ((stream, entry), consumer) in &state.holding {
            places
                .entry((stream.clone(), Arc::clone(consumer)))
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
