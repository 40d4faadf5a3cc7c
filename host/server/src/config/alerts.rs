//! The settings of objectives and alerts.

use super::error::ConfigError;
use super::typed::Read;
use crate::alerts::{AlertsConfig, ObjectiveName, ObjectivesConfig, WebhookUrl};

/// What is promised.
pub(super) fn objectives(read: &Read<'_>) -> Result<ObjectivesConfig, ConfigError> {
    let key = "objectives.shed_for";
    let objective = |name: String| {
        ObjectiveName::that_sheds(&name).ok_or_else(|| read.invalid(key, no_such(&name)))
    };
    Ok(ObjectivesConfig {
        publish: read.millis("objectives.publish_ms"),
        publish_percent: read.count_u32("objectives.publish_percent"),
        delivery: read.millis("objectives.delivery_ms"),
        delivery_percent: read.count_u32("objectives.delivery_percent"),
        reliability_per_mille: read.count_u32("objectives.reliability_per_mille"),
        drops_percent: read.count_u32("objectives.drops_percent"),
        recovery: read.millis("objectives.recovery_ms"),
        recovery_per_mille: read.count_u32("objectives.recovery_per_mille"),
        period: read.millis("objectives.period_ms"),
        events_min: read.count_u64("objectives.events_min"),
        budget_low_percent: read.count_u32("objectives.budget_low_percent"),
        shed_after: read.millis("objectives.shed_after_ms"),
        shed_for: read
            .texts(key)
            .into_iter()
            .map(objective)
            .collect::<Result<_, _>>()?,
    })
}

fn no_such(name: &str) -> String {
    let known: Vec<_> = ObjectiveName::ALL
        .into_iter()
        .map(ObjectiveName::name)
        .filter(|name| ObjectiveName::that_sheds(name).is_some())
        .collect();
    format!(
        "`{name}` is no objective to shed load for; use some of {}",
        known.join(", ")
    )
}

/// What is too much.
pub(super) fn alerts(read: &Read<'_>) -> Result<AlertsConfig, ConfigError> {
    Ok(AlertsConfig {
        look: read.millis("alerts.look_ms"),
        looks: read.count_u32("alerts.looks"),
        depth: ["alerts.depth", "alerts.depth_clear"].map(|key| read.count_u64(key)),
        reroutes_percent: ["alerts.reroutes_percent", "alerts.reroutes_clear_percent"]
            .map(|key| read.count_u32(key)),
        drops_percent: ["alerts.drops_percent", "alerts.drops_clear_percent"]
            .map(|key| read.count_u32(key)),
        publishes_min: read.count_u64("alerts.publishes_min"),
        dead_letters_per_minute: [
            "alerts.dead_letters_per_minute",
            "alerts.dead_letters_clear_per_minute",
        ]
        .map(|key| read.count_u64(key)),
        registry_behind: read.millis("alerts.registry_behind_ms"),
        webhook: webhook(read)?,
        webhook_timeout: read.millis("alerts.webhook_timeout_ms"),
    })
}

fn webhook(read: &Read<'_>) -> Result<Option<WebhookUrl>, ConfigError> {
    let key = "alerts.webhook_url";
    let text = read.text(key);
    if text.is_empty() {
        return Ok(None);
    }
    let url = WebhookUrl::parse(&text).map_err(|error| read.invalid(key, error))?;
    Ok(Some(url))
}
