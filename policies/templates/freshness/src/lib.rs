//! Delivers a message while it is young enough, and once.
//!
//! 1. What has expired by its own word is stale.
//! 2. What is older than the configuration allows is stale.
//! 3. The same event on another entry of a stream is a replay.

use oona_policy_sdk::freshness::{Arrival, Decision, FreshnessPolicy, Nonce, Verdict};
use oona_policy_sdk::{Names, Policy, Symbol};
use serde::{Deserialize, Serialize};

/// What can be set. `config.schema.json` says the same to whoever configures the policy.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How old a message may be, in ms.
    pub age_ms_max: u64,
    /// Whether an event is delivered once, however often it was published.
    pub once: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            age_ms_max: 60_000,
            once: true,
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
    fresh: Symbol,
    expired: Symbol,
    old: Symbol,
    replay: Symbol,
}

impl Policy for TemplatePolicy {
    type Config = Config;
    const NAME: &'static str = env!("CARGO_PKG_NAME");
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const CONFIG_SCHEMA: &'static str = include_str!("../config.schema.json");

    fn new(config: Config, names: &mut dyn Names) -> Result<Self, String> {
        Ok(Self {
            config,
            reasons: Reasons {
                fresh: names.intern("fresh")?,
                expired: names.intern("expired")?,
                old: names.intern("old")?,
                replay: names.intern("replay")?,
            },
        })
    }
}

impl FreshnessPolicy for TemplatePolicy {
    fn decide(&self, now: u64, arrival: &Arrival<'_>) -> Decision {
        let message = &arrival.message;
        if message.expires_at != 0 && now > message.expires_at {
            return Decision::refuse(Verdict::Stale, self.reasons.expired);
        }
        // A message that does not say when it was issued is as young as can be.
        let created_at = if message.created_at == 0 {
            now
        } else {
            message.created_at
        };
        let age = now.saturating_sub(created_at);
        if age > self.config.age_ms_max {
            return Decision::refuse(Verdict::Stale, self.reasons.old);
        }
        if !self.config.once {
            return Decision::fresh(0, self.reasons.fresh);
        }
        if arrival.nonce == Nonce::OtherEntry {
            return Decision::refuse(Verdict::Replay, self.reasons.replay);
        }
        // Until it is stale: from then on a copy is too old.
        let remember = self.config.age_ms_max - age + 1;
        Decision::fresh(remember, self.reasons.fresh)
    }
}

oona_policy_sdk::export_freshness!(TemplatePolicy);

#[cfg(test)]
mod tests;
