//! Asking a policy, with everything that belongs to it: counters and the decision log.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::thread::available_parallelism;

use oona_core::Timestamp;
use oona_core::policy::Lookup;
use oona_core::symbols::Symbol;
use oona_wasm::{Answer, Sandboxed, SymbolTable, VersionInfo, Worker};

use crate::metrics::{Counter, Histogram, Metrics};

/// How many workers of one kind the consume side has at most.
const POOL_MAX: usize = 8;

/// What all who ask have in common.
#[derive(Clone)]
pub(super) struct Asking {
    pub(super) symbols: SymbolTable,
    pub(super) metrics: Arc<Metrics>,
    /// One decision in so many is logged; none if zero.
    pub(super) log_every: u32,
}

/// Asks one kind of policy. There is always an answer.
pub struct Asker<K: Sandboxed> {
    worker: Worker<K>,
    asking: Asking,
    call_seconds: Histogram,
    counters: Counters,
    /// Decisions since one was logged.
    since_log: u32,
}

/// Counters of one version, by reason.
struct Counters {
    of: Arc<VersionInfo>,
    by_reason: HashMap<Symbol, Counter>,
}

impl<K: Sandboxed> Asker<K> {
    pub(super) fn new(worker: Worker<K>, asking: Asking) -> Self {
        let of = Arc::clone(worker.version());
        Self {
            call_seconds: asking.metrics.policy_call_duration(K::KIND),
            counters: Counters {
                of,
                by_reason: HashMap::new(),
            },
            since_log: 0,
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
        self.count(&answer.by, decisions);
        self.log(&answer, text, decisions);
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
        }
    }

    fn log(&mut self, answer: &Answer, text: &Arc<dyn Lookup>, decisions: &[K::Decision]) {
        let count = u32::try_from(decisions.len()).unwrap_or(u32::MAX);
        self.since_log = self.since_log.saturating_add(count);
        if self.asking.log_every == 0 || self.since_log < self.asking.log_every {
            return;
        }
        self.since_log = 0;
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

/// A few askers that many share.
pub struct Pool<K: Sandboxed> {
    askers: Box<[Mutex<Asker<K>>]>,
    next: AtomicUsize,
}

impl<K: Sandboxed> Pool<K> {
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
