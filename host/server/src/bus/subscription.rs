//! What a subscriber holds: deliveries in, acknowledgements out.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use oona_core::delivery::Credit;
use oona_core::entry::EntryId;
use oona_core::envelope::Message;
use oona_core::trace_context::TraceContext;
use serde::Serialize;

use super::desk::{Close, Desk, Reply};
use super::reader::Reader;
use super::settler::Settler;
use super::shared::Shared;
use crate::store::{GroupStart, StreamName};

/// The longest name of a consumer group or a consumer, in bytes.
pub const GROUP_BYTES_MAX: usize = 128;

/// Names a delivery to the subscription that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct DeliveryId(pub u64);

/// What a subscriber asks for.
#[derive(Clone, Debug)]
pub struct SubscribeOptions {
    /// The consumer group. Every group gets every message; the members of a group share them.
    pub group: String,
    /// A name for this member, for people. It is made unique, so that two of the same name never
    /// share what is pending.
    pub consumer: String,
    /// Which streams; empty for all.
    pub streams: Vec<StreamName>,
    /// What it takes at first; [`SubscriptionHandle::credit`] adds to it.
    pub credit: Credit,
    /// How many deliveries may wait for their acknowledgement at once.
    pub in_flight_max: usize,
    /// How long it has to acknowledge; the bus's own default if not given.
    pub ack_deadline: Option<Duration>,
    /// Where a group begins that does not exist yet.
    pub start: GroupStart,
}

impl SubscribeOptions {
    /// All streams, from the beginning, with as much credit as may be in flight.
    pub fn new(group: impl Into<String>) -> Self {
        Self {
            group: group.into(),
            consumer: String::new(),
            streams: Vec::new(),
            credit: Credit::messages(usize::MAX),
            in_flight_max: 1_024,
            ack_deadline: None,
            start: GroupStart::Beginning,
        }
    }
}

/// Why a subscription was not made.
#[derive(Debug, thiserror::Error)]
pub enum SubscribeError {
    /// The group has no name, or one that is too long.
    #[error("a consumer group's name has 1 to {GROUP_BYTES_MAX} bytes, this one {0}")]
    GroupName(usize),
    /// The consumer's name is too long.
    #[error("a consumer's name has at most {GROUP_BYTES_MAX} bytes, this one {0}")]
    ConsumerName(usize),
    /// A stream that the bus does not have.
    #[error("there is no stream `{name}`; the bus has {known}")]
    UnknownStream {
        /// What was asked for.
        name: StreamName,
        /// What there is.
        known: String,
    },
    /// Nothing could ever be delivered.
    #[error("at least one delivery must be allowed in flight")]
    NoneInFlight,
    /// The bus is going down.
    #[error("the bus is shutting down")]
    ShuttingDown,
}

/// A message in the hands of a subscriber.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Names it in an acknowledgement.
    pub id: DeliveryId,
    /// Where it was read.
    pub stream: StreamName,
    /// Its entry there.
    pub entry: EntryId,
    /// The message.
    pub message: Arc<Message>,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// How often this entry has been delivered, this time included.
    pub deliveries: u32,
    /// The span that what the subscriber does belongs under, if its trace is told.
    pub trace: Option<TraceContext>,
}

/// A subscriber's no.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nack {
    /// Whether the message can never be handled.
    pub poison: bool,
    /// When to try again, if the subscriber knows.
    pub delay: Option<Duration>,
    /// Why, for people.
    pub reason: String,
}

/// The delivery is not in flight: it was settled, it timed out, or it never was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("delivery {} is not in flight: settled, timed out, or never made", .0.0)]
pub struct NotInFlight(pub DeliveryId);

/// A subscription. Dropping it is losing the subscriber: what is in flight has then failed, and what
/// was only read ahead goes to others at once. [`Subscription::close`] ends it in good order.
pub struct Subscription {
    desk: Arc<Desk>,
    shared: Arc<Shared>,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("desk", &self.desk)
            .finish_non_exhaustive()
    }
}

impl Subscription {
    pub(super) fn start(
        shared: &Arc<Shared>,
        options: &SubscribeOptions,
    ) -> Result<Self, SubscribeError> {
        let streams = check(shared, options)?;
        if shared.shutdown.is_cancelled() {
            return Err(SubscribeError::ShuttingDown);
        }
        let known = &shared.config.streams;
        let (mut urgent, usual): (Vec<_>, Vec<_>) = streams
            .into_iter()
            .partition(|stream| known.is_urgent(stream));
        // Of what is read together, a broadcast comes first.
        urgent.sort_by_key(|stream| *stream != known.control);
        let number = shared.subscriptions.fetch_add(1, Ordering::Relaxed);
        let consumer = consumer_name(&shared.config.host, &options.consumer, number);
        let lanes = [urgent, usual];
        let readers = lanes.iter().filter(|streams| !streams.is_empty()).count();
        let desk = Arc::new(Desk::new(shared, options, lanes[1].len(), readers));
        let mut members = Vec::new();
        for (streams, suffix) in lanes.into_iter().zip(["!", ""]) {
            if streams.is_empty() {
                continue;
            }
            let consumer: Arc<str> = format!("{consumer}{suffix}").into();
            members.push((Arc::clone(&consumer), streams.clone()));
            let reader = Reader::new(Arc::clone(shared), Arc::clone(&desk), consumer, streams);
            shared.tasks.spawn(reader.run(options.start));
        }
        let settler = Settler::new(Arc::clone(shared), Arc::clone(&desk), members);
        shared.tasks.spawn(settler.run());
        shared.metrics.subscribers.inc();
        Ok(Self {
            desk,
            shared: Arc::clone(shared),
        })
    }

