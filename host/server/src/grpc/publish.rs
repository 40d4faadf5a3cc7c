//! `Publish` and `PublishStream`.

use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, Stream, StreamExt};
use oona_core::outcome::{Outcome, RejectCause};
use tonic::Status;

use super::convert::{self, Oversize};
use crate::bus::{Bus, PendingOutcome};
use crate::proto::{PublishRequest, PublishResponse};

/// Publishes one message.
pub(super) async fn one(bus: &Bus, request: PublishRequest) -> Result<PublishResponse, Status> {
    let sequence = request.sequence;
    let oversize = Oversize::of(request.payload.len(), &bus.config().limits);
    let draft =
        convert::draft(request).map_err(|error| Status::invalid_argument(error.to_string()))?;
    match bus.publish(draft).await {
        Outcome::Rejected {
            cause: RejectCause::ShuttingDown,
            ..
        } => Err(going_down()),
        outcome => Ok(convert::response(sequence, outcome, oversize)),
    }
}

/// Publishes what comes, in the order in which it comes, and answers as outcomes are known. No more
/// than `in_flight_max` wait for their outcome; the rest waits with the client.
pub(super) fn many(
    bus: Bus,
    requests: impl Stream<Item = Result<PublishRequest, Status>> + Send + 'static,
    in_flight_max: usize,
) -> BoxStream<'static, Result<PublishResponse, Status>> {
    let stop = bus.clone();
    let enqueuing = bus.clone();
    let ended = bus;
    requests
        .take_until(async move { stop.shutting_down().await })
        .then(move |request| enqueue(enqueuing.clone(), request))
        .map(|queued| outcome(queued).boxed())
        .buffer_unordered(in_flight_max)
        .chain(
            stream::once(async move { ended.shutting_down().now_or_never() }).filter_map(
                |going_down_now| async move { going_down_now.map(|()| Err(going_down())) },
            ),
        )
        .boxed()
}

/// A request on its way to its outcome.
enum Queued {
    Pending {
        sequence: u64,
        pending: PendingOutcome,
        oversize: Option<Oversize>,
    },
    Answered(Box<PublishResponse>),
    Broken(Box<Status>),
}

async fn enqueue(bus: Bus, request: Result<PublishRequest, Status>) -> Queued {
    let request = match request {
        Ok(request) => request,
        Err(status) => return Queued::Broken(Box::new(status)),
    };
    let sequence = request.sequence;
    let oversize = Oversize::of(request.payload.len(), &bus.config().limits);
    match convert::draft(request) {
        Ok(draft) => Queued::Pending {
            sequence,
            pending: bus.enqueue(draft).await,
            oversize,
        },
        Err(error) => Queued::Answered(Box::new(convert::malformed(sequence, &error))),
    }
}

async fn outcome(queued: Queued) -> Result<PublishResponse, Status> {
    match queued {
        Queued::Pending {
            sequence,
            pending,
            oversize,
        } => Ok(convert::response(sequence, pending.await, oversize)),
        Queued::Answered(response) => Ok(*response),
        Queued::Broken(status) => Err(*status),
    }
}

/// What a client hears when the bus goes down: another host may be up.
pub(super) fn going_down() -> Status {
    Status::unavailable("the bus is shutting down")
}
