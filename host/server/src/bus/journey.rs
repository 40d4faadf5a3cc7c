//! What is noted of a message on its way, for whoever asks for its journey.
//!
//! Nothing here decides, waits or fails. Each function is called where a step ends, by the task that it ended
//! in, and looks first whether the message is followed at all.

mod find;

use std::sync::Arc;
use std::time::Duration;

use oona_core::Timestamp;
use oona_core::entry::EntryId;
use oona_core::envelope::{Message, id_hash};
use oona_core::journey::{Journey, Place, Step, Visitor, What};
use oona_core::outcome::RejectCause;
use oona_core::policy::{Failure, Fate, FateVerdict};
use oona_core::trace_context::{TRACEPARENT, TraceContext};
use tokio::time::Instant;

use super::admission::{Admitter, Ruling};
use super::desk::{Content, Held, Verdict};
use super::shared::Shared;
use super::subscription::Delivery;
use super::writer::Asker;
use crate::metrics::Step as Settled;
use crate::store::{Append, Step as Write, StoreError, StreamName, Written};

pub use self::find::{JourneyView, StepView};

/// When a group of publishes was decided on, and how long that took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decided {
    pub(super) now: Timestamp,
    pub(super) began: Instant,
    pub(super) took: Duration,
}

/// Notes a step of a message that is to be noted, and begins its journey if there is none.
fn visit(
    shared: &Shared,
    message: &Message,
    (hash, troubled): (u64, bool),
    note: impl FnOnce(&mut Journey),
) {
    let context = message.attributes.get(TRACEPARENT);
    let context = context.and_then(|text| TraceContext::parse(text));
    let trace_id = context.map(|context| context.trace_id_hex());
    let visitor = Visitor {
        hash,
        id: &message.id,
        trace_id: trace_id.as_deref(),
        troubled,
    };
    shared.journeys.visit(&visitor, note);
}

/// A group was decided on.
pub(super) fn decided(
    shared: &Shared,
    admitter: &Admitter,
    decided: Decided,
    messages: &[Message],
    askers: &[(Asker, bool)],
) {
    shared.journeys.offer(decided.now, messages.len());
    let all = messages.iter().zip(askers).zip(admitter.rulings());
    for (index, ((message, (asker, _)), ruling)) in all.enumerate() {
        let Decided { now, began, took } = decided;
        let troubled = ruling.is_trouble();
        if !shared.journeys.admits(now, asker.event, troubled) {
            continue;
        }
        let waited = began.saturating_duration_since(asker.since);
        visit(shared, message, (asker.event, troubled), |journey| {
            let policy = Step::new(now + took, What::Policy, admitter.explain(index));
            journey.add(published(now - waited, message));
            journey.add(Step::new(now, What::Queue, "").took(waited));
            journey.add(policy.took(took));
        });
    }
}

fn published(at: Timestamp, message: &Message) -> Step {
    Step::new(at, What::Publish, about(message))
}

/// What a message is, in a few words.
pub(super) fn about(message: &Message) -> String {
    let Message {
        message_type,
        priority,
        source,
        payload,
        ..
    } = message;
    let size = payload.len();
    let priority = priority.name();
    format!("type {message_type}, priority {priority}, {size} bytes, by `{source}`")
}

/// A publish was refused before policies were asked. Under an id that cannot be one nobody looks for it.
pub(super) fn turned_away(shared: &Shared, now: Timestamp, message: &Message, asker: &Asker) {
    shared.journeys.offer(now, 1);
    let can_be = 1..=shared.config.limits.id_bytes_max;
    if !can_be.contains(&message.id.len()) || !shared.journeys.admits(now, asker.event, true) {
        return;
    }
    visit(shared, message, (asker.event, true), |journey| {
        journey.add(published(now - asker.since.elapsed(), message));
    });
}

