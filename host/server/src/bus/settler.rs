//! Carries a subscription's answers to the store: one pipeline after the other, each with all that
//! has come in meanwhile.
//!
//! An answer is never dropped: if the store fails, the same settlements are tried again until they
//! are confirmed or the bus has waited long enough at its end. What is not confirmed by then is
//! still pending in the store, and is delivered again.

use std::sync::Arc;
use std::time::Duration;

use oona_core::Timestamp;
use oona_core::dead_letter::{Circumstances, DeadLetter};
use oona_core::envelope::Message;
use oona_core::policy::{Failed, Failure, Fate, FateVerdict, Lookup};
use oona_core::schedule::Backoff;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::desk::{Content, Desk, Held, Verdict, Work};
use super::journey;
use super::receipts::receipt;
use super::shared::Shared;
use super::spans;
use super::texts::TextsOfSome;
use crate::latency::{Series, Stage};
use crate::metrics::Step as Settled;
use crate::store::{Settlement, Step, StoreError, StreamName};

/// How often, within the idle time after which others may claim, held entries are kept alive.
const TOUCHES_PER_IDLE: u32 = 3;

/// See the module.
pub(super) struct Settler {
    shared: Arc<Shared>,
    desk: Arc<Desk>,
    /// Under which names the readers read, and from which streams.
    members: Vec<(Arc<str>, Vec<StreamName>)>,
}

impl Settler {
    pub(super) fn new(
        shared: Arc<Shared>,
        desk: Arc<Desk>,
        members: Vec<(Arc<str>, Vec<StreamName>)>,
    ) -> Self {
        Self {
            shared,
            desk,
            members,
        }
    }

    /// Settles until the subscription has ended and nothing is left to settle.
    pub(super) async fn run(self) {
        let period = self.shared.config.consume.claim_idle / TOUCHES_PER_IDLE;
        let mut touches = interval(period.max(Duration::from_millis(1)));
        touches.set_missed_tick_behavior(MissedTickBehavior::Delay);
        touches.reset();
        loop {
            match self.desk.work() {
                Work::Done => break,
                Work::Settle(verdicts) => {
                    if !self.settle(verdicts).await {
                        return;
                    }
                }
                Work::Wait(deadline) => {
                    let now = (self.shared.clock)();
                    let far = Duration::from_secs(3_600);
                    let wait = deadline.map_or(far, |deadline| deadline.since(now));
                    tokio::select! {
                        biased;
                        () = self.shared.abandon.cancelled() => return,
                        _ = touches.tick() => self.keep_alive().await,
                        () = self.desk.stirred() => {}
                        () = tokio::time::sleep(wait.max(Duration::from_millis(1))) => {}
                    }
                }
            }
        }
        self.leave().await;
    }

    /// Settles some verdicts. `false` if the bus would wait no longer.
    async fn settle(&self, verdicts: Vec<(Held, Verdict)>) -> bool {
        let now = (self.shared.clock)();
        let fates = self.fates(now, &verdicts);
        let steps = self.steps(now, &verdicts, &fates);
        let began = Instant::now();
        let mut failures = 0;
        // Whether an attempt may have been carried out whose answer was lost.
        let mut in_doubt = false;
        let confirmed = loop {
            match self.shared.settle(&self.desk.group, &steps).await {
                Ok(confirmed) => break confirmed,
                Err(error) => {
                    in_doubt |= matches!(error, StoreError::Unavailable { .. });
                    let wait = Backoff::default().delay(failures);
                    failures += 1;
                    tracing::warn!(%error, settlements = steps.len(), "settling failed");
                    self.shared.store_answered(false);
                    tokio::select! {
                        biased;
                        () = self.shared.abandon.cancelled() => return false,
                        () = tokio::time::sleep(wait) => {}
                    }
                }
            }
        };
        let mut fates = fates.iter();
        for ((settlement, settled), confirmed) in steps.iter().zip(&verdicts).zip(confirmed) {
            let failed = matches!(settled.1, Verdict::Failed { .. });
            let fate = if failed { fates.next() } else { None };
            // What is in doubt is counted: rather once too often than let go in silence.
            if confirmed || in_doubt {
                self.count(settlement, settled, fate, began);
            }
        }
        self.desk
            .settled(verdicts.iter().map(|(held, _)| (&held.stream, held.entry)));
        true
    }

