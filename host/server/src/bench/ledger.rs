//! The account of a load, kept outside the bus: what was published, and what became of it.
//!
//! Every message has a number and a line. A line says what the producer heard and what the subscribers
//! saw; the tally is kept up to date with each change, so that it can be looked at during the load.

use std::ops::AddAssign;
use std::sync::Mutex;

use serde::Serialize;

use crate::sync::lock;

const ACCEPTED: u8 = 1;
const REFUSED: u8 = 2;
const UNKNOWN: u8 = 4;
const HANDLED: u8 = 8;
const DEAD: u8 = 16;

/// How the ids of messages begin; their number follows.
const ID_PREFIX: &str = "load-";

/// One message.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    /// What is known of it.
    known: u8,
    /// How often it came, up to a bound.
    came: u8,
    /// How often it came without the mark of a redelivery, up to a bound.
    unmarked: u8,
}

/// What became of all messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Handed to a host.
    pub published: u64,
    /// Of these: the producer heard that it is written.
    pub accepted: u64,
    /// The producer heard that it is not.
    pub refused: u64,
    /// The producer heard neither: the connection broke, or the store did not answer. These may come,
    /// and may not.
    pub unknown: u64,
    /// Came to a subscriber, each counted once.
    pub delivered: u64,
    /// Handled and acknowledged by a subscriber, each counted once.
    pub acknowledged: u64,
    /// In the dead-letter stream, each counted once.
    pub dead_lettered: u64,
    /// Deliveries of a message that had come before.
    pub redelivered: u64,
    /// Deliveries of a message that had come before, without the mark that says so.
    pub unmarked: u64,
    /// Refused, and came all the same.
    pub contradicted: u64,
    /// Accepted, and neither acknowledged nor a dead letter: on its way, or at the end lost.
    pub open: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        let Self {
            published,
            accepted,
            refused,
            unknown,
            delivered,
            acknowledged,
            dead_lettered,
            redelivered,
            unmarked,
            contradicted,
            open,
        } = other;
        self.published += published;
        self.accepted += accepted;
        self.refused += refused;
        self.unknown += unknown;
        self.delivered += delivered;
        self.acknowledged += acknowledged;
        self.dead_lettered += dead_lettered;
        self.redelivered += redelivered;
        self.unmarked += unmarked;
        self.contradicted += contradicted;
        self.open += open;
    }
}

impl Tally {
    /// Takes a line out of the tally or back into it.
    fn count(&mut self, line: Line, back: bool) {
        let is = |flag: u8| u64::from(line.known & flag != 0);
        let done = is(HANDLED | DEAD);
        let came = u64::from(line.came > 0);
        let counts = [
            (&mut self.accepted, is(ACCEPTED)),
            (&mut self.refused, is(REFUSED)),
            (&mut self.unknown, is(UNKNOWN)),
            (&mut self.delivered, came),
            (&mut self.acknowledged, is(HANDLED)),
            (&mut self.dead_lettered, is(DEAD)),
            (
                &mut self.redelivered,
                u64::from(line.came.saturating_sub(1)),
            ),
            (
                &mut self.unmarked,
                u64::from(line.unmarked.saturating_sub(1)),
            ),
            (&mut self.contradicted, is(REFUSED) & (came | is(DEAD))),
            (&mut self.open, is(ACCEPTED) & (1 - done)),
        ];
        for (total, count) in counts {
            *total = if back { *total + count } else { *total - count };
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    lines: Vec<Line>,
    tally: Tally,
}

impl Ledger {
    /// A message is about to be handed to a host. Answers its number.
    pub(super) fn publish(&self) -> u64 {
        let mut book = lock(&self.0);
        book.lines.push(Line::default());
        book.tally.published += 1;
        book.lines.len() as u64 - 1
    }

    /// The producer has heard that it is written.
    pub(super) fn accepted(&self, number: u64) {
        self.change(number, |line| line.known |= ACCEPTED);
    }

    /// The producer has heard that it is not.
    pub(super) fn refused(&self, number: u64) {
        self.change(number, |line| line.known |= REFUSED);
    }

    /// The producer will not hear any more.
    pub(super) fn unknown(&self, number: u64) {
        self.change(number, |line| line.known |= UNKNOWN);
    }

    /// A subscriber has it in hand.
    pub(super) fn came(&self, number: u64, redelivered: bool) {
        self.change(number, |line| {
            line.came = line.came.saturating_add(1);
            line.unmarked = line.unmarked.saturating_add(u8::from(!redelivered));
        });
    }

    /// A subscriber has handled it, and says so.
    pub(super) fn acknowledged(&self, number: u64) {
        self.change(number, |line| line.known |= HANDLED);
    }

    /// It is in the dead-letter stream.
    pub(super) fn dead_lettered(&self, number: u64) {
        self.change(number, |line| line.known |= DEAD);
    }

    pub(super) fn tally(&self) -> Tally {
        lock(&self.0).tally
    }

    fn change(&self, number: u64, change: impl FnOnce(&mut Line)) {
        let book = &mut *lock(&self.0);
        let line = usize::try_from(number)
            .ok()
            .and_then(|at| book.lines.get_mut(at));
        if let Some(line) = line {
            book.tally.count(*line, false);
            change(line);
            book.tally.count(*line, true);
        }
    }
}

/// The id of a message.
pub(super) fn id_of(number: u64) -> String {
    format!("{ID_PREFIX}{number}")
}

/// The number of the message with this id.
pub(super) fn number_of(id: &str) -> Option<u64> {
    id.strip_prefix(ID_PREFIX)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_accepted_and_not_done_is_open() {
        let ledger = Ledger::default();
        for _ in 0..5 {
            let number = ledger.publish();
            ledger.accepted(number);
        }
        ledger.came(0, false);
        ledger.acknowledged(0);
        ledger.came(1, false);
        ledger.dead_lettered(2);
        let tally = ledger.tally();
        assert_eq!((tally.published, tally.accepted, tally.open), (5, 5, 3));
        assert_eq!(
            (tally.delivered, tally.acknowledged, tally.dead_lettered),
            (2, 1, 1)
        );
    }

    #[test]
    fn at_most_one_delivery_of_a_message_may_bear_no_mark() {
        let ledger = Ledger::default();
        ledger.publish();
        // A subscriber that hung sees its first delivery after another has seen the second.
        for redelivered in [true, false, true] {
            ledger.came(0, redelivered);
        }
        let tally = ledger.tally();
        assert_eq!((tally.redelivered, tally.unmarked), (2, 0));
        ledger.came(0, false);
        assert_eq!(ledger.tally().unmarked, 1);
    }

    #[test]
    fn what_was_refused_must_not_come_and_what_is_unknown_may() {
        let ledger = Ledger::default();
        let (refused, unknown) = (ledger.publish(), ledger.publish());
        ledger.refused(refused);
        ledger.unknown(unknown);
        assert_eq!(ledger.tally().open, 0);
        ledger.came(unknown, false);
        assert_eq!(ledger.tally().contradicted, 0);
        ledger.came(refused, false);
        assert_eq!(ledger.tally().contradicted, 1);
    }

    #[test]
    fn ids_and_numbers_name_each_other() {
        assert_eq!(number_of(&id_of(7)), Some(7));
        assert_eq!([number_of("load-"), number_of("other-1")], [None, None]);
    }
}
