//! A circuit breaker: stops asking a store that does not answer.
//!
//! Why: while the store is down each call costs its time-out, and a store that comes back would be
//! met by everything at once. Trips when: as many calls in a row as `failures` have failed. Recovers
//! when: after `open_ms` it lets `trials` calls through at once, and all of them succeed; one that
//! fails opens it again for as long.
//!
//! Only faults of the store count. A message that a policy refuses is no fault. A clock that is set
//! back keeps it open no longer than `open_ms` by the new time.
//!
//! An operator can force it open or closed. A force holds until it is released, whatever happens; the
//! machine below goes on meanwhile, and is in charge again at once when it is released. Who may go on
//! under a breaker that is forced open ([`Breaker::try_acquire_beneath`]) asks that machine.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::force::Forced;
use crate::time::Timestamp;

/// When to ask a breaker again that is forced open: nobody knows when it will be released.
pub const FORCED_RETRY_AFTER: Duration = Duration::from_secs(1);

/// When a breaker trips and how it recovers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BreakerConfig {
    /// Failures in a row that open it.
    pub failures: u32,
    /// How long it stays open, in ms.
    pub open_ms: u64,
    /// Calls that are let through on trial, and must all succeed.
    pub trials: u32,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            failures: 3,
            open_ms: 30_000,
            trials: 5,
        }
    }
}

/// What can be seen of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BreakerState {
    /// Calls pass.
    Closed,
    /// Calls are refused.
    Open,
    /// A few calls pass, on trial.
    HalfOpen,
}

impl BreakerState {
    /// The name in answers and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }

    /// The number on the wire: `CircuitBreakerState`.
    #[must_use]
    pub const fn wire_number(self) -> u8 {
        match self {
            Self::Closed => 1,
            Self::Open => 2,
            Self::HalfOpen => 3,
        }
    }

    /// Whether calls are refused.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Open)
    }
}

/// Where an operator can force a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Position {
    /// Calls are refused.
    Open,
    /// Calls pass, whether they fail or not.
    Closed,
}

impl Position {
    /// The name in answers and commands.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.state().name()
    }

    /// The state that is seen.
    #[must_use]
    pub const fn state(self) -> BreakerState {
        match self {
            Self::Open => BreakerState::Open,
            Self::Closed => BreakerState::Closed,
        }
    }
}

/// Why a breaker is in its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BreakerReason {
    /// Nothing has happened yet.
    Started,
    /// So many calls in a row have failed.
    Failures,
    /// A call on trial has failed.
    TrialFailed,
    /// It was open for its time.
    Waited,
    /// All calls on trial have succeeded.
    TrialsPassed,
    /// An operator has forced it.
    Forced,
}

impl BreakerReason {
    /// The name in answers, logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Failures => "failures",
            Self::TrialFailed => "trial-failed",
            Self::Waited => "waited",
            Self::TrialsPassed => "trials-passed",
            Self::Forced => "forced",
        }
    }
}

/// A breaker changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerTransition {
    /// What it was.
    pub from: BreakerState,
    /// What it is.
    pub to: BreakerState,
    /// Why, or `released` if it is so because no force holds it any longer.
    pub reason: &'static str,
}

/// The right to make one call. It goes back with [`Breaker::record`] or [`Breaker::give_back`].
#[derive(Debug)]
#[must_use = "a permit that is not given back blocks a trial until its time is over"]
pub struct Permit {
    period: u64,
}

/// The breaker is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.words())]
pub struct Open {
    /// When to ask again.
    pub retry_after: Duration,
    /// Whether an operator wants it so.
    pub forced: bool,
}

