//! Which messages are looked at more closely, when there are too many to look at all.
//!
//! Up to so many a second every message is taken. Above, one in 2, 4, 8, … is, by the leading bits of
//! the hash of its event id: what a strict level takes, a lax one takes too, so steps and hosts that
//! are at different levels still agree about the same messages. The level rises within the second
//! in which there are too many, and falls by one at most with each second after.

use crate::time::Timestamp;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampler {
    per_second: u64,
    level: u32,
    second: u64,
}

impl Sampler {
    /// Takes up to about `per_second` messages a second.
    #[must_use]
    pub const fn new(per_second: u64) -> Self {
        Self {
            per_second,
            level: 0,
            second: 0,
        }
    }

    /// The level: one message in 2 to this power is taken.
    #[must_use]
    pub const fn level(&self) -> u32 {
        self.level
    }

    /// The second that it counts for, since the epoch.
    #[must_use]
    pub const fn second(&self) -> u64 {
        self.second
    }

    /// How many may be seen within this second before the level must rise.
    #[must_use]
    pub fn seen_max(&self) -> u64 {
        self.per_second.saturating_mul(1 << self.level)
    }

    /// Sets the level, now that so many were seen since the second turned. Answers whether it has turned:
    /// whoever counts begins anew then.
    pub fn saw(&mut self, now: Timestamp, seen: u64) -> bool {
        let second = now.as_millis() / 1_000;
        let turned = second != self.second;
        let enough = level_for(seen, self.per_second);
        self.level = if turned {
            enough.max(self.level.saturating_sub(1))
        } else {
            enough.max(self.level)
        };
        self.second = second;
        turned
    }
}

/// Whether a message is taken at a level.
#[must_use]
pub const fn takes(level: u32, id_hash: u64) -> bool {
    id_hash.leading_zeros() >= level
}

/// The lowest level that takes no more than `per_second` of `seen`. None takes less than one in
/// [`LEVEL_MAX`].
fn level_for(seen: u64, per_second: u64) -> u32 {
    let enough = |level: &u32| seen >> level <= per_second;
    (0..LEVEL_MAX).find(enough).unwrap_or(LEVEL_MAX)
}

/// The strictest level.
pub const LEVEL_MAX: u32 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_follows_the_rate() {
        // At which ms, how many were seen since the second turned, the level then, and whether it turned.
        let table = [
            (1_000, 0, 0, true),
            (1_100, 100, 0, false),
            (1_200, 101, 1, false),
            (1_300, 1_000, 4, false),
            (2_000, 1_000, 4, true),
            (3_000, 10, 3, true),
            (4_000, 10, 2, true),
            (4_500, 10, 2, false),
            (9_000, 0, 1, true),
            (10_000, u64::MAX, LEVEL_MAX, true),
        ];
        let mut sampler = Sampler::new(100);
        for (at, seen, level, turned) in table {
            let now = Timestamp::from_millis(at);
            assert_eq!(sampler.saw(now, seen), turned, "{at}");
            assert_eq!(sampler.level(), level, "{at}");
        }
    }

    #[test]
    fn what_a_strict_level_takes_a_lax_one_takes_too() {
        for level in 1..=LEVEL_MAX {
            let hash = u64::MAX >> level;
            assert!((0..=level).all(|lax| takes(lax, hash)), "{level}");
            assert!(!takes(level + 1, hash), "{level}");
        }
    }
}
