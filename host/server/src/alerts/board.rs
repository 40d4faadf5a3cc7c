//! What is shown of objectives and alerts, and what others say of theirs.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex};

use oona_core::Timestamp;
use oona_core::alert::{Change, State};
use oona_core::objective::Tally;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use serde::{Deserialize, Serialize};

use crate::sync::lock;

/// How many of the last changes are told.
pub const RECENT_MAX: usize = 100;

/// What may become of a notice to the webhook.
const OUTCOMES: [&str; 3] = ["sent", "failed", "left_out"];

/// How many names others may say something of.
pub const SIGNALS_MAX: usize = 16;

/// Who is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Somebody, now.
    Page,
    /// Somebody, on the next day.
    Ticket,
}

impl Severity {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Ticket => "ticket",
        }
    }
}

/// How an alert is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlertStatus {
    /// Its name.
    pub name: Cow<'static, str>,
    /// What it is about, if there are several: a stream, a breaker, an objective, a kind of policy.
    pub subject: Option<Arc<str>>,
    /// Whether it fires.
    pub state: State,
    /// Whom it asks for.
    pub severity: Severity,
    /// Since when it is pending or fires, in ms since the epoch.
    pub since_ms: Option<u64>,
    /// What was seen at the last look.
    pub value: f64,
    /// What is too much if the value is over it.
    pub threshold: f64,
    /// What both are measured in.
    pub unit: Cow<'static, str>,
    /// What was seen, in a sentence.
    pub reason: String,
    /// What to do, in a sentence.
    pub advice: Cow<'static, str>,
}

/// How an objective is kept.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ObjectiveStatus {
    /// Its name.
    pub name: Cow<'static, str>,
    /// What is promised.
    pub says: String,
    /// The share of events that must be good.
    pub target: f64,
    /// The period that the budget is for.
    pub window: String,
    /// Good events of the period, as far as this host has run.
    pub good: u64,
    /// All events of the period.
    pub total: u64,
    /// Since when this host counts them, in ms since the epoch: no window reaches back further.
    pub since_ms: u64,
    /// The share of the budget that is left; less than 0 if more than that was spent.
    pub budget_left: f64,
    /// How fast it burns.
    pub burn: Vec<BurnStatus>,
    /// Events since the start.
    #[serde(skip)]
    pub counted: Tally,
}

/// How fast a budget burns over a window.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BurnStatus {
    /// `5m`, `30m`, `1h`, `6h`, `3d`.
    pub window: Cow<'static, str>,
    /// At 1 the budget lasts for its period.
    pub rate: f64,
}

/// An alert that fired, or was over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Happened {
    /// When, in ms since the epoch.
    pub at_ms: u64,
    /// The name of the alert.
    pub name: Cow<'static, str>,
    /// What it is about.
    pub subject: Option<Arc<str>>,
    /// Which of both.
    pub what: Change,
    /// What was seen.
    pub reason: String,
}

/// The answer of `/v1/alerts`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AlertsAnswer {
    /// Every objective.
    pub objectives: Vec<ObjectiveStatus>,
    /// Every alert, whether it fires or not.
    pub alerts: Vec<AlertStatus>,
    /// What happened of late, the newest first: [`RECENT_MAX`] at most.
    pub recent: Vec<Happened>,
}

/// What another part of the host says of an alert.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Signal {
    pub(super) value: f64,
    pub(super) reason: String,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Board(Mutex<Shown>);

#[derive(Debug, Default)]
struct Shown {
    objectives: Vec<ObjectiveStatus>,
    alerts: Vec<AlertStatus>,
    recent: VecDeque<Happened>,
    fired: BTreeMap<(Cow<'static, str>, Option<Arc<str>>), u64>,
    signals: BTreeMap<&'static str, Signal>,
    webhook: BTreeMap<&'static str, u64>,
}

impl Board {
    /// Everything, as of the last look.
    #[must_use]
    pub fn answer(&self) -> AlertsAnswer {
        let shown = lock(&self.0);
        AlertsAnswer {
            objectives: shown.objectives.clone(),
            alerts: shown.alerts.clone(),
            recent: shown.recent.iter().rev().cloned().collect(),
        }
    }

    /// The alerts that fire.
    #[must_use]
    pub fn firing(&self) -> Vec<AlertStatus> {
        let shown = lock(&self.0);
        let firing = shown.alerts.iter().filter(|alert| super::is_firing(alert));
        firing.cloned().collect()
    }

    /// Says something of an alert that another part of the host looks after, such as `dead_letter_rise`: a value over
    /// 0.5 is too much, and `reason` says in a sentence what was seen. It holds until something else is said. The
    /// alert then fires after its for-count, and appears, like any other. Of an alert that is not in the table of
    /// docs/alerts.md nothing is shown; there is room for [`SIGNALS_MAX`] names.
    pub fn signal(&self, name: &'static str, value: f64, reason: impl Into<String>) {
        let mut shown = lock(&self.0);
        if shown.signals.len() < SIGNALS_MAX || shown.signals.contains_key(name) {
            let reason = reason.into();
            shown.signals.insert(name, Signal { value, reason });
        }
    }

