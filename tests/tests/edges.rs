//! The edges of the real binary: HTTP, gRPC, command line, watched directory, signals.

#[path = "edges/input.rs"]
mod input;
#[path = "edges/policies.rs"]
mod policies;
#[path = "edges/process.rs"]
mod process;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use oona::proto::admin_client::AdminClient;
use oona::proto::bus_client::BusClient;
use oona::proto::publish_response::Outcome;
use oona::proto::subscribe_request::Request;
use oona::proto::subscribe_response::Response;
use oona::proto::{
    ActivatePolicyRequest, Credit, Extend, ListPoliciesRequest, Nack, Open, PublishRequest,
    StatusRequest, SubscribeRequest,
};
use oona_tests::binary::{Host, PATIENCE, command, text, wait_until};
use oona_tests::grpc::{Subscriber, connect};
use oona_tests::http::{get, get_openmetrics, post};
use prost::Message;
use serde_json::json;
use tempfile::TempDir;
use tonic::Code;
use tonic::transport::Channel;

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/x-protobuf";

fn dev() -> Host {
    Host::start(&["--dev"])
}

async fn bus(address: SocketAddr) -> BusClient<Channel> {
    BusClient::new(connect(address).await.expect("the port is open"))
}

async fn admin(address: SocketAddr) -> AdminClient<Channel> {
    AdminClient::new(connect(address).await.expect("the port is open"))
}

fn telemetry(sequence: u64, payload: &str) -> PublishRequest {
    PublishRequest {
        sequence,
        message_type: 4,
        source: "test".to_owned(),
        payload: payload.as_bytes().to_vec().into(),
        ..PublishRequest::default()
    }
}

#[test]
fn health_readiness_status_and_metrics_are_there() {
    let host = dev();
    let health = get(host.address, "/healthz");
    assert_eq!((health.status, health.text()), (200, "ok\n"));
    assert!(wait_until(|| get(host.address, "/readyz").status == 200));
    assert_eq!(get(host.address, "/readyz").json()["ready"], true);
    let status = get(host.address, "/v1/status").json();
    assert_eq!(status["store"]["name"], "memory");
    assert_eq!(status["store"]["durable"], false);
    let metrics = get_openmetrics(host.address);
    let content_type = metrics.header("content-type");
    assert_eq!(
        content_type,
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert!(metrics.text().contains("oona_build_info{version="));
    assert!(metrics.text().ends_with("# EOF\n"));
    let nowhere = get(host.address, "/nowhere");
    assert_eq!(nowhere.status, 404);
    assert!(
        nowhere
            .text()
            .starts_with("/nowhere is not served; see /v1/publish")
    );
}

#[tokio::test]
async fn what_is_published_in_any_form_is_delivered() {
    let host = dev();
    let address = host.address;
    let mut subscriber = Subscriber::group(address, "all", 16).await;

    let as_json = json!({
        "type": "telemetry", "priority": "normal", "source": "test", "payload": "as JSON",
        "attributes": { "colour": "blue" }, "ttl_ms": 60_000,
    });
    let answer = post(address, "/v1/publish", JSON, as_json.to_string().as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    assert_eq!(answer["outcome"], "accepted");
    assert_eq!(answer["stream"], "oona.telemetry");
    let delivery = subscriber.next().await;
    assert_eq!(delivery.payload, "as JSON");
    assert_eq!(delivery.stream, "oona.telemetry");
    assert_eq!(answer["id"], delivery.entry);
    assert_eq!(delivery.message_type, 4);
    assert_eq!(delivery.source, "test");
    assert_eq!(delivery.attributes["colour"], "blue");
    assert_eq!(
        (delivery.redelivered, delivery.attempt, delivery.deliveries),
        (false, 0, 1)
    );
    subscriber.ack(vec![delivery.id]).await;

    let base64 = json!({ "type": 4, "payload_base64": "/wA=" }).to_string();
    assert_eq!(
        post(address, "/v1/publish", JSON, base64.as_bytes()).status,
        200
    );
    let delivery = subscriber.next().await;
    assert_eq!(&delivery.payload[..], [0xff, 0]);

    let protobuf = telemetry(7, "as protobuf").encode_to_vec();
    let answer = post(address, "/v1/publish", PROTOBUF, &protobuf);
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some(PROTOBUF))
    );
    let response = oona::proto::PublishResponse::decode(&answer.body[..]).expect("a response");
    assert!(matches!(response.outcome, Some(Outcome::Accepted(_))));
    assert_eq!(subscriber.payload().await, "as protobuf");

    let response = bus(address).await.publish(telemetry(9, "over gRPC")).await;
    let response = response.expect("it answers").into_inner();
    assert_eq!(response.sequence, 9);
    assert!(matches!(response.outcome, Some(Outcome::Accepted(_))));
    assert_eq!(subscriber.payload().await, "over gRPC");

    let metrics = get(address, "/metrics");
    let counted = metrics.text().lines().any(|line| {
        line.starts_with("oona_publish_total{stream=\"oona.telemetry\",outcome=\"accepted\"")
    });
    assert!(counted, "{}", metrics.text());
}

