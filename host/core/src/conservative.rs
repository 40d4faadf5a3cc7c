//! Conservative mode: the bus sheds load before it breaks.
//!
//! Why: a bus that takes everything until it is full then refuses everything, the important with the
//! rest. Trips when: a stream is at `high_water` or over, a breaker is open, a service level is missed right
//! now, or the error budget of an objective is nearly spent. Recovers when: all of that has been over, and every stream under `low_water`, without a
//! break for `recovery_ms`. Between the two waters nothing changes, so it never flaps. A clock that is
//! set back begins the recovery anew.
//!
//! An operator can force either mode. A force holds until it is released; the machine below goes on to
//! observe, and its mode is in effect again at once when it is released.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::force::Forced;
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
    /// Whether the error budget of the last minute is spent: [`crate::slo`].
    pub budget_spent: bool,
    /// Whether that of an objective is nearly spent for its whole period: [`crate::objective`].
    pub budget_low: bool,
}

/// Why the mode changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// A breaker is open.
    BreakerOpen,
    /// A stream is at high water.
    HighWater,
    /// The error budget of the last minute is spent.
    BudgetSpent,
    /// The error budget of an objective is nearly spent.
    BudgetLow,
    /// Everything has been well for long enough.
    Recovered,
    /// An operator has forced it.
    Forced,
    /// An operator no longer forces anything.
    Released,
    /// Nothing has happened yet.
    Started,
}

impl Reason {
    /// The name in logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BreakerOpen => "breaker-open",
            Self::HighWater => "high-water",
            Self::BudgetSpent => "budget-spent",
            Self::BudgetLow => "budget-low",
            Self::Recovered => "recovered",
            Self::Forced => "forced",
            Self::Released => "released",
            Self::Started => "started",
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
    /// Why the machine is in its mode.
    reason: Reason,
    forced: Option<Forced<Mode>>,
}

impl Conservative {
    /// In normal mode.
    #[must_use]
    pub fn new(config: ConservativeConfig) -> Self {
        Self {
            config,
            state: State::Normal,
            reason: Reason::Started,
            forced: None,
        }
    }

    /// The mode right now.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match &self.forced {
            Some(forced) => forced.to,
            None => self.mode_beneath(),
        }
    }

    /// What the machine says, whatever an operator has forced.
    #[must_use]
    pub const fn mode_beneath(&self) -> Mode {
        match self.state {
            State::Normal => Mode::Normal,
            State::Conservative | State::Recovering { .. } => Mode::Conservative,
        }
    }

    /// Why it is in this mode.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        if self.forced.is_some() {
            Reason::Forced
        } else {
            self.reason
        }
    }

    /// What an operator has forced.
    #[must_use]
    pub const fn forced(&self) -> Option<&Forced<Mode>> {
        self.forced.as_ref()
    }

    /// Holds a mode until it is released; answers if that changes the mode.
    pub fn force(&mut self, forced: Forced<Mode>) -> Option<Transition> {
        let before = self.mode();
        let to = forced.to;
        self.forced = Some(forced);
        let reason = Reason::Forced;
        (before != to).then_some(Transition { to, reason })
    }

    /// Lets the machine be in charge again; answers if that changes the mode.
    pub fn release(&mut self) -> Option<Transition> {
        let before = self.forced.take()?.to;
        let to = self.mode_beneath();
        let reason = Reason::Released;
        (before != to).then_some(Transition { to, reason })
    }

    /// Takes in what the bus observes at `now`; answers if that changes the mode.
    pub fn observe(&mut self, now: Timestamp, signals: Signals) -> Option<Transition> {
        let transition = self.follow(now, signals)?;
        self.reason = transition.reason;
        self.forced.is_none().then_some(transition)
    }

    /// The machine itself.
    fn follow(&mut self, now: Timestamp, signals: Signals) -> Option<Transition> {
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
        } else if signals.budget_spent {
            Some(Reason::BudgetSpent)
        } else {
            signals.budget_low.then_some(Reason::BudgetLow)
        }
    }

    fn recovery(&self) -> Duration {
        Duration::from_millis(self.config.recovery_ms)
    }
}

#[cfg(test)]
mod tests;
