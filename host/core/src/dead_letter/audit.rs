//! What lies in the dead-letter stream, estimated from a sample, and whether more is filed than usual.
//!
//! The sample is systematic: of all letters, in their order, each `every`th is read. So an estimate is what
//! the sample counts, times `every`; and what it costs to look at a million letters is what it costs to step
//! over them and to read [`Survey`]'s `sample_max`.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::Serialize;

use super::{DeadLetter, NAMES_MAX, Tally};
use crate::entry::EntryId;
use crate::envelope::message_type;
use crate::time::Timestamp;

/// How many of the newest letters are held up as examples of each reason. There are [`NAMES_MAX`] reasons at
/// most.
pub const EXAMPLES_EACH: usize = 3;

/// How fast what is usual follows what is: after so long it has gone half of the way. Until so long was observed it
/// falls faster, to the mean of what was: the first minutes may have been a storm.
const USUAL_HALF_LIFE: Duration = Duration::from_secs(3_600);

/// A rise is over when less is filed than this share of what would begin one.
const OVER_BELOW: f64 = 0.5;

/// Upper ends of the bands of age, and their names; what is older is of the last band.
const AGES: [(&str, Duration); 5] = [
    ("<1m", Duration::from_secs(60)),
    ("<10m", Duration::from_secs(600)),
    ("<1h", Duration::from_secs(3_600)),
    ("<1d", Duration::from_secs(86_400)),
    ("<7d", Duration::from_secs(604_800)),
];
const OLDER: &str = ">=7d";

/// Which entries of a walk are read: after `skip`, each `every`th.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stride {
    /// How many are stepped over before the first.
    pub skip: u64,
    /// 1 reads all.
    pub every: u64,
}

impl Stride {
    /// Reads nothing: only counts.
    pub const NOTHING: Self = Self {
        skip: u64::MAX,
        every: u64::MAX,
    };

    /// Whether the entry at `place`, from 0, is read.
    #[must_use]
    pub const fn takes(self, place: u64) -> bool {
        place >= self.skip && (place - self.skip).is_multiple_of(self.every)
    }

    /// How it goes on after `seen` entries.
    #[must_use]
    pub const fn after(self, seen: u64) -> Self {
        let skip = if seen <= self.skip {
            self.skip - seen
        } else {
            let over = (seen - self.skip) % self.every;
            if over == 0 { 0 } else { self.every - over }
        };
        Self { skip, ..self }
    }
}

/// One walk over the dead letters, as far as it has come.
#[derive(Clone, Debug)]
pub struct Survey {
    stride: Stride,
    seen: u64,
    foreign: u64,
    tally: Tally,
    /// When each letter of the sample was filed.
    filed: Vec<Timestamp>,
    examples: BTreeMap<String, VecDeque<Example>>,
}

/// A dead letter to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Example {
    id: EntryId,
    event_id: String,
    message_type: String,
    class: String,
    reason: String,
    stream: String,
    group: String,
    at: Timestamp,
}

impl Survey {
    /// Begins a walk over some `length` letters, of which about `sample_max` are read.
    #[must_use]
    pub fn new(length: u64, sample_max: u64) -> Self {
        let stride = Stride {
            skip: 0,
            every: length.div_ceil(sample_max.max(1)).max(1),
        };
        Self {
            stride,
            seen: 0,
            foreign: 0,
            tally: Tally::default(),
            filed: Vec::new(),
            examples: BTreeMap::new(),
        }
    }

    /// Which of the next entries are read.
    #[must_use]
    pub const fn stride(&self) -> Stride {
        self.stride
    }

    /// Goes on by `seen` entries.
    pub const fn stepped(&mut self, seen: u64) {
        self.seen += seen;
        self.stride = self.stride.after(seen);
    }

