//! One host, shown three times: the console, `/metrics` and `oona top` say the same.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::net::SocketAddr;

use oona::proto::Nack;
use oona::proto::subscribe_request::Request;
use oona_tests::binary::{Host, run, text};
use oona_tests::browser::{Browser, DESK};
use oona_tests::grpc::Subscriber;
use oona_tests::http::{get, post};
use serde_json::json;

/// What each of the three says, in the same words.
type Told = BTreeMap<String, String>;

/// How far the figures of an age may be apart, in s: each of the three is sampled by itself, once a second or
/// seldomer.
const AGE_SLACK_S: f64 = 5.0;

const STREAMS: [&str; 2] = ["oona.telemetry", "oona.normal"];

fn publish(address: SocketAddr, kind: &str, size: usize) -> u16 {
    let message = json!({ "type": kind, "payload": "x".repeat(size) });
    let body = message.to_string();
    post(address, "/v1/publish", "application/json", body.as_bytes()).status
}

/// The sum of the samples of a metric whose labels hold all of `labels`.
fn metric(exposition: &str, name: &str, labels: &[&str]) -> f64 {
    let start = format!("{name}{{");
    let lines = exposition.lines().filter(|line| line.starts_with(&start));
    let fitting = lines.filter(|line| labels.iter().all(|label| line.contains(label)));
    fitting
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

/// The value of a label of the first sample of a metric whose labels hold `with`.
fn label(exposition: &str, name: &str, with: &str, label: &str) -> String {
    let start = format!("{name}{{");
    let mut lines = exposition.lines().filter(|line| line.starts_with(&start));
    let line = lines.find(|line| line.contains(with)).unwrap_or_default();
    let rest = line
        .split(&format!("{label}=\""))
        .nth(1)
        .unwrap_or_default();
    rest.split('"').next().unwrap_or_default().to_owned()
}

fn by_metrics(address: SocketAddr) -> (Told, f64) {
    let exposition = get(address, "/metrics");
    let exposition = exposition.text();
    let sum = |name, labels: &[&str]| metric(exposition, name, labels).to_string();
    let mut told = Told::new();
    for stream in STREAMS {
        let labels = [&*format!("stream=\"{stream}\"")];
        told.insert(
            format!("depth of {stream}"),
            sum("oona_stream_depth", &labels),
        );
    }
    let outcome = |outcome: &str| sum("oona_publish_total", &[&format!("outcome=\"{outcome}\"")]);
    told.insert("published".to_owned(), outcome("accepted"));
    told.insert("rejected".to_owned(), outcome("rejected"));
    let decisions = "oona_policy_decisions_total";
    let routed = ["kind=\"routing\"", "reason=\"type\""];
    told.insert("routed by type".to_owned(), sum(decisions, &routed));
    let refused = ["kind=\"routing\"", "reason=\"rule:spam\""];
    told.insert("refused by routing".to_owned(), sum(decisions, &refused));
    let [name, version] = ["name", "version"].map(|of| label(exposition, decisions, routed[0], of));
    told.insert("routing".to_owned(), format!("{name} {version}"));
    told.insert(
        "dead letters".to_owned(),
        sum("oona_settled_total", &["step=\"dead_letter\""]),
    );
    let age = metric(
        exposition,
        "oona_consumer_group_oldest_age_seconds",
        &["stream=\"oona.normal\"", "group=\"workers\""],
    );
    (told, age)
}

/// The words after `before` in the line of a frame that has it.
fn word_after(frame: &str, before: &str, nth: usize) -> String {
    let rest = frame.lines().find_map(|line| line.split_once(before));
    let words = rest.map(|(_, rest)| rest).unwrap_or_default();
    words
        .split_whitespace()
        .nth(nth)
        .unwrap_or_default()
        .to_owned()
}

fn by_top(address: SocketAddr) -> (Told, f64) {
    let server = address.to_string();
    let output = run(&["top", "--once", "--server", &server]);
    let frame = text(&output.stdout);
    let mut told = Told::new();
    for stream in STREAMS {
        told.insert(format!("depth of {stream}"), word_after(frame, stream, 0));
    }
    let routing = word_after(frame, "routing ", 0);
    told.insert("routing".to_owned(), routing.replace('@', " "));
    let lines = frame.lines();
    let mut letters = lines
        .rev()
        .filter_map(|line| line.split_once(" dead letter"));
    let letters = letters
        .next()
        .and_then(|(before, _)| before.split_whitespace().next_back());
    told.insert(
        "dead letters".to_owned(),
        letters.unwrap_or_default().to_owned(),
    );
    let line = frame.lines().find(|line| line.contains("oona.normal"));
    let words: Vec<_> = line.unwrap_or_default().split_whitespace().collect();
    let group = words.iter().position(|word| *word == "workers");
    let oldest = group.map_or("", |place| words[place - 1]);

    let output = run(&["top", "--once", "--output", "json", "--server", &server]);
    let all: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let sum = |outcome: &str| {
        let counts = all["publishes"].as_array().unwrap().iter();
        let fitting = counts.filter(|entry| entry["outcome"] == outcome);
        let sum: u64 = fitting.map(|entry| entry["count"].as_u64().unwrap()).sum();
        sum.to_string()
    };
    told.insert("published".to_owned(), sum("accepted"));
    told.insert("rejected".to_owned(), sum("rejected"));
    let routed = all["decisions"]["routing"]["type"].to_string();
    told.insert("routed by type".to_owned(), routed);
    let rejections = all["rejections"].as_array().unwrap().iter();
    let by_routing = rejections.filter(|row| row["by"]["kind"] == "routing");
    let refused: u64 = by_routing.map(|row| row["count"].as_u64().unwrap()).sum();
    told.insert("refused by routing".to_owned(), refused.to_string());
    (told, seconds(oldest))
}

async fn by_console(browser: &Browser) -> (Told, f64) {
    let shown = async |figure: &str| {
        let selector = format!("[data-figure='{figure}']");
        browser
            .shown(&selector)
            .await
            .unwrap_or_default()
            .replace(',', "")
    };
    let mut told = Told::new();
    for stream in STREAMS {
        told.insert(
            format!("depth of {stream}"),
            shown(&format!("depth:{stream}")).await,
        );
    }
    let tile = "[data-figure='published-rate'] + span";
    let published = browser.shown(tile).await.unwrap_or_default();
    let published = published.replace(',', "").replace(" since start", "");
    told.insert("published".to_owned(), published);
    for (name, figure) in [
        ("rejected", "rejected"),
        ("routed by type", "decided:routing:type"),
        ("refused by routing", "rejected:rule:spam"),
        ("routing", "version:routing"),
        ("dead letters", "dead-letters"),
    ] {
        told.insert(name.to_owned(), shown(figure).await);
    }
    (told, seconds(&shown("oldest:oona.normal").await))
}

/// `850 ms`, `4.2 s`, `1 min 3 s`, `4.2s`, `1m03s` in s.
fn seconds(age: &str) -> f64 {
    let spaced = age.replace("min", "m").replace(' ', "");
    let (minutes, rest) = match spaced.split_once('m') {
        Some((minutes, rest)) if rest != "s" => (minutes.parse().unwrap_or(0.0), rest.to_owned()),
        _ => (0.0, spaced.clone()),
    };
    let millis = rest
        .strip_suffix("ms")
        .and_then(|ms| ms.parse::<f64>().ok());
    let value = millis.map(|ms| ms / 1e3);
    let value = value.or_else(|| rest.trim_end_matches('s').parse().ok());
    value.map_or(f64::NAN, |value| minutes * 60.0 + value)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_three_say_the_same_of_a_quiet_host() {
    let rules = "policies.routing.config.rules=[{name = 'spam', source = 'spammer'}]";
    let host = Host::start(&["--dev", "--set", rules]);
    let address = host.address;
    let mut subscriber = Subscriber::group(address, "workers", 2).await;
    assert_eq!(publish(address, "telemetry", 10), 200);
    let nack = Nack {
        delivery_id: subscriber.next().await.id,
        poison: true,
        ..Nack::default()
    };
    subscriber.say(Request::Nack(nack)).await;
    for _ in 0..7 {
        assert_eq!(publish(address, "field_report", 10), 200);
    }
    for _ in 0..2 {
        assert_eq!(publish(address, "telemetry", 300_000), 413);
    }
    let spam = json!({ "type": "telemetry", "source": "spammer" }).to_string();
    let refused = post(address, "/v1/publish", "application/json", spam.as_bytes());
    assert_ne!(refused.status, 200);
    // One is delivered, and nobody handles it.
    subscriber.next().await;
    let browser = Browser::open(DESK).await;
    browser.go(&format!("http://{address}/")).await;

    let expected: Told = [
        ("depth of oona.telemetry", "0"),
        ("depth of oona.normal", "7"),
        ("published", "8"),
        ("rejected", "3"),
        ("refused by routing", "1"),
        ("routed by type", "8"),
        ("dead letters", "1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let mut last = None;
    let agreed = browser.eventually(async || {
        let (before, age) = by_metrics(address);
        let (console, console_age) = by_console(&browser).await;
        let (top, top_age) = by_top(address);
        let (metrics, age_after) = by_metrics(address);
        let between = |at: f64| age - AGE_SLACK_S <= at && at <= age_after + AGE_SLACK_S;
        let expected = expected
            .iter()
            .all(|(name, value)| metrics.get(name) == Some(value));
        let agree = before == metrics && console == metrics && top == metrics && expected;
        let aged = between(console_age) && between(top_age);
        last = Some([(metrics, age_after), (console, console_age), (top, top_age)]);
        (agree && aged).then_some(())
    });
    let agreed = agreed.await;
    assert!(agreed.is_some(), "metrics, console, top: {last:#?}");
    browser.close().await;
}
