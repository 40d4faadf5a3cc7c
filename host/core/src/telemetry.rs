//! What a host tells of itself on the bus: a `TelemetryPacket`, under the names that its readers know.
//!
//! Numbers of kind `count` only grow while a host runs. Latencies are those of the last minute, in ms. An alert
//! reader that watches `oona.queue.depth` sees the deepest stream.

use std::collections::BTreeMap;

use prost_types::Timestamp as WireTime;

use crate::breaker::BreakerState;
use crate::dead_letter::audit::{Count, Picture, Rate};
use crate::leyline::{
    HealthStatus, MetricPoint, SystemHealth, TelemetryEvent, TelemetryLevel, TelemetryPacket,
};
use crate::rolling::Summary;
use crate::time::Timestamp;

/// How many names are told of each sort that dead letters are told apart by: those with the most.
const AUDIT_NAMES_MAX: usize = 8;

/// What was counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Publishes that were accepted.
    pub published: u64,
    /// Of these, those that backpressure sent elsewhere than routing had.
    pub rerouted: u64,
    /// Publishes that were refused.
    pub refused: u64,
    /// Deliveries that are tried again.
    pub retried: u64,
    /// Messages that became dead letters.
    pub dead_lettered: u64,
    /// Messages of kernel streams that were too old.
    pub kernel_stale: u64,
    /// Messages of kernel streams that were replays.
    pub kernel_replayed: u64,
    /// Messages to the emergency stream that were accepted there, or demoted.
    pub emergencies: u64,
    /// Emergencies over their rate, which were refused.
    pub emergencies_over_rate: u64,
}

/// What an auditor last found in the dead-letter stream.
#[derive(Clone, Debug, Default)]
pub struct Audit {
    /// What there is.
    pub picture: Picture,
    /// How many are filed.
    pub rate: Rate,
}

/// How a host is at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// See there.
    pub counts: Counts,
    /// The depth of each stream, by what it is called in names: `normal`, `kernel_requests`.
    pub depths: BTreeMap<String, u64>,
    /// From publish to outcome.
    pub publish: Summary,
    /// From delivery to answer.
    pub consume: Summary,
    /// State of the publish breaker.
    pub publish_breaker: BreakerState,
    /// State of the consume breaker.
    pub consume_breaker: BreakerState,
    /// The dead letters, once they were audited.
    pub audit: Option<Audit>,
    /// Whether the bus protects itself.
    pub conservative: bool,
    /// Whether it does its work.
    pub ready: bool,
    /// Why it does not, or what limits it.
    pub reasons: Vec<String>,
    /// More about its health, by name.
    pub indicators: BTreeMap<String, String>,
}

/// How serious an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For information.
    Info,
    /// Worth a look.
    Warning,
    /// Something failed.
    Error,
}

