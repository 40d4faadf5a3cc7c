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
}

#[cfg(test)]
mod tests {
    use oona_core::Timestamp;
    use oona_core::telemetry::Level;

    use super::*;

    #[test]
    fn the_oldest_make_room_and_are_counted() {
        let events = Events::default();
        let event = |ms| Event {
            at: Timestamp::from_millis(ms),
            level: Level::Info,
            name: "mode",
            description: String::new(),
        };
        for ms in 0..EVENTS_MAX as u64 + 3 {
            events.push(event(ms));
        }
        let taken = events.take();
        assert_eq!((taken.events.len(), taken.lost), (EVENTS_MAX, 3));
        assert_eq!(taken.events[0], event(3));
        assert_eq!(events.take(), Taken::default());
    }
}
