//! Nonces: what has been seen, for as long as it must be remembered.
//!
//! A nonce is held for the whole time that it was asked to be, whatever the load: a window that
//! evicts early is a hole through which replays pass. At its bound it refuses what is new, loudly.
//!
//! The keys of the map are hashes that whoever can sign messages may choose. They are spread again by
//! an ordered map, whose cost does not depend on how they were chosen.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::entry::EntryId;
use crate::policy::NonceSeen;
use crate::symbols::Symbol;
use crate::time::Timestamp;

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
    by_expiry: BTreeSet<(Timestamp, u64)>,
}

impl NonceWindow {
    /// A window that remembers at most `count_max` nonces at once, about 100 bytes each.
    #[must_use]
    pub fn new(count_max: usize) -> Self {
        Self {
            count_max,
            seen: BTreeMap::new(),
            by_expiry: BTreeSet::new(),
        }
    }

    /// How many nonces are remembered.
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
        let known = self.seen(now, nonce, owner);
        if known == NonceSeen::OtherEntry {
            return Ok(known);
        }
        if known == NonceSeen::Unseen && self.seen.len() >= self.count_max {
            return Err(Full(self.count_max));
        }
        let before = self.seen.get(&nonce).map(|seen| seen.until);
        let until = before.map_or(now + time, |before| before.max(now + time));
        if let Some(before) = before {
            self.by_expiry.remove(&(before, nonce));
        }
        self.by_expiry.insert((until, nonce));
        self.seen.insert(nonce, Seen { owner, until });
        Ok(known)
    }

    /// Forgets what need not be remembered any longer.
    fn expire(&mut self, now: Timestamp) {
        while let Some((until, nonce)) = self.by_expiry.first().copied()
            && until <= now
        {
            self.by_expiry.pop_first();
            self.seen.remove(&nonce);
        }
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
        assert_eq!(window.seen(at(149), 7, entry(2)), NonceSeen::OtherEntry);
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

    proptest! {
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
                prop_assert_eq!(window.len(), window.by_expiry.len());
            }
        }
    }
}
