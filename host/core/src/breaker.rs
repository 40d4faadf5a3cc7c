//! A circuit breaker: stops asking a store that does not answer.
//!
//! Why: while the store is down each call costs its time-out, and a store that comes back would be
//! met by everything at once. Trips when: as many calls in a row as `failures` have failed. Recovers
//! when: after `open_ms` it lets `trials` calls through at once, and all of them succeed; one that
//! fails opens it again for as long.
//!
//! Only faults of the store count. A message that a policy refuses is no fault. A clock that is set
//! back keeps it open no longer than `open_ms` by the new time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

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

/// The right to make one call. It goes back with [`Breaker::record`] or [`Breaker::give_back`].
#[derive(Debug)]
#[must_use = "a permit that is not given back blocks a trial until its time is over"]
pub struct Permit {
    period: u64,
}

/// The breaker is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the breaker is open for another {} ms", .retry_after.as_millis())]
pub struct Open {
    /// When to ask again.
    pub retry_after: Duration,
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
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(config: BreakerConfig) -> Self {
        Self {
            config,
            state: State::Closed { failures: 0 },
            period: 0,
        }
    }

    /// What it is at `now`.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { until } if self.left(now, until).is_some() => BreakerState::Open,
            State::Open { .. } | State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Asks to make a call.
    ///
    /// # Errors
    ///
    /// If it is open, or half-open with all trials given out.
    pub fn try_acquire(&mut self, now: Timestamp) -> Result<Permit, Open> {
        let left = match self.state {
            State::Closed { .. } => None,
            State::Open { until } | State::HalfOpen { until, .. } => self.left(now, until),
        };
        match (&mut self.state, left) {
            (State::Closed { .. }, _) => {}
            (State::Open { .. }, Some(retry_after)) => return Err(Open { retry_after }),
            (State::HalfOpen { given, .. }, _) if *given < self.config.trials => *given += 1,
            // A trial whose end nobody reports must not keep the breaker half-open for ever.
            (State::HalfOpen { .. }, Some(retry_after)) => return Err(Open { retry_after }),
            (State::Open { .. } | State::HalfOpen { .. }, None) => {
                let until = now + self.open();
                self.enter(State::HalfOpen {
                    given: 1,
                    succeeded: 0,
                    until,
                });
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
                    self.trip(now);
                }
            }
            (State::HalfOpen { succeeded, .. }, true) => {
                *succeeded += 1;
                if *succeeded >= self.config.trials {
                    self.enter(State::Closed { failures: 0 });
                }
            }
            (State::HalfOpen { .. }, false) => self.trip(now),
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

    fn trip(&mut self, now: Timestamp) {
        self.enter(State::Open {
            until: now + self.open(),
        });
    }

    fn enter(&mut self, state: State) {
        self.state = state;
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    fn breaker() -> Breaker {
        Breaker::new(BreakerConfig::default())
    }

    fn call(breaker: &mut Breaker, ms: u64, ok: bool) {
        let permit = breaker.try_acquire(at(ms)).unwrap();
        breaker.record(at(ms), permit, ok);
    }

    fn tripped() -> Breaker {
        let mut breaker = breaker();
        (0..3).for_each(|_| call(&mut breaker, 0, false));
        breaker
    }

    #[test]
    fn failures_in_a_row_trip_it() {
        let mut breaker = breaker();
        for ok in [false, false, true, false, false] {
            call(&mut breaker, 0, ok);
        }
        assert_eq!(breaker.state(at(0)), BreakerState::Closed);
        call(&mut breaker, 0, false);
        assert_eq!(breaker.state(at(0)), BreakerState::Open);
        let open = breaker.try_acquire(at(10_000)).unwrap_err();
        assert_eq!(open.retry_after, Duration::from_millis(20_000));
    }

    #[test]
    fn it_opens_to_the_millisecond() {
        let mut breaker = tripped();
        assert_eq!(breaker.state(at(29_999)), BreakerState::Open);
        assert!(breaker.try_acquire(at(29_999)).is_err());
        assert_eq!(breaker.state(at(30_000)), BreakerState::HalfOpen);
        assert!(breaker.try_acquire(at(30_000)).is_ok());
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_keep_it_open() {
        let mut breaker = breaker();
        (0..3).for_each(|_| call(&mut breaker, 9_000_000, false));
        assert_eq!(breaker.state(at(9_000_000)), BreakerState::Open);
        assert_eq!(breaker.state(at(1_000_000)), BreakerState::HalfOpen);
        assert!(breaker.try_acquire(at(1_000_000)).is_ok());
    }

    #[test]
    fn all_trials_must_succeed() {
        let mut breaker = tripped();
        let permits: Vec<_> = (0..5)
            .map(|_| breaker.try_acquire(at(30_000)).unwrap())
            .collect();
        assert!(breaker.try_acquire(at(30_000)).is_err(), "a sixth trial");
        for permit in permits {
            assert_eq!(breaker.state(at(30_001)), BreakerState::HalfOpen);
            breaker.record(at(30_001), permit, true);
        }
        assert_eq!(breaker.state(at(30_001)), BreakerState::Closed);
    }

    #[test]
    fn one_failed_trial_opens_it_again() {
        let mut breaker = tripped();
        let first = breaker.try_acquire(at(30_000)).unwrap();
        let second = breaker.try_acquire(at(30_000)).unwrap();
        breaker.record(at(31_000), first, false);
        assert_eq!(breaker.state(at(60_999)), BreakerState::Open);
        breaker.record(at(31_001), second, true);
        assert_eq!(
            breaker.state(at(60_999)),
            BreakerState::Open,
            "a late answer counts no more"
        );
        assert_eq!(breaker.state(at(61_000)), BreakerState::HalfOpen);
    }

    #[test]
    fn trials_that_are_never_reported_come_back() {
        let mut breaker = tripped();
        let lost: Vec<_> = (0..5)
            .map(|_| breaker.try_acquire(at(30_000)).unwrap())
            .collect();
        assert!(breaker.try_acquire(at(59_999)).is_err());
        assert!(breaker.try_acquire(at(60_000)).is_ok());
        drop(lost);
    }

    #[test]
    fn a_permit_given_back_is_given_out_again() {
        let mut breaker = tripped();
        let permits: Vec<_> = (0..5)
            .map(|_| breaker.try_acquire(at(30_000)).unwrap())
            .collect();
        permits
            .into_iter()
            .for_each(|permit| breaker.give_back(permit));
        assert!(breaker.try_acquire(at(30_000)).is_ok());
    }

    proptest! {
        /// Whatever happened, once the store answers again the breaker closes.
        #[test]
        fn it_always_recovers(calls in prop::collection::vec((0u64..40_000, any::<bool>()), 0..60)) {
            let mut breaker = breaker();
            let mut now = 0;
            for (wait, ok) in calls {
                now += wait;
                if let Ok(permit) = breaker.try_acquire(at(now)) {
                    breaker.record(at(now), permit, ok);
                }
            }
            now += 60_000;
            (0..5).for_each(|_| call(&mut breaker, now, true));
            prop_assert_eq!(breaker.state(at(now)), BreakerState::Closed);
        }
    }
}
