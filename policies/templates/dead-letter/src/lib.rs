//! Tries again some times, at growing intervals, and then files a dead letter.
//!
//! 1. What can end no differently is filed at once: what cannot be read or believed, is stale, or poison.
//! 2. What has failed often enough is filed.
//! 3. The rest is tried again, each time after twice as long, or when the subscriber asked for.

use oona_policy_sdk::dead_letter::{DeadLetterPolicy, Decision, Failed, Failure};
use oona_policy_sdk::{Names, Policy, Symbol};
use serde::{Deserialize, Serialize};

/// What can be set. `config.schema.json` says the same to whoever configures the policy.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How often handling is tried.
    pub attempts_max: u32,
    /// After how long it is tried again for the first time, in ms.
    pub delay_ms: u64,
    /// After how long it is tried again at the latest, in ms.
    pub delay_ms_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            attempts_max: 5,
            delay_ms: 1_000,
            delay_ms_max: 300_000,
        }
    }
}

/// The policy: its configuration, with every name that a decision needs resolved to a symbol.
#[derive(Debug)]
pub struct TemplatePolicy {
    config: Config,
    names: DecisionNames,
}

/// Reasons, and the classes under which dead letters are filed.
#[derive(Debug)]
struct DecisionNames {
    hopeless: Symbol,
    exhausted: Symbol,
    again: Symbol,
}

impl Policy for TemplatePolicy {
    type Config = Config;
    const NAME: &'static str = env!("CARGO_PKG_NAME");
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const CONFIG_SCHEMA: &'static str = include_str!("../config.schema.json");

    fn new(config: Config, names: &mut dyn Names) -> Result<Self, String> {
        Ok(Self {
            config,
            names: DecisionNames {
                hopeless: names.intern("hopeless")?,
                exhausted: names.intern("exhausted")?,
                again: names.intern("again")?,
            },
        })
    }
}

impl DeadLetterPolicy for TemplatePolicy {
    fn decide(&self, _now: u64, failed: &Failed<'_>) -> Decision {
        let names = &self.names;
        if !worth_another_try(failed.failure) {
            return Decision::dead_letter(names.hopeless, names.hopeless);
        }
        // A subscriber that went down with it tells of no failure: deliveries do.
        let failures = failed
            .message
            .attempt
            .max(failed.deliveries.saturating_sub(1));
        if failures.saturating_add(1) >= self.config.attempts_max {
            return Decision::dead_letter(names.exhausted, names.exhausted);
        }
        let doubled = self.config.delay_ms.saturating_mul(1 << failures.min(30));
        let delay = doubled
            .max(failed.requested_delay)
            .min(self.config.delay_ms_max);
        Decision::retry(delay, names.again)
    }
}

/// Whether the same delivery could end differently.
fn worth_another_try(failure: Failure) -> bool {
    matches!(
        failure,
        Failure::HandlerError | Failure::Timeout | Failure::SubscriberLost
    )
}

oona_policy_sdk::export_dead_letter!(TemplatePolicy);

#[cfg(test)]
mod tests;
