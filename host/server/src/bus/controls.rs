//! What an operator takes into his own hands: a breaker forced open or closed, the mode forced.
//!
//! It concerns this host alone, and is held in memory: a host that starts anew is in nobody's hands. A
//! publish breaker that is forced open refuses every publish, emergencies too, each with the typed
//! answer `breaker-forced-open`: nothing is written by this host. A consume breaker that is forced open
//! pauses the normal streams; what a read is already waiting for may still come. The emergency lane is
//! read on: nobody hides the message that stops a runaway training.

use oona_core::Timestamp;
use oona_core::breaker::{Breaker, Position};
use oona_core::conservative::Transition;
use oona_core::force::Forced;
use oona_core::policy::Mode;
use oona_core::telemetry::Level;
use serde::Serialize;

use super::Bus;
use super::shared::Shared;

/// The longest reason that an operator may give, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 1_024;

/// How a breaker is, and in whose hands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BreakerStatus {
    /// Which: `publish` or `consume`.
    pub name: String,
    /// `closed`, `open` or `half-open`.
    pub state: &'static str,
    /// Why: `started`, `failures`, `waited`, `trial-failed`, `trials-passed` or `forced`.
    pub reason: &'static str,
    /// What it would be if nobody forced it.
    pub automatic: &'static str,
    /// What an operator has forced.
    pub forced: Option<Forced<Position>>,
}

impl BreakerStatus {
    pub(super) fn new(name: &str, breaker: &Breaker, now: Timestamp) -> Self {
        Self {
            name: name.to_owned(),
            state: breaker.state(now).name(),
            reason: breaker.reason(now).name(),
            automatic: breaker.state_beneath(now).name(),
            forced: breaker.forced().cloned(),
        }
    }
}

/// The mode of the bus, and in whose hands it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModeStatus {
    /// The mode.
    pub mode: Mode,
    /// Why: `started`, `breaker-open`, `high-water`, `budget-spent`, `budget-low`, `recovered` or `forced`.
    pub reason: &'static str,
    /// What it would be if nobody forced it.
    pub automatic: Mode,
    /// What an operator has forced.
    pub forced: Option<Forced<Mode>>,
}

/// Who forces something, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operator {
    /// Who.
    pub by: String,
    /// Why.
    pub message: String,
}

/// Why nothing was forced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// There is no such breaker.
    #[error("there is no breaker `{name}`; there are {known}")]
    UnknownBreaker {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The reason is too long.
    #[error("a reason has at most {MESSAGE_BYTES_MAX} bytes, this one {0}")]
    Message(usize),
}

impl Operator {
    fn forces<T>(self, to: T, at: Timestamp) -> Result<Forced<T>, ControlError> {
        let Self { by, message } = self;
        if message.len() > MESSAGE_BYTES_MAX {
            return Err(ControlError::Message(message.len()));
        }
        Ok(Forced {
            to,
            by,
            message,
            at,
        })
    }
}

impl Bus {
    /// How the breakers are.
    #[must_use]
    pub fn breakers(&self) -> Vec<BreakerStatus> {
        self.shared.breakers()
    }

    /// Forces a breaker open or closed, or, without a position, releases it.
    ///
    /// # Errors
    ///
    /// If there is no such breaker, or the reason is too long.
    pub fn force_breaker(
        &self,
        name: &str,
        to: Option<Position>,
        operator: Operator,
    ) -> Result<BreakerStatus, ControlError> {
        let shared = &self.shared;
        let now = self.now();
        let mut breaker = shared.breaker(name).ok_or_else(|| {
            let known: Vec<_> = self
                .breakers()
                .into_iter()
                .map(|known| known.name)
                .collect();
            ControlError::UnknownBreaker {
                name: name.to_owned(),
                known: known.join(", "),
            }
        })?;
        match to {
            Some(to) => breaker.force(operator.forces(to, now)?),
            None => drop(breaker.release()),
        }
        shared.tell_breaker(name, &mut breaker, now);
        Ok(BreakerStatus::new(name, &breaker, now))
    }

    /// The mode of the bus.
    #[must_use]
    pub fn mode(&self) -> ModeStatus {
        self.shared.board().mode_status()
    }

    /// Forces a mode, or, without one, releases it.
    ///
    /// # Errors
    ///
    /// If the reason is too long.
    pub fn force_mode(
        &self,
        to: Option<Mode>,
        operator: Operator,
    ) -> Result<ModeStatus, ControlError> {
        let forced = to.map(|to| operator.forces(to, self.now())).transpose()?;
        let transition = {
            let mut board = self.shared.board();
            let conservative = board.conservative_mut();
            match forced {
                Some(forced) => conservative.force(forced),
                None => conservative.release(),
            }
        };
        tell_mode(&self.shared, transition);
        Ok(self.mode())
    }
}

/// Tells the world how the mode is, and that it has changed if it has.
pub(super) fn tell_mode(shared: &Shared, transition: Option<Transition>) {
    let forced = shared.board().mode_status().forced;
    let held = i64::from(forced.is_some());
    shared.metrics.conservative_forced.set(held);
    let Some(transition) = transition else { return };
    let to = transition.to.name();
    let reason = transition.reason.name();
    let conservative = transition.to == Mode::Conservative;
    shared.metrics.conservative_mode.set(conservative.into());
    shared.metrics.conservative_transitions(to, reason).inc();
    let by = forced.map(|forced| forced.words());
    let level = if conservative {
        Level::Warning
    } else {
        Level::Info
    };
    let description = format!("the bus is in {to} mode ({reason})");
    shared.happened((shared.clock)(), level, "mode", description);
    tracing::warn!(mode = to, reason, by, "the bus changes its mode");
}
