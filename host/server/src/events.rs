//! What happened to a host of late: breakers, the mode, policies. For telemetry on the bus, which takes them.

use std::collections::VecDeque;
use std::sync::Mutex;

use oona_core::telemetry::Event;

use crate::sync::lock;

/// How many are held until somebody takes them. The oldest go, and are counted.
pub const EVENTS_MAX: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub struct Events(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    events: VecDeque<Event>,
    lost: u64,
}

/// Events that were taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// The oldest first.
    pub events: Vec<Event>,
    /// How many there was no room for.
    pub lost: u64,
}

impl Events {
    /// Notes one.
    pub fn push(&self, event: Event) {
        let mut held = lock(&self.0);
        if held.events.len() == EVENTS_MAX {
            held.events.pop_front();
            held.lost += 1;
        }
        held.events.push_back(event);
    }

    /// Takes all.
    pub fn take(&self) -> Taken {
        let held = std::mem::take(&mut *lock(&self.0));
        Taken {
            events: held.events.into(),
            lost: held.lost,
        }
    }

    /// Puts back in front what was taken and could not be told yet. The oldest make room for what happened since.
    pub fn put_back(&self, taken: Taken) {
        let mut held = lock(&self.0);
        let since = std::mem::replace(&mut held.events, taken.events.into());
        held.events.extend(since);
        let over = held.events.len().saturating_sub(EVENTS_MAX);
        held.events.drain(..over);
        held.lost += taken.lost + over as u64;
    }

    /// Counts what was taken and can never be told.
    pub fn lose(&self, taken: &Taken) {
        lock(&self.0).lost += taken.lost + taken.events.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use oona_core::Timestamp;
    use oona_core::telemetry::Level;

    use super::*;

    const MAX: u64 = EVENTS_MAX as u64;

    fn event(ms: u64) -> Event {
        Event {
            at: Timestamp::from_millis(ms),
            level: Level::Info,
            name: "mode",
            description: String::new(),
        }
    }

    fn push(events: &Events, times: Range<u64>) {
        times.map(event).for_each(|event| events.push(event));
    }

    /// When what is held happened, and how many were lost.
    fn held(events: &Events) -> (Vec<u64>, u64) {
        let Taken { events, lost } = events.take();
        (events.iter().map(|it| it.at.as_millis()).collect(), lost)
    }

    #[test]
    fn the_oldest_make_room_and_are_counted() {
        let events = Events::default();
        push(&events, 0..MAX + 3);
        assert_eq!(held(&events), ((3..MAX + 3).collect(), 3));
        assert_eq!(events.take(), Taken::default());
    }

    #[test]
    fn what_is_put_back_is_told_before_what_happened_since() {
        // How many happened before they were taken, and until they are put back; which is the oldest then, and how
        // many were lost.
        let table = [
            (0, 0, 0, 0),
            (2, 0, 0, 0),
            (0, 2, 0, 0),
            (2, 3, 0, 0),
            (MAX, 0, 0, 0),
            (MAX - 1, 1, 0, 0),
            (MAX, 1, 1, 1),
            (MAX + 3, 2, 5, 5),
            (5, MAX, 5, 5),
            (MAX + 1, MAX + 1, MAX + 2, MAX + 2),
        ];
        for (before, since, oldest, lost) in table {
            let events = Events::default();
            push(&events, 0..before);
            let taken = events.take();
            push(&events, before..before + since);
            events.put_back(taken);
            let expected = ((oldest..before + since).collect(), lost);
            assert_eq!(held(&events), expected, "{before} and then {since}");
        }
    }

    #[test]
    fn what_is_put_back_again_and_again_is_counted_once() {
        let events = Events::default();
        push(&events, 0..MAX);
        for round in 0..5 {
            let taken = events.take();
            push(&events, MAX + round..MAX + round + 1);
            events.put_back(taken);
        }
        assert_eq!(held(&events), ((5..MAX + 5).collect(), 5));
    }

    #[test]
    fn what_can_never_be_told_is_counted() {
        let events = Events::default();
        push(&events, 0..MAX + 3);
        let taken = events.take();
        push(&events, 200..201);
        events.lose(&taken);
        assert_eq!(held(&events), (vec![200], MAX + 3));
    }
}
