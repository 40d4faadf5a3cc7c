//! What each alert looks at, and what of that is too much. Pure.

use std::sync::Arc;
use std::time::Duration;

use oona_core::Timestamp;
use oona_core::alert::Rule;
use oona_core::objective::{BurnRule, PAGE, TICKET};

use super::board::{Severity, Signal};
use super::config::AlertsConfig;
use super::levels::Levels;
use crate::bus::{BusStatus, Fates};

/// What is the same for all alerts of one name.
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) severity: Severity,
    pub(super) advice: &'static str,
}

const REROUTES: Kind = Kind {
    name: "reroutes",
    severity: Severity::Ticket,
    advice: "see what backpressure says with `oona policy log`, and which stream is full with `oona top`",
};
const DROPS: Kind = Kind {
    name: "drops",
    severity: Severity::Page,
    advice: "see why in oona_publish_total by reason; add consumers, or slow the producers down",
};
const QUEUE_DEPTH: Kind = Kind {
    name: "queue_depth",
    severity: Severity::Page,
    advice: "see its groups with `oona top`: add consumers to the slowest, or remove a group that nobody needs",
};
const BREAKER_OPEN: Kind = Kind {
    name: "breaker_open",
    severity: Severity::Page,
    advice: "ask `oona doctor` what is wrong with the store; `oona breaker release {subject}` if somebody has forced it",
};
const DEAD_LETTER_RATE: Kind = Kind {
    name: "dead_letter_rate",
    severity: Severity::Ticket,
    advice: "see classes and reasons with `oona dlq stats`, mend the handler, then `oona dlq redrive`",
};
const STALE_POLICY: Kind = Kind {
    name: "stale_policy",
    severity: Severity::Ticket,
    advice: "see `oona policy list` for what is in use and why; activate a version that works, or roll back",
};
pub(super) const BURN_FAST: Kind = Kind {
    name: "budget_burn_fast",
    severity: Severity::Page,
    advice: "something broke of late: see latencies and faults with `oona top`, and what was changed",
};
pub(super) const BURN_SLOW: Kind = Kind {
    name: "budget_burn_slow",
    severity: Severity::Ticket,
    advice: "the budget will not last for its period: find what costs it before it is spent",
};

/// Alerts that others say something of: [`Board::signal`](super::Board::signal).
const SIGNALLED: [Kind; 1] = [Kind {
    name: "dead_letter_rise",
    severity: Severity::Ticket,
    advice: "see what is new in the dead letters with `oona dlq stats` and `oona dlq list`",
}];

/// What one alert looks at.
pub(super) struct Reading {
    pub(super) kind: &'static Kind,
    pub(super) subject: Option<Arc<str>>,
    pub(super) rule: Rule,
    pub(super) value: f64,
    pub(super) unit: &'static str,
    pub(super) reason: String,
}

/// What there is to be seen at one look.
pub(super) struct Seen<'a> {
    pub(super) now: Timestamp,
    pub(super) status: &'a BusStatus,
    pub(super) fates: Fates,
    pub(super) minute_ago: Fates,
    pub(super) levels: &'a Levels,
    pub(super) registry_behind: Duration,
    pub(super) signals: Vec<(&'static str, Signal)>,
}

/// Every alert, whether it fires or not.
pub(super) fn all(config: &AlertsConfig, seen: &Seen<'_>) -> Vec<Reading> {
    let mut readings = shares(config, seen);
    readings.extend(depths(config, seen.status));
    readings.extend(breakers(config, seen.status));
    readings.push(dead_letters(config, seen));
    readings.extend(policies(config, seen));
    readings.extend(burns(config, seen, &BURN_FAST, &PAGE));
    readings.extend(burns(config, seen, &BURN_SLOW, &TICKET));
    readings.extend(signalled(config, &seen.signals));
    readings
}

/// A rule with the for-count that all have.
fn rule(config: &AlertsConfig, fires_over: f64, clears_under: f64) -> Rule {
    Rule {
        fires_over,
        clears_under,
        looks: config.looks,
    }
}

/// A rule of what is or is not: the value is 1 or 0.
fn flag(config: &AlertsConfig) -> Rule {
    rule(config, 0.5, 0.5)
}

fn shares(config: &AlertsConfig, seen: &Seen<'_>) -> Vec<Reading> {
    let (now, before) = (seen.fates, seen.minute_ago);
    let accepted = now.accepted.saturating_sub(before.accepted);
    let rerouted = now.rerouted.saturating_sub(before.rerouted);
    let refused = now.refused.saturating_sub(before.refused);
    let share = |kind, part, all, limits: [u32; 2], what: &str| Reading {
        kind,
        subject: None,
        rule: rule(config, limits[0].into(), limits[1].into()),
        value: percent(part, all, config.publishes_min),
        unit: "percent",
        reason: format!("{part} of {all} publishes of the last minute were {what}"),
    };
    let reroutes = config.reroutes_percent;
    let drops = config.drops_percent;
    vec![
        share(&REROUTES, rerouted, accepted, reroutes, "rerouted"),
        share(&DROPS, refused, accepted + refused, drops, "refused"),
    ]
}