/// A publish has been told that it was not written.
pub(super) fn rejected(
    shared: &Shared,
    asker: &Asker,
    (cause, reason, detail): (RejectCause, &str, &str),
) {
    let step = || {
        let detail = format!("{} ({reason}): {detail}", cause.name());
        Step::new((shared.clock)(), What::Reject, detail).took(asker.since.elapsed())
    };
    shared.journeys.add(asker.event, step);
}

/// A pipeline was written, or was not. What failed is followed from now on if it was not before.
pub(super) fn appended<'a>(
    shared: &Shared,
    (asked, answered, took): (Timestamp, Timestamp, Duration),
    appends: impl Iterator<Item = (&'a Append, u64)>,
    written: &Result<Vec<Result<Written, StoreError>>, StoreError>,
) {
    for (index, (append, event)) in appends.enumerate() {
        let result = match written {
            Ok(results) => results.get(index).and_then(|result| result.as_ref().ok()),
            Err(_) => None,
        };
        let Some(written) = result else {
            if shared.journeys.admits(answered, event, true)
                && let Ok(message) = Message::decode(&append.record.payload, EntryId::MIN)
            {
                visit(shared, &message, (event, true), |_| {});
            }
            continue;
        };
        let (stream, entry) = (&append.stream, written.id);
        shared.journeys.change(event, |journey| {
            let detail = match &written.before {
                None => format!("to `{stream}` as entry {entry}"),
                Some(_) => format!("it was there already, as entry {entry}"),
            };
            if written.before.is_none() {
                journey.place = Some(place(stream, entry));
            }
            let at = written_at(entry, (asked, answered));
            journey.add(Step::new(at, What::Append, detail).took(took));
        });
    }
}

/// When an entry was written, by the clock of the store as far as it agrees with this one.
fn written_at(entry: EntryId, (asked, answered): (Timestamp, Timestamp)) -> Timestamp {
    Timestamp::from_millis(entry.ms).clamp(asked, answered)
}

fn place(stream: &StreamName, entry: EntryId) -> Place {
    Place {
        stream: Arc::clone(stream),
        entry,
    }
}

/// A message was handed to a subscriber, after it had waited in the stream.
pub(super) fn delivered(
    shared: &Shared,
    now: Timestamp,
    group: &Arc<str>,
    delivery: &Delivery,
    (hash, waited): (u64, Duration),
) {
    shared.journeys.offer(now, 1);
    let (message, troubled) = (&delivery.message, delivery.redelivered);
    if !shared.journeys.admits(now, hash, troubled) {
        return;
    }
    visit(shared, message, (hash, troubled), |journey| {
        let (stream, entry) = (&delivery.stream, delivery.entry);
        seen_in(shared, journey, stream, entry);
        let detail = format!("from `{stream}`, entry {entry}");
        let step = Step::new(now, What::Deliver, detail).took(waited);
        journey.add(step.of(group, message.attempt.saturating_add(1)));
    });
}

/// An entry was seen. If nothing is known of what was before, its id tells when it was written.
fn seen_in(shared: &Shared, journey: &mut Journey, stream: &StreamName, entry: EntryId) {
    if journey.steps.is_empty() {
        let written = Timestamp::from_millis(entry.ms);
        let one_in = shared.journeys.one_in();
        let detail = format!(
            "to `{stream}` as entry {entry}; its publish was not among those followed here (one in {one_in})"
        );
        journey.add(Step::new(written, What::Append, detail));
    }
    journey.place = Some(place(stream, entry));
}

