//! Nonces: what has been seen, for as long as it must be remembered.
//!
//! A nonce is held for the whole time that it was asked to be, whatever the load: a window that
//! evicts early is a hole through which replays pass. At its bound it refuses what is new, loudly.
//!
//! The keys of the map are hashes that whoever can publish may choose. So the map is an ordered one,
//! whose cost does not depend on how they were chosen. A hash table would be twice as fast (0.8 instead
//! of 1.5 µs for a message among 400 000), but would stop everybody to grow while it moves a million
//! entries, and that is longer than an emergency may take.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::time::Duration;

use crate::entry::EntryId;
use crate::policy::NonceSeen;
use crate::symbols::Symbol;
use crate::time::Timestamp;

/// How many nonces are forgotten in one call at most, so that the first message after a pause does not
/// wait for a million of them. More than one, so that forgetting keeps up.
const EXPIRED_PER_CALL_MAX: usize = 64;

/// An entry, by its stream and its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryKey {
    /// Its stream.
    pub stream: Symbol,
    /// Its place there.
    pub id: EntryId,
}

/// The window is at its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} nonces are remembered, and that is the limit")]
pub struct Full(pub usize);

#[derive(Clone, Copy, Debug)]
struct Seen {
    owner: EntryKey,
    until: Timestamp,
}

/// See the module.
#[derive(Debug)]
pub struct NonceWindow {
    count_max: usize,
    seen: BTreeMap<u64, Seen>,
    /// Each nonce once: where it expires, or did before it was extended.
    by_expiry: BTreeMap<Timestamp, Vec<u64>>,
}

impl NonceWindow {
    /// A window that remembers at most `count_max` nonces at once, about 100 bytes each.
    #[must_use]
    pub fn new(count_max: usize) -> Self {
        Self {
            count_max,
            seen: BTreeMap::new(),
            by_expiry: BTreeMap::new(),
        }
    }

    /// How many nonces are remembered, or are yet to be cleared away.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// What is remembered of `nonce` at `now`, seen on `owner`.
    #[must_use]
    pub fn seen(&self, now: Timestamp, nonce: u64, owner: EntryKey) -> NonceSeen {
        match self.seen.get(&nonce) {
            Some(seen) if now < seen.until && seen.owner == owner => NonceSeen::SameEntry,
            Some(seen) if now < seen.until => NonceSeen::OtherEntry,
            _ => NonceSeen::Unseen,
        }
    }

    /// Remembers that `nonce` was seen on `owner`, until `time` has passed; answers what was known
    /// before. What another entry holds stays with it.
    ///
    /// # Errors
    ///
    /// If there is no room: nothing is forgotten to make some.
    pub fn remember(
        &mut self,
        now: Timestamp,
        nonce: u64,
        owner: EntryKey,
        time: Duration,
    ) -> Result<NonceSeen, Full> {
        self.expire(now);
        while self.seen.len() >= self.count_max && self.expire(now) {}
        let until = now + time;
        let full = self.seen.len() >= self.count_max;
        match self.seen.entry(nonce) {
            Slot::Vacant(_) if full => Err(Full(self.count_max)),
            Slot::Vacant(slot) => {
                slot.insert(Seen { owner, until });
                self.by_expiry.entry(until).or_default().push(nonce);
                Ok(NonceSeen::Unseen)
            }
            Slot::Occupied(mut slot) if slot.get().until <= now => {
                slot.insert(Seen { owner, until });
                Ok(NonceSeen::Unseen)
            }
            Slot::Occupied(slot) if slot.get().owner != owner => Ok(NonceSeen::OtherEntry),
            Slot::Occupied(mut slot) => {
                let seen = slot.get_mut();
                seen.until = seen.until.max(until);
                Ok(NonceSeen::SameEntry)
            }
        }
    }

