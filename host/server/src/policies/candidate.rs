//! A candidate beside the version in use: asked the same, compared, and counted.
//!
//! A shadow's answers are compared and forgotten. A canary's replace those of the version in use for
//! its share of the keys. A candidate that fails costs nobody a decision: the version in use has
//! answered already.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwapOption;
use oona_core::Timestamp;
use oona_core::policy::{Decide, Lookup};
use oona_core::stage::{Seen, Stage};
use oona_core::symbols::Symbol;
use oona_wasm::{Instance, SymbolTable, Version, VersionInfo};
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
            pairs: Mutex::default(),
        }
    }

    pub(super) fn status(&self) -> StageStatus {
        let mut pairs: Vec<_> = lock(&self.pairs).values().cloned().collect();
        pairs.sort_by_key(|pair| std::cmp::Reverse(pair.count));
        StageStatus {
            stage: self.stage.clone(),
            version: Arc::clone(self.version.info()),
            seen: Seen {
                decisions: self.decisions.load(Ordering::Relaxed),
                disagreements: self.disagreements.load(Ordering::Relaxed),
                faults: self.faults.load(Ordering::Relaxed),
            },
            decided: self.decided.load(Ordering::Relaxed),
            pairs,
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
    instance: Instance<K>,
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
    /// have its answers after this; it says how many, and whose they are.
    pub(super) fn ask(
        &mut self,
        batch: &Batch<'_, K>,
        decisions: &mut [K::Decision],
        symbols: &SymbolTable,
    ) -> Option<(Arc<VersionInfo>, Vec<usize>)> {
        let staged = self.place.load();
        let Some(staged) = &*staged else {
            self.running = None;
            return None;
        };
        let current = self.running.as_ref();
        if current.is_none_or(|running| !Arc::ptr_eq(&running.staged, staged)) {
            self.running = match staged.version.instance() {
                Ok(instance) => Some(Running {
                    staged: Arc::clone(staged),
                    instance,
                }),
                Err(_) => {
                    staged.failed();
                    None
                }
            };
        }
        let running = self.running.as_mut()?;
        let Batch {
            now,
            state,
            questions,
            text,
        } = *batch;
        let asked = running
            .instance
            .decide(now, state, questions, text, &mut self.answers);
        if asked.is_err() {
            staged.failed();
            return None;
        }
        staged
            .decisions
            .fetch_add(questions.len() as u64, Ordering::Relaxed);
        let (mut replaced, mut differ) = (Vec::new(), 0);
        for (index, candidate) in self.answers.iter().enumerate() {
            if decisions[index] != *candidate {
                differ += 1;
                staged.disagrees(batch, index, &decisions[index], candidate, symbols);
            }
            if staged.stage.mode.decides(key_hash::<K>(batch, index)) {
                decisions[index] = *candidate;
                replaced.push(index);
            }
        }
        staged
            .decided
            .fetch_add(replaced.len() as u64, Ordering::Relaxed);
        let agreed = (questions.len() as u64).saturating_sub(differ);
        staged.counters.agreed.inc_by(agreed);
        staged.counters.disagreed.inc_by(differ);
        (!replaced.is_empty()).then(|| (Arc::clone(staged.version.info()), replaced))
    }
}

impl<K: Recorded> Staged<K> {
    fn failed(&self) {
        self.faults.fetch_add(1, Ordering::Relaxed);
        self.counters.faults.inc();
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
