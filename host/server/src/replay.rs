//! A candidate over decisions on record: what would have been different.
//!
//! A policy is a pure function and a record holds all that it was told, so asking again needs no bus
//! and no clock, and every core can do a part. A log is read in blocks, each core takes the next one,
//! asks about what is in it, and keeps nothing but the count: so its memory does not grow with the
//! log. Records of one moment are asked about in one call.

mod log;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;

use oona_core::Timestamp;
use oona_core::policy::{self, Decide, Fault, Kind, Lookup};
use oona_wasm::{Artifact, Instance, Names, Patient, StartError, Version};
use serde::Serialize;

pub use self::log::{Log, LogError, replay_log, streams};
use crate::decisions::Recorded as OnRecord;
use crate::record::{Decision, Message, Recorded, State, Texts};

/// How many pairs are told apart; what comes after is counted in [`Replayed::other_pairs`].
const PAIRS_MAX: usize = 256;

/// How many examples of each pair are kept.
const EXAMPLES_MAX: usize = 3;

/// How much two values of the pressure may differ and be the same: they went through text.
const PRESSURE_TOLERANCE: f32 = 1e-4;

/// What would have been different.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Replayed {
    /// Decisions on record that the candidate was asked about.
    pub decisions: u64,
    /// How many decisions were made, of which those are the ones that were recorded.
    pub stand_for: u64,
    /// On how many it decides otherwise.
    pub changed: u64,
    /// On how many it fails.
    pub faults: u64,
    /// The first of its failures.
    pub fault: Option<String>,
    /// Records that are no question to this kind of policy, and lines that are no record.
    pub unreadable: u64,
    /// What became what, most often first.
    pub pairs: Vec<Pair>,
    /// Changed decisions of further pairs.
    pub other_pairs: u64,
    /// What each stream would have received; of freshness, what would have been delivered or refused,
    /// and of dead-letter, what would have been tried again or put away.
    pub streams: Vec<Load>,
}

/// A decision that became another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pair {
    /// Verdict and reason on record.
    pub from: String,
    /// Verdict and reason of the candidate.
    pub to: String,
    /// How often.
    pub count: u64,
    /// Some of them.
    pub examples: Vec<Example>,
}

/// A message that would have fared differently.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Example {
    /// When it was decided about, in ms since the epoch.
    pub at_ms: u64,
    /// The message.
    pub message: Message,
    /// What else the policies were told.
    pub state: State,
    /// What is on record.
    pub from: Decision,
    /// What the candidate says.
    pub to: Decision,
}

/// What a stream received, and would have received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Load {
    /// Which stream, or what became of the message.
    pub stream: String,
    /// On record.
    pub before: u64,
    /// With the candidate.
    pub after: u64,
}

