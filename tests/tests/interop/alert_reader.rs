//! The predecessor's alert reader, on what a host tells of itself: `oona.queue.depth` over 4000 at so many
//! packets in a row fires, under 1000 it is over.

use oona::proto::PublishRequest;
use oona_core::envelope::message_type::FIELD_REPORT;
use oona_tests::grpc::Subscriber;
use serde_json::json;
use tokio::task::JoinSet;

use super::{Bus, publish};

const MESSAGES: usize = 4_100;

#[tokio::test(flavor = "multi_thread")]
async fn the_predecessors_alert_reader_fires_and_clears() {
    let bus = Bus::start(&[
        "telemetry.interval_ms=100",
        "alerts.look_ms=50",
        "alerts.looks=2",
        // The mode would keep the stream from being filled.
        "conservative.high_water=1000000",
        "policies.allow_unsigned=true",
    ]);
    bus.peer.join("oona.telemetry", "alerts");
    bus.peer.join("oona.normal", "workers");
    let mut publishing = JoinSet::new();
    for producer in 0..20 {
        let mut client = bus.client().await;
        publishing.spawn(async move {
            for number in 0..MESSAGES / 20 {
                let request = PublishRequest {
                    message_type: FIELD_REPORT,
                    payload: format!("{producer} {number}").into_bytes().into(),
                    ..PublishRequest::default()
                };
                assert_eq!(publish(&mut client, request).await, "oona.normal");
            }
        });
    }
    publishing.join_all().await;
    let follow = |until: &str| {
        let told = bus.peer.told(&json!({
            "do": "follow_alert", "stream": "oona.telemetry", "group": "alerts", "name": "oona.queue.depth",
            "over": 4_000, "under": 1_000, "count": 3, "until": until,
        }));
        let event = if until == "fired" {
            "alert_fired"
        } else {
            "alert_cleared"
        };
        (
            told["value"].as_f64().unwrap(),
            told["events"].to_string().contains(event),
        )
    };
    let (depth, told) = follow("fired");
    assert!(depth > 4_000.0, "{depth}");
    // The host's own alert has the same limits, and is told by an event.
    assert!(told, "the host tells of its alert too");
    let mut workers = Subscriber::group(bus.host.address, "workers", 20_000).await;
    let mut handled = 0;
    while handled < MESSAGES {
        let delivery = workers.next().await;
        handled += usize::from(delivery.stream == "oona.normal");
        workers.ack(vec![delivery.id]).await;
    }
    let (depth, told) = follow("cleared");
    assert!(depth < 1_000.0, "{depth}");
    assert!(told, "the host tells that its alert is over");
}
