//! Asking a policy, with everything that belongs to it: counters and the decision log.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::thread::available_parallelism;

use oona_core::Timestamp;
use oona_core::policy::{Fault, Lookup};
use oona_core::symbols::Symbol;
use oona_wasm::{Answer, SymbolTable, VersionInfo, Worker};

use super::candidate::{Batch, Beside, Canary, Place};
use super::mixes::Mixes;
use crate::decisions::{DecisionLog, PAYLOAD_BYTES_MAX, Recorded as OnRecord};
use crate::metrics::{Counter, Histogram, Metrics};
use crate::record::{Message, Recorded};

/// How many workers of one kind the consume side has at most.
const POOL_MAX: usize = 8;

/// What all who ask have in common.
#[derive(Clone)]
pub(super) struct Asking {
    pub(super) symbols: SymbolTable,
    pub(super) metrics: Arc<Metrics>,
    /// One decision in so many is logged; none if zero.
    pub(super) log_every: u32,
    pub(super) decisions: Arc<DecisionLog>,
}

/// Asks one kind of policy. There is always an answer.
pub struct Asker<K: Recorded> {
    worker: Worker<K>,
    asking: Asking,
    call_seconds: Histogram,
    counters: Counters,
    beside: Beside<K>,
    mixes: Arc<Mutex<Mixes>>,
    /// Decisions since one was logged.
    since_log: u32,
    /// Decisions since one was recorded.
    since_record: u32,
}

/// Counters of one version, by reason.
struct Counters {
    of: Arc<VersionInfo>,
    by_reason: HashMap<Symbol, Counter>,
}

impl<K: Recorded> Asker<K> {
    pub(super) fn new(
        worker: Worker<K>,
        place: Place<K>,
        mixes: Arc<Mutex<Mixes>>,
        asking: Asking,
    ) -> Self {
        let of = Arc::clone(worker.version());
        Self {
            call_seconds: asking.metrics.policy_call_duration(K::KIND),
            counters: Counters {
                of,
                by_reason: HashMap::new(),
            },
            beside: Beside::new(place),
            mixes,
            since_log: 0,
            since_record: 0,
            worker,
            asking,
        }
    }

    /// Decides on each of `questions`, in order, into `decisions`, which is cleared first. Says who
    /// did; nobody, of none.
    pub(crate) fn ask(
        &mut self,
        now: Timestamp,
        state: &K::State,
        questions: &[K::Question],
        text: &Arc<dyn Lookup>,
        decisions: &mut Vec<K::Decision>,
    ) -> Option<Answered> {
        if questions.is_empty() {
            decisions.clear();
            return None;
        }
        let answer = self.worker.decide(now, state, questions, text, decisions);
        self.call_seconds.observe(answer.elapsed.as_secs_f64());
        let batch = Batch {
            now,
            state,
            questions,
            text,
        };
        let symbols = &self.asking.symbols;
        let canary = self.beside.ask(&batch, &answer, decisions, symbols);
        let answered = Answered { answer, canary };
        self.count(&answered, decisions);
        self.record(&answered, &batch, decisions);
        self.log(&answered, text, decisions);
        Some(answered)
    }

    /// Records one decision in so many.
    fn record(&mut self, answered: &Answered, batch: &Batch<'_, K>, decisions: &[K::Decision]) {
        let every = self.asking.decisions.every();
        let symbols = &self.asking.symbols;
        for index in due(&mut self.since_record, every, decisions.len()) {
            let question = &batch.questions[index];
            let by = answered.by(index);
            self.asking.decisions.record(OnRecord {
                at_ms: batch.now.as_millis(),
                kind: K::KIND,
                message: Message::of(
                    K::subject(question),
                    &**batch.text,
                    index,
                    symbols,
                    PAYLOAD_BYTES_MAX,
                ),
                state: K::state(batch.state, question, symbols),
                decision: <K as Recorded>::decision(&decisions[index], symbols),
                policy: by.name.clone(),
                version: by.version.clone(),
                digest: by.digest_short().to_owned(),
                fault: answered.fault(index).map(|fault| fault.name().to_owned()),
                took_ns: answered.took_ns(index),
                every,
            });
        }
    }