    /// What each verdict means for the store.
    fn steps(
        &self,
        now: Timestamp,
        verdicts: &[(Held, Verdict)],
        fates: &[(Fate, String)],
    ) -> Vec<Settlement> {
        let mut fates = fates.iter();
        let step = |(held, verdict): &(Held, Verdict)| {
            let step = match verdict {
                Verdict::Ack | Verdict::Skip => Step::Ack,
                Verdict::Release => self.released(held),
                Verdict::Failed {
                    failure, detail, ..
                } => match fates.next() {
                    Some((fate, by)) => self.failed(now, held, (*failure, detail), (*fate, by)),
                    None => unreachable!("a policy answers every question, or its fail-safe does"),
                },
            };
            Settlement {
                stream: held.stream.clone(),
                id: held.entry,
                receipt: receipt(held, verdict, &step),
                step,
            }
        };
        verdicts.iter().map(step).collect()
    }

    /// Asks the dead-letter policy about everything that failed; with each answer who gave it.
    fn fates(&self, now: Timestamp, verdicts: &[(Held, Verdict)]) -> Vec<(Fate, String)> {
        let mut questions = Vec::new();
        let mut messages = Vec::new();
        for (held, verdict) in verdicts {
            let Verdict::Failed { failure, delay, .. } = verdict else {
                continue;
            };
            let delay_ms = delay.map_or(0, |delay| delay.as_millis());
            questions.push(Failed {
                subject: held.subject,
                failure: *failure,
                deliveries: held.deliveries,
                requested_delay_ms: u64::try_from(delay_ms).unwrap_or(u64::MAX),
            });
            messages.push(match &held.content {
                Content::Message(message) => Some(Arc::clone(message)),
                Content::Raw => None,
            });
        }
        if questions.is_empty() {
            return Vec::new();
        }
        let text: Arc<dyn Lookup> = Arc::new(TextsOfSome(messages));
        let mut fates = Vec::with_capacity(questions.len());
        let dead_letter = self.shared.policies.dead_letter();
        let answered = dead_letter.with(|asker| asker.ask(now, &(), &questions, &text, &mut fates));
        let by = |index| {
            let by = answered.as_ref().map(|answered| answered.by(index));
            by.map_or_else(String::new, |version| version.label())
        };
        let fates = fates.into_iter().enumerate();
        fates.map(|(index, fate)| (fate, by(index))).collect()
    }

    /// An entry goes back to its stream, for others, without having failed.
    fn released(&self, held: &Held) -> Step {
        match &held.content {
            Content::Message(message) => {
                let mut message = Message::clone(message);
                message.releases = message.releases.saturating_add(1);
                message.retry_group = Some(self.desk.group.to_string());
                Step::Retry {
                    record: self.shared.record(&message),
                    at: None,
                }
            }
            Content::Raw => unreachable!("what is no message is refused, never released"),
        }
    }

