//! A candidate beside the version in use: asked the same, compared, and counted.
//!
//! A shadow's answers are compared and forgotten. A canary's replace those of the version in use for
//! its share of the keys. A candidate that fails costs nobody a decision: the version in use has
//! answered already. After a failure it is left alone for a while, since what fails takes time, and
//! to start it again does too.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use oona_core::Timestamp;
use oona_core::policy::{Decide, Fault, Lookup};
use oona_core::schedule::Backoff;
use oona_core::stage::{Seen, Stage};
use oona_core::symbols::Symbol;
use oona_wasm::{Answer, Instance, SymbolTable, Version, VersionInfo};
use serde::Serialize;

use crate::decisions::PAYLOAD_BYTES_MAX;
use crate::metrics::{Counter, Metrics};
use crate::record::{Decision, Message, Recorded, State};
use crate::sync::lock;

/// How many pairs of reasons are told apart; what comes after is counted with the last.
const PAIRS_MAX: usize = 64;

/// How many examples of each pair are kept.
const EXAMPLES_MAX: usize = 3;

/// Where the candidate of a kind is, if there is one.
pub(super) type Place<K> = Arc<ArcSwapOption<Staged<K>>>;

/// A candidate that is tried.
pub(super) struct Staged<K: Recorded> {
    pub(super) version: Arc<Version<K>>,
    pub(super) stage: Stage,
    decisions: AtomicU64,
    decided: AtomicU64,
    disagreements: AtomicU64,
    faults: AtomicU64,
    timed: AtomicU64,
    took_ns: AtomicU64,
    in_use_ns: AtomicU64,
    failure: Mutex<Option<Failure>>,
    pairs: Mutex<BTreeMap<(Symbol, Symbol), Pair>>,
    counters: TrialCounters,
}

/// The same, for the exposition.
struct TrialCounters {
    agreed: Counter,
    disagreed: Counter,
    faults: Counter,
}

/// Where the version in use and the candidate disagree.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Pair {
    /// The reason that the version in use gives.
    pub in_use: String,
    /// The reason that the candidate gives.
    pub candidate: String,
    /// How often.
    pub count: u64,
    /// Some of them.
    pub examples: Vec<Example>,
}

/// A message about which they disagree.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Example {
    /// The message.
    pub message: Message,
    /// What else both were told.
    pub state: State,
    /// What the version in use says.
    pub in_use: Decision,
    /// What the candidate says.
    pub candidate: Decision,
}

/// A call of the candidate that failed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Failure {
    /// How.
    pub fault: String,
    /// When, in ms since the epoch.
    pub at_ms: u64,
    /// Of how many messages it was asked.
    pub batch: usize,
    /// The first of them.
    pub message: Message,
    /// What else it was told.
    pub state: State,
}

/// How a candidate does, as this host sees it.
#[derive(Clone, Debug, Serialize)]
pub struct StageStatus {
    /// What is tried, how, and when it ends by itself.
    #[serde(flatten)]
    pub stage: Stage,
    /// The candidate.
    pub version: Arc<VersionInfo>,
    /// What this host has seen of it.
    #[serde(flatten)]
    pub seen: Seen,
    /// How many messages it has decided about, as a canary.
    pub decided: u64,
    /// Where it disagrees, most often first.
    pub pairs: Vec<Pair>,
    /// The last of its failures.
    pub failure: Option<Failure>,
}

impl<K: Recorded> Staged<K> {
    pub(super) fn new(version: Arc<Version<K>>, stage: Stage, metrics: &Metrics) -> Self {
        let counters = TrialCounters {
            agreed: metrics.policy_trial_decisions(K::KIND, true),
            disagreed: metrics.policy_trial_decisions(K::KIND, false),
            faults: metrics.policy_trial_faults(K::KIND),
        };
        Self {
            counters,
            version,
            stage,
            decisions: AtomicU64::new(0),
            decided: AtomicU64::new(0),
            disagreements: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            timed: AtomicU64::new(0),
            took_ns: AtomicU64::new(0),
            in_use_ns: AtomicU64::new(0),
            failure: Mutex::default(),
            pairs: Mutex::default(),
        }
    }

