//! Alerts and objectives from outside: the real binary, and whoever is told.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use oona::proto::PublishRequest;
use oona::proto::bus_client::BusClient;
use oona_core::leyline::TelemetryPacket;
use oona_tests::binary::{Host, PATIENCE, command, wait_until};
use oona_tests::grpc::{Subscriber, connect};
use oona_tests::http::get;
use oona_tests::redis_server::RedisServer;
use oona_tests::{policies, stand};
use prost::Message as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

const TELEMETRY: u32 = 4;

/// An address that takes notices, and what it was told. The first attempt it refuses.
async fn listener() -> (SocketAddr, mpsc::Receiver<Value>) {
    let (told, notices) = mpsc::channel(64);
    let attempts = Arc::new(AtomicU32::new(0));
    let take = move |body: Bytes| async move {
        if attempts.fetch_add(1, Ordering::Relaxed) == 0 {
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        told.send(serde_json::from_slice(&body).unwrap())
            .await
            .unwrap();
        StatusCode::NO_CONTENT
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/hunter2", post(take));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, notices)
}

async fn publish(host: &Host, count: u32) {
    let mut bus = BusClient::new(connect(host.address).await.unwrap());
    for _ in 0..count {
        let request = PublishRequest {
            message_type: TELEMETRY,
            source: "test".to_owned(),
            ..PublishRequest::default()
        };
        bus.publish(request).await.unwrap();
    }
}

fn alert(address: SocketAddr, name: &str, subject: &str) -> Option<Value> {
    let answer = get(address, "/v1/alerts").json();
    let mut alerts = answer["alerts"].as_array().unwrap().iter();
    let found = alerts.find(|it| it["name"] == name && it["subject"] == subject);
    found.cloned()
}

fn is(address: SocketAddr, state: &str) -> bool {
    alert_is(address, "queue_depth", "oona.telemetry", state)
}

fn alert_is(address: SocketAddr, name: &str, subject: &str, state: &str) -> bool {
    alert(address, name, subject).is_some_and(|alert| alert["state"] == state)
}

/// Waits until an alert is so; answers why.
#[track_caller]
fn wait_for_alert(address: SocketAddr, name: &str, subject: &str, state: &str) -> String {
    assert!(
        wait_until(|| alert_is(address, name, subject, state)),
        "{name} of {subject} is not {state}: {}",
        get(address, "/v1/alerts").text()
    );
    let alert = alert(address, name, subject).unwrap();
    alert["reason"].as_str().unwrap().to_owned()
}

/// A host that looks often, with these arguments and settings.
fn watchful(arguments: &[&str], settings: &[&str]) -> Host {
    let looks = ["alerts.look_ms=10", "alerts.looks=2"];
    let settings = looks.iter().chain(settings);
    let settings = settings.flat_map(|setting| ["--set", setting]);
    let arguments: Vec<_> = arguments.iter().copied().chain(settings).collect();
    Host::start(&arguments)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_fires_and_is_over_wherever_it_is_told() {
    let (webhook, mut notices) = listener().await;
    let url = format!("alerts.webhook_url=http://{webhook}/hunter2");
    let mut arguments = vec!["--dev", "--set", &url];
    for setting in [
        "alerts.look_ms=10",
        "alerts.looks=3",
        "alerts.depth=3",
        "alerts.depth_clear=1",
    ] {
        arguments.extend(["--set", setting]);
    }
    let host = Host::start(&arguments);
    let address = host.address;
    assert!(wait_until(|| is(address, "ok")));
    publish(&host, 4).await;
    assert!(
        wait_until(|| is(address, "firing")),
        "{}",
        get(address, "/v1/alerts").text()
    );
    let alert = alert(address, "queue_depth", "oona.telemetry").unwrap();
    assert_eq!(
        (&alert["value"], &alert["threshold"]),
        (&json!(4.0), &json!(3.0))
    );
    assert_eq!(
        (&alert["severity"], &alert["unit"]),
        (&json!("page"), &json!("messages"))
    );
    assert!(alert["since_ms"].as_u64() > Some(0), "{alert}");
    let gauge =
        r#"oona_alert_firing{alert="queue_depth",subject="oona.telemetry",severity="page"}"#;
    let counter = r#"oona_alert_fired_total{alert="queue_depth",subject="oona.telemetry"}"#;
    let exposed = |line: String| get(address, "/metrics").text().lines().any(|it| it == line);
    assert!(
        exposed(format!("{gauge} 1.0")),
        "{}",
        get(address, "/metrics").text()
    );
    assert!(exposed(format!("{counter} 1")));
    let directory = TempDir::new().unwrap();
    let top = ["top", "--once", "--server", &address.to_string()];
    let top = command(&directory, &top).output().unwrap();
    let top = String::from_utf8(top.stdout).unwrap();
    assert!(top.contains("alert: queue_depth oona.telemetry"), "{top}");
    // It was told, though the first attempt had failed.
    let notice = tokio::time::timeout(PATIENCE, notices.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(notice["what"], "fired");
    for field in [
        "name",
        "subject",
        "severity",
        "value",
        "threshold",
        "unit",
        "reason",
        "advice",
    ] {
        assert_eq!(notice[field], alert[field], "{field}");
    }
    let mut subscriber = Subscriber::group(address, "workers", 100).await;
    for _ in 0..4 {
        let delivery = subscriber.next().await;
        subscriber.ack(vec![delivery.id]).await;
    }
    assert!(
        wait_until(|| is(address, "ok")),
        "{}",
        get(address, "/v1/alerts").text()
    );
    let notice = tokio::time::timeout(PATIENCE, notices.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (&notice["what"], &notice["name"]),
        (&json!("cleared"), &json!("queue_depth"))
    );
    let recent = get(address, "/v1/alerts").json()["recent"].clone();
    assert_eq!(
        (&recent[0]["what"], &recent[1]["what"]),
        (&json!("cleared"), &json!("fired"))
    );
    assert!(wait_until(|| exposed(
        r#"oona_alert_notices_total{outcome="sent"} 2"#.to_owned()
    )));
    host.wait_for_log("the webhook was not told");
    assert!(!host.log().contains("hunter2"), "{}", host.log());
}

#[test]
fn a_budget_that_is_nearly_spent_makes_the_bus_shed_load() {
    let redis = RedisServer::down();
    let url = redis.url();
    let mut arguments = vec!["--redis", &url];
    for setting in [
        "alerts.look_ms=10",
        "objectives.shed_for=recovery",
        "objectives.recovery_ms=0",
        "objectives.events_min=3",
        "objectives.shed_after_ms=100",
        "policies.allow_unsigned=true",
    ] {
        arguments.extend(["--set", setting]);
    }
    let host = Host::start(&arguments);
    let mode = || get(host.address, "/v1/status").json()["mode_status"].clone();
    let sheds = || mode()["mode"] == "conservative" && mode()["reason"] == "budget-low";
    assert!(wait_until(sheds), "{}", mode());
    let counter = r#"oona_conservative_transitions_total{to="conservative",reason="budget-low"} 1"#;
    let exposition = get(host.address, "/metrics");
    assert!(
        exposition.text().lines().any(|line| line == counter),
        "{}",
        exposition.text()
    );
    let answer = get(host.address, "/v1/alerts").json();
    let mut objectives = answer["objectives"].as_array().unwrap().iter();
    let recovery = objectives.find(|it| it["name"] == "recovery").unwrap();
    assert!(recovery["budget_left"].as_f64() < Some(0.1), "{recovery}");
    assert_eq!(recovery["burn"][0]["window"], "5m");
    assert!(
        recovery["burn"][0]["rate"].as_f64() > Some(1.0),
        "{recovery}"
    );
}

#[test]
fn a_breaker_that_somebody_opens_fires_until_it_is_released() {
    let host = watchful(&["--dev"], &[]);
    let address = host.address;
    wait_for_alert(address, "breaker_open", "publish", "ok");
    stand::ask(&host, &["breaker", "open", "publish"]);
    let reason = wait_for_alert(address, "breaker_open", "publish", "firing");
    assert_eq!(reason, "the publish breaker is open (forced)");
    wait_for_alert(address, "breaker_open", "consume", "ok");
    stand::ask(&host, &["breaker", "release", "publish"]);
    let reason = wait_for_alert(address, "breaker_open", "publish", "ok");
    assert!(
        reason.starts_with("the publish breaker is closed"),
        "{reason}"
    );
    let recent = get(address, "/v1/alerts").json()["recent"].clone();
    let told = |index: usize| {
        let happened = &recent[index];
        ["name", "subject", "what"].map(|field| happened[field].as_str().unwrap().to_owned())
    };
    assert_eq!(told(0), ["breaker_open", "publish", "cleared"]);
    assert_eq!(told(1), ["breaker_open", "publish", "fired"]);
}

#[test]
fn a_host_says_at_its_start_which_alerts_can_never_fire() {
    let host = watchful(&["--dev"], &["objectives.publish_percent=90"]);
    host.wait_for_log("budget_burn_fast of publish_latency over 1h and 5m can never fire");
    host.wait_for_log("see objectives.publish_percent and objectives.period_ms");
    assert!(
        !host.log().contains("of delivery_latency over"),
        "{}",
        host.log()
    );
}

#[test]
fn a_policy_that_does_not_start_fires_until_another_is_chosen() {
    let directory = TempDir::new().unwrap();
    let broken = directory.path().join("broken.wasm");
    fs::write(&broken, "no component").unwrap();
    let file = format!("policies.routing.file={}", broken.display());
    let host = watchful(&["--dev"], &[&file]);
    let address = host.address;
    let reason = wait_for_alert(address, "stale_policy", "routing", "firing");
    assert!(
        reason.starts_with("the routing policy did not start:") && reason.contains("broken.wasm"),
        "{reason}"
    );
    wait_for_alert(address, "stale_policy", "freshness", "ok");
    let working = policies::directory().join("routing.wasm");
    stand::ask(&host, &["policy", "activate", working.to_str().unwrap()]);
    wait_for_alert(address, "stale_policy", "routing", "ok");
}

#[test]
fn a_registry_that_cannot_be_read_fires_until_it_can() {
    let mut redis = RedisServer::start();
    let url = redis.url();
    let settings = [
        "policies.allow_unsigned=true",
        "registry.poll_ms=20",
        "alerts.registry_behind_ms=2000",
    ];
    let host = watchful(&["--redis", &url], &settings);
    let address = host.address;
    wait_for_alert(address, "stale_policy", "registry", "ok");
    redis.kill();
    let reason = wait_for_alert(address, "stale_policy", "registry", "firing");
    assert!(reason.contains("the registry of policies"), "{reason}");
    redis.restart();
    wait_for_alert(address, "stale_policy", "registry", "ok");
}

/// How often a host says that publishes were refused since its breaker is open.
fn refused_by_breaker(address: SocketAddr) -> u64 {
    let series = r#"oona_publish_total{stream="",outcome="rejected",reason="breaker-open"} "#;
    let exposition = get(address, "/metrics");
    let mut lines = exposition.text().lines();
    let count = lines.find_map(|line| line.strip_prefix(series)?.parse().ok());
    count.unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_while_the_store_is_away_is_told_once_it_is_back() {
    let mut redis = RedisServer::start();
    let url = redis.url();
    let settings = [
        "telemetry.interval_ms=20",
        "breaker.failures=1",
        "breaker.open_ms=2000",
        "policies.allow_unsigned=true",
    ];
    let host = watchful(&["--redis", &url], &settings);
    let address = host.address;
    assert!(wait_until(|| get(address, "/readyz").status == 200));
    let mut subscriber = Subscriber::group(address, "watchers", 100).await;
    redis.kill();
    // The first packet after the opening had it, and was refused; so was the second.
    assert!(
        wait_until(|| refused_by_breaker(address) >= 2),
        "{}",
        get(address, "/metrics").text()
    );
    redis.restart();
    let mut told = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let delivery = subscriber.next().await;
        subscriber.ack(vec![delivery.id]).await;
        let packet = TelemetryPacket::decode(&*delivery.payload).unwrap();
        told.extend(packet.events.into_iter().map(|event| event.description));
        let opening = "the publish breaker is open (failures), it was closed";
        if told.iter().any(|event| event == opening) {
            break;
        }
        assert!(Instant::now() < deadline, "{told:#?}");
    }
}

/// Good looks of the objective `recovery`, and bad ones.
fn recovery(address: SocketAddr) -> (u64, u64) {
    let answer = get(address, "/v1/alerts").json();
    let mut objectives = answer["objectives"].as_array().unwrap().iter();
    let recovery = objectives.find(|it| it["name"] == "recovery");
    let count = |name| recovery.and_then(|it| it[name].as_u64()).unwrap_or(0);
    (count("good"), count("total") - count("good"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_that_is_not_worked_off_in_time_is_an_outage() {
    let settings = [
        "conservative.high_water=4",
        "conservative.low_water=2",
        "objectives.recovery_ms=0",
    ];
    let host = watchful(&["--dev"], &settings);
    let address = host.address;
    assert!(wait_until(|| get(address, "/readyz").status == 200));
    let (good, _) = recovery(address);
    assert!(wait_until(|| recovery(address).0 > good));
    let bad = || recovery(address).1;
    let before = bad();
    publish(&host, 4).await;
    assert!(
        wait_until(|| bad() > before),
        "{}",
        get(address, "/v1/alerts").text()
    );
    // Between the waters it goes on.
    let mut subscriber = Subscriber::group(address, "workers", 100).await;
    for _ in 0..2 {
        let delivery = subscriber.next().await;
        subscriber.ack(vec![delivery.id]).await;
    }
    let depth = || {
        let alert = alert(address, "queue_depth", "oona.telemetry");
        alert.and_then(|it| it["value"].as_f64())
    };
    assert!(wait_until(|| depth() == Some(2.0)));
    let before = bad();
    assert!(wait_until(|| bad() > before));
    let delivery = subscriber.next().await;
    subscriber.ack(vec![delivery.id]).await;
    assert!(wait_until(|| depth() == Some(1.0)));
    let (good, _) = recovery(address);
    assert!(wait_until(|| recovery(address).0 > good));
}

/// The check of `/readyz` with this name.
fn check(address: SocketAddr, name: &str) -> Value {
    let answer = get(address, "/readyz").json();
    let mut checks = answer["checks"].as_array().unwrap().iter();
    checks.find(|check| check["name"] == name).unwrap().clone()
}

fn signal(redis: &RedisServer, name: &str) {
    let id = redis.id().unwrap().to_string();
    let sent = Command::new("kill").args(["-s", name, &id]).status();
    assert!(sent.unwrap().success());
}

#[test]
fn a_host_is_alive_and_says_what_is_wrong_while_redis_stands_still() {
    let redis = RedisServer::start();
    let url = redis.url();
    let host = Host::start(&["--redis", &url, "--set", "policies.allow_unsigned=true"]);
    let address = host.address;
    assert!(wait_until(|| get(address, "/readyz").status == 200));
    let answer = get(address, "/readyz").json();
    let checks = answer["checks"].as_array().unwrap().iter();
    let names: Vec<_> = checks
        .clone()
        .map(|check| check["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["store", "breakers", "mode", "depth", "policies"]);
    for check in checks {
        assert_eq!(check["ok"], true, "{check}");
        assert!(!check["reason"].as_str().unwrap().is_empty(), "{check}");
    }
    signal(&redis, "STOP");
    assert!(wait_until(|| get(address, "/readyz").status == 503));
    assert_eq!(get(address, "/healthz").text(), "ok\n");
    let store = check(address, "store");
    assert_eq!(store["ok"], false);
    assert!(
        store["reason"]
            .as_str()
            .unwrap()
            .contains("does not answer"),
        "{store}"
    );
    assert_eq!(get(address, "/v1/alerts").status, 200);
    signal(&redis, "CONT");
    assert!(wait_until(|| get(address, "/readyz").status == 200));
    assert_eq!(check(address, "store")["ok"], true);
}

/// Sends a publish; its answer is not waited for.
fn begin_publish(address: SocketAddr) -> TcpStream {
    let body = r#"{"type":"telemetry"}"#;
    let length = body.len();
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST /v1/publish HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {length}"
    );
    write!(stream, "{head}\r\n\r\n{body}").unwrap();
    stream
}

/// Whether nothing of an answer has come yet.
fn is_pending(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let came = stream.peek(&mut [0]);
    came.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn liveness_is_told_before_a_publish_that_waits_for_a_store_that_stands_still() {
    let redis = RedisServer::start();
    let url = redis.url();
    let mut arguments = vec!["--redis", &url];
    // An open breaker would refuse the publish at once.
    for setting in ["policies.allow_unsigned=true", "breaker.failures=1000"] {
        arguments.extend(["--set", setting]);
    }
    let host = Host::start(&arguments);
    let address = host.address;
    assert!(wait_until(|| get(address, "/readyz").status == 200));
    let mut answered = begin_publish(address);
    answered.read_exact(&mut [0; 12]).unwrap();
    signal(&redis, "STOP");
    // The publish was sent first: an answer that waits for the store comes after its. A host that gives the store up
    // meanwhile, because the machine is slow, is asked again.
    let lives_meanwhile = || {
        let publish = begin_publish(address);
        for _ in 0..20 {
            assert_eq!(get(address, "/healthz").text(), "ok\n");
        }
        is_pending(&publish)
    };
    assert!(wait_until(lives_meanwhile));
    signal(&redis, "CONT");
}

#[test]
fn each_check_says_why() {
    let host = Host::start(&["--dev"]);
    let address = host.address;
    assert!(wait_until(|| get(address, "/readyz").status == 200));
    let directory = TempDir::new().unwrap();
    let server = address.to_string();
    let tell = |arguments: &[&str]| {
        let arguments: Vec<_> = arguments
            .iter()
            .copied()
            .chain(["--server", &server])
            .collect();
        let output = command(&directory, &arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    tell(&["mode", "conservative"]);
    let mode = check(address, "mode");
    assert_eq!(mode["ok"], false);
    assert!(
        mode["reason"]
            .as_str()
            .unwrap()
            .starts_with("conservative mode (forced by"),
        "{mode}"
    );
    assert_eq!(get(address, "/readyz").status, 200, "it does its work");
    tell(&["breaker", "open", "publish"]);
    let breakers = check(address, "breakers");
    assert_eq!(breakers["ok"], false);
    assert!(
        breakers["reason"]
            .as_str()
            .unwrap()
            .starts_with("the publish breaker is open (forced by"),
        "{breakers}"
    );
    assert_eq!(get(address, "/readyz").status, 503);
}
