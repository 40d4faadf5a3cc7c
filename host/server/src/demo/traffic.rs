//! Five producers, and what they publish.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use oona_core::envelope::message_type;
use oona_core::leyline::{
    EmergencyLevel, EmergencySignal, KernelPrefetchRequest, MetricPoint, TelemetryLevel,
    TelemetryPacket,
};
use oona_core::policy::Priority;
use prost::Message as _;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::account::Account;
use crate::bus::{Bus, Draft};

/// A prefetch request in a format that the subscribers do not know at first.
pub(super) const LEGACY_ID: &str = "prefetch-000040";

/// What an old client writes.
pub(super) const LEGACY_PREFIX: &[u8] = b"blueprint=";

/// A producer.
pub(super) struct Producer {
    pub(super) name: &'static str,
    /// How long between two batches.
    period: Duration,
    /// How many messages in a batch.
    batch: u64,
    /// Its n-th message.
    draft: fn(u64) -> Draft,
}

/// What publishes in the demo: some 1 600 messages a second.
pub(super) const PRODUCERS: [Producer; 5] = [
    Producer {
        name: "telemetry",
        period: Duration::from_millis(10),
        batch: 10,
        draft: telemetry,
    },
    Producer {
        name: "reports",
        period: Duration::from_millis(10),
        batch: 5,
        draft: report,
    },
    Producer {
        name: "prefetch",
        period: Duration::from_millis(10),
        batch: 1,
        draft: prefetch,
    },
    Producer {
        name: "commands",
        period: Duration::from_millis(50),
        batch: 1,
        draft: command,
    },
    Producer {
        name: "emergency",
        period: Duration::from_secs(4),
        batch: 1,
        draft: emergency,
    },
];

/// Publishes until `enough`, one batch after the other.
pub(super) async fn produce(
    producer: &'static Producer,
    bus: Bus,
    account: Arc<Account>,
    enough: CancellationToken,
) {
    let mut ticks = interval(producer.period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number = 0;
    while !enough.is_cancelled() {
        ticks.tick().await;
        let mut batch = Vec::new();
        for _ in 0..producer.batch {
            let id = format!("{}-{number:06}", producer.name);
            let draft = Draft {
                id: Some(id.clone()),
                source: producer.name.to_owned(),
                ..(producer.draft)(number)
            };
            let origin = draft.attributes.get("origin").cloned();
            account.published(&id, producer.name, origin.as_deref() == Some("edge"));
            batch.push((id, bus.enqueue(draft).await));
            number += 1;
        }
        for (id, outcome) in batch {
            account.outcome(&id, &outcome.await);
        }
    }
}

/// How long between two rounds of a trickle.
const TRICKLE_PERIOD: Duration = Duration::from_millis(50);

/// Publishes a few messages a second without end: nothing that is refused, or that nobody can read.
pub(super) async fn trickle(bus: &Bus) {
    let mut rounds = interval(TRICKLE_PERIOD);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // What is out of the ordinary in the drafts comes before.
    for number in 1_000.. {
        rounds.tick().await;
        for draft in [telemetry, report, command] {
            let published = bus.publish(draft(number));
            drop(published.await);
        }
    }
}

/// Measurements. One packet is larger than the bus takes.
fn telemetry(number: u64) -> Draft {
    let metric = MetricPoint {
        name: "train.loss".to_owned(),
        value: 1.0 / (number + 1) as f64,
        unit: "1".to_owned(),
        ..MetricPoint::default()
    };
    let points = if number == 500 { 20_000 } else { 4 };
    let packet = TelemetryPacket {
        packet_id: format!("packet-{number}"),
        timestamp: Some(SystemTime::now().into()),
        source_subsystem: "trainer".to_owned(),
        level: TelemetryLevel::Info.into(),
        metrics: vec![metric; points],
        ..TelemetryPacket::default()
    };
    Draft::new(message_type::TELEMETRY, packet.encode_to_vec())
}

/// Reports, every other one from the edge.
fn report(number: u64) -> Draft {
    let origin = if number.is_multiple_of(2) {
        "edge"
    } else {
        "lab"
    };
    let mut draft = Draft::new(message_type::FIELD_REPORT, format!("report {number}"));
    draft
        .attributes
        .insert("origin".to_owned(), origin.to_owned());
    draft
}

/// Requests for kernels. Two are in formats that the subscribers cannot read.
fn prefetch(number: u64) -> Draft {
    let payload = match number {
        40 => [LEGACY_PREFIX, b"softmax"].concat(),
        41 => vec![0xff; 16],
        _ => KernelPrefetchRequest {
            request_id: format!("request-{number}"),
            blueprint_id: "softmax".to_owned(),
            training_run_id: "run-1".to_owned(),
            issued_at: Some(SystemTime::now().into()),
        }
        .encode_to_vec(),
    };
    Draft::new(message_type::KERNEL_PREFETCH_REQUEST, payload)
}

/// Commands, one in twenty of them urgent.
fn command(number: u64) -> Draft {
    let urgent = number.is_multiple_of(20).then_some(Priority::High);
    Draft {
        priority: urgent,
        key: format!("seed-{}", number % 8),
        ..Draft::new(
            message_type::ADAPTATION_COMMAND,
            format!("adapt seed {}", number % 8),
        )
    }
}

/// A runaway training, every now and then.
fn emergency(number: u64) -> Draft {
    let signal = EmergencySignal {
        version: 1,
        level: EmergencyLevel::Halt.into(),
        reason: "loss diverges".to_owned(),
        origin: "guard".to_owned(),
        triggered_at: Some(SystemTime::now().into()),
        run_id: format!("run-{number}"),
        ..EmergencySignal::default()
    };
    Draft::new(message_type::EMERGENCY_SIGNAL, signal.encode_to_vec())
}
