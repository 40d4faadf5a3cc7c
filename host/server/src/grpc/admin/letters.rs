//! Dead letters.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use oona_core::Timestamp;
use oona_core::dead_letter::{DeadLetter, Filter};
use oona_core::entry::EntryId;
use oona_core::policy::Failure;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tonic::{Response, Status};

use super::convert::json;
use crate::bus::{Bus, DeadLetterView, LetterError, LettersMeant, Stroll};
use crate::chain::chain;
use crate::proto;
use crate::proto::get_dead_letter_response::Field;
use crate::record::{Message, MessageType};
use crate::store::StoreError;

/// How many a list has unless it is asked for another number, and at most.
const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1_000;

/// How many letters are redriven in a second, unless another number is asked for.
const PER_SECOND_DEFAULT: u32 = 100;

/// The most that a request can ask for, as `oona dlq redrive` has it.
const PER_SECOND_MAX: u32 = 100_000;

pub(super) async fn list(
    bus: &Bus,
    request: proto::ListDeadLettersRequest,
) -> Result<Response<proto::ListDeadLettersResponse>, Status> {
    let filter = filter(bus.now(), request.filter)?;
    let after = match &*request.after {
        "" => None,
        after => Some(entry_id(after)?),
    };
    let limit = match request.limit {
        0 => LIMIT_DEFAULT,
        limit => LIMIT_MAX.min(limit as usize),
    };
    let found = bus.find_dead_letters(&filter, after, limit).await;
    let found = found.map_err(|error| unavailable(&error))?;
    Ok(Response::new(proto::ListDeadLettersResponse {
        letters: found.letters.into_iter().map(letter).collect(),
        next: found.next.map_or_else(String::new, |next| next.to_string()),
        foreign: found.foreign,
    }))
}

pub(super) async fn get(
    bus: &Bus,
    id: &str,
) -> Result<Response<proto::GetDeadLetterResponse>, Status> {
    let found = bus.dead_letter(entry_id(id)?).await;
    let (view, filed, original) = found.map_err(|error| refused(&error))?;
    let message = filed.message();
    let fields = original.fields.into_iter();
    Ok(Response::new(proto::GetDeadLetterResponse {
        letter: Some(letter(view)),
        original: fields.map(|(name, value)| Field { name, value }).collect(),
        verified: original.verified,
        payload: message.map_or_else(Default::default, |message| message.payload.clone()),
        message_json: json(&in_words(&filed))?,
    }))
}

/// The message of a dead letter, as case files have it.
fn in_words(letter: &DeadLetter) -> Option<Message> {
    let message = letter.message()?;
    let payload = std::str::from_utf8(&message.payload).unwrap_or_default();
    Some(Message {
        id: message.id.clone(),
        message_type: MessageType(message.message_type),
        priority: message.priority,
        source: message.source.clone(),
        key: message.key.clone(),
        attempt: message.attempt,
        created_at: message.created_at.map(Timestamp::as_millis),
        expires_at: message.expires_at.map(Timestamp::as_millis),
        attributes: message.attributes.clone(),
        payload: payload.to_owned(),
        payload_size: u32::try_from(message.payload.len()).ok(),
        ..Message::default()
    })
}

pub(super) async fn redrive(
    bus: &Bus,
    who: &str,
    request: proto::RedriveDeadLettersRequest,
) -> Result<Response<BoxStream<'static, Result<proto::MovedDeadLetter, Status>>>, Status> {
    let to = Some(request.to.clone()).filter(|to| !to.is_empty());
    if let Some(to) = &to {
        let known = bus.destination(EntryId::MIN, to);
        known.map_err(|_| Status::invalid_argument(format!("there is no stream `{to}`")))?;
    }
    let per_second = match request.per_second {
        0 => PER_SECOND_DEFAULT,
        per_second @ 1..=PER_SECOND_MAX => per_second,
        per_second => {
            let what = format!("{per_second} letters per second; use 1 to {PER_SECOND_MAX}");
            return Err(Status::invalid_argument(what));
        }
    };
    let order = Order {
        act: if request.dry_run {
            Act::Tell
        } else {
            Act::Redrive { to }
        },
        meant: meant(bus, &request.ids, request.filter.clone())?,
        limit: request.limit,
        per_second: Some(per_second),
    };
    tracing::info!(target: "oona::audit", by = who, why = request.message, ?order, "dead letters");
    order.carried_out(bus).await
}

pub(super) async fn purge(
    bus: &Bus,
    who: &str,
    request: proto::PurgeDeadLettersRequest,
) -> Result<Response<BoxStream<'static, Result<proto::MovedDeadLetter, Status>>>, Status> {
    let order = Order {
        act: if request.dry_run {
            Act::Tell
        } else {
            Act::Purge
        },
        meant: meant(bus, &request.ids, request.filter.clone())?,
        limit: request.limit,
        per_second: None,
    };
    tracing::info!(target: "oona::audit", by = who, why = request.message, ?order, "dead letters");
    order.carried_out(bus).await
}

pub(super) async fn stats(
    bus: &Bus,
    request: proto::DeadLetterStatsRequest,
) -> Result<Response<proto::DeadLetterStatsResponse>, Status> {
    let filter = filter(bus.now(), request.filter)?;
    let tally = bus.tally_dead_letters(&filter).await;
    let tally = tally.map_err(|error| unavailable(&error))?;
    Ok(Response::new(proto::DeadLetterStatsResponse {
        stats_json: json(&tally)?,
    }))
}

/// What is done to each.
#[derive(Debug)]
enum Act {
    Redrive { to: Option<String> },
    Purge,
    Tell,
}

