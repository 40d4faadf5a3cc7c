//! `oona top`, from outside: the real binary beside a real host.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::SocketAddr;
use std::process::{Command, Output};

use oona::proto::bus_client::BusClient;
use oona::proto::publish_response::Outcome;
use oona::proto::subscribe_request::Request;
use oona::proto::{Nack, OverviewRequest, PublishRequest, admin_client::AdminClient};
use oona_tests::binary::{Host, command, run, text, wait_until};
use oona_tests::grpc::{Subscriber, connect};
use oona_tests::http::get;
use oona_tests::terminal::{Terminal, ended};
use serde_json::Value;
use tempfile::TempDir;
use tonic::Code;

const TELEMETRY: u32 = 4;

/// What a terminal is told to keep what it shows for later.
const ENTER_SCREEN: &str = "\u{1b}[?1049h";

/// What a terminal is told to show that again.
const LEAVE_SCREEN: &str = "\u{1b}[?1049l";

const SHOW_CURSOR: &str = "\u{1b}[?25h";

async fn publish(address: SocketAddr, payload: &str) {
    let mut bus = BusClient::new(connect(address).await.unwrap());
    let request = PublishRequest {
        message_type: TELEMETRY,
        source: "test".to_owned(),
        payload: payload.as_bytes().to_vec().into(),
        ..PublishRequest::default()
    };
    let response = bus.publish(request).await.unwrap().into_inner();
    assert!(matches!(response.outcome, Some(Outcome::Accepted(_))));
}

fn top(address: SocketAddr, arguments: &[&str]) -> Output {
    let address = address.to_string();
    let all = ["top", "--server", &address];
    let output = run(&[&all, arguments].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    output
}

fn frame(address: SocketAddr) -> String {
    text(&top(address, &["--once"]).stdout).to_owned()
}

fn json(address: SocketAddr) -> Value {
    let output = top(address, &["--once", "--output", "json"]);
    let lines: Vec<_> = text(&output.stdout).lines().collect();
    assert_eq!(lines.len(), 1, "one object a line");
    serde_json::from_str(lines[0]).unwrap()
}

/// The line of a frame that tells of a stream, in words.
fn told<'a>(frame: &'a str, stream: &str) -> Vec<&'a str> {
    let lines = frame.lines().map(|line| line.split_whitespace().collect());
    let mut lines = lines.filter(|words: &Vec<_>| words.contains(&stream));
    lines
        .next()
        .unwrap_or_else(|| panic!("no {stream} in\n{frame}"))
}

