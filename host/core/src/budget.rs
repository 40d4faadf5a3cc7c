//! How many failures a policy is forgiven.
//!
//! Why: each failed call is answered by the fail-safe, at the price of a new instance; a version that
//! fails all the time is not worth it. Trips when: more than `failures` calls have failed within
//! `window_ms`. Recovers: not by itself. The version is taken out, and an operator activates another.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// What a version is forgiven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BudgetConfig {
    /// How many failed calls.
    pub failures: u32,
    /// Within how long, in ms.
    pub window_ms: u64,
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self {
            failures: 5,
            window_ms: 10_000,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct FailureBudget {
    config: BudgetConfig,
    /// Times of the failures in the window; one more than the budget at most.
    failed_at: VecDeque<Timestamp>,
}

impl FailureBudget {
    /// A budget of which nothing is spent.
    #[must_use]
    pub fn new(config: BudgetConfig) -> Self {
        Self {
            config,
            failed_at: VecDeque::new(),
        }
    }

    /// What the version is forgiven.
    #[must_use]
    pub fn config(&self) -> BudgetConfig {
        self.config
    }

    /// How many failures lie within the window that ends at `now`.
    #[must_use]
    pub fn spent(&self, now: Timestamp) -> usize {
        let window = Duration::from_millis(self.config.window_ms);
        let recent = self.failed_at.iter().filter(|at| **at + window > now);
        recent.count()
    }

    /// Counts a failure at `now`; whether that is one too many.
    pub fn failed(&mut self, now: Timestamp) -> bool {
        let window = Duration::from_millis(self.config.window_ms);
        while let Some(first) = self.failed_at.front()
            && *first + window <= now
        {
            self.failed_at.pop_front();
        }
        let forgiven = self.config.failures as usize;
        if self.failed_at.len() > forgiven {
            self.failed_at.pop_front();
        }
        self.failed_at.push_back(now);
        self.failed_at.len() > forgiven
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(times_ms: &[u64], expected: &[bool]) {
        let mut budget = FailureBudget::new(BudgetConfig {
            failures: 2,
            window_ms: 100,
        });
        let over: Vec<_> = times_ms
            .iter()
            .map(|ms| budget.failed(Timestamp::from_millis(*ms)))
            .collect();
        assert_eq!(over, expected, "{times_ms:?}");
    }

    #[test]
    fn what_is_spent_comes_back_with_time() {
        let mut budget = FailureBudget::new(BudgetConfig {
            failures: 2,
            window_ms: 100,
        });
        let at = Timestamp::from_millis;
        assert_eq!(budget.spent(at(0)), 0);
        budget.failed(at(10));
        budget.failed(at(60));
        let spent = [60, 109, 110, 159, 160].map(|now| budget.spent(at(now)));
        assert_eq!(spent, [2, 2, 1, 1, 0]);
    }

    #[test]
    fn one_more_than_the_budget_within_the_window_is_too_many() {
        check(&[0, 1, 2], &[false, false, true]);
        check(&[0, 50, 99], &[false, false, true]);
        check(&[0, 50, 100], &[false, false, false]);
        check(&[0, 100, 200, 300], &[false; 4]);
    }

    proptest! {
        /// The same as counting all failures of the window, in bounded memory.
        #[test]
        fn it_counts_the_window(
            failures in 0u32..6,
            waits in prop::collection::vec(0u64..60, 1..200),
        ) {
            let mut budget = FailureBudget::new(BudgetConfig { failures, window_ms: 100 });
            let mut times = Vec::new();
            let mut now = 0;
            for wait in waits {
                now += wait;
                times.push(now);
                let recent = times.iter().filter(|at| *at + 100 > now).count();
                let over = budget.failed(Timestamp::from_millis(now));
                prop_assert_eq!(over, recent > failures as usize);
                prop_assert!(budget.failed_at.len() <= failures as usize + 1);
            }
        }
    }

    #[test]
    fn no_budget_forgives_nothing() {
        let mut none = FailureBudget::new(BudgetConfig {
            failures: 0,
            window_ms: 100,
        });
        assert!(none.failed(Timestamp::EPOCH));
    }
}
