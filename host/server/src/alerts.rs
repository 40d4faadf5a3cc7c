//! What should be looked at: service level objectives, and alerts that fire and are over.
//!
//! One task looks every `alerts.look_ms` at what is counted anyhow, has core judge it, and shows it on the
//! [`Board`]: `/v1/alerts`, `/metrics` and `oona top` read that. What fires or is over is told once: in the log, as an
//! event of the next telemetry packet, by counters, and to the webhook if there is one.

mod board;
mod config;
mod idle;
mod levels;
mod readings;
mod webhook;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use oona_core::Timestamp;
use oona_core::alert::{Alert, Change, State};
use oona_core::minute::LastMinute;
use oona_core::outage::Outages;
use oona_core::telemetry::{Event, Level};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

pub use board::{
    AlertStatus, AlertsAnswer, Board, BurnStatus, Happened, ObjectiveStatus, RECENT_MAX,
    SIGNALS_MAX, Severity,
};
pub use config::{AlertsConfig, ObjectiveName, ObjectivesConfig, WebhookUrl};
pub use idle::{IdleRule, idle_rules};
pub(crate) use webhook::client as http_client;
pub use webhook::{ATTEMPTS_MAX, WAITING_MAX};

use self::levels::Levels;
use self::readings::{Reading, Seen};
use self::webhook::{Notice, Webhook};
use crate::bus::{Bus, Fates};
use crate::registry::Registry;

/// Looks until `stop`, every `alerts.look_ms`. What can never fire is logged first.
pub async fn watch(
    bus: Bus,
    registry: Registry,
    (objectives, config): (ObjectivesConfig, AlertsConfig),
    stop: CancellationToken,
) {
    for idle in idle_rules(&objectives) {
        tracing::warn!(
            "{idle}; see {} and objectives.period_ms",
            idle.objective.key()
        );
    }
    let mut ticks = interval(config.look);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let board = Arc::clone(&bus.metrics().alerts);
    let webhook = config
        .webhook
        .clone()
        .and_then(|url| Webhook::start(url, config.webhook_timeout, &board, stop.clone()));
    let mut watch = Watch {
        levels: Levels::new(&objectives),
        outages: Outages::new(&bus.config().conservative),
        alerts: BTreeMap::new(),
        minute: LastMinute::default(),
        caught_up: bus.now(),
        config,
        bus,
        registry,
        board,
        webhook,
    };
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = ticks.tick() => watch.look(),
        }
    }
    if let Some(webhook) = watch.webhook {
        webhook.end().await;
    }
}

/// What an alert is known by: its name, and what it is about.
type Key = (&'static str, Option<Arc<str>>);

/// What is looked at, and what came of it so far.
struct Watch {
    bus: Bus,
    registry: Registry,
    config: AlertsConfig,
    levels: Levels,
    outages: Outages,
    alerts: BTreeMap<Key, Alert>,
    minute: LastMinute<Fates>,
    /// When this host had last done all that the registry says.
    caught_up: Timestamp,
    board: Arc<Board>,
    webhook: Option<Webhook>,
}

impl Watch {
    fn look(&mut self) {
        let now = self.bus.now();
        let status = self.bus.status();
        let fates = self.bus.fates();
        let streams = status.streams.iter();
        let depths = streams.map(|stream| (stream.name.as_str(), stream.depth));
        let outage = self.outages.look(now, status.ready, depths);
        self.levels
            .take_in(now, &self.bus.metrics().latencies, fates, outage);
        self.bus.note_budget_low(self.levels.is_budget_low(now));
        let registry_behind = self.registry_behind(now);
        let seen = Seen {
            now,
            status: &status,
            fates,
            minute_ago: self.minute.observe(now, fates),
            levels: &self.levels,
            registry_behind,
            signals: self.board.signals(),
        };
        let readings = readings::all(&self.config, &seen);
        let alerts = readings
            .into_iter()
            .map(|reading| self.judge(now, reading))
            .collect();
        self.board.show(self.levels.status(now), alerts);
    }

    /// For how long this host does not do what the registry says, or does not know what that is.
    fn registry_behind(&mut self, now: Timestamp) -> Duration {
        if self.registry.has_caught_up() {
            self.caught_up = now;
        }
        now.since(self.caught_up.min(self.registry.heard()))
    }

    fn judge(&mut self, now: Timestamp, reading: Reading) -> AlertStatus {
        let key = (reading.kind.name, reading.subject.clone());
        let alert = self.alerts.entry(key).or_default();
        let change = alert.look(now, reading.rule, reading.value);
        let subject = reading.subject.as_deref().unwrap_or_default();
        let advice = reading.kind.advice.replace("{subject}", subject);
        let status = AlertStatus {
            name: reading.kind.name.into(),
            subject: reading.subject,
            state: alert.state(),
            severity: reading.kind.severity,
            since_ms: alert.since().map(Timestamp::as_millis),
            value: reading.value,
            threshold: reading.rule.fires_over,
            unit: reading.unit.into(),
            reason: reading.reason,
            advice: advice.into(),
        };
        if let Some(change) = change {
            self.tell(now, change, &status);
        }
        status
    }

    fn tell(&self, now: Timestamp, what: Change, alert: &AlertStatus) {
        let (name, words) = match what {
            Change::Fired => ("alert_fired", "fires"),
            Change::Cleared => ("alert_cleared", "is over"),
        };
        let level = match (what, alert.severity) {
            (Change::Cleared, _) => Level::Info,
            (Change::Fired, Severity::Ticket) => Level::Warning,
            (Change::Fired, Severity::Page) => Level::Error,
        };
        let subject = alert.subject.as_deref().unwrap_or("");
        /// The level of a line is known when it is compiled.
        macro_rules! log {
            ($level:ident) => {
                tracing::$level!(
                    alert = &*alert.name,
                    subject,
                    value = alert.value,
                    threshold = alert.threshold,
                    reason = alert.reason,
                    "the alert {words}"
                )
            };
        }
        match level {
            Level::Info => log!(info),
            Level::Warning => log!(warn),
            Level::Error => log!(error),
        }
        let of = if subject.is_empty() { "" } else { " of " };
        let description = format!(
            "the alert {}{of}{subject} {words}: {}",
            alert.name, alert.reason
        );
        self.bus.metrics().events.push(Event {
            at: now,
            level,
            name,
            description,
        });
        self.board.happened(now, what, alert);
        if let Some(webhook) = &self.webhook {
            webhook.send(Notice::new(now, &self.bus.config().host, what, alert));
        }
    }
}

/// Whether an alert asks for somebody.
#[must_use]
pub fn is_firing(alert: &AlertStatus) -> bool {
    alert.state == State::Firing
}
