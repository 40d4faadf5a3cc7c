//! Two queues, of which one goes first without starving the other.

use std::collections::VecDeque;

/// After this many emergencies in a row, one of the others has its turn.
pub const EMERGENCY_STREAK_MAX: u32 = 8;

/// What waits to be delivered. Both queues are bounded.
#[derive(Debug)]
pub struct Lanes<T> {
    emergency: VecDeque<T>,
    normal: VecDeque<T>,
    emergency_max: usize,
    normal_max: usize,
    streak: u32,
}

/// A queue is full; here is what it would not take.
#[derive(Debug, PartialEq, Eq)]
pub struct LaneFull<T>(pub T);

impl<T> Lanes<T> {
    /// Empty queues that hold at most `emergency_max` and `normal_max`.
    #[must_use]
    pub fn new(emergency_max: usize, normal_max: usize) -> Self {
        Self {
            emergency: VecDeque::new(),
            normal: VecDeque::new(),
            emergency_max,
            normal_max,
            streak: 0,
        }
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.emergency.len() + self.normal.len()
    }

    /// How many emergencies wait.
    #[must_use]
    pub fn emergency_len(&self) -> usize {
        self.emergency.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many more emergencies there is room for.
    #[must_use]
    pub fn emergency_free(&self) -> usize {
        self.emergency_max.saturating_sub(self.emergency.len())
    }

    /// How many more of the others there is room for.
    #[must_use]
    pub fn normal_free(&self) -> usize {
        self.normal_max.saturating_sub(self.normal.len())
    }

    /// Adds an emergency.
    ///
    /// # Errors
    ///
    /// If there is no room for it.
    pub fn push_emergency(&mut self, item: T) -> Result<(), LaneFull<T>> {
        push(self.emergency_free(), &mut self.emergency, item)
    }

    /// Adds one of the others.
    ///
    /// # Errors
    ///
    /// If there is no room for it.
    pub fn push_normal(&mut self, item: T) -> Result<(), LaneFull<T>> {
        push(self.normal_free(), &mut self.normal, item)
    }

    /// The next to be delivered: an emergency, unless [`EMERGENCY_STREAK_MAX`] of them have just
    /// gone before something that waits.
    pub fn pop(&mut self) -> Option<T> {
        if self.emergency_is_next() {
            return self.pop_emergency();
        }
        self.streak = 0;
        self.normal.pop_front()
    }

    /// Whether [`Self::pop`] would give an emergency.
    #[must_use]
    pub fn emergency_is_next(&self) -> bool {
        let others_turn = self.streak >= EMERGENCY_STREAK_MAX && !self.normal.is_empty();
        !others_turn && !self.emergency.is_empty()
    }

    /// The next emergency, while the others must not be delivered.
    pub fn pop_emergency(&mut self) -> Option<T> {
        let item = self.emergency.pop_front()?;
        self.streak = self.streak.saturating_add(1);
        Some(item)
    }
}

fn push<T>(free: usize, queue: &mut VecDeque<T>, item: T) -> Result<(), LaneFull<T>> {
    if free == 0 {
        return Err(LaneFull(item));
    }
    queue.push_back(item);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn emergencies_go_first() {
        let mut lanes = Lanes::new(10, 10);
        lanes.push_normal("usual").unwrap();
        lanes.push_emergency("urgent").unwrap();
        assert_eq!(lanes.pop(), Some("urgent"));
        assert_eq!(lanes.pop(), Some("usual"));
        assert_eq!(lanes.pop(), None);
    }

    #[test]
    fn the_others_are_not_starved() {
        let mut lanes = Lanes::new(100, 100);
        (0..50).for_each(|_| lanes.push_emergency('e').unwrap());
        (0..3).for_each(|_| lanes.push_normal('n').unwrap());
        let order: String = std::iter::from_fn(|| lanes.pop()).take(27).collect();
        assert_eq!(order, "eeeeeeeen".repeat(3));
    }

    proptest! {
        /// Whatever comes in, each queue keeps its order, and what waits is overtaken by a bounded
        /// number of emergencies.
        #[test]
        fn order_holds_and_nobody_starves(steps in prop::collection::vec(0u8..5, 1..400)) {
            let mut lanes = Lanes::new(1_000, 1_000);
            let mut waiting = [VecDeque::new(), VecDeque::new()];
            let mut overtaken = 0;
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    0 | 1 => {
                        prop_assert!(lanes.push_emergency((0, number)).is_ok());
                        waiting[0].push_back(number);
                    }
                    2 => {
                        prop_assert!(lanes.push_normal((1, number)).is_ok());
                        waiting[1].push_back(number);
                    }
                    _ => {
                        let Some((lane, number)) = lanes.pop() else {
                            prop_assert!(waiting.iter().all(VecDeque::is_empty));
                            continue;
                        };
                        prop_assert_eq!(waiting[lane].pop_front(), Some(number));
                        let others = !waiting[1].is_empty();
                        overtaken = if lane == 0 && others { overtaken + 1 } else { 0 };
                        prop_assert!(overtaken <= EMERGENCY_STREAK_MAX);
                    }
                }
            }
        }
    }

    #[test]
    fn both_are_bounded() {
        let mut lanes = Lanes::new(1, 2);
        assert_eq!(lanes.push_emergency(1), Ok(()));
        assert_eq!(lanes.push_emergency(2), Err(LaneFull(2)));
        assert_eq!(lanes.push_normal(3), Ok(()));
        assert_eq!(lanes.push_normal(4), Ok(()));
        assert_eq!(lanes.push_normal(5), Err(LaneFull(5)));
        assert_eq!(
            (lanes.len(), lanes.emergency_free(), lanes.normal_free()),
            (3, 0, 0)
        );
    }
}
