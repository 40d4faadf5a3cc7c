//! `Subscribe`: a stream of deliveries out, and a task that listens to what comes back.
//!
//! The two are apart so that acknowledgements take effect while the client is slow to read. When
//! the client closes its side, the subscription ends in good order and what is in flight goes to
//! others at once. When the connection breaks, the subscriber is lost: what was in its hands has
//! failed, and the dead-letter policy says what follows.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use oona_core::delivery::Credit;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming};

use super::convert;
use super::publish::going_down;
use crate::bus::{
    Bus, Delivery, DeliveryId, Nack, SubscribeError, SubscribeOptions, Subscription,
    SubscriptionHandle,
};
use crate::proto::subscribe_request::Request;
use crate::proto::subscribe_response::Response;
use crate::proto::{self, SubscribeRequest, SubscribeResponse};
use crate::store::{GroupStart, StreamName};

/// How many deliveries go out as one message at most.
const BATCH_MAX: usize = 256;

/// How many bytes of payload a batch aims at. A batch holds at least one delivery.
const BATCH_BYTES: usize = 1024 * 1024;

/// How many deliveries of one subscriber may wait for their acknowledgement at most, whatever its
/// credit. Bounds what a lost subscriber can leave behind.
const IN_FLIGHT_MAX: usize = 65_536;

/// How many notices of lapsed answers may wait for a client that does not read. More are counted as
/// said: they have no effect other than to be told.
const LAPSED_MAX: usize = 64;

/// How long a client may take to say what it wants.
const OPEN_MS_MAX: u64 = 10_000;

type Requests = Streaming<SubscribeRequest>;
type Responses = BoxStream<'static, Result<SubscribeResponse, Status>>;

/// Serves one subscriber. The seat is free again when the stream is dropped.
pub(super) fn open(bus: Bus, requests: Requests, seat: OwnedSemaphorePermit) -> Responses {
    let opened = async move {
        match start(&bus, requests).await {
            Ok(session) => session.responses(seat),
            Err(status) => stream::once(async move { Err(status) }).boxed(),
        }
    };
    stream::once(opened).flatten().boxed()
}

async fn start(bus: &Bus, mut requests: Requests) -> Result<Session, Status> {
    let patience = Duration::from_millis(OPEN_MS_MAX);
    let first = tokio::time::timeout(patience, requests.message()).await;
    let first =
        first.map_err(|_| Status::deadline_exceeded("the first request did not come"))??;
    let Some(Request::Open(open)) = first.and_then(|first| first.request) else {
        return Err(Status::invalid_argument("the first request must be `open`"));
    };
    let subscription = bus
        .subscribe(options(open)?)
        .map_err(|error| refusal(&error))?;
    let (lapsed_out, lapsed) = mpsc::channel(LAPSED_MAX);
    let (ended_out, ended) = oneshot::channel();
    let listener = Listener {
        handle: subscription.handle(),
        lapsed: lapsed_out,
    };
    let listening = tokio::spawn(async move {
        let end = listener.listen(requests).await;
        // Nobody waits for it any more if the stream of deliveries was dropped.
        let _ = ended_out.send(end);
    });
    Ok(Session {
        waiting: VecDeque::from([Response::Opened(proto::Opened {})]),
        subscription,
        lapsed,
        ended,
        _listening: AbortOnDropHandle::new(listening),
    })
}

fn options(open: proto::Open) -> Result<SubscribeOptions, Status> {
    let start = proto::Start::try_from(open.start)
        .map_err(|_| Status::invalid_argument(format!("start {} is unknown", open.start)))?;
    let deadline = match open.ack_deadline_ms {
        Some(0) => return Err(Status::invalid_argument("ack_deadline_ms must not be 0")),
        other => other.map(Duration::from_millis),
    };
    Ok(SubscribeOptions {
        consumer: open.consumer,
        streams: open
            .streams
            .iter()
            .map(|name| StreamName::from(name.as_str()))
            .collect(),
        credit: Credit {
            messages: open.credit as usize,
            bytes: open.credit_bytes.map_or(usize::MAX, bytes),
        },
        in_flight_max: IN_FLIGHT_MAX,
        ack_deadline: deadline,
        start: match start {
            proto::Start::Unspecified | proto::Start::Beginning => GroupStart::Beginning,
            proto::Start::End => GroupStart::End,
        },
        ..SubscribeOptions::new(open.group)
    })
}

fn bytes(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn refusal(error: &SubscribeError) -> Status {
    match error {
        SubscribeError::ShuttingDown => going_down(),
        other => Status::invalid_argument(other.to_string()),
    }
}

/// How the client's side ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It has said all that it wanted to say.
    Closed,
    /// The connection broke.
    Broken,
}

/// Listens to one subscriber.
struct Listener {
    handle: SubscriptionHandle,
    lapsed: mpsc::Sender<Vec<u64>>,
}

