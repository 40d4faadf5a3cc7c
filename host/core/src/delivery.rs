//! The life of deliveries in the hands of one subscriber.
//!
//! Each is in flight until it is acknowledged, refused, or past its deadline; then it is somebody
//! else's. Credit is what the subscriber has asked for and not received, in messages and in bytes.
//! Bytes are counted when a delivery goes out: the one that uses the credit up may go over it, since
//! a message that is larger than any credit would else never be delivered.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::time::Timestamp;

/// Limits of one subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryConfig {
    /// How many deliveries may be in flight.
    pub in_flight_max: usize,
    /// At how many bytes in flight the next delivery has to wait.
    pub in_flight_bytes_max: usize,
    /// How long the subscriber has to answer one, in ms.
    pub ack_deadline_ms: u64,
}

/// What a subscriber is ready to take; `usize::MAX` is without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit {
    /// So many messages.
    pub messages: usize,
    /// And so many bytes of them.
    pub bytes: usize,
}

impl Credit {
    /// None at all.
    pub const NONE: Self = Self {
        messages: 0,
        bytes: 0,
    };

    /// So many messages, whatever their size.
    #[must_use]
    pub const fn messages(messages: usize) -> Self {
        Self {
            messages,
            bytes: usize::MAX,
        }
    }
}

/// The delivery is not in flight: settled, timed out, or never made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("delivery {0} is not in flight")]
pub struct NotInFlight(pub u64);

#[derive(Debug)]
struct InFlight<T> {
    value: T,
    bytes: usize,
    deadline: Timestamp,
}

/// See the module.
#[derive(Debug)]
pub struct Deliveries<T> {
    config: DeliveryConfig,
    credit: Credit,
    in_flight_bytes: usize,
    in_flight: BTreeMap<u64, InFlight<T>>,
    deadlines: BTreeSet<(Timestamp, u64)>,
}

impl<T> Deliveries<T> {
    /// No deliveries and no credit.
    #[must_use]
    pub fn new(config: DeliveryConfig) -> Self {
        Self {
            config,
            credit: Credit::NONE,
            in_flight_bytes: 0,
            in_flight: BTreeMap::new(),
            deadlines: BTreeSet::new(),
        }
    }