#[tokio::test]
async fn a_stream_of_publishes_is_answered_and_keeps_its_order() {
    const COUNT: u64 = 5_000;
    // What is delivered is acknowledged when all of them have their outcome.
    let patient = [
        "consume.ack_deadline_ms=600000",
        "consume.claim_idle_ms=1200000",
    ];
    let host = Host::start(&["--dev", "--set", patient[0], "--set", patient[1]]);
    let mut subscriber = Subscriber::group(host.address, "all", u32::MAX).await;
    let requests = (0..COUNT).map(|n| telemetry(n, &n.to_string()));
    let responses = bus(host.address)
        .await
        .publish_stream(tokio_stream::iter(requests))
        .await;
    let mut responses = responses.expect("it is opened").into_inner();
    let mut sequences = Vec::new();
    while let Some(response) = responses.message().await.expect("the stream is whole") {
        assert!(
            matches!(response.outcome, Some(Outcome::Accepted(_))),
            "{response:?}"
        );
        sequences.push(response.sequence);
    }
    sequences.sort_unstable();
    assert_eq!(sequences, (0..COUNT).collect::<Vec<_>>());
    for n in 0..COUNT {
        assert_eq!(subscriber.payload().await, n.to_string());
    }
}

#[tokio::test]
async fn a_subscriber_gets_no_more_than_its_credit() {
    let host = dev();
    let mut subscriber = Subscriber::group(host.address, "slow", 2).await;
    let mut client = bus(host.address).await;
    for n in 0..5 {
        client
            .publish(telemetry(n, &n.to_string()))
            .await
            .expect("it answers");
    }
    let first = subscriber.next().await;
    let second = subscriber.next().await;
    // What no credit was given for does not come: an answer to something else does.
    subscriber.ack(vec![first.id, second.id, 4_711]).await;
    match subscriber.response().await {
        Some(Response::Lapsed(lapsed)) => assert_eq!(lapsed.delivery_ids, [4_711]),
        other => panic!("expected to hear of 4711, got {other:?}"),
    }
    subscriber
        .say(Request::Credit(Credit {
            messages: 3,
            bytes: 0,
        }))
        .await;
    for n in 2..5 {
        assert_eq!(subscriber.payload().await, n.to_string());
    }
}

#[tokio::test]
async fn what_is_not_acknowledged_comes_again_and_says_so() {
    let host = dev();
    let mut client = bus(host.address).await;
    client
        .publish(telemetry(0, "precious"))
        .await
        .expect("it answers");

    // Lost: the connection goes away.
    let mut lost = Subscriber::group(host.address, "workers", 1).await;
    let delivery = lost.next().await;
    lost.say(Request::Extend(Extend {
        delivery_id: delivery.id,
        by_ms: 600_000,
    }))
    .await;
    drop(lost);
    let mut next = Subscriber::group(host.address, "workers", 8).await;
    let delivery = next.next().await;
    assert_eq!(delivery.payload, "precious");
    assert!(delivery.redelivered);

    // Refused, to be tried at once.
    let nack = Nack {
        delivery_id: delivery.id,
        delay_ms: Some(1),
        reason: "not today".to_owned(),
        ..Nack::default()
    };
    next.say(Request::Nack(nack)).await;
    let delivery = next.next().await;
    assert_eq!(
        (&delivery.payload[..], delivery.redelivered),
        (&b"precious"[..], true)
    );
    assert!(delivery.attempt >= 1, "{delivery:?}");
    next.ack(vec![delivery.id]).await;

    // Another group sees it as new.
    let mut other = Subscriber::group(host.address, "audit", 8).await;
    assert!(!other.next().await.redelivered);
}
