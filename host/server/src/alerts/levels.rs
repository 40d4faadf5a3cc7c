//! The objectives of a host, fed from what is counted anyhow.

use std::time::Duration;

use oona_core::Timestamp;
use oona_core::objective::{Burn, BurnRule, Objective, Tally, Window};

use super::board::{BurnStatus, ObjectiveStatus};
use super::config::{ObjectiveName, ObjectivesConfig};
use crate::bus::Fates;
use crate::latency::{Latencies, Stage};
use crate::length::length;

/// All of them, in the order of [`ObjectiveName::ALL`].
pub(super) struct Levels {
    config: ObjectivesConfig,
    levels: [Level; 5],
    /// When it was first looked.
    since: Option<Timestamp>,
}

/// One of them.
struct Level {
    name: ObjectiveName,
    says: String,
    objective: Objective,
    /// What was counted at the last look.
    counted: Tally,
}

/// What is promised, before anything was counted.
pub(super) fn objectives(
    config: &ObjectivesConfig,
) -> impl Iterator<Item = (ObjectiveName, Objective)> {
    let all = ObjectiveName::ALL.into_iter();
    all.map(|name| (name, objective(config, name)))
}

fn objective(config: &ObjectivesConfig, name: ObjectiveName) -> Objective {
    Objective::new(target(config, name), config.period, config.events_min)
}

impl Levels {
    pub(super) fn new(config: &ObjectivesConfig) -> Self {
        let level = |name| Level {
            says: says(config, name),
            objective: objective(config, name),
            counted: Tally::default(),
            name,
        };
        Self {
            config: config.clone(),
            levels: ObjectiveName::ALL.map(level),
            since: None,
        }
    }

    /// Takes in what was counted since the last look, and for how long there is an outage.
    pub(super) fn take_in(
        &mut self,
        now: Timestamp,
        latencies: &Latencies,
        fates: Fates,
        outage: Option<Duration>,
    ) {
        self.since.get_or_insert(now);
        let recovery = self.recovery(outage);
        let config = &self.config;
        for level in &mut self.levels {
            let counted = match level.name {
                ObjectiveName::PublishLatency => {
                    latencies.within(Stage::Publish, config.publish, |it| {
                        it.outcome == "accepted"
                    })
                }
                ObjectiveName::DeliveryLatency => {
                    latencies.within(Stage::Delivery, config.delivery, |it| it.outcome == "first")
                }
                ObjectiveName::Reliability => reliability(fates),
                ObjectiveName::DropRate => drop_rate(fates),
                ObjectiveName::Recovery => recovery,
            };
            level.objective.record(now, counted.since(level.counted));
            level.counted = counted;
        }
    }

    /// Each look is an event; it is bad if an outage lasts for too long by then.
    fn recovery(&self, outage: Option<Duration>) -> Tally {
        let too_long = outage.is_some_and(|lasts| lasts >= self.config.recovery);
        let recovery = self
            .levels
            .iter()
            .find(|it| it.name == ObjectiveName::Recovery);
        let mut counted = recovery.map(|level| level.counted).unwrap_or_default();
        counted.total += 1;
        counted.good += u64::from(!too_long);
        counted
    }

    /// Whether a budget for whose sake load is shed is nearly spent.
    pub(super) fn is_budget_low(&self, now: Timestamp) -> bool {
        let reserve = f64::from(self.config.budget_low_percent) / 100.0;
        let mut those = self
            .levels
            .iter()
            .filter(|level| self.config.shed_for.contains(&level.name));
        let after = self.config.shed_after;
        self.config.budget_low_percent > 0
            && those.any(|level| level.objective.is_nearly_spent(now, reserve, after))
    }

    /// Each objective, and what burns most of it by these rules.
    pub(super) fn worst(
        &self,
        now: Timestamp,
        rules: &'static [BurnRule],
    ) -> impl Iterator<Item = (ObjectiveName, Burn)> {
        let worst = move |level: &Level| Some((level.name, level.objective.worst(now, rules)?));
        self.levels.iter().filter_map(worst)
    }

    pub(super) fn status(&self, now: Timestamp) -> Vec<ObjectiveStatus> {
        let status = |level: &Level| {
            let Level {
                name,
                says,
                objective,
                counted,
            } = level;
            let Tally { good, total } = objective.tally(now);
            let burn = |window: Window| BurnStatus {
                window: window.name().into(),
                rate: objective.burn_rate(now, window),
            };
            ObjectiveStatus {
                name: name.name().into(),
                says: says.clone(),
                target: objective.target(),
                window: length(self.config.period),
                good,
                total,
                since_ms: self.since.unwrap_or(now).as_millis(),
                budget_left: objective.budget_left(now),
                burn: Window::ALL.map(burn).into(),
                counted: *counted,
            }
        };
        self.levels.iter().map(status).collect()
    }
}

/// Messages of which it is known what became of them, and those that the bus could not take.
fn reliability(fates: Fates) -> Tally {
    let lost = fates.dead_lettered + fates.discarded + fates.removed + fates.refused_by_faults;
    Tally {
        good: fates.acknowledged,
        total: fates.acknowledged + lost,
    }
}

fn drop_rate(fates: Fates) -> Tally {
    Tally {
        good: fates.accepted,
        total: fates.accepted + fates.refused,
    }
}

fn target(config: &ObjectivesConfig, name: ObjectiveName) -> f64 {
    let per_mille = match name {
        ObjectiveName::PublishLatency => config.publish_percent * 10,
        ObjectiveName::DeliveryLatency => config.delivery_percent * 10,
        ObjectiveName::Reliability => config.reliability_per_mille,
        ObjectiveName::DropRate => 1_000_u32.saturating_sub(config.drops_percent * 10),
        ObjectiveName::Recovery => config.recovery_per_mille,
    };
    f64::from(per_mille) / 1_000.0
}

fn says(config: &ObjectivesConfig, name: ObjectiveName) -> String {
    match name {
        ObjectiveName::PublishLatency => {
            let (percent, bound) = (config.publish_percent, length(config.publish));
            format!("publish p{percent} under {bound}")
        }
        ObjectiveName::DeliveryLatency => {
            let (percent, bound) = (config.delivery_percent, length(config.delivery));
            format!("delivery p{percent} under {bound}")
        }
        ObjectiveName::Reliability => {
            let percent = f64::from(config.reliability_per_mille) / 10.0;
            format!("{percent} % of messages are handled")
        }
        ObjectiveName::DropRate => {
            format!(
                "at most {} % of publishes are refused",
                config.drops_percent
            )
        }
        ObjectiveName::Recovery => {
            let percent = f64::from(config.recovery_per_mille) / 10.0;
            let bound = length(config.recovery);
            format!("outages end within {bound}, {percent} % of the time")
        }
    }
}

#[cfg(test)]
mod tests;
