//! Tells on the bus, now and then, how a host is: a signed Leyline `TelemetryPacket`, published like any
//! other message.

use std::time::Duration;

use oona_core::envelope::message_type;
use oona_core::outcome::{Outcome, RejectCause};
use oona_core::rolling::Span;
use oona_core::telemetry::{Audit, Event, Level, Snapshot, packet, stream_word};
use prost::Message as _;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::bus::{Bus, Draft};
use crate::events::{Events, Taken};
use crate::latency::Stage;

/// With so many messages in the stream that packets go to, and no group that has read any of them, none is added: what
/// nobody reads must not make the stream deep, which would put the bus into conservative mode. Less than any
/// `conservative.low_water` that is usual.
pub const UNREAD_MAX: u64 = 500;

/// Publishes a packet every `period`, from one period after the start on, until `stop`. What the bus refuses is
/// logged and not tried again: the next packet says the same anew, and has the events of those that were refused. Where
/// it is unknown whether one was written, they may be told twice. Nothing is told where nobody reads: [`UNREAD_MAX`].
pub async fn tell(bus: Bus, period: Duration, stop: CancellationToken) {
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stream = None;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if stream
            .as_deref()
            .is_some_and(|stream| unread(&bus, stream) >= UNREAD_MAX)
        {
            continue;
        }
        let taken = bus.metrics().events.take();
        let told = bus.publish(draft(&bus, &taken));
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            outcome = told => match outcome {
                Outcome::Accepted { stream: to, .. } => stream = Some(to),
                Outcome::Rejected { cause, reason, detail, .. } => {
                    tracing::debug!(%reason, detail, "telemetry was not taken");
                    keep(&bus.metrics().events, cause, taken);
                }
            }
        }
    }
}

/// How many messages of a stream no group has finished.
fn unread(bus: &Bus, stream: &str) -> u64 {
    let streams = bus.status().streams;
    let found = streams.iter().find(|status| status.name == stream);
    found.map_or(0, |status| {
        let left = status.groups.iter().map(|group| group.lag + group.pending);
        left.min().unwrap_or(status.depth)
    })
}

/// Keeps the events of a packet that was refused for the next one, unless that would be refused for them again.
fn keep(events: &Events, cause: RejectCause, taken: Taken) {
    match cause {
        RejectCause::TooLarge | RejectCause::Invalid => events.lose(&taken),
        RejectCause::Policy
        | RejectCause::Backpressure
        | RejectCause::Unavailable
        | RejectCause::ShuttingDown => events.put_back(taken),
    }
}

/// The packet of this moment, with what was taken of the events.
fn draft(bus: &Bus, taken: &Taken) -> Draft {
    let now = bus.now();
    let Taken { mut events, lost } = taken.clone();
    if lost > 0 {
        events.push(Event {
            at: now,
            level: Level::Warning,
            name: "events_lost",
            description: format!("{lost} earlier events were not told: there were too many"),
        });
    }
    let id = Uuid::now_v7().to_string();
    let source = &bus.config().host;
    let packet = packet(now, &id, source, &snapshot(bus), &events);
    Draft {
        id: Some(id),
        source: source.clone(),
        ..Draft::new(message_type::TELEMETRY, packet.encode_to_vec())
    }
}

/// How the host is.
fn snapshot(bus: &Bus) -> Snapshot {
    let status = bus.status();
    let latencies = &bus.metrics().latencies;
    let within = |stage, outcome: Option<&str>| {
        latencies.together(stage, bus.now(), Span::Minute, |series| {
            outcome.is_none_or(|outcome| series.outcome == outcome)
        })
    };
    let streams = status.streams.iter();
    let depths = streams.map(|stream| (stream_word(&stream.name), stream.depth));
    let oldest = status
        .streams
        .iter()
        .filter_map(|stream| stream.oldest_age_ms)
        .max();
    let store = if status.store.up { "up" } else { "down" };
    let mut indicators = vec![
        ("store".to_owned(), store.to_owned()),
        ("mode".to_owned(), status.mode.name().to_owned()),
        ("oldest_age_ms".to_owned(), oldest.unwrap_or(0).to_string()),
    ];
    let breakers = status.breakers.iter();
    indicators.extend(breakers.map(|it| (format!("breaker_{}", it.name), it.state.to_owned())));
    let policies = status.policies.iter();
    indicators.extend(policies.map(|policy| {
        let name = format!("policy_{}", policy.kind.name().replace('-', "_"));
        (name, policy.slot.version.to_string())
    }));
    let [publish_breaker, consume_breaker] = bus.breaker_states();
    Snapshot {
        counts: bus.counts(),
        depths: depths.collect(),
        publish: within(Stage::Publish, Some("accepted")),
        consume: within(Stage::Handler, None),
        publish_breaker,
        consume_breaker,
        audit: bus.metrics().audit.status().map(|found| Audit {
            picture: found.picture,
            rate: found.rate,
        }),
        conservative: status.mode == oona_core::policy::Mode::Conservative,
        ready: status.ready,
        reasons: status.reasons,
        indicators: indicators.into_iter().collect(),
    }
}
