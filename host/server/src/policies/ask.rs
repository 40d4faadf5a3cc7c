//! Asking a policy, with everything that belongs to it: counters and the decision log.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::thread::available_parallelism;

use oona_core::Timestamp;
use oona_core::policy::Lookup;
use oona_core::symbols::Symbol;
use oona_wasm::{Answer, SymbolTable, VersionInfo, Worker};

use super::Mix;
use super::candidate::{Batch, Beside, Place};
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
    mix: Mix,
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
    pub(super) fn new(worker: Worker<K>, place: Place<K>, mix: Mix, asking: Asking) -> Self {
        let of = Arc::clone(worker.version());
        Self {
            call_seconds: asking.metrics.policy_call_duration(K::KIND),
            counters: Counters {
                of,
                by_reason: HashMap::new(),
            },
            beside: Beside::new(place),
            mix,
            since_log: 0,
            since_record: 0,
            worker,
            asking,
        }
    }

    /// Decides on each of `questions`, in order, into `decisions`, which is cleared first.
    pub(crate) fn ask(
        &mut self,
        now: Timestamp,
        state: &K::State,
        questions: &[K::Question],
        text: &Arc<dyn Lookup>,
        decisions: &mut Vec<K::Decision>,
    ) {
        if questions.is_empty() {
            decisions.clear();
            return;
        }
        let answer = self.worker.decide(now, state, questions, text, decisions);
        self.call_seconds.observe(answer.elapsed.as_secs_f64());
        let batch = Batch {
            now,
            state,
            questions,
            text,
        };
        match self.beside.ask(&batch, decisions, &self.asking.symbols) {
            None => {
                self.count(&answer.by, decisions);
                self.record(&answer, &batch, decisions);
            }
            Some((canary, replaced)) => self.count_apart(&answer.by, &canary, &replaced, decisions),
        }
        self.log(&answer, text, decisions);
    }

    /// Counts what a canary has decided for the canary.
    fn count_apart(
        &mut self,
        by: &Arc<VersionInfo>,
        canary: &Arc<VersionInfo>,
        replaced: &[usize],
        decisions: &[K::Decision],
    ) {
        let theirs: Vec<_> = replaced.iter().map(|&index| decisions[index]).collect();
        let others = decisions.iter().enumerate();
        let others = others.filter(|(index, _)| replaced.binary_search(index).is_err());
        let ours: Vec<_> = others.map(|(_, decision)| *decision).collect();
        self.count(canary, &theirs);
        self.count(by, &ours);
    }

    /// Records one decision in so many.
    fn record(&mut self, answer: &Answer, batch: &Batch<'_, K>, decisions: &[K::Decision]) {
        if !due(
            &mut self.since_record,
            self.asking.decisions.every(),
            decisions.len(),
        ) {
            return;
        }
        let last = decisions.len() - 1;
        let (question, symbols) = (&batch.questions[last], &self.asking.symbols);
        self.asking.decisions.record(OnRecord {
            at_ms: batch.now.as_millis(),
            kind: K::KIND,
            message: Message::of(
                K::subject(question),
                &**batch.text,
                last,
                symbols,
                PAYLOAD_BYTES_MAX,
            ),
            state: K::state(batch.state, question, symbols),
            decision: <K as Recorded>::decision(&decisions[last], symbols),
            policy: answer.by.name.clone(),
            version: answer.by.version.clone(),
            digest: answer.by.digest_short().to_owned(),
            fault: answer.fault.as_ref().map(|fault| fault.name().to_owned()),
            took_ns: u64::try_from(answer.elapsed.as_nanos()).unwrap_or(u64::MAX),
        });
    }

    /// Who decides, for people.
    fn version_label(&self) -> String {
        let version = self.worker.version();
        format!(
            "{}@{}+{}",
            version.name,
            version.version,
            version.digest_short()
        )
    }

    fn count(&mut self, by: &Arc<VersionInfo>, decisions: &[K::Decision]) {
        if !Arc::ptr_eq(by, &self.counters.of) {
            self.counters = Counters {
                of: Arc::clone(by),
                by_reason: HashMap::new(),
            };
        }
        let mut mix = crate::sync::lock(&self.mix);
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

    fn log(&mut self, answer: &Answer, text: &Arc<dyn Lookup>, decisions: &[K::Decision]) {
        if !due(&mut self.since_log, self.asking.log_every, decisions.len()) {
            return;
        }
        let Some(last) = decisions.last() else { return };
        let name = |symbol| self.asking.symbols.name(symbol).unwrap_or_default();
        tracing::info!(
            target: "oona::decision",
            message = text.attribute(decisions.len() - 1, "oona.id").unwrap_or(""),
            kind = %K::KIND,
            reason = %name(K::reason(last)),
            stream = %K::stream(last).map(name).unwrap_or_default(),
            decision = ?last,
            policy = answer.by.name,
            version = answer.by.version,
            digest = answer.by.digest_short(),
            fault = answer.fault.as_ref().map(|fault| fault.name()),
            batch = decisions.len(),
            took_ns = u64::try_from(answer.elapsed.as_nanos()).unwrap_or(u64::MAX),
            "decided"
        );
    }
}

/// Whether one of so many is due, `count` more being there. Never, of none.
fn due(since: &mut u32, every: u32, count: usize) -> bool {
    *since = since.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
    let due = every > 0 && *since >= every && count > 0;
    if due {
        *since = 0;
    }
    due
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

    /// Who decides, for people: name, version and digest.
    pub(crate) fn version_label(&self) -> String {
        self.with(|asker| asker.version_label())
    }
}