    pub(super) fn signals(&self) -> Vec<(&'static str, Signal)> {
        let shown = lock(&self.0);
        let signals = shown.signals.iter();
        signals
            .map(|(name, signal)| (*name, signal.clone()))
            .collect()
    }

    pub(super) fn show(&self, objectives: Vec<ObjectiveStatus>, alerts: Vec<AlertStatus>) {
        let mut shown = lock(&self.0);
        shown.objectives = objectives;
        shown.alerts = alerts;
    }

    pub(super) fn happened(&self, now: Timestamp, what: Change, alert: &AlertStatus) {
        let mut shown = lock(&self.0);
        if shown.recent.len() == RECENT_MAX {
            shown.recent.pop_front();
        }
        shown.recent.push_back(Happened {
            at_ms: now.as_millis(),
            name: alert.name.clone(),
            subject: alert.subject.clone(),
            what,
            reason: alert.reason.clone(),
        });
        if what == Change::Fired {
            let key = (alert.name.clone(), alert.subject.clone());
            *shown.fired.entry(key).or_default() += 1;
        }
    }

    /// Counts what became of a notice to the webhook: one of [`OUTCOMES`].
    pub(super) fn count_notice(&self, outcome: &'static str) {
        *lock(&self.0).webhook.entry(outcome).or_default() += 1;
    }
}

#[cfg(test)]
impl Board {
    /// How many notices to the webhook had this outcome.
    pub(super) fn notices(&self, outcome: &str) -> u64 {
        lock(&self.0).webhook.get(outcome).copied().unwrap_or(0)
    }
}

/// What one family has of one series: its labels, and its value.
type Sample<'a, V> = (Vec<(&'static str, &'a str)>, V);

fn gauges<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    samples: impl Iterator<Item = Sample<'a, f64>>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in samples {
        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn counters<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    samples: impl Iterator<Item = Sample<'a, u64>>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in samples {
        ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

impl Shown {
    fn encode_alerts(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let firing = self.alerts.iter().map(|alert| {
            let labels = vec![
                ("alert", &*alert.name),
                ("subject", alert.subject.as_deref().unwrap_or("")),
                ("severity", alert.severity.name()),
            ];
            (labels, f64::from(u8::from(super::is_firing(alert))))
        });
        gauges(encoder, ("alert_firing", "1 while an alert fires"), firing)?;
        // Those that never fired are shown too: a counter that begins at 1 has no rate.
        let fired = self.alerts.iter().map(|alert| {
            let key = (alert.name.clone(), alert.subject.clone());
            let labels = vec![
                ("alert", &*alert.name),
                ("subject", alert.subject.as_deref().unwrap_or("")),
            ];
            (labels, self.fired.get(&key).copied().unwrap_or(0))
        });
        counters(
            encoder,
            ("alert_fired", "How often an alert has fired"),
            fired,
        )?;
        let notices = OUTCOMES.into_iter().map(|outcome| {
            let count = self.webhook.get(outcome).copied().unwrap_or(0);
            (vec![("outcome", outcome)], count)
        });
        let help = "Notices to the webhook, by what became of them";
        counters(encoder, ("alert_notices", help), notices)
    }

    fn encode_objectives(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let of = |objective: &'static str| move |name| vec![(objective, name)];
        let label = of("objective");
        let objectives = || self.objectives.iter();
        let help = "The share of events that must be good";
        let targets = objectives().map(|it| (label(&*it.name), it.target));
        gauges(encoder, ("slo_target_ratio", help), targets)?;
        let help = "The share of the error budget that is left, less than 0 if more was spent";
        let left = objectives().map(|it| (label(&*it.name), it.budget_left));
        gauges(encoder, ("slo_budget_left_ratio", help), left)?;
        let help = "How fast the error budget burns: at 1 it lasts for its period";
        let rates = objectives().flat_map(|it| {
            let labels = |burn| vec![("objective", &*it.name), ("window", burn)];
            it.burn
                .iter()
                .map(move |burn| (labels(&*burn.window), burn.rate))
        });
        gauges(encoder, ("slo_burn_rate", help), rates)?;
        let help = "Events that an objective is about, by whether they were good";
        let events = objectives().flat_map(|it| {
            let labels = |outcome| vec![("objective", &*it.name), ("outcome", outcome)];
            let Tally { good, .. } = it.counted;
            [(labels("good"), good), (labels("bad"), it.counted.bad())]
        });
        counters(encoder, ("slo_events", help), events)
    }
}

impl Collector for Board {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let shown = lock(&self.0);
        shown.encode_alerts(&mut encoder)?;
        shown.encode_objectives(&mut encoder)
    }
}
