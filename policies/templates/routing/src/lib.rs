//! Sends what bears an attribute with one of some values to a stream of its own.
//!
//! 1. An emergency (by type or by priority) goes to the emergency stream, whatever it bears.
//! 2. What bears the attribute with a listed value goes to the stream of the configuration.
//! 3. High priority and over goes to the emergency stream, the rest to the normal one.

use oona_policy_sdk::config::EMERGENCY_SIGNAL;
use oona_policy_sdk::routing::{Decision, RoutingPolicy};
use oona_policy_sdk::{Message, Names, Policy, Priority, Symbol};
use serde::{Deserialize, Serialize};

/// What can be set. `config.schema.json` says the same to whoever configures the policy.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The attribute that is looked at.
    pub attribute: String,
    /// The values that are meant.
    pub values: Vec<String>,
    /// Where such messages go.
    pub stream: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            attribute: "customer".into(),
            values: vec!["acme".into()],
            stream: "oona.telemetry".into(),
        }
    }
}

/// The policy: its configuration, with every name that a decision needs resolved to a symbol.
#[derive(Debug)]
pub struct TemplatePolicy {
    attribute: Symbol,
    values: Vec<String>,
    stream: Symbol,
    emergency_stream: Symbol,
    normal_stream: Symbol,
    reasons: Reasons,
}

#[derive(Debug)]
struct Reasons {
    emergency: Symbol,
    attribute: Symbol,
    priority: Symbol,
    usual: Symbol,
}

impl Policy for TemplatePolicy {
    type Config = Config;
    const NAME: &'static str = env!("CARGO_PKG_NAME");
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const CONFIG_SCHEMA: &'static str = include_str!("../config.schema.json");

    fn new(config: Config, names: &mut dyn Names) -> Result<Self, String> {
        Ok(Self {
            attribute: names.intern(&config.attribute)?,
            values: config.values,
            stream: names.intern(&config.stream)?,
            emergency_stream: names.intern("oona.emergency")?,
            normal_stream: names.intern("oona.normal")?,
            reasons: Reasons {
                emergency: names.intern("emergency")?,
                attribute: names.intern("attribute")?,
                priority: names.intern("priority")?,
                usual: names.intern("usual")?,
            },
        })
    }
}

impl RoutingPolicy for TemplatePolicy {
    fn decide(&self, _now: u64, message: &Message<'_>) -> Decision {
        if message.message_type == EMERGENCY_SIGNAL || message.priority == Priority::Emergency {
            return Decision::route(self.emergency_stream, self.reasons.emergency);
        }
        let value = message.attribute(self.attribute);
        if value.is_some_and(|value| self.values.contains(&value)) {
            return Decision::route(self.stream, self.reasons.attribute);
        }
        if message.priority >= Priority::High {
            return Decision::route(self.emergency_stream, self.reasons.priority);
        }
        Decision::route(self.normal_stream, self.reasons.usual)
    }
}

oona_policy_sdk::export_routing!(TemplatePolicy);

#[cfg(test)]
mod tests;