/// How many messages `/metrics` says were accepted.
fn exposed(address: SocketAddr) -> f64 {
    let exposition = get(address, "/metrics");
    let lines = exposition.text().lines();
    let name = "oona_publish_duration_seconds_count{";
    let lines = lines.filter(|line| line.starts_with(name) && line.contains("accepted"));
    lines
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

/// How many messages a list of latencies says were accepted.
fn accepted(latencies: &Value) -> u64 {
    let series = latencies.as_array().unwrap().iter();
    let published = series.filter(|series| series["stage"] == "publish");
    let accepted = published.filter(|series| series["outcome"] == "accepted");
    accepted
        .map(|series| series["count"].as_u64().unwrap())
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_shows_streams_groups_and_how_old_the_oldest_message_is() {
    let host = Host::start(&["--dev"]);
    let address = host.address;
    let mut subscriber = Subscriber::group(address, "workers", 1).await;
    for number in 0..3 {
        publish(address, &number.to_string()).await;
    }
    // It is delivered, and nobody handles it.
    subscriber.next().await;
    let is_told = || {
        let frame = frame(address);
        let words = told(&frame, "oona.telemetry");
        // Its place in the line is before the group.
        let group = words.iter().position(|word| *word == "workers");
        let oldest = group.and_then(|place| words.get(place - 1));
        words.contains(&"3")
            && words.contains(&"2/1")
            && oldest.is_some_and(|age| age.ends_with('s'))
    };
    assert!(wait_until(is_told), "{}", frame(address));
    let frame = frame(address);
    for said in [
        &address.to_string(),
        "mode     normal (started)",
        "publish  closed (started)",
        "no dead letters",
        "routing@",
        "Latency, 1m, ms",
    ] {
        assert!(frame.contains(said), "no `{said}` in\n{frame}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_tells_programs_agrees_with_what_a_host_tells_elsewhere() {
    let host = Host::start(&["--dev"]);
    let address = host.address;
    for number in 0..5 {
        publish(address, &number.to_string()).await;
    }
    let told = json(address);
    assert_eq!(accepted(&told["latencies"]), 5);
    assert_eq!(exposed(address), 5.0);
    let elsewhere = get(address, "/v1/latency?span=1m").json();
    assert_eq!(told["span"], "1m");
    assert_eq!(accepted(&elsewhere["latencies"]), 5);
    assert_eq!(told["stages"][0]["stage"], "publish");
    assert_eq!(told["stages"][0]["count"], 5);
    assert_eq!(told["decisions"]["routing"].as_object().unwrap().len(), 1);
    assert_eq!(told["dead_letters"]["length"], 0);
    assert_eq!(told["dead_letters"]["last"], Value::Null);
    assert_eq!(told["status"]["ready"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_dead_letter_is_told() {
    let host = Host::start(&["--dev"]);
    let address = host.address;
    let mut subscriber = Subscriber::group(address, "workers", 10).await;
    for payload in ["one", "two"] {
        publish(address, payload).await;
        let delivery_id = subscriber.next().await.id;
        let nack = Nack {
            delivery_id,
            poison: true,
            ..Nack::default()
        };
        subscriber.say(Request::Nack(nack)).await;
    }
    let is_told = || json(address)["dead_letters"]["length"] == 2;
    assert!(wait_until(is_told), "{:#}", json(address)["dead_letters"]);
    let told = json(address);
    let last = &told["dead_letters"]["last"];
    assert_eq!(last["stream"], "oona.telemetry");
    assert_eq!(last["group"], "workers");
    assert_eq!(last["failure"], "poison");
    assert!(last["age_ms"].is_u64(), "{last}");
    let frame = frame(address);
    let id = last["id"].as_str().unwrap();
    for said in ["2 dead letters", id, "after poison"] {
        assert!(frame.contains(said), "no `{said}` in\n{frame}");
    }
}

#[test]
fn what_cannot_be_shown_is_said_with_what_to_do() {
    let nobody: &[&str] = &["top", "--once", "--server", "127.0.0.1:1"];
    let table: [(&[&str], i32, &str); 4] = [
        (
            nobody,
            3,
            "nothing answers at 127.0.0.1:1; start a bus with `oona serve`",
        ),
        (
            &["top"],
            2,
            "use --once for one frame as text, or --output json",
        ),
        (
            &["top", "--interval", "1ms"],
            2,
            "an interval is 100ms to 1h",
        ),
        (&["top", "--interval", "often"], 2, "--interval"),
    ];
    for (arguments, code, said) in table {
        let output = run(arguments);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
        assert!(told.contains(said), "{arguments:?}: {told}");
    }
}

#[tokio::test]
async fn a_span_that_there_is_not_is_refused_with_those_that_there_are() {
    let host = Host::start(&["--dev"]);
    let mut admin = AdminClient::new(connect(host.address).await.unwrap());
    for span in ["", "1m", "5m", "1h", "start"] {
        let request = OverviewRequest {
            span: span.to_owned(),
        };
        let answer = admin.overview(request).await.unwrap().into_inner();
        let answer: Value = serde_json::from_str(&answer.json).unwrap();
        assert_eq!(answer["span"], if span.is_empty() { "1m" } else { span });
    }
    let request = OverviewRequest {
        span: "2m".to_owned(),
    };
    let refused = admin.overview(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let known = "there is no span `2m`; choose one of 1m, 5m, 1h, start";
    assert_eq!(refused.message(), known);
}

#[test]
fn a_terminal_is_given_back_as_it_was_and_a_host_that_comes_back_is_shown_again() {
    let host = Host::start(&["--dev"]);
    let directory = TempDir::new().unwrap();
    let address = host.address.to_string();
    let arguments = ["top", "--server", &address, "--interval", "100ms"];
    let mut terminal = Terminal::new(80, 24);
    let before = format!("{:?}", terminal.modes());
    let top = terminal.start(command(&directory, &arguments));
    terminal.wait_for(&[ENTER_SCREEN, "oona.telemetry", "breakers"]);
    assert_ne!(format!("{:?}", terminal.modes()), before);
    // Everything is drawn anew: what is old in grey, and what is new as before.
    terminal.wipe();
    host.signal("STOP");
    terminal.wait_for(&[
        "connection",
        "retrying",
        "oona.telemetry",
        "oona.kernels.errors",
    ]);
    terminal.wipe();
    host.signal("CONT");
    terminal.wait_for(&["oona.telemetry", "oona.kernels.errors"]);
    terminal.press("?");
    terminal.wait_for(&["Ctrl-C"]);
    assert!(!terminal.seen().contains(LEAVE_SCREEN));
    terminal.press("q");
    assert!(ended(top).success());
    terminal.wait_for(&[LEAVE_SCREEN, SHOW_CURSOR]);
    assert_eq!(format!("{:?}", terminal.modes()), before);
}

#[test]
fn a_signal_gives_the_terminal_back_too() {
    let host = Host::start(&["--dev"]);
    let directory = TempDir::new().unwrap();
    let address = host.address.to_string();
    let mut terminal = Terminal::new(120, 40);
    let before = format!("{:?}", terminal.modes());
    let start = |terminal: &Terminal| {
        terminal.wipe();
        let top = terminal.start(command(&directory, &["top", "--server", &address]));
        terminal.wait_for(&["oona.telemetry"]);
        top
    };
    let top = start(&terminal);
    let id = top.id().to_string();
    let sent = Command::new("kill").args(["-s", "TERM", &id]).status();
    assert!(sent.unwrap().success());
    assert!(ended(top).success());
    terminal.wait_for(&[LEAVE_SCREEN, SHOW_CURSOR]);
    assert_eq!(format!("{:?}", terminal.modes()), before);
    let top = start(&terminal);
    terminal.press("\u{3}");
    assert!(ended(top).success());
    terminal.wait_for(&[LEAVE_SCREEN, SHOW_CURSOR]);
    assert_eq!(format!("{:?}", terminal.modes()), before);
}
