//! The decision. Pure; tested below without a host.

use oona_policy_sdk::config::EMERGENCY_SIGNAL;
use oona_policy_sdk::routing::{Decision, RoutingPolicy};
use oona_policy_sdk::{Message, Names, Policy, Priority, Symbol};

use crate::config::{Config, Rule, Streams};

/// See the crate.
#[derive(Debug)]
pub struct Routing {
    emergency: Symbol,
    normal: Symbol,
    emergency_from: Priority,
    /// Wire numbers of types with a stream of their own.
    by_type: Vec<(u32, Symbol)>,
    rules: Vec<ResolvedRule>,
    reasons: Reasons,
}

#[derive(Debug)]
struct Reasons {
    emergency: Symbol,
    priority: Symbol,
    message_type: Symbol,
}

/// A rule whose names are symbols.
#[derive(Debug)]
struct ResolvedRule {
    message_type: Option<u32>,
    source: Option<Symbol>,
    attribute: Option<(Symbol, String)>,
    priority_from: Option<Priority>,
    stream: Option<Symbol>,
    reason: Symbol,
}

impl Policy for Routing {
    type Config = Config;
    const NAME: &'static str = "routing";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const CONFIG_SCHEMA: &'static str = include_str!("../config.schema.json");

    fn new(config: Config, names: &mut dyn Names) -> Result<Self, String> {
        let rules = config.rules.into_iter().map(|rule| resolve(rule, names));
        Ok(Self {
            rules: rules.collect::<Result<_, _>>()?,
            emergency: names.intern(&config.streams.emergency)?,
            normal: names.intern(&config.streams.normal)?,
            emergency_from: config.emergency_from.0,
            by_type: by_type(&config.streams, names)?,
            reasons: Reasons {
                emergency: names.intern("emergency")?,
                priority: names.intern("priority")?,
                message_type: names.intern("type")?,
            },
        })
    }
}

impl RoutingPolicy for Routing {
    fn decide(&self, _now: u64, message: &Message<'_>) -> Decision {
        if message.message_type == EMERGENCY_SIGNAL || message.priority == Priority::Emergency {
            return Decision::route(self.emergency, self.reasons.emergency);
        }
        if let Some(rule) = self.rules.iter().find(|rule| rule.applies(message)) {
            return match rule.stream {
                Some(stream) => Decision::route(stream, rule.reason),
                None => Decision::reject(rule.reason),
            };
        }
        if message.priority >= self.emergency_from {
            return Decision::route(self.emergency, self.reasons.priority);
        }
        let own = self
            .by_type
            .iter()
            .find(|(number, _)| *number == message.message_type);
        let stream = own.map_or(self.normal, |(_, stream)| *stream);
        Decision::route(stream, self.reasons.message_type)
    }
}

impl ResolvedRule {
    fn applies(&self, message: &Message<'_>) -> bool {
        self.message_type
            .is_none_or(|wanted| message.message_type == wanted)
            && self.source.is_none_or(|wanted| message.source == wanted)
            && self
                .priority_from
                .is_none_or(|wanted| message.priority >= wanted)
            && self.attribute.as_ref().is_none_or(|(name, value)| {
                message
                    .attribute(*name)
                    .is_some_and(|found| found == *value)
            })
    }
}

fn resolve(rule: Rule, names: &mut dyn Names) -> Result<ResolvedRule, String> {
    let mut intern = |name: Option<String>| name.map(|name| names.intern(&name)).transpose();
    let reason = format!("rule:{}", rule.name);
    let source = intern(rule.source)?;
    let stream = intern(rule.stream)?;
    let attribute = match rule.attribute {
        Some(attribute) => Some((names.intern(&attribute.name)?, attribute.value)),
        None => None,
    };
    Ok(ResolvedRule {
        message_type: rule.message_type.map(|wanted| wanted.0),
        source,
        attribute,
        priority_from: rule.priority_from.map(|wanted| wanted.0),
        stream,
        reason: names.intern(&reason)?,
    })
}

fn by_type(streams: &Streams, names: &mut dyn Names) -> Result<Vec<(u32, Symbol)>, String> {
    let own = [
        (4, &streams.telemetry),
        (5, &streams.policy),
        (6, &streams.kernels_requests),
        (7, &streams.kernels_ready),
        (8, &streams.kernels_errors),
        (9, &streams.kernels_ready),
    ];
    let configured = own
        .into_iter()
        .filter_map(|(number, name)| Some((number, name.as_ref()?)));
    configured
        .map(|(number, name)| Ok((number, names.intern(name)?)))
        .collect()
}

#[cfg(test)]
mod tests;