    /// Takes in a letter that was read.
    pub fn add(&mut self, id: EntryId, letter: &DeadLetter) {
        self.tally.add(letter);
        let happened = &letter.circumstances;
        self.filed.push(happened.at);
        let reason = &happened.reason;
        if !self.examples.contains_key(reason) && self.examples.len() >= NAMES_MAX {
            return;
        }
        let held = self.examples.entry(reason.clone()).or_default();
        if held.len() == EXAMPLES_EACH {
            held.pop_front();
        }
        let message = letter.message();
        held.push_back(Example {
            id,
            event_id: message.map_or_else(String::new, |message| message.id.clone()),
            message_type: message.map_or_else(String::new, |message| {
                message_type::word(message.message_type)
            }),
            class: happened.class.clone(),
            reason: reason.clone(),
            stream: happened.stream.clone(),
            group: happened.group.clone(),
            at: happened.at,
        });
    }

    /// Takes note of an entry that was read and is no dead letter of this bus.
    pub const fn foreign(&mut self) {
        self.foreign += 1;
    }

    /// What it has found, as of `now`.
    #[must_use]
    pub fn picture(&self, now: Timestamp) -> Picture {
        let every = self.stride.every;
        let counts = |names: &BTreeMap<String, u64>| {
            let names = names.iter();
            let mut counts: Vec<_> = names
                .map(|(name, sampled)| Count::new(name, *sampled, every))
                .collect();
            counts.sort_by(|one, other| {
                let by_name = || one.name.cmp(&other.name);
                other.sampled.cmp(&one.sampled).then_with(by_name)
            });
            counts
        };
        let example = |example: &Example| ExampleView {
            id: example.id.to_string(),
            event_id: example.event_id.clone(),
            message_type: example.message_type.clone(),
            class: example.class.clone(),
            reason: example.reason.clone(),
            stream: example.stream.clone(),
            group: example.group.clone(),
            age_ms: age(example.at, now).as_millis() as u64,
        };
        let mut examples: Vec<_> = self.examples.values().flatten().collect();
        examples.sort_by_key(|example| std::cmp::Reverse(example.id));
        Picture {
            at_ms: now.as_millis(),
            length: self.seen,
            sampled: self.tally.count,
            foreign: self.foreign,
            oldest_ms: self.tally.oldest_ms,
            counts: Counts {
                message_type: counts(&self.tally.message_types),
                class: counts(&self.tally.classes),
                reason: counts(&self.tally.reasons),
                source: counts(&self.tally.sources),
                age: self.ages(now),
            },
            examples: examples.into_iter().map(example).collect(),
        }
    }

    /// Every band, the youngest first.
    fn ages(&self, now: Timestamp) -> Vec<Count> {
        let mut sampled = [0; AGES.len() + 1];
        for filed in &self.filed {
            let age = age(*filed, now);
            let band = AGES.iter().position(|(_, end)| age < *end);
            sampled[band.unwrap_or(AGES.len())] += 1;
        }
        let names = AGES.iter().map(|(name, _)| *name).chain([OLDER]);
        names
            .zip(sampled)
            .map(|(name, sampled)| Count::new(name, sampled, self.stride.every))
            .collect()
    }
}

fn age(filed: Timestamp, now: Timestamp) -> Duration {
    Duration::from_millis(now.as_millis().saturating_sub(filed.as_millis()))
}

/// What a walk has found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Picture {
    /// When the walk ended, in ms since the epoch.
    pub at_ms: u64,
    /// How many entries it met.
    pub length: u64,
    /// How many dead letters it read.
    pub sampled: u64,
    /// How many of the entries that it read are no dead letters of this bus.
    pub foreign: u64,
    /// When the oldest of those that it read was filed, in ms since the epoch.
    pub oldest_ms: Option<u64>,
    /// What there is, from most to least.
    pub counts: Counts,
    /// The newest few for each reason, the newest first.
    pub examples: Vec<ExampleView>,
}

/// Estimates, by what letters are told apart by. Of each, [`NAMES_MAX`] names at most; the rest are
/// [`OTHERS`](super::OTHERS).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Counts {
    /// By the message's type.
    #[serde(rename = "type")]
    pub message_type: Vec<Count>,
    /// By class.
    pub class: Vec<Count>,
    /// By reason.
    pub reason: Vec<Count>,
    /// By the publishing subsystem.
    pub source: Vec<Count>,
    /// By how long ago they were filed; every band, the youngest first.
    pub age: Vec<Count>,
}

