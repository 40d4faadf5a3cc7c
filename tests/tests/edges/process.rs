//! The process: its command line, its port file, its signals.

use super::*;

#[test]
fn the_command_line_publishes_and_subscribes() {
    let host = dev();
    let directory = TempDir::new().expect("a temporary directory");
    let server = host.address.to_string();
    let oona = |arguments: &[&str]| {
        let mut command = command(&directory, arguments);
        let output = command
            .env("OONA_ADDRESS", &server)
            .output()
            .expect("the binary starts");
        (
            output.status.code(),
            text(&output.stdout).to_owned(),
            text(&output.stderr).to_owned(),
        )
    };
    let lines = |text: &str| -> Vec<serde_json::Value> {
        text.lines()
            .map(|line| serde_json::from_str(line).expect("a line is JSON"))
            .collect()
    };

    let (code, out, err) = oona(&["publish", "hello", "--attr", "a=b", "--output", "json"]);
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(lines(&out)[0]["outcome"], "accepted");
    let (code, out, _) = oona(&["publish", "urgent", "--priority", "critical"]);
    assert_eq!(code, Some(0));
    assert!(out.starts_with("accepted: oona.emergency "), "{out}");

    let (code, out, err) = oona(&["subscribe", "--count", "2", "--output", "json"]);
    assert_eq!(code, Some(0), "{err}");
    let mut payloads: Vec<_> = lines(&out)
        .iter()
        .map(|line| line["payload"].clone())
        .collect();
    payloads.sort_by_key(ToString::to_string);
    assert_eq!(payloads, ["hello", "urgent"]);
    let hello = lines(&out)
        .into_iter()
        .find(|line| line["payload"] == "hello");
    let hello = hello.expect("it was printed");
    assert_eq!(hello["type"], "telemetry");
    assert_eq!(hello["attributes"]["a"], "b");

    // They were acknowledged: what comes next is new.
    let (code, out, _) = oona(&["publish", "again", "--count", "300", "--output", "json"]);
    assert_eq!(code, Some(0));
    assert_eq!(lines(&out)[0]["accepted"], 300);
    let (code, out, err) = oona(&["subscribe", "--count", "300"]);
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(out.lines().count(), 300);
    assert!(out.lines().all(|line| line.ends_with(": again")), "{out}");

    let too_long = "k".repeat(300);
    let (code, out, _) = oona(&["publish", "x", "--key", &too_long]);
    assert_eq!(code, Some(1));
    assert_eq!(
        out,
        "rejected: too-large: the ordering key (bytes) is 300, and the limit is 256\n"
    );

    let (code, out, _) = oona(&["policy", "list", "--output", "json"]);
    assert_eq!(code, Some(0));
    let kinds: Vec<_> = lines(&out)[0]["policies"]
        .as_array()
        .map_or(Vec::new(), |policies| {
            policies
                .iter()
                .map(|policy| policy["kind"].clone())
                .collect()
        });
    assert_eq!(
        kinds,
        ["routing", "backpressure", "freshness", "dead-letter"]
    );
}

#[test]
fn the_port_file_holds_the_address_while_the_host_runs() {
    let directory = TempDir::new().expect("a temporary directory");
    let path = directory.path().join("port");
    let mut host = Host::start(&["--dev", "--port-file", path.to_str().expect("a plain path")]);
    let address = fs::read_to_string(&path).expect("it is written before the address is told");
    assert_eq!(address, format!("{}\n", host.address));
    host.signal("INT");
    assert_eq!(host.wait().code(), Some(0), "{}", host.log());
    assert!(!path.exists());
}

#[test]
fn a_store_that_is_down_at_start_is_waited_for() {
    let host = Host::start(&["--redis", "redis://user:hunter2@127.0.0.1:1"]);
    assert_eq!(get(host.address, "/healthz").status, 200);
    let readiness = get(host.address, "/readyz");
    assert_eq!(readiness.status, 503);
    let reasons = readiness.json()["reasons"].to_string();
    assert!(
        reasons.contains("store at 127.0.0.1:1 does not answer"),
        "{reasons}"
    );
    let body = json!({ "type": "telemetry", "payload": "x" }).to_string();
    let answer = post(host.address, "/v1/publish", JSON, body.as_bytes());
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.json()["cause"], "unavailable");
    assert!(
        answer.json()["retry_after_ms"].is_u64(),
        "{}",
        answer.text()
    );
    assert!(answer.header("retry-after").is_some(), "{}", answer.headers);
    assert!(!host.log().contains("hunter2"), "{}", host.log());
}

/// The components that `make policies` builds.
#[tokio::test]
async fn the_first_signal_lets_work_be_finished() {
    let mut host = dev();
    let mut subscriber = Subscriber::group(host.address, "workers", 4).await;
    bus(host.address)
        .await
        .publish(telemetry(0, "in hand"))
        .await
        .expect("it answers");
    let delivery = subscriber.next().await;
    host.signal("TERM");
    host.wait_for_log("shutting down");
    // What is in hand can still be acknowledged; then the stream ends, and the host with it.
    subscriber.ack(vec![delivery.id]).await;
    let status = subscriber.broken().await;
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    drop(subscriber);
    assert_eq!(host.wait().code(), Some(0), "{}", host.log());
}

#[tokio::test]
async fn the_second_signal_ends_the_host_at_once() {
    let mut host = Host::start(&["--dev", "--set", "server.drain_ms=600000"]);
    let mut subscriber = Subscriber::group(host.address, "workers", 4).await;
    bus(host.address)
        .await
        .publish(telemetry(0, "in hand"))
        .await
        .expect("it answers");
    let delivery = subscriber.next().await;
    assert_eq!(delivery.payload, "in hand");
    host.signal("TERM");
    host.wait_for_log("shutting down");
    host.signal("INT");
    assert_eq!(host.wait().code(), Some(130), "{}", host.log());
}
