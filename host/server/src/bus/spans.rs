//! The spans of a message on its way, by the semantic conventions of OpenTelemetry for messaging.
//!
//! ```text
//! publish            the producer's span above it, if there is one
//! ├─ queue
//! ├─ policy
//! ├─ append
//! └─ deliver         for each delivery, by whichever host makes it
//!    └─ process      while the subscriber has it; what it is handed as `traceparent`
//!       └─ ack | retry | dead_letter | discard
//! ```
//!
//! The publish writes its own id into the attribute `traceparent`; whoever delivers finds it there. The ids of
//! the others follow from the entry, the group and the number of the delivery.

use std::sync::Arc;
use std::time::Duration;

use oona_core::Timestamp;
use oona_core::entry::EntryId;
use oona_core::envelope::Message;
use oona_core::policy::{Failure, Fate};
use oona_core::trace_context::{TRACEPARENT, TRACESTATE, TraceContext};
use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;
use tokio::time::Instant;

use super::admission::Admitter;
use super::desk::{Content, Held, Verdict};
use super::journey::{self, Decided};
use super::shared::Shared;
use super::writer::Asker;
use crate::metrics::Step as Settled;
use crate::otel::Span;
use crate::store::StreamName;

/// The trace of a publish that is under way.
#[derive(Debug)]
pub(super) struct PublishTrace {
    context: TraceContext,
    parent: Option<u64>,
    began: Timestamp,
    event_id: String,
    bytes: usize,
}

/// Begins the span of a publish, as far as it belongs to a trace that is told, and writes its id into the
/// message. A `traceparent` that is malformed is dropped, and a new trace begins.
pub(super) fn begin(
    shared: &Shared,
    now: Timestamp,
    message: &mut Message,
) -> Option<Box<PublishTrace>> {
    if !shared.tracer.is_on() {
        return None;
    }
    let said = message.attributes.get(TRACEPARENT);
    let parent = said.map(|said| TraceContext::parse(said));
    let (trace, parent) = match parent {
        Some(Some(parent)) if parent.sampled => (parent, Some(parent.span_id)),
        Some(Some(_)) => return None,
        malformed => {
            if malformed.is_some() {
                message.attributes.remove(TRACEPARENT);
                message.attributes.remove(TRACESTATE);
            }
            if !shared.tracer.takes(message.id_hash()) {
                return None;
            }
            (TraceContext::begin(&message.id, now), None)
        }
    };
    let context = trace.child("publish", &[&message.id], now.as_millis());
    let attribute = (TRACEPARENT.to_owned(), context.to_string());
    message.attributes.extend([attribute]);
    Some(Box::new(PublishTrace {
        context,
        parent,
        began: now,
        event_id: message.id.clone(),
        bytes: message.payload.len(),
    }))
}

/// The trace that a publish belongs to, if that is told.
pub(super) fn trace_of(asker: &Asker) -> Option<u128> {
    asker.trace.as_ref().map(|trace| trace.context.trace_id)
}

fn since_epoch(at: Timestamp) -> Duration {
    Duration::from_millis(at.as_millis())
}

impl PublishTrace {
    /// A step of it, by its end and how long it took.
    fn step(&self, name: &'static str, end: Duration, took: Duration) -> Span {
        Span {
            context: self.context.child(name, &[], 0),
            parent: Some((self.context.span_id, false)),
            name: name.to_owned(),
            kind: SpanKind::Internal,
            end: since_epoch(self.began) + end,
            took,
            attributes: vec![KeyValue::new("messaging.message.id", self.event_id.clone())],
            failed: None,
        }
    }
}

/// A group was decided on.
pub(super) fn decided(
    shared: &Shared,
    admitter: &Admitter,
    decided: Decided,
    askers: &[(Asker, bool)],
) {
    if !shared.tracer.is_on() {
        return;
    }
    for (index, (asker, _)) in askers.iter().enumerate() {
        let Some(trace) = &asker.trace else { continue };
        let waited = decided.began.saturating_duration_since(asker.since);
        shared.tracer.tell(trace.step("queue", waited, waited));
        let mut policy = trace.step("policy", waited + decided.took, decided.took);
        let decision = KeyValue::new("oona.decision", admitter.explain(index));
        policy.attributes.push(decision);
        shared.tracer.tell(policy);
    }
}

/// A publish was written.
pub(super) fn appended(
    shared: &Shared,
    asker: &Asker,
    (stream, entry): (&StreamName, EntryId),
    took: Duration,
) {
    let Some(trace) = &asker.trace else { return };
    let mut append = trace.step("append", asker.since.elapsed(), took);
    append.kind = SpanKind::Client;
    append.attributes.extend([
        KeyValue::new("db.system.name", shared.store.info().name),
        KeyValue::new("messaging.destination.name", stream.to_string()),
        KeyValue::new("oona.entry", entry.to_string()),
    ]);
    shared.tracer.tell(append);
    published(shared, asker, stream, None);
}

/// A publish has its outcome. Refused ones say why.
pub(super) fn published(shared: &Shared, asker: &Asker, stream: &str, refused: Option<&str>) {
    let Some(trace) = &asker.trace else { return };
    let took = asker.since.elapsed();
    let mut attributes = about("publish", "send", stream, &trace.event_id);
    let size = i64::try_from(trace.bytes).unwrap_or(i64::MAX);
    attributes.push(KeyValue::new("messaging.message.body.size", size));
    attributes.extend(refused.map(|why| KeyValue::new("error.type", why.to_owned())));
    shared.tracer.tell(Span {
        context: trace.context,
        parent: trace.parent.map(|parent| (parent, true)),
        name: name("publish", stream),
        kind: SpanKind::Producer,
        end: since_epoch(trace.began) + took,
        took,
        attributes,
        failed: refused.map(|why| why.to_owned().into()),
    });
}

