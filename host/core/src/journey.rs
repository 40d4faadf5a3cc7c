//! A message's journey: what happened to it, step by step, as far as this host has seen it.
//!
//! Journeys lie in two rings of the same size. One holds messages that were taken by chance (see
//! [`sampling`](crate::sampling)), the other those that met with trouble: refused, rerouted, failed,
//! retried, filed as a dead letter. So no stream of messages that fare well can push one out that did not.
//! A journey of the first that meets with trouble moves to the second, with all that is known of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::broadcast::Standing;
use crate::entry::EntryId;
use crate::time::Timestamp;

/// How many steps of one journey are held. Above, the oldest go that are not its first
/// [`FIRST_STEPS`], and are counted.
pub const STEPS_MAX: usize = 24;

/// How many of the first steps of a journey always stay: those of its publish.
pub const FIRST_STEPS: usize = 4;

/// The longest detail of a step, in bytes. What is longer is cut.
pub const DETAIL_BYTES_MAX: usize = 160;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A producer handed it over.
    Publish,
    /// It waited for the writer.
    Queue,
    /// Policies decided on it.
    Policy,
    /// It was not written.
    Reject,
    /// It was written.
    Append,
    /// It was handed to a subscriber.
    Deliver,
    /// The subscriber had it in hand.
    Handler,
    /// The subscriber has handled it, and the store knows.
    Ack,
    /// The subscriber could not handle it.
    Nack,
    /// Its delivery failed otherwise.
    Fail,
    /// It was written anew, to be tried again.
    Retry,
    /// It was filed as a dead letter.
    DeadLetter,
    /// The policy gave it up.
    Discard,
    /// It was put back, for another member of the group.
    Release,
    /// It was sent back from the dead letters.
    Redrive,
}

impl What {
    /// The name in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Queue => "queue",
            Self::Policy => "policy",
            Self::Reject => "reject",
            Self::Append => "append",
            Self::Deliver => "deliver",
            Self::Handler => "handler",
            Self::Ack => "ack",
            Self::Nack => "nack",
            Self::Fail => "fail",
            Self::Retry => "retry",
            Self::DeadLetter => "dead_letter",
            Self::Discard => "discard",
            Self::Release => "release",
            Self::Redrive => "redrive",
        }
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// When it ended.
    pub at: Timestamp,
    /// What happened.
    pub what: What,
    /// How long it took, where that means something.
    pub took: Option<Duration>,
    /// The particulars, for people.
    pub detail: String,
    /// The consumer group that it happened in.
    pub group: Option<Arc<str>>,
    /// The attempt that it belongs to, from 1.
    pub attempt: Option<u32>,
}

impl Step {
    /// A step that ended at `at`.
    #[must_use]
    pub fn new(at: Timestamp, what: What, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        detail.truncate(detail.floor_char_boundary(DETAIL_BYTES_MAX));
        Self {
            at,
            what,
            took: None,
            detail,
            group: None,
            attempt: None,
        }
    }

    /// The same, with the time it took.
    #[must_use]
    pub const fn took(mut self, took: Duration) -> Self {
        self.took = Some(took);
        self
    }

    /// The same, of an attempt of a group.
    #[must_use]
    pub fn of(mut self, group: &Arc<str>, attempt: u32) -> Self {
        self.group = Some(Arc::clone(group));
        self.attempt = Some(attempt);
        self
    }
}

/// Where an entry stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its stream.
    pub stream: Arc<str>,
    /// Its position there.
    pub entry: EntryId,
}

/// What is known of one message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Journey {
    /// Its event id.
    pub event_id: String,
    /// The trace that it belongs to, in hexadecimal digits.
    pub trace_id: Option<String>,
    /// Where it was written last.
    pub place: Option<Place>,
    /// What happened, the oldest first.
    pub steps: Vec<Step>,
    /// How many steps are not held any more.
    pub left_out: u32,
}

impl Journey {
    /// Adds a step; at [`STEPS_MAX`] in place of an older one.
    pub fn add(&mut self, step: Step) {
        if self.steps.len() >= STEPS_MAX {
            self.steps.remove(FIRST_STEPS);
            self.left_out = self.left_out.saturating_add(1);
        }
        let index = self.index_of(&step);
        self.steps.insert(index, step);
    }

    /// Where a step belongs. A message can be delivered before whoever wrote it knows that it is written, so
    /// a step that is of no group goes before those of groups that came no sooner.
    fn index_of(&self, step: &Step) -> usize {
        let follows = |after: &&Step| {
            step.group.is_none()
                && after.group.is_some()
                && after.at >= step.at
                && after.what != What::DeadLetter
        };
        let later = self.steps.iter().rev().take_while(follows).count();
        self.steps.len() - later
    }

    /// Where the message is now, in one sentence: by its steps and, of groups that none of them is of, by
    /// what the store says.
    #[must_use]
    pub fn state(&self, standings: &[(String, Standing)]) -> String {
        let mut parts = vec![self.whereabouts()];
        let groups = self.groups();
        for (group, what) in &groups {
            parts.push(format!("group `{group}` {}", in_words(*what)));
        }
        let others = standings
            .iter()
            .filter(|(name, _)| !groups.contains_key(name.as_str()));
        for (group, standing) in others {
            let words = match standing {
                Standing::NoGroup => continue,
                Standing::Unread => "has yet to read it",
                Standing::Pending => "holds it on another host",
                Standing::Passed => "has settled it on another host, or while it was not looked at",
            };
            parts.push(format!("group `{group}` {words}"));
        }
        parts.join("; ")
    }