impl Listener {
    async fn listen(self, mut requests: Requests) -> End {
        loop {
            match requests.message().await {
                Ok(Some(SubscribeRequest {
                    request: Some(request),
                })) => self.carry_out(request),
                // An empty request, or one from a newer client: nothing that can be carried out.
                Ok(Some(SubscribeRequest { request: None })) => {}
                Ok(None) => return End::Closed,
                Err(_) => return End::Broken,
            }
        }
    }

    fn carry_out(&self, request: Request) {
        let mut lapsed = Vec::new();
        match request {
            Request::Open(_) => {}
            Request::Credit(more) => self.handle.credit(Credit {
                messages: more.messages as usize,
                bytes: bytes(more.bytes),
            }),
            Request::Ack(ack) => {
                let ids = ack.delivery_ids.into_iter();
                lapsed.extend(ids.filter(|id| self.handle.ack(DeliveryId(*id)).is_err()));
            }
            Request::Nack(nack) => {
                let id = DeliveryId(nack.delivery_id);
                let nack = Nack {
                    poison: nack.poison,
                    delay: nack.delay_ms.map(Duration::from_millis),
                    reason: nack.reason,
                };
                lapsed.extend(self.handle.nack(id, nack).err().map(|_| id.0));
            }
            Request::Extend(extend) => {
                let id = DeliveryId(extend.delivery_id);
                let by = Duration::from_millis(extend.by_ms);
                lapsed.extend(self.handle.extend(id, by).err().map(|_| id.0));
            }
        }
        if !lapsed.is_empty() && self.lapsed.try_send(lapsed).is_err() {
            tracing::debug!("a subscriber does not read that its answers have lapsed");
        }
    }
}

/// The side that talks to one subscriber.
struct Session {
    /// What is ready to be sent.
    waiting: VecDeque<Response>,
    subscription: Subscription,
    lapsed: mpsc::Receiver<Vec<u64>>,
    ended: oneshot::Receiver<End>,
    _listening: AbortOnDropHandle<()>,
}

/// What happens next in a session.
enum Event {
    Delivery(Delivery),
    Lapsed(Vec<u64>),
    Ended(End),
    ShuttingDown,
}

impl Session {
    fn responses(self, seat: OwnedSemaphorePermit) -> Responses {
        let state = (Some(self), seat);
        let step = |(session, seat): (Option<Self>, OwnedSemaphorePermit)| async move {
            let mut session = session?;
            match session.step().await {
                Ok(response) => {
                    let response = SubscribeResponse {
                        response: Some(response),
                    };
                    Some((Ok(response), (Some(session), seat)))
                }
                Err(None) => {
                    session.subscription.close();
                    None
                }
                Err(Some(status)) => Some((Err(status), (None, seat))),
            }
        };
        stream::unfold(state, step).boxed()
    }

    /// The next response; or the end, with a status if it is not the client's wish.
    async fn step(&mut self) -> Result<Response, Option<Status>> {
        loop {
            if let Some(response) = self.waiting.pop_front() {
                return Ok(response);
            }
            match self.event().await {
                Event::Delivery(first) => self.batch(&first),
                Event::Lapsed(delivery_ids) => {
                    return Ok(Response::Lapsed(proto::Lapsed { delivery_ids }));
                }
                Event::Ended(End::Closed) => return Err(None),
                Event::Ended(End::Broken) => return Err(Some(Status::cancelled("broken off"))),
                Event::ShuttingDown => {
                    self.drain().await;
                    return Err(Some(going_down()));
                }
            }
        }
    }

    async fn event(&mut self) -> Event {
        tokio::select! {
            biased;
            end = &mut self.ended => Event::Ended(end.unwrap_or(End::Broken)),
            Some(lapsed) = self.lapsed.recv() => Event::Lapsed(lapsed),
            delivery = self.subscription.next() => {
                delivery.map_or(Event::ShuttingDown, Event::Delivery)
            }
        }
    }

    /// Puts everything that is deliverable right now into as few messages as the size of a batch
    /// allows.
    fn batch(&mut self, first: &Delivery) {
        let mut batch = vec![convert::delivery(first)];
        let mut bytes = first.message.payload.len();
        for delivery in self.subscription.ready(BATCH_MAX - 1) {
            let size = delivery.message.payload.len();
            if bytes + size > BATCH_BYTES {
                let deliveries = std::mem::take(&mut batch);
                self.waiting
                    .push_back(Response::Deliveries(proto::Deliveries { deliveries }));
                bytes = 0;
            }
            bytes += size;
            batch.push(convert::delivery(&delivery));
        }
        self.waiting
            .push_back(Response::Deliveries(proto::Deliveries {
                deliveries: batch,
            }));
    }

    /// Gives the client the time that a shutdown allows to answer what it has in hand.
    async fn drain(&mut self) {
        tokio::select! {
            () = self.subscription.drained() => {}
            _ = &mut self.ended => {}
        }
    }
}