/// Asks the candidate about every decision of its kind, on all cores. `progress` is called now and
/// then with how many more are done.
///
/// # Errors
///
/// If the candidate does not start, or refuses its configuration.
pub fn replay(
    artifact: &Artifact,
    config: &str,
    names: &Names,
    records: &[Arc<OnRecord>],
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Replayed, StartError> {
    match artifact.kind() {
        Kind::Routing => all::<policy::Routing>(artifact, config, names, records, progress),
        Kind::Backpressure => {
            all::<policy::Backpressure>(artifact, config, names, records, progress)
        }
        Kind::Freshness => all::<policy::Freshness>(artifact, config, names, records, progress),
        Kind::DeadLetter => all::<policy::DeadLetter>(artifact, config, names, records, progress),
    }
}

/// How many records are taken at a time.
const PART: usize = 1_024;

fn all<K: Recorded>(
    artifact: &Artifact,
    config: &str,
    names: &Names,
    records: &[Arc<OnRecord>],
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Replayed, StartError> {
    let version = Version::<K>::new(artifact, config, names.clone())?;
    of_version(&version, names, records, progress)
}

/// As [`replay`], of a version that is configured already.
pub(crate) fn of_version<K: Recorded>(
    version: &Arc<Version<K>>,
    names: &Names,
    records: &[Arc<OnRecord>],
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Replayed, StartError> {
    let cores = cores().min(records.len().div_ceil(PART).max(1));
    let share = records.len().div_ceil(cores).max(1);
    let tallies = thread::scope(|scope| {
        let parts = records.chunks(share).map(|records| {
            scope.spawn(move || {
                let mut asking = Asking::new(version, names)?;
                for part in records.chunks(PART) {
                    asking.about(part.iter().map(|record| &**record));
                    progress(part.len() as u64);
                }
                Ok(asking.tally)
            })
        });
        join(parts.collect())
    })?;
    Ok(conclude(tallies))
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

fn join<T, E>(parts: Vec<thread::ScopedJoinHandle<'_, Result<T, E>>>) -> Result<Vec<T>, E> {
    let joined = parts.into_iter().map(|part| {
        part.join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    joined.collect()
}

fn conclude(tallies: Vec<Tally>) -> Replayed {
    let whole = tallies.into_iter().reduce(Tally::merge);
    whole.unwrap_or_default().conclude()
}

/// One core's part.
struct Asking<'a, K: Recorded> {
    instance: Patient<Instance<K>>,
    names: &'a Names,
    decisions: Vec<K::Decision>,
    tally: Tally,
}

/// A record, and what it asks.
struct Question<'a, K: Recorded> {
    record: &'a OnRecord,
    state: K::State,
    question: K::Question,
}

impl<'a, K: Recorded> Asking<'a, K> {
    fn new(version: &Arc<Version<K>>, names: &'a Names) -> Result<Self, StartError> {
        Ok(Self {
            instance: version.on_trial()?,
            names,
            decisions: Vec::new(),
            tally: Tally::default(),
        })
    }

    /// Asks about some records, those of other kinds left out.
    fn about<'r>(&mut self, records: impl Iterator<Item = &'r OnRecord>) {
        let mut questions: Vec<Question<'_, K>> = Vec::new();
        for record in records.filter(|record| record.kind == K::KIND) {
            let now = Timestamp::from_millis(record.at_ms);
            match K::question(&record.message, &record.state, now, &self.names.symbols) {
                Ok((state, question)) => questions.push(Question {
                    record,
                    state,
                    question,
                }),
                Err(_) => self.tally.unreadable += 1,
            }
        }
        questions.sort_by_key(|question| question.record.at_ms);
        let same = |one: &Question<'_, K>, next: &Question<'_, K>| {
            one.record.at_ms == next.record.at_ms && one.state == next.state
        };
        for together in questions.chunk_by(same) {
            if self.ask(together).is_ok() {
                continue;
            }
            // One of them, and which?
            for alone in together.chunks(1) {
                if let Err(fault) = self.ask(alone) {
                    self.tally.failed(alone[0].record, &fault);
                }
            }
        }
    }

    /// Asks about records of one moment in one call. None of them is counted if it fails.
    fn ask(&mut self, together: &[Question<'_, K>]) -> Result<(), Fault> {
        let Some(first) = together.first() else {
            return Ok(());
        };
        let now = Timestamp::from_millis(first.record.at_ms);
        let questions: Vec<_> = together.iter().map(|asked| asked.question).collect();
        let messages = together.iter().map(|asked| asked.record.message.clone());
        let text: Arc<dyn Lookup> = Arc::new(Texts(messages.collect()));
        let asked = self
            .instance
            .decide(now, &first.state, &questions, &text, &mut self.decisions);
        asked?;
        for (asked, decision) in together.iter().zip(&self.decisions) {
            let decision = <K as Recorded>::decision(decision, &self.names.symbols);
            self.tally.compare(asked.record, decision);
        }
        Ok(())
    }
}

#[derive(Default)]
struct Tally {
    decisions: u64,
    stand_for: u64,
    changed: u64,
    faults: u64,
    fault: Option<String>,
    unreadable: u64,
    pairs: BTreeMap<(String, String), (u64, Vec<Example>)>,
    other_pairs: u64,
    /// By stream: on record, and with the candidate.
    streams: BTreeMap<String, (u64, u64)>,
}

impl Tally {
    fn failed(&mut self, record: &OnRecord, fault: &Fault) {
        self.asked(record);
        self.faults += 1;
        self.fault.get_or_insert_with(|| fault.to_string());
    }

    fn asked(&mut self, record: &OnRecord) {
        self.decisions += 1;
        self.stand_for += u64::from(record.every);
    }

    fn compare(&mut self, record: &OnRecord, to: Decision) {
        self.asked(record);
        let from = &record.decision;
        let before = destination(record, from);
        let after = destination(record, &to);
        if let Some(stream) = before {
            self.load(stream).0 += 1;
        }
        if let Some(stream) = after {
            self.load(stream).1 += 1;
        }
        if same(from, &to) {
            return;
        }
        self.changed += 1;
        let key = (in_short(from), in_short(&to));
        if self.pairs.len() >= PAIRS_MAX && !self.pairs.contains_key(&key) {
            self.other_pairs += 1;
            return;
        }
        let (count, examples) = self.pairs.entry(key).or_default();
        *count += 1;
        if examples.len() < EXAMPLES_MAX {
            examples.push(Example {
                at_ms: record.at_ms,
                message: record.message.clone(),
                state: record.state.clone(),
                from: from.clone(),
                to,
            });
        }
    }

    fn load(&mut self, stream: &str) -> &mut (u64, u64) {
        if !self.streams.contains_key(stream) {
            self.streams.insert(stream.to_owned(), (0, 0));
        }
        self.streams
            .get_mut(stream)
            .unwrap_or_else(|| unreachable!("it was put there"))
    }

    fn merge(mut self, other: Self) -> Self {
        self.decisions += other.decisions;
        self.stand_for += other.stand_for;
        self.changed += other.changed;
        self.faults += other.faults;
        self.fault = self.fault.or(other.fault);
        self.unreadable += other.unreadable;
        self.other_pairs += other.other_pairs;
        for (key, (count, examples)) in other.pairs {
            let (known, kept) = self.pairs.entry(key).or_default();
            *known += count;
            kept.extend(examples);
            kept.truncate(EXAMPLES_MAX);
        }
        for (stream, (before, after)) in other.streams {
            let load = self.streams.entry(stream).or_default();
            load.0 += before;
            load.1 += after;
        }
        self
    }

    fn conclude(self) -> Replayed {
        let pairs = self
            .pairs
            .into_iter()
            .map(|((from, to), (count, examples))| Pair {
                from,
                to,
                count,
                examples,
            });
        let mut pairs: Vec<_> = pairs.collect();
        pairs.sort_by_key(|pair| std::cmp::Reverse(pair.count));
        let streams = self.streams.into_iter();
        Replayed {
            decisions: self.decisions,
            stand_for: self.stand_for,
            changed: self.changed,
            faults: self.faults,
            fault: self.fault,
            unreadable: self.unreadable,
            pairs,
            other_pairs: self.other_pairs,
            streams: streams
                .map(|(stream, (before, after))| Load {
                    stream,
                    before,
                    after,
                })
                .collect(),
        }
    }
}

/// Where a decision puts the message: where it says, or, if backpressure admits it, where routing said;
/// behind the streams, what becomes of it.
fn destination<'a>(record: &'a OnRecord, decision: &'a Decision) -> Option<&'a str> {
    match (record.kind, decision.verdict.as_str()) {
        (Kind::Backpressure, "admit") => record.state.stream.as_deref(),
        (Kind::Freshness, "fresh") => Some("delivered"),
        (Kind::Freshness, _) => Some("refused"),
        (Kind::DeadLetter, "retry") => Some("tried again"),
        (Kind::DeadLetter, "dead-letter") => Some("dead letters"),
        (Kind::DeadLetter, _) => Some("discarded"),
        _ => decision.stream.as_deref(),
    }
}

/// Whether two decisions are the same, but for what writing and reading a number costs.
#[must_use]
pub fn same(one: &Decision, other: &Decision) -> bool {
    let near = match (one.pressure, other.pressure) {
        (Some(one), Some(other)) => (one - other).abs() <= PRESSURE_TOLERANCE,
        (one, other) => one == other,
    };
    let without = |decision: &Decision| Decision {
        pressure: None,
        ..decision.clone()
    };
    near && without(one) == without(other)
}

/// Verdict, stream and reason: what changed decisions are counted by.
fn in_short(decision: &Decision) -> String {
    let Decision {
        verdict,
        reason,
        stream,
        ..
    } = decision;
    match stream {
        Some(stream) => format!("{verdict} {stream} ({reason})"),
        None => format!("{verdict} ({reason})"),
    }
}