    pub(super) fn status(&self) -> StageStatus {
        let mut pairs: Vec<_> = lock(&self.pairs).values().cloned().collect();
        pairs.sort_by_key(|pair| std::cmp::Reverse(pair.count));
        let failure = lock(&self.failure).clone();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StageStatus {
            stage: self.stage.clone(),
            version: Arc::clone(self.version.info()),
            seen: Seen {
                decisions: read(&self.decisions),
                disagreements: read(&self.disagreements),
                faults: read(&self.faults),
                fault: failure.as_ref().map(|failure| failure.fault.clone()),
                timed: read(&self.timed),
                took_ns: read(&self.took_ns),
                in_use_ns: read(&self.in_use_ns),
            },
            decided: read(&self.decided),
            pairs,
            failure,
        }
    }
}

/// A batch, as everybody is asked about it.
pub(super) struct Batch<'a, K: Recorded> {
    pub(super) now: Timestamp,
    pub(super) state: &'a K::State,
    pub(super) questions: &'a [K::Question],
    pub(super) text: &'a Arc<dyn Lookup>,
}

/// One asker's view of the candidate.
pub(super) struct Beside<K: Recorded> {
    place: Place<K>,
    running: Option<Running<K>>,
    answers: Vec<K::Decision>,
}

struct Running<K: Recorded> {
    staged: Arc<Staged<K>>,
    /// None until it was started, and after it could not be.
    instance: Option<Instance<K>>,
    /// How often in a row it has failed here.
    failures: u32,
    /// When it is asked again after that.
    again_at: Timestamp,
}

/// What a canary has decided about.
#[derive(Debug)]
pub(super) struct Canary {
    pub(super) by: Arc<VersionInfo>,
    /// How long it took for its batch.
    pub(super) elapsed: Duration,
    /// The positions of its decisions, in order.
    indices: Vec<usize>,
}

impl Canary {
    pub(super) fn decided(&self, index: usize) -> bool {
        self.indices.binary_search(&index).is_ok()
    }
}

impl<K: Recorded> Beside<K> {
    pub(super) fn new(place: Place<K>) -> Self {
        Self {
            place,
            running: None,
            answers: Vec::new(),
        }
    }

    /// Asks the candidate too, if there is one. The positions that it decides about, as a canary,
    /// have its answers after this.
    pub(super) fn ask(
        &mut self,
        batch: &Batch<'_, K>,
        in_use: &Answer,
        decisions: &mut [K::Decision],
        symbols: &SymbolTable,
    ) -> Option<Canary> {
        let staged = self.place.load();
        let Some(staged) = &*staged else {
            self.running = None;
            return None;
        };
        let current = self.running.as_ref();
        if current.is_none_or(|running| !Arc::ptr_eq(&running.staged, staged)) {
            self.running = Some(Running::new(staged));
        }
        let running = self.running.as_mut()?;
        let elapsed = running.ask(batch, &mut self.answers, symbols)?;
        if in_use.fault.is_none() {
            staged.took(elapsed, in_use.elapsed, batch.questions.len());
        }
        let indices = staged.compare(batch, &self.answers, decisions, symbols);
        (!indices.is_empty()).then(|| Canary {
            by: Arc::clone(staged.version.info()),
            elapsed,
            indices,
        })
    }
}

impl<K: Recorded> Running<K> {
    fn new(staged: &Arc<Staged<K>>) -> Self {
        Self {
            staged: Arc::clone(staged),
            instance: None,
            failures: 0,
            again_at: Timestamp::EPOCH,
        }
    }

    /// Has it decide, unless it is left alone; says how long it took.
    fn ask(
        &mut self,
        batch: &Batch<'_, K>,
        answers: &mut Vec<K::Decision>,
        symbols: &SymbolTable,
    ) -> Option<Duration> {
        if batch.now < self.again_at {
            return None;
        }
        match self.try_ask(batch, answers) {
            Ok(elapsed) => {
                self.failures = 0;
                Some(elapsed)
            }
            Err(fault) => {
                self.again_at = batch.now + Backoff::default().delay(self.failures);
                self.failures = self.failures.saturating_add(1);
                self.staged.failed(batch, &fault, symbols);
                None
            }
        }
    }

    fn try_ask(
        &mut self,
        batch: &Batch<'_, K>,
        answers: &mut Vec<K::Decision>,
    ) -> Result<Duration, String> {
        let instance = match &mut self.instance {
            Some(instance) => instance,
            none => {
                let started = self.staged.version.instance();
                none.insert(started.map_err(|error| crate::chain::chain(&error))?)
            }
        };
        let begun = Instant::now();
        let Batch {
            now,
            state,
            questions,
            text,
        } = *batch;
        let asked = instance.decide(now, state, questions, text, answers);
        let elapsed = begun.elapsed();
        asked
            .map(|()| elapsed)
            .map_err(|fault: Fault| fault.to_string())
    }
}

