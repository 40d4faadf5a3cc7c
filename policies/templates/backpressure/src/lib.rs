//! Lets each priority in up to a share of a stream's capacity.
//!
//! 1. Urgent messages are let in up to the last place, on whichever stream they are.
//! 2. What is less urgent is let in up to the share of the configuration, and told to come again later
//!    beyond it.
//! 3. A full stream refuses everything.

use oona_policy_sdk::backpressure::{BackpressurePolicy, BusState, Candidate, Decision};
use oona_policy_sdk::{Names, Policy, Priority, Symbol};
use serde::{Deserialize, Serialize};

/// What can be set. `config.schema.json` says the same to whoever configures the policy.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Up to which share of its capacity a stream takes low priority.
    pub low_share: f64,
    /// Up to which share of its capacity a stream takes normal priority.
    pub normal_share: f64,
    /// After how long a producer is asked to come again, in ms.
    pub retry_after_ms: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            low_share: 0.5,
            normal_share: 0.75,
            retry_after_ms: 250,
        }
    }
}

/// The policy: its configuration, with every name that a decision needs resolved to a symbol.
#[derive(Debug)]
pub struct TemplatePolicy {
    config: Config,
    reasons: Reasons,
}

#[derive(Debug)]
struct Reasons {
    room: Symbol,
    share: Symbol,
    full: Symbol,
}

impl Policy for TemplatePolicy {
    type Config = Config;
    const NAME: &'static str = env!("CARGO_PKG_NAME");
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const CONFIG_SCHEMA: &'static str = include_str!("../config.schema.json");

    fn new(config: Config, names: &mut dyn Names) -> Result<Self, String> {
        if config.low_share > config.normal_share {
            return Err("low_share is over normal_share".to_owned());
        }
        Ok(Self {
            config,
            reasons: Reasons {
                room: names.intern("room")?,
                share: names.intern("over-share")?,
                full: names.intern("full")?,
            },
        })
    }
}

impl BackpressurePolicy for TemplatePolicy {
    fn decide(&self, _now: u64, _state: &BusState, candidate: &Candidate<'_>) -> Decision {
        let capacity = candidate.capacity.max(1) as f64;
        let filled = (candidate.depth as f64 / capacity).min(1.0);
        let pressure = filled as f32;
        if candidate.depth >= candidate.capacity {
            return Decision::reject(self.config.retry_after_ms, self.reasons.full, pressure);
        }
        let share = match candidate.message.priority {
            Priority::Low => self.config.low_share,
            Priority::Normal => self.config.normal_share,
            Priority::High | Priority::Critical | Priority::Emergency => 1.0,
        };
        if filled < share {
            return Decision::admit(self.reasons.room, pressure);
        }
        Decision::defer(self.config.retry_after_ms, self.reasons.share, pressure)
    }
}

oona_policy_sdk::export_backpressure!(TemplatePolicy);

#[cfg(test)]
mod tests;