impl Counts {
    /// Each with its name.
    #[must_use]
    pub fn each(&self) -> [(&'static str, &[Count]); 5] {
        [
            ("type", &self.message_type),
            ("class", &self.class),
            ("reason", &self.reason),
            ("source", &self.source),
            ("age", &self.age),
        ]
    }
}

/// How many there are of one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Count {
    /// The name.
    pub name: String,
    /// How many there are, about.
    pub estimate: u64,
    /// How many of them are in the sample.
    pub sampled: u64,
}

impl Count {
    fn new(name: &str, sampled: u64, every: u64) -> Self {
        Self {
            name: name.to_owned(),
            estimate: sampled.saturating_mul(every),
            sampled,
        }
    }
}

/// A dead letter to look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExampleView {
    /// Its entry in the dead-letter stream.
    pub id: String,
    /// Event id of the message; empty if it could not be read.
    pub event_id: String,
    /// Type of the message; empty if it could not be read.
    #[serde(rename = "type")]
    pub message_type: String,
    /// Under which class it was filed.
    pub class: String,
    /// Why.
    pub reason: String,
    /// The stream that it came from.
    pub stream: String,
    /// The consumer group that could not handle it.
    pub group: String,
    /// How long ago it was filed, in ms.
    pub age_ms: u64,
}

/// When more is filed than usual.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RiseConfig {
    /// Fewer are never a rise, however few are usual: in letters a minute, and within one observation if that is
    /// shorter.
    pub per_minute_min: f64,
    /// How many times what is usual makes a rise.
    pub factor: f64,
}

/// Watches how many letters are filed.
#[derive(Clone, Debug)]
pub struct Rise {
    config: RiseConfig,
    rate: Rate,
    /// For how long.
    observed: Duration,
}

/// How many letters are filed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Rate {
    /// Of late, in letters a minute.
    pub per_minute: f64,
    /// Usually: a mean that has gone half of the way to what is within an hour; it falls faster in the first.
    pub usual_per_minute: f64,
    /// From how many on it is a rise.
    pub threshold_per_minute: f64,
    /// Whether it is one.
    pub rising: bool,
}

impl Rise {
    /// Of which nothing is known yet: what is observed first is usual, so that no start of a host is a rise.
    #[must_use]
    pub fn new(config: RiseConfig) -> Self {
        let rate = Rate {
            threshold_per_minute: config.per_minute_min,
            ..Rate::default()
        };
        Self {
            config,
            rate,
            observed: Duration::ZERO,
        }
    }

    /// How many are filed, as last observed.
    #[must_use]
    pub const fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes in how many were filed within a stretch of time. Answers whether a rise has begun or ended.
    pub fn observe(&mut self, filed: u64, within: Duration) -> bool {
        let minutes = within.as_secs_f64() / 60.0;
        if minutes <= 0.0 {
            return false;
        }
        let RiseConfig {
            per_minute_min,
            factor,
        } = self.config;
        let before = self.rate;
        let per_minute = filed as f64 / minutes;
        let known = if self.observed.is_zero() {
            per_minute
        } else {
            before.usual_per_minute
        };
        self.observed += within;
        let threshold = per_minute_min.max(factor * known);
        let until = if before.rising { OVER_BELOW } else { 1.0 };
        let half_lives = within.as_secs_f64() / USUAL_HALF_LIFE.as_secs_f64();
        let share = within.as_secs_f64() / self.observed.as_secs_f64();
        let gone = 1.0 - (-half_lives).exp2();
        let gone = if per_minute < known {
            gone.max(share)
        } else {
            gone
        };
        self.rate = Rate {
            per_minute,
            usual_per_minute: known + gone * (per_minute - known),
            threshold_per_minute: threshold,
            rising: per_minute >= threshold * until
                && (before.rising || filed as f64 >= per_minute_min),
        };
        self.rate.rising != before.rising
    }
}

#[cfg(test)]
mod tests;
