//! The publish side: takes what waits, decides on it as one group, writes it as one pipeline.
//!
//! One task writes, so what a producer publishes to a stream is written in the order in which it was
//! handed over. While a pipeline is under way the next group gathers, so a publish under load costs
//! no round trip of its own.

use std::sync::Arc;
use std::time::Duration;

use futures_util::poll;
use futures_util::stream::{FuturesUnordered, StreamExt};
use oona_core::Timestamp;
use oona_core::breaker::Permit;
use oona_core::entry::EntryId;
use oona_core::envelope::Message;
use oona_core::outcome::{FirstOutcome, Lane, Outcome, RejectCause};
use oona_core::policy::{Priority, Subject};
use oona_core::symbols::Symbol;
use oona_wasm::VersionInfo;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;

use super::admission::{Admitter, Ruling};
use super::journey::{self, Decided};
use super::rejections::Refusal;
use super::shared::Shared;
use super::spans::{self, PublishTrace};
use crate::latency::{Series, Stage};
use crate::metrics::PublishOutcome;
use crate::store::{Append, Once, StoreError, Written};

/// What a producer is told to wait when the store failed and the breaker has not tripped yet.
const RETRY_AFTER_FAULT: Duration = Duration::from_millis(200);

/// A publish that waits for the writer.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) message: Message,
    /// Whether its producer gave the event id, and so may publish it again.
    pub(super) named: bool,
    pub(super) subject: Subject,
    pub(super) asker: Asker,
}

/// Who waits for the outcome of a publish, and since when.
#[derive(Debug)]
pub(super) struct Asker {
    /// Hash of the event id.
    pub(super) event: u64,
    /// Its trace, if that is told.
    pub(super) trace: Option<Box<PublishTrace>>,
    pub(super) since: Instant,
    pub(super) priority: Priority,
    pub(super) reply: oneshot::Sender<Outcome>,
    /// Its share of the bytes that may wait, given back with the answer.
    pub(super) room: Option<OwnedSemaphorePermit>,
}

/// Refuses a publish that no policy is asked about.
pub(super) fn turn_away(
    shared: &Shared,
    message: &Message,
    asker: Asker,
    (cause, reason, detail): (RejectCause, &'static str, String),
) {
    journey::turned_away(shared, (shared.clock)(), message, &asker);
    let (stream, reason): (Arc<str>, Arc<str>) = (Arc::default(), reason.into());
    shared.count_rejection(&Refusal {
        stream: &stream,
        reason: &reason,
        by: None,
        event: &message.id,
        detail: &detail,
        followed: shared.journeys.may_hold(asker.event),
    });
    reject(shared, asker, stream, cause, reason, None, detail);
}

/// What was admitted of a group, on its way to the store.
struct Pipeline {
    appends: Vec<Append>,
    askers: Vec<Admitted>,
    /// Refused, unless an earlier publish under the same event id was accepted.
    refused: Vec<(Asker, Refused)>,
    permit: Permit,
}

/// Why a message is not written.
struct Refused {
    event: Arc<str>,
    /// What the message is.
    about: String,
    cause: RejectCause,
    by: Option<Arc<VersionInfo>>,
    stream: Symbol,
    reason: Symbol,
    retry_after: Option<Duration>,
}

/// One message of a [`Pipeline`].
struct Admitted {
    asker: Asker,
    /// Its event id, if its producer gave it.
    event: Arc<str>,
    stream: Symbol,
    reason: Symbol,
    lane: Lane,
    pressure: f32,
}

/// See the module.
pub(super) struct Writer {
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Pending>,
    admitter: Admitter,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, queue: mpsc::Receiver<Pending>) -> Self {
        let admitter = Admitter::new(&shared);
        Self {
            shared,
            queue,
            admitter,
        }
    }

    /// Writes until the bus shuts down and all that was handed over before has its outcome.
    pub(super) async fn run(mut self) {
        let group_max = self.shared.config.publish.group_max;
        let pipelines_max = self.shared.config.publish.pipelines_max;
        let mut waiting = Vec::with_capacity(group_max);
        let mut under_way = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                () = self.shared.shutdown.cancelled(), if !self.queue.is_closed() => self.queue.close(),
                Some(()) = under_way.next(), if !under_way.is_empty() => {}
                count = self.queue.recv_many(&mut waiting, group_max),
                    if under_way.len() < pipelines_max =>
                {
                    if count == 0 {
                        break;
                    }
                    let Some(pipeline) = self.decide(&mut waiting) else { continue };
                    let mut write = Box::pin(write(Arc::clone(&self.shared), pipeline));
                    // The first poll hands the pipeline to the connection: before the next one's.
                    if poll!(&mut write).is_pending() {
                        under_way.push(write);
                    }
                }
            }
        }
        while under_way.next().await.is_some() {}
    }

    /// Decides on a group. What is refused has its outcome at once.
    fn decide(&mut self, group: &mut Vec<Pending>) -> Option<Pipeline> {
        let shared = &self.shared;
        let (now, began) = ((shared.clock)(), Instant::now());
        let permit = match shared.publish_breaker().try_acquire(now) {
            Ok(permit) => permit,
            Err(open) => {
                for pending in group.drain(..) {
                    journey::turned_away(shared, now, &pending.message, &pending.asker);
                    unavailable(
                        shared,
                        (pending.asker, &pending.message.id),
                        open.name(),
                        open.retry_after,
                        open.to_string(),
                    );
                }
                return None;
            }
        };
        let mut messages = Vec::with_capacity(group.len());
        let mut subjects = Vec::with_capacity(group.len());
        let mut askers = Vec::with_capacity(group.len());
        for Pending {
            message,
            named,
            subject,
            asker,
        } in group.drain(..)
        {
            messages.push(message);
            subjects.push(subject);
            askers.push((asker, named));
        }
        let messages = self.admitter.rule(now, messages, &subjects);
        let rulings = self.admitter.rulings();
        let took = began.elapsed();
        record_decisions(shared, (began, took), &askers, rulings);
        let decided = Decided { now, began, took };
        journey::decided(shared, &self.admitter, decided, &messages, &askers);
        spans::decided(shared, &self.admitter, decided, &askers);
        let pipeline = assemble(shared, permit, &messages, &self.admitter, askers);
        if pipeline.appends.is_empty() && pipeline.refused.is_empty() {
            shared.publish_breaker().give_back(pipeline.permit);
            return None;
        }
        Some(pipeline)
    }
}