impl<K: Recorded> Staged<K> {
    fn failed(&self, batch: &Batch<'_, K>, fault: &str, symbols: &SymbolTable) {
        self.faults.fetch_add(1, Ordering::Relaxed);
        self.counters.faults.inc();
        let Some(question) = batch.questions.first() else {
            return;
        };
        let failure = Failure {
            fault: fault.to_owned(),
            at_ms: batch.now.as_millis(),
            batch: batch.questions.len(),
            message: Message::of(
                K::subject(question),
                &**batch.text,
                0,
                symbols,
                PAYLOAD_BYTES_MAX,
            ),
            state: K::state(batch.state, question, symbols),
        };
        // At most one in 100 ms for each who asks: it is left alone after a failure.
        tracing::warn!(
            kind = %K::KIND,
            candidate = %self.version.info(),
            stage = self.stage.revision,
            fault,
            batch = failure.batch,
            message = failure.message.id,
            "a candidate failed"
        );
        *lock(&self.failure) = Some(failure);
    }

    /// How long both took for the same messages.
    fn took(&self, candidate: Duration, in_use: Duration, messages: usize) {
        let ns = |took: Duration| u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.timed.fetch_add(messages as u64, Ordering::Relaxed);
        self.took_ns.fetch_add(ns(candidate), Ordering::Relaxed);
        self.in_use_ns.fetch_add(ns(in_use), Ordering::Relaxed);
    }

    /// Counts where they disagree, and puts in the answers of the candidate where it decides; says
    /// where that was.
    fn compare(
        &self,
        batch: &Batch<'_, K>,
        answers: &[K::Decision],
        decisions: &mut [K::Decision],
        symbols: &SymbolTable,
    ) -> Vec<usize> {
        let count = answers.len() as u64;
        self.decisions.fetch_add(count, Ordering::Relaxed);
        let (mut replaced, mut differ) = (Vec::new(), 0);
        for (index, candidate) in answers.iter().enumerate() {
            if decisions[index] != *candidate {
                differ += 1;
                self.disagrees(batch, index, &decisions[index], candidate, symbols);
            }
            if self.stage.mode.decides(key_hash::<K>(batch, index)) {
                decisions[index] = *candidate;
                replaced.push(index);
            }
        }
        let decided = replaced.len() as u64;
        self.decided.fetch_add(decided, Ordering::Relaxed);
        self.counters.agreed.inc_by(count.saturating_sub(differ));
        self.counters.disagreed.inc_by(differ);
        replaced
    }

    fn disagrees(
        &self,
        batch: &Batch<'_, K>,
        index: usize,
        in_use: &K::Decision,
        candidate: &K::Decision,
        symbols: &SymbolTable,
    ) {
        self.disagreements.fetch_add(1, Ordering::Relaxed);
        let mut pairs = lock(&self.pairs);
        let key = (K::reason(in_use), K::reason(candidate));
        let key = if pairs.len() >= PAIRS_MAX && !pairs.contains_key(&key) {
            (Symbol::NONE, Symbol::NONE)
        } else {
            key
        };
        let pair = pairs.entry(key).or_insert_with(|| {
            let name = |symbol| {
                symbols
                    .name(symbol)
                    .map_or_else(|| "other".to_owned(), |name| name.to_string())
            };
            Pair {
                in_use: name(key.0),
                candidate: name(key.1),
                ..Pair::default()
            }
        });
        pair.count += 1;
        if pair.examples.len() < EXAMPLES_MAX {
            let question = &batch.questions[index];
            pair.examples.push(Example {
                message: Message::of(
                    K::subject(question),
                    &**batch.text,
                    index,
                    symbols,
                    PAYLOAD_BYTES_MAX,
                ),
                state: K::state(batch.state, question, symbols),
                in_use: <K as Recorded>::decision(in_use, symbols),
                candidate: <K as Recorded>::decision(candidate, symbols),
            });
        }
    }
}

/// What a canary's share is taken of: messages of one key go one way.
fn key_hash<K: Recorded>(batch: &Batch<'_, K>, index: usize) -> u64 {
    let key = batch.text.attribute(index, "oona.key");
    key.map_or_else(
        || K::subject(&batch.questions[index]).id,
        oona_core::envelope::id_hash,
    )
}
