//! Conservative mode: the bus sheds load before it breaks.
//!
//! Why: a bus that takes everything until it is full then refuses everything, the important with the
//! rest. Trips when: a stream is at `high_water` or over, a breaker is open, or an error budget is
//! spent. Recovers when: all of that has been over, and every stream under `low_water`, without a
//! break for `recovery_ms`. Between the two waters nothing changes, so it never flaps. A clock that is
//! set back begins the recovery anew.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::Mode;
use crate::time::Timestamp;

/// When the bus protects itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConservativeConfig {
    /// Unfinished entries of one stream that trip it.
    pub high_water: u64,
    /// Every stream must have fewer for it to recover.
    pub low_water: u64,
    /// For how long, in ms.
    pub recovery_ms: u64,
}

impl Default for ConservativeConfig {
    fn default() -> Self {
        Self {
            high_water: 4_000,
            low_water: 1_000,
            recovery_ms: 60_000,
        }
    }
}

/// What the bus observes of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// Depth of the deepest stream.
    pub depth_max: u64,
    /// Whether a breaker is open.
    pub breaker_open: bool,
    /// Whether an error budget is spent.
    pub budget_spent: bool,
}

/// Why the mode changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// A breaker is open.
    BreakerOpen,
    /// A stream is at high water.
    HighWater,
    /// An error budget is spent.
    BudgetSpent,
    /// Everything has been well for long enough.
    Recovered,
}

impl Reason {
    /// The name in logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BreakerOpen => "breaker-open",
            Self::HighWater => "high-water",
            Self::BudgetSpent => "budget-spent",
            Self::Recovered => "recovered",
        }
    }
}

/// The mode changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// To which.
    pub to: Mode,
    /// Why.
    pub reason: Reason,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Normal,
    Conservative,
    Recovering { since: Timestamp },
}

/// See the module.
#[derive(Debug)]
pub struct Conservative {
    config: ConservativeConfig,
    state: State,
}

impl Conservative {
    /// In normal mode.
    #[must_use]
    pub fn new(config: ConservativeConfig) -> Self {
        Self {
            config,
            state: State::Normal,
        }
    }

    /// The mode right now.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        match self.state {
            State::Normal => Mode::Normal,
            State::Conservative | State::Recovering { .. } => Mode::Conservative,
        }
    }

    /// Takes in what the bus observes at `now`; answers if that changes the mode.
    pub fn observe(&mut self, now: Timestamp, signals: Signals) -> Option<Transition> {
        let trigger = self.trigger(signals);
        let well = trigger.is_none() && signals.depth_max < self.config.low_water;
        match (self.state, trigger) {
            (State::Normal, Some(reason)) => {
                self.state = State::Conservative;
                Some(Transition {
                    to: Mode::Conservative,
                    reason,
                })
            }
            (State::Conservative, _) if well => {
                self.state = State::Recovering { since: now };
                None
            }
            (State::Recovering { .. }, _) if !well => {
                self.state = State::Conservative;
                None
            }
            (State::Recovering { since }, _) if now < since => {
                self.state = State::Recovering { since: now };
                None
            }
            (State::Recovering { since }, _) if now >= since + self.recovery() => {
                self.state = State::Normal;
                Some(Transition {
                    to: Mode::Normal,
                    reason: Reason::Recovered,
                })
            }
            _ => None,
        }
    }

    fn trigger(&self, signals: Signals) -> Option<Reason> {
        if signals.breaker_open {
            Some(Reason::BreakerOpen)
        } else if signals.depth_max >= self.config.high_water {
            Some(Reason::HighWater)
        } else {
            signals.budget_spent.then_some(Reason::BudgetSpent)
        }
    }

    fn recovery(&self) -> Duration {
        Duration::from_millis(self.config.recovery_ms)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each step: time, depth, breaker open, budget spent; the transition that follows.
    type Step = (u64, u64, bool, bool, Option<(Mode, Reason)>);

    #[track_caller]
    fn check(steps: &[Step]) {
        let mut machine = Conservative::new(ConservativeConfig::default());
        for (index, (ms, depth_max, breaker_open, budget_spent, expected)) in
            steps.iter().enumerate()
        {
            let signals = Signals {
                depth_max: *depth_max,
                breaker_open: *breaker_open,
                budget_spent: *budget_spent,
            };
            let transition = machine.observe(Timestamp::from_millis(*ms), signals);
            let expected = expected.map(|(to, reason)| Transition { to, reason });
            assert_eq!(transition, expected, "step {index}");
        }
    }

    const INTO: Mode = Mode::Conservative;
    const BACK: Option<(Mode, Reason)> = Some((Mode::Normal, Reason::Recovered));

    #[test]
    fn high_water_trips_it_and_low_water_lets_it_recover() {
        check(&[
            (0, 3_999, false, false, None),
            (1, 4_000, false, false, Some((INTO, Reason::HighWater))),
            (2, 1_000, false, false, None),
            (70_000, 1_000, false, false, None),
            (70_001, 999, false, false, None),
            (130_000, 0, false, false, None),
            (130_001, 0, false, false, BACK),
        ]);
    }

    #[test]
    fn a_break_in_the_recovery_begins_it_anew() {
        check(&[
            (0, 0, true, false, Some((INTO, Reason::BreakerOpen))),
            (1, 0, false, false, None),
            (50_000, 2_000, false, false, None),
            (50_001, 0, false, false, None),
            (110_000, 0, false, false, None),
            (110_001, 0, false, false, BACK),
        ]);
    }

    #[test]
    fn a_clock_that_is_set_back_begins_the_recovery_anew() {
        check(&[
            (9_000_000, 0, true, false, Some((INTO, Reason::BreakerOpen))),
            (9_000_001, 0, false, false, None),
            (1_000_000, 0, false, false, None),
            (1_059_999, 0, false, false, None),
            (1_060_000, 0, false, false, BACK),
        ]);
    }

    #[test]
    fn a_spent_budget_trips_it() {
        check(&[
            (0, 0, false, true, Some((INTO, Reason::BudgetSpent))),
            (90_000, 0, false, true, None),
            (90_001, 0, false, false, None),
            (150_001, 0, false, false, BACK),
        ]);
    }

    proptest! {
        /// It never changes twice within its recovery window, and recovers once the cause is gone.
        #[test]
        fn it_never_flaps_and_always_recovers(
            steps in prop::collection::vec((1u64..20_000, 0u64..6_000, any::<bool>()), 1..200)
        ) {
            let mut machine = Conservative::new(ConservativeConfig::default());
            let mut now = Timestamp::EPOCH;
            let mut entered = None;
            for (wait, depth_max, breaker_open) in steps {
                now = now + Duration::from_millis(wait);
                let signals = Signals { depth_max, breaker_open, budget_spent: false };
                match machine.observe(now, signals) {
                    Some(Transition { to: Mode::Conservative, .. }) => entered = Some(now),
                    Some(_) => {
                        let since = entered.take().expect("it was entered before it was left");
                        prop_assert!(now.since(since) >= Duration::from_secs(60));
                    }
                    None => {}
                }
            }
            machine.observe(now, Signals::default());
            machine.observe(now + Duration::from_secs(60), Signals::default());
            prop_assert_eq!(machine.mode(), Mode::Normal);
        }
    }
}