/// A subscriber has answered, or has not in time.
pub(super) fn answered(
    shared: &Shared,
    now: Timestamp,
    group: &Arc<str>,
    held: &Held,
    (outcome, took): (&'static str, Duration),
) {
    let attempt = held.subject.attempt.saturating_add(1);
    let step = || {
        let step = Step::new(now, What::Handler, outcome).took(took);
        step.of(group, attempt)
    };
    shared.journeys.add(held.subject.id, step);
}

/// What a group had in hand was settled, and the store knows.
pub(super) fn settled(
    shared: &Shared,
    group: &Arc<str>,
    (held, verdict): &(Held, Verdict),
    (write, step): (&Write, Settled),
    fate: Option<&(Fate, String)>,
) {
    let (now, hash) = ((shared.clock)(), held.subject.id);
    let attempt = held.subject.attempt.saturating_add(1);
    let follows = || {
        let (what, detail) = match (write, step, verdict) {
            (Write::Ack, Settled::Discard, _) => (What::Discard, by_policy(shared, fate, "")),
            (Write::Ack, ..) => (What::Ack, String::new()),
            (Write::Retry { .. }, _, Verdict::Release) => (What::Release, String::new()),
            (Write::Retry { at, .. }, ..) => {
                let wait = at.map_or(Duration::ZERO, |at| at.since(now));
                let when = format!("due in {} ms, ", wait.as_millis());
                (What::Retry, by_policy(shared, fate, &when))
            }
            (Write::DeadLetter { stream, .. }, ..) => {
                let to = format!("to `{stream}`, ");
                (What::DeadLetter, by_policy(shared, fate, &to))
            }
        };
        Step::new(now, what, detail).of(group, attempt)
    };
    let Verdict::Failed {
        failure, detail, ..
    } = verdict
    else {
        shared.journeys.add(hash, follows);
        return;
    };
    let Content::Message(message) = &held.content else {
        return;
    };
    let what = match failure {
        Failure::HandlerError | Failure::Poison => What::Nack,
        _ => What::Fail,
    };
    if !shared.journeys.admits(now, hash, true) {
        return;
    }
    visit(shared, message, (hash, true), |journey| {
        let failed = Step::new(now, what, format!("{}: {detail}", failure.name()));
        seen_in(shared, journey, &held.stream, held.entry);
        journey.add(failed.of(group, attempt));
        journey.add(follows());
    });
}

/// Why and by whom a failed delivery has its fate.
pub(super) fn by_policy(shared: &Shared, fate: Option<&(Fate, String)>, begins: &str) -> String {
    let Some((Fate { verdict, reason }, by)) = fate else {
        return begins.to_owned();
    };
    let reason = shared.name(*reason);
    match verdict {
        FateVerdict::DeadLetter { class } => {
            let class = shared.name(*class);
            format!("{begins}class `{class}`, reason `{reason}`, by {by}")
        }
        _ => format!("{begins}reason `{reason}`, by {by}"),
    }
}

/// A message went back from the dead letters.
pub(super) fn redriven(
    shared: &Shared,
    asked: Timestamp,
    message: &Message,
    (to, entry): (&StreamName, EntryId),
) {
    let now = (shared.clock)().max(asked);
    let at = written_at(entry, (asked, now));
    let hash = id_hash(&message.id);
    if !shared.journeys.admits(now, hash, true) {
        return;
    }
    visit(shared, message, (hash, true), |journey| {
        journey.place = Some(place(to, entry));
        let detail = format!("to `{to}` as entry {entry}");
        journey.add(Step::new(at, What::Redrive, detail));
    });
}

/// A broadcast was written.
pub(super) fn broadcast(
    shared: &Shared,
    message: &Message,
    (began, took): (Timestamp, Duration),
    entry: EntryId,
) {
    let hash = id_hash(&message.id);
    shared.journeys.offer(began, 1);
    if !shared.journeys.wants(hash) {
        return;
    }
    let stream = &shared.config.streams.control;
    visit(shared, message, (hash, false), |journey| {
        journey.add(published(began, message));
        journey.place = Some(place(stream, entry));
        let detail = format!("to `{stream}` as entry {entry}, a broadcast");
        journey.add(Step::new(began + took, What::Append, detail).took(took));
    });
}

impl Ruling {
    /// Whether it went otherwise than routing said.
    const fn is_trouble(&self) -> bool {
        match self {
            Self::Write { rerouted, .. } => *rerouted,
            Self::Refuse { .. } => true,
        }
    }
}