impl Level {
    const fn wire(self) -> TelemetryLevel {
        match self {
            Self::Info => TelemetryLevel::Info,
            Self::Warning => TelemetryLevel::Warning,
            Self::Error => TelemetryLevel::Error,
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// How serious it is.
    pub level: Level,
    /// What kind of thing: `breaker`, `mode`, `policy_activated`, `policy_fell_back`.
    pub name: &'static str,
    /// What, in a sentence.
    pub description: String,
}

/// What a stream is called in the names of metrics: `kernel_requests` for `oona.kernels.requests`.
#[must_use]
pub fn stream_word(stream: &str) -> String {
    let word = stream.strip_prefix("oona.").unwrap_or(stream);
    word.replace("kernels.", "kernel_").replace(['.', '-'], "_")
}

/// The packet of one moment. `id` makes it, and with a number each of its events, unique.
#[must_use]
pub fn packet(
    now: Timestamp,
    id: &str,
    source: &str,
    snapshot: &Snapshot,
    events: &[Event],
) -> TelemetryPacket {
    let health = health(snapshot);
    let worst = events.iter().map(|event| event.level).max();
    let level = worst.unwrap_or(Level::Info).max(level_of(health.status()));
    let event = |(number, event): (usize, &Event)| TelemetryEvent {
        event_id: format!("{id}-{number}"),
        description: event.description.clone(),
        level: event.level.wire().into(),
        attributes: BTreeMap::from([
            ("name".to_owned(), event.name.to_owned()),
            ("at_ms".to_owned(), event.at.as_millis().to_string()),
        ]),
    };
    TelemetryPacket {
        packet_id: id.to_owned(),
        timestamp: Some(wire_time(now)),
        source_subsystem: source.to_owned(),
        level: level.wire().into(),
        metrics: metrics(snapshot),
        events: events.iter().enumerate().map(event).collect(),
        spans: Vec::new(),
        system_health: Some(health),
    }
}

fn wire_time(now: Timestamp) -> WireTime {
    let ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
    WireTime {
        seconds: ms / 1_000,
        nanos: i32::try_from(ms % 1_000 * 1_000_000).unwrap_or(0),
    }
}

fn level_of(status: HealthStatus) -> Level {
    match status {
        HealthStatus::Healthy => Level::Info,
        HealthStatus::Degraded => Level::Warning,
        _ => Level::Error,
    }
}

fn health(snapshot: &Snapshot) -> SystemHealth {
    let status = match (snapshot.ready, snapshot.reasons.is_empty()) {
        (true, true) => HealthStatus::Healthy,
        (true, false) => HealthStatus::Degraded,
        (false, _) => HealthStatus::Unhealthy,
    };
    let summary = if snapshot.reasons.is_empty() {
        "messages are taken and delivered".to_owned()
    } else {
        snapshot.reasons.join("; ")
    };
    SystemHealth {
        status: status.into(),
        summary,
        indicators: snapshot.indicators.clone(),
    }
}

fn metrics(snapshot: &Snapshot) -> Vec<MetricPoint> {
    let mut points = Vec::new();
    let mut add = |name: &str, value: f64, unit: &str| {
        points.push(MetricPoint {
            name: format!("oona.{name}"),
            value,
            unit: unit.to_owned(),
            attributes: BTreeMap::new(),
        });
    };
    let counts = &snapshot.counts;
    for (name, count) in [
        ("publish_total", counts.published),
        ("publish_rerouted", counts.rerouted),
        ("publish_dropped", counts.refused),
        ("retry_total", counts.retried),
        ("dead_letter_total", counts.dead_lettered),
        ("kernel_stale_dropped", counts.kernel_stale),
        ("kernel_replay_dropped", counts.kernel_replayed),
        ("emergency_published", counts.emergencies),
        ("emergency_rate_dropped", counts.emergencies_over_rate),
    ] {
        add(name, count as f64, "count");
    }
    let deepest = snapshot.depths.values().max().copied().unwrap_or(0) as f64;
    add("queue_depth_max", deepest, "messages");
    add("queue.depth", deepest, "messages");
    for (stream, depth) in &snapshot.depths {
        add(&format!("queue_depth_{stream}"), *depth as f64, "messages");
    }
    for (name, latency) in [
        ("publish", &snapshot.publish),
        ("consume", &snapshot.consume),
    ] {
        add(&format!("{name}_latency_ms"), latency.mean_ms, "ms");
        add(&format!("{name}_latency_ms_p50"), latency.p50_ms, "ms");
        add(&format!("{name}_latency_ms_p95"), latency.p95_ms, "ms");
        add(&format!("{name}_latency_ms_p99"), latency.p99_ms, "ms");
    }
    for (name, breaker) in [
        ("publish", snapshot.publish_breaker),
        ("consume", snapshot.consume_breaker),
    ] {
        let state = f64::from(breaker.wire_number());
        add(&format!("{name}_breaker_state"), state, "state");
        let open = f64::from(u8::from(breaker.is_open()));
        add(&format!("breaker_{name}_open"), open, "flag");
    }
    let conservative = f64::from(u8::from(snapshot.conservative));
    add("conservative_mode", conservative, "flag");
    if let Some(Audit { picture, rate }) = &snapshot.audit {
        let age_ms = |oldest| picture.at_ms.saturating_sub(oldest) as f64;
        add("dead_letter_depth", picture.length as f64, "messages");
        add(
            "dead_letter_oldest_ms",
            picture.oldest_ms.map_or(0.0, age_ms),
            "ms",
        );
        add("dead_letter_filed_per_minute", rate.per_minute, "messages");
        add(
            "dead_letter_rising",
            f64::from(u8::from(rate.rising)),
            "flag",
        );
        for (by, counts) in picture.counts.each() {
            points.extend(
                counts
                    .iter()
                    .take(AUDIT_NAMES_MAX)
                    .map(|count| estimate(by, count)),
            );
        }
    }
    points
}

/// How many dead letters there are of one name, about.
fn estimate(by: &str, count: &Count) -> MetricPoint {
    MetricPoint {
        name: "oona.dead_letter_estimate".to_owned(),
        value: count.estimate as f64,
        unit: "messages".to_owned(),
        attributes: BTreeMap::from([
            ("by".to_owned(), by.to_owned()),
            ("name".to_owned(), count.name.clone()),
        ]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        Snapshot {
            counts: Counts {
                published: 7,
                rerouted: 2,
                refused: 3,
                retried: 4,
                dead_lettered: 5,
                kernel_stale: 6,
                kernel_replayed: 8,
                emergencies: 9,
                emergencies_over_rate: 10,
            },
            depths: [("oona.normal", 4_001), ("oona.kernels.requests", 2)]
                .map(|(name, depth)| (stream_word(name), depth))
                .into(),
            publish: Summary {
                p95_ms: 12.5,
                ..Summary::default()
            },
            consume: Summary::default(),
            publish_breaker: BreakerState::Closed,
            consume_breaker: BreakerState::Open,
            audit: None,
            conservative: true,
            ready: true,
            reasons: Vec::new(),
            indicators: BTreeMap::from([("store".to_owned(), "up".to_owned())]),
        }
    }

    fn told(snapshot: &Snapshot, events: &[Event]) -> TelemetryPacket {
        packet(
            Timestamp::from_millis(1_500),
            "id",
            "oona",
            snapshot,
            events,
        )
    }

    #[test]
    fn every_name_that_readers_know_is_told() {
        let packet = told(&snapshot(), &[]);
        let value = |name: &str| {
            let mut points = packet.metrics.iter();
            let point = points.find(|point| point.name == format!("oona.{name}"));
            point.unwrap_or_else(|| panic!("no oona.{name}")).value
        };
        let table = [
            ("publish_total", 7.0),
            ("publish_rerouted", 2.0),
            ("publish_dropped", 3.0),
            ("retry_total", 4.0),
            ("dead_letter_total", 5.0),
            ("kernel_stale_dropped", 6.0),
            ("kernel_replay_dropped", 8.0),
            ("emergency_published", 9.0),
            ("emergency_rate_dropped", 10.0),
            ("queue_depth_max", 4_001.0),
            ("queue.depth", 4_001.0),
            ("queue_depth_normal", 4_001.0),
            ("queue_depth_kernel_requests", 2.0),
            ("publish_latency_ms", 0.0),
            ("publish_latency_ms_p50", 0.0),
            ("publish_latency_ms_p95", 12.5),
            ("publish_latency_ms_p99", 0.0),
            ("consume_latency_ms_p99", 0.0),
            ("publish_breaker_state", 1.0),
            ("breaker_publish_open", 0.0),
            ("consume_breaker_state", 2.0),
            ("breaker_consume_open", 1.0),
            ("conservative_mode", 1.0),
        ];
        for (name, expected) in table {
            assert_eq!(value(name), expected, "{name}");
        }
        let names: std::collections::BTreeSet<_> = packet.metrics.iter().map(|p| &p.name).collect();
        assert_eq!(names.len(), packet.metrics.len(), "each name once");
        let time = packet.timestamp.unwrap();
        assert_eq!((time.seconds, time.nanos), (1, 500_000_000));
    }

    #[test]
    fn dead_letters_are_told_by_name_once_they_were_audited() {
        let count = |name: &str, estimate| Count {
            name: name.to_owned(),
            estimate,
            sampled: 1,
        };
        let mut picture = Picture {
            at_ms: 5_000,
            length: 9,
            oldest_ms: Some(1_000),
            ..Picture::default()
        };
        picture.counts.class = vec![count("poison", 70), count("stale", 2)];
        let names = (0..AUDIT_NAMES_MAX + 5).map(|number| count(&number.to_string(), 1));
        picture.counts.source = names.collect();
        let rate = Rate {
            per_minute: 3.0,
            rising: true,
            ..Rate::default()
        };
        let snapshot = Snapshot {
            audit: Some(Audit { picture, rate }),
            ..snapshot()
        };
        let packet = told(&snapshot, &[]);
        let values = |name: &str| -> Vec<f64> {
            let points = packet.metrics.iter().filter(|point| point.name == name);
            points.map(|point| point.value).collect()
        };
        for (name, expected) in [
            ("depth", 9.0),
            ("oldest_ms", 4_000.0),
            ("filed_per_minute", 3.0),
            ("rising", 1.0),
        ] {
            assert_eq!(
                values(&format!("oona.dead_letter_{name}")),
                [expected],
                "{name}"
            );
        }
        assert_eq!(
            values("oona.dead_letter_estimate").len(),
            2 + AUDIT_NAMES_MAX
        );
        let poison = packet.metrics.iter().find(|point| point.value == 70.0);
        assert_eq!(poison.unwrap().attributes["by"], "class");
        assert_eq!(poison.unwrap().attributes["name"], "poison");
    }

    #[test]
    fn health_and_level_follow_from_what_is_wrong() {
        let event = |level| Event {
            at: Timestamp::EPOCH,
            level,
            name: "breaker",
            description: "it opened".to_owned(),
        };
        let (info, error) = (
            [event(Level::Info)],
            [event(Level::Info), event(Level::Error)],
        );
        let because = ["a reason"];
        type Row<'a> = (
            bool,
            &'a [&'a str],
            &'a [Event],
            HealthStatus,
            TelemetryLevel,
        );
        let table: [Row<'_>; 5] = [
            (true, &[], &[], HealthStatus::Healthy, TelemetryLevel::Info),
            (
                true,
                &[],
                &info,
                HealthStatus::Healthy,
                TelemetryLevel::Info,
            ),
            (
                true,
                &[],
                &error,
                HealthStatus::Healthy,
                TelemetryLevel::Error,
            ),
            (
                true,
                &because,
                &[],
                HealthStatus::Degraded,
                TelemetryLevel::Warning,
            ),
            (
                false,
                &because,
                &info,
                HealthStatus::Unhealthy,
                TelemetryLevel::Error,
            ),
        ];
        for (ready, reasons, events, status, level) in table {
            let snapshot = Snapshot {
                ready,
                reasons: reasons.iter().map(ToString::to_string).collect(),
                ..snapshot()
            };
            let packet = told(&snapshot, events);
            let health = packet.system_health.as_ref().unwrap();
            assert_eq!((health.status(), packet.level()), (status, level));
            assert_eq!(health.indicators["store"], "up");
            assert_eq!(packet.events.len(), events.len());
            let ids: std::collections::BTreeSet<_> =
                packet.events.iter().map(|e| &e.event_id).collect();
            assert_eq!(ids.len(), events.len());
        }
    }
}
