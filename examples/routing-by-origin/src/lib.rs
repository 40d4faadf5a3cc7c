//! Routes by where a message comes from: what the edge sends shall not crowd out the rest.
//!
//! The first that applies:
//!
//! 1. An emergency goes to the emergency stream.
//! 2. A message whose attribute `origin` is in the list goes to the stream of the configuration.
//! 3. Everything else goes where the shipped policy sends it: high priority and over to the emergency
//!    stream, each type to its own stream, the rest to the normal one.

use oona_policy_sdk::config::EMERGENCY_SIGNAL;
use oona_policy_sdk::routing::{Decision, RoutingPolicy};
use oona_policy_sdk::{Message, Names, Policy, Priority, Symbol};
use serde::{Deserialize, Serialize};

/// Message types with a stream of their own.
const OWN_STREAMS: [(u32, &str); 6] = [
    (4, "oona.telemetry"),
    (5, "oona.policy"),
    (6, "oona.kernels.requests"),
    (7, "oona.kernels.ready"),
    (8, "oona.kernels.errors"),
    (9, "oona.kernels.ready"),
];

/// What can be set. `config.schema.json` says the same to whoever configures the policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The origins that are meant.
    pub origins: Vec<String>,
    /// Where their messages go.
    pub stream: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            origins: vec!["edge".into()],
            stream: "oona.telemetry".into(),
        }
    }
}

/// The policy: its configuration, with every name that a decision needs resolved to a symbol.
#[derive(Debug)]
pub struct ByOrigin {
    origins: Vec<String>,
    origin: Symbol,
    stream: Symbol,
    emergency: Symbol,
    normal: Symbol,
    own_streams: Vec<(u32, Symbol)>,
    reasons: Reasons,
}

#[derive(Debug)]
struct Reasons {
    emergency: Symbol,
    origin: Symbol,
    priority: Symbol,
    message_type: Symbol,
}

impl Policy for ByOrigin {
    type Config = Config;
    const NAME: &'static str = env!("CARGO_PKG_NAME");
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const CONFIG_SCHEMA: &'static str = include_str!("../config.schema.json");

    fn new(config: Config, names: &mut dyn Names) -> Result<Self, String> {
        let own_streams = OWN_STREAMS
            .iter()
            .map(|(message_type, stream)| Ok((*message_type, names.intern(stream)?)));
        Ok(Self {
            own_streams: own_streams.collect::<Result<_, String>>()?,
            origins: config.origins,
            origin: names.intern("origin")?,
            stream: names.intern(&config.stream)?,
            emergency: names.intern("oona.emergency")?,
            normal: names.intern("oona.normal")?,
            reasons: Reasons {
                emergency: names.intern("emergency")?,
                origin: names.intern("origin")?,
                priority: names.intern("priority")?,
                message_type: names.intern("type")?,
            },
        })
    }
}

impl RoutingPolicy for ByOrigin {
    fn decide(&self, _now: u64, message: &Message<'_>) -> Decision {
        let reasons = &self.reasons;
        if message.message_type == EMERGENCY_SIGNAL || message.priority == Priority::Emergency {
            return Decision::route(self.emergency, reasons.emergency);
        }
        if self.comes_from_listed(message) {
            return Decision::route(self.stream, reasons.origin);
        }
        if message.priority >= Priority::High {
            return Decision::route(self.emergency, reasons.priority);
        }
        let mut own_streams = self.own_streams.iter();
        let own = own_streams.find(|(message_type, _)| *message_type == message.message_type);
        let stream = own.map_or(self.normal, |(_, stream)| *stream);
        Decision::route(stream, reasons.message_type)
    }
}

impl ByOrigin {
    fn comes_from_listed(&self, message: &Message<'_>) -> bool {
        let origin = message.attribute(self.origin);
        origin.is_some_and(|origin| self.origins.contains(&origin))
    }
}

oona_policy_sdk::export_routing!(ByOrigin);

#[cfg(test)]
mod tests;