/// 0 of too few.
fn percent(part: u64, all: u64, all_min: u64) -> f64 {
    if all < all_min.max(1) {
        return 0.0;
    }
    part as f64 * 100.0 / all as f64
}

fn depths(config: &AlertsConfig, status: &BusStatus) -> impl Iterator<Item = Reading> {
    let [over, under] = config.depth;
    status.streams.iter().map(move |stream| Reading {
        kind: &QUEUE_DEPTH,
        subject: Some(stream.name.as_str().into()),
        rule: rule(config, over as f64, under as f64),
        value: stream.depth as f64,
        unit: "messages",
        reason: format!(
            "{} messages of {} are not finished",
            stream.depth, stream.name
        ),
    })
}

/// A breaker on trial is neither open nor well again.
fn breakers(config: &AlertsConfig, status: &BusStatus) -> impl Iterator<Item = Reading> {
    status.breakers.iter().map(move |breaker| Reading {
        kind: &BREAKER_OPEN,
        subject: Some(breaker.name.as_str().into()),
        rule: flag(config),
        value: match breaker.state {
            "open" => 1.0,
            "half-open" => 0.5,
            _ => 0.0,
        },
        unit: "flag",
        reason: format!(
            "the {} breaker is {} ({})",
            breaker.name, breaker.state, breaker.reason
        ),
    })
}

fn dead_letters(config: &AlertsConfig, seen: &Seen<'_>) -> Reading {
    let count = seen
        .fates
        .dead_lettered
        .saturating_sub(seen.minute_ago.dead_lettered);
    let [over, under] = config.dead_letters_per_minute;
    Reading {
        kind: &DEAD_LETTER_RATE,
        subject: None,
        rule: rule(config, over as f64, under as f64),
        value: count as f64,
        unit: "letters a minute",
        reason: format!("{count} messages of the last minute became dead letters"),
    }
}

fn policies(config: &AlertsConfig, seen: &Seen<'_>) -> Vec<Reading> {
    let stale = |subject: &str, rule, value, unit, reason| Reading {
        kind: &STALE_POLICY,
        subject: Some(subject.into()),
        rule,
        value,
        unit,
        reason,
    };
    let policies = seen.status.policies.iter().map(|policy| {
        let kind = policy.kind.name();
        let why = match (&policy.slot.fallback, &policy.not_started) {
            (Some(fallback), _) => Some(format!(
                "the {kind} policy {} was taken out: {}",
                fallback.from, fallback.fault
            )),
            (None, Some(why)) => Some(format!("the {kind} policy did not start: {why}")),
            (None, None) => None,
        };
        let value = f64::from(u8::from(why.is_some()));
        let reason =
            why.unwrap_or_else(|| format!("the {kind} policy in use is the one that was chosen"));
        stale(kind, flag(config), value, "flag", reason)
    });
    let mut readings: Vec<_> = policies.collect();
    let (behind, limit) = (seen.registry_behind, config.registry_behind.as_secs_f64());
    let reason = format!(
        "for {} s this host does not do what the registry of policies says, or cannot read it",
        behind.as_secs()
    );
    let rule = rule(config, limit, limit / 2.0);
    readings.push(stale(
        "registry",
        rule,
        behind.as_secs_f64(),
        "seconds",
        reason,
    ));
    readings
}

/// Where the short window has recovered, so has the value: it is over under 1, the limit itself.
fn burns(
    config: &AlertsConfig,
    seen: &Seen<'_>,
    kind: &'static Kind,
    rules: &'static [BurnRule],
) -> impl Iterator<Item = Reading> {
    seen.levels.worst(seen.now, rules).map(move |(name, burn)| Reading {
        kind,
        subject: Some(name.name().into()),
        rule: rule(config, 1.0, 1.0),
        value: burn.excess(),
        unit: "times the limit",
        reason: format!(
            "the error budget of {} burns {:.1} times as fast as it may, over {} and {}; the limit is {:.1}",
            name.name(),
            burn.rate,
            burn.rule.long.name(),
            burn.rule.short.name(),
            burn.factor,
        ),
    })
}

fn signalled(config: &AlertsConfig, signals: &[(&'static str, Signal)]) -> Vec<Reading> {
    let reading = |kind: &'static Kind| {
        let signal = signals.iter().find(|(name, _)| *name == kind.name);
        let quiet = || Signal {
            value: 0.0,
            reason: "nothing was said of it yet".to_owned(),
        };
        let signal = signal.map_or_else(quiet, |(_, signal)| signal.clone());
        Reading {
            kind,
            subject: None,
            rule: flag(config),
            value: signal.value,
            unit: "flag",
            reason: signal.reason,
        }
    };
    SIGNALLED.iter().map(reading).collect()
}

#[cfg(test)]
mod tests;
