//! The journeys of messages that this host holds in memory, for `/debug/trace/{event id}`.
//!
//! To note a step costs some 100 ns, so not every message is followed. Up to `tracing.journeys_per_second`
//! messages a second all are; above, so many by chance. What meets with trouble is followed whatever the
//! chance, up to [`TROUBLED_PER_SECOND`]. All others cost a look at a table of counters. Chance is the hash
//! of the event id ([`oona_core::sampling`]), so that every host follows the same messages.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use oona_core::Timestamp;
use oona_core::journey::{Changed, Journey, Step, Visitor};
use oona_core::sampling::{Sampler, takes};

use crate::sync::lock;

/// How many messages in trouble are followed each second. Above, so many by chance.
pub const TROUBLED_PER_SECOND: u64 = 1_000;

/// Counters of the table that tells whether a journey may be held, for each journey.
const CELLS_PER_JOURNEY: usize = 4;

/// How many journeys are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JourneysConfig {
    /// How many, of messages that were taken by chance and of those in trouble each. None if zero.
    pub held_max: usize,
    /// Up to how many a second all are taken.
    pub per_second: u64,
}

impl Default for JourneysConfig {
    fn default() -> Self {
        Self {
            held_max: 5_000,
            per_second: 100,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Journeys {
    chance: Gate,
    trouble: Gate,
    /// How many journeys are held for each value of the lowest bits of a hash: zero for most messages, so
    /// that they need no lock.
    cells: Vec<AtomicU16>,
    held: Mutex<oona_core::journey::Journeys>,
}

/// Counts what comes, and says how much of it is taken.
#[derive(Debug)]
struct Gate {
    seen: AtomicU64,
    seen_max: AtomicU64,
    second: AtomicU64,
    level: AtomicU32,
    sampler: Mutex<Sampler>,
}

impl Gate {
    fn new(per_second: u64) -> Self {
        let sampler = Sampler::new(per_second);
        Self {
            seen: AtomicU64::new(0),
            seen_max: AtomicU64::new(sampler.seen_max()),
            second: AtomicU64::new(sampler.second()),
            level: AtomicU32::new(sampler.level()),
            sampler: Mutex::new(sampler),
        }
    }

    fn offer(&self, now: Timestamp, count: u64) {
        let seen = self.seen.fetch_add(count, Ordering::Relaxed) + count;
        let same_second = now.as_millis() / 1_000 == self.second.load(Ordering::Relaxed);
        if same_second && seen <= self.seen_max.load(Ordering::Relaxed) {
            return;
        }
        let mut sampler = lock(&self.sampler);
        if sampler.saw(now, seen) {
            self.seen.store(0, Ordering::Relaxed);
        }
        self.second.store(sampler.second(), Ordering::Relaxed);
        self.seen_max.store(sampler.seen_max(), Ordering::Relaxed);
        self.level.store(sampler.level(), Ordering::Relaxed);
    }

    fn takes(&self, hash: u64) -> bool {
        takes(self.level.load(Ordering::Relaxed), hash)
    }
}

impl Journeys {
    /// Holds as many as it is told.
    #[must_use]
    pub fn new(config: JourneysConfig) -> Self {
        let JourneysConfig {
            held_max,
            per_second,
        } = config;
        let cells = match held_max {
            0 => 0,
            max => (max * CELLS_PER_JOURNEY).next_power_of_two(),
        };
        Self {
            chance: Gate::new(per_second),
            trouble: Gate::new(TROUBLED_PER_SECOND),
            cells: (0..cells).map(|_| AtomicU16::new(0)).collect(),
            held: Mutex::new(oona_core::journey::Journeys::new(held_max)),
        }
    }

    /// Says that so many messages come by. What is taken of them follows from how many come in a second.
    pub fn offer(&self, now: Timestamp, count: usize) {
        self.chance.offer(now, count as u64);
    }

    /// Of how many messages one is followed by now.
    #[must_use]
    pub fn one_in(&self) -> u64 {
        let level = self.chance.level.load(Ordering::Relaxed);
        1_u64.checked_shl(level).unwrap_or(u64::MAX)
    }

    /// Whether the next step of this message is to be noted.
    #[must_use]
    pub fn wants(&self, hash: u64) -> bool {
        !self.cells.is_empty() && (self.chance.takes(hash) || self.may_hold(hash))
    }

    /// Whether there may be a journey of this hash. If not, there is none.
    #[must_use]
    pub fn may_hold(&self, hash: u64) -> bool {
        self.cell(hash)
            .is_some_and(|cell| cell.load(Ordering::Relaxed) > 0)
    }

    /// Whether the next step of this message is to be noted. Of messages in trouble so many a second are
    /// followed, whatever was chosen by chance. To be asked before anything is made of the step.
    #[must_use]
    pub fn admits(&self, now: Timestamp, hash: u64, troubled: bool) -> bool {
        if self.cells.is_empty() {
            return false;
        }
        if troubled {
            self.trouble.offer(now, 1);
            if self.trouble.takes(hash) {
                return true;
            }
        }
        self.wants(hash)
    }

    /// Notes something of a message that is to be noted, and begins its journey if there is none.
    pub fn visit(&self, visitor: &Visitor<'_>, note: impl FnOnce(&mut Journey)) {
        if self.cells.is_empty() {
            return;
        }
        let mut held = lock(&self.held);
        let (journey, changed) = held.visit(visitor);
        note(journey);
        self.count(visitor.hash, changed);
    }

    /// Adds a step to the journey of this hash, if there is one.
    pub fn add(&self, hash: u64, step: impl FnOnce() -> Step) {
        self.change(hash, |journey| journey.add(step()));
    }

    /// Changes the journey of this hash, if there is one.
    pub fn change(&self, hash: u64, change: impl FnOnce(&mut Journey)) {
        if self.may_hold(hash)
            && let Some(journey) = lock(&self.held).revisit(hash)
        {
            change(journey);
        }
    }

    /// What is known of an event.
    #[must_use]
    pub fn get(&self, hash: u64, id: &str) -> Option<Journey> {
        lock(&self.held).get(hash, id).cloned()
    }

    /// How many are held.
    #[must_use]
    pub fn held(&self) -> usize {
        lock(&self.held).len()
    }

    fn cell(&self, hash: u64) -> Option<&AtomicU16> {
        let mask = self.cells.len().checked_sub(1)?;
        let low = usize::try_from(hash & mask as u64).unwrap_or(0);
        self.cells.get(low)
    }

    /// Keeps the table of counters in step. Called under the lock of what is held.
    fn count(&self, hash: u64, changed: Changed) {
        if let Some(cell) = changed.evicted.and_then(|evicted| self.cell(evicted)) {
            cell.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(cell) = self.cell(hash).filter(|_| changed.begun) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use oona_core::envelope::id_hash;
    use oona_core::journey::What;

    use super::*;

    fn journeys(held_max: usize, per_second: u64) -> Journeys {
        Journeys::new(JourneysConfig {
            held_max,
            per_second,
        })
    }

    fn visit(journeys: &Journeys, now: Timestamp, id: &str, troubled: bool) {
        let visitor = Visitor {
            hash: id_hash(id),
            id,
            trace_id: None,
            troubled,
        };
        journeys.visit(&visitor, |journey| {
            journey.add(Step::new(now, What::Publish, ""));
        });
    }

    /// How many of 10 000 messages within a second are held then.
    fn held_of_many(troubled: bool) -> usize {
        let journeys = journeys(20_000, 100);
        for number in 0..10_000_u64 {
            let now = Timestamp::from_millis(5_000 + number / 20);
            journeys.offer(now, 1);
            let id = number.to_string();
            if journeys.admits(now, id_hash(&id), troubled) {
                visit(&journeys, now, &id, troubled);
            }
        }
        journeys.held()
    }

    #[test]
    fn what_is_held_follows_the_rate_and_not_the_load() {
        // 100 at each level on the way to one in 128, half of them new each time.
        let by_chance = held_of_many(false);
        assert!((100..800).contains(&by_chance), "{by_chance}");
        let in_trouble = held_of_many(true);
        assert!((1_000..5_000).contains(&in_trouble), "{in_trouble}");
    }

    #[test]
    fn every_step_of_a_message_that_is_held_is_wanted() {
        let journeys = journeys(100, 10);
        let now = Timestamp::from_millis(1_000);
        visit(&journeys, now, "held", false);
        let later = now + Duration::from_secs(1);
        journeys.offer(later, 1_000_000);
        let hash = id_hash("held");
        assert!(!journeys.chance.takes(hash), "its hash would be a rare one");
        assert!(journeys.wants(hash));
        journeys.add(hash, || Step::new(later, What::Append, ""));
        let steps = journeys
            .get(hash, "held")
            .map(|journey| journey.steps.len());
        assert_eq!(steps, Some(2));
    }

    #[test]
    fn what_had_to_go_is_not_wanted_any_more() {
        let journeys = journeys(10, 1_000_000);
        let now = Timestamp::from_millis(1_000);
        for number in 0..1_000 {
            visit(&journeys, now, &number.to_string(), false);
        }
        assert_eq!(journeys.held(), 10);
        let cells = journeys.cells.iter();
        let counted: u16 = cells.map(|cell| cell.load(Ordering::Relaxed)).sum();
        assert_eq!(counted, 10);
    }

    #[test]
    fn none_are_held_where_none_may_be() {
        let journeys = journeys(0, 100);
        visit(&journeys, Timestamp::EPOCH, "a", true);
        assert!(!journeys.wants(id_hash("a")));
        assert_eq!(journeys.held(), 0);
    }
}
