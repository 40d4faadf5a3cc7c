//! The decision. Pure; tested below without a host.

use oona_policy_sdk::freshness::{Arrival, Decision, FreshnessPolicy, Nonce, Verdict};
use oona_policy_sdk::{Names, Policy, Symbol};

use crate::config::{Config, MissingTime};

/// See the crate.
#[derive(Debug)]
pub struct Freshness {
    clock_skew: u64,
    rules: Vec<Rule>,
    reasons: Reasons,
}

/// What holds for one type.
#[derive(Debug)]
struct Rule {
    message_type: u32,
    window: u64,
    nonce: bool,
    missing_time: MissingTime,
}

#[derive(Debug)]
struct Reasons {
    expired: Symbol,
    fresh: Symbol,
    from_future: Symbol,
    no_time: Symbol,
    replay: Symbol,
    window: Symbol,
}

impl Policy for Freshness {
    type Config = Config;
    const NAME: &'static str = "freshness";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const CONFIG_SCHEMA: &'static str = include_str!("../config.schema.json");

    fn new(config: Config, names: &mut dyn Names) -> Result<Self, String> {
        let rules = config.types.iter().map(|(message_type, rule)| Rule {
            message_type: message_type.0,
            window: rule.window_ms.unwrap_or(config.window_ms),
            nonce: rule.nonce,
            missing_time: rule.missing_time,
        });
        Ok(Self {
            clock_skew: config.clock_skew_ms,
            rules: rules.collect(),
            reasons: Reasons {
                expired: names.intern("expired")?,
                fresh: names.intern("fresh")?,
                from_future: names.intern("from-future")?,
                no_time: names.intern("no-time")?,
                replay: names.intern("replay")?,
                window: names.intern("window")?,
            },
        })
    }
}

impl FreshnessPolicy for Freshness {
    fn decide(&self, now: u64, arrival: &Arrival<'_>) -> Decision {
        let message = &arrival.message;
        let reasons = &self.reasons;
        if message.created_at > now.saturating_add(self.clock_skew) {
            return Decision::refuse(Verdict::FromFuture, reasons.from_future);
        }
        if message.expires_at != 0 && now > message.expires_at {
            return Decision::refuse(Verdict::Stale, reasons.expired);
        }
        let rule = self
            .rules
            .iter()
            .find(|rule| rule.message_type == message.message_type);
        let Some(rule) = rule else {
            return Decision::fresh(0, reasons.fresh);
        };
        let stale_from = match message.created_at {
            0 if rule.missing_time == MissingTime::Refuse => {
                return Decision::refuse(Verdict::Stale, reasons.no_time);
            }
            0 => now.saturating_add(rule.window).saturating_add(1),
            created_at => created_at.saturating_add(rule.window).saturating_add(1),
        };
        if now >= stale_from {
            return Decision::refuse(Verdict::Stale, reasons.window);
        }
        if !rule.nonce {
            return Decision::fresh(0, reasons.fresh);
        }
        if arrival.nonce == Nonce::OtherEntry {
            return Decision::refuse(Verdict::Replay, reasons.replay);
        }
        // Until the message is stale by every clock, so that a copy is either a replay or too old.
        let remember = (stale_from - now).saturating_add(self.clock_skew);
        Decision::fresh(remember, reasons.fresh)
    }
}

#[cfg(test)]
mod tests;