    /// Counts each decision for the version that made it.
    fn count(&mut self, answered: &Answered, decisions: &[K::Decision]) {
        let Some(canary) = &answered.canary else {
            self.count_for(&answered.answer.by, decisions);
            return;
        };
        let of = |whose: bool| {
            let all = decisions.iter().enumerate();
            let theirs = all.filter(|(index, _)| canary.decided(*index) == whose);
            theirs.map(|(_, decision)| *decision).collect::<Vec<_>>()
        };
        self.count_for(&canary.by, &of(true));
        self.count_for(&answered.answer.by, &of(false));
    }

    fn count_for(&mut self, by: &Arc<VersionInfo>, decisions: &[K::Decision]) {
        if decisions.is_empty() {
            return;
        }
        if !Arc::ptr_eq(by, &self.counters.of) {
            self.counters = Counters {
                of: Arc::clone(by),
                by_reason: HashMap::new(),
            };
        }
        let mut mixes = crate::sync::lock(&self.mixes);
        let mix = mixes.of(by);
        // Decisions of one batch mostly have one reason: count in runs.
        for run in decisions.chunk_by(|one, next| K::reason(one) == K::reason(next)) {
            let Some(first) = run.first() else { continue };
            let reason = K::reason(first);
            let resolve = || {
                let name = self.asking.symbols.name(reason).unwrap_or_default();
                self.asking
                    .metrics
                    .policy_decisions(K::KIND, &by.name, &by.version, &name)
            };
            let counter = self
                .counters
                .by_reason
                .entry(reason)
                .or_insert_with(resolve);
            counter.inc_by(run.len() as u64);
            *mix.entry(reason).or_default() += run.len() as u64;
        }
    }

    /// Logs one decision in so many.
    fn log(&mut self, answered: &Answered, text: &Arc<dyn Lookup>, decisions: &[K::Decision]) {
        let name = |symbol| self.asking.symbols.name(symbol).unwrap_or_default();
        for index in due(&mut self.since_log, self.asking.log_every, decisions.len()) {
            let (decision, by) = (&decisions[index], answered.by(index));
            tracing::info!(
                target: "oona::decision",
                message = text.attribute(index, "oona.id").unwrap_or(""),
                kind = %K::KIND,
                reason = %name(K::reason(decision)),
                stream = %K::stream(decision).map(name).unwrap_or_default(),
                ?decision,
                policy = by.name,
                version = by.version,
                digest = by.digest_short(),
                fault = answered.fault(index).map(Fault::name),
                batch = decisions.len(),
                took_ns = answered.took_ns(index),
                "decided"
            );
        }
    }
}

/// Which of `count` more decisions are due, one being due in `every`; none, of none. `since` counts
/// those since the last one, and is less than `every`.
fn due(since: &mut u32, every: u32, count: usize) -> impl Iterator<Item = usize> + use<> {
    let step = every.max(1) as usize;
    let before = *since as usize;
    let first = if every == 0 { count } else { step - 1 - before };
    // Less than `every`, which is of this type.
    *since = u32::try_from((before + count) % step).unwrap_or(0);
    (first..count).step_by(step)
}

/// Who decided on the messages of a batch.
#[derive(Debug)]
pub(crate) struct Answered {
    answer: Answer,
    /// Whose some of the decisions are instead.
    canary: Option<Canary>,
}

impl Answered {
    /// Whose decision about the message at `index` it is.
    pub(crate) fn by(&self, index: usize) -> &Arc<VersionInfo> {
        self.canary_of(index)
            .map_or(&self.answer.by, |canary| &canary.by)
    }

