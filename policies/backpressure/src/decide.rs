//! The decision. Pure; tested below without a host.

use oona_policy_sdk::backpressure::{BackpressurePolicy, BusState, Candidate, Decision, Mode, Slo};
use oona_policy_sdk::{Names, Policy, Priority, Symbol};

use crate::config::{Config, OverRate};

/// The shortest time that a producer is told to wait, in ms: about what a full batch takes.
const RETRY_MS_MIN: f64 = 100.0;

/// How much longer it is told to wait at a full stream, in ms.
const RETRY_MS_FULL: f64 = 900.0;

/// See the crate.
#[derive(Debug)]
pub struct Backpressure {
    config: Config,
    reasons: Reasons,
}

#[derive(Debug)]
struct Reasons {
    admitted: Symbol,
    conservative: Symbol,
    emergency_rate: Symbol,
    over_capacity: Symbol,
    slo_violated: Symbol,
    stream_full: Symbol,
    stream_pressed: Symbol,
}

impl Policy for Backpressure {
    type Config = Config;
    const NAME: &'static str = "backpressure";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const CONFIG_SCHEMA: &'static str = include_str!("../config.schema.json");

    fn new(config: Config, names: &mut dyn Names) -> Result<Self, String> {
        config.check()?;
        Ok(Self {
            config,
            reasons: Reasons {
                admitted: names.intern("admitted")?,
                conservative: names.intern("conservative")?,
                emergency_rate: names.intern("emergency-rate")?,
                over_capacity: names.intern("over-capacity")?,
                slo_violated: names.intern("slo-violated")?,
                stream_full: names.intern("stream-full")?,
                stream_pressed: names.intern("stream-pressed")?,
            },
        })
    }
}

impl BackpressurePolicy for Backpressure {
    fn decide(&self, _now: u64, state: &BusState, candidate: &Candidate<'_>) -> Decision {
        let used = share(candidate.depth, candidate.capacity);
        let pressure = pressure(used);
        if candidate.stream == state.emergency_stream && !self.has_token(candidate) {
            return self.over_rate(state, candidate, used, pressure);
        }
        self.by_share(state, candidate, used, pressure)
    }
}

impl Backpressure {
    /// Up to which share a priority is admitted right now.
    fn limit(&self, state: &BusState, priority: Priority) -> f64 {
        let share = self.config.admission.share(priority);
        match state.mode {
            Mode::Conservative if priority < Priority::Emergency => {
                share * self.config.conservative_factor
            }
            _ => share,
        }
    }

    fn has_token(&self, candidate: &Candidate<'_>) -> bool {
        let emergency = candidate.message.priority == Priority::Emergency;
        let reserve = f64::from(candidate.tokens_max) * self.config.token_reserve;
        candidate.tokens > 0 && (emergency || f64::from(candidate.tokens) > reserve)
    }

    /// There is no token for it. An emergency that would have to wait goes in all the same: it is
    /// never lost for the noise of others.
    fn over_rate(
        &self,
        state: &BusState,
        candidate: &Candidate<'_>,
        used: f64,
        pressure: f32,
    ) -> Decision {
        let priority = candidate.message.priority;
        let normal_used = share(state.normal_depth, state.normal_capacity);
        let room = normal_used < self.limit(state, priority);
        if self.config.over_rate == OverRate::Demote {
            if room && state.normal_stream != candidate.stream {
                return Decision::reroute(
                    state.normal_stream,
                    self.reasons.emergency_rate,
                    pressure,
                );
            }
            if priority == Priority::Emergency {
                return self.by_share(state, candidate, used, pressure);
            }
        }
        let wait = candidate.token_wait.max(retry_after(used));
        Decision::defer(wait, self.reasons.emergency_rate, pressure)
    }

    fn by_share(
        &self,
        state: &BusState,
        candidate: &Candidate<'_>,
        used: f64,
        pressure: f32,
    ) -> Decision {
        let priority = candidate.message.priority;
        let reasons = &self.reasons;
        let share = self.config.admission.share(priority);
        let fits = used < self.limit(state, priority);
        let pressed = used >= self.config.emergency_threshold;
        if (pressed || !fits)
            && let Some(stream) = self.refuge(state, candidate, fits)
        {
            return Decision::reroute(stream, reasons.stream_pressed, pressure);
        }
        if fits {
            let shed = priority == Priority::Low && candidate.slo == Slo::Violated;
            return if shed {
                Decision::defer(retry_after(used), reasons.slo_violated, pressure)
            } else {
                Decision::admit(reasons.admitted, pressure)
            };
        }
        if used >= self.config.drop_threshold {
            return Decision::reject(retry_after(used), reasons.stream_full, pressure);
        }
        let why = if used < share {
            reasons.conservative
        } else {
            reasons.over_capacity
        };
        Decision::defer(retry_after(used), why, pressure)
    }

    /// Where a message may move from a stream that is pressed. Emergencies may fill any stream, in
    /// any mode, and leave their own only if it is full.
    fn refuge(&self, state: &BusState, candidate: &Candidate<'_>, fits: bool) -> Option<Symbol> {
        let priority = candidate.message.priority;
        let emergency = priority == Priority::Emergency;
        if candidate.stream == state.emergency_stream {
            let used = share(state.normal_depth, state.normal_capacity);
            let room = used < self.limit(state, priority);
            return (emergency && !fits && room).then_some(state.normal_stream);
        }
        let limit = match state.mode {
            _ if emergency => self.config.admission.emergency,
            Mode::Conservative => return None,
            Mode::Normal => self.config.reroute_limit,
        };
        let urgent = emergency || priority >= self.config.reroute_from.0;
        let room = share(state.emergency_depth, state.emergency_capacity) < limit;
        (urgent && room).then_some(state.emergency_stream)
    }
}

/// How full a stream is; over 1 if it holds more than it should.
#[expect(clippy::cast_precision_loss, reason = "depths are far below 2^52")]
fn share(depth: u64, capacity: u64) -> f64 {
    depth as f64 / capacity.max(1) as f64
}

/// How hard a stream is pressed: smoothstep (3u² − 2u³) of how full it is, so that it rises slowly,
/// then fast, and comes to rest at 1, without a step that a controller could swing on.
#[expect(clippy::cast_possible_truncation, reason = "a number from 0 to 1")]
fn pressure(used: f64) -> f32 {
    let used = used.clamp(0.0, 1.0);
    (used * used * (3.0 - 2.0 * used)) as f32
}

/// When to try again, in ms: the fuller, the later.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "from 100 to 1900"
)]
fn retry_after(used: f64) -> u32 {
    (RETRY_MS_MIN + RETRY_MS_FULL * used.clamp(0.0, 2.0)) as u32
}

#[cfg(test)]
mod tests;