impl Open {
    /// The reason in answers and counters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        if self.forced {
            "breaker-forced-open"
        } else {
            "breaker-open"
        }
    }

    fn words(self) -> String {
        if self.forced {
            return "an operator has forced the breaker open".to_owned();
        }
        let ms = self.retry_after.as_millis();
        format!("the breaker is open for another {ms} ms")
    }
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        until: Timestamp,
    },
    HalfOpen {
        given: u32,
        succeeded: u32,
        until: Timestamp,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Breaker {
    config: BreakerConfig,
    state: State,
    /// Counts changes of state: a permit of an earlier period says nothing about this one.
    period: u64,
    /// Why the machine is in its state.
    reason: BreakerReason,
    forced: Option<Forced<Position>>,
    told: Told,
}

/// What [`Breaker::transition`] has said last.
#[derive(Clone, Copy, Debug)]
struct Told {
    state: BreakerState,
    forced: bool,
}

/// The period of a permit that was given out against the machine: nothing follows from it.
const NO_PERIOD: u64 = u64::MAX;

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(config: BreakerConfig) -> Self {
        Self {
            config,
            state: State::Closed { failures: 0 },
            period: 0,
            reason: BreakerReason::Started,
            forced: None,
            told: Told {
                state: BreakerState::Closed,
                forced: false,
            },
        }
    }

    /// What it is at `now`.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> BreakerState {
        match &self.forced {
            Some(forced) => forced.to.state(),
            None => self.state_beneath(now),
        }
    }

    /// What the machine says at `now`, whatever an operator has forced.
    #[must_use]
    pub fn state_beneath(&self, now: Timestamp) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { until } if self.left(now, until).is_some() => BreakerState::Open,
            State::Open { .. } | State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// How long it refuses calls from `now` on, unless one that is under way ends before; `None` if it
    /// would let one through.
    #[must_use]
    pub fn refuses_for(&self, now: Timestamp) -> Option<Duration> {
        match self.forced.as_ref().map(|forced| forced.to) {
            Some(Position::Open) => return Some(FORCED_RETRY_AFTER),
            Some(Position::Closed) => return None,
            None => {}
        }
        match self.state {
            State::Closed { .. } => None,
            State::HalfOpen { given, .. } if given < self.config.trials => None,
            State::Open { until } | State::HalfOpen { until, .. } => self.left(now, until),
        }
    }

    /// Why it is what it is at `now`.
    #[must_use]
    pub fn reason(&self, now: Timestamp) -> BreakerReason {
        match (&self.forced, self.state) {
            (Some(_), _) => BreakerReason::Forced,
            (None, State::Open { until }) if self.left(now, until).is_none() => {
                BreakerReason::Waited
            }
            (None, _) => self.reason,
        }
    }

    /// What an operator has forced.
    #[must_use]
    pub fn forced(&self) -> Option<&Forced<Position>> {
        self.forced.as_ref()
    }

    /// Holds it open or closed until it is released.
    pub fn force(&mut self, forced: Forced<Position>) {
        self.forced = Some(forced);
    }

    /// Lets the machine be in charge again; answers what was forced.
    pub fn release(&mut self) -> Option<Forced<Position>> {
        self.forced.take()
    }

    /// What has changed since this was asked last, for those who tell of it. What came and went in
    /// between is not told.
    pub fn transition(&mut self, now: Timestamp) -> Option<BreakerTransition> {
        let told = Told {
            state: self.state(now),
            forced: self.forced.is_some(),
        };
        let before = std::mem::replace(&mut self.told, told);
        if before.state == told.state {
            return None;
        }
        let released = before.forced && !told.forced;
        Some(BreakerTransition {
            from: before.state,
            to: told.state,
            reason: if released {
                "released"
            } else {
                self.reason(now).name()
            },
        })
    }

    /// Asks to make a call.
    ///
    /// # Errors
    ///
    /// If it is open, or half-open with all trials given out.
    pub fn try_acquire(&mut self, now: Timestamp) -> Result<Permit, Open> {
        match self.forced.as_ref().map(|forced| forced.to) {
            Some(Position::Open) => Err(Open {
                retry_after: FORCED_RETRY_AFTER,
                forced: true,
            }),
            Some(Position::Closed) => Ok(self
                .try_acquire_beneath(now)
                .unwrap_or(Permit { period: NO_PERIOD })),
            None => self.try_acquire_beneath(now),
        }
    }

    /// Asks to make a call that an operator does not mean to stop: only the machine is asked.
    ///
    /// # Errors
    ///
    /// If the machine has it open, or half-open with all trials given out.
    pub fn try_acquire_beneath(&mut self, now: Timestamp) -> Result<Permit, Open> {
        let open = |retry_after| Open {
            retry_after,
            forced: false,
        };
        let left = match self.state {
            State::Closed { .. } => None,
            State::Open { until } | State::HalfOpen { until, .. } => self.left(now, until),
        };
        match (&mut self.state, left) {
            (State::Closed { .. }, _) => {}
            (State::Open { .. }, Some(retry_after)) => return Err(open(retry_after)),
            (State::HalfOpen { given, .. }, _) if *given < self.config.trials => *given += 1,
            // A trial whose end nobody reports must not keep the breaker half-open for ever.
            (State::HalfOpen { .. }, Some(retry_after)) => return Err(open(retry_after)),
            (State::Open { .. } | State::HalfOpen { .. }, None) => {
                let until = now + self.open();
                let half_open = State::HalfOpen {
                    given: 1,
                    succeeded: 0,
                    until,
                };
                self.enter(half_open, BreakerReason::Waited);
            }
        }
        Ok(Permit {
            period: self.period,
        })
    }

    /// Reports how a call ended.
    #[expect(clippy::needless_pass_by_value, reason = "a permit is used up")]
    pub fn record(&mut self, now: Timestamp, permit: Permit, ok: bool) {
        if permit.period != self.period {
            return;
        }
        match (&mut self.state, ok) {
            (State::Closed { failures }, true) => *failures = 0,
            (State::Closed { failures }, false) => {
                *failures += 1;
                if *failures >= self.config.failures {
                    self.trip(now, BreakerReason::Failures);
                }
            }
            (State::HalfOpen { succeeded, .. }, true) => {
                *succeeded += 1;
                if *succeeded >= self.config.trials {
                    let closed = State::Closed { failures: 0 };
                    self.enter(closed, BreakerReason::TrialsPassed);
                }
            }
            (State::HalfOpen { .. }, false) => self.trip(now, BreakerReason::TrialFailed),
            (State::Open { .. }, _) => {}
        }
    }

    /// Gives back a permit whose call was never made.
    #[expect(clippy::needless_pass_by_value, reason = "a permit is used up")]
    pub fn give_back(&mut self, permit: Permit) {
        if let State::HalfOpen { given, .. } = &mut self.state
            && permit.period == self.period
        {
            *given -= 1;
        }
    }

    fn trip(&mut self, now: Timestamp, reason: BreakerReason) {
        let until = now + self.open();
        self.enter(State::Open { until }, reason);
    }

    fn enter(&mut self, state: State, reason: BreakerReason) {
        self.state = state;
        self.reason = reason;
        self.period += 1;
    }

    /// How long it is until `until`: `None` if that is over, or further away than it can be unless
    /// the clock was set back.
    fn left(&self, now: Timestamp, until: Timestamp) -> Option<Duration> {
        let left = until.since(now);
        (!left.is_zero() && left <= self.open()).then_some(left)
    }

    fn open(&self) -> Duration {
        Duration::from_millis(self.config.open_ms)
    }
}

#[cfg(test)]
mod tests;