/// What somebody wants done to dead letters.
#[derive(Debug)]
struct Order {
    act: Act,
    meant: LettersMeant,
    limit: u64,
    per_second: Option<u32>,
}

/// An order that is being carried out: a step whenever the client takes an answer.
struct UnderWay {
    bus: Bus,
    stroll: Stroll,
    act: Act,
    left: u64,
    pace: Option<Interval>,
}

impl Order {
    async fn carried_out(
        self,
        bus: &Bus,
    ) -> Result<Response<BoxStream<'static, Result<proto::MovedDeadLetter, Status>>>, Status> {
        let stroll = bus.stroll(self.meant).await;
        let pace = self.per_second.map(|per_second| {
            let mut pace = interval(Duration::from_secs(1) / per_second);
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            pace
        });
        let under_way = UnderWay {
            bus: bus.clone(),
            stroll: stroll.map_err(|error| unavailable(&error))?,
            act: self.act,
            left: match self.limit {
                0 => u64::MAX,
                limit => limit,
            },
            pace,
        };
        let steps = stream::unfold(under_way, |mut under_way| async move {
            let step = under_way.step().await.transpose()?;
            Some((step, under_way))
        });
        Ok(Response::new(steps.boxed()))
    }
}

impl UnderWay {
    async fn step(&mut self) -> Result<Option<proto::MovedDeadLetter>, Status> {
        if self.left == 0 {
            return Ok(None);
        }
        let next = self.stroll.next().await;
        let Some(id) = next.map_err(|error| unavailable(&error))? else {
            return Ok(None);
        };
        self.left -= 1;
        let mut moved = proto::MovedDeadLetter {
            id: id.to_string(),
            ..Default::default()
        };
        let done = match &self.act {
            Act::Tell => self.bus.dead_letter(id).await.map(|_| "meant"),
            Act::Purge => {
                let purged = self.bus.purge(id).await;
                purged.map(|there| if there { "purged" } else { "gone" })
            }
            Act::Redrive { to } => {
                if let Some(pace) = &mut self.pace {
                    pace.tick().await;
                }
                let redriven = self.bus.redrive(id, to.as_deref()).await;
                redriven.map(|redriven| {
                    moved.stream = redriven.stream.to_string();
                    moved.entry = redriven.id;
                    "redriven"
                })
            }
        };
        moved.outcome = match done {
            Ok(outcome) => outcome,
            Err(LetterError::Gone(_)) => "gone",
            // Whatever comes next would fail too.
            Err(LetterError::Store { source, .. }) => return Err(unavailable(&source)),
            Err(error) => {
                moved.detail = chain(&error);
                "failed"
            }
        }
        .to_owned();
        Ok(Some(moved))
    }
}

fn meant(
    bus: &Bus,
    ids: &[String],
    given: Option<proto::DeadLetterFilter>,
) -> Result<LettersMeant, Status> {
    match (ids.is_empty(), given) {
        (false, None) => {
            let ids = ids.iter().map(|id| entry_id(id));
            Ok(LettersMeant::Ids(ids.collect::<Result<_, _>>()?))
        }
        (true, Some(given)) => Ok(LettersMeant::Fitting(filter(bus.now(), Some(given))?)),
        (false, Some(_)) => Err(Status::invalid_argument(
            "entries and a filter: send one of them",
        )),
        (true, None) => Err(Status::invalid_argument(
            "which dead letters? send their entries, or a filter; an empty one is all of them",
        )),
    }
}

fn filter(now: Timestamp, given: Option<proto::DeadLetterFilter>) -> Result<Filter, Status> {
    let given = given.unwrap_or_default();
    let text = |text: String| Some(text).filter(|text| !text.is_empty());
    let failure = text(given.failure).map(|name| {
        let known = Failure::ALL.into_iter();
        let mut known = known.filter(|failure| failure.name() == name);
        known.next().ok_or_else(|| {
            let names = Failure::ALL.map(Failure::name).join(", ");
            Status::invalid_argument(format!("no delivery fails by `{name}`; one of {names}"))
        })
    });
    let ago = |ms: u64| Timestamp::from_millis(now.as_millis().saturating_sub(ms));
    Ok(Filter {
        class: text(given.class),
        reason: text(given.reason),
        failure: failure.transpose()?,
        stream: text(given.stream),
        group: text(given.group),
        message_type: given.message_type,
        event_id: text(given.event_id),
        before: given.older_than_ms.map(ago),
        since: given.newer_than_ms.map(ago),
    })
}

fn entry_id(text: &str) -> Result<EntryId, Status> {
    let id = text.parse::<EntryId>();
    id.map_err(|error| Status::invalid_argument(error.to_string()))
}

fn letter(view: DeadLetterView) -> proto::DeadLetter {
    proto::DeadLetter {
        id: view.id,
        event_id: view.event_id,
        message_type: view.message_type,
        class: view.class,
        reason: view.reason,
        detail: view.detail,
        failure: view.failure,
        stream: view.stream,
        entry: view.entry,
        group: view.group,
        attempts: view.attempts,
        redrives: view.redrives,
        first_failed_ms: view.first_failed_ms,
        at_ms: view.at_ms,
        policy: view.policy,
        payload_size: view.payload_size as u64,
        attributes: view.attributes,
    }
}

fn refused(error: &LetterError) -> Status {
    let words = chain(error);
    match error {
        LetterError::Gone(_) => Status::not_found(words),
        LetterError::Store { .. } => Status::unavailable(words),
        LetterError::Unverifiable { .. }
        | LetterError::Undecodable { .. }
        | LetterError::UnknownStream { .. } => Status::failed_precondition(words),
    }
}

fn unavailable(error: &StoreError) -> Status {
    Status::unavailable(chain(error))
}