fn name(operation: &str, stream: &str) -> String {
    format!("{operation} {stream}").trim_end().to_owned()
}

/// The attributes that the conventions want of every span.
fn about(operation: &'static str, kind: &'static str, stream: &str, id: &str) -> Vec<KeyValue> {
    vec![
        KeyValue::new("messaging.system", "oona"),
        KeyValue::new("messaging.operation.name", operation),
        KeyValue::new("messaging.operation.type", kind),
        KeyValue::new("messaging.destination.name", stream.to_owned()),
        KeyValue::new("messaging.message.id", id.to_owned()),
    ]
}

/// One delivery of one message to one group.
struct Hand<'a> {
    message: &'a Message,
    stream: &'a StreamName,
    entry: EntryId,
    deliveries: u32,
    group: &'a Arc<str>,
    /// The span of its publish.
    published: TraceContext,
}

impl<'a> Hand<'a> {
    /// `None` if its trace is not told.
    fn of(shared: &Shared, held: &'a Held, group: &'a Arc<str>) -> Option<Self> {
        if !shared.tracer.is_on() {
            return None;
        }
        let Content::Message(message) = &held.content else {
            return None;
        };
        Some(Self {
            message,
            stream: &held.stream,
            entry: held.entry,
            deliveries: held.deliveries,
            group,
            published: told(message)?,
        })
    }

    fn context(&self, what: &str) -> TraceContext {
        let entry = self.entry.to_string();
        let names = [self.stream, self.group, entry.as_str()];
        self.published.child(what, &names, self.deliveries.into())
    }

    fn span(
        &self,
        (operation, kind): (&'static str, &'static str),
        context: TraceContext,
        (parent, remote): (TraceContext, bool),
        (end, took): (Timestamp, Duration),
    ) -> Span {
        let mut attributes = about(operation, kind, self.stream, &self.message.id);
        let attempt = i64::from(self.message.attempt.saturating_add(1));
        attributes.extend([
            KeyValue::new("messaging.consumer.group.name", self.group.to_string()),
            KeyValue::new("oona.entry", self.entry.to_string()),
            KeyValue::new("oona.attempt", attempt),
        ]);
        Span {
            context,
            parent: Some((parent.span_id, remote)),
            name: name(operation, self.stream),
            kind: SpanKind::Consumer,
            end: since_epoch(end),
            took,
            attributes,
            failed: None,
        }
    }
}

/// The span of the publish of a message, if its trace is told.
fn told(message: &Message) -> Option<TraceContext> {
    let said = message.attributes.get(TRACEPARENT)?;
    TraceContext::parse(said).filter(|context| context.sampled)
}

/// The trace that a held message belongs to, if that is told.
pub(super) fn trace_of_held(shared: &Shared, held: &Held) -> Option<u128> {
    let Content::Message(message) = &held.content else {
        return None;
    };
    let on = shared.tracer.is_on();
    let context = on.then(|| told(message)).flatten();
    context.map(|context| context.trace_id)
}

/// A message was handed to a subscriber, after it had waited in the stream. Answers with the span that what
/// the subscriber does belongs under.
pub(super) fn delivered(
    shared: &Shared,
    now: Timestamp,
    held: &Held,
    group: &Arc<str>,
) -> Option<TraceContext> {
    let hand = Hand::of(shared, held, group)?;
    let waited = now.since(Timestamp::from_millis(held.entry.ms));
    let context = hand.context("deliver");
    let above = (hand.published, true);
    let span = hand.span(("deliver", "receive"), context, above, (now, waited));
    shared.tracer.tell(span);
    Some(hand.context("process"))
}

/// A subscriber has answered, or has not in time.
pub(super) fn answered(
    shared: &Shared,
    now: Timestamp,
    held: &Held,
    group: &Arc<str>,
    (outcome, took): (&'static str, Duration),
) {
    let Some(hand) = Hand::of(shared, held, group) else {
        return;
    };
    let context = hand.context("process");
    let above = (hand.context("deliver"), false);
    let mut span = hand.span(("process", "process"), context, above, (now, took));
    if outcome != "ack" {
        span.attributes.push(KeyValue::new("error.type", outcome));
        span.failed = Some(outcome.into());
    }
    shared.tracer.tell(span);
}

/// What a group had in hand was settled since `began`, and the store knows.
pub(super) fn settled(
    shared: &Shared,
    group: &Arc<str>,
    (held, verdict): &(Held, Verdict),
    (step, fate): (Settled, Option<&(Fate, String)>),
    began: Instant,
) {
    let Some(hand) = Hand::of(shared, held, group) else {
        return;
    };
    let above = match verdict {
        Verdict::Skip | Verdict::Release => return,
        Verdict::Ack => (hand.context("process"), false),
        Verdict::Failed { failure, .. } => match failure {
            Failure::HandlerError | Failure::Poison | Failure::Timeout => {
                (hand.context("process"), false)
            }
            Failure::SubscriberLost => (hand.context("deliver"), false),
            // It was never in the hands of a subscriber.
            _ => (hand.published, true),
        },
    };
    let context = hand.context("settle");
    let times = ((shared.clock)(), began.elapsed());
    let mut span = hand.span((step.name(), "settle"), context, above, times);
    span.kind = SpanKind::Client;
    if let Verdict::Failed { failure, .. } = verdict {
        let why = KeyValue::new("error.type", failure.name());
        span.attributes.push(why);
    }
    if fate.is_some() {
        let decision = journey::by_policy(shared, fate, "");
        span.attributes
            .push(KeyValue::new("oona.decision", decision));
    }
    shared.tracer.tell(span);
}