/// Records how long each of a group waited for policies, and how long these took.
fn record_decisions(
    shared: &Shared,
    (began, policies_took): (Instant, Duration),
    askers: &[(Asker, bool)],
    rulings: &[Ruling],
) {
    let mut all: Vec<Series> = Vec::with_capacity(askers.len());
    let mut last = None;
    for ((asker, _), ruling) in askers.iter().zip(rulings) {
        let (stream, outcome) = match *ruling {
            Ruling::Write { stream, .. } => (stream, PublishOutcome::Accepted),
            Ruling::Refuse { stream, .. } => (stream, PublishOutcome::Rejected),
        };
        let alike = (stream, asker.priority, outcome);
        let series = match all.last() {
            Some(series) if last == Some(alike) => series.clone(),
            _ => Series::new(shared.name(stream), asker.priority, outcome.name()),
        };
        last = Some(alike);
        all.push(series);
    }
    let mut queue = shared.took(Stage::Queue);
    for (series, (asker, _)) in all.iter().zip(askers) {
        queue.record(series, began.saturating_duration_since(asker.since));
    }
    drop(queue);
    shared.took(Stage::Policy).record_alike(&all, policies_took);
}

/// Encodes and signs what was admitted, and answers for the rest.
fn assemble(
    shared: &Shared,
    permit: Permit,
    messages: &[Message],
    admitter: &Admitter,
    askers: Vec<(Asker, bool)>,
) -> Pipeline {
    let mut pipeline = Pipeline {
        appends: Vec::with_capacity(messages.len()),
        askers: Vec::with_capacity(messages.len()),
        refused: Vec::new(),
        permit,
    };
    let window = shared.config.publish.dedup_window;
    for ((message, ruling), (asker, named)) in messages.iter().zip(admitter.rulings()).zip(askers) {
        let named = named && !window.is_zero();
        match *ruling {
            Ruling::Write {
                stream,
                reason,
                lane,
                pressure,
                ..
            } => {
                let name = shared.name(stream);
                let once = named.then(|| {
                    let first = FirstOutcome::new(&name, lane, &shared.name(reason), pressure);
                    Once {
                        event: message.id.as_str().into(),
                        window,
                        note: first.encode().into(),
                    }
                });
                let append = Append {
                    stream: name,
                    record: shared.record(message),
                    once,
                };
                let once = append.once.as_ref();
                let event = once.map_or_else(Arc::default, |once| Arc::clone(&once.event));
                pipeline.appends.push(append);
                pipeline.askers.push(Admitted {
                    asker,
                    event,
                    stream,
                    reason,
                    lane,
                    pressure,
                });
            }
            Ruling::Refuse {
                cause,
                place,
                stream,
                reason,
                retry_after,
            } => {
                let refused = Refused {
                    event: message.id.as_str().into(),
                    about: journey::about(message),
                    by: admitter.refused_by(cause, place).cloned(),
                    cause,
                    stream,
                    reason,
                    retry_after,
                };
                if named {
                    pipeline.refused.push((asker, refused));
                } else {
                    refuse(shared, asker, &refused);
                }
            }
        }
    }
    pipeline
}

