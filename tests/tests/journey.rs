//! A message's journey, as `/debug/trace/{event id}` tells it: real hosts on a real Redis.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::SocketAddr;

use oona::proto::bus_client::BusClient;
use oona::proto::publish_response::Outcome;
use oona::proto::subscribe_request::Request;
use oona::proto::{Nack, PublishRequest};
use oona_tests::binary::{Host, command, text, wait_until};
use oona_tests::grpc::{Subscriber, connect};
use oona_tests::http::get;
use oona_tests::redis_server::RedisServer;
use serde_json::Value;
use tempfile::TempDir;

const TELEMETRY: u32 = 4;

async fn publish(address: SocketAddr, id: &str) -> Outcome {
    publish_under(address, id, "").await
}

async fn publish_under(address: SocketAddr, id: &str, key: &str) -> Outcome {
    let mut bus = BusClient::new(connect(address).await.unwrap());
    let request = PublishRequest {
        id: id.to_owned(),
        message_type: TELEMETRY,
        source: "test".to_owned(),
        key: key.to_owned(),
        payload: b"payload".to_vec().into(),
        ..PublishRequest::default()
    };
    let response = bus.publish(request).await.unwrap().into_inner();
    response.outcome.unwrap()
}

fn journey(address: SocketAddr, id: &str) -> Value {
    let answer = get(address, &format!("/debug/trace/{id}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// The steps of a journey: what happened, in which attempt.
fn steps(journey: &Value) -> Vec<(String, Option<u64>)> {
    let steps = journey["steps"].as_array().unwrap().iter();
    steps
        .map(|step| {
            let what = step["step"].as_str().unwrap().to_owned();
            (what, step["attempt"].as_u64())
        })
        .collect()
}

/// Waits until a journey ends with this step, and holds the steps to what is expected.
#[track_caller]
fn ends(address: SocketAddr, id: &str, expected: &[(&str, Option<u64>)]) -> Value {
    let expected: Vec<_> = expected
        .iter()
        .map(|(what, attempt)| ((*what).to_owned(), *attempt))
        .collect();
    let ended = wait_until(|| steps(&journey(address, id)).last() == expected.last());
    let journey = journey(address, id);
    assert!(ended, "{journey:#}");
    assert_eq!(steps(&journey), expected, "{journey:#}");
    let times = journey["steps"].as_array().unwrap().iter();
    let times: Vec<_> = times.map(|step| step["at_ms"].as_u64().unwrap()).collect();
    assert!(times.is_sorted(), "{journey:#}");
    assert!(times[0] > 1_700_000_000_000, "{journey:#}");
    journey
}

fn says(journey: &Value, words: &str) {
    let state = journey["state"].as_str().unwrap();
    assert!(state.contains(words), "`{words}` is not in {journey:#}");
}

async fn nack(subscriber: &Subscriber, delivery_id: u64, poison: bool) {
    let nack = Nack {
        delivery_id,
        poison,
        reason: "no room in the warehouse".to_owned(),
        ..Nack::default()
    };
    subscriber.say(Request::Nack(nack)).await;
}

const PUBLISHED: [(&str, Option<u64>); 4] = [
    ("publish", None),
    ("queue", None),
    ("policy", None),
    ("append", None),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_told_step_by_step() {
    let redis = RedisServer::start();
    let host = Host::start(&["--redis", &redis.url()]);
    let address = host.address;
    let mut subscriber = Subscriber::group(address, "workers", 10).await;
    assert!(matches!(
        publish(address, "order/7").await,
        Outcome::Accepted(_)
    ));
    let delivery = subscriber.next().await;
    nack(&subscriber, delivery.id, false).await;
    let again = subscriber.next().await;
    subscriber.ack(vec![again.id]).await;
    let after = [
        ("deliver", Some(1)),
        ("handler", Some(1)),
        ("nack", Some(1)),
        ("retry", Some(1)),
        ("deliver", Some(2)),
        ("handler", Some(2)),
        ("ack", Some(2)),
    ];
    let told = ends(address, "order/7", &[&PUBLISHED[..], &after].concat());
    assert_eq!(told["event_id"], "order/7");
    assert_eq!(told["from"], "this host");
    assert_eq!(told["stream"], "oona.telemetry");
    assert_eq!(told["entry"], again.entry.as_str());
    says(&told, "group `workers` has acknowledged it");
    let details = |step: usize| told["steps"][step]["detail"].as_str().unwrap();
    assert!(details(2).contains("routing@"), "{}", details(2));
    assert!(details(2).contains("backpressure@"), "{}", details(2));
    assert_eq!(details(6), "handler-error: no room in the warehouse");
    assert!(details(7).contains("dead-letter@"), "{}", details(7));
    for step in [1, 2, 3, 4, 5, 8, 9] {
        let took = told["steps"][step]["took_ms"].as_f64();
        assert!(took >= Some(0.0), "{step}: {told:#}");
    }
    assert_eq!(told["steps"][4]["group"], "workers");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_and_its_redrive_are_told() {
    let redis = RedisServer::start();
    let host = Host::start(&["--redis", &redis.url()]);
    let address = host.address;
    let mut subscriber = Subscriber::group(address, "workers", 10).await;
    publish(address, "lost").await;
    let delivery = subscriber.next().await;
    nack(&subscriber, delivery.id, true).await;
    let filed = [
        ("deliver", Some(1)),
        ("handler", Some(1)),
        ("nack", Some(1)),
        ("dead_letter", Some(1)),
    ];
    let filed = [&PUBLISHED[..], &filed].concat();
    let told = ends(address, "lost", &filed);
    says(&told, "it is a dead letter");
    // Who has seen nothing of it finds the letter in the store.
    let stranger = Host::start(&["--redis", &redis.url()]);
    let told = journey(stranger.address, "lost");
    assert_eq!(told["from"], "store");
    let seen = [
        ("append", None),
        ("fail", Some(1)),
        ("dead_letter", Some(1)),
    ];
    ends(stranger.address, "lost", &seen);
    says(&told, "it is a dead letter");
    let desk = TempDir::new().unwrap();
    let server = address.to_string();
    let redrive = ["dlq", "redrive", "--server", &server, "--event", "lost"];
    let redriven = command(&desk, &redrive).output().unwrap();
    assert!(redriven.status.success(), "{}", text(&redriven.stderr));
    let again = subscriber.next().await;
    subscriber.ack(vec![again.id]).await;
    let after = [
        ("redrive", None),
        ("deliver", Some(1)),
        ("handler", Some(1)),
        ("ack", Some(1)),
    ];
    let told = ends(address, "lost", &[&filed[..], &after].concat());
    says(&told, "group `workers` has acknowledged it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_is_told_with_the_reason() {
    let host = Host::start(&["--dev", "--set", "streams.length_max=1000"]);
    let mut refused = None;
    for number in 0..2_000 {
        let id = format!("event-{number}");
        if let Outcome::Rejected(_) = publish(host.address, &id).await {
            refused = Some(id);
            break;
        }
    }
    let refused = refused.expect("a full stream refuses");
    let steps = [
        ("publish", None),
        ("queue", None),
        ("policy", None),
        ("reject", None),
    ];
    let told = ends(host.address, &refused, &steps);
    says(&told, "it was not written: backpressure");
    assert_eq!(told["stream"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_a_limit_is_told_and_timed_as_well() {
    let host = Host::start(&["--dev"]);
    let long = "k".repeat(257);
    let refused = publish_under(host.address, "wide", &long).await;
    assert!(matches!(refused, Outcome::Rejected(_)), "{refused:?}");
    let told = ends(host.address, "wide", &[("publish", None), ("reject", None)]);
    says(&told, "it was not written: too-large");
    let exposition = get(host.address, "/metrics");
    let timed =
        r#"oona_publish_duration_seconds_count{stream="",priority="normal",outcome="rejected"} 1"#;
    assert!(exposition.text().contains(timed), "{}", exposition.text());
    // Nobody looks for what has no id that can be one.
    let nameless = publish_under(host.address, &"i".repeat(129), "").await;
    assert!(matches!(nameless, Outcome::Rejected(_)), "{nameless:?}");
    let sought = format!("/debug/trace/{}", "i".repeat(129));
    assert_ne!(get(host.address, &sought).status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_host_tells_what_it_has_seen_and_the_store_what_it_knows() {
    let redis = RedisServer::start();
    let url = redis.url();
    let [publishing, delivering, idle] = [0; 3].map(|_| Host::start(&["--redis", &url]));
    publish(publishing.address, "shared").await;
    let told = ends(publishing.address, "shared", &PUBLISHED);
    assert!(
        !told["state"].as_str().unwrap().contains("workers"),
        "{told:#}"
    );
    let mut subscriber = Subscriber::group(delivering.address, "workers", 10).await;
    let delivery = subscriber.next().await;
    let told = ends(publishing.address, "shared", &PUBLISHED);
    says(&told, "group `workers` holds it on another host");
    subscriber.ack(vec![delivery.id]).await;
    let seen = [
        ("append", None),
        ("deliver", Some(1)),
        ("handler", Some(1)),
        ("ack", Some(1)),
    ];
    let told = ends(delivering.address, "shared", &seen);
    assert_eq!(told["from"], "this host");
    let told = ends(publishing.address, "shared", &PUBLISHED);
    says(&told, "group `workers` has settled it on another host");
    let told = ends(idle.address, "shared", &[("append", None)]);
    assert_eq!(told["from"], "store");
    assert_eq!(told["entry"], delivery.entry.as_str());
    says(&told, "group `workers` has settled it on another host");
    // An id that a host made is found by the time in it.
    publish(publishing.address, "").await;
    let delivery = subscriber.next().await;
    let told = ends(idle.address, &delivery.message_id, &[("append", None)]);
    assert_eq!(told["from"], "store");
    says(&told, "group `workers` holds it on another host");
}

#[test]
fn who_is_unknown_is_told_where_else_to_look() {
    let host = Host::start(&["--dev"]);
    let answer = get(host.address, "/debug/trace/nobody");
    assert_eq!(answer.status, 404);
    for words in [
        "nobody",
        "tracing.journeys_max",
        "oona dlq list",
        "messaging.message.id",
    ] {
        assert!(answer.text().contains(words), "{}", answer.text());
    }
}
