//! A candidate over decisions on record: what would have been different.
//!
//! A policy is a pure function and a record holds all that it was told, so asking again needs no bus
//! and no clock, and every core can do a part.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;

use oona_core::Timestamp;
use oona_core::policy::{self, Decide, Kind};
use oona_wasm::{Artifact, Names, StartError, Version};
use serde::Serialize;

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
    /// On how many it decides otherwise.
    pub changed: u64,
    /// On how many it fails.
    pub faults: u64,
    /// The first of its failures.
    pub fault: Option<String>,
    /// Records that are no question to this kind of policy.
    pub unreadable: u64,
    /// What became what, most often first.
    pub pairs: Vec<Pair>,
    /// Changed decisions of further pairs.
    pub other_pairs: u64,
    /// What each stream would have received.
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
    /// Which stream.
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

/// How many records are asked about between two calls of `progress`.
const PROGRESS_EVERY: usize = 1_024;

fn all<K: Recorded>(
    artifact: &Artifact,
    config: &str,
    names: &Names,
    records: &[Arc<OnRecord>],
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Replayed, StartError> {
    let version = Version::<K>::new(artifact, config, names.clone())?;
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let share = records.len().div_ceil(cores).max(1);
    let tallies = thread::scope(|scope| {
        let parts = records.chunks(share).map(|part| {
            let version = &version;
            scope.spawn(move || some(version, names, part, progress))
        });
        let parts: Vec<_> = parts.collect();
        let joined = parts.into_iter().map(|part| {
            part.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        joined.collect::<Result<Vec<_>, _>>()
    })?;
    let whole = tallies.into_iter().reduce(Tally::merge);
    Ok(whole.unwrap_or_default().conclude())
}

fn some<K: Recorded>(
    version: &Arc<Version<K>>,
    names: &Names,
    records: &[Arc<OnRecord>],
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Tally, StartError> {
    let mut instance = version.instance()?;
    let mut tally = Tally::default();
    let mut decisions = Vec::with_capacity(1);
    for part in records.chunks(PROGRESS_EVERY) {
        for record in part.iter().filter(|record| record.kind == K::KIND) {
            let now = Timestamp::from_millis(record.at_ms);
            let asked = K::question(&record.message, &record.state, now, &names.symbols);
            let Ok((state, question)) = asked else {
                tally.unreadable += 1;
                continue;
            };
            let text = Texts::one(&record.message);
            tally.decisions += 1;
            match instance.decide(now, &state, &[question], &text, &mut decisions) {
                Ok(()) => {
                    let decision = <K as Recorded>::decision(&decisions[0], &names.symbols);
                    tally.compare(record, decision);
                }
                Err(fault) => {
                    tally.faults += 1;
                    tally.fault.get_or_insert_with(|| fault.to_string());
                }
            }
        }
        progress(part.len() as u64);
    }
    Ok(tally)
}

#[derive(Default)]
struct Tally {
    decisions: u64,
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
    fn compare(&mut self, record: &OnRecord, to: Decision) {
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

/// Where a decision puts the message: where it says, or, if backpressure admits it, where routing said.
fn destination<'a>(record: &'a OnRecord, decision: &'a Decision) -> Option<&'a str> {
    match decision.verdict.as_str() {
        "admit" => record.state.stream.as_deref(),
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
