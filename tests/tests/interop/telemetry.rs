//! What a host tells of itself on the bus, read by somebody else.

use oona::proto::PublishRequest;
use oona_core::envelope::message_type::{FIELD_REPORT, KERNEL_PREFETCH_REQUEST, TELEMETRY};
use oona_tests::binary::command;
use serde_json::Value;
use tempfile::TempDir;

use super::{Bus, publish};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_host_tells_of_itself_a_peer_reads() {
    let bus = Bus::start(&[
        "telemetry.interval_ms=100",
        "server.host=first",
        "policies.allow_unsigned=true",
    ]);
    bus.peer.join("oona.telemetry", "watchers");
    let mut client = bus.client().await;
    for message_type in [FIELD_REPORT, KERNEL_PREFETCH_REQUEST] {
        let request = PublishRequest {
            message_type,
            ..PublishRequest::default()
        };
        publish(&mut client, request).await;
    }
    let directory = TempDir::new().unwrap();
    let address = bus.host.address.to_string();
    let force = ["mode", "conservative", "--server", &address];
    let forced = command(&directory, &force).output().unwrap();
    assert!(forced.status.success(), "{forced:?}");
    let mut told: Vec<Value> = Vec::new();
    let happened = |told: &[Value], name: &str| {
        let mut told = told.iter();
        told.any(|event| event["attributes"]["name"] == name)
    };
    // What happened is in the packet after it, which may be another than that of the new health.
    let packet = loop {
        let entry = bus.peer.read("oona.telemetry", "watchers");
        assert_eq!(
            (&entry["verified"], &entry["type"]),
            (&true.into(), &TELEMETRY.into())
        );
        let packet = entry["message"].clone();
        told.extend(packet["events"].as_array().into_iter().flatten().cloned());
        let degraded = packet["system_health"]["status"] == "HEALTH_STATUS_DEGRADED";
        if degraded && happened(&told, "mode") {
            break packet;
        }
    };
    assert_eq!(packet["source_subsystem"], "first");
    let health = &packet["system_health"];
    assert!(
        health["summary"]
            .as_str()
            .unwrap()
            .starts_with("conservative mode"),
        "{health}"
    );
    assert_eq!(health["indicators"]["mode"], "conservative");
    assert_eq!(health["indicators"]["store"], "up");
    let value = |name: &str| {
        let mut metrics = packet["metrics"].as_array().unwrap().iter();
        let metric = metrics.find(|metric| metric["name"] == format!("oona.{name}"));
        // What is zero is left out on the wire.
        metric.map(|metric| metric["value"].as_f64().unwrap_or(0.0))
    };
    assert!(value("publish_total") >= Some(2.0), "{packet}");
    assert_eq!(value("conservative_mode"), Some(1.0));
    assert_eq!(value("publish_breaker_state"), Some(1.0));
    assert!(value("publish_latency_ms_p95") > Some(0.0), "{packet}");
    for name in [
        "queue.depth",
        "queue_depth_kernel_requests",
        "dead_letter_total",
    ] {
        assert!(value(name).is_some(), "no {name} in {packet}");
    }
    assert!(happened(&told, "policy_activated"), "{told:?}");
}
