//! What Prometheus makes of a host: its own tool reads the exposition of a busy one, and the rules in docs/prometheus.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use oona::proto::bus_client::BusClient;
use oona::proto::subscribe_request::Request;
use oona::proto::{Nack, PublishRequest};
use oona_tests::binary::{Host, text, wait_until};
use oona_tests::grpc::{Subscriber, connect};
use oona_tests::http::{get, get_openmetrics};

const RULES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../docs/prometheus/oona.rules.yml"
);
const RULES_TEST: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../docs/prometheus/oona.rules.test.yml"
);

const TELEMETRY: u32 = 4;
const EMERGENCY: u32 = 10;

/// Runs promtool, with `input` on its standard input.
fn promtool(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is needed: run `make setup`, which installs it");
    let mut stdin = child.stdin.take().unwrap();
    // It does not read where it needs nothing.
    drop(stdin.write_all(input.as_bytes()));
    drop(stdin);
    child.wait_with_output().unwrap()
}

#[track_caller]
fn is_content(output: &Output) {
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}\n{error}");
    assert!(!error.to_lowercase().contains("error"), "{error}");
}

/// A host on which something of everything has happened.
async fn busy() -> Host {
    let host = Host::start(&["--dev", "--set", "alerts.look_ms=10"]);
    let mut subscriber = Subscriber::group(host.address, "workers", 100).await;
    let mut bus = BusClient::new(connect(host.address).await.unwrap());
    for message_type in [TELEMETRY, TELEMETRY, EMERGENCY] {
        let request = PublishRequest {
            message_type,
            source: "test".to_owned(),
            ..PublishRequest::default()
        };
        bus.publish(request).await.unwrap();
    }
    let invalid = PublishRequest {
        message_type: TELEMETRY,
        payload: vec![0; (1 << 18) + 1].into(),
        ..PublishRequest::default()
    };
    bus.publish(invalid).await.unwrap();
    let refused = subscriber.next().await;
    let nack = Nack {
        delivery_id: refused.id,
        ..Nack::default()
    };
    subscriber.say(Request::Nack(nack)).await;
    for _ in 0..3 {
        let delivery = subscriber.next().await;
        subscriber.ack(vec![delivery.id]).await;
    }
    let has_all = || {
        let exposition = get(host.address, "/metrics");
        let names = [
            "oona_slo_events_total{",
            "oona_end_to_end_duration_seconds_count{",
            "oona_consumer_group_lag{",
            "oona_settled_total{",
            "oona_alert_firing{",
        ];
        names.iter().all(|name| exposition.text().contains(name))
    };
    assert!(
        wait_until(has_all),
        "{}",
        get(host.address, "/metrics").text()
    );
    host
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_finds_nothing_in_what_a_busy_host_exposes() {
    let host = busy().await;
    let exposition = get(host.address, "/metrics");
    let content_type = exposition.header("content-type").unwrap();
    assert_eq!(content_type, "text/plain; version=0.0.4; charset=utf-8");
    let checked = promtool(&["check", "metrics"], exposition.text());
    is_content(&checked);
    assert_eq!((text(&checked.stdout), text(&checked.stderr)), ("", ""));
    // It can find something.
    let bad = "# TYPE oona_bad_counter counter\noona_bad_counter 1\n";
    let checked = promtool(&["check", "metrics"], bad);
    assert!(!checked.status.success(), "{checked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_formats_tell_the_same_samples() {
    let host = busy().await;
    let names = |exposition: &str| -> BTreeSet<String> {
        let samples = exposition.lines().filter(|line| !line.starts_with('#'));
        let series = samples.filter_map(|line| Some(line.split_once("} ")?.0.to_owned()));
        series.collect()
    };
    let asked = get_openmetrics(host.address);
    let content_type = asked.header("content-type").unwrap();
    assert!(
        content_type.starts_with("application/openmetrics-text"),
        "{content_type}"
    );
    // Series may be added between the two questions.
    let agree = || {
        let (new, old) = (get_openmetrics(host.address), get(host.address, "/metrics"));
        names(new.text()) == names(old.text())
    };
    assert!(wait_until(agree));
}

#[test]
fn the_rules_are_rules_and_do_what_their_tests_say() {
    is_content(&promtool(&["check", "rules", RULES], ""));
    is_content(&promtool(&["test", "rules", RULES_TEST], ""));
}

/// Prometheus sees a counter rise if it saw it before.
#[test]
fn what_is_to_fire_at_its_first_occurrence_is_shown_before_it() {
    let host = Host::start(&["--dev"]);
    let exposition = get(host.address, "/metrics");
    let kinds = ["routing", "backpressure", "freshness", "dead-letter"];
    let kinds = kinds.map(|kind| format!(r#"oona_policy_fallbacks_total{{kind="{kind}"}} 0"#));
    let outcomes = ["sent", "failed", "left_out"];
    let outcomes =
        outcomes.map(|outcome| format!(r#"oona_alert_notices_total{{outcome="{outcome}"}} 0"#));
    for series in kinds.iter().chain(&outcomes) {
        let shown = exposition.text().lines().any(|line| line == series);
        assert!(shown, "no {series} in {}", exposition.text());
    }
}

/// The words of a text that are names of metrics.
fn metrics(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    words.filter(|word| word.starts_with("oona_")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_of_the_rules_is_exposed() {
    let host = busy().await;
    let rules = std::fs::read_to_string(RULES).unwrap();
    let expressions = rules
        .lines()
        .filter(|line| !line.trim_start().starts_with(['#', '-']));
    let expressions: Vec<_> = expressions.collect();
    let expressions = expressions.join("\n");
    let named = metrics(&expressions);
    assert!(named.len() > 8, "{named:?}");
    let exposition = get(host.address, "/metrics");
    let types = exposition.text().lines();
    let types = types.filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let exposed: BTreeSet<_> = types.collect();
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let page = std::fs::read_to_string(page).unwrap();
    for name in named {
        assert!(exposed.contains(name), "no host exposes {name}");
        assert!(
            page.contains(&format!("| `{name}` |")),
            "docs/metrics.md has no row of {name}"
        );
    }
}