    /// The next delivery, as soon as there are a message and credit for it. `None` when the bus
    /// shuts down. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Delivery> {
        let stop = &self.shared.shutdown;
        tokio::select! {
            biased;
            () = stop.cancelled() => None,
            delivery = self.desk.next() => Some(delivery),
        }
    }

    /// What can be delivered right now after a [`Self::next`], up to `max` deliveries.
    pub fn ready(&mut self, max: usize) -> Vec<Delivery> {
        std::iter::from_fn(|| self.desk.try_next())
            .take(max)
            .collect()
    }

    /// See [`SubscriptionHandle::ack`].
    ///
    /// # Errors
    ///
    /// If the delivery is not in flight.
    pub fn ack(&self, id: DeliveryId) -> Result<(), NotInFlight> {
        self.desk.reply(id, Reply::Ack)
    }

    /// See [`SubscriptionHandle::nack`].
    ///
    /// # Errors
    ///
    /// If the delivery is not in flight.
    pub fn nack(&self, id: DeliveryId, nack: Nack) -> Result<(), NotInFlight> {
        self.desk.reply(id, Reply::Nack(nack))
    }

    /// The half that answers, for use from elsewhere.
    #[must_use]
    pub fn handle(&self) -> SubscriptionHandle {
        SubscriptionHandle(Arc::clone(&self.desk))
    }

    /// Waits until nothing is in flight, or until the bus has waited long enough.
    pub async fn drained(&self) {
        tokio::select! {
            biased;
            () = self.desk.idle() => {}
            () = self.shared.abandon.cancelled() => {}
        }
    }

    /// Ends the subscription in good order: what was not acknowledged goes to others at once, and
    /// does not count as failed.
    pub fn close(self) {
        self.desk.close(Close::Released);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let going_down = self.shared.shutdown.is_cancelled();
        self.desk.close(if going_down {
            Close::Released
        } else {
            Close::Lost
        });
        self.shared.metrics.subscribers.dec();
    }
}

/// Answers deliveries. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SubscriptionHandle(Arc<Desk>);

impl SubscriptionHandle {
    /// The message was handled.
    ///
    /// # Errors
    ///
    /// If the delivery is not in flight.
    pub fn ack(&self, id: DeliveryId) -> Result<(), NotInFlight> {
        self.0.reply(id, Reply::Ack)
    }

    /// The message was not handled; the dead-letter policy says what follows.
    ///
    /// # Errors
    ///
    /// If the delivery is not in flight.
    pub fn nack(&self, id: DeliveryId, nack: Nack) -> Result<(), NotInFlight> {
        self.0.reply(id, Reply::Nack(nack))
    }

    /// The subscriber needs until `by` from now.
    ///
    /// # Errors
    ///
    /// If the delivery is not in flight.
    pub fn extend(&self, id: DeliveryId, by: Duration) -> Result<(), NotInFlight> {
        self.0.extend(id, by)
    }

    /// The subscriber takes `more`.
    pub fn credit(&self, more: Credit) {
        self.0.credit(more);
    }
}

fn check(shared: &Shared, options: &SubscribeOptions) -> Result<Vec<StreamName>, SubscribeError> {
    let group = options.group.len();
    if group == 0 || group > GROUP_BYTES_MAX {
        return Err(SubscribeError::GroupName(group));
    }
    if options.consumer.len() > GROUP_BYTES_MAX {
        return Err(SubscribeError::ConsumerName(options.consumer.len()));
    }
    if options.in_flight_max == 0 {
        return Err(SubscribeError::NoneInFlight);
    }
    let known: Vec<_> = shared.config.streams.destinations().cloned().collect();
    let unknown = options
        .streams
        .iter()
        .find(|stream| !known.contains(stream));
    if let Some(name) = unknown {
        return Err(SubscribeError::UnknownStream {
            name: name.clone(),
            known: known.join(", "),
        });
    }
    Ok(if options.streams.is_empty() {
        known
    } else {
        options.streams.clone()
    })
}

/// A consumer name that no other subscription has, on this host or another.
fn consumer_name(host: &str, hint: &str, number: u64) -> String {
    let unique = uuid::Uuid::now_v7().simple();
    if hint.is_empty() {
        format!("{host}-{number}-{unique}")
    } else {
        format!("{host}-{hint}-{number}-{unique}")
    }
}