    /// Where it lies, whatever groups did with it.
    fn whereabouts(&self) -> String {
        let last = self.steps.iter().rev().find(|step| step.group.is_none());
        match (last.map(|step| step.what), &self.place) {
            (Some(What::Reject), _) => {
                let why = last.map_or("", |step| step.detail.as_str());
                format!("it was not written: {why}")
            }
            (_, Some(Place { stream, entry })) => {
                format!("it was written to `{stream}` as entry {entry}")
            }
            _ => "it waits to be written".to_owned(),
        }
    }

    /// What happened last in each group, since it was sent back from the dead letters if it was.
    fn groups(&self) -> BTreeMap<&str, What> {
        let mut groups = BTreeMap::new();
        for step in &self.steps {
            if step.what == What::Redrive {
                groups.retain(|_, what| *what != What::DeadLetter);
            }
            if let Some(group) = &step.group {
                groups.insert(&**group, step.what);
            }
        }
        groups
    }
}

/// What the last step of a group means.
const fn in_words(what: What) -> &'static str {
    match what {
        What::Ack => "has acknowledged it",
        What::Handler | What::Nack | What::Fail => {
            "has answered, and what follows is being written"
        }
        What::Retry => "could not handle it, and will try again",
        What::DeadLetter => "could not handle it: it is a dead letter",
        What::Discard => "could not handle it, and the policy gave it up",
        What::Release => "has put it back for another member",
        _ => "has it in hand",
    }
}

/// A journey that is held, and its place in a ring.
#[derive(Debug)]
struct Kept {
    journey: Journey,
    troubled: bool,
    serial: u64,
}

/// What a message is known by when it is noted.
#[derive(Clone, Debug)]
pub struct Visitor<'a> {
    /// The hash of its event id.
    pub hash: u64,
    /// Its event id.
    pub id: &'a str,
    /// The trace that it belongs to.
    pub trace_id: Option<&'a str>,
    /// Whether it met with trouble.
    pub troubled: bool,
}

/// Journeys by the hash of the event id. See the module.
#[derive(Debug)]
pub struct Journeys {
    max: usize,
    kept: BTreeMap<u64, Kept>,
    usual: VecDeque<(u64, u64)>,
    troubled: VecDeque<(u64, u64)>,
    serial: u64,
}

/// What noting a step has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Whether a journey has begun.
    pub begun: bool,
    /// The hash of the one that had to go for it.
    pub evicted: Option<u64>,
}

impl Journeys {
    /// Holds up to `max` journeys of each kind.
    #[must_use]
    pub const fn new(max: usize) -> Self {
        Self {
            max,
            kept: BTreeMap::new(),
            usual: VecDeque::new(),
            troubled: VecDeque::new(),
            serial: 0,
        }
    }

    /// How many are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The journey of this event, if it is held.
    #[must_use]
    pub fn get(&self, hash: u64, id: &str) -> Option<&Journey> {
        let kept = self.kept.get(&hash)?;
        (kept.journey.event_id == id).then_some(&kept.journey)
    }

    /// The journey of `visitor` for steps to be added to, begun if there is none, moved if it has met with
    /// trouble.
    pub fn visit(&mut self, visitor: &Visitor<'_>) -> (&mut Journey, Changed) {
        let mut changed = Changed::default();
        let known = self.kept.get(&visitor.hash);
        let begins = known.is_none_or(|kept| kept.journey.event_id != visitor.id);
        let moves = known.is_some_and(|kept| visitor.troubled && !kept.troubled);
        if begins || moves {
            self.serial += 1;
            changed.evicted = self.take_place(visitor);
        }
        let serial = self.serial;
        let kept = self.kept.entry(visitor.hash).or_insert_with(|| {
            changed.begun = true;
            Kept {
                journey: Journey::default(),
                troubled: visitor.troubled,
                serial,
            }
        });
        if begins {
            // Of two ids with the same hash the later one stays.
            kept.journey = Journey {
                event_id: visitor.id.to_owned(),
                trace_id: visitor.trace_id.map(str::to_owned),
                ..Journey::default()
            };
        }
        if begins || moves {
            kept.serial = serial;
            kept.troubled = visitor.troubled;
        }
        (&mut kept.journey, changed)
    }

    /// The journey of this hash for steps to be added to, if it is held.
    pub fn revisit(&mut self, hash: u64) -> Option<&mut Journey> {
        self.kept.get_mut(&hash).map(|kept| &mut kept.journey)
    }

    /// Takes a place in a ring, and answers whose journey had to go for it.
    fn take_place(&mut self, visitor: &Visitor<'_>) -> Option<u64> {
        let ring = if visitor.troubled {
            &mut self.troubled
        } else {
            &mut self.usual
        };
        ring.push_back((visitor.hash, self.serial));
        if ring.len() <= self.max {
            return None;
        }
        let (hash, serial) = ring.pop_front()?;
        let is_it = self
            .kept
            .get(&hash)
            .is_some_and(|kept| kept.serial == serial);
        if is_it {
            self.kept.remove(&hash);
        }
        is_it.then_some(hash)
    }
}

#[cfg(test)]
mod tests;