fn refuse(shared: &Shared, asker: Asker, refused: &Refused) {
    let reason = shared.name(refused.reason);
    let stream = shared.name(refused.stream);
    shared.count_rejection(&Refusal {
        stream: &stream,
        reason: &reason,
        by: refused.by.as_ref(),
        event: &refused.event,
        detail: &refused.about,
        followed: shared.journeys.may_hold(asker.event),
    });
    let detail = format!("refused by the {} policy", cause_name(refused.cause));
    reject(
        shared,
        asker,
        stream,
        refused.cause,
        reason,
        refused.retry_after,
        detail,
    );
}

fn cause_name(cause: RejectCause) -> &'static str {
    match cause {
        RejectCause::Backpressure => "backpressure",
        _ => "routing",
    }
}

/// Writes a pipeline and answers for each of its messages.
async fn write(shared: Arc<Shared>, pipeline: Pipeline) {
    let Pipeline {
        appends,
        askers,
        refused,
        permit,
    } = pipeline;
    shared.metrics.group_size.observe(appends.len() as f64);
    let (asked, began) = ((shared.clock)(), Instant::now());
    let written = shared.store.append(&appends).await;
    let (answered, took) = ((shared.clock)().max(asked), began.elapsed());
    let events = askers.iter().map(|admitted| admitted.asker.event);
    let appended = appends.iter().zip(events);
    journey::appended(&shared, (asked, answered, took), appended, &written);
    let recalled = recall(&shared, &refused).await;
    let now = (shared.clock)();
    let fault = match &written {
        Ok(results) => results
            .iter()
            .any(|result| matches!(result, Err(error) if error.is_fault())),
        Err(error) => error.is_fault(),
    };
    answer_refused(&shared, refused, recalled);
    shared.record_publish_breaker(now, permit, !fault);
    match written {
        Ok(results) => answer(&shared, now, took, askers, results),
        Err(error) => {
            tracing::warn!(error = %error, messages = askers.len(), "a pipeline was not written");
            for Admitted { asker, event, .. } in askers {
                unwritten(&shared, asker, &event, &error);
            }
        }
    }
}

/// Tells each producer what became of its message, and the board how long it took.
fn answer(
    shared: &Shared,
    now: Timestamp,
    append_took: Duration,
    askers: Vec<Admitted>,
    results: Vec<Result<Written, StoreError>>,
) {
    let mut tally = Tally::default();
    let mut took = Vec::with_capacity(askers.len());
    for (admitted, result) in askers.into_iter().zip(results) {
        let Admitted {
            asker,
            event,
            stream,
            reason,
            lane,
            pressure,
        } = admitted;
        let elapsed = asker.since.elapsed();
        match result {
            Ok(Written {
                id,
                before: Some(note),
            }) => duplicate(shared, asker, stream, id, &note),
            Ok(Written { id, before: None }) => {
                tally.count(stream, reason, elapsed > shared.config.publish.slow_after);
                let (stream, reason) = (shared.name(stream), shared.name(reason));
                let accepted = PublishOutcome::Accepted.name();
                let series = Series::new(Arc::clone(&stream), asker.priority, accepted);
                spans::appended(shared, &asker, (&stream, id), append_took);
                took.push((series, elapsed, spans::trace_of(&asker)));
                let accepted = Outcome::Accepted {
                    stream,
                    id,
                    lane,
                    reason,
                    pressure,
                    duplicate: false,
                };
                // A producer that no longer listens has given up the answer, not the message.
                asker.reply.send(accepted).ok();
            }
            Err(error) => unwritten(shared, asker, &event, &error),
        }
    }
    let all = took.iter().map(|(series, ..)| series);
    shared.took(Stage::Append).record_alike(all, append_took);
    let mut publish = shared.took(Stage::Publish);
    for (series, elapsed, trace) in &took {
        publish.record_traced(series, *elapsed, *trace);
    }
    drop(publish);
    tally.report(shared, now);
}

/// What is known of earlier publishes of what was refused.
async fn recall(
    shared: &Shared,
    refused: &[(Asker, Refused)],
) -> Result<Vec<Option<Written>>, StoreError> {
    if refused.is_empty() {
        return Ok(Vec::new());
    }
    let events: Vec<_> = refused
        .iter()
        .map(|(_, refused)| Arc::clone(&refused.event))
        .collect();
    shared.store.recall(&events).await
}