    /// Forgets some of what need not be remembered any longer. `false` if there was nothing to do.
    fn expire(&mut self, now: Timestamp) -> bool {
        let mut forgotten = 0;
        while forgotten < EXPIRED_PER_CALL_MAX
            && let Some(mut first) = self.by_expiry.first_entry()
            && *first.key() <= now
        {
            let Some(nonce) = first.get_mut().pop() else {
                first.remove();
                continue;
            };
            forgotten += 1;
            if let Slot::Occupied(slot) = self.seen.entry(nonce) {
                let until = slot.get().until;
                if until <= now {
                    slot.remove();
                } else {
                    self.by_expiry.entry(until).or_default().push(nonce);
                }
            }
        }
        forgotten > 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    fn entry(seq: u64) -> EntryKey {
        EntryKey {
            stream: Symbol(1),
            id: EntryId { ms: 0, seq },
        }
    }

    const WINDOW: Duration = Duration::from_millis(100);

    #[test]
    fn a_nonce_is_held_to_the_millisecond() {
        let mut window = NonceWindow::new(10);
        assert_eq!(
            window.remember(at(0), 7, entry(1), WINDOW),
            Ok(NonceSeen::Unseen)
        );
        assert_eq!(window.seen(at(99), 7, entry(2)), NonceSeen::OtherEntry);
        assert_eq!(window.seen(at(99), 7, entry(1)), NonceSeen::SameEntry);
        assert_eq!(window.seen(at(100), 7, entry(2)), NonceSeen::Unseen);
    }

    #[test]
    fn another_entry_does_not_take_a_nonce_over() {
        let mut window = NonceWindow::new(10);
        window.remember(at(0), 7, entry(1), WINDOW).unwrap();
        assert_eq!(
            window.remember(at(50), 7, entry(2), WINDOW),
            Ok(NonceSeen::OtherEntry)
        );
        assert_eq!(window.seen(at(99), 7, entry(1)), NonceSeen::SameEntry);
        assert_eq!(
            window.seen(at(100), 7, entry(1)),
            NonceSeen::Unseen,
            "and nothing is extended"
        );
    }

    #[test]
    fn seeing_it_again_may_extend_and_never_shortens() {
        let mut window = NonceWindow::new(10);
        window.remember(at(0), 7, entry(1), WINDOW).unwrap();
        window
            .remember(at(10), 7, entry(1), Duration::from_millis(1))
            .unwrap();
        assert_eq!(window.seen(at(99), 7, entry(2)), NonceSeen::OtherEntry);
        window.remember(at(50), 7, entry(1), WINDOW).unwrap();
        window.remember(at(100), 8, entry(8), WINDOW).unwrap();
        assert_eq!(window.len(), 2, "where it would have expired, it is kept");
        assert_eq!(window.seen(at(149), 7, entry(2)), NonceSeen::OtherEntry);
        window.remember(at(150), 9, entry(9), WINDOW).unwrap();
        assert_eq!(window.len(), 2, "and forgotten in its time");
    }

    #[test]
    fn a_full_window_refuses_and_forgets_nothing() {
        let mut window = NonceWindow::new(2);
        window.remember(at(0), 1, entry(1), WINDOW).unwrap();
        window.remember(at(50), 2, entry(2), WINDOW).unwrap();
        assert_eq!(window.remember(at(99), 3, entry(3), WINDOW), Err(Full(2)));
        assert_eq!(
            window.remember(at(99), 1, entry(9), WINDOW),
            Ok(NonceSeen::OtherEntry)
        );
        assert_eq!(
            window.remember(at(100), 3, entry(3), WINDOW),
            Ok(NonceSeen::Unseen)
        );
    }

    #[test]
    fn after_a_pause_little_is_cleared_away_at_a_time() {
        let mut window = NonceWindow::new(1_000);
        (0..1_000).for_each(|nonce| {
            window.remember(at(0), nonce, entry(nonce), WINDOW).unwrap();
        });
        let late = at(1_000);
        for nonce in [0, 999] {
            let before = window.len();
            let seen = window.remember(late, nonce, entry(7_000), WINDOW);
            assert_eq!(
                seen,
                Ok(NonceSeen::Unseen),
                "it was to be remembered no longer"
            );
            assert!(before - window.len() <= EXPIRED_PER_CALL_MAX);
            assert_eq!(window.seen(late, nonce, entry(1)), NonceSeen::OtherEntry);
        }
        (5_000..5_100).for_each(|nonce| {
            window.remember(late, nonce, entry(nonce), WINDOW).unwrap();
        });
        assert_eq!(window.len(), 102, "and in the end all of it");
        assert_eq!(window.seen(at(1_099), 0, entry(1)), NonceSeen::OtherEntry);
    }

    /// Remembers without bound and forgets nothing: what the window must be like from outside.
    #[derive(Default)]
    struct Model(BTreeMap<u64, Seen>);

    impl Model {
        fn remember(
            &mut self,
            now: Timestamp,
            nonce: u64,
            owner: EntryKey,
            time: u64,
        ) -> NonceSeen {
            let until = now + Duration::from_millis(time);
            match self.0.get_mut(&nonce) {
                Some(seen) if seen.until > now && seen.owner != owner => NonceSeen::OtherEntry,
                Some(seen) if seen.until > now => {
                    seen.until = seen.until.max(until);
                    NonceSeen::SameEntry
                }
                _ => {
                    self.0.insert(nonce, Seen { owner, until });
                    NonceSeen::Unseen
                }
            }
        }
    }

    proptest! {
        #[test]
        fn it_is_like_a_window_without_bounds(
            arrivals in prop::collection::vec((0u64..30, 0u64..20, 0u64..3, 0u64..200), 1..300)
        ) {
            let mut window = NonceWindow::new(20);
            let mut model = Model::default();
            let mut now = at(0);
            for (wait, nonce, seq, time) in arrivals {
                now = now + Duration::from_millis(wait);
                let owner = entry(seq);
                let before = window.seen(now, nonce, owner);
                let seen = window.remember(now, nonce, owner, Duration::from_millis(time));
                prop_assert_eq!(seen, Ok(model.remember(now, nonce, owner, time)));
                prop_assert_eq!(seen, Ok(before));
            }
        }

        /// However many others come in between, no nonce is new twice within its window.
        #[test]
        fn no_replay_passes(
            arrivals in prop::collection::vec((0u64..30, 0u64..20, 0u64..1_000), 1..300)
        ) {
            let mut window = NonceWindow::new(16);
            let mut accepted: BTreeMap<u64, Timestamp> = BTreeMap::new();
            let mut now = at(0);
            for (wait, nonce, seq) in arrivals {
                now = now + Duration::from_millis(wait);
                let seen = window.remember(now, nonce, entry(seq), WINDOW);
                if seen == Ok(NonceSeen::Unseen)
                    && let Some(before) = accepted.insert(nonce, now)
                {
                    prop_assert!(now.since(before) >= WINDOW);
                }
                prop_assert!(window.len() <= 16);
                let slots: usize = window.by_expiry.values().map(Vec::len).sum();
                prop_assert_eq!(window.len(), slots);
            }
        }
    }
}
