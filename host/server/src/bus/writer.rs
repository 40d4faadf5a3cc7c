//! The publish side: takes what waits, decides on it as one group, writes it as one pipeline.
//!
//! One task writes, so what a producer publishes to a stream is written in the order in which it was
//! handed over. While a pipeline is under way the next group gathers, so a publish under load costs
//! no round trip of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::poll;
use futures_util::stream::{FuturesUnordered, StreamExt};
use oona_core::Timestamp;
use oona_core::breaker::Permit;
use oona_core::entry::EntryId;
use oona_core::envelope::Message;
use oona_core::outcome::{Lane, Outcome, RejectCause};
use oona_core::policy::Subject;
use oona_core::symbols::Symbol;
use tokio::sync::{mpsc, oneshot};

use super::admission::{Admitter, Ruling};
use super::shared::Shared;
use crate::metrics::PublishOutcome;
use crate::store::{Append, StoreError};

/// A publish that is slower than this misses its objective (design: p95 under 25 ms).
const SLOW: Duration = Duration::from_millis(25);

/// What a producer is told to wait when the store failed and the breaker has not tripped yet.
const RETRY_AFTER_FAULT: Duration = Duration::from_millis(200);

/// A publish that waits for the writer.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) message: Message,
    pub(super) subject: Subject,
    pub(super) asker: Asker,
}

/// Who waits for the outcome of a publish, and since when.
#[derive(Debug)]
pub(super) struct Asker {
    pub(super) since: Instant,
    pub(super) reply: oneshot::Sender<Outcome>,
}

/// What was admitted of a group, on its way to the store.
struct Pipeline {
    appends: Vec<Append>,
    askers: Vec<Admitted>,
    permit: Permit,
}

/// One message of a [`Pipeline`].
struct Admitted {
    asker: Asker,
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
        let now = (shared.clock)();
        let permit = match shared.publish_breaker().try_acquire(now) {
            Ok(permit) => permit,
            Err(open) => {
                for pending in group.drain(..) {
                    unavailable(
                        shared,
                        pending.asker,
                        "breaker-open",
                        open.retry_after,
                        String::new(),
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
            subject,
            asker,
        } in group.drain(..)
        {
            messages.push(message);
            subjects.push(subject);
            askers.push(asker);
        }
        let (messages, rulings) = self.admitter.rule(now, messages, &subjects);
        let pipeline = assemble(shared, permit, &messages, rulings, askers);
        if pipeline.appends.is_empty() {
            shared.publish_breaker().give_back(pipeline.permit);
            return None;
        }
        Some(pipeline)
    }
}

/// Encodes and signs what was admitted, and answers for the rest.
fn assemble(
    shared: &Shared,
    permit: Permit,
    messages: &[Message],
    rulings: &[Ruling],
    askers: Vec<Asker>,
) -> Pipeline {
    let mut pipeline = Pipeline {
        appends: Vec::with_capacity(messages.len()),
        askers: Vec::with_capacity(messages.len()),
        permit,
    };
    for ((message, ruling), asker) in messages.iter().zip(rulings).zip(askers) {
        match *ruling {
            Ruling::Write {
                stream,
                reason,
                lane,
                pressure,
            } => {
                let append = Append {
                    stream: shared.name(stream),
                    record: shared.record(message),
                };
                pipeline.appends.push(append);
                pipeline.askers.push(Admitted {
                    asker,
                    stream,
                    reason,
                    lane,
                    pressure,
                });
            }
            Ruling::Refuse {
                cause,
                stream,
                reason,
                retry_after,
            } => {
                let reason = shared.name(reason);
                shared.count_publish(&shared.name(stream), PublishOutcome::Rejected, &reason, 1);
                let detail = format!("refused by the {} policy", cause_name(cause));
                reject(shared, asker, cause, reason, retry_after, detail);
            }
        }
    }
    pipeline
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
        permit,
    } = pipeline;
    shared.metrics.group_size.observe(appends.len() as f64);
    let written = shared.store.append(&appends).await;
    let now = (shared.clock)();
    let fault = match &written {
        Ok(results) => results
            .iter()
            .any(|result| matches!(result, Err(error) if error.is_fault())),
        Err(error) => error.is_fault(),
    };
    shared.record_publish_breaker(now, permit, !fault);
    match written {
        Ok(results) => answer(&shared, now, askers, results),
        Err(error) => {
            tracing::warn!(error = %error, messages = askers.len(), "a pipeline was not written");
            for admitted in askers {
                unwritten(&shared, admitted.asker, &error);
            }
        }
    }
}

/// Tells each producer what became of its message, and the board how long it took.
fn answer(
    shared: &Shared,
    now: Timestamp,
    askers: Vec<Admitted>,
    results: Vec<Result<EntryId, StoreError>>,
) {
    let mut tally = Tally::default();
    for (admitted, result) in askers.into_iter().zip(results) {
        let Admitted {
            asker,
            stream,
            reason,
            lane,
            pressure,
        } = admitted;
        let elapsed = asker.since.elapsed();
        match result {
            Ok(id) => {
                tally.count(stream, reason, elapsed);
                shared
                    .handles
                    .accepted_seconds
                    .observe(elapsed.as_secs_f64());
                let (stream, reason) = (shared.name(stream), shared.name(reason));
                let accepted = Outcome::Accepted {
                    stream,
                    id,
                    lane,
                    reason,
                    pressure,
                };
                // A producer that no longer listens has given up the answer, not the message.
                asker.reply.send(accepted).ok();
            }
            Err(error) => unwritten(shared, asker, &error),
        }
    }
    tally.report(shared, now);
}

fn unwritten(shared: &Shared, asker: Asker, error: &StoreError) {
    unavailable(
        shared,
        asker,
        error.name(),
        RETRY_AFTER_FAULT,
        error.to_string(),
    );
}

fn unavailable(shared: &Shared, asker: Asker, reason: &str, after: Duration, detail: String) {
    let reason: Arc<str> = reason.into();
    shared.count_publish(&Arc::default(), PublishOutcome::Rejected, &reason, 1);
    reject(
        shared,
        asker,
        RejectCause::Unavailable,
        reason,
        Some(after),
        detail,
    );
}

fn reject(
    shared: &Shared,
    asker: Asker,
    cause: RejectCause,
    reason: Arc<str>,
    retry_after: Option<Duration>,
    detail: String,
) {
    shared
        .handles
        .rejected_seconds
        .observe(asker.since.elapsed().as_secs_f64());
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
    fn count(&mut self, stream: Symbol, reason: Symbol, elapsed: Duration) {
        let slow = u64::from(elapsed > SLOW);
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