    /// What the policy said of a failed delivery. An entry that is no message cannot be retried:
    /// nobody could sign it again, so it becomes a dead letter whatever the policy says.
    fn failed(
        &self,
        now: Timestamp,
        held: &Held,
        (failure, detail): (Failure, &str),
        (fate, policy): (Fate, &str),
    ) -> Step {
        let class = match (fate.verdict, &held.content) {
            (FateVerdict::Discard, _) => return Step::Ack,
            (FateVerdict::Retry { delay_ms }, Content::Message(message)) => {
                let mut message = Message::clone(message);
                message.attempt = message.attempt.saturating_add(1);
                message.first_failed_at.get_or_insert(now);
                message.retry_group = Some(self.desk.group.to_string());
                let at = (delay_ms > 0).then(|| now + Duration::from_millis(delay_ms));
                return Step::Retry {
                    record: self.shared.record(&message),
                    at,
                };
            }
            (FateVerdict::Retry { .. }, Content::Raw) => failure.name().into(),
            (FateVerdict::DeadLetter { class }, _) => self.shared.name(class),
        };
        let first_failed_at = match &held.content {
            Content::Message(message) => message.first_failed_at.unwrap_or(now),
            Content::Raw => now,
        };
        let circumstances = Circumstances {
            class: class.to_string(),
            reason: self.shared.name(fate.reason).to_string(),
            detail: detail.to_owned(),
            failure,
            stream: held.stream.to_string(),
            entry: held.entry,
            group: self.desk.group.to_string(),
            first_failed_at,
            at: now,
            policy: policy.to_owned(),
        };
        let letter = match &held.content {
            Content::Message(message) => {
                DeadLetter::for_message(message, &held.fields, circumstances)
            }
            Content::Raw => DeadLetter::for_entry(&held.fields, circumstances),
        };
        let mut envelope = Vec::new();
        letter.encode(&mut envelope);
        let stream = self.shared.config.streams.dead_letter.clone();
        Step::DeadLetter {
            stream,
            record: self.shared.sign(envelope),
            original: letter.original().cloned(),
        }
    }

    fn count(
        &self,
        settlement: &Settlement,
        settled: &(Held, Verdict),
        fate: Option<&(Fate, String)>,
        began: Instant,
    ) {
        let (held, verdict) = settled;
        let step = match (&settlement.step, verdict) {
            (_, Verdict::Skip) => return,
            (Step::Ack, Verdict::Failed { .. }) => Settled::Discard,
            (Step::Ack, _) => Settled::Ack,
            (Step::Retry { .. }, Verdict::Release) => Settled::Release,
            (Step::Retry { .. }, _) => Settled::Retry,
            (Step::DeadLetter { .. }, _) => Settled::DeadLetter,
        };
        self.shared.count_settled(&held.stream, step);
        self.took(held, step);
        let follows = (&settlement.step, step);
        journey::settled(&self.shared, &self.desk.group, settled, follows, fate);
        spans::settled(&self.shared, &self.desk.group, settled, (step, fate), began);
        if let Verdict::Failed {
            failure, detail, ..
        } = verdict
        {
            self.shared.count_failure(&held.stream, *failure);
            let expired = |at| at <= (self.shared.clock)();
            if *failure == Failure::Stale && held.expires_at().is_some_and(expired) {
                self.shared.metrics.expired(&held.stream).inc();
            }
            if matches!(held.content, Content::Raw) {
                self.shared.metrics.quarantined(failure.name()).inc();
            }
            tracing::info!(
                stream = %held.stream,
                entry = %held.entry,
                failure = failure.name(),
                step = step.name(),
                detail,
                "a delivery failed"
            );
        }
    }

    /// How long a message took that has been handled, from when it was issued.
    fn took(&self, held: &Held, step: Settled) {
        let Some(issued_at) = held.subject.created_at else {
            return;
        };
        if step == Settled::Ack {
            let series = Series::new(held.stream.clone(), held.subject.priority, step.name());
            let took = (self.shared.clock)().since(issued_at);
            let trace_id = spans::trace_of_held(&self.shared, held);
            self.shared
                .took_traced(Stage::EndToEnd, &series, took, trace_id);
        }
    }

    /// Tells the store that what is held is still in good hands.
    async fn keep_alive(&self) {
        for ((stream, consumer), ids) in self.desk.holding() {
            let touched = self
                .shared
                .store
                .touch(&stream, &self.desk.group, &consumer, &ids)
                .await;
            if let Err(error) = touched {
                tracing::warn!(%error, %stream, "held entries may be claimed by others");
                return;
            }
        }
    }

    /// Gives up the consumer names, unless something is pending under them.
    async fn leave(&self) {
        for (consumer, streams) in &self.members {
            for stream in streams {
                let left = self
                    .shared
                    .store
                    .leave(stream, &self.desk.group, consumer)
                    .await;
                if let Err(error) = left {
                    tracing::debug!(%error, %stream, %consumer, "a consumer name stays behind");
                    return;
                }
            }
        }
    }
}
