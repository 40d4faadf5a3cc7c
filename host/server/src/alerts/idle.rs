//! Alerts on error budgets that can never fire, whatever happens: named when a host starts, and by `oona doctor`.

use std::fmt;

use oona_core::objective::{BurnRule, PAGE, TICKET};

use super::config::{ObjectiveName, ObjectivesConfig};
use super::levels;
use super::readings::{BURN_FAST, BURN_SLOW};

/// One of their rules, of one objective.
#[derive(Clone, Debug, PartialEq)]
pub struct IdleRule {
    /// The name of the alert.
    pub alert: &'static str,
    /// The objective.
    pub objective: ObjectiveName,
    /// The windows, and the share of the budget.
    pub rule: BurnRule,
    /// How fast the budget would have to burn.
    pub factor: f64,
    /// How fast it burns if every event is bad.
    pub rate_max: f64,
}

/// The rules that can never fire under these objectives.
#[must_use]
pub fn idle_rules(config: &ObjectivesConfig) -> Vec<IdleRule> {
    let rules = PAGE.iter().map(|rule| (BURN_FAST.name, *rule));
    let rules = rules.chain(TICKET.iter().map(|rule| (BURN_SLOW.name, *rule)));
    let idle = |(alert, rule): (&'static str, BurnRule)| {
        let those = levels::objectives(config);
        let those = those.filter(move |(_, objective)| !objective.can_fire(&rule));
        those.map(move |(name, objective)| IdleRule {
            alert,
            objective: name,
            rule,
            factor: rule.factor(config.period),
            rate_max: objective.rate_max(),
        })
    };
    rules.flat_map(idle).collect()
}

impl fmt::Display for IdleRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            alert,
            objective,
            rule,
            factor,
            rate_max,
        } = self;
        write!(
            f,
            "{alert} of {} over {} and {} can never fire: it does when the budget burns over {factor:.1} times as fast \
             as it may, and if every event is bad that is {rate_max:.1}",
            objective.name(),
            rule.long.name(),
            rule.short.name(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};

    /// The alert, its objective, and its long window.
    type Named = (&'static str, &'static str, &'static str);

    #[test]
    fn rules_that_can_never_fire_are_named() {
        // Settings; the alert, its objective and its long window of each that cannot.
        let table: [(&[&str], &[Named]); 5] = [
            (&[], &[]),
            (&["objectives.drops_percent=6"], &[]),
            (
                &["objectives.drops_percent=7"],
                &[("budget_burn_fast", "drop_rate", "1h")],
            ),
            (
                &[
                    "objectives.publish_percent=83",
                    "objectives.reliability_per_mille=930",
                ],
                &[
                    ("budget_burn_fast", "publish_latency", "1h"),
                    ("budget_burn_fast", "reliability", "1h"),
                    ("budget_burn_fast", "publish_latency", "6h"),
                ],
            ),
            (
                &[
                    "objectives.period_ms=7776000000",
                    "objectives.delivery_percent=66",
                    "objectives.publish_percent=98",
                    "objectives.drops_percent=2",
                ],
                &[
                    ("budget_burn_fast", "delivery_latency", "1h"),
                    ("budget_burn_fast", "delivery_latency", "6h"),
                    ("budget_burn_slow", "delivery_latency", "3d"),
                ],
            ),
        ];
        for (settings, expected) in table {
            let sources = Sources {
                assignments: settings.iter().map(|it| (*it).to_owned()).collect(),
                ..Sources::default()
            };
            let config = Config::assemble(None, &sources).expect("it is a good configuration");
            let idle = idle_rules(&config.objectives);
            let idle = idle
                .iter()
                .map(|it| (it.alert, it.objective.name(), it.rule.long.name()));
            assert_eq!(idle.collect::<Vec<_>>(), expected, "{settings:?}");
        }
    }
}