    /// How the version in use failed, if another one answered for it.
    fn fault(&self, index: usize) -> Option<&Fault> {
        self.canary_of(index)
            .map_or(self.answer.fault.as_ref(), |_| None)
    }

    fn took_ns(&self, index: usize) -> u64 {
        let took = self
            .canary_of(index)
            .map_or(self.answer.elapsed, |canary| canary.elapsed);
        u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
    }

    fn canary_of(&self, index: usize) -> Option<&Canary> {
        self.canary.as_ref().filter(|canary| canary.decided(index))
    }
}

/// A few askers that many share.
pub struct Pool<K: Recorded> {
    askers: Box<[Mutex<Asker<K>>]>,
    next: AtomicUsize,
}

impl<K: Recorded> Pool<K> {
    pub(super) fn new(make: impl Fn() -> Asker<K>) -> Self {
        let count = available_parallelism().map_or(1, usize::from).min(POOL_MAX);
        let askers = (0..count).map(|_| Mutex::new(make())).collect();
        Self {
            askers,
            next: AtomicUsize::new(0),
        }
    }

    /// Lends an asker: one that is free, or else the next.
    pub(crate) fn with<T>(&self, ask: impl FnOnce(&mut Asker<K>) -> T) -> T {
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let turn = |offset: usize| &self.askers[(start + offset) % self.askers.len()];
        let free = (0..self.askers.len()).find_map(|offset| match turn(offset).try_lock() {
            Ok(asker) => Some(asker),
            Err(TryLockError::Poisoned(asker)) => Some(asker.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        });
        ask(&mut free.unwrap_or_else(|| crate::sync::lock(turn(0))))
    }
}

#[cfg(test)]
mod tests {
    use oona_core::policy::{Kind, NoText, Subject};

    use super::*;
    use crate::bus::Streams;
    use crate::policies::{Policies, PolicyOptions};

    #[test]
    fn what_is_recorded_is_one_in_so_many_across_batches() {
        for (every, expected) in [(1, 2_000), (3, 666), (100, 20), (0, 0)] {
            let metrics = Arc::new(Metrics::new());
            let mut options =
                PolicyOptions::new(Streams::default(), metrics, crate::clock::system());
            options.decisions = DecisionLog::in_memory(every);
            let policies = Policies::new(&options);
            let mut asker = policies.routing();
            let text: Arc<dyn Lookup> = Arc::new(NoText);
            let mut decisions = Vec::new();
            let mut id = 0;
            // 2 000 messages in batches of 1 to 64.
            while id < 2_000 {
                let batch = (id % 64 + 1).min(2_000 - id);
                let subjects = (id + 1..=id + batch).map(|id| Subject {
                    attempt: u32::try_from(id).expect("a small number"),
                    ..Subject::default()
                });
                let subjects: Vec<_> = subjects.collect();
                let now = Timestamp::EPOCH;
                asker.ask(now, &(), &subjects, &text, &mut decisions);
                id += batch;
            }
            let recorded = options.decisions.last(Kind::Routing, usize::MAX);
            assert_eq!(recorded.len(), expected, "one in {every}");
            let numbers = recorded.iter().map(|record| record.message.attempt);
            let due = (1..).map(|number| number * every);
            assert!(numbers.eq(due.take(expected)), "one in {every}");
        }
    }

    #[test]
    fn one_decision_in_so_many_is_due_however_they_come_in_batches() {
        for every in 1..9_u32 {
            for batch in 1..20_usize {
                let (mut since, mut seen) = (0, Vec::new());
                for start in (0..500).step_by(batch) {
                    seen.extend(due(&mut since, every, batch).map(|index| start + index));
                }
                let whole = 500_usize.next_multiple_of(batch);
                let step = every as usize;
                let expected: Vec<_> = (step - 1..whole).step_by(step).collect();
                assert_eq!(seen, expected, "one in {every}, by {batch}");
            }
        }
        assert_eq!(due(&mut 0, 0, 9).count(), 0, "one in none");
    }
}
