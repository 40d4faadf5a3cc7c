//! All that an operator looks at, in one answer: `oona top` shows it.
//!
//! What it costs does not grow with what the bus holds: status, latencies and trends lie in memory, and the
//! store is asked twice, for the length of the dead-letter stream and for the last entry in it. A store that
//! does not answer in time takes nothing else away: the answer says so, where the dead letters would be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use oona_core::Timestamp;
use oona_core::envelope::message_type;
use oona_core::policy::Kind;
use oona_core::rolling::{Span, Summary};
use oona_core::trend::Point;
use serde::{Deserialize, Serialize};

use crate::access::Right;
use crate::alerts::AlertStatus;
use crate::bus::{Bus, BusStatus, DeadLetterView, LetterError, PublishCount, Rejections};
use crate::latency::{LatencyStatus, Stage};
use crate::registry::Registry;

/// How many points of a stream's line are told: five minutes of them.
pub const POINTS: usize = 60;

/// How long the store may take to say how many dead letters there are.
const STORE_TIME_MAX: Duration = Duration::from_secs(1);

/// How a host and its bus are.
#[derive(Clone, Debug, Serialize)]
pub struct Overview {
    /// When this was so, in ms since the epoch.
    pub at_ms: u64,
    /// Version of the host.
    pub version: &'static str,
    /// The bus.
    pub status: BusStatus,
    /// The last five minutes of each stream, the oldest point first.
    pub trends: BTreeMap<Arc<str>, Vec<Point>>,
    /// The stretch of time that latencies are of.
    pub span: Span,
    /// Each step, whatever the stream, the priority and the outcome.
    pub stages: Vec<StageLatency>,
    /// Each step, by stream, priority and outcome.
    pub latencies: Vec<LatencyStatus>,
    /// How often publishes ended alike since the start: the counters of `oona_publish_total`.
    pub publishes: Vec<PublishCount>,
    /// What was refused since the start, most often first: why, by whom, and an example of each.
    pub rejections: Vec<Rejections>,
    /// How often the policy in use of each kind gave each reason.
    pub decisions: BTreeMap<&'static str, BTreeMap<String, u64>>,
    /// The dead letters.
    pub dead_letters: DeadLetters,
    /// The alerts that fire.
    pub alerts: Vec<AlertStatus>,
}

/// How long a step took.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct StageLatency {
    /// Which step.
    pub stage: Stage,
    /// The figures.
    #[serde(flatten)]
    pub summary: Summary,
}

/// What lies in the dead-letter stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeadLetters {
    /// How many; `None` if the store does not say.
    pub length: Option<u64>,
    /// The last one.
    pub last: Option<LastLetter>,
    /// The right that whoever asks lacks to be told of the last one.
    #[serde(default)]
    pub lacks: Option<Right>,
    /// Why something is missing here.
    pub error: Option<String>,
}

/// The dead letter that was filed last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastLetter {
    /// Its entry in the dead-letter stream.
    pub id: String,
    /// Event id of the message; empty if the entry could not be read.
    #[serde(default)]
    pub event_id: String,
    /// Wire number of the message's type.
    #[serde(default)]
    pub message_type: u32,
    /// The name of that type, if it has one.
    #[serde(default, rename = "type")]
    pub type_name: Option<String>,
    /// Under which class it was filed.
    pub class: String,
    /// Why, as the policy said.
    pub reason: String,
    /// Why, as the subscriber or the host said.
    #[serde(default)]
    pub detail: String,
    /// How its delivery failed.
    pub failure: String,
    /// The stream that it came from.
    pub stream: String,
    /// The consumer group that could not handle it.
    pub group: String,
    /// For how long it is there, in ms.
    pub age_ms: u64,
}

/// How a bus is now, with the latencies of `span`, for somebody who `lacks` a right to be told of dead letters.
pub async fn overview(
    bus: &Bus,
    registry: &Registry,
    span: Span,
    lacks: Option<Right>,
) -> Overview {
    let dead_letters = dead_letters(bus).await.without(lacks);
    let now = bus.now();
    let latencies = &bus.metrics().latencies;
    let stages = Stage::ALL.map(|stage| StageLatency {
        stage,
        summary: latencies.together(stage, now, span, |_| true),
    });
    let decisions = Kind::ALL.map(|kind| (kind.name(), registry.mix_in_use(kind)));
    Overview {
        at_ms: now.as_millis(),
        version: env!("CARGO_PKG_VERSION"),
        status: bus.status(),
        trends: bus.trends(POINTS).into_iter().collect(),
        span,
        stages: stages.into(),
        latencies: latencies.list(now, span),
        publishes: bus.publish_counts(),
        rejections: bus.rejections(),
        decisions: decisions.into(),
        dead_letters,
        alerts: bus.metrics().alerts.firing(),
    }
}

impl DeadLetters {
    /// As it is told to somebody who `lacks` a right.
    fn without(self, lacks: Option<Right>) -> Self {
        match lacks {
            None => self,
            Some(_) => Self {
                last: None,
                lacks,
                ..self
            },
        }
    }
}

async fn dead_letters(bus: &Bus) -> DeadLetters {
    let asked = tokio::time::timeout(STORE_TIME_MAX, bus.last_dead_letter());
    let (length, last) = match asked.await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return missing(None, error.to_string()),
        Err(_) => return missing(None, "the store does not answer in time".to_owned()),
    };
    match last {
        None => DeadLetters {
            length: Some(length),
            ..DeadLetters::default()
        },
        Some(Ok(letter)) => DeadLetters {
            length: Some(length),
            last: Some(last_letter(letter, bus.now())),
            ..DeadLetters::default()
        },
        Some(Err(error)) => missing(Some(length), LetterError::to_string(&error)),
    }
}

fn missing(length: Option<u64>, error: String) -> DeadLetters {
    DeadLetters {
        length,
        error: Some(error),
        ..DeadLetters::default()
    }
}

fn last_letter(letter: DeadLetterView, now: Timestamp) -> LastLetter {
    LastLetter {
        id: letter.id,
        event_id: letter.event_id,
        message_type: letter.message_type,
        type_name: message_type::name(letter.message_type).map(str::to_owned),
        detail: letter.detail,
        class: letter.class,
        reason: letter.reason,
        failure: letter.failure,
        stream: letter.stream,
        group: letter.group,
        age_ms: now.as_millis().saturating_sub(letter.at_ms),
    }
}