/// Tells each producer that it was refused, or what an earlier publish of the same was told. Where
/// that is not known, to say that nothing was written would be a guess.
fn answer_refused(
    shared: &Shared,
    refused: Vec<(Asker, Refused)>,
    recalled: Result<Vec<Option<Written>>, StoreError>,
) {
    let recalled = match recalled {
        Ok(recalled) => recalled,
        Err(error) => {
            for (asker, refused) in refused {
                unwritten(shared, asker, &refused.event, &error);
            }
            return;
        }
    };
    for ((asker, refused), before) in refused.into_iter().zip(recalled) {
        match before {
            Some(Written {
                id,
                before: Some(note),
            }) => duplicate(shared, asker, refused.stream, id, &note),
            _ => refuse(shared, asker, &refused),
        }
    }
}

/// Answers with the first outcome.
fn duplicate(shared: &Shared, asker: Asker, stream: Symbol, id: EntryId, note: &[u8]) {
    let stream = shared.name(stream);
    let Some(first) = FirstOutcome::decode(note) else {
        // Another version of the host wrote it, in words that this one does not know.
        let reason: Arc<str> = "duplicate".into();
        let detail = format!("it was written before, as entry {id}");
        return reject(
            shared,
            asker,
            stream,
            RejectCause::Invalid,
            reason,
            None,
            detail,
        );
    };
    shared.metrics.publish_duplicates.inc();
    spans::published(shared, &asker, &stream, None);
    ended(shared, &asker, stream, PublishOutcome::Accepted);
    asker.reply.send(first.again(id)).ok();
}

fn unwritten(shared: &Shared, asker: Asker, event: &str, error: &StoreError) {
    unavailable(
        shared,
        (asker, event),
        error.name(),
        RETRY_AFTER_FAULT,
        error.to_string(),
    );
}

fn unavailable(
    shared: &Shared,
    (asker, event): (Asker, &str),
    reason: &str,
    after: Duration,
    detail: String,
) {
    let reason: Arc<str> = reason.into();
    shared.count_rejection(&Refusal {
        stream: &Arc::default(),
        reason: &reason,
        by: None,
        event,
        detail: &detail,
        followed: shared.journeys.may_hold(asker.event),
    });
    reject(
        shared,
        asker,
        Arc::default(),
        RejectCause::Unavailable,
        reason,
        Some(after),
        detail,
    );
}

fn reject(
    shared: &Shared,
    asker: Asker,
    stream: Arc<str>,
    cause: RejectCause,
    reason: Arc<str>,
    retry_after: Option<Duration>,
    detail: String,
) {
    journey::rejected(shared, &asker, (cause, &reason, &detail));
    spans::published(shared, &asker, &stream, Some(&reason));
    ended(shared, &asker, stream, PublishOutcome::Rejected);
    asker
        .reply
        .send(Outcome::Rejected {
            cause,
            reason,
            retry_after,
            detail,
        })
        .ok();
}

/// Records how long a publish took that has its outcome now.
fn ended(shared: &Shared, asker: &Asker, stream: Arc<str>, outcome: PublishOutcome) {
    let series = Series::new(stream, asker.priority, outcome.name());
    shared.took_one(Stage::Publish, &series, asker.since.elapsed());
}

/// Accepted messages of one pipeline, by stream and reason: few, so a list is a fast map.
#[derive(Default)]
struct Tally(Vec<Line>);

struct Line {
    stream: Symbol,
    reason: Symbol,
    total: u64,
    slow: u64,
}

impl Tally {
    fn count(&mut self, stream: Symbol, reason: Symbol, slow: bool) {
        let slow = u64::from(slow);
        let same = |line: &&mut Line| line.stream == stream && line.reason == reason;
        match self.0.iter_mut().find(same) {
            Some(line) => {
                line.total += 1;
                line.slow += slow;
            }
            None => self.0.push(Line {
                stream,
                reason,
                total: 1,
                slow,
            }),
        }
    }

    fn report(self, shared: &Shared, now: Timestamp) {
        for Line {
            stream,
            reason,
            total,
            slow,
        } in self.0
        {
            let (name, why) = (shared.name(stream), shared.name(reason));
            shared.count_publish(&name, PublishOutcome::Accepted, &why, total);
            if let Some(lane) = shared.board().lane_mut(stream) {
                lane.slo.record(now, total, slow);
            }
        }
    }
}