    /// How many are in flight.
    #[must_use]
    pub fn len(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// The subscriber takes `more`.
    pub const fn credit(&mut self, more: Credit) {
        self.credit.messages = self.credit.messages.saturating_add(more.messages);
        self.credit.bytes = self.credit.bytes.saturating_add(more.bytes);
    }

    /// How many may be delivered right now, as far as bytes let them.
    #[must_use]
    pub fn available(&self) -> usize {
        let full = self.in_flight_bytes >= self.config.in_flight_bytes_max;
        if full || self.credit.bytes == 0 {
            return 0;
        }
        let free = self.config.in_flight_max;
        let free = free.saturating_sub(self.in_flight.len());
        self.credit.messages.min(free)
    }

    /// A delivery of so many bytes goes out. It uses up credit, unless that is without end.
    ///
    /// # Panics
    ///
    /// If the number is in flight already: numbers are not used twice.
    pub fn start(&mut self, now: Timestamp, number: u64, bytes: usize, value: T) {
        let use_up = |credit: &mut usize, used| {
            if *credit < usize::MAX {
                *credit = credit.saturating_sub(used);
            }
        };
        use_up(&mut self.credit.messages, 1);
        use_up(&mut self.credit.bytes, bytes);
        self.in_flight_bytes += bytes;
        let deadline = now + Duration::from_millis(self.config.ack_deadline_ms);
        let out = InFlight {
            value,
            bytes,
            deadline,
        };
        let before = self.in_flight.insert(number, out);
        assert!(before.is_none(), "delivery {number} was made twice");
        self.deadlines.insert((deadline, number));
    }

    /// The subscriber has answered.
    ///
    /// # Errors
    ///
    /// If the delivery is not in flight.
    pub fn settle(&mut self, number: u64) -> Result<T, NotInFlight> {
        let settled = self.in_flight.remove(&number).ok_or(NotInFlight(number))?;
        self.deadlines.remove(&(settled.deadline, number));
        self.in_flight_bytes -= settled.bytes;
        Ok(settled.value)
    }

    /// The subscriber needs until `by` from now. Never brings a deadline forward.
    ///
    /// # Errors
    ///
    /// If the delivery is not in flight.
    pub fn extend(&mut self, now: Timestamp, number: u64, by: Duration) -> Result<(), NotInFlight> {
        let extended = self.in_flight.get_mut(&number).ok_or(NotInFlight(number))?;
        self.deadlines.remove(&(extended.deadline, number));
        extended.deadline = extended.deadline.max(now + by);
        self.deadlines.insert((extended.deadline, number));
        Ok(())
    }

    /// When the next deadline passes.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Takes out what is past its deadline, oldest deadline first.
    pub fn expired(&mut self, now: Timestamp) -> Vec<T> {
        let mut expired = Vec::new();
        while let Some((deadline, number)) = self.deadlines.first().copied()
            && deadline <= now
        {
            self.deadlines.pop_first();
            if let Some(late) = self.in_flight.remove(&number) {
                self.in_flight_bytes -= late.bytes;
                expired.push(late.value);
            }
        }
        expired
    }

    /// Takes out everything, in the order in which it was delivered.
    pub fn drain(&mut self) -> Vec<T> {
        self.deadlines.clear();
        self.in_flight_bytes = 0;
        std::mem::take(&mut self.in_flight)
            .into_values()
            .map(|held| held.value)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    fn deliveries(credit: usize) -> Deliveries<char> {
        let mut deliveries = Deliveries::new(DeliveryConfig {
            in_flight_max: 3,
            in_flight_bytes_max: 100,
            ack_deadline_ms: 100,
        });
        deliveries.credit(Credit::messages(credit));
        deliveries
    }

    #[test]
    fn credit_and_flight_both_limit() {
        let mut few = deliveries(2);
        assert_eq!(few.available(), 2);
        few.start(at(0), 1, 1, 'a');
        assert_eq!(few.available(), 1);
        few.settle(1).unwrap();
        assert_eq!(few.available(), 1, "an answer is no new credit");
        few.credit(Credit::messages(5));
        assert_eq!(few.available(), 3);

        let mut endless = deliveries(usize::MAX);
        (1..=3).for_each(|number| endless.start(at(0), number, 1, 'x'));
        assert_eq!(endless.available(), 0);
        endless.settle(2).unwrap();
        assert_eq!(endless.available(), 1);
    }

    #[test]
    fn bytes_limit_too_and_the_last_may_go_over() {
        let mut few = Deliveries::new(DeliveryConfig {
            in_flight_max: 3,
            in_flight_bytes_max: 100,
            ack_deadline_ms: 100,
        });
        few.credit(Credit {
            messages: 9,
            bytes: 50,
        });
        few.start(at(0), 1, 49, 'a');
        assert_eq!(few.available(), 2, "there is a byte of credit left");
        few.start(at(0), 2, 40, 'b');
        assert_eq!(few.available(), 0, "and now there is none");
        few.credit(Credit {
            messages: 0,
            bytes: 1_000,
        });
        assert_eq!(few.available(), 1);
        few.start(at(0), 3, 11, 'c');
        few.settle(2).unwrap();
        assert_eq!(few.available(), 1, "60 of 100 bytes are in flight");
        few.start(at(0), 4, 900, 'd');
        few.settle(1).unwrap();
        assert_eq!(few.available(), 0, "what is in flight is over its limit");
        few.expired(at(1_000));
        assert_eq!(few.available(), 3);
    }

    #[test]
    fn a_deadline_passes_to_the_millisecond() {
        let mut deliveries = deliveries(9);
        deliveries.start(at(0), 1, 1, 'a');
        deliveries.start(at(10), 2, 1, 'b');
        assert_eq!(deliveries.next_deadline(), Some(at(100)));
        assert_eq!(deliveries.expired(at(99)), []);
        assert_eq!(deliveries.expired(at(100)), ['a']);
        assert_eq!(deliveries.settle(1), Err(NotInFlight(1)));
        assert_eq!(deliveries.expired(at(1_000)), ['b']);
        assert!(deliveries.is_empty());
    }

    #[test]
    fn an_extension_never_shortens() {
        let mut deliveries = deliveries(9);
        deliveries.start(at(0), 1, 1, 'a');
        deliveries
            .extend(at(10), 1, Duration::from_millis(20))
            .unwrap();
        assert_eq!(deliveries.next_deadline(), Some(at(100)));
        deliveries
            .extend(at(90), 1, Duration::from_millis(100))
            .unwrap();
        assert_eq!(deliveries.next_deadline(), Some(at(190)));
        assert_eq!(
            deliveries.extend(at(90), 7, Duration::ZERO),
            Err(NotInFlight(7))
        );
    }

    proptest! {
        /// Every delivery ends exactly once, never before its deadline unless it was answered, and
        /// never are more in flight than may be.
        #[test]
        fn each_delivery_ends_once(
            steps in prop::collection::vec((0u64..60, 0u8..6, 0u64..40), 1..300)
        ) {
            let config = DeliveryConfig { in_flight_max: 5, in_flight_bytes_max: 100, ack_deadline_ms: 100 };
            let mut deliveries = Deliveries::new(config);
            let mut due: BTreeMap<u64, u64> = BTreeMap::new();
            let (mut now, mut next) = (0, 0);
            for (wait, step, number) in steps {
                now += wait;
                match step {
                    0 => deliveries.credit(Credit::messages(2)),
                    1 | 2 if deliveries.available() > 0 => {
                        deliveries.start(at(now), next, 1, next);
                        due.insert(next, now + 100);
                        next += 1;
                    }
                    3 => {
                        let expected = due.remove(&number).map(|_| number);
                        prop_assert_eq!(deliveries.settle(number).ok(), expected);
                    }
                    4 => {
                        let by = Duration::from_millis(150);
                        let known = deliveries.extend(at(now), number, by).is_ok();
                        prop_assert_eq!(known, due.contains_key(&number));
                        due.entry(number).and_modify(|due| *due = (*due).max(now + 150));
                    }
                    _ => {
                        let mut expired = deliveries.expired(at(now));
                        expired.sort_unstable();
                        let expected: Vec<u64> = due
                            .iter()
                            .filter(|(_, due)| **due <= now)
                            .map(|(number, _)| *number)
                            .collect();
                        due.retain(|_, due| *due > now);
                        prop_assert_eq!(expired, expected);
                    }
                }
                prop_assert!(deliveries.len() <= 5);
                prop_assert_eq!(deliveries.len(), due.len());
                prop_assert_eq!(deliveries.in_flight_bytes, due.len());
                prop_assert_eq!(
                    deliveries.next_deadline(),
                    due.values().min().map(|ms| at(*ms))
                );
            }
            prop_assert_eq!(deliveries.drain(), Vec::from_iter(due.into_keys()));
        }
    }

    #[test]
    fn what_is_lost_is_drained_once() {
        let mut deliveries = deliveries(9);
        deliveries.start(at(0), 1, 1, 'a');
        deliveries.start(at(0), 2, 1, 'b');
        assert_eq!(deliveries.drain(), ['a', 'b']);
        assert_eq!(deliveries.drain(), []);
        assert_eq!(deliveries.next_deadline(), None);
    }
}
